//! Who is calling: the write key as each kind of client sends it. Pure.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, header};

/// The source that reverse ETL and replays name.
pub(super) const SOURCE_ID: &str = "x-rudder-source-id";
/// The one destination that reverse ETL sends for.
pub(super) const DESTINATION_ID: &str = "x-rudder-destination-id";
/// The internal token.
pub(super) const TOKEN: &str = "x-sluice-token";

/// The user name of `Authorization: Basic …`; the password is not looked at. `None` when there is no such header, when it
/// is not what RFC 7617 says, or when the name is empty.
pub(super) fn write_key_in_header(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, encoded) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"Basic ") {
        return None;
    }
    let mut decoded = STANDARD.decode(encoded.trim_ascii()).ok()?;
    let colon = decoded.iter().position(|b| *b == b':')?;
    decoded.truncate(colon);
    String::from_utf8(decoded)
        .ok()
        .filter(|key| !key.is_empty())
}

/// `writeKey` of the query, the first if there are several.
pub(super) fn write_key_in_query(query: Option<&str>) -> Option<Cow<'_, str>> {
    url::form_urlencoded::parse(query?.as_bytes())
        .find(|(name, _)| name == "writeKey")
        .map(|(_, key)| key)
        .filter(|key| !key.is_empty())
}

/// `X-Rudder-Source-Id`.
pub(super) fn source_id(headers: &HeaderMap) -> Option<&str> {
    id(headers, SOURCE_ID)
}

/// `X-Rudder-Destination-Id`.
pub(super) fn destination_id(headers: &HeaderMap) -> Option<&str> {
    id(headers, DESTINATION_ID)
}

fn id<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let id = headers.get(name)?.to_str().ok()?;
    Some(id).filter(|id| !id.is_empty())
}

/// Whether the request carries the internal token. Compares every byte, so that the time it takes tells nothing.
pub(super) fn has_token(headers: &HeaderMap, token: &str) -> bool {
    let given = headers.get(TOKEN).map_or(&b""[..], |v| v.as_bytes());
    let differing = given
        .iter()
        .zip(token.as_bytes())
        .fold(0, |differing, (a, b)| differing | (a ^ b));
    given.len() == token.len() && differing == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(value: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        write_key_in_header(&headers)
    }

    #[test]
    fn the_user_name_is_the_write_key_and_the_password_is_ignored() {
        assert_eq!(header("Basic S0VZOg==").unwrap(), "KEY");
        assert_eq!(header("basic S0VZOnNlY3JldA==").unwrap(), "KEY");
    }

    #[test]
    fn what_is_no_basic_credential_is_none() {
        for value in [
            "",
            "Basic",
            "Basic ",
            "Bearer S0VZOg==",
            "Basic !!!",
            "Basic S0VZ",
            "Basic OnNlY3JldA==",
        ] {
            assert_eq!(header(value), None, "{value:?}");
        }
        assert_eq!(write_key_in_header(&HeaderMap::new()), None);
    }

    #[test]
    fn only_the_whole_token_opens() {
        let with = |token: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-sluice-token", token.parse().unwrap());
            has_token(&headers, "correct horse")
        };
        assert!(with("correct horse"));
        assert!(!with("correct hors") && !with("correct horsf") && !with(""));
        assert!(!has_token(&HeaderMap::new(), "correct horse"));
    }

    #[test]
    fn a_key_in_the_query_may_be_percent_encoded() {
        assert_eq!(
            write_key_in_query(Some("a=b&writeKey=K%2F1")).unwrap(),
            "K/1"
        );
        assert_eq!(write_key_in_query(Some("writekey=K")), None);
        assert_eq!(write_key_in_query(Some("writeKey=")), None);
        assert_eq!(write_key_in_query(None), None);
    }
}
