use super::ExactEngine;
use crate::index::IndexKind;
use crate::index::conformance::Suite;

#[test]
fn the_twin_conforms() {
    let scratch = tempfile::tempdir().unwrap();
    let kind = IndexKind::Graph;
    Suite { engine: &ExactEngine, kind, min_rows: 1, scratch: scratch.path() }.check_all();
}
