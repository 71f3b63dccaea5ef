//! Measuring recall on the real embeddings of the sample.

use crate::harness::{DATA, DONE, FAILED, World, foreign, sample};

#[test]
fn recall_is_measured_against_the_truth_of_a_file_and_against_exact_search() {
    let world = World::with_sample();
    let (queries, truth) = (sample("text384-4k.query.f32.npy"), sample("text384-4k.gt.ids.npy"));
    let by_file = world.json(["recall", "docs", "-q", &queries, "-g", &truth, "--at-least", "0.95"]);
    assert_eq!((&by_file["queries"], &by_file["k"]), (&100.into(), &10.into()));
    let mean = by_file["recall"]["mean"].as_f64().expect("a number");
    assert!((0.95..=1.0).contains(&mean), "recall@10 is {mean}");
    for figure in ["worst_decile", "minimum", "perfect"] {
        assert!(by_file["recall"][figure].is_f64(), "{figure} in {by_file:#}");
    }
    for figure in ["mean", "p50", "p90", "p99", "max"] {
        assert!(by_file["latency_ms"][figure].as_f64().expect("a number") > 0.0, "{figure}");
    }
    assert!(by_file["searches_per_second"].as_f64().expect("a number") > 0.0);
    assert!(by_file["truth"].as_str().expect("a text").ends_with("text384-4k.gt.ids.npy"));

    let exact = world.json(["recall", "docs", "-q", &queries, "--exact", "-g", &truth]);
    assert_eq!(exact["recall"]["mean"], 1.0, "exact searches and the file agree");
    let by_exact =
        world.json(["recall", "docs", "-q", &queries, "--callers", "4", "--connections", "2", "--batch", "8"]);
    assert!(by_exact["truth"].as_str().expect("a text").contains("exact"));
    let difference = by_exact["recall"]["mean"].as_f64().expect("a number") - mean;
    assert!(difference.abs() < 1e-9, "both truths give the same recall: {difference}");

    let shown = world.run(["recall", "docs", "-q", &queries, "-g", &truth, "--limit", "20"]).ends_with(DONE);
    shown.shows("20 queries of docs, recall target 0.95").shows("recall@10").shows("p99").shows("searches/s");
}

#[test]
fn recall_under_a_filter_is_of_the_points_that_pass() {
    let world = World::with_sample();
    let queries = sample("text384-4k.query.f32.npy");
    let filter = "source = \"rust-docs\"";
    let document = world.json(["recall", "docs", "-q", &queries, "--filter", filter, "--at-least", "0.95"]);
    assert!(document["truth"].as_str().expect("a text").contains("exact"));
}

#[test]
fn recall_below_what_was_wanted_is_a_failure() {
    let world = World::with_sample();
    let queries = sample("text384-4k.query.f32.npy");
    // The truth of other queries is wrong for these.
    let filtered = sample("text384-4k.gt.filter1.ids.npy");
    let ran = world.run(["recall", "docs", "-q", &queries, "-g", &filtered, "--at-least", "0.9"]).ends_with(FAILED);
    ran.says("below 0.9").shows("recall@10");
}

#[test]
fn queries_and_truths_that_do_not_belong_are_refused() {
    let world = World::with_sample();
    let (queries, truth) = (sample("text384-4k.query.f32.npy"), sample("text384-4k.gt.ids.npy"));
    let other = foreign("f4.npy");
    world.run(["recall", "docs", "-q", &other]).ends_with(DATA).says("f4.npy").says("4 dimensions").says("384");
    let short = world.run(["recall", "docs", "-q", &queries, "-g", &truth, "-k", "60"]).ends_with(DATA);
    short.says("50 neighbours per query, expected 60").says("-k");
    let base = sample("text384-4k.base.f16.npy");
    let few = world.run(["recall", "docs", "-q", &base, "-g", &truth]).ends_with(DATA);
    few.says("100 queries, expected 4,000").says("--limit");
    let floats = world.run(["recall", "docs", "-q", &queries, "-g", &queries]).ends_with(DATA);
    floats.says("text384-4k.query.f32.npy, row 0");
}
