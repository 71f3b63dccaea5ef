//! A search's result with the selected parts of the found points, all as of one view.

use sagitta_model::{
    Explanation, FoundPoint, Group, Hit, PayloadSelection, SearchQuery, SearchResult, Selection, VectorSelection,
};
use sagitta_shard::{ReadView, SearchContext, ShardError};

/// Searches a view and reads what was selected of the hits.
pub(crate) fn answer(
    view: &ReadView,
    query: &SearchQuery,
    selection: &Selection,
    context: &SearchContext<'_>,
) -> Result<SearchResult, ShardError> {
    let found = view.search(query, context)?;
    let started = context.explain.then(|| view.env().now());
    let hits = hydrate(view, &found.hits, selection)?;
    let groups = found.groups.into_iter().map(|(key, hits)| Ok(Group { key, hits: hydrate(view, &hits, selection)? }));
    let groups = groups.collect::<Result<_, ShardError>>()?;
    let mut explanation: Option<Box<Explanation>> = found.explanation;
    if let (Some(explanation), Some(started)) = (&mut explanation, started) {
        explanation.hydrate_us = (view.env().now() - started).as_micros() as u64;
    }
    Ok(SearchResult { hits, groups, explanation })
}

fn hydrate(view: &ReadView, hits: &[Hit], selection: &Selection) -> Result<Vec<FoundPoint>, ShardError> {
    let bare = |hit: &Hit| FoundPoint { id: hit.id, similarity: hit.similarity, record: None };
    if selection.payload == PayloadSelection::None && selection.vectors == VectorSelection::None {
        return Ok(hits.iter().map(bare).collect());
    }
    let records = view.hydrate(hits, selection)?;
    let with = |(hit, record)| FoundPoint { record: Some(Box::new(record)), ..bare(hit) };
    Ok(hits.iter().zip(records).map(with).collect())
}
