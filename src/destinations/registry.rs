//! The types of destinations, walked by a test.

use super::{Kind, webhook};

/// Every type of destination that this binary delivers to by itself.
pub const DESTINATIONS: &[Kind] = &[webhook::KIND];

/// The type called `name` (RudderStack's spelling, upper case).
pub fn find(name: &str) -> Option<&'static Kind> {
    DESTINATIONS.iter().find(|kind| kind.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::{Value, json};

    use super::*;
    use crate::destinations::{HttpClient, HttpOptions, testing};

    #[test]
    fn every_type_has_its_own_name_a_summary_and_an_example_that_validates() {
        let client = HttpClient::new(&HttpOptions::default()).unwrap();
        let mut names = HashSet::new();
        for kind in DESTINATIONS {
            assert!(names.insert(kind.name), "{} is there twice", kind.name);
            assert!(
                kind.name
                    .bytes()
                    .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_'),
                "{} is not in RudderStack's spelling",
                kind.name
            );
            assert!(!kind.summary.is_empty() && !kind.summary.contains('\n'));
            let example: Value = serde_json::from_str(kind.example).unwrap();
            (kind.build)(&example, &client).unwrap_or_else(|e| panic!("{}: {e}", kind.name));
            assert_eq!(find(kind.name).unwrap().name, kind.name);
        }
        assert!(find("NO_SUCH_TYPE").is_none());
    }

    #[tokio::test]
    async fn every_type_keeps_the_contract_of_destinations() {
        for kind in DESTINATIONS {
            // Settings that send to the suite's server and carry its secret.
            let settings = match kind.name {
                "WEBHOOK" => |url: &str| {
                    let header = json!({"from": "Authorization", "to": testing::SECRET});
                    json!({"webhookUrl": url, "headers": [header]})
                },
                other => panic!("say here with which settings the suite runs on {other}"),
            };
            testing::check(kind, settings).await;
        }
    }
}
