//! Points as JSON and as table cells.

use sagitta_client::ScoredPoint;
use sagitta_model::{NamedVectors, Object, Record, Value};
use serde::{Serialize, Serializer};

use crate::data::{Json, JsonId, JsonObject};

/// A point as JSON. What was not selected is left out.
#[derive(Serialize)]
pub(super) struct PointDocument<'p> {
    id: JsonId,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<Short>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vectors: Option<ShortVectors<'p>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<JsonObject<'p>>,
}

impl<'p> PointDocument<'p> {
    pub(super) fn of_record(record: &'p Record) -> Self {
        Self {
            id: JsonId(record.id),
            score: None,
            version: Some(record.version),
            vectors: Some(ShortVectors(&record.vectors)).filter(|vectors| !vectors.0.is_empty()),
            payload: record.payload.as_ref().map(JsonObject),
        }
    }

    pub(super) fn of_hit(hit: &'p ScoredPoint) -> Self {
        let score = Some(Short(hit.score));
        match &hit.record {
            Some(record) => Self { score, ..Self::of_record(record) },
            None => Self { id: JsonId(hit.id), score, version: None, vectors: None, payload: None },
        }
    }
}

/// A 32-bit float with as many digits as tell it from its neighbours: 0.1, not 0.10000000149011612. The same float comes
/// back from it.
#[derive(Clone, Copy)]
struct Short(f32);

impl Serialize for Short {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0.to_string().parse().unwrap_or(f64::from(self.0)))
    }
}

/// Vectors by name.
struct ShortVectors<'p>(&'p NamedVectors);

impl Serialize for ShortVectors<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let short = |vector: &Vec<f32>| vector.iter().copied().map(Short).collect::<Vec<_>>();
        serializer.collect_map(self.0.iter().map(|(name, vector)| (name, short(vector))))
    }
}

/// A payload in one cell: `words 50, source rust-docs`. Short values come first, so that they are not cut off.
pub(super) fn payload_cell(payload: &Object) -> String {
    let mut fields: Vec<(usize, String)> = payload
        .iter()
        .map(|(name, value)| {
            let text = value_cell(value);
            (text.len(), format!("{name}={text}"))
        })
        .collect();
    fields.sort_by_key(|(length, _)| *length > 40);
    fields.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join("  ")
}

/// A payload value in a cell: text as it is, anything else as JSON.
pub(super) fn value_cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => serde_json::to_string(&Json(other)).unwrap_or_default(),
    }
}

/// A vector in a cell: its dimension and its first components.
pub(super) fn vector_cell(vector: &[f32]) -> String {
    const SHOWN: usize = 4;
    let start: Vec<_> = vector.iter().take(SHOWN).map(|x| format!("{x:.4}")).collect();
    let more = if vector.len() > SHOWN { ", …" } else { "" };
    format!("[{}{more}] ({})", start.join(", "), vector.len())
}

#[cfg(test)]
mod tests {
    use sagitta_model::PointId;

    use super::*;

    #[test]
    fn long_values_come_last_in_a_cell() {
        let long = "x".repeat(50);
        let payload = Object::from([("a".into(), Value::from(long.as_str())), ("b".into(), 3.into())]);
        assert_eq!(payload_cell(&payload), format!("b=3  a={long}"));
        assert_eq!(vector_cell(&[1.0, 0.25]), "[1.0000, 0.2500] (2)");
    }

    #[test]
    fn documents_leave_out_what_was_not_selected() {
        let hit = ScoredPoint { id: PointId::Uuid(1), score: 0.5, record: None };
        let json = serde_json::to_string(&PointDocument::of_hit(&hit)).expect("JSON");
        assert_eq!(json, "{\"id\":\"00000000-0000-0000-0000-000000000001\",\"score\":0.5}");
        let payload = Some(Object::from([("a".into(), Value::Null)]));
        let mut record = Record { id: PointId::Num(u64::MAX), version: 7, payload, vectors: NamedVectors::new() };
        let json = serde_json::to_string(&PointDocument::of_record(&record)).expect("JSON");
        assert_eq!(json, "{\"id\":18446744073709551615,\"version\":7,\"payload\":{\"a\":null}}");
        (record.payload, record.vectors) = (None, NamedVectors::from([("v".to_owned(), vec![0.1, -3e-3, 1.0])]));
        // By way of a document, as commands write it.
        let json = serde_json::json!(PointDocument::of_record(&record)).to_string();
        assert_eq!(json, "{\"id\":18446744073709551615,\"vectors\":{\"v\":[0.1,-0.003,1.0]},\"version\":7}");
    }
}
