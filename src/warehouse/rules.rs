//! The rules per event type. Within a row later writes win; the order of the lines is the order of the writes.

use serde_json::{Map, Value};

use super::cell::{Cell, json_text};
use super::datetime;
use super::draft::{Draft, is_default};
use super::flatten::{Flatten, Section, is_blank, spread_string};
use super::names;
use super::options::EventOptions;
use super::rows::{Arrival, EventType, MapError, Mapper, Row};
use super::schema::ColumnType;

/// One event on its way to rows.
pub(super) struct Mapping<'m, 'a> {
    pub(super) mapper: &'m mut Mapper,
    pub(super) options: &'m EventOptions,
    pub(super) event: &'a Map<String, Value>,
    pub(super) context: Option<&'a Map<String, Value>>,
    pub(super) arrival: Arrival<'a>,
    pub(super) kind: EventType,
}

impl<'m, 'a> Mapping<'m, 'a> {
    pub(super) fn track(&mut self) -> Result<Vec<Row<'a>>, MapError> {
        let event = self.event.get("event");
        let name = event.map(plain_text).unwrap_or_default();
        let mut common = Draft::default();
        self.context_columns(&mut common);
        self.default(&mut common, "event_text", event);
        self.common_defaults(&mut common);
        let table_text = names::event(self.options.casing, &name);
        self.put(
            &mut common,
            "event",
            ColumnType::String,
            Cell::Text(table_text.into()),
        );

        let record_id = self.cloud_record_id()?;
        let mut rows = Vec::with_capacity(2);
        if !self.options.skip_tracks {
            let mut tracks = common.clone();
            let text = record_id.map(|id| Cell::Text(plain_text(id).into()));
            if let Some(cell) = text {
                self.put(&mut tracks, "record_id", ColumnType::String, cell);
            }
            self.full_event(&mut tracks);
            rows.push(self.row("tracks", tracks));
        }
        let dialect = self.mapper.dialect;
        if let Some(table) = names::table(dialect, self.options.casing, &name) {
            let mut own = Draft::default();
            self.section(&mut own, "properties", "track_properties_");
            self.section(&mut own, "userProperties", "track_userProperties_");
            own.extend(common.finish());
            if record_id.is_some() {
                self.default(&mut own, "id", record_id);
            }
            rows.push(Row {
                table: table.into(),
                columns: own.finish(),
            });
        }
        Ok(rows)
    }

    pub(super) fn identify(&mut self) -> Vec<Row<'a>> {
        let mut common = Draft::default();
        self.section(&mut common, "userProperties", "identify_userProperties_");
        if self.mapper.options.users_context_traits
            && let Some(Value::Object(traits)) = self.context.and_then(|c| c.get("traits"))
            && spread_string(traits).is_none()
        {
            self.flatten(
                &mut common,
                Section {
                    prefix: "",
                    location: "identify_context_traits_",
                    location_depth: 3,
                    joins_strings: false,
                },
                traits,
            );
        }
        self.section(&mut common, "traits", "identify_traits_");
        self.context_columns(&mut common);

        let mut identifies = common.clone();
        self.common_defaults(&mut identifies);
        self.full_event(&mut identifies);
        let mut rows = vec![self.row("identifies", identifies)];

        let user_id = self.event.get("userId");
        let has_user = user_id.is_some_and(|id| !plain_text(id).trim().is_empty());
        if has_user && !self.options.skip_users && !self.mapper.dialect.streaming {
            let mut users = common;
            self.addresses(&mut users);
            if !self.mapper.dialect.lake {
                self.times(&mut users);
            }
            self.default(&mut users, "id", user_id);
            self.received_at(&mut users);
            rows.push(self.row("users", users));
        }
        rows
    }

    /// `pages` and `screens`.
    pub(super) fn page(&mut self, table: &str, section: &str, location: &str) -> Row<'a> {
        let mut draft = Draft::default();
        self.section(&mut draft, section, location);
        self.context_columns(&mut draft);
        self.common_defaults(&mut draft);
        let named = |value: Option<&'a Value>| value.filter(|name| !is_blank(name));
        let name = named(self.event.get("name")).or_else(|| {
            let properties = self.event.get("properties");
            named(properties.and_then(|properties| properties.get("name")))
        });
        self.default(&mut draft, "name", name);
        self.full_event(&mut draft);
        self.row(table, draft)
    }

    /// `groups` and `aliases`.
    pub(super) fn traits(&mut self, table: &str, location: &str) -> Row<'a> {
        let mut draft = Draft::default();
        let is_spread = match self.event.get("traits") {
            Some(Value::Object(traits)) => spread_string(traits).is_some(),
            _ => false,
        };
        if !(is_spread && self.kind == EventType::Group) {
            self.section(&mut draft, "traits", location);
        }
        self.context_columns(&mut draft);
        self.common_defaults(&mut draft);
        if self.kind == EventType::Group {
            self.default(&mut draft, "group_id", self.event.get("groupId"));
        } else {
            self.default(&mut draft, "previous_id", self.event.get("previousId"));
        }
        self.full_event(&mut draft);
        self.row(table, draft)
    }

    pub(super) fn extract(&mut self) -> Result<Row<'a>, MapError> {
        let name = self.event.get("event").map(plain_text).unwrap_or_default();
        let dialect = self.mapper.dialect;
        let table = names::table(dialect, self.options.casing, &name)
            .filter(|_| !name.trim().is_empty())
            .ok_or(MapError::NoEventName)?;
        let record_id = usable_record_id(self.arrival.record_id)?;
        let mut draft = Draft::default();
        self.section(&mut draft, "properties", "extract_properties_");
        self.context_columns(&mut draft);
        self.default(&mut draft, "event", self.event.get("event"));
        self.default(&mut draft, "id", Some(record_id));
        self.received_at(&mut draft);
        Ok(Row {
            table: table.into(),
            columns: draft.finish(),
        })
    }

    /// An object of the event, flattened without a prefix.
    fn section(&mut self, draft: &mut Draft<'a>, key: &str, location: &str) {
        if let Some(Value::Object(object)) = self.event.get(key) {
            let section = Section {
                prefix: "",
                location,
                location_depth: 2,
                joins_strings: false,
            };
            self.flatten(draft, section, object);
        }
    }

    /// `context`, flattened with its prefix, and where the event comes from and goes to.
    fn context_columns(&mut self, draft: &mut Draft<'a>) {
        let section = Section {
            prefix: "context_",
            location: self.kind.location(),
            location_depth: 2,
            joins_strings: true,
        };
        if let Some(context) = self.context {
            self.flatten(draft, section, context);
        }
        if !self.mapper.limits.adds_source_to_context {
            return;
        }
        let arrival = self.arrival;
        let added = [
            ("context_source_id", arrival.source_id),
            ("context_source_type", arrival.source_type),
            ("context_destination_id", arrival.destination_id),
            ("context_destination_type", self.mapper.dialect.name),
        ];
        for (name, text) in added.into_iter().filter(|(_, text)| !text.is_empty()) {
            self.put(draft, name, ColumnType::String, Cell::Text(text.into()));
        }
    }

    fn flatten(
        &mut self,
        draft: &mut Draft<'a>,
        section: Section<'_>,
        object: &'a Map<String, Value>,
    ) {
        let flatten = self.rules();
        let casing = self.options.casing;
        let kind = self.kind;
        let names = &mut self.mapper.names;
        flatten.each(section, object, &mut |(path, column_type, cell)| {
            if let Some(name) = names.column(casing, path)
                && !is_default(kind, &name)
            {
                draft.set(name, column_type, cell);
            }
        });
    }

    /// The default columns of everything but extracts.
    fn common_defaults(&mut self, draft: &mut Draft<'a>) {
        let event = self.event;
        match event.get("messageId").filter(|id| !is_blank(id)) {
            Some(id) => self.default(draft, "id", Some(id)),
            None => {
                let id = format!("auto-{}", uuid::Uuid::new_v4());
                self.put(draft, "id", ColumnType::String, Cell::Text(id.into()));
            }
        }
        self.default(draft, "anonymous_id", event.get("anonymousId"));
        self.default(draft, "user_id", event.get("userId"));
        self.default(draft, "channel", event.get("channel"));
        self.times(draft);
        self.addresses(draft);
        self.received_at(draft);
    }

    fn times(&mut self, draft: &mut Draft<'a>) {
        for (name, key) in [
            ("sent_at", "sentAt"),
            ("timestamp", "timestamp"),
            ("original_timestamp", "originalTimestamp"),
        ] {
            self.default(draft, name, self.event.get(key));
        }
    }

    fn addresses(&mut self, draft: &mut Draft<'a>) {
        let passed = self.context.and_then(|context| context.get("ip"));
        let request = self.event.get("request_ip");
        let first = [passed, request]
            .into_iter()
            .flatten()
            .find(|ip| !is_blank(ip));
        self.default(draft, "context_ip", first);
        self.default(draft, "context_request_ip", request);
        self.default(draft, "context_passed_ip", passed);
    }

    fn received_at(&mut self, draft: &mut Draft<'a>) {
        let own = self.event.get("receivedAt").and_then(Value::as_str);
        let at = own
            .and_then(datetime::parse)
            .unwrap_or(self.arrival.received_at);
        self.put(
            draft,
            "received_at",
            ColumnType::Datetime,
            Cell::Datetime(at),
        );
    }

    fn full_event(&mut self, draft: &mut Draft<'a>) {
        if !self.mapper.options.store_full_event {
            return;
        }
        let mut event = self.event.clone();
        if self.mapper.limits.adds_source_to_context {
            let context = event
                .entry("context")
                .or_insert_with(|| Value::Object(Map::new()));
            if context.is_null() {
                *context = Value::Object(Map::new());
            }
            if let Value::Object(context) = context {
                let arrival = self.arrival;
                for (key, text) in [
                    ("sourceId", arrival.source_id),
                    ("sourceType", arrival.source_type),
                    ("destinationId", arrival.destination_id),
                    ("destinationType", self.mapper.dialect.name),
                ] {
                    if !text.is_empty() {
                        context.insert(key.to_owned(), text.into());
                    }
                }
            }
        }
        let text = json_text(&Value::Object(event));
        let kind = self.mapper.dialect.full_event;
        let cell = if kind == ColumnType::Json {
            Cell::Json(text.into())
        } else {
            Cell::Text(text.into())
        };
        self.put(draft, "rudder_event", kind, cell);
    }

    /// A default column: what is blank, an object or an array removes it.
    fn default(&mut self, draft: &mut Draft<'a>, name: &str, value: Option<&'a Value>) {
        let usable = value.filter(|v| !is_blank(v) && !v.is_object() && !v.is_array());
        let typed = usable.and_then(|value| self.rules().infer(name, value));
        if let Some(column) = self.mapper.names.column(self.options.casing, name) {
            match typed {
                Some((kind, cell)) => draft.set(column, kind, cell),
                None => draft.remove(column),
            }
        }
    }

    fn put(&mut self, draft: &mut Draft<'a>, name: &str, kind: ColumnType, cell: Cell<'a>) {
        if let Some(column) = self.mapper.names.column(self.options.casing, name) {
            draft.set(column, kind, cell);
        }
    }

    fn row(&mut self, table: &str, draft: Draft<'a>) -> Row<'a> {
        let table = names::own_table(self.mapper.dialect, self.options.casing, table);
        Row {
            table: table.into(),
            columns: draft.finish(),
        }
    }

    fn rules(&self) -> Flatten<'m> {
        Flatten {
            dialect: self.mapper.dialect,
            json_paths: &self.options.json_paths,
            is_track: self.kind == EventType::Track,
            is_cloud: self.arrival.source_category == "cloud",
        }
    }

    /// The record id that replaces the message id in a cloud source's event table, if it does.
    fn cloud_record_id(&self) -> Result<Option<&'a Value>, MapError> {
        let category = self.arrival.source_category;
        let is_cloud = ["cloud", "singer-protocol"]
            .iter()
            .any(|known| known.eq_ignore_ascii_case(category));
        let version = self
            .context
            .and_then(|context| context.get("sources"))
            .and_then(|sources| sources.get("version"));
        match version.filter(|version| !is_blank(version)) {
            Some(_) if is_cloud => usable_record_id(self.arrival.record_id).map(Some),
            Some(_) | None => Ok(None),
        }
    }
}

fn usable_record_id(id: Option<&Value>) -> Result<&Value, MapError> {
    id.filter(|id| !is_blank(id) && !id.is_object() && !id.is_array())
        .ok_or(MapError::NoRecordId)
}

/// A scalar as text; nothing for what has no plain text.
fn plain_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(_) | Value::Bool(_) => value.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => String::new(),
    }
}
