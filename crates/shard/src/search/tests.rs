mod library;
mod recall;
mod sketchy;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sagitta_engine::index::Never;
use sagitta_engine::index::exact::ExactEngine;
use sagitta_model::{Effort, GroupBy, Plan, PointId, SegmentIndex};

use self::library::{Library, point};
use self::sketchy::SketchyEngine;
use super::*;
use crate::sample::{Sampler, field_path};

#[test]
fn searches_equal_brute_force_to_the_last_tie() {
    let (mut hits, mut ties, mut segments) = (0, 0, 0);
    for seed in 0..12 {
        let mut sampler = Sampler::new(seed);
        let library = Library::filled(&mut sampler, Arc::new(ExactEngine), 14);
        segments += library.shard.view().segments().len();
        for at in 0..60 {
            let query = library.query(&mut sampler);
            let ranking = library.ranking(&query);
            let expected = &ranking[..query.k.min(ranking.len())];
            let found = library.search(&query).expect("searched").hits;
            assert_eq!(found, expected, "seed {seed}, query {at}: {query:?}");
            hits += found.len();
            ties += usize::from(
                ranking.get(query.k).is_some_and(|next| next.similarity == ranking[query.k - 1].similarity),
            );
        }
    }
    assert!(hits > 10_000 && ties > 100 && segments > 12, "{hits} hits, {ties} ties, {segments} segments");
}

#[test]
fn grouped_searches_equal_brute_force() {
    let mut groups = 0;
    for seed in 0..12 {
        let mut sampler = Sampler::new(seed);
        let library = Library::filled(&mut sampler, Arc::new(ExactEngine), 12);
        for at in 0..40 {
            let query = library.grouped(&mut sampler);
            let outcome = library.search(&query).expect("searched");
            assert_eq!(outcome.groups, library.groups(&query), "seed {seed}, query {at}: {query:?}");
            assert!(outcome.hits.is_empty());
            groups += outcome.groups.len();
        }
    }
    assert!(groups > 2_000, "{groups} groups");
}

#[test]
fn a_group_that_crowds_the_nearest_rows_hides_no_other() {
    let mut sampler = Sampler::new(1);
    let mut library = Library::new(library::schema(&mut sampler), Arc::new(ExactEngine));
    let mut points: Vec<_> = (0..500).map(|_| point(&mut sampler, &library.schema)).collect();
    for (at, point) in points.iter_mut().enumerate() {
        point.id = PointId::Num(at as u64);
        // The nearest 400 rows are of group `m`; one of them is of `n`, too, and the others of that are far away.
        let group = match at {
            150 => Value::Array(vec!["m".into(), "n".into()]),
            0..400 => "m".into(),
            _ => Value::String(["a", "l", "n", "o", "z"][at % 5].to_owned()),
        };
        point.payload.insert("a".into(), group);
        point.vectors.values_mut().for_each(|vector| vector.fill(1.0 + at as f32));
    }
    library.upsert(points);
    library.run_jobs();
    assert_eq!(library.shard.view().generations().iter().map(|generation| generation.rows()).sum::<usize>(), 0);
    for name in ["image", "text", "title"] {
        for (k, size) in [(2, 1), (4, 3), (6, 2), (50, 2)] {
            let spec = library.schema.vectors[name];
            let group_by = Some(GroupBy { field: field_path("a"), size });
            let (vector_name, vector) = (name.to_owned(), vec![1.0; spec.dim]);
            let query = SearchQuery { vector_name, vector, k, group_by, ..plain_query() };
            let groups = library.search(&query).expect("searched").groups;
            assert_eq!(groups, library.groups(&query), "{k} groups of {size} by {name}");
            assert_eq!(groups.len(), k.min(6));
        }
    }
}

fn plain_query() -> SearchQuery {
    SearchQuery {
        vector_name: String::new(),
        vector: Vec::new(),
        k: 1,
        min_similarity: None,
        filter: None,
        effort: Effort::Exact,
        group_by: None,
    }
}

#[test]
fn an_index_that_misses_rows_still_gives_k_results_with_exact_similarities() {
    let engine = SketchyEngine::default();
    let (mut missed, mut found_all) = (0, 0);
    for seed in 0..32 {
        let mut sampler = Sampler::new(seed);
        let library = Library::filled(&mut sampler, Arc::new(engine.clone()), 14);
        for at in 0..40 {
            let query = library.query(&mut sampler);
            let ranking = library.ranking(&query);
            let found = library.search(&query).expect("searched").hits;
            assert_eq!(found.len(), query.k.min(ranking.len()), "seed {seed}, query {at}: {query:?}");
            assert!(found.is_sorted_by(|a, b| a.rank(b).is_lt()), "seed {seed}, query {at}");
            for hit in &found {
                assert!(ranking.contains(hit), "seed {seed}, query {at}: {hit:?} of {query:?}");
            }
            let complete = found == ranking[..found.len()];
            missed += usize::from(!complete);
            found_all += usize::from(complete);
            let exact = matches!(query.effort, Effort::Exact | Effort::Recall(1.0));
            assert!(complete || !exact, "seed {seed}, query {at}: {query:?}");
        }
    }
    let (walks, scans) = (engine.shared.walks.load(Ordering::Relaxed), engine.shared.scans.load(Ordering::Relaxed));
    assert!(
        missed > 5 && found_all > 100 && walks > 20 && scans > 100,
        "{missed} missed, {walks} walks, {scans} scans"
    );
}

#[test]
fn a_damaged_index_is_reported_and_answered_around() {
    for seed in 0..6 {
        let mut sampler = Sampler::new(seed);
        let engine = SketchyEngine::default();
        let library = Library::filled(&mut sampler, Arc::new(engine.clone()), 12);
        let segments = library.shard.view().segments().len();
        for at in 0..20 {
            let query = SearchQuery { effort: Effort::Exact, ..library.query(&mut sampler) };
            engine.shared.damages.store(at % 3, Ordering::Relaxed);
            let ranking = library.ranking(&query);
            let found = library.search(&query).expect("searched in spite of damage").hits;
            assert_eq!(found, ranking[..query.k.min(ranking.len())], "seed {seed}, query {at}: {query:?}");
        }
        assert!(segments > 0 && !library.shard.stats().damages.is_empty(), "seed {seed}");
        // What is damaged is not used again, and once it is rebuilt everything is as before.
        engine.shared.damages.store(0, Ordering::Relaxed);
        library.run_jobs();
        let query = SearchQuery { effort: Effort::Exact, ..library.query(&mut sampler) };
        let ranking = library.ranking(&query);
        assert_eq!(
            library.search(&query).expect("searched").hits,
            ranking[..query.k.min(ranking.len())],
            "seed {seed}"
        );
    }
}

#[test]
fn a_damaged_payload_index_is_reported_and_answered_around() {
    let mut reported = 0;
    for seed in 0..12 {
        let mut sampler = Sampler::new(seed);
        let mut library = Library::filled(&mut sampler, Arc::new(ExactEngine), 2);
        // Long keywords: an index of several blocks, of which opening verifies the last.
        let mut points: Vec<_> = (0..400).map(|_| point(&mut sampler, &library.schema)).collect();
        for (at, point) in points.iter_mut().enumerate() {
            point.payload.insert("a".into(), Value::String(format!("{:0>300}", at % 150)));
        }
        library.upsert(points);
        library.run_jobs();
        let id = library.shard.view().segments()[0].segment.id();
        let at = 2_000 + sampler.below(30_000);
        let library = library.reopen(|dir| {
            let path = dir.join(format!("segments/{id}/payload"));
            let mut bytes = fs::read(&path).expect("the payload index");
            bytes[at] ^= 0x10;
            fs::write(&path, bytes).expect("written");
        });
        for _ in 0..10 {
            let query = library.grouped(&mut sampler);
            let found = library.search(&query).expect("searched in spite of damage").groups;
            assert_eq!(found, library.groups(&query), "seed {seed}, byte {at}: {query:?}");
        }
        reported += usize::from(!library.shard.stats().damages.is_empty());
    }
    // What was damaged may not have been asked for.
    assert!(reported > 6, "reported {reported} times");
}

#[test]
fn a_search_that_is_told_to_stop_stops() {
    let mut sampler = Sampler::new(1);
    let library = Library::filled(&mut sampler, Arc::new(ExactEngine), 12);
    let stop = AtomicBool::new(true);
    for query in [library.query(&mut sampler), library.grouped(&mut sampler)] {
        let stopped = library.shard.view().search(&query, &SearchContext { stop: &stop, explain: false });
        assert!(matches!(stopped, Err(ShardError::Stopped)), "{stopped:?}");
    }
}

#[test]
fn a_query_that_does_not_suit_the_schema_is_refused_with_its_field() {
    let mut sampler = Sampler::new(1);
    let library = Library::filled(&mut sampler, Arc::new(ExactEngine), 3);
    let good = SearchQuery { filter: None, ..library.query(&mut sampler) };
    let group_by = Some(GroupBy { field: field_path("colour"), size: 1 });
    for (field, query) in [
        ("k", SearchQuery { k: 0, ..good.clone() }),
        ("vector", SearchQuery { vector: vec![1.0; 77], ..good.clone() }),
        ("vector", SearchQuery { vector: vec![1e16; good.vector.len()], ..good.clone() }),
        ("vector_name", SearchQuery { vector_name: "smell".into(), ..good.clone() }),
        ("group_by.field", SearchQuery { group_by, ..good.clone() }),
    ] {
        let refused = library.search(&query).expect_err("refused");
        assert!(matches!(&refused, ShardError::Invalid(violation) if violation.field.starts_with(field)), "{refused}");
    }
}

#[test]
fn an_explanation_says_what_was_done_with_each_segment() {
    let mut sampler = Sampler::new(3);
    let library = Library::filled(&mut sampler, Arc::new(ExactEngine), 14);
    let view = library.shard.view();
    let query = SearchQuery { filter: None, effort: Effort::Exact, ..library.query(&mut sampler) };
    let outcome = view.search(&query, &SearchContext { stop: &Never, explain: true }).expect("searched");
    let explanation = outcome.explanation.expect("explained");
    let growing = explanation.segments.iter().filter(|plan| plan.index == SegmentIndex::Growing).count();
    assert_eq!((growing, explanation.segments.len()), (view.generations().len(), growing + view.segments().len()));
    assert!(explanation.segments.iter().all(|plan| plan.plan == Plan::Scan && plan.reranked > 0), "{explanation:?}");
    let reranked: u64 = explanation.segments.iter().map(|plan| plan.reranked).sum();
    assert_eq!(reranked, outcome.stats.reranked);

    let nothing = Filter { must: vec![sagitta_model::Condition::has_id(Vec::new())], ..Filter::default() };
    let query = SearchQuery { filter: Some(Arc::new(nothing)), ..query };
    let outcome = view.search(&query, &SearchContext { stop: &Never, explain: true }).expect("searched");
    let skipped = |plan: &sagitta_model::SegmentPlan| plan.plan == Plan::Skip || plan.index == SegmentIndex::Growing;
    assert!(outcome.explanation.expect("explained").segments.iter().all(skipped) && outcome.hits.is_empty());
    assert_eq!(library.search(&query).expect("searched").explanation, None);
}

#[test]
fn small_segments_are_flat_and_policies_are_kept() {
    for policy in IndexPolicy::ALL {
        assert_eq!(kind_for(policy, 9, 10), IndexKind::Flat);
    }
    assert_eq!(kind_for(IndexPolicy::Auto, 10, 10), IndexKind::Graph);
    assert_eq!(kind_for(IndexPolicy::Graph, 10, 10), IndexKind::Graph);
    assert_eq!(kind_for(IndexPolicy::Flat, 10, 10), IndexKind::Flat);
    assert_eq!(kind_for(IndexPolicy::Compact, 10, 10), IndexKind::Compact);
}
