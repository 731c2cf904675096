//! A shallow look into an event's JSON: only at what routing needs, and only when it is there.
//!
//! Most events carry neither an `integrations` object nor consent, so a search for the key's bytes comes first (tens of
//! nanoseconds for a kilobyte) and saves the parser. A key that is written with escapes is not found by it; no SDK does so.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::consent::Consent;

/// What an event's `integrations` object says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection<'a> {
    /// No such key: every destination.
    Every,
    /// It is no object, or its `All` is no boolean. RudderStack then sends the event nowhere.
    Nowhere,
    /// An object.
    Named {
        /// For destinations it does not name.
        all: bool,
        /// What it says of each name, in the event's order; a later mention wins.
        named: SmallVec<[(Cow<'a, str>, Choice); 4]>,
    },
}

/// What is said of one destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// `true` or an object of options.
    Wanted,
    /// `false`.
    Unwanted,
    /// Anything else says nothing: `All` decides.
    Unsaid,
}

impl Selection<'_> {
    /// Whether the destination with this display name is to have the event.
    pub fn wants(&self, display_name: &str) -> bool {
        match self {
            Self::Every => true,
            Self::Nowhere => false,
            Self::Named { all, named } => {
                let said = named.iter().rev().find(|(name, _)| name == display_name);
                match said.map(|(_, choice)| *choice) {
                    Some(Choice::Wanted) => true,
                    Some(Choice::Unwanted) => false,
                    Some(Choice::Unsaid) | None => *all,
                }
            }
        }
    }
}

/// What routing needs of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look<'a> {
    /// Which destinations the client selected.
    pub selection: Selection<'a>,
    /// What the user consented to; `None` when the event says nothing of it or nobody asked.
    pub consent: Option<Consent>,
}

static INTEGRATIONS: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"integrations\""));
static CONSENT: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"consentManagement\""));

/// Looks into `event`; at its consent only if somebody `asks_consent`.
///
/// # Errors
/// When there is something to read and the event is not the JSON object that the gateway accepted.
pub fn look(event: &[u8], asks_consent: bool) -> Result<Look<'_>, serde_json::Error> {
    let mut look = Look {
        selection: Selection::Every,
        consent: None,
    };
    let consent = asks_consent && CONSENT.find(event).is_some();
    if !consent && INTEGRATIONS.find(event).is_none() {
        return Ok(look);
    }
    let top: Keys<'_, 2> = serde_json::from_slice::<Pick<'_, TopLevel, 2>>(event)?.found;
    if let Some(integrations) = top[0] {
        look.selection = selection(integrations)?;
    }
    if let Some(context) = top[1].filter(|_| consent) {
        look.consent = consent_of(context);
    }
    Ok(look)
}

fn selection(integrations: &RawValue) -> Result<Selection<'_>, serde_json::Error> {
    if !integrations.get().starts_with('{') {
        return Ok(Selection::Nowhere);
    }
    let Entries(entries) = serde_json::from_str(integrations.get())?;
    let mut all = true;
    let mut named = SmallVec::new();
    for (name, value) in entries {
        if name == "All" {
            all = match value.get() {
                "true" => true,
                "false" => false,
                _ => return Ok(Selection::Nowhere),
            };
            continue;
        }
        let choice = match value.get() {
            "true" => Choice::Wanted,
            "false" => Choice::Unwanted,
            other if other.starts_with('{') => Choice::Wanted,
            _ => Choice::Unsaid,
        };
        named.push((name, choice));
    }
    Ok(Selection::Named { all, named })
}

/// `context.consentManagement`; one that is not of the documented shape says nothing.
fn consent_of(context: &RawValue) -> Option<Consent> {
    let found = serde_json::from_str::<Pick<'_, InContext, 1>>(context.get())
        .ok()?
        .found;
    serde_json::from_str(found[0]?.get()).ok()
}

/// The values of a few keys of an object, unread; everything else is skipped. Unlike a derived struct it takes a key that
/// is there twice, as RudderStack does: the last one counts.
struct Pick<'a, N, const COUNT: usize> {
    found: Keys<'a, COUNT>,
    names: PhantomData<N>,
}

type Keys<'a, const COUNT: usize> = [Option<&'a RawValue>; COUNT];

trait Names<const COUNT: usize> {
    const NAMES: [&'static str; COUNT];
}

struct TopLevel;

impl Names<2> for TopLevel {
    const NAMES: [&'static str; 2] = ["integrations", "context"];
}

struct InContext;

impl Names<1> for InContext {
    const NAMES: [&'static str; 1] = ["consentManagement"];
}

impl<'de, N: Names<COUNT>, const COUNT: usize> Deserialize<'de> for Pick<'de, N, COUNT> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PickVisitor(PhantomData))
    }
}

struct PickVisitor<N, const COUNT: usize>(PhantomData<N>);

impl<'de, N: Names<COUNT>, const COUNT: usize> Visitor<'de> for PickVisitor<N, COUNT> {
    type Value = Pick<'de, N, COUNT>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; COUNT];
        while let Some(Key(key)) = map.next_key()? {
            match N::NAMES.iter().position(|name| *name == key) {
                Some(place) => found[place] = Some(map.next_value()?),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Pick {
            found,
            names: PhantomData,
        })
    }
}

/// A key: borrowed unless it holds escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// All entries of an object, values unread.
struct Entries<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(Key(key)) = map.next_key()? {
            entries.push((key, map.next_value()?));
        }
        Ok(Entries(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wants(event: &str) -> (bool, bool) {
        let look = look(event.as_bytes(), false).unwrap();
        (
            look.selection.wants("Webhook"),
            look.selection.wants("Postgres"),
        )
    }

    #[test]
    fn the_integrations_object_selects_as_in_rudderstack() {
        let cases = [
            (r#"{}"#, (true, true), "absent"),
            (
                r#"{"integrations":{}}"#,
                (true, true),
                "All is true by default",
            ),
            (r#"{"integrations":{"All":true}}"#, (true, true), "All"),
            (
                r#"{"integrations":{"All":false}}"#,
                (false, false),
                "nothing",
            ),
            (
                r#"{"integrations":{"All":false,"Webhook":true}}"#,
                (true, false),
                "only one",
            ),
            (
                r#"{"integrations":{"Webhook":false}}"#,
                (false, true),
                "all but one",
            ),
            (
                r#"{"integrations":{"All":false,"Webhook":{"k":1}}}"#,
                (true, false),
                "an object keeps",
            ),
            (
                r#"{"integrations":{"All":false,"Webhook":{}}}"#,
                (true, false),
                "an empty object keeps",
            ),
            (
                r#"{"integrations":{"Webhook":"no","All":true}}"#,
                (true, true),
                "other values say nothing",
            ),
            (
                r#"{"integrations":{"Webhook":null,"All":false}}"#,
                (false, false),
                "other values say nothing",
            ),
            (
                r#"{"integrations":{"webhook":false}}"#,
                (true, true),
                "names are exact",
            ),
            (
                r#"{"integrations":{"All":"false"}}"#,
                (false, false),
                "All that is no boolean",
            ),
            (r#"{"integrations":null}"#, (false, false), "no object"),
            (
                r#"{"integrations":["Webhook"]}"#,
                (false, false),
                "no object",
            ),
            (
                r#"{"properties":{"integrations":{"All":false}}}"#,
                (true, true),
                "only at the top",
            ),
            (
                r#"{"integrations":{"All":false},"integrations":{}}"#,
                (true, true),
                "the last of two counts",
            ),
            (
                r#"{"integrations":{"Web\u0068ook":false}}"#,
                (false, true),
                "a name with escapes",
            ),
            (
                r#"{"x":"\"integrations\""}"#,
                (true, true),
                "inside a string",
            ),
        ];
        for (event, expected, why) in cases {
            assert_eq!(wants(event), expected, "{why}: {event}");
        }
    }

    #[test]
    fn consent_is_read_only_when_somebody_asks() {
        let event = br#"{"context":{"a":[1],"consentManagement":{"provider":"oneTrust","deniedConsentIds":["C1"],"x":1}}}"#;
        let found = look(event, true).unwrap().consent.unwrap();
        assert_eq!(found.denied_consent_ids, ["C1"]);
        assert_eq!(look(event, false).unwrap().consent, None);
        for odd in [
            r#"{"context":{"consentManagement":7}}"#,
            r#"{"context":["consentManagement"]}"#,
            r#"{"consentManagement":{"deniedConsentIds":["C1"]}}"#,
            r#"{"context":{"consentManagement":{"deniedConsentIds":"C1"}}}"#,
        ] {
            assert_eq!(look(odd.as_bytes(), true).unwrap().consent, None, "{odd}");
        }
    }

    #[test]
    fn what_is_no_object_is_an_error_once_it_must_be_read() {
        assert!(look(br#"["integrations"]"#, false).is_err());
        assert!(look(br#"{"integrations":{"All":false}"#, false).is_err());
        assert!(look(b"{\"integrations\":\"\xff\"}", false).is_err());
    }
}
