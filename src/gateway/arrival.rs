//! What a request's head tells: where from, through whom, on whose behalf. Pure.

use std::borrow::Cow;
use std::net::IpAddr;

use http::{HeaderMap, header};

use crate::config::Networks;
use crate::event::headers::TRACEPARENT;

/// Job run of reverse ETL.
pub(super) const JOB_RUN: &str = "x-rudder-job-run-id";
/// Task run of reverse ETL.
pub(super) const TASK_RUN: &str = "x-rudder-task-run-id";
/// The id that RudderStack's clients send ahead of the body.
pub(super) const ANONYMOUS_ID: &str = "anonymousid";

/// A header as text; empty when it is absent or no plain text.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// Address of the client: the connection's, or the one that the nearest trusted proxies report.
///
/// `X-Forwarded-For` grows to the right, so it is read from there: the first address that is not one of ours is the client
/// or the last thing that we cannot check. RudderStack takes the leftmost, which any client can write.
pub(super) fn client_ip<'a>(
    headers: &HeaderMap,
    peer: IpAddr,
    peer_text: &'a str,
    trusted: &Networks,
) -> Cow<'a, str> {
    if !trusted.contain(peer) {
        return Cow::Borrowed(peer_text);
    }
    let mut nearest = None;
    for value in headers.get_all("x-forwarded-for").iter().rev() {
        for part in value.to_str().unwrap_or_default().rsplit(',') {
            let Some(address) = address(part.trim()) else {
                continue;
            };
            nearest = Some(address);
            if !trusted.contain(address) {
                return Cow::Owned(address.to_string());
            }
        }
    }
    match nearest {
        Some(address) => Cow::Owned(address.to_string()),
        None => Cow::Borrowed(peer_text),
    }
}

/// An address as proxies write it: with or without a port, IPv6 in brackets when with one.
fn address(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let socket = text.parse::<std::net::SocketAddr>().ok()?;
    Some(socket.ip().to_canonical())
}

/// Whether the user agent calls itself a bot, crawler or spider. RudderStack's gateway counts by the same three words.
pub(super) fn is_bot(headers: &HeaderMap) -> bool {
    let Some(agent) = headers.get(header::USER_AGENT) else {
        return false;
    };
    let agent = agent.as_bytes();
    [&b"bot"[..], b"crawler", b"spider"].iter().any(|word| {
        agent
            .windows(word.len())
            .any(|part| part.eq_ignore_ascii_case(word))
    })
}

/// The request's W3C trace context; empty when there is none or it is malformed.
pub(super) fn traceparent(headers: &HeaderMap) -> &str {
    w3c(text(headers, TRACEPARENT))
}

/// `value` when it is a W3C trace context, else empty.
pub(super) fn w3c(value: &str) -> &str {
    let mut parts = value.split('-');
    // A field of nothing but one digit that stands for none: `ff` for no version, zeros for no id.
    let mut hex = |len: usize, none: u8| {
        parts.next().is_some_and(|p| {
            p.len() == len
                && p.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
                && p.bytes().any(|b| b != none)
        })
    };
    // Flags may be all zeros; the byte is one that no field has.
    let valid = hex(2, b'f') && hex(32, b'0') && hex(16, b'0') && hex(2, b'-');
    let valid = valid && parts.next().is_none();
    if valid { value } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    fn ip(forwarded: &[&str], peer: &str, trusted: &[&str]) -> String {
        let pairs: Vec<_> = forwarded.iter().map(|v| ("x-forwarded-for", *v)).collect();
        let trusted: Vec<String> = trusted.iter().map(|t| (*t).to_owned()).collect();
        let networks = Networks::try_from(trusted).unwrap();
        client_ip(&headers(&pairs), peer.parse().unwrap(), peer, &networks).into_owned()
    }

    #[test]
    fn a_client_cannot_choose_its_address() {
        assert_eq!(ip(&["1.1.1.1"], "203.0.113.9", &[]), "203.0.113.9");
        let proxies = ["10.0.0.0/8"];
        assert_eq!(
            ip(&["1.1.1.1, 203.0.113.9"], "10.0.0.1", &proxies),
            "203.0.113.9"
        );
        assert_eq!(
            ip(&["1.1.1.1", "203.0.113.9, 10.2.3.4"], "10.0.0.1", &proxies),
            "203.0.113.9"
        );
    }

    #[test]
    fn what_proxies_write_is_understood() {
        let proxies = ["10.0.0.0/8", "::1"];
        assert_eq!(ip(&["[2001:db8::1]:443"], "::1", &proxies), "2001:db8::1");
        assert_eq!(ip(&["203.0.113.9:55"], "10.0.0.1", &proxies), "203.0.113.9");
        assert_eq!(ip(&["10.9.9.9"], "10.0.0.1", &proxies), "10.9.9.9");
        assert_eq!(ip(&["unknown"], "10.0.0.1", &proxies), "10.0.0.1");
        assert_eq!(ip(&[], "10.0.0.1", &proxies), "10.0.0.1");
    }

    #[test]
    fn a_bot_is_known_by_its_name() {
        assert!(is_bot(&headers(&[(
            "user-agent",
            "Mozilla/5.0 (compatible; Googlebot/2.1)"
        )])));
        assert!(!is_bot(&headers(&[(
            "user-agent",
            "Mozilla/5.0 Firefox/1"
        )])));
        assert!(!is_bot(&headers(&[])));
    }

    #[test]
    fn a_malformed_trace_context_is_none() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(traceparent(&headers(&[("traceparent", good)])), good);
        for bad in [
            "",
            "00-4bf9-00f0-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            &good.to_uppercase(),
            &format!("{good}-x"),
        ] {
            assert_eq!(traceparent(&headers(&[("traceparent", bad)])), "");
        }
    }
}
