//! What each kind of endpoint takes, from whom, and what it answers.

use serde_json::{Value, json};
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{
    HttpMethod, Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn,
};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::schema::{ObjectBuilder, Ref, Type};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{ContentBuilder, Required};

use super::super::accept::{Answer, Input, Key, Shape};
use super::super::inputs::stream::BATCH_SIZE;
use super::super::refusal::Refusal;
use super::super::routes::{Endpoint, INTERNAL_ROOT, Route};
use super::super::{arrival, auth, status};
use super::answers::{Answers, READING, STORING};
use super::{Part, TOKEN, WRITE_KEY, WRITE_KEY_IN_QUERY, bodies};
use crate::event::headers::TRACEPARENT;

/// The text of every unknown path.
const NOT_FOUND: &str = "404 page not found";

/// The operations of `endpoint` at `path`.
pub(super) fn of(path: &str, endpoint: Endpoint) -> Vec<(HttpMethod, Operation)> {
    use HttpMethod::{Get, Post};
    let one = |method: HttpMethod, operation: OperationBuilder| vec![(method, operation)];
    let operations = match endpoint {
        Endpoint::Events(input) => one(Post, events(input, path.starts_with(INTERNAL_ROOT))),
        Endpoint::Pixel(route) => one(Get, pixel(route)),
        Endpoint::Webhook => vec![(Get, webhook_probe()), (Post, webhook())],
        Endpoint::Stream => one(Post, stream()),
        Endpoint::SegmentMetrics => one(Post, segment_metrics()),
        Endpoint::SegmentSettings => one(Get, segment_settings()),
        Endpoint::SourceConfig => one(Get, source_config()),
        Endpoint::ClusterInfo => one(Get, cluster_info()),
        Endpoint::Health => one(Get, health()),
        Endpoint::Version => one(Get, version()),
        Endpoint::Robots => one(Get, robots()),
        Endpoint::OpenApi(part) => one(Get, openapi(part)),
        Endpoint::Docs => one(Get, docs()),
    };
    operations
        .into_iter()
        .map(|(method, operation)| {
            let verb = match method {
                Get => "get",
                _ => "post",
            };
            let operation = operation.operation_id(Some(id(verb, path)));
            (method, operation.build())
        })
        .collect()
}

/// `post`, `/v1/track` → `post_v1_track`.
fn id(verb: &str, path: &str) -> String {
    let path = if path == "/" { "/root" } else { path };
    let words = path.split(|c: char| !c.is_ascii_alphanumeric());
    [verb]
        .into_iter()
        .chain(words)
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join("_")
}

fn described(tag: &str, summary: &str, description: &str) -> OperationBuilder {
    OperationBuilder::new()
        .tag(tag)
        .summary(Some(summary))
        .description(Some(description))
}

/// A route that takes events, all of it from what the route is.
fn events(input: Input, internal: bool) -> OperationBuilder {
    let (schema, example) = match input.shape {
        Shape::One if names_nobody(input.route) => (bodies::ANONYMOUS_EVENT, event(input.route)),
        Shape::One => (bodies::EVENT, event(input.route)),
        Shape::Batch if input.key == Key::SourceId => (bodies::ROWS, batch("record")),
        Shape::Batch | Shape::Import => (bodies::BATCH, batch("track")),
    };
    let tag = match (internal, input.answer) {
        (true, _) => "Internal",
        (false, Answer::Segment) => "Segment's browser client",
        (false, Answer::Text) => "Events",
    };
    let answers = match internal {
        true => answers(input).error(404, "no_token", NOT_FOUND),
        false => answers(input),
    };
    let operation = described(tag, &summary(input), about(input))
        .request_body(Some(body(schema, example)))
        .parameters(Some(parameters(input)))
        .responses(answers.build());
    let requirements = match input.key {
        Key::Header => vec![needs(WRITE_KEY)],
        Key::Query => vec![needs(WRITE_KEY_IN_QUERY)],
        Key::Webhook => vec![needs(WRITE_KEY_IN_QUERY), needs(WRITE_KEY)],
        Key::HeaderOrBody => vec![needs(WRITE_KEY), SecurityRequirement::default()],
        Key::SourceId | Key::ReplaySourceId => vec![SecurityRequirement::default()],
    };
    operation.securities(Some(requirements.into_iter().map(
        |needed| match internal {
            true => with_token(needed),
            false => needed,
        },
    )))
}

/// Routes whose events need no user.
fn names_nobody(route: Route) -> bool {
    route == Route::Extract
}

fn summary(input: Input) -> String {
    let kind = input.route.event_type();
    match input.shape {
        Shape::One => format!("Take an event of the type {kind}."),
        Shape::Batch => "Take events of any types.".to_owned(),
        Shape::Import => "Take events of the past.".to_owned(),
    }
}

fn about(input: Input) -> &'static str {
    match (input.shape, input.key) {
        (Shape::Import, _) => {
            "A bad event refuses those of the same user only. With several users refused, the answer is 500 and their errors in a row, \
             as by RudderStack. An empty batch is accepted."
        }
        (_, Key::Query) => "For `navigator.sendBeacon`, which can set no headers.",
        (_, Key::HeaderOrBody) => {
            "The write key may also stand in the body, as `writeKey`; the header wins over it."
        }
        (_, Key::SourceId) => {
            "For reverse ETL: the sender names the source, and perhaps the one destination, by id."
        }
        (_, Key::ReplaySourceId) => {
            "For events that are sent again, into a source that replays another one."
        }
        (Shape::One, _) => "The path decides the type, whatever the event says.",
        (Shape::Batch, _) => "One bad event refuses all, unless a result per event is asked for.",
    }
}

fn answers(input: Input) -> Answers {
    let per_event = "With `Sluice-Result: per-event`: what became of each.";
    let accepted = json!({"accepted": 2, "rejected": [
        {"index": 1, "messageId": "m-2", "code": "no_identity", "message": Refusal::NoIdentity.to_string()},
    ]});
    let nothing = json!({"accepted": 0, "code": "all_rejected", "message": "no event of the request was accepted", "rejected": [
        {"index": 0, "messageId": "", "code": "no_identity", "message": Refusal::NoIdentity.to_string()},
    ]});
    let whole = "Every in-sync replica has every event.";
    let answers = match input.answer {
        Answer::Text => Answers::default().text(whole, "ok"),
        Answer::Segment => Answers::default(),
    };
    let answers = match input.answer {
        // One content type, two shapes.
        Answer::Segment => answers.json(whole, bodies::SUCCESS_OR_RESULT, json!({"success": true})),
        Answer::Text => answers.json(per_event, bodies::RESULT, accepted),
    };
    let empty: &[Refusal] = match input.shape {
        Shape::Batch => &[Refusal::EmptyBatch],
        Shape::One | Shape::Import => &[],
    };
    let answers = answers
        .refusals(callers(input.key))
        .refusals(READING)
        .refusals(STORING)
        .refusals(empty)
        .status_json(400, per_event, bodies::RESULT, nothing);
    match input.shape {
        Shape::Import => {
            let all = format!("{0}{0}", Refusal::NoIdentity);
            answers.error(500, "of_several_users", &all).and_others(500)
        }
        Shape::One | Shape::Batch => answers,
    }
}

/// What a caller can be refused for.
fn callers(key: Key) -> &'static [Refusal] {
    use Refusal as R;
    match key {
        Key::Header | Key::HeaderOrBody => &[R::NoWriteKey, R::UnknownWriteKey, R::SourceDisabled],
        Key::Query | Key::Webhook => &[R::NoWriteKeyInQuery, R::UnknownWriteKey, R::SourceDisabled],
        Key::SourceId => &[
            R::NoSourceId,
            R::UnknownSource,
            R::SourceDisabled,
            R::NoDestinationId,
            R::UnknownDestination,
            R::DestinationDisabled,
        ],
        Key::ReplaySourceId => &[
            R::NoSourceId,
            R::UnknownSource,
            R::NotAReplaySource,
            R::SourceDisabled,
        ],
    }
}

fn parameters(input: Input) -> Vec<Parameter> {
    let mut parameters = vec![
        ParameterBuilder::new()
            .name("Sluice-Result")
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .description(Some(
                "Asks for a result per event: good events in, bad ones named.",
            ))
            .schema(Some(
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .enum_values(Some(["per-event"])),
            ))
            .build(),
        header(arrival::ANONYMOUS_ID, "Orders events that name nobody."),
        header(
            TRACEPARENT,
            "W3C trace context; travels with the events and comes back in the answer.",
        ),
        header(
            arrival::JOB_RUN,
            "Job run of reverse ETL; such requests have no rate limit.",
        ),
        header(arrival::TASK_RUN, "Task run of reverse ETL."),
    ];
    match input.key {
        Key::SourceId => {
            parameters.push(required(header(auth::SOURCE_ID, "The source, by id.")));
            parameters.push(header(
                auth::DESTINATION_ID,
                "The one destination that the events are for.",
            ));
        }
        Key::ReplaySourceId => {
            parameters.push(required(header(
                auth::SOURCE_ID,
                "The source that replays another one, by id.",
            )));
        }
        Key::Header | Key::Query | Key::HeaderOrBody | Key::Webhook => {}
    }
    parameters
}

fn pixel(route: Route) -> OperationBuilder {
    let summary = format!(
        "Take a {} event from an image's address.",
        route.event_type()
    );
    described("Events", &summary, "For mails and pages without scripts. Every parameter is a member of the event. The answer is the \
        image whatever happened, also for an unknown key: it is the one 200 that promises nothing.")
        .parameters(Some([
            required(query("writeKey", "The source's write key.")),
            query("userId", "Whom it is about."),
            query("anonymousId", "Whom it is about, when that is not known."),
            query("event", "Name of a track event, which needs one."),
            query("name", "Name of a page."),
        ]))
        .responses(Answers::default().image("One transparent pixel.").build())
}

fn webhook_probe() -> OperationBuilder {
    let operation = described(
        "Events",
        "Ask whether a webhook source is there.",
        "Services do this before they post.",
    )
    .responses(
        Answers::default()
            .text("It is there.", "")
            .refusals(callers(Key::Webhook))
            .build(),
    );
    either(operation)
}

fn webhook() -> OperationBuilder {
    let operation = described("Events", "Take what a service posts.",
        "Any JSON: each object becomes the properties of a track event. Only for sources of the category webhook.")
        .request_body(Some(body(bodies::ANY_JSON, json!({"order": {"id": 7}}))))
        .responses(
            Answers::default()
                .text("Every in-sync replica has it.", "ok")
                .refusals(callers(Key::Webhook))
                .refusals(&[Refusal::NotAWebhook, Refusal::EmptyBatch])
                .refusals(READING)
                .refusals(STORING)
                .build(),
        );
    either(operation)
}

fn stream() -> OperationBuilder {
    let example = json!([{
        "properties": {
            "requestType": "track", "routingKey": "ada", "workspaceID": "ws", "sourceID": "web",
            "receivedAt": "2026-01-02T03:04:05.006Z", "requestIP": "203.0.113.9",
        },
        "payload": {
            "type": "track", "event": "Order Completed", "userId": "ada", "messageId": "m-1",
            "receivedAt": "2026-01-02T03:04:05.006Z", "request_ip": "203.0.113.9",
            "rudderId": "e4cab80e-2f0e-4fa2-87e0-3a4af182634c",
        },
    }]);
    described("Internal", "Take what an ingestion service took before.",
        "Messages of any sources, checked and stamped by the service. One bad message refuses all. Events of suppressed users, those \
        that the workspace blocks, and bots with the action `drop` are answered with 200 and not kept.")
        .parameters(Some([header(
            BATCH_SIZE,
            "How many events the body has, for the limit on those of all sources together. Without it the request has no limit.",
        )]))
        .request_body(Some(body(bodies::STREAM, example)))
        .responses(
            Answers::default()
                .text("Every in-sync replica has every event.", "ok")
                .refusals(READING)
                .refusals(&[
                    Refusal::IncompleteMessage,
                    Refusal::NotAnEvent,
                    Refusal::RateLimited { seconds: 1 },
                    Refusal::NotAcknowledged,
                ])
                .error(404, "no_token", NOT_FOUND)
                .build(),
        )
        .security(needs(TOKEN))
}

fn segment_metrics() -> OperationBuilder {
    described(
        "Segment's browser client",
        "Take the client's metrics about itself.",
        "They are not kept.",
    )
    .responses(
        Answers::default()
            .json("They are gone.", bodies::SUCCESS, json!({"success": true}))
            .build(),
    )
}

fn segment_settings() -> OperationBuilder {
    let write_key = ParameterBuilder::new()
        .name("write_key")
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some("The source's write key."))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
        .build();
    let example = json!({"integrations": {"Segment.io": {"apiKey": "K", "apiHost": "events.example.com/v1"}}});
    described(
        "Segment's browser client",
        "What the client asks before it sends anything.",
        "Tells it to send everything here, and to load nothing.",
    )
    .parameter(write_key)
    .responses(
        Answers::default()
            .json("Its settings.", bodies::SETTINGS, example)
            .error(404, "unknown_write_key", "invalid write key")
            .error(404, "no_write_key", NOT_FOUND)
            .build(),
    )
}

fn source_config() -> OperationBuilder {
    let example = json!({"source": {"id": "web", "writeKey": "K", "enabled": true, "config": {}, "destinations": []}});
    let tag = || {
        let tag = ObjectBuilder::new().schema_type(Type::String);
        HeaderBuilder::new().schema(Some(tag)).build()
    };
    let operation = described("RudderStack's browser client", "What the client asks before it sends anything.",
        "The source, without destinations: the client would load those into the page. A source that is switched off says so here.")
        .parameter(header("If-None-Match", "Entity tag of what the client has."))
        .responses(
            Answers::default()
                .json("The source.", bodies::SOURCE_CONFIG, example)
                .empty(304, "The client has it.")
                .header(200, "ETag", tag())
                .header(304, "ETag", tag())
                .refusals(&[Refusal::NoWriteKey, Refusal::UnknownWriteKey])
                .build(),
        );
    either(operation)
}

fn cluster_info() -> OperationBuilder {
    described(
        "Service",
        "How many gateways there are.",
        "Old Go clients ask, to choose one by themselves. There is always one.",
    )
    .responses(
        Answers::default()
            .json("One.", bodies::CLUSTER, json!({"nodeCount": 1}))
            .build(),
    )
}

fn health() -> OperationBuilder {
    let example =
        json!({"server": "UP", "acceptingEvents": "TRUE", "lastSync": "2026-01-02T03:04:05.006Z"});
    described(
        "Service",
        "Whether events can be taken.",
        "In RudderStack's shape. Probes of an orchestrator belong on `admin.listen`.",
    )
    .responses(
        Answers::default()
            .json("They can.", bodies::HEALTH, example)
            .error(503, "away", status::AWAY)
            .error(503, "draining", status::DRAINING)
            .build(),
    )
}

fn version() -> OperationBuilder {
    let example =
        json!({"Version": "0.1.0", "Commit": "", "BuildDate": "", "BuiltBy": "", "Features": {}});
    described(
        "Service",
        "Which version this is.",
        "In RudderStack's shape.",
    )
    .responses(
        Answers::default()
            .json("This one.", bodies::VERSION, example)
            .build(),
    )
}

fn robots() -> OperationBuilder {
    described(
        "Service",
        "What crawlers may read.",
        "Nothing. The blanks at the ends of the lines are RudderStack's.",
    )
    .responses(
        Answers::default()
            .text("Nothing.", "User-agent: * \nDisallow: / \n")
            .build(),
    )
}

fn openapi(part: Part) -> OperationBuilder {
    let operation = described(
        match part {
            Part::Public => "Service",
            Part::All => "Internal",
        },
        "This document.",
        match part {
            Part::Public => "What anybody may ask for.",
            Part::All => "With what is behind the token.",
        },
    );
    let answers = Answers::default().json(
        "This document.",
        bodies::OPENAPI,
        json!({"openapi": "3.1.0", "paths": {}}),
    );
    match part {
        Part::Public => operation.responses(answers.build()),
        Part::All => operation
            .responses(answers.error(404, "no_token", NOT_FOUND).build())
            .security(needs(TOKEN)),
    }
}

fn docs() -> OperationBuilder {
    described(
        "Service",
        "This document for people.",
        "Plain HTML; it loads nothing.",
    )
    .responses(Answers::default().html("The page.").build())
}

fn event(route: Route) -> Value {
    let event = json!({"userId": "ada", "messageId": "m-1", "context": {}});
    let mut event = event;
    match route.event_type() {
        "track" => {
            event["event"] = "Order Completed".into();
            event["properties"] = json!({"total": 12.5});
        }
        "identify" | "group" => event["traits"] = json!({"plan": "free"}),
        _ => {}
    }
    event
}

fn batch(kind: &str) -> Value {
    json!({"batch": [{"type": kind, "event": "Order Completed", "userId": "ada", "messageId": "m-1"}]})
}

fn body(schema: &str, example: Value) -> RequestBody {
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name(schema)))
        .example(Some(example))
        .build();
    RequestBodyBuilder::new()
        .content("application/json", content)
        .required(Some(Required::True))
        .build()
}

fn header(name: &str, about: &str) -> Parameter {
    parameter(ParameterIn::Header, name, about)
}

fn query(name: &str, about: &str) -> Parameter {
    parameter(ParameterIn::Query, name, about)
}

fn parameter(place: ParameterIn, name: &str, about: &str) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(Required::False)
        .description(Some(about))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
        .build()
}

fn required(mut parameter: Parameter) -> Parameter {
    parameter.required = Required::True;
    parameter
}

fn needs(scheme: &str) -> SecurityRequirement {
    SecurityRequirement::new::<_, [&str; 0], &str>(scheme, [])
}

/// The write key in the query or in the header.
fn either(operation: OperationBuilder) -> OperationBuilder {
    operation
        .security(needs(WRITE_KEY_IN_QUERY))
        .security(needs(WRITE_KEY))
}

fn with_token(requirement: SecurityRequirement) -> SecurityRequirement {
    requirement.add::<_, [&str; 0], &str>(TOKEN, [])
}
