//! The files that a broker reads, as text. Pure.

use std::fmt::Write as _;

use super::options::ClusterSize;

/// A broker and the two ports it listens on, both on the loopback address only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) id: i32,
    pub(super) client_port: u16,
    pub(super) controller_port: u16,
}

/// Where a broker keeps its topics, relative to its own folder, which is its working directory. Relative
/// because Kafka splits `log.dirs` at commas and reads backslashes as escapes, and the user's path may have
/// either.
pub(super) const DATA: &str = "data";
/// The broker's log, likewise relative.
pub(super) const LOG: &str = "broker.log";
/// Settings file names, likewise relative.
pub(super) const PROPERTIES: &str = "server.properties";
pub(super) const LOG_PROPERTIES: &str = "log4j2.properties";

/// `log4j2.properties`: one quiet, bounded file. The properties format needs no parser that the broker would
/// not load anyway.
pub(super) const LOG4J: &str = "\
status = error
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = ${sys:sluice.log}
appender.file.filePattern = ${sys:sluice.log}.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{ISO8601} %p %c{1}: %m%n
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = 10MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 2
logger.config.name = org.apache.kafka.common.config.AbstractConfig
logger.config.level = warn
rootLogger.level = info
rootLogger.appenderRef.file.ref = file
";

/// `server.properties` of one broker. `overrides` come last and win.
///
/// The quorum is the static kind (`controller.quorum.voters`): it is read from this file at every start, so
/// ports may change between starts, which the dynamic kind would have recorded in the metadata log.
pub(super) fn server_properties(
    me: &Peer,
    peers: &[Peer],
    size: ClusterSize,
    overrides: &[(String, String)],
) -> String {
    let voters: Vec<_> = peers
        .iter()
        .map(|peer| format!("{}@127.0.0.1:{}", peer.id, peer.controller_port))
        .collect();
    // How long a killed broker counts as alive. Until then its partitions have no leader, and it cannot even
    // register again itself. The default is 9 s; three brokers on a busy machine need more patience than one.
    let (replicas, in_sync, session_ms) = match size {
        ClusterSize::One => (1, 1, "3000"),
        ClusterSize::Three => (3, 2, "6000"),
    };
    let client = format!("CLIENT://127.0.0.1:{}", me.client_port);
    let lines: Vec<(&str, String)> = vec![
        ("process.roles", "broker,controller".into()),
        ("node.id", me.id.to_string()),
        (
            "listeners",
            format!("{client},CONTROLLER://127.0.0.1:{}", me.controller_port),
        ),
        ("advertised.listeners", client),
        (
            "listener.security.protocol.map",
            "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT".into(),
        ),
        ("controller.listener.names", "CONTROLLER".into()),
        ("inter.broker.listener.name", "CLIENT".into()),
        ("controller.quorum.voters", voters.join(",")),
        ("log.dirs", DATA.into()),
        // Topics come from topics.yaml; a misspelt name must fail, not appear.
        ("auto.create.topics.enable", "false".into()),
        ("default.replication.factor", replicas.to_string()),
        ("min.insync.replicas", in_sync.to_string()),
        // Fifty partitions each is for big clusters; every one costs files and start-up time here.
        ("offsets.topic.num.partitions", "8".into()),
        ("offsets.topic.replication.factor", replicas.to_string()),
        ("transaction.state.log.num.partitions", "8".into()),
        (
            "transaction.state.log.replication.factor",
            replicas.to_string(),
        ),
        ("transaction.state.log.min.isr", in_sync.to_string()),
        ("share.coordinator.state.topic.num.partitions", "1".into()),
        (
            "share.coordinator.state.topic.replication.factor",
            replicas.to_string(),
        ),
        ("share.coordinator.state.topic.min.isr", in_sync.to_string()),
        // Three seconds of waiting for more members make sense at scale only.
        ("group.initial.rebalance.delay.ms", "0".into()),
        // Tests fence members and time transactions out on purpose, and should not wait ten seconds for it.
        ("group.min.session.timeout.ms", "500".into()),
        (
            "transaction.abort.timed.out.transaction.cleanup.interval.ms",
            "500".into(),
        ),
        ("log.segment.bytes", (64 << 20).to_string()),
        // An index of a 64 MiB segment stays under 256 KiB; the default preallocates 10 MiB for each of two
        // per partition.
        ("log.index.size.max.bytes", (1 << 20).to_string()),
        // The default is 128 MiB of heap for the offsets of keys while compacting.
        ("log.cleaner.dedupe.buffer.size", (8 << 20).to_string()),
        ("broker.session.timeout.ms", session_ms.into()),
        ("broker.heartbeat.interval.ms", "500".into()),
        ("num.network.threads", "2".into()),
        ("num.io.threads", "4".into()),
        ("background.threads", "2".into()),
    ];
    let mut text = String::from("# Written anew at every start.\n");
    let own = lines
        .iter()
        .filter(|(key, _)| !overrides.iter().any(|(name, _)| name == key));
    let all = own
        .map(|(key, value)| (*key, value))
        .chain(overrides.iter().map(|(key, value)| (key.as_str(), value)));
    for (key, value) in all {
        writeln!(text, "{key}={value}").expect("writing to a string cannot fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Peer = Peer {
        id: 1,
        client_port: 20001,
        controller_port: 20002,
    };
    const B: Peer = Peer {
        id: 2,
        client_port: 20003,
        controller_port: 20004,
    };

    fn line<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
        text.lines()
            .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .collect()
    }

    #[test]
    fn one_broker_can_commit_transactions_and_offsets_alone() {
        let text = server_properties(&A, &[A], ClusterSize::One, &[]);
        for key in [
            "offsets.topic.replication.factor",
            "transaction.state.log.replication.factor",
            "transaction.state.log.min.isr",
            "min.insync.replicas",
        ] {
            assert_eq!(line(&text, key), ["1"], "{key}");
        }
    }

    #[test]
    fn brokers_are_reached_on_the_loopback_address_and_know_all_voters() {
        let text = server_properties(&B, &[A, B], ClusterSize::Three, &[]);
        assert_eq!(
            line(&text, "advertised.listeners"),
            ["CLIENT://127.0.0.1:20003"]
        );
        assert_eq!(
            line(&text, "controller.quorum.voters"),
            ["1@127.0.0.1:20002,2@127.0.0.1:20004"]
        );
        assert_eq!(line(&text, "transaction.state.log.min.isr"), ["2"]);
    }

    #[test]
    fn an_override_replaces_the_setting_instead_of_doubling_it() {
        let text = server_properties(
            &A,
            &[A],
            ClusterSize::One,
            &[("log.segment.bytes".into(), "1048576".into())],
        );
        assert_eq!(line(&text, "log.segment.bytes"), ["1048576"]);
    }
}
