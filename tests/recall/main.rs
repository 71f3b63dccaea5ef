//! The recall that was asked for, without any knob, on 100,000 real embeddings: with and without filters, in one segment and
//! in several, before and after deletes and overwrites. Real RocksDB, real FAISS, the shard as a node runs it.
//!
//! Reads the sets `text384-100k` and `sift128-100k` from the folder that `SAGITTA_DATA` names. Where that is not set, the sample
//! of the repository stands in, so that the test always runs.

mod files;
mod library;
mod sets;
mod truth;

use sagitta_model::{Effort, IndexPolicy, SearchQuery};

use crate::library::Library;
use crate::sets::Set;
use crate::truth::Truth;

const K: usize = 10;
/// What a search aims at when it names nothing.
const TARGET: f64 = 0.95;
/// Enough that the mean's standard error is a third of a percent, the recall of one query varying by 0.07.
const QUERIES: usize = 400;
/// Of a hundred points so many are deleted, and so many more are overwritten; together less than makes a segment be rewritten.
const DELETED: usize = 10;
const OVERWRITTEN: usize = 8;

#[test]
fn text_embeddings_are_found_by_graph() {
    check(&sets::text(), IndexPolicy::Auto);
}

#[test]
fn text_embeddings_are_found_by_compact_codes() {
    check(&sets::text(), IndexPolicy::Compact);
}

#[test]
fn picture_descriptors_are_found_by_graph() {
    check(&sets::pictures(), IndexPolicy::Auto);
}

#[test]
fn picture_descriptors_are_found_by_compact_codes() {
    check(&sets::pictures(), IndexPolicy::Compact);
}

fn check(set: &Set, policy: IndexPolicy) {
    let mut library = Library::new(set, policy);
    library.load();
    library.seal();
    let truth = Truth::of(&library, QUERIES, K);
    truth.agrees_with_the_published(set);
    let mut least = check_stage(&library, &truth, "in several segments");
    library.run_all_jobs();
    least = least.min(check_stage(&library, &truth, "in one segment"));
    library.churn(DELETED, OVERWRITTEN);
    let truth = Truth::of(&library, QUERIES, K);
    least = least.min(check_stage(&library, &truth, "after deletes and overwrites"));
    assert!(least >= TARGET, "{} {policy}: recall@{K} is {least:.4} where it is lowest", set.name);
}

/// The lowest recall of all filters. Every hit must be a live point that passes, with the similarity of its latest vector, and
/// there must be as many as there can be.
fn check_stage(library: &Library<'_>, truth: &Truth, stage: &str) -> f64 {
    let set = library.set;
    let mut least = f64::INFINITY;
    for (case, answers) in set.cases.iter().zip(&truth.answers) {
        let (mut found, mut wanted) = (0, 0);
        for (row, best) in answers.iter().enumerate() {
            let query = SearchQuery {
                vector_name: String::new(),
                vector: set.query(row).to_vec(),
                k: K,
                min_similarity: None,
                filter: case.filter.clone(),
                effort: Effort::default(),
                group_by: None,
            };
            let hits = library.search(&query);
            assert_eq!(hits.len(), best.len(), "{} {stage}, {}, query {row}: hits", set.name, case.name);
            let Some(last) = best.last() else { continue };
            for hit in &hits {
                let similarity = library.similarity(hit.id, &query.vector, case);
                let similarity =
                    similarity.unwrap_or_else(|| panic!("{stage}, {}: {} must not be found", case.name, hit.id));
                assert!(
                    truth::same(similarity, hit.similarity),
                    "{stage}: {} at {}, not {similarity}",
                    hit.id,
                    hit.similarity
                );
                // One that ties with the last true one is as good.
                found += usize::from(similarity >= last.similarity || truth::same(similarity, last.similarity));
            }
            wanted += best.len();
        }
        assert!(wanted > 0, "{} {stage}, {}: nothing to find", set.name, case.name);
        let recall = found as f64 / wanted as f64;
        println!("{} {} {stage}, {}: recall@{K} {recall:.4}", set.name, library.policy, case.name);
        least = least.min(recall);
    }
    least
}
