//! Proofs that cannot be had on this machine. None is left out in silence: `dev/test` counts these lines and lists them.

use std::io::Write;

/// Says that the test that calls this is left out, or a part of it, and why.
pub fn say(why: &str) {
    let thread = std::thread::current();
    // With one test thread it is not named after the test.
    let test = thread.name().filter(|name| *name != "main");
    let test = test.map(|name| format!("{name}: ")).unwrap_or_default();
    // Not with `eprintln!`, which is shown only when a test fails.
    let line = format!("SKIPPED: {test}{why}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// As [`say`], but where CI=true it is a failure: `dev/test` has installed what is missing there, or should have.
#[track_caller]
pub fn say_unless_ci(why: &str) {
    let ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
    assert!(!ci, "with CI=true this is no reason to skip a test: {why}");
    say(why);
}
