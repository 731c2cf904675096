//! Sluice: a customer-data pipeline that speaks the RudderStack HTTP API and keeps its queues in Kafka.
