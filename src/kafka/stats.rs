//! librdkafka's statistics, the few numbers of them that an operator needs.

use serde::Deserialize;

/// One report of one client.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Snapshot {
    /// Brokers with a working connection.
    pub(super) brokers_up: usize,
    /// Records waiting in the producer's queues.
    pub(super) queue_records: u64,
    /// Bytes waiting in the producer's queues.
    pub(super) queue_bytes: u64,
    /// Slowest broker's round trip, 99th percentile, microseconds.
    pub(super) round_trip_p99_us: i64,
    /// Requests that timed out, since the client was opened.
    pub(super) request_timeouts: u64,
}

/// Reads a report; `None` when it is not one.
pub(super) fn read(json: &[u8]) -> Option<Snapshot> {
    #[derive(Deserialize)]
    struct Report {
        #[serde(default)]
        msg_cnt: u64,
        #[serde(default)]
        msg_size: u64,
        #[serde(default)]
        brokers: std::collections::BTreeMap<String, Broker>,
    }
    #[derive(Deserialize)]
    struct Broker {
        #[serde(default)]
        state: String,
        #[serde(default)]
        req_timeouts: u64,
        rtt: Option<Window>,
    }
    #[derive(Deserialize)]
    struct Window {
        p99: i64,
    }
    let report: Report = serde_json::from_slice(json).ok()?;
    let brokers = report.brokers.values();
    Some(Snapshot {
        brokers_up: brokers.clone().filter(|b| b.state == "UP").count(),
        queue_records: report.msg_cnt,
        queue_bytes: report.msg_size,
        round_trip_p99_us: brokers
            .clone()
            .filter_map(|b| b.rtt.as_ref().map(|w| w.p99))
            .max()
            .unwrap_or(0),
        request_timeouts: brokers.map(|b| b.req_timeouts).sum(),
    })
}

/// Hands a report to whoever exports metrics.
pub(super) fn publish(client: &str, snapshot: &Snapshot) {
    tracing::trace!(client, ?snapshot, "librdkafka statistics");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_length_is_not_taken_for_its_limit() {
        let json =
            br#"{"msg_cnt":3,"msg_max":500000,"msg_size":42,"msg_size_max":1073741824,"brokers":{
            "a:1/1":{"state":"UP","req_timeouts":2,"rtt":{"p99":150}},
            "b:1/2":{"state":"CONNECT","req_timeouts":1,"rtt":{"p99":900}}}}"#;
        assert_eq!(
            read(json),
            Some(Snapshot {
                brokers_up: 1,
                queue_records: 3,
                queue_bytes: 42,
                round_trip_p99_us: 900,
                request_timeouts: 3
            })
        );
        assert_eq!(read(b"nonsense"), None);
    }
}
