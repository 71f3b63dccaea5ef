//! What goes between a shard that is filled and those that are merged into it, as bytes: in the words of shards, for it ends up in the log of
//! one. Nobody in between looks into it.

use std::collections::BTreeMap;

use sagitta_model::{Object, PointId, Record};
use sagitta_shard::codec::{DecodeError, Encode, Reader, Record as Sealed, Writer};

use super::{Pull, Pulled, PulledPart};

impl Sealed for Pull {
    const NAME: &'static str = "question to a shard that is merged";
    const FORMAT: u8 = 1;
}

const VERSIONS: u8 = 0;
const POINTS: u8 = 1;
const CHANGES: u8 = 2;

impl Encode for Pull {
    fn encode(&self, writer: &mut Writer) {
        match self {
            Self::Versions { after } => {
                writer.u8(VERSIONS);
                writer.option(after.as_ref());
            }
            Self::Points { ids } => {
                writer.u8(POINTS);
                writer.list(ids);
            }
            Self::Changes { since, requests, imported } => {
                writer.u8(CHANGES);
                writer.u64(*since);
                writer.u64(*requests);
                encode_imported(*imported, writer);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            VERSIONS => Self::Versions { after: reader.option()? },
            POINTS => Self::Points { ids: reader.list()? },
            CHANGES => {
                Self::Changes { since: reader.u64()?, requests: reader.u64()?, imported: decode_imported(reader)? }
            }
            _ => return Err(reader.fail("a question is of an unknown type")),
        })
    }
}

impl Sealed for Pulled {
    const NAME: &'static str = "answer of a shard that is merged";
    const FORMAT: u8 = 1;
}

impl Encode for Pulled {
    fn encode(&self, writer: &mut Writer) {
        writer.u64(self.as_of);
        writer.option(self.frozen.as_ref());
        match &self.part {
            PulledPart::Versions { page, is_last } => {
                writer.u8(VERSIONS);
                writer.count(page.len());
                for (id, version) in page {
                    writer.id(*id);
                    writer.u64(*version);
                }
                writer.bool(*is_last);
            }
            PulledPart::Points { records, of } => {
                writer.u8(POINTS);
                writer.count(records.len());
                records.iter().for_each(|record| encode_record(record, writer));
                writer.count(*of);
            }
            PulledPart::Changes { touched, requests, next, has_more } => {
                writer.u8(CHANGES);
                writer.bool(touched.is_some());
                if let Some(touched) = touched {
                    writer.list(touched);
                }
                writer.list(requests);
                writer.u64(next.0);
                encode_imported(next.1, writer);
                writer.bool(*has_more);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (as_of, frozen) = (reader.u64()?, reader.option()?);
        let part = match reader.u8()? {
            VERSIONS => {
                let count = reader.count(3)?;
                let one = |_| Ok((PointId::decode(reader)?, reader.u64()?));
                let page = (0..count).map(one).collect::<Result<_, DecodeError>>()?;
                PulledPart::Versions { page, is_last: reader.bool()? }
            }
            POINTS => {
                let count = reader.count(5)?;
                let records = (0..count).map(|_| decode_record(reader)).collect::<Result<_, _>>()?;
                let of = usize::try_from(reader.u64()?).map_err(|_| reader.fail("a number is out of range"))?;
                PulledPart::Points { records, of }
            }
            CHANGES => {
                let touched = if reader.bool()? { Some(reader.list()?) } else { None };
                let requests = reader.list()?;
                let next = (reader.u64()?, decode_imported(reader)?);
                PulledPart::Changes { touched, requests, next, has_more: reader.bool()? }
            }
            _ => return Err(reader.fail("an answer is of an unknown type")),
        };
        Ok(Self { as_of, frozen, part })
    }
}

fn encode_imported(imported: Option<u128>, writer: &mut Writer) {
    writer.bool(imported.is_some());
    if let Some(id) = imported {
        writer.u128(id);
    }
}

fn decode_imported(reader: &mut Reader<'_>) -> Result<Option<u128>, DecodeError> {
    if reader.bool()? { reader.u128().map(Some) } else { Ok(None) }
}

/// A record with all of its payload.
fn encode_record(record: &Record, writer: &mut Writer) {
    writer.id(record.id);
    writer.u64(record.version);
    writer.option(record.payload.as_ref());
    writer.count(record.vectors.len());
    for (name, vector) in &record.vectors {
        writer.str(name);
        writer.count(vector.len());
        writer.floats(vector);
    }
}

fn decode_record(reader: &mut Reader<'_>) -> Result<Record, DecodeError> {
    let (id, version, payload) = (reader.id()?, reader.u64()?, reader.option::<Object>()?);
    let mut vectors = BTreeMap::new();
    for _ in 0..reader.count(2)? {
        let name = reader.str()?.to_owned();
        let dim = reader.count(size_of::<f32>())?;
        if vectors.insert(name, reader.floats(dim)?).is_some() {
            return Err(reader.fail("a vector is there twice"));
        }
    }
    Ok(Record { id, version, payload, vectors })
}

#[cfg(test)]
mod tests {
    use sagitta_model::HashRange;
    use sagitta_shard::{Frozen, RememberedRequest, WriteOutcome};

    use super::*;

    fn check<R: Sealed + PartialEq + std::fmt::Debug>(message: &R) {
        let bytes = message.to_sealed();
        assert_eq!(R::from_sealed(&bytes).as_ref(), Ok(message));
        for cut in 0..bytes.len() {
            assert!(R::from_sealed(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn every_question_and_every_answer_comes_out_as_it_was() {
        let ids = vec![PointId::Num(7), PointId::Uuid(9)];
        for after in [None, Some(ids[1])] {
            check(&Pull::Versions { after });
        }
        check(&Pull::Points { ids: ids.clone() });
        for imported in [None, Some(u128::MAX)] {
            check(&Pull::Changes { since: 300, requests: 4, imported });
        }
        let record = Record {
            id: ids[0],
            version: 300,
            payload: Some([("k".to_owned(), true.into())].into()),
            vectors: [("v".to_owned(), vec![1.0, -2.5])].into(),
        };
        let range = HashRange { first: 5, last: u64::MAX };
        let request = RememberedRequest { id: 1, range, outcome: WriteOutcome { index: 4, ..WriteOutcome::default() } };
        let parts = [
            PulledPart::Versions { page: vec![(ids[0], 3), (ids[1], 300)], is_last: true },
            PulledPart::Points { records: vec![record], of: 2 },
            PulledPart::Changes { touched: None, requests: vec![], next: (0, None), has_more: false },
            PulledPart::Changes { touched: Some(ids), requests: vec![request], next: (9, Some(2)), has_more: true },
        ];
        for part in parts {
            for frozen in [None, Some(Frozen { merge: 3, index: 300 })] {
                check(&Pulled { as_of: 301, frozen, part: part.clone() });
            }
        }
    }
}
