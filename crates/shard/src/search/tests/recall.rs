use std::sync::Arc;

use sagitta_engine::bitmap::Bitmap;
use sagitta_engine::index::{
    BuildControl, FilterWalk, IndexEngine, IndexKind, IndexShape, IndexSpec, Never, PreparedQuery, RowSet, Rows,
    ScanParams, SearchParams, VectorIndex,
};
use sagitta_model::{Effort, Knobs, Metric};

use super::sketchy::SketchyEngine;
use crate::codec::{Encode, Reader, Writer};
use crate::sample::Sampler;
use crate::search::calibrate::{Thoroughness, calibrate_as};
use crate::search::calibration::MISSES_ALLOWED;
use crate::search::plan::{Route, Task};
use crate::search::{Calibration, Curve, CurvePoint};

const DIM: usize = 8;
const ROWS: usize = 4_000;

fn index(sampler: &mut Sampler, kind: IndexKind) -> (tempfile::TempDir, Vec<f32>, Arc<dyn VectorIndex>) {
    let dir = tempfile::tempdir().expect("a folder");
    let values: Vec<f32> = (0..ROWS * DIM).map(|_| sampler.float().clamp(-3.0, 3.0) as f32 + 0.01).collect();
    let rows = Rows::new(DIM, &values).expect("rows");
    let control = BuildControl { threads: 1, stop: &Never, progress: &|_| () };
    let engine = SketchyEngine::default();
    let built = engine.build(&IndexSpec::new(DIM, Metric::L2, kind), rows, dir.path(), &control).expect("built");
    let index = engine.open(dir.path(), &built.files).expect("opens");
    (dir, values, index)
}

fn calibrated(values: &[f32], index: &dyn VectorIndex) -> Calibration {
    let how = Thoroughness { truth_comparisons: 0, min_queries: 200, max_queries: 200, short_scan_ns: 200.0 };
    let rows = Rows::new(DIM, values).expect("rows");
    calibrate_as(&how, index, &rows, &Never).expect("calibrated")
}

#[test]
fn curves_grow_and_settings_reach_their_targets() {
    for (kind, curves) in [(IndexKind::Graph, 2 * (1 + 3 * 2)), (IndexKind::Compact, 2 * (1 + 3))] {
        let mut sampler = Sampler::new(1);
        let (_dir, values, index) = index(&mut sampler, kind);
        let calibration = calibrated(&values, &*index);
        assert_eq!(calibration.curves().len(), curves, "{calibration:?}");
        for curve in calibration.curves() {
            let grows =
                |points: &[CurvePoint]| points[0].breadth < points[1].breadth && points[0].recall <= points[1].recall;
            assert!(curve.points.windows(2).all(grows), "{curve:?}");
        }
        for (selectivity, k) in
            [(1.0, 1), (1.0, 10), (1.0, 40), (1.0, 200), (0.5, 10), (0.3, 10), (0.1, 10), (0.02, 10)]
        {
            for target in [0.8, 0.95] {
                let settings: Vec<_> = calibration.settings(k, selectivity, target).collect();
                assert!(
                    !settings.is_empty() || selectivity < 1.0,
                    "{kind:?}: nothing gives {target} at {k} of {selectivity}"
                );
                for setting in settings {
                    let recall = recall(&mut sampler, &*index, k, selectivity, setting.breadth, setting.walk);
                    assert!(recall >= target, "{kind:?}: {recall} not {target} at {k} of {selectivity}: {setting:?}");
                }
            }
        }
    }
}

fn recall(
    sampler: &mut Sampler,
    index: &dyn VectorIndex,
    k: usize,
    selectivity: f64,
    breadth: usize,
    filter_walk: FilterWalk,
) -> f64 {
    let rows: Vec<u32> = (0..ROWS as u32).filter(|_| (sampler.below(10_000) as f64) < selectivity * 10_000.0).collect();
    let allow = Bitmap::from_rows(ROWS, &rows);
    let (mut found, mut wanted) = (0, 0);
    for _ in 0..60 {
        let vector: Vec<f32> = (0..DIM).map(|_| sampler.float().clamp(-3.0, 3.0) as f32).collect();
        let query = PreparedQuery::new(Metric::L2, &vector).expect("valid");
        let (mut truth, mut out) = (Vec::new(), Vec::new());
        index.search_rows(&query, &ScanParams::exact(k, RowSet::Bitmap(&allow)), &mut truth).expect("scanned");
        let allow = (selectivity < 1.0).then_some(&allow);
        index
            .search(&query, &SearchParams { breadth, allow, filter_walk, ..SearchParams::new(k) }, &mut out)
            .expect("searched");
        found += out.iter().filter(|candidate| truth.contains(candidate)).count();
        wanted += truth.len();
    }
    found as f64 / wanted as f64
}

#[test]
fn calibrations_read_back() {
    let (_dir, values, index) = index(&mut Sampler::new(2), IndexKind::Graph);
    for calibration in [Calibration::default(), calibrated(&values, &*index)] {
        let mut writer = Writer::new();
        calibration.encode(&mut writer);
        let bytes = writer.into_bytes();
        let mut reader = Reader::new(&bytes, "calibration");
        assert_eq!(Calibration::decode(&mut reader), Ok(calibration));
        assert_eq!(reader.end(), Ok(()));
        for len in 0..bytes.len() {
            assert!(Calibration::decode(&mut Reader::new(&bytes[..len], "calibration")).is_err(), "first {len} bytes");
        }
    }
}

/// A curve on which the recall is 0.9 at a breadth of 20 and 0.99 at 200.
fn plain_curve(k: usize, selectivity: f64, scale: usize) -> Curve {
    let point = |breadth: usize, recall: f64| {
        let breadth = breadth * scale;
        CurvePoint { breadth, recall, distances: breadth as f64 * 10.0, expanded: breadth as f64 }
    };
    Curve { k, selectivity, walk: FilterWalk::Auto, points: vec![point(20, 0.9), point(200, 0.99)] }
}

#[test]
fn between_what_was_measured_it_is_interpolated() {
    let curves =
        vec![plain_curve(10, 1.0, 1), plain_curve(10, 0.5, 2), plain_curve(10, 0.1, 4), plain_curve(100, 1.0, 10)];
    let calibration = Calibration { curves };
    // Of the target that is asked for so that the curve must promise `recall`.
    let breadth = |k, selectivity, recall: f64| {
        let target = 1.0 - (1.0 - recall) / MISSES_ALLOWED;
        calibration.settings(k, selectivity, target).next().map(|setting| setting.breadth)
    };
    let near = |found: Option<usize>, expected: usize| {
        let found = found.expect("reached");
        assert!((expected..=expected + expected / 50 + 1).contains(&found), "{found} instead of {expected}");
    };
    near(breadth(10, 1.0, 0.9), 20);
    near(breadth(10, 1.0, 0.9899), 197);
    // Half as many misses are half way, of their logarithms.
    near(breadth(10, 1.0, 1.0 - 0.001f64.sqrt()), 63);
    assert_eq!(breadth(10, 1.0, 0.995), None);
    // Fewer results take no less, more take more.
    near(breadth(3, 1.0, 0.9), 20);
    near(breadth(100, 1.0, 0.9), 200);
    near(breadth(200, 1.0, 0.9), 400);
    near(breadth(32, 1.0, 0.9), 64);
    // The fewer rows pass, the more.
    near(breadth(10, 0.9, 0.9), 40);
    near(breadth(10, 0.5, 0.9), 40);
    near(breadth(10, 0.1, 0.9), 80);
    near(breadth(10, 0.05, 0.9), 160);
    assert_eq!(Calibration::default().settings(10, 1.0, 0.5).next(), None);
}

#[test]
fn the_cheapest_plan_that_gives_the_recall_is_chosen() {
    let calibration =
        Calibration { curves: vec![plain_curve(10, 1.0, 1), plain_curve(10, 0.5, 2), plain_curve(10, 0.1, 4)] };
    let choose = |kind, rows, matching, effort| {
        let shape = IndexShape { rows, dim: 384, metric: Metric::Cosine, kind };
        Route::choose(&Task { k: 10, effort, matching }, shape, &calibration)
    };
    // The curves promise 0.99, which is less than what the default wants of them.
    let reachable = Effort::Recall(1.0 - (0.011 / MISSES_ALLOWED) as f32);
    let scan = Route::Scan { exact: false, rerank: 0 };
    let is_index = |route: Route| matches!(route, Route::Index { .. });
    let graph = |matching, effort| choose(IndexKind::Graph, 1_000_000, matching, effort);
    assert_eq!(graph(0, Effort::default()), Route::Skip);
    assert!(is_index(graph(1_000_000, reachable)));
    assert!(is_index(graph(100_000, reachable)));
    assert_eq!(graph(1_000, reachable), scan);
    assert_eq!(graph(1_000_000, Effort::Exact), Route::Scan { exact: true, rerank: 0 });
    assert_eq!(graph(1_000_000, Effort::Recall(1.0)), Route::Scan { exact: true, rerank: 0 });
    // Not reached by any breadth that was measured.
    assert_eq!(graph(1_000_000, Effort::Recall(0.999)), scan);
    let knobs = Knobs { ef_search: Some(77), nprobe: Some(5), rerank: Some(40) };
    let Route::Index { breadth: 77, rerank: 40, .. } = graph(1_000_000, Effort::Knobs(knobs)) else {
        panic!("knobs are kept");
    };
    let Route::Index { breadth: 5, .. } = choose(IndexKind::Compact, 1_000_000, 1_000_000, Effort::Knobs(knobs)) else {
        panic!("knobs are kept");
    };
    assert_eq!(choose(IndexKind::Flat, 1_000_000, 1_000_000, Effort::default()), scan);
}
