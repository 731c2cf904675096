//! What a destination's config and an event's `integrations` object change about the mapping.

use serde_json::{Map, Value};

use super::dialect::{Dialect, JsonPaths};
use super::json_paths::PathSet;
use super::names::Casing;
use super::snake::Digits;

/// The mapping options of a destination's config, RudderStack's names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DestinationOptions {
    /// `skipTracksTable`: events go into their own tables only.
    pub skip_tracks: bool,
    /// `skipUsersTable`: identifies only.
    pub skip_users: bool,
    /// `storeFullEvent`: the whole event beside its columns, as `rudder_event`.
    pub store_full_event: bool,
    /// `underscoreDivideNumbers`: digits are words of their own in names.
    pub divide_numbers: bool,
    /// `allowUsersContextTraits`: `context.traits` also become unprefixed columns of an identify.
    pub users_context_traits: bool,
    /// `jsonPaths`, comma separated.
    pub json_paths: Vec<String>,
}

impl DestinationOptions {
    /// Reads the options out of a destination's config object; what is not there is off.
    pub fn from_config(config: &Value) -> Self {
        let flag = |name: &str| config.get(name).and_then(Value::as_bool).unwrap_or(false);
        Self {
            skip_tracks: flag("skipTracksTable"),
            skip_users: flag("skipUsersTable"),
            store_full_event: flag("storeFullEvent"),
            divide_numbers: flag("underscoreDivideNumbers"),
            users_context_traits: flag("allowUsersContextTraits"),
            json_paths: config
                .get("jsonPaths")
                .and_then(Value::as_str)
                .map(|paths| paths.split(',').map(str::to_owned).collect())
                .unwrap_or_default(),
        }
    }
}

/// The options in force for one event.
#[derive(Debug)]
pub struct EventOptions {
    /// How names are made.
    pub casing: Casing,
    /// No row in `tracks`.
    pub skip_tracks: bool,
    /// No row in `users`.
    pub skip_users: bool,
    /// Which values stay whole as JSON.
    pub(super) json_paths: PathSet,
}

impl EventOptions {
    /// The destination's options with those of the event's `integrations.<DESTTYPE>.options` over them.
    pub fn of(
        dialect: &Dialect,
        destination: &DestinationOptions,
        event: &Map<String, Value>,
    ) -> Self {
        let options = |integration: &str| {
            event
                .get("integrations")
                .and_then(|all| all.get(integration))
                .and_then(|one| one.get("options"))
        };
        let own = options(dialect.name);
        let flag = |name: &str| {
            own.and_then(|options| options.get(name))
                .and_then(Value::as_bool)
                .unwrap_or(false)
        };
        let json_paths = match dialect.json_paths {
            JsonPaths::Ignored => PathSet::default(),
            JsonPaths::AsJson | JsonPaths::AsString => {
                let listed = [options("DATA_WAREHOUSE"), own]
                    .into_iter()
                    .flatten()
                    .filter_map(|options| options.get("jsonPaths").and_then(Value::as_array))
                    .flatten()
                    .filter_map(Value::as_str);
                let configured = destination.json_paths.iter().map(String::as_str);
                listed.chain(configured).collect()
            }
        };
        Self {
            casing: Casing {
                blendo: flag("useBlendoCasing"),
                digits: if destination.divide_numbers {
                    Digits::Divide
                } else {
                    Digits::Cling
                },
                keep_reserved: flag("skipReservedKeywordsEscaping"),
            },
            skip_tracks: destination.skip_tracks || flag("skipTracksTable"),
            skip_users: destination.skip_users || flag("skipUsersTable"),
            json_paths,
        }
    }
}
