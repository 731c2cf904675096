//! What a client sent, typed where we look and raw where we do not.

use smallvec::SmallVec;

use super::json::{Bounds, JsonError, Scalar, Scanner};

/// One element of a request.
#[derive(Debug, Clone, Default)]
pub(super) struct Event<'a> {
    /// The element's own text, without the white space around it.
    pub(super) raw: &'a str,
    /// Whether it is an object; nothing below is filled otherwise.
    pub(super) is_object: bool,
    pub(super) message_id: Scalar<'a>,
    pub(super) user_id: Scalar<'a>,
    pub(super) anonymous_id: Scalar<'a>,
    pub(super) kind: Scalar<'a>,
    pub(super) name: Scalar<'a>,
    pub(super) library_name: Scalar<'a>,
    pub(super) library_version: Scalar<'a>,
    pub(super) job_run_id: Scalar<'a>,
    pub(super) task_run_id: Scalar<'a>,
}

/// A request: one event, or the elements of a batch with what stands beside them.
#[derive(Debug, Default)]
pub(super) struct Payload<'a> {
    pub(super) events: SmallVec<[Event<'a>; 1]>,
    /// `sentAt` of the batch.
    pub(super) sent_at: Scalar<'a>,
    /// `writeKey` in the body, as Segment's clients send it.
    pub(super) write_key: Scalar<'a>,
}

/// Limits of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct PayloadBounds {
    /// Per event.
    pub(super) event: Bounds,
    /// Events in a batch.
    pub(super) events: usize,
}

/// Why a body was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PayloadError {
    Json(JsonError),
    /// More events than [`PayloadBounds::events`].
    TooManyEvents,
}

impl From<JsonError> for PayloadError {
    fn from(error: JsonError) -> Self {
        Self::Json(error)
    }
}

/// Reads a body that is one event.
pub(super) fn single(text: &str, bounds: PayloadBounds) -> Result<Payload<'_>, PayloadError> {
    let mut scanner = Scanner::new(text, bounds.event);
    let mut payload = Payload::default();
    let event = event(&mut scanner, Some(&mut payload.write_key))?;
    scanner.end()?;
    payload.events.push(event);
    Ok(payload)
}

/// Reads a body of the shape `{"batch": [event, …], "sentAt": …}`.
///
/// As in RudderStack a `batch` that is no array is taken for its only element, and one that is not there is empty. Two
/// members of that name are both taken: leaving one out would lose events that were answered with 200.
pub(super) fn batch(text: &str, bounds: PayloadBounds) -> Result<Payload<'_>, PayloadError> {
    let outer = Bounds {
        // The batch object and its array are not part of any event.
        depth: bounds.event.depth + 2,
        values: bounds.event.values,
    };
    let mut scanner = Scanner::new(text, outer);
    let mut payload = Payload::default();
    let mut too_many = false;
    scanner.object_or_skip(|s, key| {
        match &*key.name() {
            "batch" => {
                elements(s, bounds, &mut payload.events, &mut too_many)?;
                s.refill(bounds.event.values);
            }
            "sentAt" => payload.sent_at = s.scalar()?,
            "writeKey" => payload.write_key = s.scalar()?,
            _ => s.skip()?,
        }
        Ok(())
    })?;
    scanner.end()?;
    if too_many {
        return Err(PayloadError::TooManyEvents);
    }
    Ok(payload)
}

fn elements<'a>(
    scanner: &mut Scanner<'a>,
    bounds: PayloadBounds,
    events: &mut SmallVec<[Event<'a>; 1]>,
    too_many: &mut bool,
) -> Result<(), JsonError> {
    match scanner.next() {
        Some(b'[') => scanner.array(|s| {
            s.refill(bounds.event.values);
            let event = event(s, None)?;
            if events.len() < bounds.events {
                events.push(event);
            } else {
                *too_many = true;
            }
            // For the comma and the next element's own count.
            s.refill(1);
            Ok(())
        }),
        Some(b'n') => scanner.skip(),
        _ => {
            events.push(event(scanner, None)?);
            Ok(())
        }
    }
}

/// Reads one element; `write_key` takes the member of that name.
pub(super) fn event<'a>(
    scanner: &mut Scanner<'a>,
    mut write_key: Option<&mut Scalar<'a>>,
) -> Result<Event<'a>, JsonError> {
    let mut event = Event {
        is_object: scanner.next() == Some(b'{'),
        ..Event::default()
    };
    let ((), raw) = scanner.spanned(|s| {
        s.object_or_skip(|s, key| {
            match &*key.name() {
                "messageId" => event.message_id = s.scalar()?,
                "userId" => event.user_id = s.scalar()?,
                "anonymousId" => event.anonymous_id = s.scalar()?,
                "type" => event.kind = s.scalar()?,
                "event" => event.name = s.scalar()?,
                "context" => context(s, &mut event)?,
                "writeKey" => match &mut write_key {
                    Some(place) => **place = s.scalar()?,
                    None => s.skip()?,
                },
                _ => s.skip()?,
            }
            Ok(())
        })
    })?;
    event.raw = raw;
    Ok(event)
}

fn context<'a>(scanner: &mut Scanner<'a>, event: &mut Event<'a>) -> Result<(), JsonError> {
    scanner.object_or_skip(|s, key| match &*key.name() {
        "library" => s.object_or_skip(|s, key| {
            match &*key.name() {
                "name" => event.library_name = s.scalar()?,
                "version" => event.library_version = s.scalar()?,
                _ => s.skip()?,
            }
            Ok(())
        }),
        "sources" => s.object_or_skip(|s, key| {
            match &*key.name() {
                "job_run_id" => event.job_run_id = s.scalar()?,
                "task_run_id" => event.task_run_id = s.scalar()?,
                _ => s.skip()?,
            }
            Ok(())
        }),
        _ => s.skip(),
    })
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    const BOUNDS: PayloadBounds = PayloadBounds {
        event: Bounds {
            depth: 4,
            values: 12,
        },
        events: 3,
    };

    fn text<'a>(scalar: Scalar<'a>) -> Cow<'a, str> {
        match scalar {
            Scalar::Absent => "-".into(),
            Scalar::Text(text) => text.decode(),
            Scalar::Other(raw) => raw.into(),
        }
    }

    #[test]
    fn each_event_travels_as_the_bytes_between_its_braces() {
        let body = r#" {"sentAt":"now", "batch" : [ {"userId":7, "x":[1, 2]} ,{"event":"\u00d6"}],"writeKey":"K"} "#;
        let payload = batch(body, BOUNDS).unwrap();
        let raws: Vec<&str> = payload.events.iter().map(|e| e.raw).collect();
        assert_eq!(
            raws,
            [r#"{"userId":7, "x":[1, 2]}"#, r#"{"event":"\u00d6"}"#]
        );
        assert_eq!(text(payload.events[0].user_id), "7");
        assert_eq!(text(payload.events[1].name), "Ö");
        assert_eq!(text(payload.sent_at), "now");
        assert_eq!(text(payload.write_key), "K");
    }

    #[test]
    fn what_lies_under_context_is_found_and_odd_shapes_of_it_are_passed() {
        let body = r#"{"context":{"library":{"name":"js","version":"3"},"sources":{"job_run_id":"j","task_run_id":5}}}"#;
        let event = &single(body, BOUNDS).unwrap().events[0];
        assert_eq!(text(event.library_name), "js");
        assert_eq!(text(event.job_run_id), "j");
        assert_eq!(text(event.task_run_id), "5");
        for odd in [
            r#"{"context":7}"#,
            r#"{"context":{"library":[{"name":1}]}}"#,
        ] {
            assert_eq!(
                single(odd, BOUNDS).unwrap().events[0].library_name,
                Scalar::Absent
            );
        }
    }

    #[test]
    fn a_name_with_escapes_is_the_name_it_says_and_the_last_of_two_wins() {
        let event = &single(r#"{"userId":"a","user\u0049d":"b"}"#, BOUNDS)
            .unwrap()
            .events[0];
        assert_eq!(
            text(event.user_id),
            "b",
            "as serde_json reads it downstream"
        );
    }

    #[test]
    fn two_batches_in_one_body_lose_nothing() {
        let payload = batch(r#"{"batch":[{"a":1}],"batch":[{"a":2}]}"#, BOUNDS).unwrap();
        assert_eq!(payload.events.len(), 2);
    }

    #[test]
    fn what_is_no_batch_is_empty_and_what_is_no_array_is_its_only_element() {
        for empty in ["[]", "7", "{}", r#"{"batch":null}"#, r#"{"batch":[]}"#] {
            assert_eq!(batch(empty, BOUNDS).unwrap().events.len(), 0, "{empty}");
        }
        assert!(batch(r#"{"batch":{"a":1}}"#, BOUNDS).unwrap().events[0].is_object);
        assert!(!batch(r#"{"batch":"x"}"#, BOUNDS).unwrap().events[0].is_object);
    }

    #[test]
    fn bounds_hold_for_each_event_and_not_for_the_sum() {
        let fits = r#"{"a":[1,2,3],"b":{"c":{"d":{}}}}"#;
        batch(&format!(r#"{{"batch":[{fits},{fits},{fits}]}}"#), BOUNDS).unwrap();
        let four = format!(r#"{{"batch":[{fits},{fits},{fits},{fits}]}}"#);
        assert_eq!(
            batch(&four, BOUNDS).unwrap_err(),
            PayloadError::TooManyEvents
        );
        let deep = r#"{"batch":[{"a":{"b":{"c":{"d":{}}}}}]}"#;
        assert_eq!(batch(deep, BOUNDS).unwrap_err(), JsonError::TooDeep.into());
        let wide = r#"{"a":[1,2,3,4,5,6,7,8,9,10,11,12]}"#;
        assert_eq!(
            single(wide, BOUNDS).unwrap_err(),
            JsonError::TooManyValues.into()
        );
    }

    #[test]
    fn a_syntax_error_behind_the_batch_refuses_all_of_it() {
        for body in [
            "",
            "{",
            r#"{"batch":[{}]"#,
            r#"{"batch":[{}]}x"#,
            r#"{"batch":[{},]}"#,
        ] {
            assert_eq!(
                batch(body, BOUNDS).unwrap_err(),
                JsonError::Syntax.into(),
                "{body}"
            );
        }
    }
}
