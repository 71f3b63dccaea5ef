//! Points: shown by id, counted, deleted by id and by filter.

use serde_json::json;

use crate::harness::{DONE, NOT_FOUND, USAGE, World};

/// Ten points of three dimensions with a number `n`, the last with a UUID.
fn world() -> World {
    let world = World::new();
    let mut lines = String::new();
    for n in 0..9 {
        lines += &format!("{{\"id\": {n}, \"vector\": [{n}, 1, 0.5], \"n\": {n}, \"even\": {}}}\n", n % 2 == 0);
    }
    lines += "{\"id\": \"0195f7a2-6c1e-7b32-9d2a-3f6f8f5f2c11\", \"vector\": [9, 1, 0.5], \"n\": 9, \"even\": false}\n";
    let file = world.write("points.jsonl", lines);
    world.run(["import", "docs", &file, "--create", "--metric", "l2"]).ends_with(DONE).shows("10 rows into docs");
    world
}

const UUID: &str = "0195f7a2-6c1e-7b32-9d2a-3f6f8f5f2c11";

#[test]
fn points_are_shown_by_id_with_what_was_selected() {
    let world = world();
    let shown = world.run(["get", "docs", "7", UUID]).ends_with(DONE);
    shown.shows("even=false  n=7").shows(UUID);
    let document = world.json(["get", "docs", "7", UUID, "--vectors", "--payload", "n"]);
    assert_eq!(document["missing"], json!([]));
    let points = document["points"].as_array().expect("a list");
    assert_eq!((&points[0]["id"], &points[1]["id"]), (&json!(7), &json!(UUID)));
    assert_eq!(points[0]["payload"], json!({ "n": 7 }));
    assert_eq!(points[0]["vectors"], json!({ "default": [7.0, 1.0, 0.5] }));
    assert!(points[0]["version"].as_u64().expect("a version") > 0);
    let document = world.json(["get", "docs", "7", "--payload", "none"]);
    let point = document["points"][0].as_object().expect("a point");
    assert!(!point.contains_key("payload") && !point.contains_key("vectors"), "{document:#}");
}

#[test]
fn points_that_do_not_exist_are_named_beside_those_that_do() {
    let world = world();
    let ran = world.run(["get", "docs", "7", "77", "78", "-o", "json"]).ends_with(NOT_FOUND).says("77, 78");
    assert_eq!(ran.json()["missing"], json!([77, 78]));
    assert_eq!(ran.json()["points"][0]["id"], 7);
}

#[test]
fn counts_are_exact_with_and_without_a_filter() {
    let world = world();
    world.run(["count", "docs"]).ends_with(DONE).shows("10\n");
    assert_eq!(world.json(["count", "docs"]), json!({ "collection": "docs", "count": 10 }));
    for (filter, expected) in [
        ("even = true", 5),
        ("2 <= n < 5", 3),
        ("n in [1, 3, 77] or even = true", 7),
        ("not even = true and n != 3", 4),
        ("id in [0, 1]", 2),
        ("n > 100", 0),
        (r#"{"must": [{"field": "n", "range": {"gte": 8}}]}"#, 2),
    ] {
        assert_eq!(world.json(["count", "docs", "--filter", filter])["count"], expected, "{filter}");
    }
}

#[test]
fn filters_that_cannot_be_understood_or_answered_are_refused_with_the_place() {
    let world = world();
    let refused = |filter: &str| world.run(["count", "docs", "--filter", filter]).ends_with(USAGE);
    refused("n >= ").says("--filter");
    refused("n = 1 und n = 2").says("      ^").says("sagitta search --help");
    refused("colour = 'red'").says("--filter (must[0].field)").says("even, n");
    refused("n = 'seven'").says("--filter (must[0].match)").says("integer");
    let deep = format!("{}n = 1{}", "not (n = 2 or ".repeat(20), ")".repeat(20));
    refused(&deep).says("8 levels");
    let many = vec!["n = 1"; 300].join(" or ");
    refused(&many).says("256");
    assert_eq!(world.count("docs"), 10, "the server is still there");
}

#[test]
fn points_are_deleted_by_id_and_never_come_back() {
    let world = world();
    world.run(["delete", "docs", "3", "4"]).ends_with(USAGE).says("2 points").says("--yes");
    assert_eq!(world.count("docs"), 10);
    let deleted = world.json(["delete", "docs", "3", UUID, "77", "--yes"]);
    assert_eq!(deleted, json!({ "collection": "docs", "deleted": 2 }), "one of the three was not there");
    assert_eq!(world.count("docs"), 8);
    world.run(["get", "docs", "3"]).ends_with(NOT_FOUND);
    let world = world.restarted();
    assert_eq!(world.count("docs"), 8);
    world.run(["get", "docs", UUID]).ends_with(NOT_FOUND);
}

#[test]
fn points_are_deleted_by_filter_and_all_of_them_only_on_demand() {
    let world = world();
    world.run(["delete", "docs", "--filter", "even = true"]).ends_with(USAGE).says("5 points").says("even = true");
    let deleted = world.run(["delete", "docs", "--filter", "even = true", "--yes"]).ends_with(DONE);
    deleted.shows("deleted 5 points");
    assert_eq!(world.json(["count", "docs", "--filter", "even = true"])["count"], 0);
    assert_eq!(world.count("docs"), 5);
    world.run(["delete", "docs"]).ends_with(USAGE);
    world.run(["delete", "docs", "--filter", "{}"]).ends_with(USAGE).says("all of them");
    assert_eq!(world.count("docs"), 5);
    world.run(["delete", "docs", "--filter", "{}", "--yes"]).ends_with(DONE).shows("deleted 5 points");
    assert_eq!(world.count("docs"), 0);
}
