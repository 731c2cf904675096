//! Topics as they are declared, as they are on the cluster, and what lies between.
//!
//! `topics.yaml` and the workspace's destinations say what should exist ([`Spec`], [`wanted`]); [`plan()`] compares that with what
//! the cluster has, without I/O; [`apply()`] carries a plan
//! out, [`ensure`] does both until nothing is left. Roles ask [`check()`] before they start.
//!
//! Nothing here deletes a topic, removes a partition or moves a replica.

mod apply;
pub mod check;
mod fit;
pub mod plan;
mod print;
pub mod spec;
mod units;

pub use apply::{TopicsError, apply, ensure, observe};
pub use check::{Problem, check};
pub use fit::fit;
pub use plan::{Action, Cluster, Note, Observed, Plan, PlanOptions, plan};
pub use spec::{Shape, Spec, SpecError};

use crate::control::{Route, Workspace};
use crate::event::{Stage, Topic};

/// Every topic that should exist for `workspace`, partners of co-partitioned ones first. Destinations that are switched off
/// are included: switching one on must not need a new topic.
pub fn wanted(workspace: &Workspace) -> Vec<Topic> {
    let mut topics = vec![Topic::Events, Topic::Seen, Topic::Ledger, Topic::Config];
    topics.extend(Stage::ALL.map(Topic::Dlq));
    for lane in workspace.lanes() {
        topics.push(Topic::Deliver(lane.clone()));
        topics.push(Topic::Parked(lane));
    }
    let mut warehouses: Vec<&str> = workspace
        .destinations()
        .filter(|d| d.route() == Route::Warehouse)
        .map(|d| d.id.as_str())
        .collect();
    warehouses.sort_unstable();
    topics.extend(
        warehouses
            .into_iter()
            .map(|id| Topic::Warehouse(id.to_owned())),
    );
    topics
}
