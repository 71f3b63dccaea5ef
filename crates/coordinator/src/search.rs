//! Searches: checked, scattered over the shards, gathered and merged.

use std::sync::Arc;

use sagitta_cluster::Collection;
use sagitta_env::Deadline;
use sagitta_model::{Consistency, Coverage, ErrorKind, Problem, SearchQuery, SearchResult, Selection};

use crate::client::NodeClient;
use crate::merge::merge_results;
use crate::points::read;
use crate::scatter::scatter;
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

impl<C: NodeClient> Coordinator<C> {
    /// Runs the searches: one result for each, in their order, and which shards were searched.
    pub async fn search(
        &self,
        collection: &Collection,
        search: Search,
    ) -> Result<(Vec<SearchResult>, Coverage), Error> {
        let started = self.env.now();
        let queries: Arc<[_]> = search.queries.into();
        let read = read(&search.consistency, search.deadline);
        let patience = if search.allow_partial { self.earlier(search.deadline) } else { search.deadline };
        let mut collection = self.with_all_of(collection, &read.tokens, patience).await?;
        let answers = loop {
            match scatter(self, &collection, queries.clone(), search.explain, read.clone(), patience).await {
                Err(Error::Split { .. }) => collection = self.split_meanwhile(&collection)?,
                answers => break answers?,
            }
        };

        let mut coverage = Coverage { shards: answers.len(), missing: Vec::new() };
        let mut parts = Vec::with_capacity(answers.len());
        for (shard, answer) in collection.shards.iter().zip(answers) {
            match answer {
                Some(Ok(results)) => parts.push(results),
                Some(Err(error)) if !search.allow_partial => return Err(Error::Shard { shard: shard.id, error }),
                None if !search.allow_partial => return Err(Error::DeadlineExceeded),
                Some(Err(error)) => coverage.missing.push((shard.id, problem(error.kind, error.message))),
                None => coverage.missing.push((shard.id, problem(ErrorKind::Unavailable, "no answer in time".into()))),
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

    /// Soon enough before a deadline for a partial answer to arrive in time.
    fn earlier(&self, deadline: Deadline) -> Deadline {
        deadline.remaining(&self.env).map_or(deadline, |left| self.env.deadline(left - left / PARTIAL_MARGIN))
    }
}

/// A partial answer is given when this part of the time is left.
const PARTIAL_MARGIN: u32 = 10;

fn problem(kind: ErrorKind, message: String) -> Problem {
    Problem { kind, message, violations: Vec::new() }
}
