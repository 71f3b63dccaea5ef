//! Requests and answers of `SearchService`.

use sagitta_model::{
    CollectionName, Consistency, Coverage, Effort, Explanation, FoundPoint, Group, GroupBy, Knobs, Metric,
    PayloadSelection, PointId, Problem, Record, Schema, SearchQuery, SearchResult, Selection, Value, Violation, limits,
};

use crate::common::{Convert, bounded, collection_name, count, each, narrow, required, widen};
use crate::error::WireError;
use crate::points::{id_from, named_vectors_from, named_vectors_into, optional_filter_from, optional_filter_into};
use crate::read::{check_selection, consistency_from, selection_from, selection_into};
use crate::v1;
use crate::v1::search_query;
use crate::value::{object_into, payload_from};

/// One or several searches of one collection.
#[derive(Clone, Debug, PartialEq)]
pub struct Searches {
    /// Of which collection.
    pub collection: CollectionName,
    /// What to look for; one in a `Search`.
    pub searches: Vec<Search>,
    /// How fresh.
    pub consistency: Consistency,
    /// Whether an answer of fewer shards is better than none.
    pub allow_partial: bool,
    /// Whether the caller used `SearchBatch`; it decides the paths in errors.
    pub batch: bool,
}

/// One search and what to return.
#[derive(Clone, Debug, PartialEq)]
pub struct Search {
    /// What to look for. Its `min_similarity` is not sent; it follows from `score_threshold` and the metric.
    pub query: SearchQuery,
    /// Leave out hits that are less near than this score.
    pub score_threshold: Option<f32>,
    /// What to return of the hits.
    pub selection: Selection,
    /// Whether to tell how the search was run.
    pub explain: bool,
}

/// The results of [`Searches`] as callers see them.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchAnswer {
    /// One for each search, in their order.
    pub results: Vec<ScoredResult>,
    /// Which part of the collection was searched.
    pub coverage: Coverage,
}

/// What one search found, with scores instead of similarities.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScoredResult {
    /// The hits, nearest first; none when grouped.
    pub hits: Vec<ScoredPoint>,
    /// The groups, ordered by their best hits.
    pub groups: Vec<ScoredGroup>,
    /// How the search was run.
    pub explanation: Option<Box<Explanation>>,
}

/// A found point as callers see it.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoredPoint {
    /// Which point.
    pub id: PointId,
    /// How near: under L2 the squared distance, else the similarity.
    pub score: f32,
    /// The selected parts of it; `None` if nothing was selected.
    pub record: Option<Box<Record>>,
}

/// The hits of one value of the grouping field.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoredGroup {
    /// The value.
    pub key: Value,
    /// The hits, nearest first.
    pub hits: Vec<ScoredPoint>,
}

impl Searches {
    /// One search of a collection, as fresh as any copy is.
    pub fn one(collection: CollectionName, search: Search) -> Self {
        Self { batch: false, ..Self::batch(collection, vec![search]) }
    }

    /// Several searches of a collection, as fresh as any copy is.
    pub fn batch(collection: CollectionName, searches: Vec<Search>) -> Self {
        Self { collection, searches, consistency: Consistency::default(), allow_partial: false, batch: true }
    }

    /// Reads a request with one search.
    pub fn from_single(proto: v1::SearchRequest) -> Result<Self, WireError> {
        let search = Search::from_proto(required("search", proto.search)?).map_err(|v| v.within("search"))?;
        Ok(Self {
            collection: collection_name(&proto.collection)?,
            searches: vec![search],
            consistency: consistency_from(proto.consistency)?,
            allow_partial: proto.allow_partial,
            batch: false,
        })
    }

    /// Reads a request with several searches.
    pub fn from_batch(proto: v1::SearchBatchRequest) -> Result<Self, WireError> {
        count("searches", proto.searches.len(), 1, limits::MAX_BATCH_SEARCHES)?;
        Ok(Self {
            collection: collection_name(&proto.collection)?,
            searches: each("searches", proto.searches, Search::from_proto)?,
            consistency: consistency_from(proto.consistency)?,
            allow_partial: proto.allow_partial,
            batch: true,
        })
    }

    /// Resolves every search, and returns the metric of each; see [`Search::resolve`].
    pub fn resolve(&mut self, schema: &Schema) -> Result<Vec<Metric>, Violation> {
        let batch = self.batch;
        let path = |at| {
            if batch { format!("searches[{at}]") } else { "search".to_owned() }
        };
        let searches = self.searches.iter_mut().enumerate();
        searches.map(|(at, search)| search.resolve(schema).map_err(|v| v.within(&path(at)))).collect()
    }

    /// The request for the first of the searches alone.
    pub fn into_single(self) -> v1::SearchRequest {
        v1::SearchRequest {
            collection: self.collection.to_string(),
            search: self.searches.into_iter().next().map(Convert::into_proto),
            consistency: Some(self.consistency.into_proto()),
            allow_partial: self.allow_partial,
        }
    }

    /// The request for several searches.
    pub fn into_batch(self) -> v1::SearchBatchRequest {
        v1::SearchBatchRequest {
            collection: self.collection.to_string(),
            searches: self.searches.into_iter().map(Convert::into_proto).collect(),
            consistency: Some(self.consistency.into_proto()),
            allow_partial: self.allow_partial,
        }
    }
}

impl Search {
    /// The `k` points nearest to a vector of the collection's only kind, ids and scores alone.
    pub fn nearest(vector: Vec<f32>, k: usize) -> Self {
        let query = SearchQuery {
            vector_name: String::new(),
            vector,
            k,
            min_similarity: None,
            filter: None,
            effort: Effort::default(),
            group_by: None,
        };
        Self { query, score_threshold: None, selection: Selection::default(), explain: false }
    }

    /// Names the vector, turns the threshold into a similarity, and checks everything against the schema.
    /// Returns the metric, by which similarities become scores. The path in an error is relative to the search.
    pub fn resolve(&mut self, schema: &Schema) -> Result<Metric, Violation> {
        let (name, spec) = schema.vector(&self.query.vector_name)?;
        self.query.min_similarity = self.score_threshold.map(|score| spec.metric.similarity(score));
        self.query.validate(schema)?;
        check_selection(&self.selection, schema)?;
        if self.query.vector_name.is_empty() {
            name.clone_into(&mut self.query.vector_name);
        }
        Ok(spec.metric)
    }
}

impl Convert for Search {
    type Proto = v1::SearchQuery;
    type Error = Violation;

    fn from_proto(proto: v1::SearchQuery) -> Result<Self, Violation> {
        let vector = required("vector", proto.vector)?;
        let query = SearchQuery {
            vector_name: proto.vector_name,
            vector: Vec::from_proto(vector).map_err(|v| v.within("vector"))?,
            k: bounded("k", proto.k, limits::MAX_K)?,
            min_similarity: None,
            filter: optional_filter_from(proto.filter)?,
            effort: effort_from(proto.effort)?,
            group_by: proto.group_by.as_ref().map(group_by_from).transpose().map_err(|v| v.within("group_by"))?,
        };
        if proto.score_threshold.is_some_and(f32::is_nan) {
            return Err(Violation::new("score_threshold", "is not a number (NaN)"));
        }
        Ok(Self {
            query,
            score_threshold: proto.score_threshold,
            selection: selection_from(proto.payload, proto.vectors)?,
            explain: proto.explain,
        })
    }

    fn into_proto(self) -> v1::SearchQuery {
        let (payload, vectors) = selection_into(self.selection);
        v1::SearchQuery {
            vector_name: self.query.vector_name,
            vector: Some(self.query.vector.into_proto()),
            k: narrow(self.query.k),
            score_threshold: self.score_threshold,
            effort: Some(effort_into(self.query.effort)),
            filter: optional_filter_into(self.query.filter),
            group_by: self.query.group_by.as_ref().map(group_by_into),
            payload,
            vectors,
            explain: self.explain,
        }
    }
}

pub(crate) fn effort_from(proto: Option<search_query::Effort>) -> Result<Effort, Violation> {
    match proto {
        None => Ok(Effort::default()),
        Some(search_query::Effort::RecallTarget(target)) if target > 0.0 && target <= 1.0 => Ok(Effort::Recall(target)),
        Some(search_query::Effort::RecallTarget(target)) => {
            Err(Violation::new("recall_target", format!("is {target}, expected above 0 and at most 1")))
        }
        Some(search_query::Effort::Knobs(knobs)) => {
            let knobs = knobs_from(&knobs).map_err(|violation| violation.within("knobs"))?;
            Ok(Effort::Knobs(knobs))
        }
        Some(search_query::Effort::Exact(v1::ExactSearch {})) => Ok(Effort::Exact),
    }
}

pub(crate) fn effort_into(effort: Effort) -> search_query::Effort {
    match effort {
        Effort::Recall(target) => search_query::Effort::RecallTarget(target),
        Effort::Knobs(knobs) => search_query::Effort::Knobs(knobs_into(knobs)),
        Effort::Exact => search_query::Effort::Exact(v1::ExactSearch {}),
    }
}

fn knobs_from(proto: &v1::SearchKnobs) -> Result<Knobs, Violation> {
    let knob = |name, value: Option<u32>| value.map(|value| bounded(name, value, limits::MAX_BREADTH)).transpose();
    Ok(Knobs {
        ef_search: knob("ef_search", proto.ef_search)?,
        nprobe: knob("nprobe", proto.nprobe)?,
        rerank: knob("rerank", proto.rerank)?,
    })
}

fn knobs_into(knobs: Knobs) -> v1::SearchKnobs {
    v1::SearchKnobs {
        ef_search: knobs.ef_search.map(narrow),
        nprobe: knobs.nprobe.map(narrow),
        rerank: knobs.rerank.map(narrow),
    }
}

pub(crate) fn group_by_from(proto: &v1::GroupBy) -> Result<GroupBy, Violation> {
    Ok(GroupBy {
        field: proto.field.parse().map_err(|violation: Violation| violation.within("field"))?,
        size: bounded("group_size", proto.group_size, limits::MAX_K)?,
    })
}

pub(crate) fn group_by_into(group_by: &GroupBy) -> v1::GroupBy {
    v1::GroupBy { field: group_by.field.to_string(), group_size: narrow(group_by.size) }
}

impl ScoredResult {
    /// A result as callers of a collection with this metric see it.
    pub fn new(result: SearchResult, metric: Metric) -> Self {
        let score = |hits: Vec<FoundPoint>| -> Vec<_> {
            let scored = hits.into_iter().map(|FoundPoint { id, similarity, record }| ScoredPoint {
                id,
                score: metric.score(similarity),
                record,
            });
            scored.collect()
        };
        let groups = result.groups.into_iter();
        Self {
            hits: score(result.hits),
            groups: groups.map(|Group { key, hits }| ScoredGroup { key, hits: score(hits) }).collect(),
            explanation: result.explanation,
        }
    }

    fn into_proto(self) -> v1::SearchResult {
        v1::SearchResult {
            hits: self.hits.into_iter().map(hit_into).collect(),
            groups: self.groups.into_iter().map(group_into).collect(),
            explanation: self.explanation.as_deref().map(explain::explanation_into),
        }
    }

    fn from_proto(proto: v1::SearchResult, selection: &Selection) -> Result<Self, Violation> {
        let explanation = proto.explanation.map(explain::explanation_from).transpose()?;
        Ok(Self {
            hits: each("hits", proto.hits, |hit| hit_from(hit, selection))?,
            groups: each("groups", proto.groups, |group| group_from(group, selection))?,
            explanation: explanation.map(Box::new),
        })
    }
}

impl SearchAnswer {
    /// The answer to a single search: the first result alone.
    pub fn into_single(self) -> v1::SearchResponse {
        v1::SearchResponse {
            result: self.results.into_iter().next().map(ScoredResult::into_proto),
            coverage: Some(self.coverage.into_proto()),
        }
    }

    /// The answer to several searches.
    pub fn into_batch(self) -> v1::SearchBatchResponse {
        v1::SearchBatchResponse {
            results: self.results.into_iter().map(ScoredResult::into_proto).collect(),
            coverage: Some(self.coverage.into_proto()),
        }
    }

    /// Reads the answer to one search with this selection.
    pub fn from_single(proto: v1::SearchResponse, selection: &Selection) -> Result<Self, Violation> {
        let result = required("result", proto.result)?;
        let result = ScoredResult::from_proto(result, selection).map_err(|v| v.within("result"))?;
        Ok(Self { results: vec![result], coverage: coverage_from(proto.coverage)? })
    }

    /// Reads the answer to several searches with these selections.
    pub fn from_batch(proto: v1::SearchBatchResponse, selections: &[Selection]) -> Result<Self, Violation> {
        count("results", proto.results.len(), selections.len(), selections.len())?;
        let mut selections = selections.iter();
        let none = Selection::default();
        let results = each("results", proto.results, |result| {
            ScoredResult::from_proto(result, selections.next().unwrap_or(&none))
        })?;
        Ok(Self { results, coverage: coverage_from(proto.coverage)? })
    }
}

fn hit_into(hit: ScoredPoint) -> v1::SearchHit {
    let id = Some(hit.id.into_proto());
    let Some(record) = hit.record else {
        return v1::SearchHit { id, score: hit.score, ..Default::default() };
    };
    v1::SearchHit {
        id,
        score: hit.score,
        payload: object_into(record.payload.unwrap_or_default()),
        vectors: named_vectors_into(record.vectors),
        version: record.version,
    }
}

fn hit_from(proto: v1::SearchHit, selection: &Selection) -> Result<ScoredPoint, Violation> {
    let id = id_from(proto.id)?;
    if *selection == Selection::default() {
        return Ok(ScoredPoint { id, score: proto.score, record: None });
    }
    let payload = payload_from("payload", proto.payload)?;
    let selected = selection.payload != PayloadSelection::None;
    let record = Record {
        id,
        version: proto.version,
        payload: selected.then_some(payload),
        vectors: named_vectors_from(proto.vectors)?,
    };
    Ok(ScoredPoint { id, score: proto.score, record: Some(Box::new(record)) })
}

fn group_into(group: ScoredGroup) -> v1::SearchGroup {
    v1::SearchGroup { key: Some(group.key.into_proto()), hits: group.hits.into_iter().map(hit_into).collect() }
}

fn group_from(proto: v1::SearchGroup, selection: &Selection) -> Result<ScoredGroup, Violation> {
    Ok(ScoredGroup {
        key: Value::from_proto(required("key", proto.key)?).map_err(|v| v.within("key"))?,
        hits: each("hits", proto.hits, |hit| hit_from(hit, selection))?,
    })
}

impl Convert for Coverage {
    type Proto = v1::Coverage;
    type Error = Violation;

    fn from_proto(proto: v1::Coverage) -> Result<Self, Violation> {
        let missing = each("missing", proto.missing, |shard| {
            let problem = required("problem", shard.problem)?;
            Ok::<_, Violation>((shard.shard, Problem::from_proto(problem)?))
        });
        Ok(Self { shards: widen(proto.shards), missing: missing? })
    }

    fn into_proto(self) -> v1::Coverage {
        let searched = self.shards.saturating_sub(self.missing.len());
        let missing = self.missing.into_iter();
        let missing = missing.map(|(shard, problem)| v1::MissingShard { shard, problem: Some(problem.into_proto()) });
        v1::Coverage { shards: narrow(self.shards), searched: narrow(searched), missing: missing.collect() }
    }
}

fn coverage_from(proto: Option<v1::Coverage>) -> Result<Coverage, Violation> {
    Coverage::from_proto(required("coverage", proto)?).map_err(|violation| violation.within("coverage"))
}

pub(crate) mod explain;
