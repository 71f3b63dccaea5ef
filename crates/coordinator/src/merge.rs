//! Putting the answers of several shards together.

use std::collections::HashMap;

use sagitta_model::{Explanation, FoundPoint, Group, Hit, SearchQuery, SearchResult, Selection, Value};

/// Merges what each shard found: `parts[shard][query]` becomes one result per query.
pub(crate) fn merge_results(
    mut parts: Vec<Vec<SearchResult>>,
    queries: &[(SearchQuery, Selection)],
) -> Vec<SearchResult> {
    if parts.len() == 1 {
        return parts.remove(0);
    }
    let mut parts: Vec<_> = parts.into_iter().map(Vec::into_iter).collect();
    let mut next = |query: &SearchQuery| {
        let results = parts.iter_mut().filter_map(Iterator::next);
        merge_one(results, query)
    };
    queries.iter().map(|(query, _)| next(query)).collect()
}

fn merge_one(results: impl Iterator<Item = SearchResult>, query: &SearchQuery) -> SearchResult {
    let mut merged = SearchResult::default();
    for mut result in results {
        merged.hits.append(&mut result.hits);
        merged.groups.append(&mut result.groups);
        if let Some(explanation) = result.explanation {
            add(merged.explanation.get_or_insert_default(), *explanation);
        }
    }
    rank(&mut merged.hits, query.k);
    if let Some(group_by) = &query.group_by {
        merged.groups = merge_groups(merged.groups, query.k, group_by.size);
    }
    merged
}

fn hit(found: &FoundPoint) -> Hit {
    Hit { id: found.id, similarity: found.similarity }
}

fn rank(hits: &mut Vec<FoundPoint>, k: usize) {
    hits.sort_by(|a, b| hit(a).rank(&hit(b)));
    hits.truncate(k);
}

/// The groups of the same value become one; the `k` with the best first hits stay.
fn merge_groups(groups: Vec<Group>, k: usize, size: usize) -> Vec<Group> {
    let mut merged: Vec<Group> = Vec::new();
    let mut place: HashMap<String, usize> = HashMap::new();
    for group in groups {
        let at = *place.entry(group_key(&group.key)).or_insert(merged.len());
        match merged.get_mut(at) {
            Some(same) => same.hits.extend(group.hits),
            None => merged.push(group),
        }
    }
    for group in &mut merged {
        rank(&mut group.hits, size);
    }
    merged.retain(|group| !group.hits.is_empty());
    merged
        .sort_by(|a, b| hit(&a.hits[0]).rank(&hit(&b.hits[0])).then_with(|| group_key(&a.key).cmp(&group_key(&b.key))));
    merged.truncate(k);
    merged
}

/// Values of a declared field are scalars; their debug text tells them apart.
fn group_key(value: &Value) -> String {
    format!("{value:?}")
}

/// Shards work side by side: of each stage the slowest counts.
fn add(total: &mut Explanation, part: Explanation) {
    total.queue_us = total.queue_us.max(part.queue_us);
    total.plan_us = total.plan_us.max(part.plan_us);
    total.search_us = total.search_us.max(part.search_us);
    total.rerank_us = total.rerank_us.max(part.rerank_us);
    total.merge_us = total.merge_us.max(part.merge_us);
    total.hydrate_us = total.hydrate_us.max(part.hydrate_us);
    total.segments.extend(part.segments);
}

#[cfg(test)]
mod tests {
    use sagitta_model::{Effort, GroupBy, PointId};

    use super::*;

    fn found(id: u64, similarity: f32) -> FoundPoint {
        FoundPoint { id: PointId::Num(id), similarity, record: None }
    }

    fn query(k: usize, group_by: Option<GroupBy>) -> (SearchQuery, Selection) {
        let query = SearchQuery {
            vector_name: "v".into(),
            vector: vec![1.0],
            k,
            min_similarity: None,
            filter: None,
            effort: Effort::default(),
            group_by,
        };
        (query, Selection::default())
    }

    fn ids(hits: &[FoundPoint]) -> Vec<String> {
        hits.iter().map(|hit| hit.id.to_string()).collect()
    }

    #[test]
    fn hits_of_several_shards_are_ranked_with_ties_by_id() {
        let shard = |hits: Vec<FoundPoint>| vec![SearchResult { hits, ..SearchResult::default() }];
        let parts =
            vec![shard(vec![found(4, 0.9), found(9, 0.5)]), shard(vec![found(3, 0.9), found(8, 0.6)]), shard(vec![])];
        let merged = merge_results(parts, &[query(3, None)]);
        assert_eq!(ids(&merged[0].hits), ["3", "4", "8"]);
        assert_eq!(merge_results(Vec::new(), &[query(3, None)]), [SearchResult::default()]);
    }

    #[test]
    fn groups_of_the_same_value_become_one() {
        let group = |key: &str, hits: Vec<FoundPoint>| Group { key: key.into(), hits };
        let shard = |groups: Vec<Group>| vec![SearchResult { groups, ..SearchResult::default() }];
        let parts = vec![
            shard(vec![group("a", vec![found(1, 0.9), found(2, 0.1)]), group("b", vec![found(3, 0.8)])]),
            shard(vec![group("c", vec![found(4, 0.85)]), group("a", vec![found(5, 0.5)])]),
        ];
        let by = GroupBy { field: "f".parse().expect("path"), size: 2 };
        let merged = merge_results(parts, &[query(2, Some(by))]);
        let groups: Vec<_> = merged[0].groups.iter().map(|group| (group.key.clone(), ids(&group.hits))).collect();
        assert_eq!(groups, [("a".into(), vec!["1".to_owned(), "5".into()]), ("c".into(), vec!["4".into()])]);
    }
}
