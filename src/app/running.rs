//! Roles that run, and how they are brought to an end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::AppError;
use crate::deps::{Role, RoleError};
use crate::shutdown::Shutdown;
use crate::telemetry::Health;

/// Roles end themselves within the drain bound; this much longer is waited before they are given up, so that one that used it
/// up can still say so.
const GRACE: Duration = Duration::from_secs(1);

/// Roles that run in this process.
#[derive(Debug)]
pub struct Running {
    /// Where health and metrics are served.
    pub admin_address: SocketAddr,
    /// Where the gateway listens, if it is one of the roles.
    pub gateway_address: Option<SocketAddr>,
    /// Readiness of its parts.
    pub health: Health,
    roles: Vec<Role>,
    stopper: Stopper,
}

/// Asks running roles to drain. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Stopper {
    shutdown: Shutdown,
    asked: Arc<AtomicBool>,
}

impl Stopper {
    /// Begins the drain. Idempotent.
    pub fn stop(&self) {
        self.asked.store(true, Ordering::SeqCst);
        self.shutdown.begin();
    }
}

impl Running {
    pub(super) fn new(admin_address: SocketAddr, health: Health, shutdown: Shutdown) -> Self {
        Self {
            admin_address,
            gateway_address: None,
            health,
            roles: Vec::new(),
            stopper: Stopper {
                shutdown,
                asked: Arc::default(),
            },
        }
    }

    pub(super) fn add(&mut self, role: Role) {
        if let Some(address) = role.address {
            self.gateway_address = Some(address);
        }
        self.roles.push(role);
    }

    /// A handle that ends the roles.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Stops what was started because something else could not be. Its errors do not matter any more.
    pub(super) async fn abandon(self) {
        self.stopper.stop();
        if let Err(error) = self.wait().await {
            tracing::debug!(%error, "while stopping what had been started");
        }
    }

    /// Resolves when all roles have ended: after [`Stopper::stop`], or because one of them ended and took the others with it.
    ///
    /// # Errors
    /// The first role that failed or ended unasked, or the roles that did not drain in time.
    pub async fn wait(self) -> Result<(), AppError> {
        let Stopper { shutdown, asked } = self.stopper;
        let mut waiting: Vec<&'static str> = self.roles.iter().map(|role| role.name).collect();
        let mut set = JoinSet::new();
        for role in self.roles {
            set.spawn(async move { (role.name, role.done.await) });
        }
        let mut first = Ok(());
        let mut deadline: Option<Instant> = None;
        loop {
            let patience = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                ended = set.join_next() => {
                    // The wrapper of `done` does not panic, and nobody aborts it.
                    let Some(Ok((name, done))) = ended else { break };
                    waiting.retain(|other| *other != name);
                    let result = judge(name, done, shutdown.is_begun());
                    if let Err(error) = &result {
                        tracing::error!(role = name, %error, "role ended; stopping the others");
                    }
                    first = first.and(result);
                    shutdown.begin();
                }
                () = shutdown.begun(), if deadline.is_none() => {
                    deadline = Some(Instant::now() + shutdown.drain_timeout() + GRACE);
                }
                () = patience => {
                    return first.and(Err(AppError::NotDrained { roles: waiting.join(", ") }));
                }
            }
        }
        // Only a panic of a task begins the shutdown without being asked and without a role's error.
        if first.is_ok() && !asked.load(Ordering::SeqCst) {
            return Err(AppError::TaskPanicked);
        }
        first
    }
}

/// What the end of a role means.
fn judge(
    role: &'static str,
    done: Result<Result<(), RoleError>, tokio::task::JoinError>,
    stopping: bool,
) -> Result<(), AppError> {
    match done {
        Ok(Ok(())) if stopping => Ok(()),
        Ok(Ok(())) => Err(AppError::EndedUnasked { role }),
        Ok(Err(source)) => Err(AppError::Failed { role, source }),
        Err(_) => Err(AppError::RolePanicked { role }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(drain: Duration) -> (Running, Shutdown) {
        let shutdown = Shutdown::new(drain);
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        (
            Running::new(nowhere, Health::default(), shutdown.clone()),
            shutdown,
        )
    }

    fn role<F>(name: &'static str, run: F) -> Role
    where
        F: Future<Output = Result<(), RoleError>> + Send + 'static,
    {
        Role {
            name,
            address: None,
            done: tokio::spawn(run),
        }
    }

    fn obedient(name: &'static str, shutdown: &Shutdown) -> Role {
        let shutdown = shutdown.clone();
        role(name, async move {
            shutdown.begun().await;
            Ok(())
        })
    }

    #[tokio::test]
    async fn roles_that_were_asked_to_end_and_do_are_a_success() {
        let (mut running, shutdown) = running(Duration::from_secs(20));
        running.add(obedient("router", &shutdown));
        running.add(obedient("gateway", &shutdown));
        running.stopper().stop();
        running.wait().await.unwrap();
    }

    #[tokio::test]
    async fn one_role_that_fails_takes_the_others_with_it_and_is_named() {
        let (mut running, shutdown) = running(Duration::from_secs(20));
        running.add(obedient("router", &shutdown));
        running.add(role("gateway", async { Err("no port".into()) }));
        let error = running.wait().await.unwrap_err();
        assert!(
            matches!(
                error,
                AppError::Failed {
                    role: "gateway",
                    ..
                }
            ),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_role_that_ends_by_itself_or_panics_is_an_error() {
        let (mut running1, _) = running(Duration::from_secs(20));
        running1.add(role("router", async { Ok(()) }));
        let error = running1.wait().await.unwrap_err();
        assert!(
            matches!(error, AppError::EndedUnasked { role: "router" }),
            "{error}"
        );
        let (mut running2, _) = running(Duration::from_secs(20));
        running2.add(role("router", async { panic!("on purpose") }));
        let error = running2.wait().await.unwrap_err();
        assert!(
            matches!(error, AppError::RolePanicked { role: "router" }),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_panicking_task_of_a_role_makes_the_process_fail() {
        let (mut running, shutdown) = running(Duration::from_secs(20));
        running.add(obedient("router", &shutdown));
        shutdown.spawn("part", async { panic!("on purpose") });
        let error = running.wait().await.unwrap_err();
        assert!(matches!(error, AppError::TaskPanicked), "{error}");
    }

    #[tokio::test]
    async fn a_role_that_does_not_drain_in_time_is_left_behind_and_named() {
        let (mut running, shutdown) = running(Duration::from_millis(10));
        running.add(obedient("router", &shutdown));
        running.add(role("warehouse", std::future::pending()));
        running.stopper().stop();
        let error = running.wait().await.unwrap_err().to_string();
        assert!(
            error.contains("warehouse") && !error.contains("router"),
            "{error}"
        );
    }
}
