//! Everything that needs more than one part of the crate: real brokers, real processes, real clients.
#![allow(clippy::unwrap_used, clippy::print_stdout, unreachable_pub)]

mod app_process;
mod architecture;
mod config_command;
mod dev_mode;
mod docs;
mod gateway_captures;
mod gateway_contract;
mod gateway_fuzz;
mod gateway_inputs;
mod gateway_kafka_away;
mod gateway_safety;
mod gateway_tls;
mod kafka_consumer;
mod kafka_producer;
mod kafka_support;
mod kafka_txn;
mod kill_gateway;
mod kill_processor;
mod kill_router;
mod kill_warehouse;
mod local_kafka;
mod processor_bed;
mod processor_exactly_once;
mod processor_outputs;
mod router_bed;
mod router_failures;
mod router_order;
mod sdk;
mod support;
mod topics_command;
mod walk;
mod walk_rows;
mod warehouse_bed;
mod warehouse_postgres;
mod warehouse_role;
