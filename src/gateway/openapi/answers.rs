//! Answers, by status, with RudderStack's words as examples.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::{
    Content, ContentBuilder, ObjectBuilder, Ref, Response, ResponseBuilder, Responses, Type,
};

use super::super::refusal::Refusal;
use crate::fault::Classify;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json; charset=utf-8";

/// What any body that is read can be refused for.
pub(super) const READING: &[Refusal] = &[
    Refusal::TooLarge,
    Refusal::BodyUnreadable,
    Refusal::InvalidJson,
    Refusal::TooDeep,
    Refusal::TooManyValues,
    Refusal::Overloaded,
];

/// What any event can be refused for once it is read.
pub(super) const STORING: &[Refusal] = &[
    Refusal::NotAnEvent,
    Refusal::NoIdentity,
    Refusal::RateLimited { seconds: 1 },
    Refusal::NotAcknowledged,
];

/// The answers of one operation.
#[derive(Default)]
pub(super) struct Answers {
    responses: BTreeMap<u16, Response>,
    /// Texts of errors, by status: a word for each, and what it says.
    errors: BTreeMap<u16, Vec<(&'static str, String)>>,
    /// Statuses whose texts may be others, too.
    open: BTreeSet<u16>,
    /// Statuses that ask to come back.
    later: BTreeSet<u16>,
}

impl Answers {
    /// A success with a text as it is, without a newline.
    pub(super) fn text(self, about: &str, body: &str) -> Self {
        let schema = string().enum_values(Some([body]));
        let content = ContentBuilder::new()
            .schema(Some(schema))
            .example(Some(body.into()))
            .build();
        self.with(200, about, TEXT, content)
    }

    /// A success with JSON of a schema's shape.
    pub(super) fn json(self, about: &str, schema: &str, example: Value) -> Self {
        self.status_json(200, about, schema, example)
    }

    /// An answer with JSON of a schema's shape, beside what else the status may come with.
    pub(super) fn status_json(
        self,
        status: u16,
        about: &str,
        schema: &str,
        example: Value,
    ) -> Self {
        let content = ContentBuilder::new()
            .schema(Some(Ref::from_schema_name(schema)))
            .example(Some(example))
            .build();
        self.with(status, about, JSON, content)
    }

    /// A success with a page.
    pub(super) fn html(self, about: &str) -> Self {
        let content = ContentBuilder::new().schema(Some(string())).build();
        self.with(200, about, "text/html; charset=utf-8", content)
    }

    /// A success with an image.
    pub(super) fn image(self, about: &str) -> Self {
        let bytes = string().content_media_type("image/gif");
        let content = ContentBuilder::new().schema(Some(bytes)).build();
        self.with(200, about, "image/gif", content)
    }

    /// An answer without a body.
    pub(super) fn empty(mut self, status: u16, about: &str) -> Self {
        self.responses.insert(status, Response::new(about));
        self
    }

    /// An error that is no refusal: a word for it, and its text.
    pub(super) fn error(mut self, status: u16, word: &'static str, text: &str) -> Self {
        let errors = self.errors.entry(status).or_default();
        errors.push((word, format!("{text}\n")));
        self
    }

    /// Errors of this status may have other texts, too.
    pub(super) fn and_others(mut self, status: u16) -> Self {
        self.open.insert(status);
        self
    }

    /// Refusals, by their own codes and words.
    pub(super) fn refusals(mut self, refusals: &[Refusal]) -> Self {
        for refusal in refusals {
            let status = refusal.status().as_u16();
            if refusal.retry_after().is_some() {
                self.later.insert(status);
            }
            self = self.error(status, refusal.code(), &refusal.to_string());
        }
        self
    }

    /// Adds a header to an answer that is there.
    pub(super) fn header(mut self, status: u16, name: &str, header: Header) -> Self {
        if let Some(response) = self.responses.get_mut(&status) {
            response.headers.insert(name.to_owned(), header.into());
        }
        self
    }

    pub(super) fn build(mut self) -> Responses {
        for (status, errors) in std::mem::take(&mut self.errors) {
            let content = texts(&errors, !self.open.contains(&status));
            let sniff = HeaderBuilder::new().schema(Some(string().enum_values(Some(["nosniff"]))));
            self = self.with(status, about(status), TEXT, content).header(
                status,
                "X-Content-Type-Options",
                sniff.build(),
            );
        }
        for status in std::mem::take(&mut self.later) {
            self = self.header(status, "Retry-After", retry_after());
        }
        let mut responses = Responses::new();
        for (status, response) in self.responses {
            responses
                .responses
                .insert(status.to_string(), response.into());
        }
        responses
    }

    fn with(mut self, status: u16, about: &str, content_type: &str, content: Content) -> Self {
        let response = self
            .responses
            .entry(status)
            .or_insert_with(|| ResponseBuilder::new().description(about).build());
        response
            .content
            .insert(content_type.to_owned(), content.into());
        self
    }
}

fn texts(errors: &[(&'static str, String)], no_others: bool) -> Content {
    let mut schema = string();
    if no_others {
        let texts: BTreeSet<&str> = errors.iter().map(|(_, text)| text.as_str()).collect();
        schema = schema.enum_values(Some(texts));
    }
    ContentBuilder::new()
        .schema(Some(schema))
        .examples_from_iter(errors.iter().map(|(word, text)| {
            let example = ExampleBuilder::new().value(Some(text.as_str().into()));
            (*word, example.build())
        }))
        .build()
}

fn about(status: u16) -> &'static str {
    match status {
        400 => "It can never be accepted; do not send it again.",
        401 => "Who sends it is not known.",
        404 => "What it names is not there, or is switched off.",
        413 => "The body, as sent or as inflated, or one of its events is too large.",
        429 => "More was sent than may be; send it again later.",
        500 => "The body did not arrive whole, or could not be inflated.",
        _ => "Nothing is accepted now; send it again later.",
    }
}

fn retry_after() -> Header {
    let seconds = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(1));
    HeaderBuilder::new()
        .schema(Some(seconds))
        .description(Some("Whole seconds to wait at least."))
        .build()
}

fn string() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}
