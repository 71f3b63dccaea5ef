//! Running many searches at once and timing each call.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sagitta_client::{Client, ClientError, ScoredPoint, Search, Searches};
use sagitta_env::Env;
use sagitta_model::CollectionName;

/// How searches are sent.
#[derive(Clone, Debug)]
pub(super) struct Load {
    pub(super) env: Env,
    pub(super) collection: CollectionName,
    /// One or more connections; callers are spread over them.
    pub(super) clients: Vec<Client>,
    /// Calls under way at any time.
    pub(super) callers: usize,
    /// Searches per call.
    pub(super) batch: usize,
}

/// What came back.
pub(super) struct Outcome {
    /// The hits of each search, in the order of the searches.
    pub(super) hits: Vec<Vec<ScoredPoint>>,
    /// Of each call.
    pub(super) latencies: Vec<Duration>,
    pub(super) took: Duration,
}

/// The hits of one call, from the first of its searches on, and how long it took.
struct Answered {
    first: usize,
    hits: Vec<Vec<ScoredPoint>>,
    latency: Duration,
}

impl Load {
    /// Runs all searches, as fast as the callers get answers. Ends with the first error.
    pub(super) async fn run(&self, searches: Vec<Search>) -> Result<Outcome, ClientError> {
        let searches = Arc::new(searches);
        let next = Arc::new(AtomicUsize::new(0));
        let begun = self.env.now();
        let callers: Vec<_> = (0..self.callers)
            .map(|caller| {
                let load = self.clone();
                let client = self.clients[caller % self.clients.len()].clone();
                let (searches, next) = (searches.clone(), next.clone());
                self.env.spawn(async move { load.call_on(&client, &searches, &next).await })
            })
            .collect();
        let mut hits = vec![Vec::new(); searches.len()];
        let mut latencies = Vec::new();
        let mut failure = None;
        for caller in callers {
            match caller.await.expect("invariant: callers do not panic") {
                Ok(answers) => {
                    for answer in answers {
                        latencies.push(answer.latency);
                        hits[answer.first..].iter_mut().zip(answer.hits).for_each(|(slot, found)| *slot = found);
                    }
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        match failure {
            None => Ok(Outcome { hits, latencies, took: self.env.now().saturating_sub(begun) }),
            Some(error) => Err(error),
        }
    }

    async fn call_on(
        &self,
        client: &Client,
        searches: &[Search],
        next: &AtomicUsize,
    ) -> Result<Vec<Answered>, ClientError> {
        let mut answers = Vec::new();
        loop {
            let first = next.fetch_add(self.batch, Ordering::Relaxed);
            let Some(batch) = searches.get(first..searches.len().min(first + self.batch)).filter(|b| !b.is_empty())
            else {
                return Ok(answers);
            };
            let request = match batch {
                [one] if self.batch == 1 => Searches::one(self.collection.clone(), one.clone()),
                several => Searches::batch(self.collection.clone(), several.to_vec()),
            };
            let begun = self.env.now();
            let answer = match client.search(request).await {
                Ok(answer) => answer,
                Err(error) => {
                    // The other callers need not go on.
                    next.store(searches.len(), Ordering::Relaxed);
                    return Err(error);
                }
            };
            let latency = self.env.now().saturating_sub(begun);
            let hits = answer.results.into_iter().map(|result| result.hits).collect();
            answers.push(Answered { first, hits, latency });
        }
    }
}
