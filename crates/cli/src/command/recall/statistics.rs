//! What a list of measurements comes to.

use std::time::Duration;

/// Recall over queries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct RecallFigures {
    pub(super) mean: f64,
    /// Mean of the tenth of the queries that did worst: what an average hides.
    pub(super) worst_decile: f64,
    pub(super) minimum: f64,
    /// Share of queries with every answer right.
    pub(super) perfect: f64,
}

impl RecallFigures {
    /// Of at least one query.
    pub(super) fn of(mut recalls: Vec<f64>) -> Self {
        recalls.sort_by(f64::total_cmp);
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
        let tenth = recalls.len().div_ceil(10);
        let perfect = recalls.iter().filter(|recall| **recall >= 1.0).count();
        Self {
            mean: mean(&recalls),
            worst_decile: mean(&recalls[..tenth]),
            minimum: recalls.first().copied().unwrap_or(0.0),
            perfect: perfect as f64 / recalls.len().max(1) as f64,
        }
    }
}

/// Latency over calls.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct LatencyFigures {
    pub(super) mean: Duration,
    pub(super) p50: Duration,
    pub(super) p90: Duration,
    pub(super) p99: Duration,
    pub(super) maximum: Duration,
}

impl LatencyFigures {
    /// Of at least one call.
    pub(super) fn of(mut latencies: Vec<Duration>) -> Self {
        latencies.sort_unstable();
        // The nearest rank: the smallest value that at least that share of all does not exceed.
        let at = |share: f64| {
            let rank = (share * latencies.len() as f64).ceil() as usize;
            latencies.get(rank.clamp(1, latencies.len().max(1)) - 1).copied().unwrap_or_default()
        };
        let total: Duration = latencies.iter().sum();
        let mean = total / u32::try_from(latencies.len().max(1)).unwrap_or(u32::MAX);
        Self { mean, p50: at(0.5), p90: at(0.9), p99: at(0.99), maximum: at(1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_decile_is_the_mean_of_the_worst_tenth() {
        let mut recalls = vec![1.0; 17];
        recalls.extend([0.5, 0.7, 0.9]);
        let figures = RecallFigures::of(recalls);
        assert!((figures.mean - 19.1 / 20.0).abs() < 1e-12);
        assert!((figures.worst_decile - 0.6).abs() < 1e-12);
        assert_eq!((figures.minimum, figures.perfect), (0.5, 0.85));
        assert_eq!(RecallFigures::of(vec![0.3]).worst_decile, 0.3);
    }

    #[test]
    fn percentiles_are_measured_values() {
        let millis = |n| Duration::from_millis(n);
        let figures = LatencyFigures::of((1..=100).rev().map(millis).collect());
        assert_eq!([figures.p50, figures.p90, figures.p99, figures.maximum], [50, 90, 99, 100].map(millis));
        assert_eq!(figures.mean, Duration::from_micros(50_500));
        let one = LatencyFigures::of(vec![millis(3)]);
        assert_eq!((one.p50, one.p99, one.maximum), (millis(3), millis(3), millis(3)));
    }
}
