//! A workspace reaches the roles only once its topics exist and are safe.
//!
//! Roles would otherwise write to a destination's topic that is not there yet. At the start the process waits for Kafka and
//! refuses unsafe topics (a gateway with a spill starts meanwhile, and ends if they turn out unsafe); later, a changed workspace is held back, with the one in force still serving, until its topics are
//! there: by our own hand in dev mode (or with `topics.ensure`), else by `sluice topics apply`.

use std::sync::Arc;
use std::time::Duration;

use super::{AppError, AppMetrics, RoleName};
use crate::config::{Config, Mode};
use crate::control::{Control, Workspace};
use crate::event::{Topic, TopicNames};
use crate::fault::{Classify, Fault, chain};
use crate::kafka::Admin;
use crate::retry::Backoff;
use crate::shutdown::Shutdown;
use crate::topics::{self, PlanOptions, Spec};

/// Between two looks at a cluster that is away or lacks a topic.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(10));

#[derive(Clone)]
pub(super) struct Gate {
    inner: Arc<Inner>,
    shutdown: Shutdown,
}

struct Inner {
    admin: Admin,
    spec: Spec,
    names: TopicNames,
    roles: Vec<RoleName>,
    mode: Mode,
    ensure: bool,
}

impl Gate {
    pub(super) fn open(
        config: &Config,
        roles: &[RoleName],
        shutdown: Shutdown,
    ) -> Result<Self, AppError> {
        let spec = Spec::load(config.topics.file.as_deref())?;
        topics::fit(&spec, config)?;
        Ok(Self {
            inner: Arc::new(Inner {
                admin: Admin::open(&config.kafka).map_err(topics::TopicsError::from)?,
                spec,
                names: TopicNames::new(&config.topics.prefix),
                roles: roles.to_vec(),
                mode: config.mode,
                ensure: config.ensures_topics(),
            }),
            shutdown,
        })
    }

    /// Waits for Kafka, then lets `workspace` in or refuses it.
    pub(super) async fn first(self, workspace: Arc<Workspace>) -> Result<(), AppError> {
        let mut failures = 0;
        loop {
            let error = match self.admit(Arc::clone(&workspace)).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            match error.fault() {
                Fault::Permanent | Fault::Fatal => return Err(error),
                Fault::Transient { .. } => {
                    failures += 1;
                    tracing::warn!(error = %chain(&error), "waiting for Kafka");
                }
            }
            self.pause(failures).await?;
        }
    }

    /// Hands every change of `source` on to `roles` once its topics are there, until shutdown.
    pub(super) fn follow(self, source: Control, roles: Control, metrics: Arc<AppMetrics>) {
        let shutdown = self.shutdown.clone();
        shutdown.spawn("workspace gate", async move {
            let mut changes = source.subscribe();
            let mut failures = 0;
            loop {
                let newest = source.snapshot();
                let waiting = newest.revision > roles.snapshot().revision;
                metrics.workspace_held_back.with_label_values::<&str>(&[]).set(i64::from(waiting));
                let wait = if !waiting {
                    failures = 0;
                    None
                } else {
                    match self.admit(Arc::clone(&newest)).await {
                        Ok(()) => {
                            metrics.workspace_revision.with_label_values::<&str>(&[]).set(newest.revision);
                            roles.publish((*newest).clone());
                            continue;
                        }
                        Err(error) => {
                            failures += 1;
                            tracing::warn!(error = %chain(&error), revision = newest.revision, "workspace held back; the one in force stays");
                            Some(BACKOFF.delay(failures))
                        }
                    }
                };
                let retry = async {
                    match wait {
                        Some(wait) => tokio::time::sleep(wait).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = self.shutdown.begun() => return,
                    () = retry => {}
                    changed = changes.changed() => if changed.is_err() { return },
                }
            }
        });
    }

    /// Brings the topics into shape if that is ours to do, then checks those that our roles use.
    async fn admit(&self, workspace: Arc<Workspace>) -> Result<(), AppError> {
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || inner.admit(&workspace))
            .await
            .map_err(|_| AppError::TaskPanicked)?
    }

    async fn pause(&self, failures: u32) -> Result<(), AppError> {
        tokio::select! {
            () = tokio::time::sleep(BACKOFF.delay(failures)) => Ok(()),
            () = self.shutdown.begun() => Err(AppError::Interrupted),
        }
    }
}

impl Inner {
    fn admit(&self, workspace: &Workspace) -> Result<(), AppError> {
        let cluster = if self.ensure {
            let options = PlanOptions {
                mode: self.mode,
                allow_partition_increase: false,
            };
            let wanted = topics::wanted(workspace);
            topics::ensure(&self.admin, &self.spec, &self.names, &wanted, options)?.1
        } else {
            topics::observe(&self.admin, &self.names).map_err(topics::TopicsError::from)?
        };
        let used = used_by(&self.roles, workspace);
        let problems = topics::check(&self.spec, &self.names, &used, &cluster, self.mode);
        if problems.is_empty() {
            Ok(())
        } else {
            Err(AppError::Unsafe {
                problems: problems.iter().map(ToString::to_string).collect(),
            })
        }
    }
}

/// The topics that any of `roles` reads or writes.
fn used_by(roles: &[RoleName], workspace: &Workspace) -> Vec<Topic> {
    topics::wanted(workspace)
        .into_iter()
        .filter(|topic| roles.iter().any(|role| role.uses(topic)))
        .collect()
}
