//! Clients that load a gateway while something happens to it, and keep what they were promised.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::checker::Input;
use super::feed::Feed;
use super::process::wait_for;

/// Clients that post single events one after the other until told to stop.
#[derive(Default)]
pub struct Clients {
    stop: AtomicBool,
    accepted: Mutex<Vec<Input>>,
    count: AtomicUsize,
    refused: AtomicUsize,
    broken: AtomicUsize,
}

/// What the clients were answered.
pub struct Answered {
    /// What got 200.
    pub accepted: Vec<Input>,
    /// How many got 503.
    pub refused: usize,
    /// How many got no answer.
    pub broken: usize,
}

impl Clients {
    /// Posts from all `feeds` while `faults` runs.
    pub fn load(feeds: impl IntoIterator<Item = Feed>, faults: impl FnOnce(&Self)) -> Answered {
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let clients = Self::default();
        std::thread::scope(|scope| {
            for feed in feeds {
                let clients = &clients;
                scope.spawn(move || clients.run(feed));
            }
            // Also when a fault's own wait gives up.
            let _stop = Stop(&clients.stop);
            faults(&clients);
        });
        Answered {
            accepted: clients.accepted.into_inner().unwrap(),
            refused: clients.refused.into_inner(),
            broken: clients.broken.into_inner(),
        }
    }

    fn run(&self, mut feed: Feed) {
        let mut accepted = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let input = feed.make(1).remove(0);
            match feed.post_one(&input) {
                Some(200) => {
                    accepted.push(input);
                    self.count.fetch_add(1, Ordering::Relaxed);
                }
                Some(503) => {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                }
                Some(other) => panic!("the gateway answered {other}"),
                // It is being started again.
                None => {
                    self.broken.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        }
        self.accepted.lock().unwrap().extend(accepted);
    }

    /// How many got 503 so far.
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    /// Waits until `wanted` more got 200.
    #[track_caller]
    pub fn wait_for_more(&self, wanted: usize, what: &str, within: Duration) {
        more(&self.count, wanted, what, within);
    }

    /// Waits until `wanted` more got 503.
    #[track_caller]
    pub fn wait_for_refusals(&self, wanted: usize, what: &str, within: Duration) {
        more(&self.refused, wanted, what, within);
    }
}

#[track_caller]
fn more(counter: &AtomicUsize, wanted: usize, what: &str, within: Duration) {
    let wanted = counter.load(Ordering::Relaxed) + wanted;
    wait_for(what, within, || {
        (counter.load(Ordering::Relaxed) >= wanted).then_some(())
    });
}
