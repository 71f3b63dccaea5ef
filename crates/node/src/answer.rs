//! A search's result with the selected parts of the found points, all as of one view.

use sagitta_model::{
    Explanation, FoundPoint, Group, Hit, PayloadSelection, SearchQuery, SearchResult, Selection, VectorSelection,
};
use sagitta_shard::{AnswerRoom, ReadView, SearchContext, ShardError};

/// What a hit takes of the room of its answer when nothing of its point is selected: what an id and a score take in a
/// message at most, and about three times of what they take at the least, so that no hits are refused that would fit.
const BARE_HIT_WEIGHT: usize = 32;

/// Searches a view and reads what was selected of the hits, for an answer that has so much room.
pub(crate) fn answer(
    view: &ReadView,
    query: &SearchQuery,
    selection: &Selection,
    context: &SearchContext<'_>,
    room: &AnswerRoom,
) -> Result<SearchResult, ShardError> {
    let found = view.search(query, context)?;
    let started = context.explain.then(|| view.env().now());
    let hits = hydrate(view, &found.hits, selection, room)?;
    let group = |(key, hits): (_, Vec<Hit>)| Ok(Group { key, hits: hydrate(view, &hits, selection, room)? });
    let groups = found.groups.into_iter().map(group).collect::<Result<_, ShardError>>()?;
    let mut explanation: Option<Box<Explanation>> = found.explanation;
    if let (Some(explanation), Some(started)) = (&mut explanation, started) {
        explanation.hydrate_us = (view.env().now() - started).as_micros() as u64;
    }
    Ok(SearchResult { hits, groups, explanation })
}

fn hydrate(
    view: &ReadView,
    hits: &[Hit],
    selection: &Selection,
    room: &AnswerRoom,
) -> Result<Vec<FoundPoint>, ShardError> {
    let bare = |hit: &Hit| FoundPoint { id: hit.id, similarity: hit.similarity, record: None };
    if selection.payload == PayloadSelection::None && selection.vectors == VectorSelection::None {
        room.take(hits.len() * BARE_HIT_WEIGHT)?;
        return Ok(hits.iter().map(bare).collect());
    }
    let records = view.hydrate(hits, selection, room)?;
    let with = |(hit, record)| FoundPoint { record: Some(Box::new(record)), ..bare(hit) };
    Ok(hits.iter().zip(records).map(with).collect())
}
