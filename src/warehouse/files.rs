//! Staging files: one table of one batch as Parquet in object storage.
//!
//! A file is written with a single PUT under a name that nobody else can choose (it ends with the batch's id). It exists for
//! readers only once a manifest names it ([`super::manifest`]).

use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};

use super::columns::RECEIVED_AT;
use crate::fault::{Classify, Fault};

/// Why a staging file could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The object store did not take or give it.
    #[error("object store: {0}")]
    Store(#[from] object_store::Error),
    /// The bytes are not Parquet, or the rows cannot be written as such.
    #[error("parquet: {0}")]
    Parquet(#[from] parquet::errors::ParquetError),
    /// The columns of a file are not what a manifest says.
    #[error("arrow: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
    /// The writing task did not end.
    #[error("a worker thread ended early: {0}")]
    Worker(#[from] tokio::task::JoinError),
}

impl Classify for FileError {
    fn fault(&self) -> Fault {
        match self {
            Self::Store(error) => store_fault(error),
            Self::Parquet(_) | Self::Arrow(_) => Fault::Permanent,
            Self::Worker(_) => Fault::Fatal,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Store(_) => "object_store",
            Self::Parquet(_) => "parquet",
            Self::Arrow(_) => "arrow",
            Self::Worker(_) => "worker",
        }
    }
}

/// What to do about an object store's error: credentials, buckets and networks are mended while we wait; only what we ask
/// for wrongly stays wrong.
pub(super) fn store_fault(error: &object_store::Error) -> Fault {
    use object_store::Error;
    match error {
        Error::NotImplemented { .. }
        | Error::NotSupported { .. }
        | Error::InvalidPath { .. }
        | Error::UnknownConfigurationKey { .. } => Fault::Fatal,
        // The enum is open; what it may gain is more likely an outage than a bug.
        _ => Fault::RETRY,
    }
}

/// The rows as one Parquet file.
///
/// Zstd level 1: higher levels cost two to three times the CPU for two per cent. Chunk statistics only: a loader reads the
/// whole file.
///
/// # Errors
/// The rows cannot be written, which would be a bug.
pub fn encode(batch: &RecordBatch) -> Result<Bytes, FileError> {
    let sorting = batch
        .schema()
        .fields()
        .iter()
        .position(|field| field.name().eq_ignore_ascii_case(RECEIVED_AT))
        .and_then(|at| i32::try_from(at).ok())
        .map(|column_idx| {
            vec![SortingColumn {
                column_idx,
                descending: false,
                nulls_first: true,
            }]
        });
    let properties = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_sorting_columns(sorting)
        .set_created_by(concat!("sluice ", env!("CARGO_PKG_VERSION")).to_owned())
        .build();
    let mut file = Vec::with_capacity(batch.get_array_memory_size() / 8);
    let mut writer = ArrowWriter::try_new(&mut file, batch.schema(), Some(properties))?;
    writer.write(batch)?;
    writer.close()?;
    Ok(file.into())
}

/// Writes a file with a single PUT.
///
/// # Errors
/// The object store refused or did not answer; the file may exist all the same.
pub async fn put(store: &Arc<dyn ObjectStore>, key: &Path, file: Bytes) -> Result<(), FileError> {
    store.put(key, PutPayload::from_bytes(file)).await?;
    Ok(())
}

/// Reads a whole file.
///
/// # Errors
/// The object store refused or did not answer, or the file is gone.
pub async fn get(store: &Arc<dyn ObjectStore>, key: &Path) -> Result<Bytes, FileError> {
    Ok(store.get(key).await?.bytes().await?)
}

/// Rows of a file, in pieces of `rows_max`.
///
/// # Errors
/// The bytes are not Parquet.
pub fn decode(file: Bytes, rows_max: usize) -> Result<ParquetRecordBatchReader, FileError> {
    Ok(ParquetRecordBatchReaderBuilder::try_new(file)?
        .with_batch_size(rows_max)
        .build()?)
}

/// Removes files that no manifest names. One that cannot be removed stays for the next sweep.
pub async fn remove(store: &Arc<dyn ObjectStore>, keys: &[String]) {
    for key in keys {
        match store.delete(&Path::from(key.as_str())).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => tracing::warn!(%key, %error, "unwanted staging file not removed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::warehouse::columns::{self, TableBuffer};
    use crate::warehouse::rows::{Column, Row};
    use crate::warehouse::{Cell, schema::ColumnType};

    #[test]
    fn a_file_reads_back_with_its_types_and_the_columns_they_belong_to() {
        let mut buffer = TableBuffer::new();
        for n in 0..10 {
            let column = |name: &str, kind, cell| Column {
                name: name.into(),
                kind,
                cell,
            };
            buffer.append(&Row {
                table: "t".into(),
                columns: vec![
                    column("plan", ColumnType::Json, Cell::Json("{}".into())),
                    column("received_at", ColumnType::Datetime, Cell::Datetime(n)),
                ],
            });
        }
        let batch = buffer.finish().unwrap();
        let file = encode(&batch).unwrap();
        let pieces: Vec<RecordBatch> = decode(file, 4).unwrap().map(Result::unwrap).collect();
        let rows: Vec<usize> = pieces.iter().map(RecordBatch::num_rows).collect();
        assert_eq!(rows, [4, 4, 2]);
        let schema = pieces[0].schema();
        let stored = columns::warehouse_column(schema.field(0));
        assert_eq!(stored, Some(("plan", columns::Stored::Json)));
        assert_eq!(schema.fields(), batch.schema().fields());
    }

    #[test]
    fn bytes_that_are_no_file_are_an_error() {
        assert!(decode(Bytes::from_static(b"PAR1 not"), 10).is_err());
    }
}
