//! Every kind of index passes the suite of the port.

use sagitta_engine::index::IndexKind;
use sagitta_engine::index::conformance::Suite;
use sagitta_engine_faiss::FaissEngine;

fn check(kind: IndexKind, min_rows: usize) {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    Suite { engine: &FaissEngine, kind, min_rows, scratch: scratch.path() }.check_all();
}

#[test]
fn flat_conforms() {
    check(IndexKind::Flat, 1);
}

#[test]
fn graph_conforms() {
    check(IndexKind::Graph, 1);
}

#[test]
fn compact_conforms() {
    check(IndexKind::Compact, 1024);
}
