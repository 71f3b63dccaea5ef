//! Files that are cut off, of another kind or wrong in some row: refused with file, row and column, and never
//! imported in silence.

use crate::files::{Element, bin, floats, matrix, npy, vecs};
use crate::harness::{DATA, DONE, USAGE, World, foreign, sample};

/// A server with an empty collection of vectors of four dimensions and a declared number.
fn world() -> World {
    let world = World::new();
    world.run(["collection", "create", "docs", "--dim", "4", "--field", "n=integer"]).ends_with(DONE);
    world
}

#[test]
fn a_file_that_is_cut_off_or_too_long_is_refused_before_anything_is_sent() {
    let world = world();
    let numbers = matrix(50, 4);
    let files = [
        ("a.npy", npy(&floats(&numbers))),
        ("a.fvecs", vecs(&numbers, Element::F32)),
        ("a.bvecs", vecs(&numbers, Element::U8)),
        ("a.ivecs", vecs(&numbers, Element::I32)),
        ("a.fbin", bin(&numbers, Element::F32)),
        ("a.u8bin", bin(&numbers, Element::U8)),
        ("a.ibin", bin(&numbers, Element::I32)),
    ];
    for (name, bytes) in files {
        let (cut, grown) = (&bytes[..bytes.len() - 3], [&bytes[..], b"xyz"].concat());
        for damaged in [cut, &grown] {
            let file = world.write(name, damaged);
            let ran = world.run(["import", "docs", &file]).ends_with(DATA).says(&format!("{file}: size: expected"));
            ran.says("cut off");
        }
        world.write(name, b"");
        world.run(["import", "docs", &world.path(name)]).ends_with(DATA).says("0 bytes");
    }
    for name in ["vectors.parquet", "annbench.hdf5"] {
        let bytes = std::fs::read(foreign(name)).expect("readable");
        let file = world.write(name, &bytes[..bytes.len() * 2 / 3]);
        world.run(["import", "docs", &file]).ends_with(DATA).says(&file).says("hint: ");
    }
    assert_eq!(world.count("docs"), 0, "nothing was imported");
}

#[test]
fn a_compressed_file_that_is_cut_off_is_refused_with_the_row() {
    let world = world();
    let bytes = std::fs::read(sample("text384-4k.payload.jsonl.gz")).expect("readable");
    let file = world.write("cut.jsonl.gz", &bytes[..bytes.len() / 2]);
    let base = sample("text384-4k.base.f16.npy");
    let import = ["import", "sample", &base, "--payload", &file, "--create"];
    world.run(import).ends_with(DATA).says("cut.jsonl.gz, row ").says("gzip").says("cut off");
    assert_eq!(world.json(["collection", "list"])["collections"].as_array().expect("a list").len(), 1);
}

#[test]
fn a_file_of_another_kind_is_refused_with_what_it_looks_like() {
    let world = world();
    let page = world.write("page.npy", "<!DOCTYPE html><html>");
    world.run(["import", "docs", &page]).ends_with(DATA).says("page.npy").says("<!DOCTYP").says("web page");
    let table = world.write("table.csv", "1,2,3\n");
    world.run(["import", "docs", &table]).ends_with(DATA).says("table.csv").says("npy, fvecs").says("--format");
    world
        .run(["import", "docs", &world.path("missing.npy")])
        .ends_with(DATA)
        .says("missing.npy")
        .says("check the path");
    world.run(["import", "docs", &world.path("")]).ends_with(DATA);
    let strings = world.write(
        "strings.npy",
        npy(&floats(&matrix(2, 4))).iter().map(|b| if *b == b'f' { b'U' } else { *b }).collect::<Vec<_>>(),
    );
    world.run(["import", "docs", &strings]).ends_with(DATA).says("strings.npy");
    world.run(["import", "docs", &foreign("jaccard.hdf5"), "--create"]).ends_with(DATA).says("jaccard");
    world
        .run(["import", "docs", &foreign("annbench.hdf5"), "--dataset", "base"])
        .ends_with(DATA)
        .says("base")
        .says("train");
    let wrong = world.write("a.fvecs", vecs(&matrix(10, 4), Element::F32));
    world.run(["import", "docs", &wrong, "--format", "fbin"]).ends_with(DATA).says("a.fvecs");
    world.run(["import", "docs", &wrong, "--format", "csv"]).ends_with(USAGE).says("npy, fvecs");
    assert_eq!(world.count("docs"), 0, "nothing was imported");
}

#[test]
fn a_number_that_no_vector_may_hold_is_refused_with_row_and_column() {
    let world = world();
    let mut rows = floats(&matrix(10, 4));
    for (bad, found) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (1e16, "e15")] {
        rows[7][2] = bad;
        let file = world.write("a.npy", npy(&rows));
        let ran = world.run(["import", "docs", &file]).ends_with(DATA).says("a.npy, row 7, vector").says("[2]");
        assert!(ran.err.contains(found) || bad == 1e16, "{}", ran.err);
        ran.says("(nothing was imported)");
    }
    rows[7] = vec![0.0; 4];
    let file = world.write("zero.npy", npy(&rows));
    world
        .run(["import", "docs", &file])
        .ends_with(DATA)
        .says("zero.npy, row 7, vectors[\"default\"]")
        .says("zero vector");
    let ragged = world.write(
        "a.fvecs",
        [vecs(&matrix(2, 4), Element::F32), vecs(&matrix(1, 3), Element::F32), vecs(&matrix(1, 4), Element::F32)]
            .concat(),
    );
    world.run(["import", "docs", &ragged]).ends_with(DATA).says("a.fvecs");
    let parquet = foreign("bad_vectors.parquet");
    for (column, says) in
        [("nan", "row 3, nan"), ("null_number", "row 3, null_number"), ("null_row", "row 3, null_row")]
    {
        let ran = world.run(["import", "two", &parquet, "--create", "--vector-column", column]).ends_with(DATA);
        ran.says("bad_vectors.parquet").says(says);
    }
    assert_eq!(world.count("docs"), 0, "nothing was imported");
}

#[test]
fn a_bad_line_is_refused_with_its_row_and_key_and_what_came_before_is_told() {
    let world = world();
    let good = |id: usize| format!("{{\"id\": {id}, \"vector\": [1, 2, 3, 4], \"n\": {id}}}\n");
    let cases = [
        ("{\"id\": 900, \"vector\": [1, 2, 3], \"n\": 1}\n", "vector: expected 4 numbers"),
        ("{\"id\": 900, \"vector\": [1, 2, 3, \"x\"], \"n\": 1}\n", "vector"),
        ("{\"id\": 900, \"vector\": [1, 2, 3, 4], \"n\": \"x\"}\n", "payload.n"),
        ("{\"id\": 3, \"vector\": [1, 2, 3, 4], \"n\": 1}\n", "id: expected each id once, found 3 again"),
        ("{\"id\": -1, \"vector\": [1, 2, 3, 4], \"n\": 1}\n", "id"),
        ("{\"vector\": [1, 2, 3, 4], \"n\": 1}\n", "id"),
        ("{\"id\": 900, \"n\": 1}\n", "vector"),
        ("{\"id\": 900, \"vector\": [1, 2, 3, 4], \"n\": 1\n", "line"),
        ("\n", "line"),
    ];
    for (bad, says) in cases {
        let lines: String = (0..600).map(good).collect::<String>() + bad + &good(901);
        let file = world.write("bad.jsonl", lines);
        let ran = world.run(["import", "docs", &file]).ends_with(DATA).says("bad.jsonl, row 600, ").says(says);
        // What is said to be imported is what is there.
        let imported = match ran.err.split_once("(the first ") {
            Some((_, rest)) => rest.split_once(" row").expect("a number of rows").0.parse().expect("a number"),
            None => {
                assert!(ran.err.contains("(nothing was imported)"), "{}", ran.err);
                0
            }
        };
        assert_eq!(world.count("docs"), imported, "{bad}: {}", ran.err);
        let dry = world.run(["import", "docs", &file, "--dry-run"]).ends_with(DATA);
        dry.says("bad.jsonl, row 600, ").says(says);
        world.run(["delete", "docs", "--filter", "{}", "--yes"]).ends_with(DONE);
    }
}

#[test]
fn arguments_that_a_format_has_nothing_to_do_with_are_refused() {
    let world = world();
    let vectors = world.write("a.npy", npy(&floats(&matrix(3, 4))));
    let payload = world.write("payload.jsonl", "{\"key\": 1}\n{\"key\": 2}\n{\"key\": 3}\n");
    for (args, says) in [
        (["--id-column", "key"], "--id-column: "),
        (["--ignore-column", "key"], "--ignore-column: "),
        (["--dataset", "train"], "--dataset: "),
    ] {
        let ran = world.run(["import", "docs", &vectors].into_iter().chain(args)).ends_with(USAGE);
        ran.says(says).says("a.npy is npy, which has no ").says("hint: ");
    }
    assert_eq!(world.count("docs"), 0, "nothing was imported");
    // Columns may be those of the payload.
    let beside = ["--payload", &payload, "--id-column", "key"];
    world.run(["import", "docs", &vectors].into_iter().chain(beside)).ends_with(DONE).shows("3 rows");
    assert_eq!(world.json(["get", "docs", "3"])["missing"], serde_json::json!([]));
}

#[test]
fn a_file_that_is_refused_from_the_beginning_leaves_no_collection_behind() {
    let world = World::new();
    let zero = world.write("zero.npy", npy(&[vec![0.0; 4], vec![1.0; 4]]));
    let good = world.write("good.npy", npy(&floats(&matrix(3, 4))));
    let ids = world.write("ids.txt", "1\n2\n2\n");
    let line = |id: usize, n: &str| format!("{{\"id\": {id}, \"vector\": [1, 2], \"n\": {n}}}\n");
    let typed = world.write("typed.jsonl", line(1, "1") + &line(2, "\"x\""));
    let deep = world.write("deep.jsonl", line(1, &format!("{}1{}", "[".repeat(40), "]".repeat(40))));
    let broken = world.write("broken.jsonl", line(1, "1") + "{\"id\": 2, \"vector\"\n");
    let cases: [(&[&str], &str); 6] = [
        (&[&zero], "zero.npy, row 0, vectors"),
        (&[&good, "--ids", &ids], "row 2, id: expected each id once"),
        (&[&typed, "--field", "n=integer"], "typed.jsonl, row 1, payload.n"),
        (&[&deep], "deep.jsonl, row 0, payload.n: nests deeper"),
        (&[&broken], "broken.jsonl, row 1, vector: expected whole JSON"),
        (&[&good, "--field", "a=integer", "--field", "a=float"], "--field: `a`"),
    ];
    for (args, says) in cases {
        for infer in [&[][..], &["--no-infer"]] {
            let import = [&["import", "fresh"], args, &["--create"], infer].concat();
            let ran = world.run(import.iter().copied()).says(says).says("(`fresh` was not created)");
            assert!([DATA, USAGE].contains(&ran.code), "{ran:#?}");
            assert_eq!(
                world.json(["collection", "list"])["collections"].as_array().map(Vec::len),
                Some(0),
                "{import:?}"
            );
        }
    }
    // What is beyond the rows to import does not matter, and a collection that was there before stays.
    world.run(["import", "fresh", &broken, "--create", "--limit", "1"]).ends_with(DONE).shows("1 row into fresh");
    world.run(["collection", "create", "before", "--dim", "4"]).ends_with(DONE);
    world.run(["import", "before", &zero, "--create"]).ends_with(DATA).says("(nothing was imported)");
    assert_eq!(world.count("before"), 0);
}

#[test]
fn files_that_do_not_belong_together_are_refused_before_anything_is_sent() {
    let world = world();
    let vectors = world.write("a.npy", npy(&floats(&matrix(3, 4))));
    let short = world.write("short.jsonl", "{\"n\": 1}\n{\"n\": 2}\n");
    world
        .run(["import", "docs", &vectors, "--payload", &short])
        .ends_with(DATA)
        .says("short.jsonl: rows: expected 3")
        .says("a.npy");
    let ids = world.write("ids.txt", "1\n2\n2\n");
    world
        .run(["import", "docs", &vectors, "--ids", &ids])
        .ends_with(DATA)
        .says("row 2, id: expected each id once, found 2");
    let ids = world.write("ids.txt", "1\nseven\n3\n");
    world.run(["import", "docs", &vectors, "--ids", &ids]).ends_with(DATA).says("ids.txt, row 1").says("seven");
    let payload = world.write("payload.jsonl", "{\"id\": 1}\n{\"id\": 2}\n{\"id\": 3}\n");
    let ids = world.write("ids.txt", "1\n2\n4\n");
    let both = ["import", "docs", &vectors, "--payload", &payload, "--ids", &ids];
    world.run(both).ends_with(DATA).says("row 2, id: expected 3, found 4");
    assert_eq!(world.count("docs"), 0, "nothing was imported");
}

#[test]
fn a_payload_that_is_too_large_or_nests_too_deeply_is_refused_with_its_row() {
    let world = world();
    let line = |payload: &str| format!("{{\"id\": 2, \"vector\": [1, 2, 3, 4], \"p\": {payload}}}\n");
    let nested = |levels: usize| line(&format!("{}1{}", "[".repeat(levels), "]".repeat(levels)));
    // The payload itself is a level.
    let deepest = world.write("deepest.jsonl", nested(31));
    world.run(["import", "docs", &deepest]).ends_with(DONE);
    world.run(["delete", "docs", "2", "--yes"]).ends_with(DONE);
    let large = line(&format!("\"{}\"", "x".repeat(1 << 20)));
    for (bad, says) in [
        (nested(32), "payload.p: nests deeper than 32"),
        (nested(100), "payload.p: nests"),
        (large, "payload: has 1048"),
    ] {
        let good = "{\"id\": 1, \"vector\": [1, 2, 3, 4]}\n".to_owned();
        let file = world.write("bad.jsonl", good + &bad);
        let ran = world.run(["import", "docs", &file]).ends_with(DATA).says("bad.jsonl, row 1, ").says(says);
        ran.says("(nothing was imported)").says("hint: mend the row");
    }
    assert_eq!(world.count("docs"), 0, "nothing was imported");
}
