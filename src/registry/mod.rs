//! The schema registry: which frame our records carry, and what the frames of others mean. The only door to it.
//!
//! ```text
//! start ─▶ each schema that the roles write or read: register, or look up ─▶ its id ─▶ frames of the writers
//! record in Confluent's frame ─▶ id known? ─▶ read, or a dead letter
//!                                    └─ no ─▶ its bytes are what the topic holds? ─▶ the registry is asked, once for each id
//! ```
//!
//! **The registry is not on the path of an event.** Ids are had at the start, and a process then writes and reads what it knows
//! whether the registry is there or not. It is asked later only for an id that nobody here has met: of a newer or older Sluice,
//! or of a registry that was moved. Until it answers, records with that id wait; they are never dead-lettered because a server was
//! away.
//!
//! A schema's subject is the full name of its record (Confluent's `RecordNameStrategy`): `sluice.Delivery`. All of `deliver.*` are
//! one schema with one history; a subject for each topic would repeat it for every destination, and would want writing rights
//! on the registry whenever somebody adds one.

mod client;
mod error;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Handle;

pub use error::RegistryError;

use client::{Client, Found};

use crate::config::SchemaRegistryConfig;
use crate::event::{CodecError, Framing, Meaning, SchemaIds, SchemaName, codec};
use crate::fault::Classify;
use crate::retry::Backoff;
use crate::shutdown::Shutdown;

/// Between attempts.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
/// How long a record with an id that nobody has met yet may hold its reader up. Well under the consumers' session timeout.
const LOOKUP_PATIENCE: Duration = Duration::from_secs(10);
/// How long the registry may not know an id that a record carries: the one who registered it may have asked another of its nodes.
const ABSENT_PATIENCE: Duration = Duration::from_secs(2);
/// After a look-up in vain nobody asks again for so long; records wait without it.
const COOL_DOWN: Duration = Duration::from_secs(2);
/// Versions of a subject that are compared with ours, newest first.
const VERSIONS_MAX: usize = 20;

/// The schemas of our records, as the registry knows them; without one, as they are. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Schemas {
    registry: Option<Arc<Registry>>,
}

#[derive(Debug)]
struct Registry {
    client: Client,
    /// By schema.
    framings: [Framing; SchemaName::ALL.len()],
    ids: SchemaIds,
    /// One look-up at a time. Holds when the last one was in vain, and why.
    asking: Mutex<Option<(Instant, String)>>,
    runtime: Handle,
    shutdown: Shutdown,
}

impl Schemas {
    /// Gets the ids of `names` from the registry, if one is configured. Waits for one that is away, in bounds.
    ///
    /// # Errors
    /// When the registry stays away, turns us away, or has schemas that ours do not go with.
    pub async fn open(
        config: Option<&SchemaRegistryConfig>,
        names: impl IntoIterator<Item = SchemaName>,
        shutdown: &Shutdown,
    ) -> Result<Self, RegistryError> {
        let Some(config) = config else {
            return Ok(Self::default());
        };
        let client = Client::new(config)?;
        let mut framings = [Framing::SingleObject; SchemaName::ALL.len()];
        let ids = SchemaIds::default();
        let until = Instant::now() + config.start_timeout();
        for name in names {
            let schema_id = get(&client, name, config, until).await?;
            tracing::info!(
                schema = name.full_name(),
                id = schema_id,
                "schema is in the registry"
            );
            framings[name as usize] = Framing::Confluent { schema_id };
            ids.learn(schema_id, Meaning::Ours(name));
        }
        let registry = Registry {
            client,
            framings,
            ids,
            asking: Mutex::default(),
            runtime: Handle::current(),
            shutdown: shutdown.clone(),
        };
        Ok(Self {
            registry: Some(Arc::new(registry)),
        })
    }

    /// The frame of the records of `name` that we write.
    pub fn framing(&self, name: SchemaName) -> Framing {
        match &self.registry {
            Some(registry) => registry.framings[name as usize],
            None => Framing::SingleObject,
        }
    }

    /// Whether `record` may be read as `name`, as far as its frame says: the inner result. Asks the registry when it must, and
    /// blocks meanwhile; not for threads of the runtime.
    ///
    /// # Errors
    /// When the registry would have to say what the record's id means and does not. The record must wait.
    pub fn admit(
        &self,
        name: SchemaName,
        record: &[u8],
    ) -> Result<Result<(), CodecError>, RegistryError> {
        let Some(registry) = &self.registry else {
            return Ok(Ok(()));
        };
        if let Some(id) = codec::schema_id(record)
            && !registry.ids.knows(id)
        {
            // What is no such record by its bytes cannot be read whatever its id means: rubbish costs no question.
            if let Err(error) = codec::probe(name, record) {
                return Ok(Err(error));
            }
            registry.learn(id)?;
        }
        Ok(registry.ids.check(name, record))
    }

    /// As [`Schemas::admit`], with what is known by now.
    ///
    /// # Errors
    /// When the record may not be read as `name`.
    pub fn check(&self, name: SchemaName, record: &[u8]) -> Result<(), CodecError> {
        match &self.registry {
            Some(registry) => registry.ids.check(name, record),
            None => Ok(()),
        }
    }
}

impl Registry {
    /// Finds out what an id means.
    fn learn(&self, id: u32) -> Result<(), RegistryError> {
        let mut failed = self.asking.lock();
        if self.ids.knows(id) {
            return Ok(());
        }
        let unresolved = |reason: &str| RegistryError::Unresolved {
            id,
            reason: reason.to_owned(),
        };
        if let Some((at, reason)) = &*failed
            && at.elapsed() < COOL_DOWN
        {
            return Err(unresolved(reason));
        }
        let asked = self.runtime.block_on(async {
            tokio::select! {
                asked = tokio::time::timeout(LOOKUP_PATIENCE, ask(&self.client, id)) => {
                    asked.unwrap_or_else(|_| Err(unresolved("no answer in time")))
                }
                () = self.shutdown.begun() => Err(unresolved("shutting down")),
            }
        });
        match asked {
            Ok(meaning) => {
                tracing::info!(id, ?meaning, "looked up the schema id of a record");
                self.ids.learn(id, meaning);
                *failed = None;
                Ok(())
            }
            Err(error) => {
                let reason = error.to_string();
                tracing::warn!(id, error = %reason, "records wait: the registry does not say what their schema id means");
                let error = unresolved(&reason);
                *failed = Some((Instant::now(), reason));
                Err(error)
            }
        }
    }
}

/// The id of one of our schemas, tried until it is had or it is too late.
async fn get(
    client: &Client,
    name: SchemaName,
    config: &SchemaRegistryConfig,
    until: Instant,
) -> Result<u32, RegistryError> {
    let mut attempt = 1;
    loop {
        let got = match config.register {
            true => register(client, name).await,
            false => find(client, name).await,
        };
        let error = match got {
            Ok(id) => return Ok(id),
            Err(error) if !error.fault().is_transient() => return Err(error),
            Err(error) => error,
        };
        let wait = BACKOFF.delay(attempt);
        if Instant::now() + wait >= until {
            return Err(RegistryError::GaveUp {
                seconds: config.start_timeout().as_secs(),
                last: Box::new(error),
            });
        }
        tracing::warn!(%error, "waiting for the schema registry");
        tokio::time::sleep(wait).await;
        attempt += 1;
    }
}

/// Registers one of our schemas. Some registries answer with a conflict to the slower of two that register the same one at the same
/// time, as roles do that are started together; it is there then.
async fn register(client: &Client, name: SchemaName) -> Result<u32, RegistryError> {
    let (subject, text) = (name.full_name(), name.json());
    match client.register(subject, &text).await {
        Err(RegistryError::Incompatible { .. }) => match client.find(subject, &text).await? {
            Some(id) => Ok(id),
            None => client.register(subject, &text).await,
        },
        registered => registered,
    }
}

/// Looks one of our schemas up: by its text, else among the newest versions, since the text may have been written anew by
/// who registered it.
async fn find(client: &Client, name: SchemaName) -> Result<u32, RegistryError> {
    let subject = name.full_name();
    if let Some(id) = client.find(subject, &name.json()).await? {
        return Ok(id);
    }
    let versions = client.versions(subject).await?;
    for version in versions.into_iter().rev().take(VERSIONS_MAX) {
        if let Some(found) = client.version(subject, version).await?
            && let Some(id) = found.id
            && meaning(&found) == Meaning::Ours(name)
        {
            return Ok(id);
        }
    }
    Err(RegistryError::NotRegistered {
        subject: subject.to_owned(),
    })
}

/// What an id of a record means, asked again while that may help.
async fn ask(client: &Client, id: u32) -> Result<Meaning, RegistryError> {
    let since = Instant::now();
    let mut attempt = 1;
    loop {
        match client.by_id(id).await {
            Ok(Some(found)) => return Ok(meaning(&found)),
            Ok(None) if since.elapsed() >= ABSENT_PATIENCE => {
                return Ok(Meaning::Foreign("no id of the registry".into()));
            }
            Ok(None) => {}
            Err(error) if !error.fault().is_transient() => return Err(error),
            Err(error) => tracing::debug!(%error, id, "asking the schema registry again"),
        }
        tokio::time::sleep(BACKOFF.delay(attempt)).await;
        attempt += 1;
    }
}

/// What a schema of the registry is to us. Pure.
fn meaning(found: &Found) -> Meaning {
    match found.kind.as_deref() {
        None | Some("AVRO") => match SchemaName::recognise(&found.schema) {
            Some(name) => Meaning::Ours(name),
            None => Meaning::Foreign("another schema".into()),
        },
        Some(kind) => Meaning::Foreign(format!("a schema of the kind {kind}").into()),
    }
}

#[cfg(test)]
mod tests;
