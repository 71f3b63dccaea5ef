//! All that a server answers about some collections, to be compared with what it answers later.

use std::sync::Arc;

use sagitta_client::{Client, ClientError, Count, ScoredPoint};
use sagitta_model::{Condition, Consistency, Effort, ErrorKind, Filter, Record, Scalar, SearchQuery, Test};

use crate::harness::{Rng, all_points, name, query, scroll, searches};

/// Queries of each collection, each asked in all ways.
const QUERIES: usize = 4;
/// Exact hits that are remembered of each query.
const DEPTH: usize = 100;
const K: usize = 10;
/// Of the nearest ten, those that a search at the default finds at least, over all queries.
const LEAST_RECALL: f64 = 0.8;

/// What was answered.
pub(crate) struct Answers(Vec<Collection>);

struct Collection {
    name: &'static str,
    records: Vec<Record>,
    count: u64,
    queries: Vec<(Vec<f32>, Vec<ScoredPoint>)>,
}

impl Answers {
    /// Asks for everything. `collections` are names and dimensions.
    pub(crate) async fn of(client: &Client, collections: &[(&'static str, usize)]) -> Self {
        let mut answers = Vec::new();
        for &(name, dim) in collections {
            let mut rng = Rng::new(dim as u64);
            let records = all_points(client, name, None).await;
            let count = count(client, name).await.expect("points are counted");
            let mut queries = Vec::new();
            for _ in 0..QUERIES {
                let vector = rng.vector(dim);
                let hits = search(client, name, &vector, Effort::Exact, DEPTH).await.expect("a search");
                assert_eq!(hits.len(), DEPTH.min(records.len()));
                queries.push((vector, hits));
            }
            answers.push(Collection { name, records, count, queries });
        }
        Self(answers)
    }

    /// Asks for everything again. What is answered must be the same; where no answer is given because data is damaged, that
    /// is the result.
    pub(crate) async fn check(&self, client: &Client, at: &str) -> Result<(), ClientError> {
        let mut refused = None;
        for collection in &self.0 {
            let mut asked = vec![collection.check_records(client, at).await];
            asked.push(collection.check_searches(client, at).await);
            for error in asked.into_iter().filter_map(Result::err) {
                assert_eq!(error.kind, ErrorKind::Corrupt, "{at}: {error:?}");
                refused = Some(error);
            }
        }
        refused.map_or(Ok(()), Err)
    }
}

impl Collection {
    async fn check_records(&self, client: &Client, at: &str) -> Result<(), ClientError> {
        let counted = count(client, self.name).await.map(|count| assert_eq!(count, self.count, "{at}: a count"));
        let records = scroll(client, self.name, None).await?;
        assert_eq!(records.len(), self.records.len(), "{at}: {} points", self.name);
        for (found, expected) in records.iter().zip(&self.records) {
            assert_eq!(found, expected, "{at}: a point of {}", self.name);
        }
        counted
    }

    async fn check_searches(&self, client: &Client, at: &str) -> Result<(), ClientError> {
        let mut refused = None;
        let mut recalled = 0;
        for (vector, expected) in &self.queries {
            match search(client, self.name, vector, Effort::Exact, DEPTH).await {
                Ok(hits) => assert_eq!(&hits, expected, "{at}: an exact search in {}", self.name),
                Err(error) => refused = Some(error),
            }
            match search(client, self.name, vector, Effort::default(), K).await {
                Ok(hits) => {
                    assert_eq!(hits.len(), K, "{at}: a search in {}", self.name);
                    for hit in &hits {
                        let known = expected.iter().find(|known| known.id == hit.id);
                        assert_eq!(known, Some(hit), "{at}: a hit in {}", self.name);
                    }
                    recalled += hits.iter().filter(|hit| expected[..K].contains(hit)).count();
                }
                Err(error) => refused = Some(error),
            }
        }
        let recall = recalled as f64 / (K * self.queries.len()) as f64;
        assert!(refused.is_some() || recall >= LEAST_RECALL, "{at}: the recall in {} is {recall}", self.name);
        refused.map_or(Ok(()), Err)
    }
}

/// Of those in one group, by their payload.
async fn count(client: &Client, collection: &str) -> Result<u64, ClientError> {
    let test = Test::Match(Scalar::String("g3".to_owned()));
    let condition = Condition::Field { path: "group".parse().expect("a path"), test };
    let filter = Some(Arc::new(Filter { must: vec![condition], ..Filter::default() }));
    client.count(Count { collection: name(collection), filter, consistency: Consistency::Strong }).await
}

async fn search(
    client: &Client,
    collection: &str,
    vector: &[f32],
    effort: Effort,
    k: usize,
) -> Result<Vec<ScoredPoint>, ClientError> {
    let query = SearchQuery { effort, ..query(vector.to_vec(), k) };
    Ok(client.search(searches(collection, query)).await?.results.remove(0).hits)
}
