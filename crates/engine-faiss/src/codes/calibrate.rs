use sagitta_engine::index::Rows;
use sagitta_model::Metric;

use super::CodeSpace;

/// Rows that the ranges are taken from: enough for quantiles, few enough to sort per dimension.
const SAMPLE: usize = 8192;

/// Levels of a byte.
const LEVELS: f32 = 255.0;

pub(super) fn calibrate(metric: Metric, rows: Rows<'_>) -> CodeSpace {
    let every = rows.len().div_ceil(SAMPLE).max(1);
    let dim = rows.dim();
    let clip: f32 = std::env::var("CLIP").ok().and_then(|v| v.parse().ok()).unwrap_or(0.0);
    let global = std::env::var("GLOBAL").is_ok();
    let mut space = CodeSpace { metric, low: vec![0.0; dim], step: vec![1.0; dim], centre: vec![0.0; dim] };
    let sample: Vec<(&[f32], f32)> = rows.iter().step_by(every).map(|row| (row, space.factor(row))).collect();
    let mut column = Vec::new();
    let mut ranges = Vec::new();
    for at in 0..dim {
        column.clear();
        column.extend(sample.iter().map(|(row, factor)| row[at] * factor));
        column.sort_unstable_by(f32::total_cmp);
        let cut = (column.len() as f32 * clip) as usize;
        let (low, high) = (column[cut], column[column.len() - 1 - cut]);
        ranges.push((low, high));
        if metric == Metric::L2 {
            space.centre[at] = column.iter().sum::<f32>() / column.len() as f32;
        }
    }
    if global {
        let low = ranges.iter().map(|r| r.0).fold(f32::INFINITY, f32::min);
        let high = ranges.iter().map(|r| r.1).fold(f32::NEG_INFINITY, f32::max);
        ranges.iter_mut().for_each(|r| *r = (low, high));
    }
    for (at, (low, high)) in ranges.into_iter().enumerate() {
        space.low[at] = low;
        space.step[at] = if high > low { (high - low) / LEVELS } else { 1.0 };
    }
    space
}
