//! How two vectors are compared.

use std::fmt;
use std::str::FromStr;

use crate::Violation;

/// How two vectors are compared. Inside the system every comparison is a *similarity*: greater is nearer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Cosine of the angle: the inner product of the vectors scaled to length one. In [-1, 1].
    Cosine,
    /// Inner product of the vectors as they are.
    InnerProduct,
    /// Euclidean distance. The similarity is its negative square.
    L2,
}

impl Metric {
    /// All of them, in the order they are documented.
    pub const ALL: [Self; 3] = [Self::Cosine, Self::InnerProduct, Self::L2];

    /// What a user sees for a similarity: itself, or for L2 the squared distance (smaller is nearer).
    pub fn score(self, similarity: f32) -> f32 {
        match self {
            Self::Cosine | Self::InnerProduct => similarity,
            // `0.0 -` instead of negation: an exact match reads 0, not -0.
            Self::L2 => 0.0 - similarity,
        }
    }

    /// The similarity that a user's score stands for; the inverse of [`Metric::score`].
    pub fn similarity(self, score: f32) -> f32 {
        self.score(score)
    }

    /// The name in text: `cosine`, `inner-product`, `l2`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::InnerProduct => "inner-product",
            Self::L2 => "l2",
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Metric {
    type Err = Violation;

    fn from_str(s: &str) -> Result<Self, Violation> {
        let known = Self::ALL.into_iter().find(|metric| metric.name() == s);
        known.ok_or_else(|| Violation::new("", format!("`{s}` is not a metric: expected cosine, inner-product or l2")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_l2_score_is_a_squared_distance() {
        assert_eq!(Metric::L2.score(-9.0), 9.0);
        assert_eq!(Metric::L2.score(0.0).to_bits(), 0.0f32.to_bits());
        assert_eq!(Metric::L2.similarity(9.0), -9.0);
        assert_eq!(Metric::Cosine.score(0.5), 0.5);
        for metric in Metric::ALL {
            assert_eq!(metric.name().parse(), Ok(metric));
        }
    }
}
