//! What librdkafka or a broker said, and what a caller may do about it: one table for every error code.

use std::fmt;

use rdkafka::error::{KafkaError as LibraryError, RDKafkaErrorCode as Code};

use crate::fault::{Classify, Fault};

/// An error of the Kafka layer: what was tried, the library's or the broker's code, and its words.
#[derive(Debug, Clone)]
pub struct KafkaError {
    operation: &'static str,
    code: Code,
    detail: String,
}

impl KafkaError {
    pub(super) fn new(operation: &'static str, code: Code, detail: impl Into<String>) -> Self {
        Self {
            operation,
            code,
            detail: detail.into(),
        }
    }

    /// From an error of rust-rdkafka, some of which carry no code but only a text.
    pub(super) fn from_library(operation: &'static str, error: &LibraryError) -> Self {
        // These three are answers to calls that only a programming or configuration mistake can make fail.
        let code = error.rdkafka_error_code().unwrap_or(match error {
            LibraryError::ClientConfig(..)
            | LibraryError::ClientCreation(_)
            | LibraryError::Nul(_) => Code::InvalidArgument,
            _ => Code::Fail,
        });
        Self::new(operation, code, error.to_string())
    }

    /// What was tried, for messages: `commit offsets`, `open producer`.
    pub fn operation(&self) -> &'static str {
        self.operation
    }

    pub(super) fn library_code(&self) -> Code {
        self.code
    }

    /// Whether the wait ended before an answer came, so that the effect of the call is not known.
    pub fn is_timeout(&self) -> bool {
        matches!(
            self.code,
            Code::OperationTimedOut
                | Code::RequestTimedOut
                | Code::MessageTimedOut
                | Code::TimedOutQueue
        )
    }

    /// Whether a committed or requested offset is not in the log any more (retention or truncation overtook us).
    pub fn is_offset_out_of_range(&self) -> bool {
        matches!(
            self.code,
            Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::LogTruncation
        )
    }

    /// Whether the topic or group does not exist.
    pub fn is_missing(&self) -> bool {
        matches!(
            self.code,
            Code::UnknownTopic
                | Code::UnknownPartition
                | Code::UnknownTopicOrPartition
                | Code::GroupIdNotFound
        )
    }

    /// Whether the topic to create is there already.
    pub fn is_already_there(&self) -> bool {
        self.code == Code::TopicAlreadyExists
    }
}

impl fmt::Display for KafkaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not {}: {}", self.operation, self.detail)?;
        let word = word(self.code);
        if !self.detail.contains(word) {
            write!(f, " ({word})")?;
        }
        Ok(())
    }
}

impl std::error::Error for KafkaError {}

impl Classify for KafkaError {
    fn fault(&self) -> Fault {
        fault(self.code)
    }

    fn code(&self) -> &'static str {
        word(self.code)
    }
}

/// Writes `fault` and `word` from one list. The library's enum is open: a code of a newer one is tried again, because to
/// dead-letter what could pass is worse than to wait.
macro_rules! codes {
    (
        Transient { $($t:ident => $tw:literal,)* }
        Permanent { $($p:ident => $pw:literal,)* }
        Fatal { $($f:ident => $fw:literal,)* }
    ) => {
        /// What a caller may do about `code`.
        pub(super) fn fault(code: Code) -> Fault {
            match code {
                $(Code::$t)|* => Fault::RETRY,
                $(Code::$p)|* => Fault::Permanent,
                $(Code::$f)|* => Fault::Fatal,
                _ => Fault::RETRY,
            }
        }

        /// Stable word for `code`: metric label, dead-letter header, log field.
        pub(super) fn word(code: Code) -> &'static str {
            match code {
                $(Code::$t => $tw,)*
                $(Code::$p => $pw,)*
                $(Code::$f => $fw,)*
                _ => "unlisted",
            }
        }

        #[cfg(test)]
        const ALL: &[Code] = &[$(Code::$t,)* $(Code::$p,)* $(Code::$f,)*];
    };
}

codes! {
    Transient {
        BadCompression => "bad_compression",
        BadMessage => "bad_message",
        BrokerDestroy => "broker_destroy",
        Fail => "fail",
        BrokerTransportFailure => "broker_transport_failure",
        Resolve => "resolve",
        MessageTimedOut => "message_timed_out",
        UnknownPartition => "unknown_partition",
        UnknownTopic => "unknown_topic",
        AllBrokersDown => "all_brokers_down",
        OperationTimedOut => "operation_timed_out",
        QueueFull => "queue_full",
        ISRInsufficient => "isr_insufficient",
        NodeUpdate => "node_update",
        WaitingForCoordinator => "waiting_for_coordinator",
        InProgress => "in_progress",
        AssignPartitions => "assign_partitions",
        RevokePartitions => "revoke_partitions",
        TimedOutQueue => "timed_out_queue",
        WaitCache => "wait_cache",
        Interrupted => "interrupted",
        Partial => "partial",
        Underflow => "underflow",
        Retry => "retry",
        PurgeQueue => "purge_queue",
        PurgeInflight => "purge_inflight",
        PollExceeded => "poll_exceeded",
        UnknownBroker => "unknown_broker",
        Application => "application",
        AssignmentLost => "assignment_lost",
        DestroyBroker => "destroy_broker",
        Unknown => "unknown",
        NoError => "no_error",
        UnknownTopicOrPartition => "unknown_topic_or_partition",
        LeaderNotAvailable => "leader_not_available",
        NotLeaderForPartition => "not_leader_for_partition",
        RequestTimedOut => "request_timed_out",
        BrokerNotAvailable => "broker_not_available",
        ReplicaNotAvailable => "replica_not_available",
        StaleControllerEpoch => "stale_controller_epoch",
        NetworkException => "network_exception",
        CoordinatorLoadInProgress => "coordinator_load_in_progress",
        CoordinatorNotAvailable => "coordinator_not_available",
        NotCoordinator => "not_coordinator",
        NotEnoughReplicas => "not_enough_replicas",
        NotEnoughReplicasAfterAppend => "not_enough_replicas_after_append",
        IllegalGeneration => "illegal_generation",
        UnknownMemberId => "unknown_member_id",
        RebalanceInProgress => "rebalance_in_progress",
        NotController => "not_controller",
        ConcurrentTransactions => "concurrent_transactions",
        TransactionCoordinatorFenced => "transaction_coordinator_fenced",
        OperationNotAttempted => "operation_not_attempted",
        KafkaStorageError => "kafka_storage_error",
        UnknownProducerId => "unknown_producer_id",
        FetchSessionIdNotFound => "fetch_session_id_not_found",
        InvalidFetchSessionEpoch => "invalid_fetch_session_epoch",
        ListenerNotFound => "listener_not_found",
        FencedLeaderEpoch => "fenced_leader_epoch",
        UnknownLeaderEpoch => "unknown_leader_epoch",
        StaleBrokerEpoch => "stale_broker_epoch",
        OffsetNotAvailable => "offset_not_available",
        MemberIdRequired => "member_id_required",
        PreferredLeaderNotAvailable => "preferred_leader_not_available",
        EligibleLeadersNotAvailable => "eligible_leaders_not_available",
        UnstableOffsetCommit => "unstable_offset_commit",
        ThrottlingQuotaExceeded => "throttling_quota_exceeded",
        UnknownTopicId => "unknown_topic_id",
        FencedMemberEpoch => "fenced_member_epoch",
        StaleMemberEpoch => "stale_member_epoch",
        RebootstrapRequired => "rebootstrap_required",
    }
    Permanent {
        PartitionEOF => "partition_eof",
        NoOffset => "no_offset",
        Outdated => "outdated",
        KeySerialization => "key_serialization",
        ValueSerialization => "value_serialization",
        KeyDeserialization => "key_deserialization",
        ValueDeserialization => "value_deserialization",
        NoEnt => "no_ent",
        Noop => "noop",
        InvalidDifferentRecord => "invalid_different_record",
        InvalidMessage => "invalid_message",
        InvalidMessageSize => "invalid_message_size",
        MessageSizeTooLarge => "message_size_too_large",
        OffsetMetadataTooLarge => "offset_metadata_too_large",
        InvalidTopic => "invalid_topic",
        MessageBatchTooLarge => "message_batch_too_large",
        InvalidCommitOffsetSize => "invalid_commit_offset_size",
        InvalidTimestamp => "invalid_timestamp",
        TopicAlreadyExists => "topic_already_exists",
        InvalidPartitions => "invalid_partitions",
        InvalidReplicationFactor => "invalid_replication_factor",
        InvalidReplicaAssignment => "invalid_replica_assignment",
        InvalidConfig => "invalid_config",
        InvalidRequest => "invalid_request",
        UnsupportedForMessageFormat => "unsupported_for_message_format",
        PolicyViolation => "policy_violation",
        ReassignmentInProgress => "reassignment_in_progress",
        InvalidPrincipalType => "invalid_principal_type",
        NonEmptyGroup => "non_empty_group",
        GroupIdNotFound => "group_id_not_found",
        TopicDeletionDisabled => "topic_deletion_disabled",
        ElectionNotNeeded => "election_not_needed",
        NoReassignmentInProgress => "no_reassignment_in_progress",
        GroupSubscribedToTopic => "group_subscribed_to_topic",
        InvalidRecord => "invalid_record",
        ResourceNotFound => "resource_not_found",
        DuplicateResource => "duplicate_resource",
        InvalidUpdateVersion => "invalid_update_version",
        FeatureUpdateFailed => "feature_update_failed",
        UnknownSubscriptionId => "unknown_subscription_id",
        TelemetryTooLarge => "telemetry_too_large",
    }
    Fatal {
        Begin => "begin",
        CriticalSystemResource => "critical_system_resource",
        FileSystem => "file_system",
        InvalidArgument => "invalid_argument",
        SSL => "ssl",
        UnknownGroup => "unknown_group",
        PreviousInProgress => "previous_in_progress",
        ExistingSubscription => "existing_subscription",
        Conflict => "conflict",
        State => "state",
        UnknownProtocol => "unknown_protocol",
        NotImplemented => "not_implemented",
        Authentication => "authentication",
        UnsupportedFeature => "unsupported_feature",
        ReadOnly => "read_only",
        InvalidType => "invalid_type",
        Fatal => "fatal",
        Inconsistent => "inconsistent",
        GaplessGuarantee => "gapless_guarantee",
        NotConfigured => "not_configured",
        Fenced => "fenced",
        AutoOffsetReset => "auto_offset_reset",
        LogTruncation => "log_truncation",
        End => "end",
        OffsetOutOfRange => "offset_out_of_range",
        InvalidRequiredAcks => "invalid_required_acks",
        InconsistentGroupProtocol => "inconsistent_group_protocol",
        InvalidGroupId => "invalid_group_id",
        InvalidSessionTimeout => "invalid_session_timeout",
        TopicAuthorizationFailed => "topic_authorization_failed",
        GroupAuthorizationFailed => "group_authorization_failed",
        ClusterAuthorizationFailed => "cluster_authorization_failed",
        UnsupportedSASLMechanism => "unsupported_sasl_mechanism",
        IllegalSASLState => "illegal_sasl_state",
        UnsupportedVersion => "unsupported_version",
        OutOfOrderSequenceNumber => "out_of_order_sequence_number",
        DuplicateSequenceNumber => "duplicate_sequence_number",
        InvalidProducerEpoch => "invalid_producer_epoch",
        InvalidTransactionalState => "invalid_transactional_state",
        InvalidProducerIdMapping => "invalid_producer_id_mapping",
        InvalidTransactionTimeout => "invalid_transaction_timeout",
        TransactionalIdAuthorizationFailed => "transactional_id_authorization_failed",
        SecurityDisabled => "security_disabled",
        LogDirNotFound => "log_dir_not_found",
        SaslAuthenticationFailed => "sasl_authentication_failed",
        DelegationTokenAuthDisabled => "delegation_token_auth_disabled",
        DelegationTokenNotFound => "delegation_token_not_found",
        DelegationTokenOwnerMismatch => "delegation_token_owner_mismatch",
        DelegationTokenRequestNotAllowed => "delegation_token_request_not_allowed",
        DelegationTokenAuthorizationFailed => "delegation_token_authorization_failed",
        DelegationTokenExpired => "delegation_token_expired",
        UnsupportedCompressionType => "unsupported_compression_type",
        GroupMaxSizeReached => "group_max_size_reached",
        FencedInstanceId => "fenced_instance_id",
        ProducerFenced => "producer_fenced",
        UnacceptableCredential => "unacceptable_credential",
        InconsistentVoterSet => "inconsistent_voter_set",
        PrincipalDeserializationFailure => "principal_deserialization_failure",
        UnreleasedInstanceId => "unreleased_instance_id",
        UnsupportedAssignor => "unsupported_assignor",
        EndAll => "end_all",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_codes_share_a_word() {
        let words: std::collections::BTreeSet<_> = ALL.iter().map(|code| word(*code)).collect();
        assert_eq!(words.len(), ALL.len());
        for word in words {
            assert!(
                word.bytes()
                    .all(|b| b.is_ascii_lowercase() || b == b'_' || b.is_ascii_digit()),
                "{word}"
            );
        }
    }

    #[test]
    fn an_absent_broker_is_waited_for_and_a_refused_login_is_not() {
        assert_eq!(fault(Code::BrokerTransportFailure), Fault::RETRY);
        assert_eq!(fault(Code::NotEnoughReplicas), Fault::RETRY);
        assert_eq!(fault(Code::MessageSizeTooLarge), Fault::Permanent);
        assert_eq!(fault(Code::SaslAuthenticationFailed), Fault::Fatal);
        assert_eq!(fault(Code::AutoOffsetReset), Fault::Fatal);
    }
}
