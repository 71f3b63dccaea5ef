use sagitta_model::filter::{Bounds, Number};
use sagitta_model::{Condition, FieldPath, Filter, Range, Scalar, Test};

use super::{DecodeError, Encode, Reader, Record, Writer};

impl Record for Filter {
    const NAME: &'static str = "filter";
    const FORMAT: u8 = 3;

    fn format(&self) -> u8 {
        let conditions = self.must.iter().chain(&self.should).chain(&self.must_not);
        conditions.map(format_of).max().unwrap_or(1)
    }
}

/// The first format of filters, and of the commands that hold them, in which a condition has a place.
fn format_of(condition: &Condition) -> u8 {
    match condition {
        Condition::Field { test, .. } => match test {
            Test::Match(_) | Test::Any(_) | Test::Range(_) | Test::Exists | Test::IsNull => 1,
            Test::Prefix(_) => 2,
            Test::ValuesCount(_) => 3,
        },
        Condition::HasId(_) => 1,
        Condition::Filter(filter) => filter.format(),
    }
}

impl Encode for Filter {
    fn encode(&self, writer: &mut Writer) {
        writer.list(&self.must);
        writer.list(&self.should);
        writer.list(&self.must_not);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.nested(|reader| Ok(Self { must: reader.list()?, should: reader.list()?, must_not: reader.list()? }))
    }
}

const FIELD: u8 = 0;
const HAS_ID: u8 = 1;
const FILTER: u8 = 2;

impl Encode for Condition {
    fn encode(&self, writer: &mut Writer) {
        match self {
            Self::Field { path, test } => {
                writer.u8(FIELD);
                path.encode(writer);
                test.encode(writer);
            }
            Self::HasId(ids) => {
                writer.u8(HAS_ID);
                writer.list(ids);
            }
            Self::Filter(filter) => {
                writer.u8(FILTER);
                filter.encode(writer);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            FIELD => Self::Field { path: FieldPath::decode(reader)?, test: Test::decode(reader)? },
            HAS_ID => {
                let ids = reader.list()?;
                // Matching finds ids by bisection.
                if !ids.is_sorted_by(|a, b| a < b) {
                    return Err(reader.fail("ids do not ascend"));
                }
                Self::HasId(ids)
            }
            FILTER => Self::Filter(Box::new(Filter::decode(reader)?)),
            _ => return Err(reader.fail("a condition is of an unknown type")),
        })
    }
}

const MATCH: u8 = 0;
const ANY: u8 = 1;
const NUMBER_RANGE: u8 = 2;
const DATETIME_RANGE: u8 = 3;
const EXISTS: u8 = 4;
const IS_NULL: u8 = 5;
const PREFIX: u8 = 6;
const VALUES_COUNT: u8 = 7;

impl Encode for Test {
    fn encode(&self, writer: &mut Writer) {
        match self {
            Self::Match(scalar) => {
                writer.u8(MATCH);
                scalar.encode(writer);
            }
            Self::Any(scalars) => {
                writer.u8(ANY);
                writer.list(scalars);
            }
            Self::Range(Range::Number(bounds)) => {
                writer.u8(NUMBER_RANGE);
                bounds.encode(writer);
            }
            Self::Range(Range::Datetime(bounds)) => {
                writer.u8(DATETIME_RANGE);
                bounds.encode(writer);
            }
            Self::Exists => writer.u8(EXISTS),
            Self::IsNull => writer.u8(IS_NULL),
            Self::Prefix(text) => {
                writer.u8(PREFIX);
                writer.str(text);
            }
            Self::ValuesCount(bounds) => {
                writer.u8(VALUES_COUNT);
                bounds.encode(writer);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            MATCH => Self::Match(Scalar::decode(reader)?),
            ANY => Self::Any(reader.list()?),
            NUMBER_RANGE => Self::Range(Range::Number(Bounds::decode(reader)?)),
            DATETIME_RANGE => Self::Range(Range::Datetime(Bounds::decode(reader)?)),
            EXISTS => Self::Exists,
            IS_NULL => Self::IsNull,
            PREFIX => Self::Prefix(String::decode(reader)?),
            VALUES_COUNT => Self::ValuesCount(Bounds::decode(reader)?),
            _ => return Err(reader.fail("a test is of an unknown type")),
        })
    }
}

const FALSE: u8 = 0;
const TRUE: u8 = 1;
const INT: u8 = 2;
const STRING: u8 = 3;
const FLOAT: u8 = 4;

impl Encode for Scalar {
    fn encode(&self, writer: &mut Writer) {
        match self {
            Self::Bool(false) => writer.u8(FALSE),
            Self::Bool(true) => writer.u8(TRUE),
            Self::Int(n) => {
                writer.u8(INT);
                writer.i64(*n);
            }
            Self::String(text) => {
                writer.u8(STRING);
                writer.str(text);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            FALSE => Self::Bool(false),
            TRUE => Self::Bool(true),
            INT => Self::Int(reader.i64()?),
            STRING => Self::String(String::decode(reader)?),
            _ => return Err(reader.fail("a scalar is of an unknown type")),
        })
    }
}

impl Encode for Number {
    fn encode(&self, writer: &mut Writer) {
        match self {
            Self::Int(n) => {
                writer.u8(INT);
                writer.i64(*n);
            }
            Self::Float(x) => {
                writer.u8(FLOAT);
                writer.f64(*x);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.u8()? {
            INT => reader.i64().map(Self::Int),
            FLOAT => reader.f64().map(Self::Float),
            _ => Err(reader.fail("a number is of an unknown type")),
        }
    }
}

const ABSENT: u8 = 0;
const EXCLUSIVE: u8 = 1;
const INCLUSIVE: u8 = 2;

impl<T: Encode> Encode for Bounds<T> {
    fn encode(&self, writer: &mut Writer) {
        for bound in [&self.lower, &self.upper] {
            match bound {
                None => writer.u8(ABSENT),
                Some((value, inclusive)) => {
                    writer.u8(if *inclusive { INCLUSIVE } else { EXCLUSIVE });
                    value.encode(writer);
                }
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut bound = || match reader.u8()? {
            ABSENT => Ok(None),
            EXCLUSIVE => T::decode(reader).map(|value| Some((value, false))),
            INCLUSIVE => T::decode(reader).map(|value| Some((value, true))),
            _ => Err(reader.fail("a bound is of an unknown type")),
        };
        Ok(Self { lower: bound()?, upper: bound()? })
    }
}

impl Encode for u64 {
    fn encode(&self, writer: &mut Writer) {
        writer.u64(*self);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.u64()
    }
}

impl Encode for i64 {
    fn encode(&self, writer: &mut Writer) {
        writer.i64(*self);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.i64()
    }
}
