//! Searches, as tables and as JSON.

use serde_json::{Value, json};

use crate::harness::{DATA, DONE, NOT_FOUND, USAGE, World, sample};

fn ids(document: &Value) -> Vec<u64> {
    let hits = document["hits"].as_array().expect("a list");
    hits.iter().map(|hit| hit["id"].as_u64().expect("a number")).collect()
}

#[test]
fn searches_find_the_same_in_every_way_to_ask() {
    let world = World::with_sample();
    let queries = sample("text384-4k.query.f32.npy");
    let shown = world.run(["search", "docs", "--query", &queries, "--row", "3", "-k", "5", "--payload", "source"]);
    let shown = shown.ends_with(DONE).shows("score").shows("source=");
    assert_eq!(shown.out.lines().count(), 6, "a header and five hits: {}", shown.out);

    let asked = ["search", "docs", "--query", &queries, "--row", "3", "-k", "5"];
    let document = world.json(asked);
    assert_eq!(document["collection"], "docs");
    assert!(document["took_ms"].as_f64().expect("a number") > 0.0);
    assert_eq!(document["coverage"], json!({ "shards": 1, "missing": [] }));
    assert_eq!((&document["groups"], &document["explanation"]), (&json!([]), &Value::Null));
    let hits = document["hits"].as_array().expect("a list");
    let scores: Vec<_> = hits.iter().map(|hit| hit["score"].as_f64().expect("a score")).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b), "nearest first: {scores:?}");
    assert!(hits.iter().all(|hit| hit["payload"]["text"].is_string() && hit.get("vectors").is_none()));

    let exact = world.json(asked.into_iter().chain(["--exact"]));
    let eager = world.json(asked.into_iter().chain(["--recall", "1"]));
    let knobs = world.json(asked.into_iter().chain(["--ef-search", "4000", "--rerank", "4000"]));
    assert_eq!((ids(&exact), ids(&exact)), (ids(&eager), ids(&knobs)));
    // The same vector, given as such.
    let vector = &world.json(["get", "docs", "42", "--vectors"])["points"][0]["vectors"]["default"];
    let literal = world.json(["search", "docs", "--vector", &vector.to_string(), "--exact", "-k", "4"]);
    assert_eq!(ids(&literal)[0], 42, "a point is nearest to itself");
    // And in a file that calls it something else, which the refusal asks for.
    let file = world.write("queries.jsonl", format!("{{\"embedding\": {vector}}}\n"));
    let query = ["search", "docs", "--query", &file, "--exact", "-k", "4"];
    world.run(query).ends_with(DATA).says("row 0, vector").says("--vector-column");
    let named = world.json(query.into_iter().chain(["--vector-column", "embedding"]));
    assert_eq!(ids(&named), ids(&literal));
    let recall = ["recall", "docs", "--queries", &file, "--k", "4"];
    world.run(recall).ends_with(DATA).says("row 0, vector").says("--vector-column");
    let measured = world.json(recall.into_iter().chain(["--vector-column", "embedding"]));
    assert_eq!(measured["queries"], 1);
    let like = world.json(["search", "docs", "--like", "42", "--exact", "-k", "3"]);
    assert_eq!(ids(&like), ids(&literal)[1..], "and is left out of its own neighbours");
}

#[test]
fn a_vector_is_read_from_standard_input() {
    let world = World::with_sample();
    let vector = &world.json(["get", "docs", "42", "--vectors"])["points"][0]["vectors"]["default"];
    let file = std::fs::File::open(world.write("vector.json", format!("{vector}\n"))).expect("opens");
    let mut command = world.command(["search", "docs", "--vector", "-", "-k", "1", "-o", "json"]);
    let ran: crate::harness::Ran = command.stdin(file).output().expect("runs").into();
    assert_eq!(ids(&ran.ends_with(DONE).json()), [42]);
}

#[test]
fn filtered_searches_find_as_many_as_there_are_and_only_those() {
    let world = World::with_sample();
    for filter in ["source = \"rust-docs\" and words >= 50", "source = 'python-tornado-doc'", "words < 40"] {
        let there = world.json(["count", "docs", "--filter", filter])["count"].as_u64().expect("a number");
        let k = (there + 5).to_string();
        let document = world.json(["search", "docs", "--like", "42", "--filter", filter, "-k", &k, "--payload", "all"]);
        let passing = there
            - u64::from(world.json(["count", "docs", "--filter", &format!("({filter}) and id = 42")])["count"] == 1);
        assert_eq!(ids(&document).len() as u64, passing, "{filter}");
        for hit in document["hits"].as_array().expect("a list") {
            let (source, words) = (&hit["payload"]["source"], hit["payload"]["words"].as_u64().expect("a number"));
            let passes = match filter.split_once(' ').expect("a field").0 {
                "source" if filter.contains("rust") => source == "rust-docs" && words >= 50,
                "source" => source == "python-tornado-doc",
                _ => words < 40,
            };
            assert!(passes, "{filter}: {hit}");
        }
    }
}

#[test]
fn hits_are_grouped_bounded_and_explained_on_demand() {
    let world = World::with_sample();
    let groups = ["search", "docs", "--like", "42", "--group-by", "source", "--group-size", "2", "-k", "3"];
    let document = world.json(groups);
    let found = document["groups"].as_array().expect("a list");
    assert_eq!(found.len(), 3);
    for group in found {
        let hits = group["hits"].as_array().expect("a list");
        assert!((1..=2).contains(&hits.len()));
        assert!(hits.iter().all(|hit| hit["payload"]["source"] == group["key"]), "{group:#}");
    }
    world.run(groups).ends_with(DONE).shows("group");

    let document = world.json(["search", "docs", "--like", "42", "-k", "100", "--threshold", "0.4"]);
    let hits = document["hits"].as_array().expect("a list");
    assert!(!hits.is_empty() && hits.len() < 100, "{} hits", hits.len());
    assert!(hits.iter().all(|hit| hit["score"].as_f64() >= Some(0.4)));
    world.run(["search", "docs", "--like", "42", "--threshold", "0.9999"]).ends_with(DONE).shows("no hits");

    let document = world.json(["search", "docs", "--like", "42", "--explain"]);
    let segments = document["explanation"]["segments"].as_array().expect("a list");
    let rows: u64 = segments.iter().map(|segment| segment["rows"].as_u64().expect("a number")).sum();
    assert_eq!(rows, 4_000, "every row is in some segment");
    assert!(document["explanation"]["total_us"].as_u64().expect("a number") > 0);
    world.run(["search", "docs", "--like", "42", "--explain"]).ends_with(DONE).shows("server: ").shows("compared");
}

#[test]
fn searches_that_make_no_sense_are_refused_with_what_would() {
    let world = World::with_sample();
    let search = |args: &[&'static str]| world.run(["search", "docs"].into_iter().chain(args.iter().copied()));
    search(&["--vector", "[1, 2]"]).ends_with(USAGE).says("vector: has 2 dimensions").says("384");
    search(&["--vector", "[1, NaN]"]).ends_with(USAGE).says("--vector").says("JSON list of numbers");
    search(&["--vector", "[1e39]"]).ends_with(USAGE).says("[0]");
    let zeros = format!("[{}]", vec!["0"; 384].join(","));
    world.run(["search", "docs", "--vector", &zeros]).ends_with(USAGE).says("zero vector");
    search(&["--like", "42", "-k", "0"]).ends_with(USAGE).says("at least 1");
    search(&["--like", "42", "-k", "10001"]).ends_with(USAGE).says("10000");
    search(&["--like", "42", "-k", "99999999999999999999"]).ends_with(USAGE);
    search(&["--like", "42", "--recall", "1.5"]).ends_with(USAGE).says("at most 1");
    search(&["--like", "42", "--group-by", "colour"]).ends_with(USAGE).says("--group-by").says("source");
    search(&["--like", "42", "--group-by", "source", "--group-size", "5000"]).ends_with(USAGE).says("1 to 1000");
    search(&["--like", "42", "--vector-name", "title"]).ends_with(USAGE).says("default");
    search(&["--like", "99999"]).ends_with(NOT_FOUND).says("99999");
    let queries = sample("text384-4k.query.f32.npy");
    let beyond = world.run(["search", "docs", "--query", &queries, "--row", "100"]).ends_with(USAGE);
    beyond.says("has 100 rows").says("count from 0");
    search(&["--like", "42", "-k", "3"]).ends_with(DONE);
}

#[test]
fn what_a_search_cannot_do_is_told_by_the_argument_that_asked_for_it() {
    let world = World::with_sample();
    let cases: [(&[&str], &str); 8] = [
        (&["-k", "10001"], "-k: "),
        (&["--ef-search", "0"], "--ef-search: "),
        (&["--nprobe", "1000000"], "--nprobe: "),
        (&["--rerank", "1000000"], "--rerank: "),
        (&["--group-by", "colour"], "--group-by: `colour` is not a declared field"),
        (&["--group-by", "source", "--group-size", "10001"], "--group-size: "),
        (&["--filter", "colour = 'red'"], "--filter (must[0].field): `colour` is not a declared field"),
        (&["--threshold", "high"], "'--threshold <SCORE>': expected a number, such as 0.8"),
    ];
    for (args, says) in cases {
        world
            .run(["search", "docs", "--like", "3"].into_iter().chain(args.iter().copied()))
            .ends_with(USAGE)
            .says(says);
    }
}
