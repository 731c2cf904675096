//! Choosing ports that stay ours while a broker is down for a moment.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::path::Path;

/// Where to look if the system does not say which ports it hands out to clients.
const FALLBACK: Range<u16> = 20_000..30_000;
/// How many ports below the system's range are ours to choose from.
const SPAN: u16 = 12_000;

/// A free port on the loopback address: `preferred` if nobody has it, so that a restarted cluster keeps its
/// address.
///
/// It is taken from below the system's ephemeral range. A port inside it could be given to any outgoing
/// connection while a broker is being restarted, and a client that keeps connecting to it can even end up
/// connected to itself.
pub(super) fn free(preferred: Option<u16>, taken: &[u16]) -> Option<u16> {
    let usable = |port: &u16| {
        !taken.contains(port) && TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()
    };
    let range = range(
        fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
            .ok()
            .as_deref(),
    );
    preferred.filter(usable).or_else(|| {
        (0..1_000)
            .map(|_| fastrand::u16(range.clone()))
            .find(usable)
    })
}

fn range(local_port_range: Option<&str>) -> Range<u16> {
    let low = local_port_range.and_then(|text| text.split_whitespace().next()?.parse::<u16>().ok());
    match low {
        Some(low) if low > SPAN + 1_024 => low - SPAN..low,
        Some(_) | None => FALLBACK,
    }
}

/// Reads the two ports that a broker had before.
pub(super) fn recall(path: &Path) -> (Option<u16>, Option<u16>) {
    let text = fs::read_to_string(path).unwrap_or_default();
    let mut ports = text.split_whitespace().map(|port| port.parse().ok());
    (ports.next().flatten(), ports.next().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_chosen_outside_of_the_range_for_outgoing_connections() {
        assert_eq!(range(Some("32768\t60999\n")), 20_768..32_768);
        assert_eq!(range(Some("1024 65535")), FALLBACK);
        assert_eq!(range(None), FALLBACK);
    }

    #[test]
    fn a_port_is_kept_while_it_is_free_and_given_up_when_it_is_not() {
        let port = free(None, &[]).unwrap();
        assert_eq!(free(Some(port), &[]), Some(port));
        assert_ne!(free(Some(port), &[port]), Some(port));
        let _held = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        assert_ne!(free(Some(port), &[]), Some(port));
    }

    #[test]
    fn remembered_ports_may_be_missing_or_broken() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(recall(&dir.path().join("none")), (None, None));
        let path = dir.path().join("ports");
        fs::write(&path, "20001 20002\n").unwrap();
        assert_eq!(recall(&path), (Some(20001), Some(20002)));
        fs::write(&path, "x 20002").unwrap();
        assert_eq!(recall(&path), (None, Some(20002)));
    }
}
