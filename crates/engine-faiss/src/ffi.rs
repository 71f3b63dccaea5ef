//! The C API of our shim (`shim/shim.hpp`), declared once.

use std::ffi::{CStr, c_char, c_int, c_void};

use sagitta_engine::index::IndexError;

// Linked for its libraries: the shim calls FAISS, and this crate only the shim.
use faiss_sys as _;

pub(crate) type DotsFn = extern "C" fn(
    query: *const i8,
    chunks: usize,
    codes: *const u8,
    stride: usize,
    rows: *const u32,
    count: usize,
    out: *mut i32,
);

#[repr(C)]
pub(crate) struct Codes {
    pub(crate) rows: usize,
    pub(crate) codes: *const u8,
    pub(crate) stride: usize,
    pub(crate) correction_at: usize,
    pub(crate) queries: *const i8,
    pub(crate) query_stride: usize,
    pub(crate) offset: *const f32,
    pub(crate) scale: *const f32,
    pub(crate) dots: DotsFn,
}

#[repr(C)]
pub(crate) struct GraphView {
    pub(crate) rows: usize,
    pub(crate) max_level: i32,
    pub(crate) entry_point: i32,
    pub(crate) levels: *const i32,
    pub(crate) offsets: *const usize,
    pub(crate) neighbors: *const i32,
    pub(crate) links_below: *const i32,
}

/// An opaque handle.
#[repr(C)]
pub(crate) struct Graph {
    _opaque: [u8; 0],
}

/// An opaque handle.
#[repr(C)]
pub(crate) struct Inverted {
    _opaque: [u8; 0],
}

pub(crate) type WriteFn = extern "C" fn(context: *mut c_void, bytes: *const u8, count: usize) -> bool;

/// Null, or a message that [`outcome`] takes over.
pub(crate) type Message = *mut c_char;

// SAFETY: the declarations repeat those of `shim/shim.hpp`, which the build compiles together with this crate.
unsafe extern "C" {
    fn sagitta_message_free(message: Message);

    pub(crate) fn sagitta_graph_new(codes: *const Codes, links: c_int, breadth: c_int, out: *mut *mut Graph)
    -> Message;
    pub(crate) fn sagitta_graph_add(graph: *mut Graph, count: usize, threads: c_int) -> Message;
    pub(crate) fn sagitta_graph_search(
        graph: *const Graph,
        row: usize,
        breadth: c_int,
        k: usize,
        distances: *mut f32,
        rows: *mut i64,
        compared: *mut usize,
    ) -> Message;
    pub(crate) fn sagitta_graph_view_of(graph: *const Graph, out: *mut GraphView);
    pub(crate) fn sagitta_graph_free(graph: *mut Graph);

    pub(crate) fn sagitta_inverted_train(
        dim: usize,
        lists: usize,
        codes: usize,
        inner_product: bool,
        count: usize,
        rows: *const f32,
        threads: c_int,
        out: *mut *mut Inverted,
    ) -> Message;
    pub(crate) fn sagitta_inverted_add(index: *mut Inverted, count: usize, rows: *const f32, threads: c_int)
    -> Message;
    pub(crate) fn sagitta_inverted_write(index: *const Inverted, write: WriteFn, context: *mut c_void) -> Message;
    pub(crate) fn sagitta_inverted_read(bytes: *const u8, count: usize, out: *mut *mut Inverted) -> Message;
    pub(crate) fn sagitta_inverted_shape(
        index: *const Inverted,
        rows: *mut usize,
        dim: *mut usize,
        lists: *mut usize,
        code_bytes: *mut usize,
    );
    pub(crate) fn sagitta_inverted_search(
        index: *const Inverted,
        query: *const f32,
        k: usize,
        probe: usize,
        allow: *const u8,
        rows: *mut i64,
        distances: *mut f32,
    ) -> Message;
    pub(crate) fn sagitta_inverted_free(index: *mut Inverted);
}

/// Turns what the shim returned into a result.
pub(crate) fn outcome(operation: &'static str, message: Message) -> Result<(), IndexError> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: a message that is not null is a C string of the shim, which is not used again after it was freed here.
    let reason = unsafe {
        let reason = CStr::from_ptr(message).to_string_lossy().into_owned();
        sagitta_message_free(message);
        reason
    };
    Err(IndexError::Native { operation, reason })
}
