//! A role that is killed at one named point after the other, and started again each time.

use std::time::{Duration, Instant};

use super::process::{Process, Role};

/// Keeps a role alive through a list of deaths.
pub struct Killed<'a> {
    role: Role<'a>,
    /// Failpoint settings that are still to be died of, last first.
    left: Vec<String>,
    all: usize,
    life: Process,
    /// When it was seen dead, by the point it died of.
    pub deaths: Vec<(String, Instant)>,
}

impl<'a> Killed<'a> {
    /// Starts the first life. `points` are names with the pass to die at, e.g. `processor.after_send@2`.
    pub fn start(role: Role<'a>, points: &[&str]) -> Self {
        let left: Vec<String> = points.iter().rev().map(|p| arm(p)).collect();
        let first = left.last().cloned().unwrap_or_default();
        Self {
            life: role.start(&first),
            all: left.len(),
            role,
            left,
            deaths: Vec::new(),
        }
    }

    /// Starts the next life if this one is over.
    ///
    /// # Panics
    /// With the log, when it ended in any other way than by its point.
    #[track_caller]
    pub fn tend(&mut self) {
        if !self.life.was_killed() {
            return;
        }
        let point = self.left.pop();
        let log = self.life.log();
        assert!(
            point.is_some() && log.contains("failpoint reached"),
            "{} was killed, but not at {point:?}\n{log}",
            self.life.name
        );
        self.deaths
            .push((point.unwrap_or_default(), Instant::now()));
        let next = self.left.last().cloned().unwrap_or_default();
        self.life = self.role.start(&next);
    }

    /// Deaths that are still to come.
    pub fn ahead(&self) -> usize {
        self.left.len()
    }

    /// Deaths in all.
    pub fn all(&self) -> usize {
        self.all
    }

    /// The point that the present life waits for.
    pub fn waits_for(&self) -> &str {
        self.left.last().map_or("nothing", String::as_str)
    }

    /// Ends the last life in good order.
    #[track_caller]
    pub fn stop(self, within: Duration) {
        let name = self.life.name.clone();
        let status = self.life.stop(within);
        assert!(status.success(), "{name} drained badly: {status}");
    }
}

/// `name@pass` as the process reads it.
fn arm(point: &str) -> String {
    let (name, pass) = point.split_once('@').unwrap_or((point, "1"));
    format!("{name}=kill@{pass}")
}
