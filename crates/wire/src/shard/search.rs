//! Queries to the shards of a node and what was found in them. This is passed for every query of every caller: what is read
//! here is not copied more often than the model asks for.

use std::sync::Arc;

use sagitta_model::{
    FoundPoint, Group, PayloadSelection, PointId, Record, SearchQuery, SearchResult, Selection, ShardRef, Tokens,
    Value, Violation, limits,
};

use super::{Answer, Answered, error, fields, outcome, tokens_from, tokens_into};
use crate::common::{Convert, bounded, count, each, narrow, required};
use crate::internal as p;
use crate::points::{named_vectors_from, named_vectors_into, optional_filter_from, optional_filter_into};
use crate::read::{selection_from, selection_into};
use crate::search::explain::{explanation_from, explanation_into};
use crate::search::{effort_from, effort_into, group_by_from, group_by_into};
use crate::v1;
use crate::value::{object_into, payload_from};
use crate::vector::{check_dimension, pack, unpack};

/// Shards in one call: as many as a collection has at most.
pub const MAX_SHARDS: usize = sagitta_cluster::limits::MAX_SHARDS as usize;

/// Queries to some shards.
#[derive(Clone, Debug, PartialEq)]
pub struct Search {
    /// Where; each shard once.
    pub shards: Vec<ShardRef>,
    /// What to look for, and what to return of the hits.
    pub queries: Arc<[(SearchQuery, Selection)]>,
    /// Whether to tell how the queries were run.
    pub explain: bool,
    /// What the shards must have seen.
    pub tokens: Tokens,
}

/// The request for a [`Search`], from the parts that its caller shares with others.
pub fn search_request(
    shards: &[ShardRef],
    queries: &[(SearchQuery, Selection)],
    explain: bool,
    tokens: &Tokens,
) -> p::ShardSearchRequest {
    p::ShardSearchRequest {
        shards: shards.iter().map(|shard| shard.into_proto()).collect(),
        queries: queries.iter().map(query_into).collect(),
        explain,
        freshness: tokens_into(tokens),
    }
}

impl Convert for Search {
    type Proto = p::ShardSearchRequest;
    type Error = Violation;

    fn from_proto(proto: p::ShardSearchRequest) -> Result<Self, Violation> {
        count("shards", proto.shards.len(), 1, MAX_SHARDS)?;
        count("queries", proto.queries.len(), 1, limits::MAX_BATCH_SEARCHES)?;
        let shards = each("shards", proto.shards, ShardRef::from_proto)?;
        check_distinct(&shards)?;
        Ok(Self {
            shards,
            queries: each("queries", proto.queries, query_from)?.into(),
            explain: proto.explain,
            tokens: tokens_from(proto.freshness)?,
        })
    }

    fn into_proto(self) -> p::ShardSearchRequest {
        search_request(&self.shards, &self.queries, self.explain, &self.tokens)
    }
}

fn check_distinct(shards: &[ShardRef]) -> Result<(), Violation> {
    let mut ids: Vec<u64> = shards.iter().map(|shard| shard.shard).collect();
    ids.sort_unstable();
    match ids.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(twice) => Err(Violation::new("shards", format!("name shard {} twice", twice[0]))),
        None => Ok(()),
    }
}

fn query_into((query, selection): &(SearchQuery, Selection)) -> p::ShardQuery {
    use p::shard_query::Effort as E;
    use v1::search_query::Effort as Public;
    let (payload, vectors) = selection_into(selection.clone());
    p::ShardQuery {
        vector_name: query.vector_name.clone(),
        vector: pack(&query.vector),
        k: narrow(query.k),
        min_similarity: query.min_similarity,
        effort: Some(match effort_into(query.effort) {
            Public::RecallTarget(target) => E::RecallTarget(target),
            Public::Knobs(knobs) => E::Knobs(knobs),
            Public::Exact(exact) => E::Exact(exact),
        }),
        filter: optional_filter_into(query.filter.clone()),
        group_by: query.group_by.as_ref().map(group_by_into),
        payload,
        vectors,
    }
}

fn query_from(proto: p::ShardQuery) -> Result<(SearchQuery, Selection), Violation> {
    use p::shard_query::Effort as E;
    use v1::search_query::Effort as Public;
    if proto.min_similarity.is_some_and(f32::is_nan) {
        return Err(Violation::new("min_similarity", "is not a number (NaN)"));
    }
    let name = crate::common::text("vector_name", proto.vector_name, 0, limits::MAX_NAME_BYTES)?;
    let vector = unpack(&proto.vector).map_err(|violation| Violation::new("vector", violation.reason))?;
    check_dimension(vector.len()).map_err(|violation| violation.within("vector"))?;
    if let Some(at) = vector.iter().position(|component| !component.is_finite()) {
        let reason = format!("is {}, expected a finite number", vector[at]);
        return Err(Violation::new(format!("vector[{at}]"), reason));
    }
    let query = SearchQuery {
        vector_name: name,
        vector,
        k: bounded("k", proto.k, limits::MAX_K)?,
        min_similarity: proto.min_similarity,
        filter: optional_filter_from(proto.filter)?,
        effort: effort_from(proto.effort.map(|effort| match effort {
            E::RecallTarget(target) => Public::RecallTarget(target),
            E::Knobs(knobs) => Public::Knobs(knobs),
            E::Exact(exact) => Public::Exact(exact),
        }))?,
        group_by: proto.group_by.as_ref().map(group_by_from).transpose().map_err(|v| v.within("group_by"))?,
    };
    Ok((query, selection_from(proto.payload, proto.vectors)?))
}

/// The answer to a [`Search`]: what was found in each of its shards, in their order.
pub fn search_answer(answers: Vec<(u64, Answer<Vec<SearchResult>>)>) -> p::ShardSearchResponse {
    let shards = answers.into_iter().map(|(shard, answer)| {
        let (results, error) = fields(answer);
        let results = results.unwrap_or_default().into_iter().map(result_into).collect();
        p::ShardResults { shard, results, error }
    });
    let mut message = p::ShardSearchResponse { shards: shards.collect() };
    if prost::Message::encoded_len(&message) > super::MAX_ANSWER_BYTES {
        for shard in &mut message.shards {
            *shard = p::ShardResults { shard: shard.shard, results: Vec::new(), error: Some(error::too_heavy()) };
        }
    }
    message
}

impl Answered for p::ShardSearchResponse {
    /// The shards, and the queries with what was to be returned.
    type Asked = (Vec<ShardRef>, Arc<[(SearchQuery, Selection)]>);
    type Value = Vec<(u64, Answer<Vec<SearchResult>>)>;

    fn answered(self, (shards, queries): &Self::Asked) -> Result<Self::Value, Violation> {
        count("shards", self.shards.len(), shards.len(), shards.len())?;
        let mut asked = shards.iter();
        each("shards", self.shards, |part| {
            let expected = asked.next().map_or(0, |shard| shard.shard);
            if part.shard != expected {
                return Err(Violation::new("shard", format!("is {}, asked was {expected}", part.shard)));
            }
            let answer = outcome(part.error, || results_from(part.results, queries))?;
            Ok::<_, Violation>((part.shard, answer))
        })
    }
}

fn results_from(
    results: Vec<p::ShardResult>,
    queries: &[(SearchQuery, Selection)],
) -> Result<Vec<SearchResult>, Violation> {
    count("results", results.len(), queries.len(), queries.len())?;
    let mut queries = queries.iter();
    each("results", results, |result| match queries.next() {
        Some((query, selection)) => result_from(result, query, selection),
        None => Err(Violation::new("", "answers no query")),
    })
}

fn result_into(result: SearchResult) -> p::ShardResult {
    let groups = result.groups.into_iter();
    let groups = groups.map(|Group { key, hits }| p::ShardGroup { key: Some(key.into_proto()), hits: hits_into(hits) });
    p::ShardResult {
        hits: hits_into(result.hits),
        groups: groups.collect(),
        explanation: result.explanation.as_deref().map(explanation_into),
    }
}

fn result_from(proto: p::ShardResult, query: &SearchQuery, selection: &Selection) -> Result<SearchResult, Violation> {
    let (most_hits, most_groups, size) = match &query.group_by {
        None => (query.k, 0, 0),
        Some(group_by) => (0, query.k, group_by.size),
    };
    count("groups", proto.groups.len(), 0, most_groups)?;
    let explanation = proto.explanation.map(explanation_from).transpose().map_err(|v| v.within("explanation"))?;
    Ok(SearchResult {
        hits: hits_from(proto.hits, most_hits, selection)?,
        groups: each("groups", proto.groups, |group| {
            let key = Value::from_proto(required("key", group.key)?).map_err(|v| v.within("key"))?;
            Ok::<_, Violation>(Group { key, hits: hits_from(group.hits, size, selection)? })
        })?,
        explanation: explanation.map(Box::new),
    })
}

fn hits_into(hits: Vec<FoundPoint>) -> Vec<p::ShardHit> {
    let hits = hits.into_iter().map(|found| {
        let (id, uuid_high) = match found.id {
            PointId::Num(number) => (number, None),
            PointId::Uuid(uuid) => (uuid as u64, Some((uuid >> 64) as u64)),
        };
        let record = found.record.map(|record| {
            let Record { id: _, version, payload, vectors } = *record;
            let (payload, vectors) = (object_into(payload.unwrap_or_default()), named_vectors_into(vectors));
            Box::new(p::ShardRecord { version, payload, vectors })
        });
        p::ShardHit { id, uuid_high, similarity: Some(found.similarity), record }
    });
    hits.collect()
}

fn hits_from(hits: Vec<p::ShardHit>, most: usize, selection: &Selection) -> Result<Vec<FoundPoint>, Violation> {
    count("hits", hits.len(), 0, most)?;
    each("hits", hits, |hit| {
        let similarity = required("similarity", hit.similarity)?;
        if !similarity.is_finite() {
            return Err(Violation::new("similarity", format!("is {similarity}, expected a finite number")));
        }
        let id = match hit.uuid_high {
            None => PointId::Num(hit.id),
            Some(high) => PointId::Uuid(u128::from(high) << 64 | u128::from(hit.id)),
        };
        let record = hit.record.map(|record| record_from(id, *record, selection)).transpose();
        let record = record.map_err(|violation| violation.within("record"))?;
        Ok(FoundPoint { id, similarity, record: record.map(Box::new) })
    })
}

fn record_from(id: PointId, proto: p::ShardRecord, selection: &Selection) -> Result<Record, Violation> {
    let payload = payload_from("payload", proto.payload)?;
    let selected = selection.payload != PayloadSelection::None;
    let vectors = named_vectors_from(proto.vectors)?;
    Ok(Record { id, version: proto.version, payload: selected.then_some(payload), vectors })
}
