//! `/docs`: the document for people. Plain HTML; it loads nothing.

use std::fmt::Write;
use std::sync::OnceLock;

use bytes::Bytes;
use serde_json::Value;

use super::{Part, document};

const HEAD: &str = "<!doctype html><html lang=en><meta charset=utf-8><title>Sluice gateway</title>\
<style>body{font:15px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}\
h2{margin:2em 0 0;font:bold 1em monospace}table{border-collapse:collapse}td{vertical-align:top;padding:.1em 1em .1em 0}\
code{white-space:pre-wrap}</style><h1>Sluice gateway</h1>";

/// The page; made once.
pub(in super::super) fn page() -> Bytes {
    static PAGE: OnceLock<Bytes> = OnceLock::new();
    PAGE.get_or_init(|| {
        let document = serde_json::from_slice(&document(Part::Public));
        Bytes::from(render(&document.expect("it was written as JSON")))
    })
    .clone()
}

fn render(document: &Value) -> String {
    let mut page = HEAD.to_owned();
    push(
        &mut page,
        &format!(
            "<p>{}<p>For machines: <a href=/openapi.json>/openapi.json</a>",
            text(&document["info"]["description"])
        ),
    );
    for (path, item) in members(&document["paths"]) {
        for (method, operation) in members(item) {
            let heading = format!("{} {path}", method.to_uppercase());
            push(
                &mut page,
                &format!(
                    "<h2>{}</h2><p>{} {}<table>",
                    escaped(&heading),
                    text(&operation["summary"]),
                    text(&operation["description"])
                ),
            );
            for (status, response) in members(&operation["responses"]) {
                let said: Vec<String> = members(&response["content"]).flat_map(said).collect();
                let row = format!(
                    "<tr><td>{status}<td>{}<td>{}",
                    text(&response["description"]),
                    said.join("<br>")
                );
                push(&mut page, &row);
            }
            page.push_str("</table>");
        }
    }
    page
}

/// The examples of one kind of content.
fn said((_, content): (&String, &Value)) -> Vec<String> {
    let one = content.get("example").into_iter();
    let several = members(&content["examples"]).map(|(_, example)| &example["value"]);
    one.chain(several)
        .map(|example| match example {
            Value::String(text) => escaped(text.trim_end()),
            other => escaped(&other.to_string()),
        })
        .filter(|said| !said.is_empty())
        .map(|said| format!("<code>{said}</code>"))
        .collect()
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn text(value: &Value) -> String {
    escaped(value.as_str().unwrap_or_default())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
}

fn push(page: &mut String, html: &str) {
    writeln!(page, "{html}").expect("writing to a string cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::routes::PUBLIC;

    #[test]
    fn every_public_route_and_every_text_is_on_the_page() {
        let page = String::from_utf8(page().to_vec()).unwrap();
        for (path, _) in PUBLIC {
            assert!(page.contains(&format!(" {path}</h2>")), "{path}");
        }
        assert!(page.contains("<code>max requests limit reached</code>"));
        assert!(!page.contains("<script") && !page.contains("src="));
    }

    #[test]
    fn what_looks_like_html_is_text() {
        let document =
            serde_json::json!({"paths": {"/<b>": {"get": {"summary": "a & b", "responses": {}}}}});
        let page = render(&document);
        assert!(page.contains("GET /&lt;b>") && page.contains("a &amp; b"));
    }
}
