//! Every way an event can end, as one enum without a wildcard.
//!
//! A stage hands exactly one [`Ending`] per event and destination to the ledger; adding a way to end means adding a
//! variant, and the compiler then asks for its name, its counter and its place in the audit's balance.

/// How an event ended at a stage, for one destination or (where none applies) for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ending {
    /// Written to the destination's topic; the next stage owns it.
    Forwarded,
    /// The destination answered that it has it.
    Delivered,
    /// Its rows are in the warehouse's tables.
    Loaded,
    /// Left out on purpose.
    Filtered(FilterReason),
    /// Can never pass; kept in `dlq.<stage>`.
    DeadLettered(DeadLetterReason),
    /// Moved to `parked.<lane>`, in order, because its key is blocked.
    Parked,
}

/// Why an event was left out on purpose. RudderStack's statuses for these are 298, 299 and 410.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FilterReason {
    /// An event with this message id was accepted from this source within the dedup window.
    Duplicate,
    /// The source is not in the configuration any more.
    SourceUnknown,
    /// The source has no enabled destination that wants the event.
    NoDestination,
    /// The event was sent for another destination alone.
    OtherDestination,
    /// The event's `integrations` object excludes the destination.
    IntegrationsObject,
    /// The destination does not take this event type.
    UnsupportedType,
    /// The destination is disabled or gone since the event was addressed to it.
    DestinationGone,
    /// The workspace blocks this event name.
    EventBlocked,
    /// The user denied consent.
    ConsentDenied,
    /// A user transformation dropped it.
    UserTransformation,
    /// The destination's own filter left it out (RudderStack's 298).
    DestinationFilter,
}

/// Why an event was dead-lettered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DeadLetterReason {
    /// The record on our topic is not what its schema says.
    Undecodable,
    /// The event is not the JSON object a later stage needs.
    InvalidEvent,
    /// The record is larger than the next topic takes.
    TooLarge,
    /// A transformation failed.
    TransformationFailed,
    /// The destination's configuration cannot be used.
    DestinationMisconfigured,
    /// The destination refused it for good (4xx but 408, 425 and 429).
    Refused,
    /// Retried until both limits of the retry window were passed.
    RetriesExhausted,
    /// The rows cannot be mapped or loaded.
    Unmappable,
}

impl Ending {
    /// Word in ledger entries, metrics and the audit.
    pub fn name(self) -> &'static str {
        match self {
            Self::Forwarded => "forwarded",
            Self::Delivered => "delivered",
            Self::Loaded => "loaded",
            Self::Filtered(_) => "filtered",
            Self::DeadLettered(_) => "dead_lettered",
            Self::Parked => "parked",
        }
    }

    /// Word for the reason; empty for endings that need none.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Forwarded | Self::Delivered | Self::Loaded | Self::Parked => "",
            Self::Filtered(reason) => reason.name(),
            Self::DeadLettered(reason) => reason.name(),
        }
    }
}

impl FilterReason {
    /// Stable word for metrics and ledger entries.
    pub fn name(self) -> &'static str {
        match self {
            Self::Duplicate => "duplicate",
            Self::SourceUnknown => "source_unknown",
            Self::NoDestination => "no_destination",
            Self::OtherDestination => "other_destination",
            Self::IntegrationsObject => "integrations_object",
            Self::UnsupportedType => "unsupported_type",
            Self::DestinationGone => "destination_gone",
            Self::EventBlocked => "event_blocked",
            Self::ConsentDenied => "consent_denied",
            Self::UserTransformation => "user_transformation",
            Self::DestinationFilter => "destination_filter",
        }
    }
}

impl DeadLetterReason {
    /// Stable word for metrics, ledger entries and dead-letter headers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Undecodable => "undecodable",
            Self::InvalidEvent => "invalid_event",
            Self::TooLarge => "too_large",
            Self::TransformationFailed => "transformation_failed",
            Self::DestinationMisconfigured => "destination_misconfigured",
            Self::Refused => "refused",
            Self::RetriesExhausted => "retries_exhausted",
            Self::Unmappable => "unmappable",
        }
    }
}
