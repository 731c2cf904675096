//! Why a request is not answered with 200, in RudderStack's words and codes (clients match on both).

use std::time::Duration;

use http::StatusCode;

use crate::fault::{Classify, Fault};
use crate::kafka::ProduceError;

use super::json::JsonError;
use super::payload::PayloadError;

/// Why a request is not answered with 200. The text is the body of the answer; those that RudderStack has too are spelt as
/// there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("failed to read writekey from header")]
    NoWriteKey,
    #[error("failed to read writekey from query params")]
    NoWriteKeyInQuery,
    #[error("invalid write key")]
    UnknownWriteKey,
    #[error("failed to read source id from header")]
    NoSourceId,
    #[error("invalid source id")]
    UnknownSource,
    #[error("invalid replay source")]
    NotAReplaySource,
    #[error("source is disabled")]
    SourceDisabled,
    #[error("failed to read destination id from header")]
    NoDestinationId,
    #[error("invalid destination id")]
    UnknownDestination,
    #[error("destination is disabled")]
    DestinationDisabled,
    #[error("source does not accept webhook events")]
    NotAWebhook,
    /// More was sent than may be; it may go on in so many seconds.
    #[error("max requests limit reached")]
    RateLimited { seconds: u32 },
    #[error("failed to read body from request")]
    BodyUnreadable,
    #[error("request size exceeds max limit")]
    TooLarge,
    #[error("invalid json")]
    InvalidJson,
    /// Ours: RudderStack has no such limit.
    #[error("json is nested too deeply")]
    TooDeep,
    /// Ours: RudderStack has no such limit.
    #[error("event has too many values")]
    TooManyValues,
    #[error("empty batch payload")]
    EmptyBatch,
    #[error("event is not a valid rudder event")]
    NotAnEvent,
    #[error("request neither has anonymousId nor userId")]
    NoIdentity,
    #[error("missing required fields stream in message")]
    IncompleteMessage,
    #[error("error while marshalling")]
    Unencodable,
    #[error("error during parsing form")]
    BadForm,
    #[error("error during parsing multiform")]
    BadMultipart,
    /// The transformer could not be asked.
    #[error("service unavailable")]
    TransformerAway,
    /// The transformer does not know the source's type, for example.
    #[error("Source Transformer returned non-success statusCode")]
    TransformerStatus,
    #[error("invalid format of source transformer response")]
    TransformerAnswer,
    #[error("output not found in source transformer response")]
    TransformerNoOutput,
    #[error("invalid output format in source transformer response")]
    TransformerOutput,
    #[error("failed to read error from source transformer response")]
    TransformerError,
    /// What waits for Kafka, or is being read, has reached its limit.
    #[error("service unavailable")]
    Overloaded,
    /// Kafka did not acknowledge.
    #[error("service unavailable")]
    NotAcknowledged,
}

impl Refusal {
    /// What comes before `wait` is over is refused again.
    pub(super) fn rate_limited(wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Self::RateLimited {
            seconds: u32::try_from(seconds).unwrap_or(u32::MAX),
        }
    }

    /// The answer's status.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::NoWriteKey
            | Self::NoWriteKeyInQuery
            | Self::UnknownWriteKey
            | Self::NoSourceId
            | Self::UnknownSource
            | Self::NotAReplaySource => StatusCode::UNAUTHORIZED,
            Self::SourceDisabled | Self::DestinationDisabled | Self::NotAWebhook => {
                StatusCode::NOT_FOUND
            }
            Self::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::BodyUnreadable
            | Self::TransformerStatus
            | Self::TransformerAnswer
            | Self::TransformerNoOutput
            | Self::TransformerOutput
            | Self::TransformerError => StatusCode::INTERNAL_SERVER_ERROR,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NoDestinationId
            | Self::UnknownDestination
            | Self::InvalidJson
            | Self::TooDeep
            | Self::TooManyValues
            | Self::EmptyBatch
            | Self::NotAnEvent
            | Self::NoIdentity
            | Self::IncompleteMessage
            | Self::Unencodable
            | Self::BadForm
            | Self::BadMultipart => StatusCode::BAD_REQUEST,
            Self::Overloaded | Self::NotAcknowledged | Self::TransformerAway => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    /// The least number of seconds that the client is asked to wait, when it is asked to come back.
    pub(super) fn retry_after(self) -> Option<u32> {
        match self.fault() {
            Fault::Transient { after } => Some(after.map_or(0, |wait| {
                u32::try_from(wait.as_secs())
                    .unwrap_or(u32::MAX)
                    .saturating_sub(1)
            })),
            Fault::Permanent | Fault::Fatal => None,
        }
    }
}

impl Classify for Refusal {
    fn fault(&self) -> Fault {
        match self {
            Self::Overloaded | Self::NotAcknowledged | Self::TransformerAway => Fault::RETRY,
            Self::RateLimited { seconds } => Fault::Transient {
                after: Some(Duration::from_secs(u64::from(*seconds))),
            },
            Self::NoWriteKey
            | Self::NoWriteKeyInQuery
            | Self::UnknownWriteKey
            | Self::NoSourceId
            | Self::UnknownSource
            | Self::NotAReplaySource
            | Self::SourceDisabled
            | Self::NoDestinationId
            | Self::UnknownDestination
            | Self::DestinationDisabled
            | Self::NotAWebhook
            | Self::BodyUnreadable
            | Self::TooLarge
            | Self::InvalidJson
            | Self::TooDeep
            | Self::TooManyValues
            | Self::EmptyBatch
            | Self::NotAnEvent
            | Self::NoIdentity
            | Self::IncompleteMessage
            | Self::Unencodable
            | Self::BadForm
            | Self::BadMultipart
            | Self::TransformerStatus
            | Self::TransformerAnswer
            | Self::TransformerNoOutput
            | Self::TransformerOutput
            | Self::TransformerError => Fault::Permanent,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::NoWriteKey | Self::NoWriteKeyInQuery => "no_write_key",
            Self::UnknownWriteKey => "unknown_write_key",
            Self::NoSourceId => "no_source_id",
            Self::UnknownSource => "unknown_source",
            Self::NotAReplaySource => "not_a_replay_source",
            Self::SourceDisabled => "source_disabled",
            Self::NoDestinationId => "no_destination_id",
            Self::UnknownDestination => "unknown_destination",
            Self::DestinationDisabled => "destination_disabled",
            Self::NotAWebhook => "not_a_webhook",
            Self::RateLimited { .. } => "rate_limited",
            Self::BodyUnreadable => "body_unreadable",
            Self::TooLarge => "too_large",
            Self::InvalidJson => "invalid_json",
            Self::TooDeep => "too_deep",
            Self::TooManyValues => "too_many_values",
            Self::EmptyBatch => "empty_batch",
            Self::NotAnEvent => "not_an_event",
            Self::NoIdentity => "no_identity",
            Self::IncompleteMessage => "incomplete_message",
            Self::Unencodable => "unencodable",
            Self::BadForm => "bad_form",
            Self::BadMultipart => "bad_multipart",
            Self::TransformerAway => "transformer_away",
            Self::TransformerStatus => "transformer_status",
            Self::TransformerAnswer => "transformer_answer",
            Self::TransformerNoOutput => "transformer_no_output",
            Self::TransformerOutput => "transformer_output",
            Self::TransformerError => "transformer_error",
            Self::Overloaded => "overloaded",
            Self::NotAcknowledged => "not_acknowledged",
        }
    }
}

impl From<PayloadError> for Refusal {
    fn from(error: PayloadError) -> Self {
        match error {
            PayloadError::Json(JsonError::Syntax) => Self::InvalidJson,
            PayloadError::Json(JsonError::TooDeep) => Self::TooDeep,
            PayloadError::Json(JsonError::TooManyValues) => Self::TooManyValues,
            PayloadError::TooManyEvents => Self::TooLarge,
        }
    }
}

impl From<&ProduceError> for Refusal {
    /// Everything but a record that can never fit is answered so that the client sends it again: a 4xx makes the browser's
    /// client throw the event away.
    fn from(error: &ProduceError) -> Self {
        match error {
            ProduceError::TooLarge { .. } => Self::TooLarge,
            ProduceError::QueueFull => Self::Overloaded,
            ProduceError::Timeout
            | ProduceError::Unavailable(_)
            | ProduceError::Refused(_)
            | ProduceError::Broken(_)
            | ProduceError::Denied(_) => Self::NotAcknowledged,
        }
    }
}
