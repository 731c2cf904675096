//! Shapes of bodies. They say what clients are meant to send; the gateway looks at less, and lets the rest pass.

use serde_json::{Value, json};
use utoipa::openapi::schema::{
    AdditionalProperties, AllOfBuilder, AnyOfBuilder, Array, ObjectBuilder, Ref, Schema,
    SchemaFormat, SchemaType, Type,
};
use utoipa::openapi::{KnownFormat, RefOr};

/// Names of the schemas.
pub(super) const EVENT: &str = "Event";
pub(super) const ANONYMOUS_EVENT: &str = "AnonymousEvent";
pub(super) const BATCH: &str = "Batch";
pub(super) const ROWS: &str = "Rows";
pub(super) const STREAM: &str = "StreamMessages";
pub(super) const RESULT: &str = "PerEventResult";
pub(super) const SUCCESS: &str = "Success";
pub(super) const SUCCESS_OR_RESULT: &str = "SuccessOrResult";
pub(super) const ANY_JSON: &str = "AnyJson";
pub(super) const SETTINGS: &str = "SegmentSettings";
pub(super) const SOURCE_CONFIG: &str = "SourceConfig";
pub(super) const CLUSTER: &str = "ClusterInfo";
pub(super) const HEALTH: &str = "Health";
pub(super) const VERSION: &str = "Version";
pub(super) const OPENAPI: &str = "OpenApi";

/// All of them.
pub(super) fn schemas() -> Vec<(&'static str, RefOr<Schema>)> {
    vec![
        (ANONYMOUS_EVENT, event().into()),
        (EVENT, named_event()),
        (
            BATCH,
            batch(EVENT, "Events of any type; one bad one refuses all.").into(),
        ),
        (
            ROWS,
            batch(
                ANONYMOUS_EVENT,
                "Rows or events; those of type `record` need no user.",
            )
            .into(),
        ),
        (STREAM, stream()),
        (RESULT, result().into()),
        (
            SUCCESS,
            object([("success", enumerated(json!(true), Type::Boolean))]).into(),
        ),
        (
            SUCCESS_OR_RESULT,
            Schema::AnyOf(
                AnyOfBuilder::new()
                    .item(Ref::from_schema_name(SUCCESS))
                    .item(Ref::from_schema_name(RESULT))
                    .build(),
            )
            .into(),
        ),
        (ANY_JSON, Schema::Object(any("Any JSON.").build()).into()),
        (SETTINGS, object([("integrations", map())]).into()),
        (SOURCE_CONFIG, source_config().into()),
        (
            CLUSTER,
            object([("nodeCount", typed(Type::Integer))]).into(),
        ),
        (HEALTH, health().into()),
        (
            VERSION,
            object([
                ("Version", typed(Type::String)),
                ("Commit", typed(Type::String)),
            ])
            .into(),
        ),
        (
            OPENAPI,
            object([("openapi", typed(Type::String)), ("paths", map())]).into(),
        ),
    ]
}

/// One of RudderStack's events.
fn event() -> Schema {
    let text = |about: &str| typed(Type::String).description(Some(about));
    let time =
        |about: &str| text(about).format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)));
    let nested = |about: &str| map().description(Some(about));
    Schema::Object(
        map()
            .description(Some("An event. It is kept as the bytes that were sent."))
            .property(
                "type",
                text("Of an element of a batch; the path says it otherwise."),
            )
            .property(
                "messageId",
                id("Two events with one id are one event. A new UUID when there is none."),
            )
            .property(
                "userId",
                id("A number or any other value is taken for its text."),
            )
            .property("anonymousId", id("As `userId`."))
            .property("event", text("Name of a track event."))
            .property("properties", nested("What happened."))
            .property("traits", nested("What is known of the user or group."))
            .property(
                "context",
                nested("Where it happened; `library` says which client sent it."),
            )
            .property("integrations", nested("Which destinations it may go to."))
            .property(
                "originalTimestamp",
                time("When it happened, by the client's clock."),
            )
            .property("sentAt", time("When it was sent, by the client's clock."))
            .property(
                "timestamp",
                time("When it happened; wins over everything else."),
            )
            .build(),
    )
}

/// An event that names somebody.
fn named_event() -> RefOr<Schema> {
    let needs = |name: &str| {
        ObjectBuilder::new()
            .schema_type(SchemaType::AnyValue)
            .required(name)
    };
    Schema::AllOf(
        AllOfBuilder::new()
            .item(Ref::from_schema_name(ANONYMOUS_EVENT))
            .item(
                AnyOfBuilder::new()
                    .item(needs("userId"))
                    .item(needs("anonymousId")),
            )
            .description(Some("An event that names a user or an anonymous one."))
            .build(),
    )
    .into()
}

fn batch(of: &str, about: &str) -> Schema {
    Schema::Object(
        map()
            .description(Some(about))
            .property("batch", at_least_one(Ref::from_schema_name(of)))
            .property(
                "sentAt",
                typed(Type::String).description(Some("For events that have none of their own.")),
            )
            .required("batch")
            .build(),
    )
}

fn at_least_one(of: Ref) -> Array {
    let mut array = Array::new(of);
    array.min_items = Some(1);
    array
}

/// What an ingestion service plays in.
fn stream() -> RefOr<Schema> {
    let text = || typed(Type::String);
    let needed = [
        "requestType",
        "routingKey",
        "workspaceID",
        "sourceID",
        "requestIP",
    ];
    let optional = [
        "destinationID",
        "userID",
        "sourceJobRunID",
        "sourceTaskRunID",
        "traceID",
        "botName",
        "botURL",
        "botAction",
    ];
    let properties = map().description(Some(
        "What is known of the event's arrival; wins over what the request tells.",
    ));
    let properties = needed.iter().fold(properties, |object, name| {
        object
            .property(*name, text().min_length(Some(1)))
            .required(*name)
    });
    let properties = optional
        .iter()
        .fold(properties, |object, name| object.property(*name, text()))
        .property("isBot", typed(Type::Boolean))
        .property("botIsInvalidBrowser", typed(Type::Boolean))
        .property(
            "receivedAt",
            text().format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime))),
        )
        .required("receivedAt");
    let stamps = ["receivedAt", "request_ip", "rudderId"];
    let payload = map()
        .description(Some("The event, stamped. It is kept as it is."))
        .property("messageId", id("Its id."))
        .property("type", text().min_length(Some(1)))
        .required("messageId")
        .required("type");
    let payload = stamps.iter().fold(payload, |object, name| {
        object.property(*name, text()).required(*name)
    });
    let message = map()
        .property("properties", properties)
        .property("payload", payload)
        .required("properties")
        .required("payload");
    let mut messages = Array::new(message);
    messages.min_items = Some(1);
    Schema::Array(messages).into()
}

fn result() -> Schema {
    let rejected = object([
        (
            "index",
            typed(Type::Integer).description(Some("Its place, from 0.")),
        ),
        ("messageId", typed(Type::String)),
        ("code", typed(Type::String)),
        ("message", typed(Type::String)),
    ]);
    Schema::Object(
        map()
            .property("accepted", typed(Type::Integer))
            .property("rejected", Array::new(rejected))
            .required("accepted")
            .required("rejected")
            .build(),
    )
}

fn source_config() -> Schema {
    let source = object([
        ("id", typed(Type::String)),
        ("writeKey", typed(Type::String)),
        ("enabled", typed(Type::Boolean)),
        ("config", map()),
        (
            "destinations",
            ObjectBuilder::new().schema_type(Type::Array),
        ),
    ]);
    Schema::Object(map().property("source", source).required("source").build())
}

fn health() -> Schema {
    let text = || typed(Type::String);
    object([
        ("server", text()),
        ("acceptingEvents", text()),
        ("lastSync", text()),
    ])
}

/// A value that names something.
fn id(about: &str) -> ObjectBuilder {
    typed(Type::String)
        .description(Some(about))
        // At least one character that can be seen.
        .pattern(Some("[!-~]"))
}

/// An object with at least these members.
fn object<const N: usize>(members: [(&str, ObjectBuilder); N]) -> Schema {
    let object = members.into_iter().fold(map(), |object, (name, schema)| {
        object.property(name, schema).required(name)
    });
    Schema::Object(object.build())
}

/// An object with any members.
fn map() -> ObjectBuilder {
    typed(Type::Object).additional_properties(Some(AdditionalProperties::FreeForm(true)))
}

fn any(about: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(SchemaType::AnyValue)
        .description(Some(about))
}

fn typed(kind: Type) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(kind)
}

fn enumerated(value: Value, kind: Type) -> ObjectBuilder {
    typed(kind).enum_values(Some([value]))
}
