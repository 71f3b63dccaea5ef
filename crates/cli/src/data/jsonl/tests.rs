use sagitta_model::value::{Object, Value};
use sagitta_model::{NamedVectors, PointId};

use super::*;
use crate::data::testing::{Folder, check_reader, refusal, rows};

fn read(text: &str) -> Vec<Row> {
    check_reader(&Folder::new().write("a.jsonl", text.as_bytes()), &ReadOptions::default())
}

fn refuse(text: &str) -> String {
    refusal(&Folder::new().write("a.jsonl", text.as_bytes()), &ReadOptions::default())
}

#[test]
fn rows_have_ids_vectors_and_every_other_key_as_payload() {
    let rows = read(concat!(
        "{\"id\": 7, \"vector\": [1, -0.5], \"tags\": [\"a\", null], \"deep\": {\"x\": 1.5}}\n",
        "\u{20}{\"vector\":[1e-3,2],\"id\":\"01234567-89ab-cdef-0123-456789abcdef\",\"payload\":{\"n\":9007199254740993}}\n",
    ));
    let deep = Value::Object(Object::from([("x".into(), Value::Float(1.5))]));
    let tags = Value::Array(vec!["a".into(), Value::Null]);
    assert_eq!(rows[0].id, Some(PointId::Num(7)));
    assert_eq!(rows[0].vectors, NamedVectors::from([(String::new(), vec![1.0, -0.5])]));
    assert_eq!(rows[0].payload, Object::from([("deep".into(), deep), ("tags".into(), tags)]));
    assert_eq!(rows[1].id, Some(PointId::Uuid(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef)));
    assert_eq!(rows[1].payload, Object::from([("n".into(), Value::Int((1 << 53) + 1))]));
}

#[test]
fn named_vectors_a_missing_last_newline_and_blank_lines_at_the_end_are_fine() {
    let line = "{\"vectors\": {\"title\": [1], \"body\": [1, 2]}}";
    for text in [line.to_owned(), format!("{line}\r\n"), format!("{line}\n{line}\n\n  \n"), format!("\u{feff}{line}\n")]
    {
        let rows = read(&text);
        assert_eq!(rows[0].vectors["body"], [1.0, 2.0]);
        assert_eq!(rows[0].id, None);
    }
}

#[test]
fn columns_can_be_chosen() {
    let folder = Folder::new();
    let path = folder.write("a.jsonl", b"{\"_id\": 3, \"id\": \"x\", \"t\": [1], \"vector\": \"kept\", \"junk\": {}}");
    let options = ReadOptions {
        vector_columns: vec![("title".into(), "t".into())],
        id_column: Some("_id".into()),
        ignored_columns: vec!["junk".into()],
        ..ReadOptions::default()
    };
    let row = check_reader(&path, &options).remove(0);
    assert_eq!((row.id, &row.vectors["title"][..]), (Some(PointId::Num(3)), &[1.0][..]));
    assert_eq!(row.payload, Object::from([("id".into(), "x".into()), ("vector".into(), "kept".into())]));
    let without = ReadOptions { id_column: None, ..options.clone() };
    assert!(check_reader(&path, &without)[0].payload.contains_key("_id"));
    let missing = ReadOptions { id_column: Some("key".into()), id_required: true, ..options };
    assert_eq!(refusal(&path, &missing), ", row 0, key: expected an id, found no such key");
}

#[test]
fn numbers_survive_to_the_last_bit() {
    // 0.1 + 0.2 as f64, and the f32 whose decimal form is rounded twice when it goes through f64.
    let rows = read("{\"vector\": [7.038531e-26], \"x\": 0.30000000000000004}\n");
    assert_eq!(rows[0].payload["x"], Value::Float(0.1 + 0.2));
    assert_eq!(rows[0].vectors[""][0], "7.038531e-26".parse::<f32>().expect("a float"));
}

#[test]
fn what_is_wrong_is_named_with_row_and_field() {
    let good = "{\"id\": 1, \"vector\": [1, 2]}\n";
    let cases = [
        ("{\"id\": 2, \"vector\": [1]}", ", row 1, vector: expected 2 numbers, as in row 0, found 1"),
        ("{\"id\": 2, \"vector\": [1, null]}", ", row 1, vector[1]: expected a number, found null"),
        ("{\"id\": 2, \"vector\": [1, \"2\"]}", ", row 1, vector[1]: expected a number, found string \"2\""),
        (
            "{\"id\": 2, \"vector\": [1, NaN]}",
            ", row 1, vector[1]: expected valid JSON, found `NaN]}` at character 25 (expected value)",
        ),
        ("{\"id\": 2, \"vector\": [1, 1e39]}", ", row 1, vector[1]: expected"),
        ("{\"id\": 2, \"vector\": \"1,2\"}", ", row 1, vector: expected an array of numbers, found string \"1,2\""),
        ("{\"id\": 2}", ", row 1, vector: expected 2 numbers, as in row 0, found nothing"),
        (
            "{\"id\": 2, \"vector\": [1, 2], \"vectors\": {\"b\": [1]}}",
            ", row 1, vectors[\"b\"]: expected only the vectors of row 0, found a further vector",
        ),
        ("{\"vector\": [1, 2]}", ", row 1, id: expected an id, as in row 0, found none"),
        ("{\"id\": -2, \"vector\": [1, 2]}", ", row 1, id: expected an unsigned 64-bit number or a UUID, found -2"),
        (
            "{\"id\": \"doc-2\", \"vector\": [1, 2]}",
            ", row 1, id: expected an unsigned 64-bit number or a UUID, found `doc-2`",
        ),
        ("{\"id\": 2, \"id\": 3, \"vector\": [1, 2]}", ", row 1, id: expected each key once, found it twice"),
        (
            "{\"id\": 2, \"vector\": [1, 2], \"a\": {\"b\": 1, \"b\": 2}}",
            ", row 1, a.b: expected each key once, found it twice",
        ),
        (
            "{\"id\": 2, \"vector\": [1, 2], \"payload\": {\"a\": 1}, \"a\": 2}",
            ", row 1, a: expected each key once, found it twice",
        ),
        (
            "{\"id\": 2, \"vector\": [1, 2], \"a\": [1, {\"b\": 18446744073709551615}]}",
            ", row 1, a[1].b: expected an integer up to 9223372036854775807, found 18446744073709551615",
        ),
        (
            "{\"id\": 2, \"vector\": [1, 2], \"payload\": 3}",
            ", row 1, payload: expected a JSON object, found integer `3`",
        ),
        ("[1, 2]", ", row 1, line: expected a JSON object, found a list"),
        (
            "{\"id\": 2, \"vector\": [1, 2]",
            ", row 1, line: expected whole JSON, found the end of the line after character",
        ),
        ("{\"id\": 2, \"vector\": [1, 2]} {}", ", row 1, line: expected valid JSON, found `{}`"),
        ("{\"id\": 2, \"vector\": [1, 2], \"a\": \"\u{7}\"}", ", row 1, a: expected valid JSON"),
        ("\n{\"id\": 2, \"vector\": [1, 2]}", ", row 1, line: expected a JSON object, found a blank line"),
    ];
    for (line, expected) in cases {
        let text = refuse(&format!("{good}{line}\n"));
        assert!(text.starts_with(expected), "{line}: {text}");
    }
    assert!(refuse("{\"id\": 1}\n").starts_with(", row 0, vector: expected the key `vector` or `vectors`, found none"));
    assert!(refuse("{\"vector\": []}\n").starts_with(", row 0, vector: expected 1 to 16384 numbers, found 0"));
}

#[test]
fn gzipped_files_read_alike_and_damage_is_noticed() {
    let folder = Folder::new();
    let text: String = (0..2000).map(|n| format!("{{\"id\": {n}, \"vector\": [{n}, 0.5]}}\n")).collect();
    let packed = folder.gzipped(text.as_bytes());
    let plain = rows(&folder.write("a.jsonl", text.as_bytes()), &ReadOptions::default(), 64).expect("reads");
    let path = folder.write("a.jsonl.gz", &packed);
    assert_eq!(rows(&path, &ReadOptions::default(), 64).expect("reads"), plain);
    assert_eq!(
        check_reader(&folder.write("two.jsonl.gz", &[&packed[..], &packed].concat()), &ReadOptions::default()).len(),
        4000
    );

    for length in [packed.len() - 1, packed.len() - 9, packed.len() / 2] {
        let text = refusal(&folder.write("cut.jsonl.gz", &packed[..length]), &ReadOptions::default());
        assert!(text.contains("expected a sound gzip stream") || text.contains("whole JSON"), "{text}");
    }
    for at in (20..packed.len()).step_by(packed.len() / 50) {
        let mut flipped = packed.clone();
        flipped[at] ^= 0x10;
        let path = folder.write("flipped.jsonl.gz", &flipped);
        assert!(rows(&path, &ReadOptions::default(), 64).is_err(), "a flip at {at} went unnoticed");
    }
}

#[test]
fn a_line_without_end_is_refused_in_bounded_memory() {
    let folder = Folder::new();
    let mut line = b"{\"vector\": [1], \"a\": \"".to_vec();
    line.resize(MAX_LINE_BYTES + 100, b'x');
    let text = refusal(&folder.write("a.jsonl", &line), &ReadOptions::default());
    assert_eq!(text, ", row 0, line: expected at most 16 MiB, found a longer line");
}
