//! What the schema ids in Confluent's frames mean.
//!
//! An id alone says nothing: it is a registry's number. Where a registry is configured, this table has what the registry
//! said of each id that was met, so that reading never asks. Where none is, nobody can be asked, and a record counts as
//! what its topic holds if its bytes are that to the last one.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::codec::{self, CodecError, SchemaName};

/// Ids remembered; beyond it those that mean nothing to us are forgotten, and asked for again.
const IDS_MAX: usize = 10_000;

/// What an id means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// One of our schemas, equal in canonical form.
    Ours(SchemaName),
    /// None of them; in words, what instead.
    Foreign(Arc<str>),
}

/// Ids and their meanings. Cheap to clone; all clones are the same table. Reading takes no lock.
#[derive(Debug, Clone, Default)]
pub struct SchemaIds(Arc<ArcSwap<HashMap<u32, Meaning>>>);

impl SchemaIds {
    /// Remembers what an id means; a registry never changes it.
    pub fn learn(&self, id: u32, meaning: Meaning) {
        self.0.rcu(|known| {
            let mut known = HashMap::clone(known);
            if known.len() >= IDS_MAX {
                known.retain(|_, meaning| matches!(meaning, Meaning::Ours(_)));
            }
            known.insert(id, meaning.clone());
            known
        });
    }

    /// Whether the meaning of an id is known.
    pub fn knows(&self, id: u32) -> bool {
        self.0.load().contains_key(&id)
    }

    /// Whether `record` may be read as `name`, as far as its frame says.
    ///
    /// # Errors
    /// When it is in Confluent's frame and its id means something else, or nothing that is known.
    pub fn check(&self, name: SchemaName, record: &[u8]) -> Result<(), CodecError> {
        let Some(id) = codec::schema_id(record) else {
            return Ok(());
        };
        let found = match self.0.load().get(&id) {
            Some(Meaning::Ours(found)) if *found == name => return Ok(()),
            Some(Meaning::Ours(found)) => found.full_name().to_owned(),
            Some(Meaning::Foreign(what)) => what.to_string(),
            None => "not known".to_owned(),
        };
        Err(CodecError::OtherId { name, id, found })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_what_its_id_means() {
        let ids = SchemaIds::default();
        ids.learn(7, Meaning::Ours(SchemaName::Delivery));
        ids.learn(8, Meaning::Foreign("PROTOBUF".into()));
        let check = |id: u8, name| ids.check(name, &[0, 0, 0, 0, id, 1, 2]);
        assert!(check(7, SchemaName::Delivery).is_ok());
        for (id, says) in [(7, "sluice.Delivery"), (8, "PROTOBUF"), (9, "not known")] {
            let error = check(id, SchemaName::Envelope).unwrap_err().to_string();
            assert!(
                error.contains(says) && error.contains(&id.to_string()),
                "{error}"
            );
        }
        // Its frame names the schema itself, or is no frame at all: the codec's business.
        for record in [&[0xC3, 1, 0, 0, 0, 0, 0, 0, 0, 0][..], b"{}", b""] {
            assert!(ids.check(SchemaName::Envelope, record).is_ok());
        }
    }

    #[test]
    fn what_is_remembered_is_bounded_and_our_own_ids_stay() {
        let ids = SchemaIds::default();
        ids.learn(1, Meaning::Ours(SchemaName::Envelope));
        let last = u32::try_from(IDS_MAX).unwrap();
        // At once: one by one each would copy the table.
        ids.0.rcu(|known| {
            let mut known = HashMap::clone(known);
            known.extend((2..=last).map(|id| (id, Meaning::Foreign("x".into()))));
            known
        });
        assert_eq!(ids.0.load().len(), IDS_MAX);
        ids.learn(99_999, Meaning::Foreign("x".into()));
        assert!(ids.knows(1) && ids.knows(99_999) && !ids.knows(2));
    }
}
