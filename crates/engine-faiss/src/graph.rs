//! Graph indexes: FAISS builds an HNSW graph (Malkov, Yashunin 2016) over the byte codes, and our own kernel walks it.

pub(crate) mod build;
mod filtered;
pub(crate) mod links;
mod pool;
mod visited;
mod walk;

use sagitta_engine::index::{
    Candidate, IndexError, IndexMemory, IndexShape, PreparedQuery, ScanParams, SearchParams, SearchStats, Stop,
    VectorIndex,
};

use self::links::Links;
use crate::vectors::Vectors;

/// An index that walks a graph.
pub(crate) struct GraphIndex {
    pub(crate) vectors: Vectors,
    pub(crate) links: Links,
}

impl VectorIndex for GraphIndex {
    fn shape(&self) -> IndexShape {
        self.vectors.shape
    }

    fn search(
        &self,
        query: &PreparedQuery,
        params: &SearchParams<'_>,
        out: &mut Vec<Candidate>,
    ) -> Result<SearchStats, IndexError> {
        walk::search(self, query, params, out)
    }

    fn search_rows(
        &self,
        query: &PreparedQuery,
        params: &ScanParams<'_>,
        out: &mut Vec<Candidate>,
    ) -> Result<SearchStats, IndexError> {
        self.vectors.scan(query, params, out)
    }

    fn similarities(&self, query: &PreparedQuery, rows: &[u32], out: &mut Vec<f32>) -> Result<(), IndexError> {
        self.vectors.similarities(query, rows, out)
    }

    fn read_row(&self, row: u32, out: &mut [f32]) -> Result<(), IndexError> {
        self.vectors.rows.read(row, out)
    }

    fn verify(&self, stop: &dyn Stop) -> Result<bool, IndexError> {
        Ok(self.links.file().verify_all(&|| stop.should_stop())? && self.vectors.verify(stop)?)
    }

    fn memory(&self) -> IndexMemory {
        let mut memory = self.vectors.memory();
        memory.mapped_hot += self.links.file().bytes().len() as u64;
        memory
    }
}
