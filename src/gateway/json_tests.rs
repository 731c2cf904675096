use proptest::prelude::*;
use serde_json::Value;

use super::*;

const BOUNDS: Bounds = Bounds {
    depth: 100,
    values: 10_000,
};

fn accepts(text: &str) -> bool {
    let mut scanner = Scanner::new(text, BOUNDS);
    scanner.skip().and_then(|()| scanner.end()).is_ok()
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..8)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

#[test]
fn what_json_forbids_is_refused() {
    for text in [
        "",
        " ",
        "nul",
        "nulll",
        "tru",
        "+1",
        "01",
        "-",
        "1.",
        ".5",
        "1e",
        "1e+",
        "0x1",
        "'a'",
        "\"a",
        "\"\\x\"",
        "\"\\u12g4\"",
        "\"\n\"",
        "\"\u{1}\"",
        "[",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "{",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{\"a\":1,}",
        "{a:1}",
        "{\"a\" 1}",
        "]",
        "}",
        "1 2",
        "NaN",
        "Infinity",
        "//",
        "\u{feff}{}",
    ] {
        assert!(serde_json::from_str::<Value>(text).is_err(), "{text:?}");
        assert!(!accepts(text), "{text:?}");
    }
}

#[test]
fn what_json_allows_is_taken() {
    for text in [
        "null",
        " true\n",
        "-0",
        "0.10",
        "1e5",
        "1E-7",
        "-12.5e+3",
        "\"\"",
        "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e4\"",
        "[]",
        "[ ]",
        "{ }",
        "[[],{}]",
        "{\"\":{\"\":[]}}",
        "\"12345678\"",
        "\"123456789\\n\"",
        "\"\u{7f}ä✓🦀\"",
    ] {
        assert!(serde_json::from_str::<Value>(text).is_ok(), "{text:?}");
        assert!(accepts(text), "{text:?}");
    }
}

#[test]
fn nesting_ends_at_the_bound_and_not_at_the_stack() {
    let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    assert!(accepts(&deep(100)));
    let mut scanner_text = deep(101);
    assert_eq!(
        Scanner::new(&scanner_text, BOUNDS).skip(),
        Err(JsonError::TooDeep)
    );
    scanner_text = "[".repeat(4_000_000);
    assert_eq!(
        Scanner::new(&scanner_text, BOUNDS).skip(),
        Err(JsonError::TooDeep)
    );
}

proptest! {
    #[test]
    fn every_text_that_serde_writes_is_read_and_no_byte_is_left(value in any_json(), pretty in any::<bool>()) {
        let text = if pretty {
            serde_json::to_string_pretty(&value)
        } else {
            serde_json::to_string(&value)
        }.unwrap();
        prop_assert!(accepts(&text));
    }

    #[test]
    fn a_damaged_text_is_read_exactly_when_serde_reads_it(
        value in any_json(),
        at in any::<prop::sample::Index>(),
        with in "[\\x00-\\x7f]{0,2}",
        drop in 0usize..3,
    ) {
        let text = serde_json::to_string(&value).unwrap();
        let places: Vec<usize> = text.char_indices().map(|(i, _)| i).collect();
        let from = places[at.index(places.len())];
        let to = places.iter().copied().find(|p| *p >= from + drop).unwrap_or(text.len());
        let damaged = format!("{}{with}{}", &text[..from], &text[to..]);
        // Serde also refuses a lone surrogate, which `repair` takes away before, and a number beyond f64.
        match serde_json::from_str::<Value>(&damaged) {
            Ok(_) => prop_assert!(accepts(&damaged), "{damaged:?}"),
            Err(error) => {
                let words = error.to_string();
                if !words.contains("surrogate") && !words.contains("out of range") && !words.contains("hex escape") {
                    prop_assert!(!accepts(&damaged), "{damaged:?}: {words}");
                }
            }
        }
    }

    #[test]
    fn random_bytes_never_panic(text in any::<String>()) {
        let _ = accepts(&text);
    }

    #[test]
    fn a_string_says_what_serde_says_it_says(text in any::<String>()) {
        let json = serde_json::to_string(&text).unwrap();
        let mut scanner = Scanner::new(&json, BOUNDS);
        let Scalar::Text(read) = scanner.scalar().unwrap() else { panic!() };
        prop_assert_eq!(read.decode(), text);
    }
}
