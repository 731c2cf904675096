//! A batch on its way into the chain: files first, then dead letters, then the manifest.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::batch::{Batch, Rejected, TableKey};
use super::columns::TableBuffer;
use super::files::{self, FileError};
use super::manifest::{Chain, Claim, Manifest, ManifestError, StagedColumn, StagedTable, VERSION};
use super::metrics::WarehouseMetrics;
use super::patience::Patience;
use crate::clock::Clock;
use crate::failpoint;
use crate::fault::{Classify, Fault};
use crate::kafka::{AckProducer, Batch as Latch, ProduceError, deadline};
use crate::shutdown::Shutdown;

/// Encoders of one batch at work; each holds a table's rows twice.
const ENCODERS: usize = 2;
/// For the dead letters of one batch.
const DEAD_LETTER_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a batch did not get into the chain.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// A file could not be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The chain could not be extended.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A dead letter was not acknowledged.
    #[error("dead letters: {0}")]
    DeadLetters(#[from] ProduceError),
}

impl Classify for UploadError {
    fn fault(&self) -> Fault {
        match self {
            // Rows that we made and cannot write are a bug; going on would leave them out.
            Self::File(error) => match error.fault() {
                Fault::Permanent => Fault::Fatal,
                other => other,
            },
            Self::Manifest(error) => error.fault(),
            // A dead letter larger than its topic takes cannot be kept, and must not be dropped.
            Self::DeadLetters(error) => match error.fault() {
                Fault::Permanent => Fault::Fatal,
                other => other,
            },
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::File(error) => error.code(),
            Self::Manifest(error) => error.code(),
            Self::DeadLetters(_) => "dead_letters",
        }
    }
}

/// What uploads share.
#[derive(Clone)]
pub struct Uploader {
    /// Writes in progress.
    pub slots: Arc<Semaphore>,
    /// For dead letters.
    pub producer: AckProducer,
    /// For `created_at`.
    pub clock: Arc<dyn Clock>,
    /// Ends retries.
    pub shutdown: Shutdown,
    /// Counters.
    pub metrics: Arc<WarehouseMetrics>,
}

/// A batch that was cut.
#[derive(Debug)]
pub struct Flight {
    /// Where it goes.
    pub chain: Chain,
    /// Destination the rows are for.
    pub destination: Arc<str>,
    /// The rows.
    pub batch: Batch,
    /// Workspace configuration that they were mapped under.
    pub config_revision: i64,
}

impl Uploader {
    /// Brings a batch into the chain. Waits out outages, until shutdown begins.
    ///
    /// # Errors
    /// The batch is not in the chain as far as we know: an outage at shutdown, or something that no waiting mends.
    pub async fn land(&self, flight: Flight) -> Result<Claim, UploadError> {
        let Flight {
            chain,
            destination,
            batch,
            config_revision,
        } = flight;
        let began = std::time::Instant::now();
        let id = Uuid::new_v4();
        let range = batch.start..batch.next;
        let mut tables = stream::iter(batch.tables)
            .map(|(key, buffer)| self.stage(&chain, key, buffer, range.clone(), id))
            .buffer_unordered(ENCODERS);
        let mut staged = Vec::new();
        while let Some(table) = tables.next().await {
            staged.push(table?);
        }
        staged.sort_by(|a, b| (&a.namespace, &a.table).cmp(&(&b.namespace, &b.table)));
        failpoint::hit("warehouse.after_upload");

        let mut rejected = BTreeMap::new();
        for event in &batch.rejected {
            *rejected.entry(event.reason.name().to_owned()).or_default() += 1;
        }
        if !batch.rejected.is_empty() {
            // Before the manifest: what is written down as a dead letter must be one. After a crash in between it is one
            // twice, under one failure id.
            self.bury(&batch.rejected).await?;
        }

        let bytes: u64 = staged.iter().map(|table| table.bytes).sum();
        let manifest = Manifest {
            version: VERSION,
            batch: id,
            destination: destination.to_string(),
            chain: chain.name().to_owned(),
            partition: chain.partition(),
            start: range.start,
            end: range.end,
            events: batch.events,
            rejected,
            config_revision,
            created_at: self.clock.now_ms(),
            tables: staged,
        };
        let mut patience = Patience::new("manifest", &self.shutdown);
        let claim = loop {
            match chain.claim(&manifest).await {
                Ok(claim) => break claim,
                Err(error) => patience.after(UploadError::from(error)).await?,
            }
        };
        failpoint::hit("warehouse.after_manifest");

        let labels = [destination.as_ref()];
        let metrics = &self.metrics;
        match &claim {
            Claim::Won => {
                let seconds = began.elapsed().as_secs_f64();
                metrics
                    .upload_seconds
                    .with_label_values(&labels)
                    .observe(seconds);
                metrics
                    .upload_bytes_total
                    .with_label_values(&labels)
                    .inc_by(bytes);
            }
            Claim::Lost(winner) => {
                metrics.races_lost_total.with_label_values(&labels).inc();
                tracing::warn!(
                    destination.id = %destination, partition = chain.partition(), start = range.start,
                    "another writer wrote offsets {}..{}; this one goes on there", winner.start, winner.end
                );
            }
        }
        Ok(claim)
    }

    /// Sends dead letters until they are acknowledged.
    async fn bury(&self, rejected: &[Rejected]) -> Result<(), UploadError> {
        let mut patience = Patience::new("dead letters", &self.shutdown);
        loop {
            match self.send_letters(rejected).await {
                Ok(()) => return Ok(()),
                Err(error) => patience.after(UploadError::from(error)).await?,
            }
        }
    }

    async fn send_letters(&self, rejected: &[Rejected]) -> Result<(), ProduceError> {
        let latch = Latch::new();
        for event in rejected {
            self.producer.send(&latch, event.letter.as_ref())?;
        }
        latch.wait(deadline(DEAD_LETTER_TIMEOUT)).await
    }

    async fn stage(
        &self,
        chain: &Chain,
        (namespace, table): TableKey,
        mut buffer: TableBuffer,
        range: std::ops::Range<i64>,
        batch: Uuid,
    ) -> Result<StagedTable, UploadError> {
        let rows = buffer.rows() as u64;
        let encoded = tokio::task::spawn_blocking(move || {
            let batch = buffer.finish()?;
            let columns = StagedColumn::of(&batch.schema());
            Ok::<_, FileError>((columns, files::encode(&batch)?))
        });
        let (columns, file) = encoded.await.map_err(FileError::from)??;
        let key = chain.file_key(&namespace, &table, range, batch);
        let mut patience = Patience::new("staging file", &self.shutdown);
        loop {
            let _slot = self.slots.acquire().await;
            match files::put(chain.store(), &key, file.clone()).await {
                Ok(()) => break,
                Err(error) => patience.after(UploadError::from(error)).await?,
            }
        }
        Ok(StagedTable {
            namespace: namespace.to_string(),
            table: table.to_string(),
            rows,
            key: key.to_string(),
            bytes: file.len() as u64,
            columns,
        })
    }
}
