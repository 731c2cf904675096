//! Why the schema registry did not help.

use crate::fault::{Classify, Fault};

/// Why the schema registry did not help.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum RegistryError {
    #[error("could not make an HTTP client: {0}")]
    Client(#[source] reqwest::Error),
    #[error("kafka.schema_registry.url: is no address")]
    Url,
    #[error("the schema registry at {url} cannot be reached: {reason}")]
    Unreachable { url: String, reason: String },
    #[error("the schema registry at {url} answered {status}: {message}")]
    Busy {
        url: String,
        status: u16,
        message: String,
    },
    #[error(
        "the schema registry did not help within {seconds} s (kafka.schema_registry.start_timeout_ms): {last}; start it or correct \
         kafka.schema_registry.url; without kafka.schema_registry records carry Avro's single-object frame"
    )]
    GaveUp { seconds: u64, last: Box<Self> },
    #[error("schema id {id}: {reason}")]
    Unresolved { id: u32, reason: String },
    #[error(
        "the schema registry at {url} turned us away with {status}: {message}; see kafka.schema_registry.username and password, and \
         what that user may do"
    )]
    Denied {
        url: String,
        status: u16,
        message: String,
    },
    #[error(
        "no schema registry at {url}: {message}; kafka.schema_registry.url must be what stands in front of /subjects"
    )]
    NoRegistry { url: String, message: String },
    #[error(
        "{subject} is not registered as this version of Sluice writes it; register it (`sluice config schemas` prints it), or start \
         once with kafka.schema_registry.register: true as a user who may"
    )]
    NotRegistered { subject: String },
    #[error(
        "the registry has another {subject} that ours is not compatible with: {message}; keep the versions of Sluice that share a \
         registry close, or change the subject's compatibility level there"
    )]
    Incompatible { subject: String, message: String },
    #[error("the schema registry refused {subject} with {status}: {message}")]
    Refused {
        subject: String,
        status: u16,
        message: String,
    },
}

impl Classify for RegistryError {
    fn fault(&self) -> Fault {
        match self {
            Self::Unreachable { .. }
            | Self::Busy { .. }
            | Self::GaveUp { .. }
            | Self::Unresolved { .. } => Fault::RETRY,
            Self::Client(_)
            | Self::Url
            | Self::Denied { .. }
            | Self::NoRegistry { .. }
            | Self::NotRegistered { .. }
            | Self::Incompatible { .. }
            | Self::Refused { .. } => Fault::Fatal,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Client(_) => "registry_client",
            Self::Url => "registry_url",
            Self::Unreachable { .. } => "registry_unreachable",
            Self::Busy { .. } => "registry_busy",
            Self::GaveUp { .. } => "registry_gave_up",
            Self::Unresolved { .. } => "schema_id_unresolved",
            Self::Denied { .. } => "registry_denied",
            Self::NoRegistry { .. } => "registry_not_there",
            Self::NotRegistered { .. } => "schema_not_registered",
            Self::Incompatible { .. } => "schema_incompatible",
            Self::Refused { .. } => "schema_refused",
        }
    }
}
