//! What may be in memory at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of bodies that may be held at once, from the first byte read to the answer.
#[derive(Debug)]
pub(super) struct ByteBudget {
    used: AtomicUsize,
    max: usize,
}

/// Bytes taken from a budget; given back when dropped.
#[derive(Debug)]
pub(super) struct Taken {
    budget: Arc<ByteBudget>,
    bytes: usize,
}

impl ByteBudget {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            used: AtomicUsize::new(0),
            max,
        })
    }

    /// A taker that has taken nothing yet.
    pub(super) fn taker(self: &Arc<Self>) -> Taken {
        Taken {
            budget: Arc::clone(self),
            bytes: 0,
        }
    }

    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

impl Taken {
    /// Takes `bytes` more; false, and nothing taken, when the budget has not got them.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        let before = self.budget.used.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > self.budget.max {
            self.budget.used.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        self.bytes += bytes;
        true
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_took_comes_back_when_it_ends() {
        let budget = ByteBudget::new(10);
        let mut one = budget.taker();
        assert!(one.take(6));
        let mut two = budget.taker();
        assert!(!two.take(5));
        assert!(two.take(4));
        drop(one);
        assert_eq!(budget.used(), 4);
        assert!(two.take(6));
    }
}
