use std::collections::BTreeMap;

use sagitta_model::{FieldPath, FieldType, IndexPolicy, Metric, Schema, VectorSpec};

use super::{DecodeError, Encode, Reader, Record, Writer};

impl Record for Schema {
    const NAME: &'static str = "collection schema";
    const FORMAT: u8 = 1;
}

impl Encode for Schema {
    fn encode(&self, writer: &mut Writer) {
        writer.count(self.vectors.len());
        for (name, spec) in &self.vectors {
            writer.str(name);
            spec.encode(writer);
        }
        writer.count(self.fields.len());
        for (path, field_type) in &self.fields {
            path.encode(writer);
            field_type.encode(writer);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let vectors = read_map(reader, String::decode)?;
        let fields = read_map(reader, FieldPath::decode)?;
        Ok(Self { vectors, fields })
    }
}

fn read_map<K: Ord, V: Encode>(
    reader: &mut Reader<'_>,
    read_key: impl Fn(&mut Reader<'_>) -> Result<K, DecodeError>,
) -> Result<BTreeMap<K, V>, DecodeError> {
    let mut map = BTreeMap::new();
    for _ in 0..reader.count(2)? {
        let key = read_key(reader)?;
        if map.last_key_value().is_some_and(|(last, _)| *last >= key) {
            return Err(reader.fail("names do not ascend"));
        }
        map.insert(key, V::decode(reader)?);
    }
    Ok(map)
}

impl Encode for VectorSpec {
    fn encode(&self, writer: &mut Writer) {
        writer.count(self.dim);
        self.metric.encode(writer);
        writer.u8(match self.index {
            IndexPolicy::Auto => 0,
            IndexPolicy::Flat => 1,
            IndexPolicy::Graph => 2,
            IndexPolicy::Compact => 3,
        });
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let dim = usize::try_from(reader.u64()?).map_err(|_| reader.fail("a dimension is out of range"))?;
        let metric = Metric::decode(reader)?;
        let index = match reader.u8()? {
            0 => IndexPolicy::Auto,
            1 => IndexPolicy::Flat,
            2 => IndexPolicy::Graph,
            3 => IndexPolicy::Compact,
            _ => return Err(reader.fail("an index policy is unknown")),
        };
        Ok(Self { dim, metric, index })
    }
}

impl Encode for Metric {
    fn encode(&self, writer: &mut Writer) {
        writer.u8(match self {
            Self::Cosine => 0,
            Self::InnerProduct => 1,
            Self::L2 => 2,
        });
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.u8()? {
            0 => Ok(Self::Cosine),
            1 => Ok(Self::InnerProduct),
            2 => Ok(Self::L2),
            _ => Err(reader.fail("a metric is unknown")),
        }
    }
}

impl Encode for FieldType {
    fn encode(&self, writer: &mut Writer) {
        writer.u8(match self {
            Self::Keyword => 0,
            Self::Integer => 1,
            Self::Float => 2,
            Self::Bool => 3,
            Self::Datetime => 4,
        });
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.u8()? {
            0 => Ok(Self::Keyword),
            1 => Ok(Self::Integer),
            2 => Ok(Self::Float),
            3 => Ok(Self::Bool),
            4 => Ok(Self::Datetime),
            _ => Err(reader.fail("a field type is unknown")),
        }
    }
}

impl Encode for FieldPath {
    fn encode(&self, writer: &mut Writer) {
        writer.str(self.as_str());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.str()?.parse().map_err(|_| reader.fail("a field path is malformed"))
    }
}
