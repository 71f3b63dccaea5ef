use sagitta_engine::index::FilterWalk;

use crate::codec::{DecodeError, Encode, Reader, Writer};

/// How the breadth of a search relates to its recall in one segment, measured when the segment was built: with the
/// default, nothing is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Calibration {
    /// For each way of walking ascending by `k`, then descending by selectivity.
    pub(super) curves: Vec<Curve>,
}

/// Recall at `k` by breadth, for searches of which a share of the rows passes the filter.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Nearest neighbours wanted.
    pub k: usize,
    /// Share of the rows that pass; 1 is a search without a filter.
    pub selectivity: f64,
    /// How the graph is walked.
    pub walk: FilterWalk,
    /// Ascending by breadth, recall and cost.
    pub points: Vec<CurvePoint>,
}

/// What a breadth achieves, on average.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CurvePoint {
    /// Candidates kept by a graph walk, or lists of a compact index read.
    pub breadth: usize,
    /// Share of the true nearest neighbours that was found.
    pub recall: f64,
    /// Rows compared by code.
    pub distances: f64,
    /// Rows whose neighbours were looked at.
    pub expanded: f64,
}

/// How an index is to be searched, and what that is expected to take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Setting {
    pub(super) breadth: usize,
    pub(super) walk: FilterWalk,
    pub(super) distances: f64,
    pub(super) expanded: f64,
}

impl Calibration {
    /// The curves that were measured.
    pub fn curves(&self) -> &[Curve] {
        &self.curves
    }

    /// The settings, one for each way of walking, that give a recall of `target` at `k` when a share `selectivity` of the
    /// rows passes (1 without a filter). None if nothing is known, or no breadth that was measured reaches it: then the index is
    /// not the way.
    pub(super) fn settings(&self, k: usize, selectivity: f64, target: f64) -> impl Iterator<Item = Setting> {
        let read = move |curve: &Curve| curve.setting_for(with_margin(target));
        self.walks(selectivity).into_iter().filter_map(move |walk| self.between_curves((k, selectivity, walk), &read))
    }

    /// What searching with a given breadth is expected to take.
    pub(super) fn setting_of(&self, k: usize, selectivity: f64, walk: FilterWalk, breadth: usize) -> Option<Setting> {
        self.between_curves((k, selectivity, walk), &|curve| curve.setting_of(breadth))
    }

    /// The ways of walking that were measured.
    pub(super) fn walks(&self, selectivity: f64) -> Vec<FilterWalk> {
        let mut walks = Vec::new();
        for curve in self.curves.iter().filter(|curve| curve.is_for(selectivity)) {
            if !walks.contains(&curve.walk) {
                walks.push(curve.walk);
            }
        }
        walks
    }

    /// Reads settings off the curves whose `k` and selectivity are on either side of those asked for.
    fn between_curves(
        &self,
        (k, selectivity, walk): (usize, f64, FilterWalk),
        read: &dyn Fn(&Curve) -> Option<Setting>,
    ) -> Option<Setting> {
        let curves: Vec<&Curve> =
            self.curves.iter().filter(|curve| curve.walk == walk && curve.is_for(selectivity)).collect();
        let known = || curves.iter().map(|curve| curve.k);
        let above = known().find(|known| *known >= k).or(known().next_back())?;
        let below = known().rfind(|known| *known <= k).or(known().next())?;
        let high = between_selectivities(&curves, above, selectivity, read)?;
        if above == below {
            // Beyond the largest k measured, as many more candidates are needed as results are wanted.
            return Some(high.scaled((k as f64 / above as f64).max(1.0)));
        }
        let low = between_selectivities(&curves, below, selectivity, read)?;
        Some(low.towards(&high, log_part(below as f64, above as f64, k as f64)))
    }
}

fn between_selectivities(
    curves: &[&Curve],
    k: usize,
    selectivity: f64,
    read: &dyn Fn(&Curve) -> Option<Setting>,
) -> Option<Setting> {
    let mut curves = curves.iter().filter(|curve| curve.k == k);
    let mut above = curves.next()?;
    for below in curves {
        if below.selectivity <= selectivity {
            let part = log_part(above.selectivity, below.selectivity, selectivity).clamp(0.0, 1.0);
            let (high, low) = (read(above), read(below));
            // A breadth between one that is known and one that none is enough for cannot be told.
            return if part == 0.0 { high } else { Some(high?.towards(&low?, part)) };
        }
        above = below;
    }
    // Fewer rows pass than was measured: reaching them takes so much longer.
    let fewer = (above.selectivity / selectivity).max(1.0);
    read(above).map(|setting| setting.scaled(fewer))
}

/// How far `x` is on the way from `from` to `to`, on a logarithmic scale: 0 to 1.
fn log_part(from: f64, to: f64, x: f64) -> f64 {
    if from == to { 0.0 } else { (x / from).ln() / (to / from).ln() }
}

/// The share of a query's misses that a curve may promise. A curve is measured with a few hundred queries, whose mean recall
/// is off by half a percent, and what real queries are like is not known when an index is built.
pub(super) const MISSES_ALLOWED: f64 = 0.65;

/// The recall to ask of a curve so that queries get the target.
fn with_margin(target: f64) -> f64 {
    1.0 - (1.0 - target) * MISSES_ALLOWED
}

impl Curve {
    fn is_for(&self, selectivity: f64) -> bool {
        // A search with a filter that everything passes is still one with a filter, but costs the same as one without.
        (self.selectivity < 1.0) == (selectivity < 1.0)
    }

    /// The least setting that reached a recall.
    fn setting_for(&self, recall: f64) -> Option<Setting> {
        let at = self.points.partition_point(|point| point.recall < recall);
        let reached = self.points.get(at)?;
        let Some(before) = at.checked_sub(1).map(|before| &self.points[before]) else {
            return Some(self.setting_at(reached));
        };
        // Misses fall about exponentially with the logarithm of the breadth.
        let misses = |point: &CurvePoint| (1.0 - point.recall).max(1e-4).ln();
        let wanted = (1.0 - recall).max(1e-4).ln();
        let span = misses(before) - misses(reached);
        let part = if span > 0.0 { ((misses(before) - wanted) / span).clamp(0.0, 1.0) } else { 1.0 };
        Some(self.setting_at(before).towards(&self.setting_at(reached), part))
    }

    fn setting_of(&self, breadth: usize) -> Option<Setting> {
        let at = self.points.partition_point(|point| point.breadth < breadth);
        let (before, after) = match (at.checked_sub(1), self.points.get(at)) {
            (None, after) => (after?, after?),
            (Some(before), Some(after)) => (&self.points[before], after),
            (Some(before), None) => (&self.points[before], &self.points[before]),
        };
        let part = log_part(before.breadth as f64, after.breadth as f64, breadth as f64).clamp(0.0, 1.0);
        let between = self.setting_at(before).towards(&self.setting_at(after), part);
        let more = breadth as f64 / between.breadth as f64;
        Some(Setting { breadth, ..between.scaled(more) })
    }

    fn setting_at(&self, point: &CurvePoint) -> Setting {
        let CurvePoint { breadth, distances, expanded, .. } = *point;
        Setting { breadth, walk: self.walk, distances, expanded }
    }
}

impl Setting {
    /// The setting `part` of the way to another of the same walk, on logarithmic scales.
    fn towards(&self, other: &Self, part: f64) -> Self {
        let between = |a: f64, b: f64| (a.max(1.0).ln() * (1.0 - part) + b.max(1.0).ln() * part).exp();
        Self {
            breadth: between(self.breadth as f64, other.breadth as f64).ceil() as usize,
            walk: self.walk,
            distances: between(self.distances, other.distances),
            expanded: between(self.expanded, other.expanded),
        }
    }

    fn scaled(&self, by: f64) -> Self {
        Self {
            breadth: (self.breadth as f64 * by).ceil() as usize,
            walk: self.walk,
            distances: self.distances * by,
            expanded: self.expanded * by,
        }
    }
}

const PLAIN: u8 = 0;
const TWO_HOP: u8 = 1;
const AUTO: u8 = 2;

impl Encode for Calibration {
    fn encode(&self, writer: &mut Writer) {
        writer.list(&self.curves);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { curves: reader.list()? })
    }
}

impl Encode for Curve {
    fn encode(&self, writer: &mut Writer) {
        writer.count(self.k);
        writer.f64(self.selectivity);
        writer.u8(match self.walk {
            FilterWalk::Plain => PLAIN,
            FilterWalk::TwoHop => TWO_HOP,
            FilterWalk::Auto => AUTO,
        });
        writer.list(&self.points);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let k = decode_count(reader)?;
        let selectivity = reader.f64()?;
        let walk = match reader.u8()? {
            PLAIN => FilterWalk::Plain,
            TWO_HOP => FilterWalk::TwoHop,
            AUTO => FilterWalk::Auto,
            _ => return Err(reader.fail("a way of walking is unknown")),
        };
        Ok(Self { k, selectivity, walk, points: reader.list()? })
    }
}

impl Encode for CurvePoint {
    fn encode(&self, writer: &mut Writer) {
        writer.count(self.breadth);
        writer.f64(self.recall);
        writer.f64(self.distances);
        writer.f64(self.expanded);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            breadth: decode_count(reader)?,
            recall: reader.f64()?,
            distances: reader.f64()?,
            expanded: reader.f64()?,
        })
    }
}

fn decode_count(reader: &mut Reader<'_>) -> Result<usize, DecodeError> {
    usize::try_from(reader.u64()?).map_err(|_| reader.fail("a count is out of range"))
}
