//! Which requests travel together. Does nothing but decide.

use std::collections::HashMap;

use parking_lot::Mutex;

/// Requests that wait to be sent, by source type.
#[derive(Debug)]
pub(super) struct Gather<T> {
    most: usize,
    open: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    next: u64,
    batches: HashMap<String, Batch<T>>,
}

#[derive(Debug)]
struct Batch<T> {
    number: u64,
    items: Vec<T>,
}

/// What joining led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Joined<T> {
    /// It is the first of batch so-and-so, which its caller closes after a while.
    First(u64),
    /// Somebody else closes the batch.
    Waits,
    /// It was the last that the batch had room for; the caller sends it.
    Full(Vec<T>),
}

impl<T> Gather<T> {
    /// For batches of at most `most`.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            open: Mutex::new(State {
                next: 0,
                batches: HashMap::new(),
            }),
        }
    }

    /// Adds to the open batch of `source_type`.
    pub(super) fn join(&self, source_type: &str, item: T) -> Joined<T> {
        let mut state = self.open.lock();
        if let Some(batch) = state.batches.get_mut(source_type) {
            batch.items.push(item);
            if batch.items.len() < self.most {
                return Joined::Waits;
            }
            let full = state.batches.remove(source_type);
            return Joined::Full(full.map_or_else(Vec::new, |batch| batch.items));
        }
        if self.most <= 1 {
            return Joined::Full(vec![item]);
        }
        let number = state.next;
        state.next += 1;
        let batch = Batch {
            number,
            items: vec![item],
        };
        state.batches.insert(source_type.to_owned(), batch);
        Joined::First(number)
    }

    /// Takes batch `number`, unless it was full before.
    pub(super) fn close(&self, source_type: &str, number: u64) -> Option<Vec<T>> {
        let mut state = self.open.lock();
        if state.batches.get(source_type)?.number != number {
            return None;
        }
        state.batches.remove(source_type).map(|batch| batch.items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_ends_when_it_is_full_or_when_its_first_member_says_so() {
        let gather = Gather::new(3);
        assert_eq!(gather.join("a", 1), Joined::First(0));
        assert_eq!(gather.join("b", 2), Joined::First(1));
        assert_eq!(gather.join("a", 3), Joined::Waits);
        assert_eq!(gather.join("a", 4), Joined::Full(vec![1, 3, 4]));
        assert_eq!(gather.join("a", 5), Joined::First(2));
        assert_eq!(gather.close("a", 0), None, "it was sent when it was full");
        assert_eq!(gather.close("a", 2), Some(vec![5]));
        assert_eq!(gather.close("b", 1), Some(vec![2]));
    }

    #[test]
    fn batches_of_one_wait_for_nobody() {
        assert_eq!(Gather::new(1).join("a", 1), Joined::Full(vec![1]));
    }
}
