//! Webhook sources of other services, through the contract of RudderStack's transformer. The transformer here is a stand-in
//! that keeps what it is asked and answers as the test says.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use sluice::config::SourceTransformerConfig;
use tokio::net::TcpListener;

use crate::support::gateway::{Reply, TestGateway};
use crate::support::process::free_address;

const WORKSPACE: &str = r#"{"workspaceId":"ws","sources":[
  {"id":"hook","writeKey":"HOOK","sourceDefinition":{"name":"Webhook","category":"webhook"}},
  {"id":"shop","name":"Shop","writeKey":"SHOP","config":{"a":1},"sourceDefinition":{"name":"Shopify","category":"webhook"}},
  {"id":"install","writeKey":"ADJUST","sourceDefinition":{"name":"Adjust","category":"webhook"}}]}"#;

/// What the stand-in answers: a status, and the text that it makes of the elements.
type Answer = dyn Fn(usize, &[Value]) -> (u16, String) + Send + Sync;

/// Path and elements of one request.
type Asked = (String, Vec<Value>);

/// The stand-in. It ends with the test's runtime.
struct Transformer {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Transformer {
    /// `answer` is given the number of the request, from 0, and its elements.
    async fn answering(
        answer: impl Fn(usize, &[Value]) -> (u16, String) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let transformer = Self {
            address: listener.local_addr().unwrap(),
            asked: Arc::default(),
        };
        let (asked, answer): (_, Arc<Answer>) = (Arc::clone(&transformer.asked), Arc::new(answer));
        let handle = move |request: Request<Body>| {
            let (asked, answer) = (Arc::clone(&asked), Arc::clone(&answer));
            async move {
                let path = request.uri().path().to_owned();
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let elements: Vec<Value> = serde_json::from_slice(&body).unwrap();
                let number = {
                    let mut asked = asked.lock().unwrap();
                    asked.push((path, elements.clone()));
                    asked.len() - 1
                };
                let (status, text) = answer(number, &elements);
                let mut response = Response::new(Body::from(text));
                *response.status_mut() = status.try_into().unwrap();
                response
            }
        };
        let app = Router::new().fallback(handle);
        drop(tokio::spawn(
            async move { axum::serve(listener, app).await },
        ));
        transformer
    }

    /// Answers each element with what `one` makes of its body.
    async fn of_bodies(one: impl Fn(&str) -> Value + Send + Sync + 'static) -> Self {
        Self::answering(move |_, elements| {
            let answers: Vec<Value> = elements
                .iter()
                .map(|e| one(e["request"]["body"].as_str().unwrap()))
                .collect();
            (200, Value::from(answers).to_string())
        })
        .await
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

async fn gateway(
    transformer: SocketAddr,
    change: impl FnOnce(&mut SourceTransformerConfig),
) -> TestGateway {
    TestGateway::start_with(WORKSPACE, |config| {
        let settings = &mut config.gateway.source_transformer;
        settings.url = Some(format!("http://{transformer}"));
        settings.batch_wait_ms = 1;
        settings.backoff_base_ms = 1;
        settings.backoff_cap_ms = 2;
        change(settings);
    })
    .await
}

async fn post(gateway: &TestGateway, key: &str, body: &str) -> Reply {
    let target = format!("/v1/webhook?writeKey={key}&topic=carts");
    gateway.send("POST", &target, &[], body.as_bytes()).await
}

/// An event of which `body` is the message id.
fn event(body: &str) -> Value {
    json!({"type": "track", "event": "Hooked", "userId": "u", "messageId": body})
}

async fn ids(gateway: &TestGateway) -> Vec<String> {
    let events = gateway.events().await;
    let mut ids: Vec<String> = events.iter().map(|e| e.message_id.to_string()).collect();
    ids.sort();
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_one_type_travel_together_and_each_gets_its_own_answer() {
    let transformer =
        Transformer::of_bodies(|body| json!({"output": {"batch": [event(body), event("both")]}}))
            .await;
    let gateway = gateway(transformer.address, |settings| {
        // Only a full batch is ever sent.
        settings.batch_wait_ms = 600_000;
        settings.batch_requests_max = 2;
    })
    .await;
    let (one, two) = tokio::join!(post(&gateway, "SHOP", "one"), post(&gateway, "SHOP", "two"));
    assert_eq!((one.short(), two.short()), ((200, "ok"), (200, "ok")));
    let asked = transformer.asked();
    assert_eq!(asked.len(), 1);
    let (path, elements) = &asked[0];
    assert_eq!(path, "/v2/sources/shopify");
    assert_eq!(elements.len(), 2);
    let request = &elements[0]["request"];
    assert_eq!(request["method"], "POST");
    assert_eq!(request["proto"], "HTTP/1.1");
    assert_eq!(request["url"], "/v1/webhook?writeKey=SHOP&topic=carts");
    assert_eq!(
        request["query_parameters"],
        json!({"writeKey": ["SHOP"], "topic": ["carts"]})
    );
    let source = &elements[0]["source"];
    assert_eq!(source["ID"], "shop");
    assert_eq!(source["WorkspaceID"], "ws");
    assert_eq!(source["Config"], json!({"a": 1}));
    assert_eq!(source["SourceDefinition"]["Name"], "Shopify");
    assert_eq!(ids(&gateway).await, ["both", "both", "one", "two"]);
    let events = gateway.events().await;
    assert!(events.iter().all(|e| e.source_id == "shop"));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_transformer_decides_what_is_stored_and_what_is_answered() {
    let transformer = Transformer::of_bodies(|body| {
        let reply = json!({"body": "eyJhIjoxfQ==", "contentType": "application/json"});
        match body {
            "reply" => json!({"outputToSource": reply}),
            "both" => json!({"output": {"batch": [event("both")]}, "outputToSource": reply}),
            "refused" => json!({"statusCode": 422, "error": "event type is not supported"}),
            "bare" => json!({"error": "no"}),
            "nothing" => json!({}),
            "list" => json!({"output": []}),
            "empty" => json!({"output": {"batch": []}}),
            "nobody" => json!({"output": {"batch": [{"type": "track", "event": "x"}]}}),
            other => panic!("{other}"),
        }
    })
    .await;
    let gateway = gateway(transformer.address, |_| ()).await;
    for (body, status, text) in [
        ("reply", 200, r#"{"a":1}"#),
        ("both", 200, r#"{"a":1}"#),
        ("refused", 422, "event type is not supported\n"),
        ("bare", 400, "no\n"),
        (
            "nothing",
            500,
            "output not found in source transformer response\n",
        ),
        (
            "list",
            500,
            "invalid output format in source transformer response\n",
        ),
        ("empty", 400, "empty batch payload\n"),
        (
            "nobody",
            400,
            "request neither has anonymousId nor userId\n",
        ),
    ] {
        let reply = post(&gateway, "SHOP", body).await;
        assert_eq!(reply.short(), (status, text), "{body}");
        let json = reply.header("content-type") == Some("application/json");
        assert_eq!(json, status == 200, "{body}");
    }
    assert_eq!(ids(&gateway).await, ["both"]);
    let metrics = gateway.metrics.render();
    for line in [
        r#"sluice_gateway_requests_refused_total{reason="refused_by_transformer",source="shop"} 2"#,
        r#"sluice_gateway_source_transformer_batches_total{outcome="ok",type="shopify"} 8"#,
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transformer_that_fails_is_asked_again_and_one_that_answers_wrong_is_not() {
    let transformer = Transformer::answering(|number, elements| {
        let body = elements[0]["request"]["body"].as_str().unwrap();
        match body {
            "late" if number < 2 => (503, "busy".to_owned()),
            "late" => (
                200,
                json!([{"output": {"batch": [event("late")]}}]).to_string(),
            ),
            "unknown" => (404, "no such source".to_owned()),
            "two" => (200, "[{},{}]".to_owned()),
            "text" => (200, "oops".to_owned()),
            "large" => (200, " ".repeat(5_000)),
            _ => (500, "down".to_owned()),
        }
    })
    .await;
    let gateway = gateway(transformer.address, |settings| {
        settings.attempts_max = 3;
        settings.response_bytes_max = 4_000;
    })
    .await;
    let invalid = "invalid format of source transformer response\n";
    for (body, attempts, status, text) in [
        ("late", 3, 200, "ok"),
        (
            "unknown",
            1,
            500,
            "Source Transformer returned non-success statusCode\n",
        ),
        ("two", 1, 500, invalid),
        ("text", 1, 500, invalid),
        ("large", 1, 500, invalid),
        ("down", 3, 503, "service unavailable\n"),
    ] {
        let before = transformer.asked().len();
        let reply = post(&gateway, "SHOP", body).await;
        assert_eq!(reply.short(), (status, text), "{body}");
        assert_eq!(reply.header("retry-after").is_some(), status == 503);
        assert_eq!(transformer.asked().len() - before, attempts, "{body}");
    }
    assert_eq!(ids(&gateway).await, ["late"]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_transformer_a_source_answers_503_and_the_generic_one_goes_on() {
    let gateway = gateway(free_address(), |settings| settings.attempts_max = 2).await;
    let reply = post(&gateway, "SHOP", "{}").await;
    assert_eq!(reply.short(), (503, "service unavailable\n"));
    assert!(reply.header("retry-after").is_some());
    assert_eq!(post(&gateway, "HOOK", "{}").await.short(), (200, "ok"));
    assert_eq!(gateway.events().await.len(), 1);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_get_is_an_event_for_those_sources_alone_that_send_them_so() {
    let transformer =
        Transformer::of_bodies(|body| json!({"output": {"batch": [event(body)]}})).await;
    let gateway = gateway(transformer.address, |_| ()).await;
    let get = async |key: &str| {
        let target = format!("/v1/webhook?writeKey={key}&activity_kind=install");
        gateway.send("GET", &target, &[], b"").await
    };
    assert_eq!(get("HOOK").await.short(), (200, ""));
    assert_eq!(get("SHOP").await.short(), (200, ""));
    assert_eq!(get("ADJUST").await.short(), (200, "ok"));
    let asked = transformer.asked();
    assert_eq!(asked.len(), 1);
    let request = &asked[0].1[0]["request"];
    assert_eq!(request["method"], "GET");
    assert_eq!(
        request["query_parameters"]["activity_kind"],
        json!(["install"])
    );
    assert_eq!(ids(&gateway).await, ["{}"], "an empty body is an object");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forms_are_read_as_json() {
    let transformer =
        Transformer::of_bodies(|body| json!({"output": {"batch": [event(body)]}})).await;
    let gateway = TestGateway::start_with(WORKSPACE, |config| {
        config.gateway.source_transformer.url = Some(format!("http://{}", transformer.address));
        config.gateway.body_bytes_max = 400;
        config.gateway.multipart_bytes_max = 4_000;
    })
    .await;
    let send = async |key: &str, content_type: &str, body: &str| {
        let target = format!("/v1/webhook?writeKey={key}");
        let headers = [("Content-Type", content_type)];
        let reply = gateway
            .send("POST", &target, &headers, body.as_bytes())
            .await;
        (reply.status, reply.body)
    };
    let ok = (200, "ok".to_owned());
    let refused = |status: u16, words: &str| (status, format!("{words}\n"));
    let (encoded, multipart) = (
        "application/x-www-form-urlencoded; charset=utf-8",
        "multipart/form-data; boundary=X",
    );
    let parts = |value: &str, file: &str| {
        format!(
            "--X\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n{value}\r\n\
             --X\r\nContent-Disposition: form-data; name=\"f\"; filename=\"p.png\"\r\n\r\n{file}\r\n--X--\r\n"
        )
    };
    // A file may be larger than what is made of it.
    let form = parts("1", &"x".repeat(1_000));
    for key in ["SHOP", "HOOK"] {
        assert_eq!(send(key, encoded, "a=1&a=2&b=x+y").await, ok);
        assert_eq!(send(key, multipart, &form).await, ok);
        // As curl labels it.
        assert_eq!(send(key, encoded, r#"{"n":1}"#).await, ok);
        for (content_type, body, refusal) in [
            (
                encoded,
                "a=%zz".to_owned(),
                refused(400, "error during parsing form"),
            ),
            (
                multipart,
                "--X".to_owned(),
                refused(400, "error during parsing multiform"),
            ),
            (
                multipart,
                parts(&"x".repeat(500), ""),
                refused(413, "request size exceeds max limit"),
            ),
            (
                multipart,
                parts("", &"x".repeat(5_000)),
                refused(413, "request size exceeds max limit"),
            ),
        ] {
            assert_eq!(send(key, content_type, &body).await, refusal, "{body:.40}");
        }
    }
    let asked = transformer.asked();
    let types: Vec<&Value> = asked
        .iter()
        .map(|(_, elements)| &elements[0]["request"]["headers"]["Content-Type"][0])
        .collect();
    assert_eq!(types, ["application/json", "application/json", encoded]);
    let mut made: Vec<Value> = asked
        .iter()
        .map(|(_, elements)| elements[0]["request"]["body"].as_str().unwrap())
        .map(|body| serde_json::from_str(body).unwrap())
        .collect();
    assert_eq!(made[0], json!({"a": ["1", "2"], "b": ["x y"]}));
    assert_eq!(made[1]["Value"], json!({"a": ["1"]}));
    assert_eq!(made[1]["File"]["f"][0]["Filename"], "p.png");
    assert_eq!(made[1]["File"]["f"][0]["Size"], 1_000);
    // The generic source makes properties of the same.
    let events = gateway.events().await;
    let mut properties: Vec<Value> = events
        .iter()
        .filter(|e| e.source_id == "hook")
        .map(|e| serde_json::from_slice::<Value>(&e.event).unwrap()["properties"].clone())
        .collect();
    let by_text = |value: &Value| value.to_string();
    made.sort_by_key(by_text);
    properties.sort_by_key(by_text);
    assert_eq!(properties, made);
    gateway.stop().await;
}
