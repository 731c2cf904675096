//! An event becomes rows: RudderStack's rules, pure.
//!
//! | event | rows |
//! |---|---|
//! | track | `tracks` (context and defaults), then the table named after the event (with properties) |
//! | identify | `identifies`, then `users` (the same traits, keyed by the user id) |
//! | page, screen, group, alias | `pages`, `screens`, `groups`, `aliases` |
//! | extract | the table named after the event |
//! | merge | none: identity resolution is not done |
//!
//! Within a row later writes win, in the order in which the functions below write: what the user sent, then context, then
//! the default columns. A user's key that would become a default column (`properties.id`) is dropped, not renamed.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::cell::Cell;
use super::dialect::Dialect;
use super::names::NameCache;
use super::options::{DestinationOptions, EventOptions};
use super::rules::Mapping;
use super::schema::ColumnType;
use crate::clock::UnixMs;
use crate::fault::{Classify, Fault};

/// A row for one table. Columns are sorted by name, each once.
#[derive(Debug, Clone, PartialEq)]
pub struct Row<'a> {
    /// Table, as the warehouse spells it.
    pub table: Arc<str>,
    /// The values that are not null.
    pub columns: Vec<Column<'a>>,
}

/// One value of a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Column<'a> {
    /// Column, as the warehouse spells it.
    pub name: Arc<str>,
    /// Its type, as inferred from this value.
    pub kind: ColumnType,
    /// The value.
    pub cell: Cell<'a>,
}

/// What is known of an event beside its JSON.
#[derive(Debug, Clone, Copy, Default)]
pub struct Arrival<'a> {
    /// Source the event came from.
    pub source_id: &'a str,
    /// Its definition's name.
    pub source_type: &'a str,
    /// Its definition's category; `cloud` and `singer-protocol` change ids and depth.
    pub source_category: &'a str,
    /// Destination the rows are for.
    pub destination_id: &'a str,
    /// When the gateway read the event.
    pub received_at: UnixMs,
    /// `recordId` of a cloud source's event.
    pub record_id: Option<&'a Value>,
}

/// Why an event cannot become rows. The texts are RudderStack's: operators search for them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// The event has no type.
    #[error("No event type: \"\"")]
    NoType,
    /// No rule for this type.
    #[error("Unknown event type: \"{0}\"")]
    UnknownType(String),
    /// An extract without a name for its table.
    #[error(
        "cannot create event table with empty event name, event name is missing in the payload"
    )]
    NoEventName,
    /// A cloud source's event without a usable record id.
    #[error("recordId cannot be empty for cloud sources events")]
    NoRecordId,
    /// `context` is neither an object nor null.
    #[error("context is not a map")]
    ContextNotObject,
    /// More columns than a row may have.
    #[error("{0} transformer: Too many columns outputted from the event")]
    TooManyColumns(String),
}

impl Classify for MapError {
    fn fault(&self) -> Fault {
        match self {
            Self::NoType
            | Self::UnknownType(_)
            | Self::NoEventName
            | Self::NoRecordId
            | Self::ContextNotObject
            | Self::TooManyColumns(_) => Fault::Permanent,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::NoType => "no_event_type",
            Self::UnknownType(_) => "unknown_event_type",
            Self::NoEventName => "no_event_name",
            Self::NoRecordId => "no_record_id",
            Self::ContextNotObject => "context_not_object",
            Self::TooManyColumns(_) => "too_many_columns",
        }
    }
}

/// Limits and switches of the mapping that are ours, not the destination's.
#[derive(Debug, Clone, Copy)]
pub struct MapLimits {
    /// Most columns of a row, those filled at load time included.
    pub columns_max: usize,
    /// Most names remembered.
    pub names_max: usize,
    /// Whether source and destination are added to `context` (`WH_POPULATE_SRC_DEST_INFO_IN_CONTEXT`).
    pub adds_source_to_context: bool,
}

impl Default for MapLimits {
    fn default() -> Self {
        Self {
            columns_max: 1600,
            names_max: 100_000,
            adds_source_to_context: true,
        }
    }
}

/// Maps the events of one destination.
#[derive(Debug)]
pub struct Mapper {
    pub(super) dialect: &'static Dialect,
    pub(super) options: DestinationOptions,
    pub(super) limits: MapLimits,
    pub(super) names: NameCache,
}

impl Mapper {
    /// A mapper for a destination of type `dialect` with these options.
    pub fn new(dialect: &'static Dialect, options: DestinationOptions, limits: MapLimits) -> Self {
        Self {
            dialect,
            options,
            limits,
            names: NameCache::new(dialect, limits.names_max),
        }
    }

    /// The rows of `event`, which is the whole event as a destination sees it ([`crate::event::stamped_event`]).
    ///
    /// # Errors
    /// The event can never become rows.
    pub fn map<'a>(
        &mut self,
        event: &'a Map<String, Value>,
        arrival: Arrival<'a>,
    ) -> Result<Vec<Row<'a>>, MapError> {
        let kind = event_type(event)?;
        let context = match event.get("context") {
            Some(Value::Object(context)) => Some(context),
            None | Some(Value::Null) => None,
            Some(_) if self.limits.adds_source_to_context => {
                return Err(MapError::ContextNotObject);
            }
            Some(_) => None,
        };
        let options = EventOptions::of(self.dialect, &self.options, event);
        let mut mapping = Mapping {
            mapper: self,
            options: &options,
            event,
            context,
            arrival,
            kind,
        };
        let rows = match kind {
            EventType::Track => mapping.track()?,
            EventType::Identify => mapping.identify(),
            EventType::Page => vec![mapping.page("pages", "properties", "page_properties_")],
            EventType::Screen => vec![mapping.page("screens", "properties", "screen_properties_")],
            EventType::Group => vec![mapping.traits("groups", "group_traits_")],
            EventType::Alias => vec![mapping.traits("aliases", "alias_traits_")],
            EventType::Extract => vec![mapping.extract()?],
            EventType::Merge => Vec::new(),
        };
        self.check_width(event, &rows)?;
        Ok(rows)
    }

    fn check_width(&self, event: &Map<String, Value>, rows: &[Row<'_>]) -> Result<(), MapError> {
        let from_sources = ["channel", "CHANNEL"]
            .iter()
            .any(|key| event.get(*key).and_then(Value::as_str) == Some("sources"));
        if self.dialect.lake || from_sources {
            return Ok(());
        }
        let filled_at_load = 1 + usize::from(self.dialect.loaded_at);
        let widest = rows.iter().map(|row| row.columns.len()).max().unwrap_or(0);
        if widest + filled_at_load > self.limits.columns_max {
            return Err(MapError::TooManyColumns(self.dialect.name.to_lowercase()));
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EventType {
    Track,
    Identify,
    Page,
    Screen,
    Group,
    Alias,
    Extract,
    Merge,
}

impl EventType {
    pub(super) fn location(self) -> &'static str {
        match self {
            Self::Track => "track_context_",
            Self::Identify => "identify_context_",
            Self::Page => "page_context_",
            Self::Screen => "screen_context_",
            Self::Group => "group_context_",
            Self::Alias => "alias_context_",
            Self::Extract => "extract_context_",
            Self::Merge => "merge_context_",
        }
    }
}

fn event_type(event: &Map<String, Value>) -> Result<EventType, MapError> {
    let name = event.get("type").and_then(Value::as_str).unwrap_or("");
    Ok(match name.to_lowercase().as_str() {
        "" => return Err(MapError::NoType),
        "track" => EventType::Track,
        "identify" => EventType::Identify,
        "page" => EventType::Page,
        "screen" => EventType::Screen,
        "group" => EventType::Group,
        "alias" => EventType::Alias,
        "extract" => EventType::Extract,
        "merge" => EventType::Merge,
        _ => return Err(MapError::UnknownType(name.to_owned())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::warehouse::dialect::{POSTGRES, SNOWFLAKE};
    use serde_json::json;

    fn map(event: &Value) -> Result<Vec<(String, Vec<String>)>, MapError> {
        map_with(&POSTGRES, DestinationOptions::default(), event)
    }

    /// Tables with their columns as `name:type=value`.
    fn map_with(
        dialect: &'static Dialect,
        options: DestinationOptions,
        event: &Value,
    ) -> Result<Vec<(String, Vec<String>)>, MapError> {
        let arrival = Arrival {
            source_id: "src",
            destination_id: "wh",
            ..Arrival::default()
        };
        let mut mapper = Mapper::new(dialect, options, MapLimits::default());
        let rows = mapper.map(event.as_object().unwrap(), arrival)?;
        Ok(rows
            .into_iter()
            .map(|row| {
                let columns = row.columns.into_iter().map(|column| {
                    let text = column.cell.into_text();
                    format!("{}:{}={text}", column.name, column.kind)
                });
                (row.table.to_string(), columns.collect())
            })
            .collect())
    }

    fn track() -> Value {
        json!({
            "type": "track", "messageId": "m1", "userId": "u1", "event": "Order Completed",
            "receivedAt": "2024-05-01T10:00:00.000Z",
            "context": {"ip": "1.1.1.1", "device": {"id": "d"}},
            "properties": {"total": 12.5, "items": [1, 2], "id": "mine", "naïve key": true, "paid on": "2024-05-01"}
        })
    }

    #[test]
    fn a_track_is_a_row_in_tracks_and_one_in_the_table_of_its_event() {
        let rows = map(&track()).unwrap();
        assert_eq!(rows[0].0, "tracks");
        let common = [
            "context_destination_id:string=wh",
            "context_destination_type:string=POSTGRES",
            "context_device_id:string=d",
            "context_ip:string=1.1.1.1",
            "context_passed_ip:string=1.1.1.1",
            "context_source_id:string=src",
            "event:string=order_completed",
            "event_text:string=Order Completed",
            "id:string=m1",
        ];
        let last = [
            "received_at:datetime=2024-05-01T10:00:00.000Z",
            "user_id:string=u1",
        ];
        assert_eq!(rows[0].1, [&common[..], &last[..]].concat());

        assert_eq!(rows[1].0, "order_completed");
        let own = ["items:string=[1,2]", "na_ve_key:boolean=true"];
        let paid = "paid_on:datetime=2024-05-01T00:00:00.000Z";
        let late = [paid, last[0], "total:float=12.5", last[1]];
        assert_eq!(rows[1].1, [&common[..], &own[..], &late[..]].concat());
    }

    #[test]
    fn an_identify_is_a_row_in_identifies_and_one_in_users_under_the_user_id() {
        let event = json!({
            "type": "identify", "messageId": "m", "userId": "u", "anonymousId": "a",
            "traits": {"plan": "pro"}, "receivedAt": "2024-05-01T10:00:00.000Z"
        });
        let rows = map(&event).unwrap();
        assert_eq!(
            (rows[0].0.as_str(), rows[1].0.as_str()),
            ("identifies", "users")
        );
        assert!(rows[0].1.contains(&"id:string=m".to_owned()));
        assert!(rows[0].1.contains(&"anonymous_id:string=a".to_owned()));
        assert!(rows[1].1.contains(&"id:string=u".to_owned()));
        assert!(rows[1].1.contains(&"plan:string=pro".to_owned()));
        assert!(
            !rows[1]
                .1
                .iter()
                .any(|column| column.starts_with("anonymous_id"))
        );

        let anonymous = json!({"type": "identify", "messageId": "m", "userId": " "});
        assert_eq!(map(&anonymous).unwrap().len(), 1);
    }

    #[test]
    fn an_event_named_like_a_table_of_ours_gets_a_table_of_its_own() {
        for (name, table) in [
            ("users", "_users"),
            ("Tracks", "_tracks"),
            ("rudder discards", "_rudder_discards"),
        ] {
            let rows = map(&json!({"type": "track", "messageId": "m", "event": name})).unwrap();
            assert_eq!(rows[1].0, table);
        }
    }

    #[test]
    fn an_upper_case_warehouse_gets_upper_case_names_everywhere() {
        let rows = map_with(&SNOWFLAKE, DestinationOptions::default(), &track()).unwrap();
        assert_eq!(
            (rows[0].0.as_str(), rows[1].0.as_str()),
            ("TRACKS", "ORDER_COMPLETED")
        );
        for column in rows.iter().flat_map(|row| &row.1) {
            let name = column.split(':').next().unwrap();
            assert_eq!(name, name.to_uppercase());
        }
    }

    #[test]
    fn what_can_never_become_rows_is_refused_with_rudderstacks_words() {
        let refused = |event: Value| map(&event).unwrap_err().to_string();
        assert_eq!(refused(json!({})), "No event type: \"\"");
        assert_eq!(
            refused(json!({"type": "dance"})),
            "Unknown event type: \"dance\""
        );
        assert_eq!(
            refused(json!({"type": "track", "context": 1})),
            "context is not a map"
        );
        let wide: Map<String, Value> = (0..1600).map(|n| (format!("p{n}"), n.into())).collect();
        let event = json!({"type": "track", "event": "wide", "properties": wide});
        assert_eq!(
            refused(event),
            "postgres transformer: Too many columns outputted from the event"
        );
    }

    #[test]
    fn the_name_cache_forgets_when_full_and_names_stay_the_same() {
        let limits = MapLimits {
            names_max: 3,
            ..MapLimits::default()
        };
        let mut small = Mapper::new(&POSTGRES, DestinationOptions::default(), limits);
        let mut large = Mapper::new(
            &POSTGRES,
            DestinationOptions::default(),
            MapLimits::default(),
        );
        let event = track();
        let event = event.as_object().unwrap();
        for _ in 0..3 {
            assert_eq!(
                small.map(event, Arrival::default()),
                large.map(event, Arrival::default())
            );
        }
    }
}
