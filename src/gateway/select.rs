//! Which events of a request go on, and what is said of the others. Does nothing but decide.

use std::collections::BTreeMap;

use crate::event::Envelope;
use crate::fault::Classify;

use super::admit::{self, Arrival, Rules};
use super::payload::{Event, Payload};
use super::refusal::Refusal;
use super::suppress::Suppressed;

/// What one bad event does to the others of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    /// All are refused.
    Whole,
    /// Those of the same user are refused.
    PerUser,
    /// Nothing.
    PerEvent,
}

/// The word for an answer that says of every event why it was not taken.
pub(super) const ALL_REJECTED: &str = "all_rejected";
/// The word for groups that were refused for more than one reason.
const SEVERAL: &str = "several";

/// An event that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rejected {
    /// Its place in the batch, from 0.
    pub(super) index: usize,
    /// Its message id as the client wrote it; empty when it has none.
    pub(super) message_id: String,
    pub(super) refusal: Refusal,
}

/// What became of a request's events.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Receipt {
    /// Events that are written.
    pub(super) accepted: u64,
    /// Events of suppressed users, which the client is not told of.
    pub(super) suppressed: u64,
    /// With [`Policy::PerEvent`].
    pub(super) rejected: Vec<Rejected>,
    /// With [`Policy::PerUser`]: one for each user whose events were refused.
    pub(super) groups_refused: Vec<Refusal>,
    /// How many events were not taken while the request was, by the code of why.
    pub(super) refused: BTreeMap<&'static str, u64>,
}

impl Receipt {
    fn count(&mut self, refusal: Refusal) {
        *self.refused.entry(refusal.code()).or_default() += 1;
    }

    /// Why the answer is none of success although what was good was taken: the word in metrics. `None` when it is one.
    pub(super) fn failure(&self, policy: Policy) -> Option<&'static str> {
        match policy {
            Policy::Whole => None,
            Policy::PerUser => match self.groups_refused.as_slice() {
                [] => None,
                [first, others @ ..] if others.iter().all(|r| r.code() == first.code()) => {
                    Some(first.code())
                }
                _ => Some(SEVERAL),
            },
            // What is dropped for a suppressed user counts as accepted: the client is not to know.
            Policy::PerEvent if self.accepted + self.suppressed > 0 => None,
            Policy::PerEvent => (!self.rejected.is_empty()).then_some(ALL_REJECTED),
        }
    }
}

/// What deciding needs to know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Selection<'a> {
    pub(super) policy: Policy,
    pub(super) rules: Rules,
    pub(super) suppressed: &'a Suppressed,
    /// Type that the path decided.
    pub(super) kind: Option<&'static str>,
}

/// Hands every event that goes on to `take`, in order. What `take` refuses is treated like what is refused here.
///
/// # Errors
/// The first refusal, with [`Policy::Whole`].
pub(super) fn select<'a>(
    selection: Selection<'_>,
    payload: &Payload<'a>,
    arrival: &Arrival<'a>,
    mut take: impl FnMut(&Envelope<'_>) -> Result<(), Refusal>,
) -> Result<Receipt, Refusal> {
    let mut receipt = Receipt::default();
    let bad_users = match selection.policy {
        Policy::PerUser => bad_users(selection, payload, arrival),
        Policy::Whole | Policy::PerEvent => BTreeMap::new(),
    };
    receipt.groups_refused = bad_users.values().copied().collect();
    for (index, event) in payload.events.iter().enumerate() {
        let with_its_user = match bad_users.is_empty() {
            true => None,
            false => bad_users.get(&user(event)),
        };
        if let Some(refusal) = with_its_user {
            receipt.count(*refusal);
            continue;
        }
        let outcome =
            admit::admit(event, selection.kind, arrival, selection.rules).and_then(|envelope| {
                if selection
                    .suppressed
                    .holds(arrival.source_id, &envelope.user_id)
                {
                    receipt.suppressed += 1;
                    return Ok(());
                }
                take(&envelope)?;
                receipt.accepted += 1;
                Ok(())
            });
        match (outcome, selection.policy) {
            (Ok(()), _) => {}
            (Err(refusal), Policy::Whole) => return Err(refusal),
            (Err(refusal), Policy::PerUser) => {
                receipt.count(refusal);
                receipt.groups_refused.push(refusal);
            }
            (Err(refusal), Policy::PerEvent) => {
                receipt.count(refusal);
                receipt.rejected.push(Rejected {
                    index,
                    message_id: admit::text(event.message_id).into_owned(),
                    refusal,
                });
            }
        }
    }
    Ok(receipt)
}

/// The users of whom an event is refused, each with the first refusal.
fn bad_users<'a>(
    selection: Selection<'_>,
    payload: &Payload<'a>,
    arrival: &Arrival<'a>,
) -> BTreeMap<(String, String), Refusal> {
    let mut bad = BTreeMap::new();
    for event in &payload.events {
        if let Err(refusal) = admit::admit(event, selection.kind, arrival, selection.rules) {
            bad.entry(user(event)).or_insert(refusal);
        }
    }
    bad
}

/// What RudderStack makes the `rudderId` of, by which an import is grouped.
fn user(event: &Event<'_>) -> (String, String) {
    let text = |scalar| admit::text(scalar).into_owned();
    (text(event.user_id), text(event.anonymous_id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::json::Bounds;
    use crate::gateway::payload::{PayloadBounds, batch};

    const BODY: &str = r#"{"batch":[
        {"userId":"a","messageId":"1"}, {"userId":"b","messageId":"2"}, 7, {"messageId":"4"}, {"userId":"a","messageId":"5"},
        {"userId":"gone","messageId":"6"}]}"#;

    fn run(policy: Policy) -> (Result<Receipt, Refusal>, Vec<String>) {
        let bounds = PayloadBounds {
            event: Bounds {
                depth: 9,
                values: 99,
            },
            events: 9,
        };
        let payload = batch(BODY, bounds).unwrap();
        let suppressed = Suppressed::parse("gone", 9).unwrap();
        let selection = Selection {
            policy,
            rules: Rules {
                allow_anonymous: false,
            },
            suppressed: &suppressed,
            kind: None,
        };
        let mut taken = Vec::new();
        let receipt = select(selection, &payload, &Arrival::default(), |envelope| {
            if envelope.message_id == "2" {
                return Err(Refusal::TooLarge);
            }
            taken.push(envelope.message_id.to_string());
            Ok(())
        });
        (receipt, taken)
    }

    #[test]
    fn one_bad_event_refuses_the_whole_batch() {
        assert_eq!(run(Policy::Whole).0, Err(Refusal::TooLarge));
    }

    #[test]
    fn with_a_result_per_event_the_good_ones_go_on_and_the_bad_ones_are_named() {
        let (receipt, taken) = run(Policy::PerEvent);
        let receipt = receipt.unwrap();
        assert_eq!(taken, ["1", "5"]);
        assert_eq!((receipt.accepted, receipt.suppressed), (2, 1));
        assert_eq!(
            counted(&receipt),
            "no_identity 1, not_an_event 1, too_large 1"
        );
        assert_eq!(receipt.failure(Policy::PerEvent), None);
        let rejected: Vec<_> = receipt
            .rejected
            .iter()
            .map(|r| (r.index, r.message_id.as_str(), r.refusal))
            .collect();
        assert_eq!(
            rejected,
            [
                (1, "2", Refusal::TooLarge),
                (2, "", Refusal::NotAnEvent),
                (3, "4", Refusal::NoIdentity)
            ]
        );
    }

    #[test]
    fn in_an_import_a_bad_event_takes_only_its_own_user_along() {
        let (receipt, taken) = run(Policy::PerUser);
        let receipt = receipt.unwrap();
        assert_eq!(taken, ["1", "5"]);
        // The element that is no object and the one without ids are nobody's, which is one group.
        assert_eq!(
            receipt.groups_refused,
            [Refusal::NotAnEvent, Refusal::TooLarge]
        );
        assert_eq!(counted(&receipt), "not_an_event 2, too_large 1");
        assert_eq!(receipt.failure(Policy::PerUser), Some(SEVERAL));
    }

    fn counted(receipt: &Receipt) -> String {
        let counted = receipt.refused.iter();
        let words: Vec<_> = counted.map(|(code, n)| format!("{code} {n}")).collect();
        words.join(", ")
    }
}
