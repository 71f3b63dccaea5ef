use sagitta_model::{HashRange, PointId};

use super::command::{decode_points, encode_points};
use super::{DecodeError, Encode, Reader, Record, Writer};
use crate::{Command, Import, MergeEntry, RememberedRequest, Split, WriteOutcome};

/// Shares the numbers of its formats with commands and splits, by which they are told apart.
impl Record for MergeEntry {
    const NAME: &'static str = "merge";
    const FORMAT: u8 = 5;
}

const _: () = assert!(
    Command::FORMAT < MergeEntry::FORMAT && Split::FORMAT < MergeEntry::FORMAT,
    "5 is the format of merges: the next one of commands is 6"
);

const FREEZE: u8 = 0;
const THAW: u8 = 1;
const IMPORT: u8 = 2;
const COMPLETE: u8 = 3;

impl Encode for MergeEntry {
    fn encode(&self, writer: &mut Writer) {
        match self {
            Self::Freeze { merge } => {
                writer.u8(FREEZE);
                writer.u64(*merge);
            }
            Self::Thaw { merge } => {
                writer.u8(THAW);
                writer.u64(*merge);
            }
            Self::Import(import) => {
                writer.u8(IMPORT);
                import.encode(writer);
            }
            Self::Complete { merge, step, above } => {
                writer.u8(COMPLETE);
                writer.u64(*merge);
                writer.u64(*step);
                writer.u64(*above);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if reader.format() != Self::FORMAT {
            return Err(reader.fail("it is not in the format of a merge"));
        }
        Ok(match reader.u8()? {
            FREEZE => Self::Freeze { merge: reader.u64()? },
            THAW => Self::Thaw { merge: reader.u64()? },
            IMPORT => Self::Import(Import::decode(reader)?),
            COMPLETE => Self::Complete { merge: reader.u64()?, step: reader.u64()?, above: reader.u64()? },
            _ => return Err(reader.fail("an entry of a merge is of an unknown type")),
        })
    }
}

impl Encode for Import {
    fn encode(&self, writer: &mut Writer) {
        writer.u64(self.merge);
        writer.u64(self.step);
        encode_points(&self.points, writer);
        self.versions.iter().for_each(|version| writer.u64(*version));
        writer.list(&self.deleted);
        writer.list(&self.requests);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (merge, step, points) = (reader.u64()?, reader.u64()?, decode_points(reader)?);
        let versions = points.iter().map(|_| reader.u64()).collect::<Result<_, _>>()?;
        Ok(Self { merge, step, points, versions, deleted: reader.list::<PointId>()?, requests: reader.list()? })
    }
}

impl Encode for RememberedRequest {
    fn encode(&self, writer: &mut Writer) {
        writer.u128(self.id);
        self.range.encode(writer);
        self.outcome.encode(writer);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { id: reader.u128()?, range: HashRange::decode(reader)?, outcome: WriteOutcome::decode(reader)? })
    }
}
