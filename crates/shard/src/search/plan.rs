use sagitta_engine::index::{FilterWalk, IndexKind, IndexShape};
use sagitta_model::query::DEFAULT_RECALL;
use sagitta_model::{Effort, Knobs};

use super::calibration::{Calibration, Setting};
use super::cost::{index_ns, scan_ns};

/// How a segment is searched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Route {
    /// Nothing passes the filter.
    Skip,
    /// Compares with every row that passes: by the lossless rows alone, or by codes with so many re-scored (0 is the index's
    /// own choice).
    Scan { exact: bool, rerank: usize },
    /// Searches the index among the rows that pass.
    Index { breadth: usize, rerank: usize, walk: FilterWalk },
}

/// What a plan is made for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Task {
    pub(super) k: usize,
    pub(super) effort: Effort,
    /// Rows that pass.
    pub(super) matching: usize,
}

/// What a graph walk takes when it was never measured: comparisons and expansions for each candidate kept, on embeddings of a
/// few hundred dimensions.
const UNMEASURED_DISTANCES: f64 = 16.0;

impl Route {
    /// The cheapest way that gives the recall asked for.
    pub(super) fn choose(task: &Task, shape: IndexShape, calibration: &Calibration) -> Self {
        if task.matching == 0 {
            return Self::Skip;
        }
        let (target, knobs) = match task.effort {
            Effort::Exact => return Self::Scan { exact: true, rerank: 0 },
            // Nothing less than comparing with every row finds every row.
            Effort::Recall(target) if target >= 1.0 => return Self::Scan { exact: true, rerank: 0 },
            Effort::Recall(target) => (target, Knobs::default()),
            Effort::Knobs(knobs) => (DEFAULT_RECALL, knobs),
        };
        let rerank = knobs.rerank.unwrap_or(0);
        let scan = Self::Scan { exact: false, rerank };
        let asked = match shape.kind {
            IndexKind::Flat => return scan,
            IndexKind::Graph => knobs.ef_search,
            IndexKind::Compact => knobs.nprobe,
        };
        let selectivity = task.matching as f64 / shape.rows as f64;
        let index_ns =
            |setting: &Setting| index_ns(shape.kind, shape.dim, setting.distances, setting.expanded, setting.walk);
        let settings = settings(task.k, f64::from(target), asked, selectivity, calibration);
        let cheapest = settings.into_iter().min_by(|a, b| index_ns(a).total_cmp(&index_ns(b)));
        let Some(cheapest) =
            cheapest.filter(|cheapest| index_ns(cheapest) < scan_ns(shape.kind, shape.dim, task.matching))
        else {
            return scan;
        };
        let Setting { breadth, walk, .. } = cheapest;
        Self::Index { breadth, rerank, walk }
    }
}

/// The settings for a breadth, if one was asked for, or for a recall; none if no breadth gives it.
fn settings(k: usize, target: f64, asked: Option<usize>, selectivity: f64, known: &Calibration) -> Vec<Setting> {
    if known.curves().is_empty() {
        let kept = asked.unwrap_or(k.max(64)) as f64 / selectivity;
        let distances = kept * UNMEASURED_DISTANCES;
        return vec![Setting { breadth: asked.unwrap_or(0), walk: FilterWalk::Auto, distances, expanded: kept }];
    }
    let fit: Vec<_> = known.settings(k, selectivity, target).collect();
    let Some(breadth) = asked else { return fit };
    // The ways of walking that are fit for the purpose, if any is, but as far as was asked.
    let mut walks: Vec<_> = fit.iter().map(|setting| setting.walk).collect();
    if walks.is_empty() {
        walks = known.walks(selectivity);
    }
    walks.into_iter().filter_map(|walk| known.setting_of(k, selectivity, walk, breadth)).collect()
}
