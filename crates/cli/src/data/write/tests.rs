use proptest::prelude::*;
use sagitta_model::value::Value;
use sagitta_model::{NamedVectors, PointId};

use super::*;
use crate::data::testing::{Folder, check_reader, rows};
use crate::data::{Content, IdFile, Joined, ReadOptions, open};

fn row(id: PointId, vectors: NamedVectors) -> Row {
    let payload = [("n".to_owned(), Value::Float(0.1)), ("text".to_owned(), "a\n\"b\"".into())].into();
    Row { id: Some(id), vectors, payload }
}

fn sample_rows(name: &str, count: u64) -> Vec<Row> {
    let vector = |n: u64| vec![n as f32 / 3.0, -1e-30, f32::MAX];
    (0..count).map(|n| row(PointId::Num(u64::MAX - n), [(name.to_owned(), vector(n))].into())).collect()
}

fn begin(path: &Path, existing: Existing) -> Result<Box<dyn RowWriter>, DataError> {
    create(path, existing, &BTreeMap::new())
}

fn written(path: &Path, rows: &[Row]) -> Result<(), DataError> {
    let mut writer = begin(path, Existing::Keep)?;
    rows.chunks(7).try_for_each(|rows| writer.write(rows))?;
    writer.finish()
}

#[test]
fn what_is_exported_is_imported_unchanged() {
    let folder = Folder::new();
    let several = |n: u64| [("a".to_owned(), vec![n as f32]), ("id".to_owned(), vec![0.5, n as f32])].into();
    let uuids: Vec<Row> = (0..20).map(|n| row(PointId::Uuid(u128::from(n) << 64), several(n))).collect();
    for name in ["a.jsonl", "a.jsonl.gz", "a.parquet"] {
        for (kind, rows) in [("numbers", sample_rows("", 40)), ("uuids", uuids.clone()), ("named", sample_rows("t", 3))]
        {
            let path = folder.path(&format!("{kind}_{name}"));
            written(&path, &rows).expect("writes");
            assert_eq!(check_reader(&path, &ReadOptions::default()), rows, "{kind}, {name}");
        }
    }
}

#[test]
fn matrices_come_with_ids_and_payloads_beside_them() {
    let folder = Folder::new();
    let expected = sample_rows("default", 10);
    for name in ["v.npy", "v.fvecs"] {
        for ids in ["i.npy", "i.txt"] {
            let _ = std::fs::remove_file(folder.path(name));
            let mut writers: [Box<dyn RowWriter>; 3] = [
                begin(&folder.path(name), Existing::Keep).expect("creates"),
                Box::new(IdWriter::create(&folder.path(ids), Existing::Replace).expect("creates")),
                Box::new(JsonlWriter::create_payloads(&folder.path("p.jsonl.gz"), Existing::Replace).expect("creates")),
            ];
            writers.iter_mut().for_each(|writer| writer.write(&expected).expect("writes"));
            writers.into_iter().for_each(|writer| writer.finish().expect("finishes"));

            let options = ReadOptions { vector_name: "default".into(), ..ReadOptions::default() };
            let payloads = ReadOptions { content: Content::Payloads, ..options.clone() };
            let mut joined = Joined::new(
                open(&folder.path(name), &options).expect("opens"),
                Some(open(&folder.path("p.jsonl.gz"), &payloads).expect("opens")),
                Some(IdFile::open(&folder.path(ids)).expect("opens")),
            )
            .expect("joins");
            assert_eq!(crate::data::testing::read_all(&mut joined, 4).expect("reads"), expected);
        }
    }
}

#[test]
fn an_unfinished_file_leaves_nothing_and_an_existing_one_is_kept() {
    let folder = Folder::new();
    for name in ["a.jsonl", "a.jsonl.gz", "a.parquet", "a.npy", "a.fvecs"] {
        let path = folder.path(name);
        let mut writer = begin(&path, Existing::Keep).expect("creates");
        writer.write(&sample_rows("", 5)).expect("writes");
        drop(writer);
        let left: Vec<_> = std::fs::read_dir(path.parent().expect("a folder")).expect("lists").collect();
        assert!(left.is_empty(), "{name}: {left:?}");
    }
    let path = folder.write("a.jsonl", b"precious");
    let error = begin(&path, Existing::Keep).err().expect("refused");
    assert!(error.fix().contains("--force"));
    assert_eq!(std::fs::read(&path).expect("reads"), b"precious");
    assert!(begin(&folder.path("a.csv"), Existing::Keep).err().expect("refused").to_string().contains(".parquet"));
    assert!(begin(&folder.path("a.npy.gz"), Existing::Keep).is_err());
}

#[test]
fn rows_that_a_format_cannot_hold_are_refused() {
    let folder = Folder::new();
    let two = row(PointId::Num(1), [("a".to_owned(), vec![1.0]), ("b".to_owned(), vec![1.0])].into());
    let error = written(&folder.path("a.npy"), &[two]).expect_err("two vectors");
    assert!(error.to_string().contains("row 0, vectors: expected one vector, found 2 vectors"), "{error}");
    let mut mixed = sample_rows("", 2);
    mixed[1].id = Some(PointId::Uuid(1));
    let error = written(&folder.path("a.parquet"), &mixed).expect_err("two kinds of ids");
    assert!(error.to_string().contains("row 1, id: expected a number, as in row 0"), "{error}");
    let mut ids = IdWriter::create(&folder.path("i.npy"), Existing::Keep).expect("creates");
    assert!(ids.write(&mixed).expect_err("a UUID").fix().contains(".txt"));
}

#[test]
fn an_empty_export_is_read_as_no_rows_of_the_vectors_it_would_have_had() {
    let folder = Folder::new();
    let several = BTreeMap::from([("a".to_owned(), 3), ("id".to_owned(), 1024)]);
    let one = BTreeMap::from([("default".to_owned(), 7)]);
    for (name, dimensions, known) in [
        ("a.jsonl", &several, false),
        ("a.jsonl.gz", &several, false),
        ("a.parquet", &several, true),
        ("b.parquet", &one, true),
        ("a.npy", &one, true),
    ] {
        let path = folder.path(name);
        create(&path, Existing::Keep, dimensions).expect("creates").finish().expect("finishes");
        let options = ReadOptions { vector_name: "default".into(), ..ReadOptions::default() };
        let mut reader = open(&path, &options).expect(name);
        assert_eq!((reader.summary().rows, reader.count().expect("counts")), (Some(0), 0), "{name}");
        let found: BTreeMap<_, _> = reader.summary().vectors.iter().map(|(n, c)| (n.clone(), c.dimension)).collect();
        assert_eq!(found, if known { dimensions.clone() } else { BTreeMap::new() }, "{name}");
        assert_eq!(crate::data::testing::read_all(reader.as_mut(), 3).expect("reads"), [], "{name}");
        reader.seek(5).expect("seeks");
        assert_eq!((reader.position(), reader.read(1).expect("reads")), (0, vec![]), "{name}");
    }
    for ids in ["i.npy", "i.txt"] {
        let path = folder.path(ids);
        Box::new(IdWriter::create(&path, Existing::Keep).expect("creates")).finish().expect("finishes");
        let mut ids = IdFile::open(&path).expect("opens");
        assert_eq!((ids.rows(), ids.read(0, 3).expect("reads")), (0, vec![]));
    }
}

#[test]
fn a_format_that_cannot_hold_no_rows_says_so_and_leaves_nothing() {
    let folder = Folder::new();
    let path = folder.path("a.fvecs");
    let error = written(&path, &[]).expect_err("refused");
    assert!(error.to_string().contains("a.fvecs: rows: expected at least one point, found none"), "{error}");
    assert!(error.fix().contains(".npy") && !path.exists());
    // Gzip makes some bytes even of nothing.
    let cut = folder.write("a.jsonl.gz", b"");
    let error = rows(&cut, &ReadOptions::default(), 1).expect_err("refused");
    assert!(error.to_string().contains("size: expected a gzip stream, found 0 bytes"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_finite_vector_survives_json(vector in prop::collection::vec(any::<f32>().prop_filter("finite", |x| x.is_finite()), 1..20)) {
        let folder = Folder::new();
        let expected = vec![row(PointId::Num(1), [(String::new(), vector)].into())];
        written(&folder.path("a.jsonl"), &expected).expect("writes");
        prop_assert_eq!(rows(&folder.path("a.jsonl"), &ReadOptions::default(), 9).expect("reads"), expected);
    }
}
