//! What the fuzzer begins with, how it spoils it, and how long it goes on.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fastrand::Rng;

use crate::support::captures::captures;

/// The targets, among which `SLUICE_FUZZ_SECONDS` is shared.
const TARGETS: u64 = 7;

/// Gives `case` one source of chance after another: `cases` of them, or as many as fit in this target's share of
/// `SLUICE_FUZZ_SECONDS`. It says whether its input was taken; one in `least` must be, or there is too little to test.
///
/// A case that fails says the seed that makes it the first one.
pub(super) fn fuzz(target: &str, cases: u64, least: u64, mut case: impl FnMut(&mut Rng) -> bool) {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let given = number("SLUICE_FUZZ_SEED");
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    let share = number("SLUICE_FUZZ_SECONDS").map(|s| Duration::from_millis(s * 1_000 / TARGETS));
    let began = Instant::now();
    println!("{target}: SLUICE_FUZZ_SEED={seed}");
    let (mut tried, mut taken) = (0u64, 0u64);
    loop {
        let over = match share {
            None => tried == cases,
            // The clock is not looked at for every case.
            Some(share) => tried % 64 == 0 && began.elapsed() >= share,
        };
        if over {
            break;
        }
        let seed = Failing(seed.wrapping_add(tried));
        taken += u64::from(case(&mut Rng::with_seed(seed.0)));
        tried += 1;
    }
    println!(
        "{target}: {tried} cases, {taken} taken, {:?}",
        began.elapsed()
    );
    assert!(
        taken * least > tried,
        "{target}: too little is taken to test what becomes of it: {taken} of {tried}"
    );
}

/// Tells the seed when a case panics.
struct Failing(u64);

impl Drop for Failing {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("SLUICE_FUZZ_SEED={} begins with what failed", self.0);
        }
    }
}

/// Bodies to begin with: `built_in`, and the captures if they are there. Where they are not, that is said.
pub(super) fn corpus(built_in: &[&str]) -> Vec<Vec<u8>> {
    let mut bodies: Vec<Vec<u8>> = built_in.iter().map(|t| t.as_bytes().to_vec()).collect();
    for (_, capture) in captures().unwrap_or_default() {
        for exchange in capture["exchanges"].as_array().into_iter().flatten() {
            let request = &exchange["request"];
            if request["body_json"].is_object() {
                bodies.push(request["body_json"].to_string().into_bytes());
            }
            // The bytes as they were on the wire, compressed ones too: they are as good as random.
            let raw = request["body_raw_base64"].as_str().unwrap_or_default();
            bodies.push(STANDARD.decode(raw).unwrap_or_default());
        }
    }
    bodies.retain(|body| !body.is_empty());
    bodies
}

const TOKENS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "\\u",
    "\\ud83d",
    "\\ude00",
    "\\\"",
    "\u{feff}",
    "null",
    "true",
    "-",
    "0",
    "1e999",
    "1.50",
    "\"batch\":",
    "\"userId\":",
    "\"context\":{",
    "\"\":",
    "[[[[[[[[",
    "{\"a\":",
    "\u{0}",
    "\u{200b}",
    " ",
    "%",
    "%2",
    "%00",
    "%ff",
    "&",
    "=",
    ";",
    "+",
    "\r\n",
    "--X",
    "\u{a0}",
    "\u{1f3fd}",
];

/// One of `corpus`, spoilt in up to six places.
pub(super) fn mutate<T: AsRef<[u8]>>(random: &mut Rng, corpus: &[T]) -> Vec<u8> {
    let mut body = one(random, corpus).to_vec();
    for _ in 0..random.usize(0..6) {
        let at = random.usize(..=body.len());
        match random.u8(..7) {
            0 if at < body.len() => body[at] = random.u8(..),
            1 => drop(body.splice(at..at, TOKENS[random.usize(..TOKENS.len())].bytes())),
            2 => {
                let to = (at + random.usize(1..30)).min(body.len());
                drop(body.splice(at..to, []));
            }
            3 => {
                let other = one(random, corpus);
                let from = random.usize(..=other.len());
                let to = (from + random.usize(1..200)).min(other.len());
                drop(body.splice(at..at, other[from..to].iter().copied()));
            }
            4 => body.truncate(at),
            5 => {
                let token = TOKENS[random.usize(..TOKENS.len())].repeat(random.usize(1..300));
                drop(body.splice(at..at, token.bytes()));
            }
            _ => {
                let to = (at + random.usize(1..100)).min(body.len());
                let part = body[at..to].to_vec();
                drop(body.splice(at..at, part));
            }
        }
    }
    body
}

fn one<'a, T: AsRef<[u8]>>(random: &mut Rng, corpus: &'a [T]) -> &'a [u8] {
    corpus[random.usize(..corpus.len())].as_ref()
}

/// Text of up to `most` characters, of every kind of which ids are made, and of those they must not be made of.
pub(super) fn text(random: &mut Rng, most: usize) -> String {
    let char = |random: &mut Rng| match random.u8(..6) {
        0 => random.char('\u{0}'..='\u{20}'),
        1 => random.char('\u{7f}'..='\u{a1}'),
        2 => random.char('\u{2000}'..='\u{206f}'),
        3 => random.char(..),
        _ => random.char(' '..='~'),
    };
    let len = random.usize(..=most);
    (0..len).map(|_| char(random)).collect()
}
