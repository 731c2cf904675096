//! Named points where a test can make the process die, stop or fail, as Kafka's and TiKV's own tests do.
//!
//! `SLUICE_FAILPOINTS=processor.after_send=kill@3,warehouse.after_upload=kill` kills this process with SIGKILL the third
//! time it passes the first point. The points are compiled in always (one relaxed load when none is set), so that the
//! binary that is killed in tests is the binary that is shipped; without the variable nothing happens.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The environment variable that arms the points.
pub const VARIABLE: &str = "SLUICE_FAILPOINTS";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Kill,
    Stop,
    Panic,
}

#[derive(Debug)]
struct Armed {
    action: Action,
    at_pass: u64,
    passes: AtomicU64,
}

fn armed() -> Option<&'static HashMap<String, Armed>> {
    static POINTS: OnceLock<Option<HashMap<String, Armed>>> = OnceLock::new();
    POINTS
        .get_or_init(|| std::env::var(VARIABLE).ok().map(|text| parse(&text)))
        .as_ref()
}

fn parse(text: &str) -> HashMap<String, Armed> {
    text.split(',')
        .filter_map(|item| {
            let (name, what) = item.trim().split_once('=')?;
            let (action, pass) = what.split_once('@').unwrap_or((what, "1"));
            let action = match action {
                "kill" => Action::Kill,
                "stop" => Action::Stop,
                "panic" => Action::Panic,
                _ => return None,
            };
            let armed = Armed {
                action,
                at_pass: pass.parse().ok()?,
                passes: AtomicU64::new(0),
            };
            Some((name.to_owned(), armed))
        })
        .collect()
}

/// Passes the point `name`: does nothing unless the environment armed it.
pub fn hit(name: &str) {
    let Some(point) = armed().and_then(|points| points.get(name)) else {
        return;
    };
    if point.passes.fetch_add(1, Ordering::SeqCst) + 1 != point.at_pass {
        return;
    }
    tracing::warn!(failpoint = name, action = ?point.action, "failpoint reached");
    let signal = match point.action {
        Action::Kill => nix::sys::signal::Signal::SIGKILL,
        Action::Stop => nix::sys::signal::Signal::SIGSTOP,
        Action::Panic => panic!("failpoint {name}"),
    };
    if let Err(error) = nix::sys::signal::raise(signal) {
        tracing::error!(%error, "failpoint could not signal");
    }
}

/// Whether the environment armed `name` as a flag (any action): used to switch deliberate faults on in tests.
pub fn is_armed(name: &str) -> bool {
    armed().is_some_and(|points| points.contains_key(name))
}

/// What marks a flag that breaks a promise on purpose, so that a test can see itself fail.
const FAULT: &str = ".fault.";

/// The deliberate faults that the environment armed, in order. Whoever runs for real must hear of them.
pub fn faults() -> Vec<&'static str> {
    let mut names: Vec<&str> = armed()
        .into_iter()
        .flat_map(HashMap::keys)
        .map(String::as_str)
        .filter(|name| name.contains(FAULT))
        .collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_read_with_its_action_and_pass() {
        let points = parse("a.b=kill@3, c=stop,broken,d=dance");
        assert_eq!(points.len(), 2);
        assert_eq!(points["a.b"].at_pass, 3);
        assert_eq!(points["a.b"].action, Action::Kill);
        assert_eq!(points["c"].action, Action::Stop);
    }
}
