//! Collections: created, listed, described, deleted.

use serde_json::json;

use crate::harness::{CONFLICT, DONE, NOT_FOUND, USAGE, World};

#[test]
fn a_collection_is_created_as_it_was_asked_for_and_says_so() {
    let world = World::new();
    world.run(["collection", "list"]).ends_with(DONE).shows("no collections yet").shows("collection create");
    let create = ["collection", "create", "photos", "--dim", "128", "--metric", "l2", "--index", "graph"];
    let fields = ["--field", "source=keyword", "--field", "author.born=datetime"];
    world.run(create.into_iter().chain(fields)).ends_with(DONE).shows("created photos: 128 l2");
    let created = world.json(["collection", "describe", "photos"]);
    let expected = json!({ "default": { "dimension": 128, "metric": "l2", "index": "graph" } });
    assert_eq!(created["vectors"], expected);
    assert_eq!(created["fields"], json!({ "source": "keyword", "author.born": "datetime" }));
    for figure in ["points", "indexed_points", "dead_rows", "sealed_segments", "disk_bytes", "memory_bytes"] {
        assert!(created["statistics"][figure].is_u64(), "{figure} in {created:#}");
    }
    assert_eq!((&created["statistics"]["points"], &created["statistics"]["ready"]), (&json!(0), &json!(true)));
    let id = created["id"].as_str().expect("an id");
    assert_eq!(id.len(), 36, "{id} is a UUID");
    assert!(created["created"].as_str().expect("a time").ends_with('Z'));

    let several = ["collection", "create", "books", "--vector", "title=4", "--vector", "cover=3:l2:flat"];
    let document = world.json(several);
    assert_eq!(document["vectors"]["title"], json!({ "dimension": 4, "metric": "cosine", "index": "auto" }));
    assert_eq!(document["vectors"]["cover"], json!({ "dimension": 3, "metric": "l2", "index": "flat" }));
    let described = world.run(["collection", "describe", "books"]).ends_with(DONE);
    described.shows("points").shows("cover").shows("flat").shows("no declared fields");

    let listed = world.run(["collection", "list"]).ends_with(DONE).shows("name").shows("points");
    let names: Vec<_> = listed.out.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, ["books", "photos"], "by name");
    let document = world.json(["collection", "list"]);
    let names = document["collections"].as_array().expect("a list").iter().map(|info| info["name"].clone());
    assert_eq!(names.collect::<Vec<_>>(), [json!("books"), json!("photos")]);
}

#[test]
fn a_name_that_is_taken_is_refused_unless_the_shape_is_the_same_and_that_will_do() {
    let world = World::new();
    let create = |dim, more: &[&'static str]| {
        world.run(["collection", "create", "docs", "--dim", dim].into_iter().chain(more.iter().copied()))
    };
    create("3", &[]).ends_with(DONE);
    create("3", &[]).ends_with(CONFLICT).says("`docs` already").says("--if-not-exists");
    create("3", &["--if-not-exists"]).ends_with(DONE).shows("docs");
    create("4", &["--if-not-exists"]).ends_with(CONFLICT).says("another shape");
}

#[test]
fn what_no_collection_can_be_is_refused_with_what_can() {
    let world = World::new();
    let create = |args: &[&'static str]| world.run(["collection", "create"].into_iter().chain(args.iter().copied()));
    create(&["docs", "--dim", "16385"]).ends_with(USAGE).says("--dim: ").says("16384");
    create(&["docs", "--vector", "a=16385"]).ends_with(USAGE).says("--vector a: ").says("16384");
    create(&["docs", "--vector", "a b=3"]).ends_with(USAGE).says("--vector a b: ").says("a-z");
    let fields: Vec<_> = (0..65).flat_map(|n| ["--field".to_owned(), format!("f{n}=bool")]).collect();
    let many = ["collection", "create", "docs", "--dim", "3"].into_iter().chain(fields.iter().map(String::as_str));
    world.run(many).ends_with(USAGE).says("--field: ").says("64");
    create(&["Docs", "--dim", "3"]).ends_with(USAGE).says("a-z");
    create(&["docs", "--dim", "3", "--field", "a..b=integer"]).ends_with(USAGE);
    create(&["docs", "--vector", "a=3", "--vector", "a=4"]).ends_with(USAGE).says("twice");
    assert_eq!(world.json(["collection", "list"])["collections"], json!([]));
}

#[test]
fn a_collection_is_deleted_only_when_that_is_confirmed() {
    let world = World::new();
    world.run(["collection", "create", "docs", "--dim", "3"]).ends_with(DONE);
    world.run(["collection", "delete", "docs"]).ends_with(USAGE).says("`docs` with 0 points").says("--yes");
    assert_eq!(world.count("docs"), 0, "it is still there");
    let deleted = json!({ "collection": "docs", "deleted": true });
    assert_eq!(world.json(["collection", "delete", "docs", "--yes"]), deleted);
    world.run(["collection", "describe", "docs"]).ends_with(NOT_FOUND).says("no collection `docs`");
    world.run(["collection", "delete", "docs", "--yes"]).ends_with(NOT_FOUND);
}

#[test]
fn deleting_a_collection_if_it_exists_says_whether_it_did() {
    let world = World::new();
    world.run(["collection", "create", "docs", "--dim", "3"]).ends_with(DONE);
    let delete = ["collection", "delete", "docs", "--if-exists"];
    let yes = || delete.into_iter().chain(["--yes"]);
    world.run(yes()).ends_with(DONE).shows("deleted docs");
    world.run(yes()).ends_with(DONE).shows("there was no collection docs: nothing was deleted");
    assert_eq!(world.json(yes()), json!({ "collection": "docs", "deleted": false }));
    // There is nothing to confirm.
    world.run(delete).ends_with(DONE).shows("there was no collection docs");
}

#[test]
fn a_collection_that_is_not_there_is_answered_with_those_that_are() {
    let world = World::new();
    let missing = world.run(["count", "docs"]).ends_with(NOT_FOUND);
    missing.says("no collection `docs`").says("hint: there are no collections yet");
    world.run(["collection", "create", "photos", "--dim", "3"]).ends_with(DONE);
    for args in [
        vec!["count", "docs"],
        vec!["get", "docs", "1"],
        vec!["search", "docs", "--vector", "[1]"],
        vec!["delete", "docs", "1", "--yes"],
        vec!["export", "docs", "out.jsonl"],
        vec!["collection", "describe", "docs"],
    ] {
        world.run(args).ends_with(NOT_FOUND).says("hint: there are: photos");
    }
    let failure = world.run(["count", "docs", "--output", "json"]).ends_with(NOT_FOUND);
    let document: serde_json::Value = serde_json::from_str(&failure.err).expect("errors are JSON, too");
    assert_eq!(document["error"]["kind"], "not_found");
    assert!(document["error"]["hint"].as_str().expect("a hint").contains("photos"));
}
