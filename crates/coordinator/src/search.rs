//! Searches: checked, scattered over the shards, gathered and merged.

use std::sync::Arc;

use sagitta_env::Deadline;
use sagitta_model::{CollectionName, Consistency, Coverage, Problem, SearchQuery, SearchResult, Selection};

use crate::client::ShardClient;
use crate::merge::merge_results;
use crate::points::{check_selection, read};
use crate::{Coordinator, Error};

/// Some searches of one collection.
#[derive(Clone, Debug)]
pub struct Search {
    /// The collection.
    pub collection: CollectionName,
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
    ///
    /// A violation names the search it is in by its position: `[3].filter.must[0]`.
    pub async fn search(&self, search: Search) -> Result<(Vec<SearchResult>, Coverage), Error> {
        let started = self.env.now();
        let collection = self.find(&search.collection)?;
        let mut queries = search.queries;
        for (at, (query, selection)) in queries.iter_mut().enumerate() {
            let place = |v: sagitta_model::Violation| v.within(&format!("[{at}]"));
            query.validate(&collection.schema).map_err(place)?;
            check_selection(selection, &collection.schema)?;
            if query.vector_name.is_empty() {
                let (name, _) = collection.schema.vector("").map_err(place)?;
                name.clone_into(&mut query.vector_name);
            }
        }
        let queries: Arc<[_]> = queries.into();
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
