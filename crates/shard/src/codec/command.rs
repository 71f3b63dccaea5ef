use std::collections::BTreeSet;
use std::sync::Arc;

use sagitta_model::{Change, FieldPath, Filter, NamedVectors, Object, PayloadChange, Point, PointId, Target};

use super::{DecodeError, Encode, Reader, Record, Writer};
use crate::{Command, Split};

/// The format of a body that is read without its envelope.
const BARE: u8 = 0;

impl Record for Command {
    const NAME: &'static str = "command";
    const FORMAT: u8 = 3;

    fn format(&self) -> u8 {
        match &*self.change {
            Change::DeleteByFilter(filter) | Change::UpdatePayload { target: Target::Filter(filter), .. } => {
                filter.format()
            }
            Change::Upsert(_) | Change::Delete(_) | Change::UpdatePayload { target: Target::Ids(_), .. } => 1,
        }
    }
}

impl Encode for Command {
    fn encode(&self, writer: &mut Writer) {
        writer.u128(self.request_id);
        writer.option(self.after.as_ref());
        self.change.encode(writer);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (request_id, after) = (reader.u128()?, reader.option()?);
        let command = Self { request_id, after, change: Arc::new(Change::decode(reader)?) };
        // What a format has no place for is nonsense in it, to the programs that know no other and so to all.
        if ![BARE, command.format()].contains(&reader.format()) {
            return Err(reader.fail("it is not in the oldest format that can hold it"));
        }
        Ok(command)
    }
}

/// The two share the numbers of their formats, by which they are told apart.
impl Record for Split {
    const NAME: &'static str = "split";
    const FORMAT: u8 = 4;
}

const _: () = assert!(Command::FORMAT < Split::FORMAT, "4 is the format of splits: the next one of commands is 5");

impl Encode for Split {
    fn encode(&self, writer: &mut Writer) {
        writer.u128(self.request_id);
        writer.raw(&self.at.to_le_bytes());
        writer.u64(self.right);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if reader.format() != Self::FORMAT {
            return Err(reader.fail("it is not in the format of a split"));
        }
        Ok(Self { request_id: reader.u128()?, at: u64::from_le_bytes(reader.array()?), right: reader.u64()? })
    }
}

const UPSERT: u8 = 0;
const DELETE: u8 = 1;
const DELETE_BY_FILTER: u8 = 2;
const UPDATE_PAYLOAD: u8 = 3;

impl Encode for Change {
    fn encode(&self, writer: &mut Writer) {
        match self {
            Self::Upsert(points) => {
                writer.u8(UPSERT);
                encode_points(points, writer);
            }
            Self::Delete(ids) => {
                writer.u8(DELETE);
                writer.list(ids);
            }
            Self::DeleteByFilter(filter) => {
                writer.u8(DELETE_BY_FILTER);
                filter.encode(writer);
            }
            Self::UpdatePayload { target, change } => {
                writer.u8(UPDATE_PAYLOAD);
                target.encode(writer);
                change.encode(writer);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            UPSERT => Self::Upsert(decode_points(reader)?),
            DELETE => Self::Delete(reader.list()?),
            DELETE_BY_FILTER => Self::DeleteByFilter(Filter::decode(reader)?),
            UPDATE_PAYLOAD => {
                Self::UpdatePayload { target: Target::decode(reader)?, change: PayloadChange::decode(reader)? }
            }
            _ => return Err(reader.fail("a change is of an unknown type")),
        })
    }
}

/// Points of a batch have the same few vector names: they are listed once, and each vector names its own by position.
pub(super) fn encode_points(points: &[Point], writer: &mut Writer) {
    let names: BTreeSet<&str> = points.iter().flat_map(|point| point.vectors.keys().map(String::as_str)).collect();
    let names: Vec<&str> = names.into_iter().collect();
    let floats: usize = points.iter().flat_map(|point| point.vectors.values().map(Vec::len)).sum();
    writer.reserve(floats * size_of::<f32>());
    writer.count(names.len());
    names.iter().for_each(|name| writer.str(name));
    writer.count(points.len());
    for point in points {
        writer.id(point.id);
        writer.count(point.vectors.len());
        for (name, vector) in &point.vectors {
            let position = names.binary_search(&name.as_str()).expect("invariant: all names are listed");
            writer.count(position);
            writer.count(vector.len());
            writer.floats(vector);
        }
        point.payload.encode(writer);
    }
}

pub(super) fn decode_points(reader: &mut Reader<'_>) -> Result<Vec<Point>, DecodeError> {
    let mut names: Vec<&str> = Vec::new();
    for _ in 0..reader.count(1)? {
        let name = reader.str()?;
        if names.last().is_some_and(|last| *last >= name) {
            return Err(reader.fail("vector names do not ascend"));
        }
        names.push(name);
    }
    // A point is at least its id (2 bytes) and the numbers of its vectors and fields.
    let count = reader.count(4)?;
    let mut points = Vec::with_capacity(count);
    for _ in 0..count {
        points.push(decode_point(&names, reader)?);
    }
    Ok(points)
}

fn decode_point(names: &[&str], reader: &mut Reader<'_>) -> Result<Point, DecodeError> {
    let id = reader.id()?;
    let mut vectors = NamedVectors::new();
    let mut next_name = 0;
    for _ in 0..reader.count(2)? {
        let position = usize::try_from(reader.u64()?).unwrap_or(usize::MAX);
        let name = names.get(position).filter(|_| position >= next_name);
        let name = name.ok_or_else(|| reader.fail("a vector's name is out of order or not listed"))?;
        next_name = position + 1;
        let dim = reader.count(size_of::<f32>())?;
        vectors.insert((*name).to_owned(), reader.floats(dim)?);
    }
    Ok(Point { id, vectors, payload: Object::decode(reader)? })
}

const IDS: u8 = 0;
const FILTER: u8 = 1;

impl Encode for Target {
    fn encode(&self, writer: &mut Writer) {
        match self {
            Self::Ids(ids) => {
                writer.u8(IDS);
                writer.list(ids);
            }
            Self::Filter(filter) => {
                writer.u8(FILTER);
                filter.encode(writer);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.u8()? {
            IDS => reader.list::<PointId>().map(Self::Ids),
            FILTER => Filter::decode(reader).map(Self::Filter),
            _ => Err(reader.fail("a target is of an unknown type")),
        }
    }
}

const MERGE: u8 = 0;
const REPLACE: u8 = 1;
const DELETE_FIELDS: u8 = 2;

impl Encode for PayloadChange {
    fn encode(&self, writer: &mut Writer) {
        match self {
            Self::Merge(fields) => {
                writer.u8(MERGE);
                fields.encode(writer);
            }
            Self::Replace(payload) => {
                writer.u8(REPLACE);
                payload.encode(writer);
            }
            Self::Delete(paths) => {
                writer.u8(DELETE_FIELDS);
                writer.list(paths);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.u8()? {
            MERGE => Object::decode(reader).map(Self::Merge),
            REPLACE => Object::decode(reader).map(Self::Replace),
            DELETE_FIELDS => reader.list::<FieldPath>().map(Self::Delete),
            _ => Err(reader.fail("a payload change is of an unknown type")),
        }
    }
}
