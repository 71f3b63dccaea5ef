//! Building a graph with FAISS. FAISS decides which rows are linked; the distances that it asks for are of our codes, by our
//! kernel, which makes a build several times as fast as one over floats and loses nothing that the walk could see.

use std::marker::PhantomData;
use std::ptr;

use sagitta_engine::index::{BuildControl, GraphParams, IndexError, Rows};

use crate::codes::{CodeSpace, RowQueries};
use crate::ffi::{self, outcome};
use crate::kernels::{CodeRows, Kernels};

/// Rows added between two looks at whether to stop. FAISS inserts a batch from its highest level down, with a barrier
/// between levels, so that batches must not be small.
const BATCH: usize = 16_384;

/// FAISS numbers rows by 31 bits, and so does the walk.
pub(crate) const MAX_ROWS: usize = i32::MAX as usize;

/// A graph that is being built, or is finished.
pub(crate) struct Graph<'a> {
    handle: *mut ffi::Graph,
    /// What the handle points into.
    codes: PhantomData<&'a BuildCodes<'a>>,
}

/// The rows of a graph in the forms that building needs: as codes, and as queries.
pub(crate) struct BuildCodes<'a> {
    space: &'a CodeSpace,
    records: Vec<u8>,
    queries: RowQueries,
    rows: usize,
}

impl<'a> BuildCodes<'a> {
    pub(crate) fn new(space: &'a CodeSpace, rows: Rows<'_>) -> BuildCodes<'a> {
        let needed = CodeRows::bytes_needed(space.dim(), space.stride(), rows.len());
        let mut records = Vec::with_capacity(needed);
        for row in rows.iter() {
            space.encode(row, &mut records);
        }
        records.resize(needed, 0);
        BuildCodes { space, records, queries: RowQueries::new(space, rows), rows: rows.len() }
    }
}

impl<'a> Graph<'a> {
    /// Links the first `rows` rows of the codes.
    pub(crate) fn build(
        codes: &'a BuildCodes<'a>,
        rows: usize,
        params: GraphParams,
        control: &BuildControl<'_>,
    ) -> Result<Graph<'a>, IndexError> {
        let graph = Graph::new(codes, params)?;
        let mut added = 0;
        while added < rows {
            if control.stop.should_stop() {
                return Err(IndexError::Stopped);
            }
            let batch = BATCH.min(rows - added);
            // SAFETY: the handle is live, and no other thread has it.
            let message = unsafe { ffi::sagitta_graph_add(graph.handle, batch, control.threads as i32) };
            outcome("building a graph", message)?;
            added += batch;
            (control.progress)(added as f32 / rows as f32);
        }
        Ok(graph)
    }

    fn new(codes: &'a BuildCodes<'a>, params: GraphParams) -> Result<Graph<'a>, IndexError> {
        let (space, queries) = (codes.space, &codes.queries);
        let described = ffi::Codes {
            rows: codes.rows,
            codes: codes.records.as_ptr(),
            stride: space.stride(),
            correction_at: if space.has_correction() { space.dim() } else { 0 },
            queries: queries.codes.as_ptr(),
            query_stride: queries.stride,
            offset: queries.offset.as_ptr(),
            scale: queries.scale.as_ptr(),
            dots,
        };
        let mut handle = ptr::null_mut();
        let (links, breadth) = (params.links as i32, params.breadth as i32);
        // SAFETY: the description is copied. What it points to lives as long as `'a`, which the graph does not outlive.
        let message = unsafe { ffi::sagitta_graph_new(&described, links, breadth, &mut handle) };
        outcome("starting a graph", message)?;
        Ok(Graph { handle, codes: PhantomData })
    }

    /// The links, as FAISS keeps them.
    pub(crate) fn view(&self) -> GraphView<'_> {
        let mut raw = ffi::GraphView {
            rows: 0,
            max_level: 0,
            entry_point: 0,
            levels: ptr::null(),
            offsets: ptr::null(),
            neighbors: ptr::null(),
            links_below: ptr::null(),
        };
        // SAFETY: the handle is live.
        unsafe { ffi::sagitta_graph_view_of(self.handle, &mut raw) };
        let levels_below = raw.max_level.max(0) as usize + 2;
        // SAFETY: FAISS keeps one level and one offset per row, and one offset more; as many neighbours as the last offset
        // says; and the links below each level that exists, and below the one above them. Nothing changes them while
        // `self` is borrowed.
        unsafe {
            let offsets = std::slice::from_raw_parts(raw.offsets, raw.rows + 1);
            GraphView {
                entry: raw.entry_point as u32,
                levels: std::slice::from_raw_parts(raw.levels, raw.rows),
                neighbors: std::slice::from_raw_parts(raw.neighbors, offsets[raw.rows]),
                links_below: std::slice::from_raw_parts(raw.links_below, levels_below),
                offsets,
            }
        }
    }

    /// FAISS's own walk, to compare ours with: the rows nearest to a row of the codes, and how many it compared.
    #[cfg(test)]
    pub(crate) fn search(&self, row: usize, breadth: usize, k: usize) -> Result<(Vec<u32>, usize), IndexError> {
        let (mut distances, mut rows, mut compared) = (vec![0.0; k], vec![0; k], 0);
        // SAFETY: the handle is live, and both arrays have `k` places.
        let message = unsafe {
            ffi::sagitta_graph_search(
                self.handle,
                row,
                breadth as i32,
                k,
                distances.as_mut_ptr(),
                rows.as_mut_ptr(),
                &mut compared,
            )
        };
        outcome("searching a graph", message)?;
        Ok((rows.into_iter().filter_map(|row| u32::try_from(row).ok()).collect(), compared))
    }
}

impl Drop for Graph<'_> {
    fn drop(&mut self) {
        // SAFETY: the handle is live and is not used again.
        unsafe { ffi::sagitta_graph_free(self.handle) };
    }
}

/// A graph's links in FAISS's layout.
pub(crate) struct GraphView<'a> {
    /// A row of the highest level.
    pub(crate) entry: u32,
    levels: &'a [i32],
    offsets: &'a [usize],
    neighbors: &'a [i32],
    links_below: &'a [i32],
}

impl GraphView<'_> {
    pub(crate) fn rows(&self) -> usize {
        self.levels.len()
    }

    /// Levels that the row is in: at least the lowest.
    pub(crate) fn levels_of(&self, row: u32) -> usize {
        self.levels[row as usize] as usize
    }

    /// The rows that a row is linked to at one of its levels.
    pub(crate) fn links(&self, row: u32, level: usize) -> impl Iterator<Item = u32> + '_ {
        let start = self.offsets[row as usize] + self.links_below[level] as usize;
        let end = self.offsets[row as usize] + self.links_below[level + 1] as usize;
        self.neighbors[start..end].iter().map_while(|&row| u32::try_from(row).ok())
    }
}

extern "C" fn dots(
    query: *const i8,
    chunks: usize,
    codes: *const u8,
    stride: usize,
    rows: *const u32,
    count: usize,
    out: *mut i32,
) {
    // SAFETY: the shim passes the pointers that it was given, rows that FAISS took from the graph, which has none beyond the
    // codes, and `count` places. Query codes are padded to whole chunks, and codes behind the last row.
    unsafe {
        Kernels::get().dots_unchecked(query, chunks, codes, stride, std::slice::from_raw_parts(rows, count), out);
    };
}
