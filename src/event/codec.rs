//! Avro in both framings, fast where it is hot.
//!
//! Records are written with direct serde (`serde_avro_fast`) and framed as Avro single objects (`C3 01` and the schema's
//! CRC-64-AVRO fingerprint) or, with a schema registry, in Confluent's wire format (`0` and the schema id, big endian).
//! Which one a role writes is told by `registry::Schemas`; both decode, always. `apache-avro` parses the same schemas,
//! checks compatibility and serves the tools; a test proves that each reads the other's bytes. The envelope is the last
//! field of the records that carry one, so [`splice_addressed`] can append its bytes unread: a stage that only routes never
//! re-encodes the customer's event.

use std::collections::HashMap;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use serde_avro_fast::de::DeserializerState;
use serde_avro_fast::ser::SerializerConfig;

use super::{Addressed, AddressedKind, Envelope, LedgerEntry};
use crate::fault::{Classify, Fault};

/// The schemas of what lies on our topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SchemaName {
    /// `events`.
    Envelope,
    /// `deliver.<lane>`.
    Delivery,
    /// `warehouse.<destination>`.
    WarehouseSource,
    /// `ledger`.
    LedgerEntry,
    /// Exported dead letters.
    DeadLetter,
    /// `config`.
    ConfigObject,
}

impl SchemaName {
    /// Every schema.
    pub const ALL: [SchemaName; 6] = [
        Self::Envelope,
        Self::Delivery,
        Self::WarehouseSource,
        Self::LedgerEntry,
        Self::DeadLetter,
        Self::ConfigObject,
    ];

    /// The record's full name in Avro.
    pub fn full_name(self) -> &'static str {
        match self {
            Self::Envelope => "sluice.Envelope",
            Self::Delivery => "sluice.Delivery",
            Self::WarehouseSource => "sluice.WarehouseSource",
            Self::LedgerEntry => "sluice.LedgerEntry",
            Self::DeadLetter => "sluice.DeadLetter",
            Self::ConfigObject => "sluice.ConfigObject",
        }
    }

    /// Which of our schemas `text` (JSON) is, as far as bytes can tell: equal in canonical form, whatever its docs and layout.
    pub fn recognise(text: &str) -> Option<SchemaName> {
        let schema: serde_avro_fast::Schema = text.parse().ok()?;
        let found = *schema.rabin_fingerprint();
        Self::ALL
            .into_iter()
            .find(|name| name.fingerprint() == found)
    }

    /// The schema's JSON, complete: references to other schemas are replaced by their definitions.
    pub fn json(self) -> String {
        const ENVELOPE: &str = include_str!("../../schemas/envelope.avsc");
        match self {
            Self::Envelope => ENVELOPE.to_owned(),
            Self::Delivery => include_str!("../../schemas/delivery.avsc")
                .replace("\"sluice.Envelope\"", ENVELOPE.trim_end()),
            Self::WarehouseSource => include_str!("../../schemas/warehouse_source.avsc")
                .replace("\"sluice.Envelope\"", ENVELOPE.trim_end()),
            Self::LedgerEntry => include_str!("../../schemas/ledger_entry.avsc").to_owned(),
            Self::DeadLetter => include_str!("../../schemas/dead_letter.avsc").to_owned(),
            Self::ConfigObject => include_str!("../../schemas/config_object.avsc").to_owned(),
        }
    }

    /// The parsed schema.
    fn schema(self) -> &'static serde_avro_fast::Schema {
        static PARSED: OnceLock<HashMap<SchemaName, serde_avro_fast::Schema>> = OnceLock::new();
        let parsed = PARSED.get_or_init(|| {
            SchemaName::ALL
                .into_iter()
                .map(|name| {
                    let schema = name.json().parse().expect(
                        "the schemas are part of the binary and every one is parsed in a test",
                    );
                    (name, schema)
                })
                .collect()
        });
        &parsed[&self]
    }

    /// CRC-64-AVRO of the schema's canonical form, as it stands in a single object's header.
    pub fn fingerprint(self) -> [u8; 8] {
        *self.schema().rabin_fingerprint()
    }
}

/// How the bytes of a record name their schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Framing {
    /// Avro single-object encoding: `C3 01`, fingerprint.
    #[default]
    SingleObject,
    /// Confluent's wire format: `0`, schema id big endian.
    Confluent {
        /// The id the registry gave to the schema being written.
        schema_id: u32,
    },
}

/// Why bytes could not be read or written.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum CodecError {
    #[error("record of {len} bytes is too short for a frame")]
    TooShort { len: usize },
    #[error(
        "record starts with {first:#04x}, which is neither an Avro single object nor Confluent's frame"
    )]
    UnknownFrame { first: u8 },
    #[error("record has schema fingerprint {found:02x?}, expected {expected:02x?} ({name:?})")]
    OtherSchema {
        name: SchemaName,
        found: [u8; 8],
        expected: [u8; 8],
    },
    #[error("record has schema id {id}, which is {found} and no {name:?}")]
    OtherId {
        name: SchemaName,
        id: u32,
        found: String,
    },
    #[error("record is not a {name:?}: {message}")]
    Body { name: SchemaName, message: String },
    #[error("{name:?} could not be written: {message}")]
    Write { name: SchemaName, message: String },
}

impl Classify for CodecError {
    fn fault(&self) -> Fault {
        match self {
            Self::TooShort { .. }
            | Self::UnknownFrame { .. }
            | Self::OtherSchema { .. }
            | Self::OtherId { .. }
            | Self::Body { .. }
            | Self::Write { .. } => Fault::Permanent,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::TooShort { .. } => "too_short",
            Self::UnknownFrame { .. } => "unknown_frame",
            Self::OtherSchema { .. } | Self::OtherId { .. } => "other_schema",
            Self::Body { .. } => "undecodable",
            Self::Write { .. } => "unencodable",
        }
    }
}

/// Writes the frame of `name` to `out`.
fn frame(name: SchemaName, framing: Framing, out: &mut Vec<u8>) {
    match framing {
        Framing::SingleObject => {
            out.extend_from_slice(&[0xC3, 0x01]);
            out.extend_from_slice(&name.fingerprint());
        }
        Framing::Confluent { schema_id } => {
            out.push(0);
            out.extend_from_slice(&schema_id.to_be_bytes());
        }
    }
}

/// The schema id of a record in Confluent's frame; `None` for every other record.
pub fn schema_id(bytes: &[u8]) -> Option<u32> {
    match bytes {
        [0, a, b, c, d, ..] => Some(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => None,
    }
}

/// Takes the frame off `bytes`; what is left is the Avro body.
///
/// # Errors
/// When the frame is unknown or names another schema than `name`.
pub fn unframe(name: SchemaName, bytes: &[u8]) -> Result<&[u8], CodecError> {
    match bytes.first() {
        Some(0xC3) if bytes.len() >= 10 && bytes[1] == 0x01 => {
            let expected = name.fingerprint();
            if bytes[2..10] != expected {
                let mut found = [0; 8];
                found.copy_from_slice(&bytes[2..10]);
                return Err(CodecError::OtherSchema {
                    name,
                    found,
                    expected,
                });
            }
            Ok(&bytes[10..])
        }
        // What the id means is told by `SchemaIds`, where a registry can be asked; the body is checked by reading it.
        Some(0) if bytes.len() >= 5 => Ok(&bytes[5..]),
        Some(0xC3 | 0) | None => Err(CodecError::TooShort { len: bytes.len() }),
        Some(first) => Err(CodecError::UnknownFrame { first: *first }),
    }
}

fn write<T: Serialize>(
    name: SchemaName,
    framing: Framing,
    value: &T,
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    frame(name, framing, out);
    let mut config = SerializerConfig::new(name.schema());
    serde_avro_fast::to_datum(value, out, &mut config).map_err(|error| CodecError::Write {
        name,
        message: error.to_string(),
    })?;
    Ok(())
}

fn read<'a, T: Deserialize<'a>>(name: SchemaName, bytes: &'a [u8]) -> Result<T, CodecError> {
    let body = unframe(name, bytes)?;
    let wrong = |message: String| CodecError::Body { name, message };
    let mut state = DeserializerState::from_slice(body, name.schema());
    let value = T::deserialize(state.deserializer()).map_err(|error| wrong(error.to_string()))?;
    // A record of another schema may begin like one of this.
    match std::io::Read::read(&mut state.into_reader(), &mut [0]) {
        Ok(0) => Ok(value),
        Ok(_) | Err(_) => Err(wrong("bytes are left over at its end".to_owned())),
    }
}

/// Whether `bytes` are a framed record of `name`, whatever a schema id in its frame means.
///
/// # Errors
/// Why they are not.
pub fn probe(name: SchemaName, bytes: &[u8]) -> Result<(), CodecError> {
    match name {
        SchemaName::Envelope => read::<Envelope<'_>>(name, bytes).map(drop),
        SchemaName::Delivery | SchemaName::WarehouseSource => {
            read::<Addressed<'_>>(name, bytes).map(drop)
        }
        SchemaName::LedgerEntry => read::<LedgerEntry<'_>>(name, bytes).map(drop),
        // No record of ours has them.
        SchemaName::DeadLetter | SchemaName::ConfigObject => unframe(name, bytes).map(drop),
    }
}

/// Appends `envelope`, framed, to `out`.
///
/// # Errors
/// When serde refuses the value, which a well-formed envelope never makes it do.
pub fn encode_envelope(
    envelope: &Envelope<'_>,
    framing: Framing,
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    write(SchemaName::Envelope, framing, envelope, out)
}

/// Reads an envelope; it borrows from `bytes`.
///
/// # Errors
/// When the bytes are not a framed envelope.
pub fn decode_envelope(bytes: &[u8]) -> Result<Envelope<'_>, CodecError> {
    read(SchemaName::Envelope, bytes)
}

impl AddressedKind {
    /// The schema of this kind.
    pub fn schema_name(self) -> SchemaName {
        match self {
            Self::Delivery => SchemaName::Delivery,
            Self::WarehouseSource => SchemaName::WarehouseSource,
        }
    }
}

/// The fields of an addressed record that come before its envelope.
#[derive(Debug, Clone, Copy)]
pub struct Address<'a> {
    /// Destination this copy is for.
    pub destination_id: &'a str,
    /// Where in `events` the event was read.
    pub origin: super::Origin,
    /// Workspace configuration the processor saw.
    pub processed_revision: i64,
}

/// Appends an addressed record whose envelope is taken unread from `envelope_record`, a framed envelope as it lies on
/// `events`.
///
/// # Errors
/// When `envelope_record` has no frame of the current envelope schema.
pub fn splice_addressed(
    kind: AddressedKind,
    framing: Framing,
    address: Address<'_>,
    envelope_record: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    let body = unframe(SchemaName::Envelope, envelope_record)?;
    out.reserve(body.len() + address.destination_id.len() + 40);
    frame(kind.schema_name(), framing, out);
    put_str(address.destination_id, out);
    put_long(i64::from(address.origin.partition), out);
    put_long(address.origin.offset, out);
    put_long(address.processed_revision, out);
    out.extend_from_slice(body);
    Ok(())
}

/// Appends an addressed record that was changed on the way (a transformed event), encoding all of it.
///
/// # Errors
/// When serde refuses the value.
pub fn encode_addressed(
    kind: AddressedKind,
    framing: Framing,
    addressed: &Addressed<'_>,
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    write(kind.schema_name(), framing, addressed, out)
}

/// Reads an addressed record; it borrows from `bytes`.
///
/// # Errors
/// When the bytes are not a framed record of this kind.
pub fn decode_addressed(kind: AddressedKind, bytes: &[u8]) -> Result<Addressed<'_>, CodecError> {
    read(kind.schema_name(), bytes)
}

/// Appends a ledger entry, framed.
///
/// # Errors
/// When serde refuses the value.
pub fn encode_ledger(
    entry: &LedgerEntry<'_>,
    framing: Framing,
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    write(SchemaName::LedgerEntry, framing, entry, out)
}

/// Reads a ledger entry.
///
/// # Errors
/// When the bytes are not a framed ledger entry.
pub fn decode_ledger(bytes: &[u8]) -> Result<LedgerEntry<'_>, CodecError> {
    read(SchemaName::LedgerEntry, bytes)
}

/// Avro's int and long: zig-zag, then base 128, least significant group first.
fn put_long(value: i64, out: &mut Vec<u8>) {
    let mut zigzag = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while zigzag >= 0x80 {
        out.push((zigzag & 0x7f) as u8 | 0x80);
        zigzag >>= 7;
    }
    out.push(zigzag as u8);
}

fn put_str(text: &str, out: &mut Vec<u8>) {
    put_long(i64::try_from(text.len()).unwrap_or(i64::MAX), out);
    out.extend_from_slice(text.as_bytes());
}

/// Whether records written with `writer` can be read with `reader` (both schema JSON), by Avro's resolution rules.
///
/// # Errors
/// What does not fit, in words.
pub fn check_compatible(writer: &str, reader: &str) -> Result<(), String> {
    let parse = |text: &str| apache_avro::Schema::parse_str(text).map_err(|e| e.to_string());
    apache_avro::schema_compatibility::SchemaCompatibility::can_read(
        &parse(writer)?,
        &parse(reader)?,
    )
    .map_err(|e| e.to_string())
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
