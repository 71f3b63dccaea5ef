use clap::Parser;
use sagitta_model::{FieldType, IndexPolicy, Metric, Schema, VectorSpec};

use super::*;
use crate::cli::{Cli, Command};
use crate::data::testing::{Folder, f32s, npy};

fn parsed(args: &[&str]) -> Import {
    let cli = Cli::try_parse_from([&["sagitta", "import"], args].concat()).expect("parses");
    let Command::Import(import) = cli.command else { panic!("not an import") };
    *import
}

fn schema(dim: usize) -> Schema {
    let spec = VectorSpec { dim, metric: Metric::Cosine, index: IndexPolicy::Auto };
    let fields = [("n".parse().expect("a path"), FieldType::Integer)].into();
    Schema { vectors: [("title".to_owned(), spec)].into(), fields }
}

fn points(import: &Import, id_offset: u64) -> PointReader {
    let rows = import.reading.open(&import.file).expect("opens");
    let end = import.reading.end(rows.as_ref()).unwrap_or(u64::MAX);
    PointReader::new(rows, Shape { schema: schema(2), id_offset, end })
}

fn all(mut points: PointReader) -> Result<Vec<sagitta_model::Point>, Failure> {
    let mut read = Vec::new();
    loop {
        let more = points.read()?;
        if more.is_empty() {
            return Ok(read);
        }
        read.extend(more);
    }
}

#[test]
fn rows_become_points_with_the_collections_vector_and_numbers_as_ids() {
    let folder = Folder::new();
    let numbers: Vec<f32> = (1..=2000).map(|n| n as f32).collect();
    let path = folder.write("a.npy", &npy("<f4", "1000, 2", &f32s(&numbers)));
    let path = path.to_str().expect("a path");
    let read = all(points(&parsed(&["docs", path]), 5)).expect("reads");
    assert_eq!(read.len(), 1000);
    assert_eq!((read[999].id, &read[999].vectors["title"]), (PointId::Num(1004), &vec![1999.0, 2000.0]));
    assert_eq!(all(points(&parsed(&["docs", path, "--limit", "300"]), 0)).expect("reads").len(), 300);
    assert!(all(points(&parsed(&["docs", path]), u64::MAX)).expect_err("too great").message.contains("--id-offset"));
}

#[test]
fn rows_that_the_collection_would_refuse_are_refused_with_their_place() {
    let folder = Folder::new();
    let good = "{\"id\": 1, \"vector\": [1, 2], \"n\": 1}";
    let cases = [
        ("{\"id\": 2, \"vector\": [1, 2], \"n\": \"x\"}", "row 1, payload.n: is declared as integer, found string"),
        ("{\"id\": 2, \"vector\": [0, 0]}", "row 1, vectors[\"title\"]: "),
        ("{\"id\": 1, \"vector\": [1, 2]}", "row 1, id: expected each id once, found 1 again"),
        ("{\"id\": 2, \"vector\": [1, 2, 3]}", "row 1, vector: expected 2 numbers, as in row 0, found 3"),
    ];
    for (bad, expected) in cases {
        let path = folder.write("a.jsonl", format!("{good}\n{bad}\n").as_bytes());
        let failure = all(points(&parsed(&["docs", path.to_str().expect("a path")]), 0)).expect_err(bad);
        assert_eq!(failure.exit, Exit::Data);
        assert!(failure.message.contains(expected), "{bad}: {}", failure.message);
        assert!(failure.hint.is_some());
    }
}

#[test]
fn columns_are_named_by_the_collections_vectors() {
    let options = |args: &[&str]| parsed(&[&["docs", "f"], args].concat()).reading.options();
    let columns = options(&["--vector-column", "a=x", "--vector-column", "b=y"]).expect("options").vector_columns;
    assert_eq!(columns, [("a".to_owned(), "x".to_owned()), ("b".to_owned(), "y".to_owned())]);
    let columns = options(&["--vector-column", "x", "--vector-name", "t"]).expect("options").vector_columns;
    assert_eq!(columns, [("t".to_owned(), "x".to_owned())]);
    let failure = options(&["--vector-column", "x", "--vector-column", "y"]).expect_err("twice");
    assert!(failure.hint.expect("a hint").contains("NAME=COLUMN"));
    assert_eq!(options(&["--row-ids"]).expect("options").id_column, None);
    assert!(options(&["--id-column", "k"]).expect("options").id_required);
}

#[test]
fn a_refused_chunk_names_the_row() {
    assert_eq!(point_of("points[3].vectors[\"title\"][0]"), Some((3, "vectors[\"title\"][0]")));
    assert_eq!(point_of("points[12]"), Some((12, "")));
    assert_eq!(point_of("points"), None);
    assert_eq!(point_of("collection"), None);
}
