//! Comparing what a view answers with what a map would.

use sagitta_engine::index::Never;
use sagitta_model::{Effort, PayloadSelection, SearchQuery, Selection, VectorSelection};

use super::dice::Dice;
use super::naive::Naive;
use crate::{ReadView, SearchContext};

/// A view and the map that it must agree with.
pub(super) struct Check<'a> {
    pub(super) view: &'a ReadView,
    pub(super) naive: &'a Naive,
    pub(super) dice: &'a Dice,
    /// Whether every search finds exactly the nearest.
    pub(super) is_exact: bool,
    /// For whoever reads the failure.
    pub(super) at: &'a str,
}

impl Check<'_> {
    pub(super) fn search(&self, query: &SearchQuery) {
        let Self { view, naive, at, .. } = self;
        let context = SearchContext { stop: &Never, explain: self.dice.one_in(2) };
        let found = view.search(query, &context).unwrap_or_else(|error| panic!("{at}: {error}")).hits;
        let ranking = naive.ranking(query, view.index_engine());
        let expected = &ranking[..ranking.len().min(query.k)];
        if self.is_exact || query.effort == Effort::Exact {
            assert_eq!(found, expected, "{at}: {query:?}");
            return;
        }
        // Perhaps not the nearest, but as many as there are, each alive, passing, scored right and in order.
        if query.min_similarity.is_none() {
            assert_eq!(found.len(), expected.len(), "{at}: {query:?}");
        }
        assert!(found.is_sorted_by(|a, b| a.rank(b).is_lt()), "{at}: {query:?}");
        for hit in &found {
            assert!(ranking.contains(hit), "{at}: {hit:?} for {query:?}");
        }
    }

    pub(super) fn get(&self) {
        let ids = self.dice.ids(20);
        let records = self.view.get(&ids, &everything()).expect("points are read");
        let expected: Vec<_> = ids.iter().filter_map(|id| self.naive.record(*id)).collect();
        assert_eq!(records, expected, "{}", self.at);
    }

    pub(super) fn count(&self) {
        let filter = self.dice.filter();
        let count = self.view.count(Some(&filter), &Never).expect("points are counted");
        assert_eq!(count, self.naive.matching(None, &filter).len() as u64, "{}: {filter:?}", self.at);
    }

    pub(super) fn scroll(&self) {
        let filter = self.dice.filter();
        let after = self.dice.one_in(2).then(|| self.dice.id());
        let limit = self.dice.below(40) as usize;
        let records = self.view.scroll(after, Some(&filter), limit, &everything(), &Never);
        let mut expected = self.naive.matching(after, &filter);
        expected.truncate(limit);
        let expected: Vec<_> = expected.iter().filter_map(|id| self.naive.record(*id)).collect();
        assert_eq!(records.expect("points are listed"), expected, "{}: {filter:?}", self.at);
    }

    /// All that there is, in every way of reading.
    pub(super) fn everything(&self) {
        let Self { view, naive, at, .. } = self;
        let expected: Vec<_> = naive.points.keys().filter_map(|id| naive.record(*id)).collect();
        let count = expected.len() as u64;
        assert_eq!(view.count(None, &Never).expect("points are counted"), count, "{at}");
        let records = view.scroll(None, None, usize::MAX, &everything(), &Never).expect("points are listed");
        assert_eq!(records, expected, "{at}");
        for effort in [Effort::Exact, Effort::default()] {
            self.search(&SearchQuery { effort, filter: None, k: 10_000, ..self.dice.query(view.schema()) });
        }
        let live: usize = view.segments().iter().map(|segment| segment.live.count()).sum();
        let unsealed: usize = view.generations().iter().map(|generation| generation.live()).sum();
        assert_eq!((live + unsealed) as u64, count, "{at}: live rows");
    }
}

fn everything() -> Selection {
    Selection { payload: PayloadSelection::All, vectors: VectorSelection::All }
}
