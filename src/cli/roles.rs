//! `sluice gateway|processor|router|warehouse|all`.

use std::time::Duration;

use super::args::Global;
use super::exit::{Exit, Failure};
use crate::app::{self, AppError, RoleName};
use crate::control::ControlError;
use crate::fault::Classify;
use crate::registry::RegistryError;

/// How long the runtime may take to let go of blocking calls once the roles have ended.
const LINGER: Duration = Duration::from_secs(1);

pub(super) fn run(global: &Global, roles: &[RoleName]) -> Result<Exit, Failure> {
    let config = global.load()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let ended = runtime.block_on(app::serve(config, roles));
    match &ended {
        // Whoever interrupts does not want to wait.
        Err(AppError::Interrupted) => runtime.shutdown_background(),
        Ok(()) | Err(_) => runtime.shutdown_timeout(LINGER),
    }
    ended.map(|()| Exit::Ok).map_err(failure)
}

/// The exit code that tells whoever restarts us what to look at.
pub(super) fn failure(error: AppError) -> Failure {
    let exit = match &error {
        AppError::Workspace(
            ControlError::Read { .. }
            | ControlError::Invalid { .. }
            | ControlError::Nowhere
            | ControlError::Client(_),
        )
        | AppError::Spec(_) => Exit::Config,
        AppError::Workspace(ControlError::Unreachable { .. } | ControlError::Status { .. })
        | AppError::Topics(_) => Exit::Connect,
        AppError::Registry(RegistryError::Denied { .. }) => Exit::Connect,
        AppError::Registry(error) if error.fault().is_transient() => Exit::Connect,
        AppError::Interrupted => Exit::Interrupted,
        AppError::Listen { .. }
        | AppError::Unsafe { .. }
        | AppError::Registry(_)
        | AppError::Start { .. }
        | AppError::Failed { .. }
        | AppError::EndedUnasked { .. }
        | AppError::RolePanicked { .. }
        | AppError::TaskPanicked
        | AppError::NotDrained { .. }
        | AppError::Signals(_) => Exit::Failed,
    };
    Failure::new(exit, error)
}
