//! Placeholder until the real module is in place: only the signatures count.
use sagitta_engine::index::{IndexKind, Rows, Stop, VectorIndex};
use sagitta_model::{Explanation, Hit, SearchQuery, Value};

use crate::codec::{DecodeError, Encode, Reader, Writer};
use crate::{ReadView, ShardError};

/// What a search may use.
pub struct SearchContext<'a> {
    /// Asked now and then whether to give up.
    pub stop: &'a dyn Stop,
    /// Whether to say how the search was run.
    pub explain: bool,
}

/// What a search found.
#[derive(Clone, Debug, Default)]
pub struct SearchOutcome {
    /// Hits, best first; empty with grouping.
    pub hits: Vec<Hit>,
    /// Groups, by their best hits.
    pub groups: Vec<(Value, Vec<Hit>)>,
    /// How the search was run.
    pub explanation: Option<Box<Explanation>>,
}

/// How the breadth of a search relates to its recall, measured when the segment was built.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Calibration {}

impl Encode for Calibration {
    fn encode(&self, _writer: &mut Writer) {}

    fn decode(_reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {})
    }
}

/// Measures.
pub fn calibrate(_index: &dyn VectorIndex, _rows: &Rows<'_>, _stop: &dyn Stop) -> Result<Calibration, ShardError> {
    Ok(Calibration {})
}

/// Chooses the kind of index.
pub fn kind_for(_policy: sagitta_model::IndexPolicy, _rows: usize, _graph_min_rows: usize) -> IndexKind {
    IndexKind::Flat
}

impl ReadView {
    /// Searches.
    pub fn search(&self, _query: &SearchQuery, _context: &SearchContext<'_>) -> Result<SearchOutcome, ShardError> {
        Ok(SearchOutcome::default())
    }
}
