use sagitta_engine::index::{
    Candidate, IndexError, IndexMemory, IndexShape, PreparedQuery, RowSet, ScanParams, SearchParams, SearchStats, Stop,
    VectorIndex,
};

use crate::vectors::Vectors;

/// An index that compares the query with the code of every row.
pub(crate) struct FlatIndex {
    pub(crate) vectors: Vectors,
}

impl VectorIndex for FlatIndex {
    fn shape(&self) -> IndexShape {
        self.vectors.shape
    }

    fn search(
        &self,
        query: &PreparedQuery,
        params: &SearchParams<'_>,
        out: &mut Vec<Candidate>,
    ) -> Result<SearchStats, IndexError> {
        let rows = params.allow.map_or(RowSet::All, RowSet::Bitmap);
        let scan = ScanParams { rerank: params.rerank, stop: params.stop, ..ScanParams::new(params.k, rows) };
        self.vectors.scan(query, &scan, out)
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
        self.vectors.verify(stop)
    }

    fn memory(&self) -> IndexMemory {
        self.vectors.memory()
    }
}
