//! Points that nobody changes, beside others that are written all the time: every read shows each of them once.

use std::sync::Arc;

use sagitta_client::{Client, ClientError, Count, Scroll};
use sagitta_model::filter::Bounds;
use sagitta_model::{Condition, Consistency, Filter, Number, Point, Range, Selection, Test};

use crate::points::{DIM, everything, get, id_of, name, point, search, told};

/// Values from here on: above all that is written meanwhile.
const VALUES: u64 = 1_000_000;
/// Points of a page: so few that a scroll takes several.
const PAGE: usize = 60;

/// Points of a collection that nobody changes.
#[derive(Clone, Debug)]
pub struct Steady {
    collection: String,
    first: u64,
    count: u64,
}

/// A kind of read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// By their ids.
    Get,
    /// How many there are.
    Count,
    /// All of them, page by page.
    Scroll,
    /// All of them, as the nearest ones.
    Search,
}

impl Look {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Get, Self::Count, Self::Scroll, Self::Search];
}

impl Steady {
    /// So many of them, with ids from `first` on.
    pub fn new(collection: &str, first: u64, count: u64) -> Self {
        Self { collection: collection.to_owned(), first, count }
    }

    /// To be written once.
    pub fn points(&self) -> Vec<Point> {
        self.ids().into_iter().map(|id| point(id, VALUES + id)).collect()
    }

    /// Reads all of them, and fails if one is missing, or there twice.
    pub async fn look(&self, client: &Client, look: Look, consistency: Consistency) -> Result<(), ClientError> {
        let (collection, filter) = (name(&self.collection), Some(Arc::new(self.filter())));
        let mut seen: Vec<u64> = match look {
            Look::Get => {
                let records = client.get(get(&self.collection, self.ids(), consistency)).await?;
                records.iter().map(|record| told(record).0).collect()
            }
            Look::Count => {
                let count = client.count(Count { collection, filter, consistency }).await?;
                assert_eq!(count, self.count, "{}: points that were counted", self.collection);
                return Ok(());
            }
            Look::Scroll => {
                let scroll = Scroll { collection, filter, selection: everything(), consistency };
                let (mut scroller, mut seen) = (client.scroll(scroll, PAGE), Vec::new());
                while let Some(record) = scroller.next().await {
                    seen.push(told(&record?).0);
                }
                seen
            }
            Look::Search => {
                let mut searches = search(&self.collection, vec![0.0; DIM], self.count as usize);
                searches.consistency = consistency;
                searches.searches[0].query.filter = filter;
                searches.searches[0].selection = Selection::default();
                let answer = client.search(searches).await?;
                assert_eq!(answer.coverage.missing, [], "{}: nothing may be missing", self.collection);
                answer.results[0].hits.iter().map(|hit| id_of(hit.id)).collect()
            }
        };
        seen.sort_unstable();
        let (ids, all) = (self.ids(), seen.clone());
        let missing: Vec<_> = ids.iter().filter(|id| all.binary_search(id).is_err()).collect();
        seen.dedup();
        let twice = all.len() - seen.len();
        assert!(
            missing.is_empty() && all == ids,
            "{look:?} of {}: {missing:?} missing, {twice} twice",
            self.collection
        );
        Ok(())
    }

    fn ids(&self) -> Vec<u64> {
        (self.first..self.first + self.count).collect()
    }

    fn filter(&self) -> Filter {
        let bounds = Bounds { lower: Some((Number::Int(VALUES as i64), true)), upper: None };
        let test = Test::Range(Range::Number(bounds));
        Filter { must: vec![Condition::Field { path: "n".parse().expect("a path"), test }], ..Filter::default() }
    }
}
