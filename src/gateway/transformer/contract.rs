//! What is said to the transformer and what it answers, in the words of RudderStack's second version. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::request::Parts;
use http::{HeaderMap, header};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::control::Source;

use super::super::refusal::Refusal;
use super::super::repair::repair;

/// What becomes of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Outcome {
    /// `{"batch": [...]}` to be stored, and what to answer when it is.
    Events(String, Option<SourceReply>),
    /// Nothing to be stored.
    Reply(SourceReply),
    /// The transformer does not take it.
    Refused(u16, String),
}

/// What the third party is to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct SourceReply {
    pub(in super::super) body: Vec<u8>,
    pub(in super::super) content_type: String,
}

#[derive(Serialize)]
struct Element<'a> {
    request: Request<'a>,
    source: ElementSource<'a>,
}

#[derive(Serialize)]
struct Request<'a> {
    method: &'a str,
    url: &'a str,
    proto: String,
    body: &'a str,
    headers: BTreeMap<String, Vec<Cow<'a, str>>>,
    query_parameters: BTreeMap<Cow<'a, str>, Vec<Cow<'a, str>>>,
}

/// Names as Go spells fields.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ElementSource<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    #[serde(rename = "OriginalID")]
    original_id: &'a str,
    name: &'a str,
    source_definition: ElementDefinition<'a>,
    config: &'a Value,
    enabled: bool,
    #[serde(rename = "WorkspaceID")]
    workspace_id: &'a str,
    write_key: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ElementDefinition<'a> {
    name: &'a str,
    category: &'a str,
}

/// One request as the transformer reads it. `body` is its text, or the JSON that was made of a form.
///
/// # Errors
/// [`Refusal::Unencodable`].
pub(in super::super) fn element(
    head: &Parts,
    body: &str,
    is_form: bool,
    source: &Source,
    workspace: &str,
) -> Result<String, Refusal> {
    let target = head.uri.path_and_query();
    let element = Element {
        request: Request {
            method: head.method.as_str(),
            url: target.map_or("/", |t| t.as_str()),
            proto: format!("{:?}", head.version),
            // As in RudderStack: what is not there is an object without members.
            body: if body.is_empty() { "{}" } else { body },
            headers: request_headers(&head.headers, is_form),
            query_parameters: query(head.uri.query().unwrap_or_default()),
        },
        source: ElementSource {
            id: &source.id,
            original_id: source.original_id.as_deref().unwrap_or_default(),
            name: &source.name,
            source_definition: ElementDefinition {
                name: &source.definition,
                category: &source.category,
            },
            config: &source.config,
            enabled: source.enabled,
            workspace_id: workspace,
            write_key: &source.write_key,
        },
    };
    serde_json::to_string(&element).map_err(|_| Refusal::Unencodable)
}

fn request_headers(headers: &HeaderMap, is_form: bool) -> BTreeMap<String, Vec<Cow<'_, str>>> {
    let mut all = go_headers(headers);
    // Go keeps it elsewhere.
    all.remove(&go_name(header::HOST.as_str()));
    // Neither the compression nor the form is left in the body.
    all.remove(&go_name(header::CONTENT_ENCODING.as_str()));
    if is_form {
        all.insert(
            go_name(header::CONTENT_TYPE.as_str()),
            vec!["application/json".into()],
        );
    }
    all
}

/// Headers as Go's `http.Header`: names as `X-Shopify-Topic`, all values of each.
pub(in super::super) fn go_headers(headers: &HeaderMap) -> BTreeMap<String, Vec<Cow<'_, str>>> {
    let mut all: BTreeMap<String, Vec<Cow<'_, str>>> = BTreeMap::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        all.entry(go_name(name.as_str())).or_default().push(value);
    }
    all
}

fn go_name(name: &str) -> String {
    let mut first = true;
    let capital = |c: char| {
        let c = if first { c.to_ascii_uppercase() } else { c };
        first = c == '-';
        c
    };
    name.chars().map(capital).collect()
}

fn query(query: &str) -> BTreeMap<Cow<'_, str>, Vec<Cow<'_, str>>> {
    let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        all.entry(name).or_default().push(value);
    }
    all
}

/// The body of a batch of elements.
pub(super) fn batch(elements: &[&str]) -> String {
    format!("[{}]", elements.join(","))
}

/// The answers to `count` elements, in order; `None` when there are not so many.
pub(super) fn read(answer: &[u8], count: usize) -> Option<Vec<Result<Outcome, Refusal>>> {
    let text = repair(answer);
    let elements: Vec<&RawValue> = serde_json::from_str(&text).ok()?;
    (elements.len() == count).then(|| elements.into_iter().map(outcome).collect())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answered<'a> {
    #[serde(borrow, default)]
    output: Option<&'a RawValue>,
    #[serde(default)]
    output_to_source: Option<OutputToSource>,
    #[serde(default)]
    status_code: Option<u16>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OutputToSource {
    #[serde(default)]
    body: String,
    #[serde(default)]
    content_type: String,
}

fn outcome(element: &RawValue) -> Result<Outcome, Refusal> {
    let answered: Answered<'_> =
        serde_json::from_str(element.get()).map_err(|_| Refusal::TransformerOutput)?;
    match answered.error {
        None => {}
        Some(Value::String(error)) if error.is_empty() => {}
        Some(Value::String(error)) => {
            let status = answered.status_code.filter(|s| (200..600).contains(s));
            return Ok(Outcome::Refused(status.unwrap_or(400), error));
        }
        Some(_) => return Err(Refusal::TransformerError),
    }
    let reply = match answered.output_to_source {
        Some(reply) => Some(SourceReply {
            body: STANDARD
                .decode(&reply.body)
                .map_err(|_| Refusal::TransformerOutput)?,
            content_type: reply.content_type,
        }),
        None => None,
    };
    match (answered.output, reply) {
        (Some(output), reply) if output.get().starts_with('{') => {
            Ok(Outcome::Events(output.get().to_owned(), reply))
        }
        (Some(_), _) => Err(Refusal::TransformerOutput),
        (None, Some(reply)) => Ok(Outcome::Reply(reply)),
        (None, None) => Err(Refusal::TransformerNoOutput),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn one(answer: &str) -> Result<Outcome, Refusal> {
        read(format!("[{answer}]").as_bytes(), 1).unwrap().remove(0)
    }

    #[test]
    fn each_answer_is_one_of_four() {
        let reply = || SourceReply {
            body: b"{\"a\":1}".to_vec(),
            content_type: "application/json".to_owned(),
        };
        let to_source =
            r#""outputToSource":{"body":"eyJhIjoxfQ==","contentType":"application/json"}"#;
        let output = r#"{"batch":[{"userId":"u", "x":1.50}]}"#;
        for (answer, outcome) in [
            (
                format!(r#"{{"output":{output}}}"#),
                Ok(Outcome::Events(output.to_owned(), None)),
            ),
            (format!("{{{to_source}}}"), Ok(Outcome::Reply(reply()))),
            (
                format!(r#"{{"output":{output},{to_source}}}"#),
                Ok(Outcome::Events(output.to_owned(), Some(reply()))),
            ),
            (
                r#"{"statusCode":422,"error":"no","output":{}}"#.to_owned(),
                Ok(Outcome::Refused(422, "no".to_owned())),
            ),
            (
                r#"{"error":"no"}"#.to_owned(),
                Ok(Outcome::Refused(400, "no".to_owned())),
            ),
            (
                r#"{"error":"no","statusCode":7}"#.to_owned(),
                Ok(Outcome::Refused(400, "no".to_owned())),
            ),
            ("{}".to_owned(), Err(Refusal::TransformerNoOutput)),
            (
                r#"{"output":null,"error":""}"#.to_owned(),
                Err(Refusal::TransformerNoOutput),
            ),
            (
                r#"{"output":[]}"#.to_owned(),
                Err(Refusal::TransformerOutput),
            ),
            (
                r#"{"outputToSource":{"body":"%"}}"#.to_owned(),
                Err(Refusal::TransformerOutput),
            ),
            ("7".to_owned(), Err(Refusal::TransformerOutput)),
            (
                r#"{"error":{"a":1}}"#.to_owned(),
                Err(Refusal::TransformerError),
            ),
        ] {
            assert_eq!(one(&answer), outcome, "{answer}");
        }
    }

    #[test]
    fn as_many_answers_as_questions_or_none() {
        for answer in ["", "{}", "[]", "[{},{}]", "null", "[{}"] {
            assert_eq!(read(answer.as_bytes(), 1), None, "{answer}");
        }
        assert_eq!(read(b"[{},{}]", 2).unwrap().len(), 2);
    }

    #[test]
    fn a_request_is_told_in_gos_words() {
        let request = http::Request::builder()
            .method("POST")
            .uri("/v1/webhook?writeKey=K&a=1&a=%C3%B6")
            .header("host", "sluice.example")
            .header("x-shopify-topic", "carts_create")
            .header("content-type", "multipart/form-data; boundary=x")
            .body(())
            .unwrap();
        let source = Source {
            id: "shop".to_owned(),
            name: "Shop".to_owned(),
            write_key: "K".to_owned(),
            enabled: true,
            definition: "Shopify".to_owned(),
            category: "webhook".to_owned(),
            original_id: None,
            config: json!({"a": 1}),
            destinations: Vec::new(),
        };
        let head = request.into_parts().0;
        let text = element(&head, "", true, &source, "ws").unwrap();
        assert_eq!(
            serde_json::from_str::<Value>(&text).unwrap(),
            json!({
                "request": {
                    "method": "POST", "url": "/v1/webhook?writeKey=K&a=1&a=%C3%B6", "proto": "HTTP/1.1", "body": "{}",
                    "headers": {"X-Shopify-Topic": ["carts_create"], "Content-Type": ["application/json"]},
                    "query_parameters": {"writeKey": ["K"], "a": ["1", "ö"]},
                },
                "source": {
                    "ID": "shop", "OriginalID": "", "Name": "Shop", "Enabled": true, "WorkspaceID": "ws", "WriteKey": "K",
                    "SourceDefinition": {"Name": "Shopify", "Category": "webhook"}, "Config": {"a": 1},
                },
            })
        );
    }

    proptest! {
        #[test]
        fn a_damaged_answer_is_read_or_not_and_nothing_worse(at in 0..90usize, byte: u8) {
            let mut answer = br#"[{"output":{"batch":[{}]}},{"outputToSource":{"body":"eyJ9"}},{"statusCode":4,"error":"e"}]"#.to_vec();
            answer[at] = byte;
            if let Some(answers) = read(&answer, 3) {
                prop_assert_eq!(answers.len(), 3);
            }
        }
    }
}
