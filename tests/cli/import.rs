//! Imports of every format: what is in the file is in the collection.

use serde_json::{Value, json};

use crate::files::{Element, bin, floats, matrix, npy, vecs};
use crate::harness::{CONFLICT, DATA, DONE, NOT_FOUND, USAGE, World, foreign, sample};

/// Imports a file of a matrix and compares every point.
fn check(world: &World, collection: &str, file: &str, matrix: &[Vec<f32>]) {
    let imported = world.json(["import", collection, file, "--create", "--metric", "l2"]);
    assert_eq!((&imported["collection"], &imported["file"]), (&json!(collection), &json!(file)));
    assert_eq!((&imported["rows"], &imported["first_row"]), (&json!(matrix.len()), &json!(0)), "{file}");
    assert!(imported["rows_per_second"].as_f64().expect("a rate") > 0.0);
    assert_eq!(world.count(collection), matrix.len() as u64, "{file}");
    let ids: Vec<_> = (0..matrix.len()).map(|id| id.to_string()).collect();
    let get = ["get", collection, "--vectors"].into_iter().chain(ids.iter().map(String::as_str));
    let document = world.json(get);
    for (row, point) in matrix.iter().zip(document["points"].as_array().expect("a list")) {
        assert_eq!(point["vectors"]["default"], json!(row), "{file}: point {}", point["id"]);
    }
}

#[test]
fn every_format_of_plain_vectors_arrives_number_by_number() {
    let world = World::new();
    let numbers = matrix(150, 12);
    let expected = floats(&numbers);
    let files = [
        ("a.npy", npy(&expected)),
        ("a.fvecs", vecs(&numbers, Element::F32)),
        ("a.bvecs", vecs(&numbers, Element::U8)),
        ("a.ivecs", vecs(&numbers, Element::I32)),
        ("a.fbin", bin(&numbers, Element::F32)),
        ("a.u8bin", bin(&numbers, Element::U8)),
        ("a.i8bin", bin(&numbers, Element::U8)),
        ("a.ibin", bin(&numbers, Element::I32)),
    ];
    for (name, bytes) in files {
        let file = world.write(name, bytes);
        check(&world, &name.replace('.', "-"), &file, &expected);
    }
    let hdf5: Vec<Vec<f32>> =
        (0..50u8).map(|row| (0..6u8).map(|column| f32::from(row) + 0.25 * f32::from(column)).collect()).collect();
    check(&world, "hdf5", &foreign("annbench.hdf5"), &hdf5);
    // Without --metric it is the one that the file names.
    world.run(["import", "angular", &foreign("annbench_f8.hdf5"), "--create"]).ends_with(DONE);
    let described = world.json(["collection", "describe", "angular"]);
    assert_eq!(described["vectors"]["default"]["metric"], "cosine");
}

#[test]
fn json_lines_arrive_with_ids_payload_and_declared_fields() {
    let world = World::new();
    let lines = [
        r#"{"id": 18446744073709551615, "vector": [1, 0.5], "source": "a", "words": 5, "score": 0.1, "at": "2026-03-01T12:00:00Z", "tags": ["x", null], "place": {"country": "CH"}}"#,
        r#"{"id": "0195F7A2-6C1E-7B32-9D2A-3F6F8F5F2C11", "vector": [-2, 3e-3], "source": "b", "words": -7, "score": 2, "at": "2026-03-01T12:00:00.5+01:00", "draft": true, "place": {"country": null}}"#,
    ];
    let file = world.write("points.jsonl", lines.join("\n"));
    let ran = world.run(["import", "docs", &file, "--create"]).ends_with(DONE);
    let ran = ran.says("created docs: 2 cosine").says("filterable: ");
    ran.shows("2 rows into docs");
    let fields = json!({
        "source": "keyword", "words": "integer", "score": "float", "at": "datetime", "tags": "keyword",
        "draft": "bool", "place.country": "keyword",
    });
    assert_eq!(world.json(["collection", "describe", "docs"])["fields"], fields);
    let (number, uuid) = ("18446744073709551615", "0195f7a2-6c1e-7b32-9d2a-3f6f8f5f2c11");
    let document = world.json(["get", "docs", number, uuid, "--vectors"]);
    let points = document["points"].as_array().expect("a list");
    assert_eq!((&points[0]["id"], &points[1]["id"]), (&json!(u64::MAX), &json!(uuid)));
    assert_eq!(points[1]["vectors"]["default"], json!([-2.0, 0.003]));
    let mut expected: Value = serde_json::from_str(lines[0]).expect("JSON");
    expected.as_object_mut().expect("an object").retain(|key, _| key != "id" && key != "vector");
    assert_eq!(points[0]["payload"], expected);
    for (filter, count) in [
        ("at > '2026-03-01T11:30:00Z'", 1),
        ("score < 1", 1),
        ("tags = 'x'", 1),
        ("draft = true", 1),
        ("count(tags) = 2", 1),
        ("count(place.country) <= 1", 2),
        ("count(place.country) < 1", 1),
    ] {
        assert_eq!(world.json(["count", "docs", "--filter", filter])["count"], count, "{filter}");
    }
}

#[test]
fn parquet_arrives_with_every_type_of_column() {
    let world = World::new();
    let payload = foreign("payload.parquet");
    world.run(["import", "docs", &payload, "--create"]).ends_with(DONE).shows("2 rows");
    let document = world.json(["get", "docs", "01234567-89ab-cdef-0123-456789abcdef", "--vectors"]);
    let point = &document["points"][0];
    assert_eq!(point["vectors"]["default"], json!([1.0, 2.0]));
    let expected = json!({
        "text": "first", "year": 2026, "big": i64::MAX, "score": 0.5, "ok": true, "tags": ["a", "b"],
        "author": { "name": "Ada", "born": "1815-12-10T00:00:00Z" }, "day": "2026-11-23T00:00:00Z",
        "seconds": "2026-11-23T14:53:00Z",
    });
    for (field, value) in expected.as_object().expect("an object") {
        assert_eq!(&point["payload"][field], value, "{field}");
    }
    let vectors = foreign("vectors.parquet");
    let columns = ["--vector-column", "a=fixed", "--vector-column", "b=bytes", "--ignore-column", "doubles"];
    let ignored = ["--ignore-column", "halves", "--ignore-column", "longs"];
    world.run(["import", "several", &vectors, "--create"].into_iter().chain(columns).chain(ignored)).ends_with(DONE);
    let document = world.json(["get", "several", "124", "--vectors"]);
    assert_eq!(
        document["points"][0]["vectors"],
        json!({ "a": [24.0, 25.0, 26.0, 27.0], "b": [24.0, 25.0, 26.0, 27.0] })
    );
}

#[test]
fn payload_and_ids_of_other_files_join_the_vectors_row_by_row() {
    let world = World::with_sample();
    assert_eq!(world.count("docs"), 4_000);
    let point = &world.json(["get", "docs", "42"])["points"][0];
    assert_eq!(point["payload"].as_object().expect("an object").len(), 7, "all but the id: {point:#}");

    let (vectors, ids) = (world.write("a.npy", npy(&floats(&matrix(3, 4)))), world.write("ids.txt", "7\n9\n8\n"));
    let payload = world.write("payload.jsonl", "{\"n\": 1}\n{\"n\": 2}\n{\"n\": 3}\n");
    let import = ["import", "joined", &vectors, "--ids", &ids, "--payload", &payload, "--create"];
    world.run(import).ends_with(DONE).shows("3 rows");
    let document = world.json(["get", "joined", "9", "8"]);
    assert_eq!(
        (&document["points"][0]["payload"]["n"], &document["points"][1]["payload"]["n"]),
        (&json!(2), &json!(3))
    );
}

#[test]
fn a_part_of_a_file_is_imported_under_other_ids() {
    let world = World::new();
    let vectors = world.write("a.npy", npy(&floats(&matrix(10, 4))));
    let import = ["import", "docs", &vectors, "--create", "--limit", "4", "--id-offset", "100"];
    world.run(import).ends_with(DONE).shows("4 rows");
    let document = world.json(["get", "docs", "100", "103", "--vectors"]);
    assert_eq!(document["points"][1]["vectors"]["default"], json!(floats(&matrix(10, 4))[3]));
}

#[test]
fn points_of_the_same_id_are_replaced_not_doubled() {
    let world = World::new();
    let file = world
        .write("a.jsonl", "{\"id\": 1, \"vector\": [1, 0], \"n\": 1}\n{\"id\": 2, \"vector\": [0, 1], \"n\": 1}\n");
    world.run(["import", "docs", &file, "--create"]).ends_with(DONE);
    let file = world
        .write("b.jsonl", "{\"id\": 2, \"vector\": [1, 1], \"n\": 5}\n{\"id\": 3, \"vector\": [0, 1], \"n\": 1}\n");
    world.run(["import", "docs", &file]).ends_with(DONE).shows("2 rows");
    assert_eq!(world.count("docs"), 3);
    let point = &world.json(["get", "docs", "2", "--vectors"])["points"][0];
    assert_eq!((&point["payload"]["n"], &point["vectors"]["default"]), (&json!(5), &json!([1.0, 1.0])));
}

#[test]
fn a_dry_run_reads_everything_and_sends_nothing() {
    let world = World::new();
    let base = sample("text384-4k.base.f16.npy");
    let document = world.json(["import", "docs", &base, "--create", "--dry-run"]);
    assert_eq!((&document["rows"], &document["sound"]), (&json!(4_000), &json!(true)));
    world.run(["count", "docs"]).ends_with(NOT_FOUND);
}

#[test]
fn an_import_that_does_not_suit_its_collection_is_refused_before_anything_is_sent() {
    let world = World::new();
    let vectors = world.write("a.npy", npy(&floats(&matrix(10, 4))));
    world.run(["import", "docs", &vectors]).ends_with(NOT_FOUND).says("no collection `docs`").says("--create");
    world.run(["collection", "create", "docs", "--dim", "5", "--field", "n=integer"]).ends_with(DONE);
    world.run(["import", "docs", &vectors]).ends_with(DATA).says("a.npy: vectors have 4 dimensions, `docs` expects 5");
    world.run(["collection", "create", "two", "--vector", "a=4", "--vector", "b=4"]).ends_with(DONE);
    world.run(["import", "two", &vectors]).ends_with(DATA).says("--vector-name");
    world.run(["import", "two", &vectors, "--vector-name", "a"]).ends_with(DATA).says("the vector `b`");
    let declared = ["import", "docs", &vectors, "--create", "--field", "n=keyword"];
    world.run(declared).ends_with(DATA).says("4 dimensions");
    let five = world.write("b.npy", npy(&floats(&matrix(10, 5))));
    let declared = ["import", "docs", &five, "--create", "--field", "n=keyword"];
    world.run(declared).ends_with(USAGE).says("`n` is integer in `docs`");
    for (shape, says) in [(["--metric", "l2"], "is cosine in `docs`"), (["--index", "flat"], "is auto in `docs`")] {
        for create in [&["--create"][..], &[]] {
            let asked = [&["import", "docs", &five], &shape[..], create].concat();
            world.run(asked).ends_with(USAGE).says(shape[0]).says(says);
        }
    }
    assert_eq!((world.count("docs"), world.count("two")), (0, 0));
    world.run(["import", "docs", &five, "--create", "--metric", "cosine", "--index", "auto"]).ends_with(DONE);
    world.run(["collection", "create", "docs", "--dim", "4"]).ends_with(CONFLICT);
}
