use sagitta_model::{ErrorKind, ItemFailure, Problem, Violation};

use super::{DecodeError, Encode, Reader, Record, Writer};
use crate::WriteOutcome;

impl Record for WriteOutcome {
    const NAME: &'static str = "write outcome";
    const FORMAT: u8 = 1;
}

/// Whether the outcome was found again is not part of it: it reads as `deduplicated: false`.
impl Encode for WriteOutcome {
    fn encode(&self, writer: &mut Writer) {
        writer.u64(self.index);
        writer.u64(self.applied);
        writer.list(&self.failures);
        writer.u64(self.failed);
        writer.option(self.refused.as_ref());
        writer.option(self.resume_after.as_ref());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            index: reader.u64()?,
            applied: reader.u64()?,
            failures: reader.list()?,
            failed: reader.u64()?,
            refused: reader.option()?,
            resume_after: reader.option()?,
            deduplicated: false,
        })
    }
}

impl Encode for ItemFailure {
    fn encode(&self, writer: &mut Writer) {
        writer.count(self.index);
        writer.id(self.id);
        self.problem.encode(writer);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let index = usize::try_from(reader.u64()?).map_err(|_| reader.fail("a position is out of range"))?;
        Ok(Self { index, id: reader.id()?, problem: Problem::decode(reader)? })
    }
}

impl Encode for Problem {
    fn encode(&self, writer: &mut Writer) {
        self.kind.encode(writer);
        writer.str(&self.message);
        writer.list(&self.violations);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { kind: ErrorKind::decode(reader)?, message: String::decode(reader)?, violations: reader.list()? })
    }
}

impl Encode for Violation {
    fn encode(&self, writer: &mut Writer) {
        writer.str(&self.field);
        writer.str(&self.reason);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { field: String::decode(reader)?, reason: String::decode(reader)? })
    }
}

impl Encode for ErrorKind {
    fn encode(&self, writer: &mut Writer) {
        writer.u8(match self {
            Self::Invalid => 0,
            Self::NotFound => 1,
            Self::Conflict => 2,
            Self::Denied => 3,
            Self::Overloaded => 4,
            Self::Unavailable => 5,
            Self::Corrupt => 6,
            Self::Internal => 7,
        });
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            0 => Self::Invalid,
            1 => Self::NotFound,
            2 => Self::Conflict,
            3 => Self::Denied,
            4 => Self::Overloaded,
            5 => Self::Unavailable,
            6 => Self::Corrupt,
            7 => Self::Internal,
            _ => return Err(reader.fail("an error kind is unknown")),
        })
    }
}
