//! Published clients for browsers, unmodified, in Chromium, on a page of another origin than the gateway: they start with what
//! the gateway tells them, and every call of the page comes out of the processor exactly once.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::sdk_bed::{EVENTS, EVERY_FATE, Ends, KEY, Sluice, node};
use crate::support::fault_proxy::Fate;
use crate::support::skipped;

/// Every call that the clients have, as the events' types.
const TYPES: [&str; 5] = ["alias", "group", "identify", "page", "track"];

/// Names of the program on Debian, Ubuntu, Fedora and in Google's packages.
const NAMES: [&str; 4] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
];

/// Chromium as `CHROMIUM` names it, else as found on the path, where `has_chromium` in `dev/packages.sh` looks too.
fn chromium() -> Option<PathBuf> {
    if let Some(named) = env::var_os("CHROMIUM") {
        return Some(named.into());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> = env::split_paths(&path).collect();
    let mut programs = NAMES
        .iter()
        .flat_map(|name| dirs.iter().map(move |dir| dir.join(name)));
    programs.find(|program| is_chromium(program))
}

/// Ubuntu's package is a stub that only names a snap, and a snap sees no files of the tests.
fn is_chromium(program: &Path) -> bool {
    let said = Command::new(program).arg("--version").output();
    said.is_ok_and(|said| {
        let version = String::from_utf8_lossy(&said.stdout);
        said.status.success() && version.contains("Chrom") && !version.contains("snap")
    })
}

fn browser_client(client: &str, fates: &[Fate], ends: Ends) {
    let Some(chromium) = chromium() else {
        skipped::say_unless_ci(
            "no Chromium on the path; ./dev/test --packages-only installs it on Debian, CHROMIUM=/path/to/chrome names another one",
        );
        return;
    };
    let sluice = Sluice::start(&format!("sdk-{client}"));
    let types = sluice.check(fates, ends, |url| {
        let mut command = node("browser.mjs");
        command
            .args([client, url, KEY, &EVENTS.to_string()])
            .env("CHROMIUM", chromium);
        command
    });
    assert!(types.iter().eq(TYPES), "{types:?}");
}

#[test]
fn rudderstacks_browser_client_gets_every_call_through_once() {
    browser_client("rudder", &EVERY_FATE, Ends::ByItself);
}

#[test]
fn rudderstacks_browser_client_gets_every_batch_through_once() {
    browser_client("rudder-batch", &EVERY_FATE, Ends::ByItself);
}

/// A beacon is sent once and its answer is nobody's: this client does not try again, so the network is a good one here.
#[test]
fn rudderstacks_browser_client_sends_by_beacon_even_when_the_page_is_left() {
    browser_client("rudder-beacon", &[], Ends::OnSignal);
}

#[test]
fn segments_browser_client_gets_every_call_through_once() {
    browser_client("segment", &EVERY_FATE, Ends::ByItself);
}

/// While it is not answered this client gathers all that it has in one batch, which then meets one fate after the other.
#[test]
fn segments_browser_client_gets_every_batch_through_once() {
    let fates = [Fate::TooMany, Fate::CutBefore, Fate::CutAfter];
    browser_client("segment-batch", &fates, Ends::ByItself);
}
