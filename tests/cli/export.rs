//! Exports, and that an import of one gives equal points.

use serde_json::Value;

use crate::files::{floats, matrix, npy};
use crate::harness::{DATA, DONE, NOT_FOUND, USAGE, World};

/// All points of a collection as an export writes them, line by line.
fn lines(world: &World, collection: &str) -> Vec<Value> {
    let file = world.path("lines.jsonl");
    world.run(["export", collection, &file, "--force"]).ends_with(DONE);
    let text = std::fs::read_to_string(file).expect("readable");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn what_is_exported_in_any_format_is_imported_as_equal_points() {
    let world = World::with_sample();
    let expected = lines(&world, "docs");
    assert_eq!(expected.len(), 4_000);
    assert!(expected.windows(2).all(|pair| pair[0]["id"].as_u64() < pair[1]["id"].as_u64()), "ascending by id");
    for name in ["all.jsonl", "all.jsonl.gz", "all.parquet"] {
        let file = world.path(name);
        let document = world.json(["export", "docs", &file]);
        assert_eq!((&document["rows"], &document["file"]), (&4_000.into(), &Value::from(file.as_str())));
        let copy = name.replace('.', "-");
        world.run(["import", &copy, &file, "--create"]).ends_with(DONE).shows("4,000 rows");
        assert!(lines(&world, &copy) == expected, "{name}: the points differ");
    }
    for name in ["all.npy", "all.fvecs"] {
        let (file, ids, payload) = (world.path(name), world.path("ids.npy"), world.path("payload.jsonl.gz"));
        let beside = ["--ids", &ids, "--payload", &payload];
        world.run(["export", "docs", &file, "--force"].into_iter().chain(beside)).ends_with(DONE);
        let copy = name.replace('.', "-");
        world.run(["import", &copy, &file, "--create"].into_iter().chain(beside)).ends_with(DONE);
        assert!(lines(&world, &copy) == expected, "{name}: the points differ");
    }
}

#[test]
fn uuids_several_vectors_and_nested_payloads_survive_a_round_trip() {
    let world = World::new();
    let text = "\
{\"id\": 7, \"vectors\": {\"title\": [1, 0.1], \"body\": [0.5, -3, 1e-7]}, \"nested\": {\"a\": [1, 2.5, null, {\"b\": true}]}}
{\"id\": \"0195f7a2-6c1e-7b32-9d2a-3f6f8f5f2c11\", \"vectors\": {\"title\": [0.3, 2], \"body\": [1, 1, 1]}, \"n\": 9007199254740993}
";
    let file = world.write("a.jsonl", text);
    world.run(["import", "docs", &file, "--create"]).ends_with(DONE);
    let expected = lines(&world, "docs");
    assert_eq!(expected[1]["payload"]["n"], 9_007_199_254_740_993_i64);
    let check = |name: &str, expected: &[Value]| {
        let (file, copy) = (world.path(name), name.replace('.', "-"));
        world.run(["export", "docs", &file]).ends_with(DONE);
        world.run(["import", &copy, &file, "--create"]).ends_with(DONE);
        assert_eq!(lines(&world, &copy), expected, "{name}");
    };
    check("b.jsonl.gz", &expected);
    // A column of Parquet has one type, so ids of both kinds do not go into one file.
    let mixed = world.run(["export", "docs", &world.path("b.parquet")]).ends_with(DATA);
    mixed.says("b.parquet, row 1, id").says(".jsonl.gz");
    world.run(["delete", "docs", "7", "--yes"]).ends_with(DONE);
    check("b.parquet", &expected[1..]);
    world.run(["export", "docs", &world.path("b.npy")]).ends_with(USAGE).says("--vector-name: body, title");
    world.run(["export", "docs", &world.path("b.npy"), "--vector-name", "x"]).ends_with(NOT_FOUND).says("body, title");
}

#[test]
fn a_part_is_exported_by_filter_and_fields() {
    let world = World::with_sample();
    let file = world.path("rust.jsonl");
    let filter = "source = \"rust-docs\" and words >= 50";
    world.run(["export", "docs", &file, "--filter", filter, "--fields", "source,words"]).ends_with(DONE);
    let text = std::fs::read_to_string(&file).expect("readable");
    assert_eq!(text.lines().count() as u64, world.json(["count", "docs", "--filter", filter])["count"]);
    for line in text.lines() {
        let row: Value = serde_json::from_str(line).expect("JSON");
        let (source, words) = (&row["payload"]["source"], row["payload"]["words"].as_u64());
        assert!(source == "rust-docs" && words >= Some(50), "{line}");
        assert_eq!(row["payload"].as_object().expect("an object").len(), 2, "the two fields alone: {line}");
    }
}

#[test]
fn an_export_replaces_nothing_unless_told_and_leaves_nothing_half_done() {
    let world = World::new();
    let vectors = world.write("a.npy", npy(&floats(&matrix(3, 4))));
    world.run(["import", "docs", &vectors, "--create"]).ends_with(DONE);
    let kept = world.write("kept.jsonl", "precious");
    world.run(["export", "docs", &kept]).ends_with(DATA).says("kept.jsonl").says("--force");
    assert_eq!(std::fs::read_to_string(&kept).expect("readable"), "precious");
    world.run(["export", "docs", &kept, "--force"]).ends_with(DONE).shows("3 rows to ");
    assert_eq!(std::fs::read_to_string(&kept).expect("readable").lines().count(), 3);
    world.run(["export", "docs", &world.path("a.csv")]).ends_with(DATA).says(".jsonl, .jsonl.gz, .parquet");
    world.run(["export", "docs", &world.path("no/such/folder.jsonl")]).ends_with(DATA).says("check the path");
    world.run(["export", "docs", &world.path("b.jsonl"), "--ids", &world.path("i.txt")]).ends_with(USAGE).says("--ids");
    let matrix = world.path("b.jsonl.npy");
    for (beside, says) in [
        (["--ids", matrix.as_str()], "--ids: "),
        (["--ids", &world.path("./b.jsonl.npy")], "FILE already"),
        (["--payload", &matrix], "--payload: "),
    ] {
        world.run(["export", "docs", &matrix, beside[0], beside[1]]).ends_with(USAGE).says(says).says("its own");
    }
    for (beside, says) in [("--ids", ".npy or .txt"), ("--payload", ".jsonl or .jsonl.gz")] {
        world.run(["export", "docs", &matrix, beside, &world.path("b.jsonl.csv")]).ends_with(DATA).says(says);
    }
    let left: Vec<_> = std::fs::read_dir(world.path(""))
        .expect("a folder")
        .map(|entry| entry.expect("readable").file_name())
        .collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("b.jsonl")), "{left:?}");
}

#[test]
fn an_export_of_no_points_is_imported_as_no_rows() {
    let world = World::new();
    world.run(["collection", "create", "docs", "--dim", "3", "--metric", "l2"]).ends_with(DONE);
    for name in ["a.jsonl", "a.jsonl.gz", "a.parquet", "a.npy"] {
        let file = world.path(name);
        world.run(["export", "docs", &file]).ends_with(DONE).shows("0 rows to ");
        world
            .run(["import", "docs", &file])
            .ends_with(DONE)
            .shows(&format!("0 rows into docs: there are none in {file}"));
        assert_eq!(world.json(["import", "docs", &file])["rows"], 0, "{name}");
        world.run(["import", "docs", &file, "--dry-run"]).ends_with(DONE).shows("0 rows are sound");
        let copy = name.replace('.', "-");
        let created = world.run(["import", &copy, &file, "--create", "--metric", "l2"]);
        if name.contains("jsonl") {
            // Lines that are not there cannot show the dimensions of vectors.
            created
                .ends_with(DATA)
                .says(&format!("{file}: there are no rows to show how many dimensions"))
                .says("--dim N");
            world.run(["count", &copy]).ends_with(NOT_FOUND);
        } else {
            created.ends_with(DONE).says(&format!("created {copy}: 3 l2"));
            assert_eq!(world.count(&copy), 0);
        }
    }
    let (file, ids, payload) = (world.path("b.npy"), world.path("ids.npy"), world.path("payload.jsonl.gz"));
    let beside = ["--ids", &ids, "--payload", &payload];
    world.run(["export", "docs", &file].into_iter().chain(beside)).ends_with(DONE);
    world.run(["import", "docs", &file].into_iter().chain(beside)).ends_with(DONE).shows("0 rows into docs");
    let file = world.path("a.fvecs");
    world.run(["export", "docs", &file]).ends_with(DATA).says("a.fvecs: rows: expected at least one").says(".npy");
    assert!(!std::path::Path::new(&file).exists(), "nothing is left");
    // Dimensions are compared even where there are no rows to have them.
    world.run(["collection", "create", "four", "--dim", "4"]).ends_with(DONE);
    world.run(["import", "four", &world.path("a.npy")]).ends_with(DATA).says("3 dimensions");
}
