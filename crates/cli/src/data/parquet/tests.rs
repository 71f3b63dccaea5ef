use sagitta_model::PointId;
use sagitta_model::value::{Object, Value};

use super::*;
use crate::data::testing::{Folder, check_reader, refusal, rows, sample};

fn vector_column(column: &str) -> ReadOptions {
    ReadOptions { vector_columns: vec![(String::new(), column.to_owned())], ..ReadOptions::default() }
}

#[test]
fn lists_of_every_number_type_read_as_vectors() {
    for column in ["fixed", "doubles", "halves", "bytes", "longs"] {
        let options = ReadOptions { content: super::super::Content::Points, ..vector_column(column) };
        let rows = check_reader(&sample("vectors.parquet"), &options);
        assert_eq!(rows.len(), 25);
        for (at, row) in rows.iter().enumerate() {
            let expected: Vec<f32> = (0..4).map(|c| (at + c) as f32).collect();
            assert_eq!(row.vectors[""], expected, "{column}, row {at}");
            assert_eq!(row.id, Some(PointId::Num(at as u64 + 100)));
        }
    }
}

#[test]
fn other_columns_become_payload_with_their_types() {
    let rows = check_reader(&sample("payload.parquet"), &ReadOptions::default());
    assert_eq!(rows[0].id, Some(PointId::Uuid(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef)));
    let object =
        |fields: &[(&str, Value)]| fields.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect::<Object>();
    let expected = object(&[
        ("text", "first".into()),
        ("year", 2026.into()),
        ("big", i64::MAX.into()),
        ("score", 0.5.into()),
        ("ok", true.into()),
        ("tags", Value::Array(vec!["a".into(), "b".into()])),
        ("author", Value::Object(object(&[("name", "Ada".into()), ("born", "1815-12-10T00:00:00Z".into())]))),
        ("attributes", Value::Object(object(&[("k", 1.into())]))),
        ("day", "2026-11-23T00:00:00Z".into()),
        ("seconds", "2026-11-23T14:53:00Z".into()),
        ("millis", "2026-11-23T14:53:00.25Z".into()),
        ("micros", "2026-11-23T14:53:00.000001Z".into()),
        ("nanos", "2026-11-23T14:53:00.000000001Z".into()),
        ("price", "12.50".into()),
        ("clock", "14:53:00.5".into()),
    ]);
    assert_eq!(rows[0].payload, expected);
    assert!(rows[1].payload.values().all(|value| *value == Value::Null), "{:?}", rows[1].payload);
    let without = ReadOptions { ignored_columns: vec!["text".into(), "nanos".into()], ..ReadOptions::default() };
    assert_eq!(check_reader(&sample("payload.parquet"), &without)[0].payload.len(), expected.len() - 2);
}

#[test]
fn ragged_missing_and_non_finite_vectors_are_refused_with_row_and_component() {
    let refuse = |column: &str| refusal(&sample("bad_vectors.parquet"), &vector_column(column));
    assert_eq!(refuse("ragged"), ", row 3, ragged: expected 2 numbers, as in row 0, found 3");
    assert_eq!(refuse("null_row"), ", row 3, null_row: expected a list of numbers, found none");
    assert_eq!(refuse("empty_row"), ", row 3, empty_row: expected a list of numbers, found none");
    assert_eq!(refuse("null_number"), ", row 3, null_number[1]: expected a number, found null");
    assert_eq!(refuse("nan"), ", row 3, nan[0]: expected a finite float32, found NaN");
    assert_eq!(refuse("great"), ", row 3, great[1]: expected an integer that float32 holds exactly, found 16777217");
    let text = refuse("missing");
    assert!(text.starts_with(": lists of numbers: expected `missing`, found ragged, null_row"), "{text}");
    let text = refusal(&sample("bad_vectors.parquet"), &ReadOptions::default());
    assert!(text.contains("expected `vector`, `embedding` or one list of floats, found ragged"), "{text}");
}

#[test]
fn payloads_that_json_cannot_hold_are_refused_with_row_and_column() {
    let keep = |kept: &str| {
        let all = ["binary", "nan", "unsigned", "interval_free"];
        let ignored_columns = all.iter().filter(|c| **c != kept).map(|c| (*c).to_owned()).collect();
        ReadOptions { ignored_columns, ..ReadOptions::default() }
    };
    let refuse = |column| refusal(&sample("bad_payload.parquet"), &keep(column));
    assert_eq!(refuse("binary"), ", row 1, binary: expected text, found 2 bytes that are not text");
    assert_eq!(refuse("nan"), ", row 1, nan: expected a finite number, found NaN");
    assert_eq!(
        refuse("unsigned"),
        ", row 1, unsigned: expected an integer up to 9223372036854775807, found 9223372036854775808"
    );
    assert_eq!(check_reader(&sample("bad_payload.parquet"), &keep("interval_free")).len(), 2);
    let text =
        refusal(&sample("payload.parquet"), &ReadOptions { id_column: Some("text".into()), ..ReadOptions::default() });
    assert_eq!(text, ", row 0, text: expected an unsigned 64-bit number or a UUID, found `first`");
    let missing = ReadOptions { id_column: Some("key".into()), id_required: true, ..ReadOptions::default() };
    assert!(refusal(&sample("payload.parquet"), &missing).starts_with(": columns: expected `key`, found "));
}

#[test]
fn a_file_cut_off_is_refused_and_damage_never_panics() {
    let folder = Folder::new();
    let bytes = std::fs::read(sample("vectors.parquet")).expect("reads");
    for length in (0..bytes.len()).step_by(101) {
        let path = folder.write("cut.parquet", &bytes[..length]);
        assert!(rows(&path, &vector_column("fixed"), 7).is_err(), "cut to {length}");
    }
    let good = rows(&sample("vectors.parquet"), &vector_column("fixed"), 7).expect("reads");
    let mut unnoticed = 0;
    for at in (4..bytes.len()).step_by(13) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        let path = folder.write("flipped.parquet", &flipped);
        unnoticed += usize::from(rows(&path, &vector_column("fixed"), 7).is_ok_and(|rows| rows != good));
    }
    // The pages of this file carry checksums; its footer (names, statistics) has none.
    assert!(unnoticed < 10, "{unnoticed} flips changed rows unnoticed");
}
