//! The description of the gateway's routes: it says what the routes do, and an independent tool believes it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use sluice::config::Secret;
use sluice::dev::kafka::LocalKafka;

use crate::support::client::{Connection, request};
use crate::support::gateway::TestGateway;
use crate::support::process::{Bed, free_address};
use crate::support::python;

const TOKEN: &str = "correct horse battery";
const WITHIN: Duration = Duration::from_secs(120);
/// Where the whole document is.
const DOCUMENT: &str = "/internal/v1/openapi.json";

const WORKSPACE: &str = "
sources:
  - {id: web, write_key: K, type: HTTP}
";

/// A target for a path of the document.
fn target(path: &str) -> String {
    path.replace("{write_key}", "K")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_answers_the_methods_that_its_description_has_and_no_others() {
    let gateway = TestGateway::start_with(WORKSPACE, |config| {
        config.gateway.internal_token = Some(Secret::new(TOKEN));
    })
    .await;
    let token = [("X-Sluice-Token", TOKEN)];
    let reply = gateway.send("GET", DOCUMENT, &token, b"").await;
    assert_eq!(
        (reply.status, reply.header("content-type")),
        (200, Some("application/json; charset=utf-8"))
    );
    let document: Value = serde_json::from_str(&reply.body).unwrap();
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() > 30, "{}", paths.len());
    for (path, item) in paths {
        for method in ["get", "post", "put", "delete", "patch"] {
            let described = item.get(method);
            let verb = method.to_uppercase();
            let reply = gateway.send(&verb, &target(path), &token, b"").await;
            let status = reply.status.to_string();
            match described {
                None => assert_eq!(reply.status, 405, "{verb} {path}"),
                Some(operation) => assert!(
                    operation["responses"].get(&status).is_some(),
                    "{verb} {path} answers {status}"
                ),
            }
            assert_ne!(reply.body, "404 page not found\n", "{verb} {path}");
        }
    }
    let public = gateway.send("GET", "/openapi.json", &[], b"").await;
    let public: Value = serde_json::from_str(&public.body).unwrap();
    let public = public["paths"].as_object().unwrap();
    assert_eq!(
        public.len(),
        paths.keys().filter(|p| !p.starts_with("/internal")).count()
    );
    let reply = gateway.send("GET", DOCUMENT, &[], b"").await;
    assert_eq!(reply.status, 404, "the token is what opens it");
    gateway.stop().await;
}

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openapi")
}

/// What the gateway at `address` says of itself to those who have the token.
#[tokio::main(flavor = "current_thread")]
async fn whole_document(address: SocketAddr) -> Vec<u8> {
    let request = request("GET", address, DOCUMENT, &[("X-Sluice-Token", TOKEN)], b"");
    let mut connection = Connection::open(address).await.unwrap();
    let answer = connection.exchange(&request).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.body.to_vec()
}

/// Hundreds of requests that the description allows, and as many that it does not, against the real binary: never a 5xx, and
/// no answer that the description does not have.
#[test]
fn schemathesis_finds_no_answer_that_is_not_described() {
    let program = python::environment("schemathesis").join("bin/schemathesis");
    let kafka = LocalKafka::shared().unwrap();
    let bed = Bed::new(kafka.bootstrap(), "openapi");
    bed.workspace(&json!({
        "sources": [
            // Good for every route: it replays another, and takes what services post.
            {"id": "web", "writeKey": "key", "originalId": "site", "sourceDefinition": {"name": "Webhook", "category": "webhook"}},
        ],
    }));
    bed.run(&["topics", "apply", "--yes"]);
    let address = free_address();
    let gateway = bed
        .role("gateway", "gateway")
        .with("gateway.listen", address.to_string())
        .with("gateway.internal_token", TOKEN)
        .start_ready(WITHIN);
    let document = bed.path("openapi.json");
    std::fs::write(&document, whole_document(address)).unwrap();
    let output = Command::new(program)
        .current_dir(document.parent().unwrap())
        .env("NO_PROXY", "*")
        .env("WRITE_KEY", "key")
        .env("SOURCE_ID", "web")
        .env("TOKEN", TOKEN)
        .arg("--config-file")
        .arg(tests().join("schemathesis.toml"))
        .args(["run", "--no-color", "--url"])
        .arg(format!("http://{address}"))
        .arg(&document)
        .output()
        .unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{said}\n{}", gateway.log());
    println!("{said}");
    let metrics = gateway.metrics();
    assert!(
        !metrics.contains(r#"status="5"#)
            && metrics.contains(r#"requests_total{route="track",status="200"}"#),
        "{metrics}"
    );
}
