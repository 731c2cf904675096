//! Which values of an event stay whole as JSON instead of being flattened.
//!
//! A path is `track.properties.a.b` (event type first), or the older `a.b`, which is relative to the flattened object and
//! applies to track events only. RudderStack compares paths after joining them with `_`, so that `a.b` and `a_b` differ only
//! by their depth; so does this.

use std::collections::HashMap;

const EVENT_TYPES: [&str; 7] = [
    "track", "identify", "page", "screen", "alias", "group", "extract",
];

/// A set of paths.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct PathSet {
    full: HashMap<String, usize>,
    legacy: HashMap<String, usize>,
}

impl<'a> FromIterator<&'a str> for PathSet {
    fn from_iter<I: IntoIterator<Item = &'a str>>(paths: I) -> Self {
        let mut set = Self::default();
        for path in paths.into_iter().map(str::trim).filter(|p| !p.is_empty()) {
            let depth = path.matches('.').count();
            let has_type = path.split_once('.').is_some_and(|(first, _)| {
                EVENT_TYPES
                    .iter()
                    .any(|known| known.eq_ignore_ascii_case(first))
            });
            let paths = if has_type {
                &mut set.full
            } else {
                &mut set.legacy
            };
            paths.insert(path.replace('.', "_"), depth);
        }
        set
    }
}

impl PathSet {
    /// Whether no path is set, the usual case.
    pub(super) fn is_empty(&self) -> bool {
        self.full.is_empty() && self.legacy.is_empty()
    }

    /// Whether `key` (joined with `_`, event type first) at `depth` (its dots) is in the set.
    pub(super) fn has(&self, key: &str, depth: usize) -> bool {
        self.full.get(key) == Some(&depth)
    }

    /// Whether `key`, relative to what is flattened, at `depth` is in the set of older paths.
    pub(super) fn has_legacy(&self, key: &str, depth: usize) -> bool {
        self.legacy.get(key) == Some(&depth)
    }
}
