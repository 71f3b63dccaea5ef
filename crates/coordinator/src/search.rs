//! Searches: checked, scattered over the shards, gathered and merged.

use std::sync::Arc;

use sagitta_cluster::Collection;
use sagitta_env::Deadline;
use sagitta_model::{Consistency, Coverage, Problem, SearchQuery, SearchResult, Selection};

use crate::client::ShardClient;
use crate::merge::merge_results;
use crate::points::read;
use crate::{Coordinator, Error};

/// Some searches of one collection, resolved against its schema.
#[derive(Clone, Debug)]
pub struct Search {
    /// The searches, each with what to return of its hits.
    pub queries: Vec<(SearchQuery, Selection)>,
    /// How fresh the answer must be.
    pub consistency: Consistency,
    /// Whether an answer from some of the shards is better than none.
    pub allow_partial: bool,
    /// Whether to tell how the searches were run.
    pub explain: bool,
    /// When the caller stops waiting.
    pub deadline: Deadline,
}

impl<C: ShardClient> Coordinator<C> {
    /// Runs the searches: one result for each, in their order, and which shards were searched.
    pub async fn search(
        &self,
        collection: &Collection,
        search: Search,
    ) -> Result<(Vec<SearchResult>, Coverage), Error> {
        let started = self.env.now();
        let queries: Arc<[_]> = search.queries.into();
        let shards: Vec<u64> = collection.shards.iter().map(|shard| shard.id).collect();
        let read = read(&search.consistency, search.deadline);
        let answers = self.shards.search(&shards, queries.clone(), search.explain, read).await;

        let mut coverage = Coverage { shards: shards.len(), missing: Vec::new() };
        let mut parts = Vec::with_capacity(answers.len());
        for (shard, answer) in answers {
            match answer {
                Ok(results) => parts.push(results),
                Err(error) if search.allow_partial => {
                    let problem = Problem { kind: error.kind, message: error.message, violations: Vec::new() };
                    coverage.missing.push((shard, problem));
                }
                Err(error) => return Err(Error::Shard { shard, error }),
            }
        }
        let mut results = merge_results(parts, &queries);
        if search.explain {
            let total = self.env.now() - started;
            for explanation in results.iter_mut().filter_map(|result| result.explanation.as_mut()) {
                explanation.total_us = total.as_micros() as u64;
            }
        }
        Ok((results, coverage))
    }
}
