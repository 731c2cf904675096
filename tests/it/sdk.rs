//! Published clients for servers, unmodified, against the real gateway, through a network that fails them: every event they
//! were given comes out of the processor exactly once.

use std::path::Path;
use std::process::Command;

use crate::sdk_bed::{EVENTS, EVERY_FATE, Ends, KEY, Sluice, folder, node};
use crate::support::fault_proxy::Fate;

fn node_client(name: &str, package: &str) {
    let mut command = node("node.mjs");
    Sluice::start(name).check(&EVERY_FATE, Ends::ByItself, |url| {
        command.args([package, url, KEY, &EVENTS.to_string()]);
        command
    });
}

#[test]
fn rudderstacks_node_client_gets_every_event_through_once() {
    node_client("sdk-rudder", "@rudderstack/rudder-sdk-node");
}

#[test]
fn segments_node_client_gets_every_event_through_once() {
    node_client("sdk-segment", "@segment/analytics-node");
}

/// This client sends no message ids and does not try again when a connection breaks in the middle of a request. So its requests
/// are only cut before the gateway has them: behind it, two sendings of one event would be two events, as with RudderStack.
#[test]
fn rudderstacks_rust_client_gets_every_event_through_once() {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sdk-rust");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--locked", "--quiet", "--manifest-path"])
        .arg(folder().join("rust/Cargo.toml"))
        .env("CARGO_TARGET_DIR", &target)
        .output()
        .unwrap();
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    let fates = [
        Fate::TooMany,
        Fate::CutBefore,
        Fate::Pass,
        Fate::CutBefore,
        Fate::TooMany,
    ];
    Sluice::start("sdk-rust").check(&fates, Ends::ByItself, |url| {
        let mut command = Command::new(target.join("debug/sluice-sdk-rust"));
        command.args([url, KEY, &EVENTS.to_string()]);
        command
    });
}
