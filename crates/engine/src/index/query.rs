use sagitta_model::Metric;

use super::IndexError;

/// Largest magnitude of a value of a vector: squares of such values, summed over 65,536 dimensions, stay far within f32, so
/// that no similarity is infinite or NaN.
pub const MAX_MAGNITUDE: f32 = 1e15;

/// Smallest norm of a vector that is compared by cosine: a shorter one has no meaningful direction, and its inverse norm
/// could overflow.
pub const MIN_NORM: f32 = 1e-15;

/// A query vector made ready once, for any number of comparisons: checked, and normalised for cosine.
#[derive(Clone, Debug, PartialEq)]
pub struct PreparedQuery {
    metric: Metric,
    values: Vec<f32>,
}

impl PreparedQuery {
    /// Prepares a query.
    ///
    /// # Errors
    /// As [`check_vector`].
    pub fn new(metric: Metric, vector: &[f32]) -> Result<PreparedQuery, IndexError> {
        check_vector(metric, vector)?;
        let mut values = vector.to_vec();
        if metric == Metric::Cosine {
            let inverse = inverse_norm(vector);
            values.iter_mut().for_each(|value| *value *= inverse);
        }
        Ok(PreparedQuery { metric, values })
    }

    /// How it is to be compared.
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// Number of dimensions.
    pub fn dim(&self) -> usize {
        self.values.len()
    }

    /// The vector; of norm 1 for cosine.
    pub fn values(&self) -> &[f32] {
        &self.values
    }
}

/// Whether a vector can be stored in an index or searched for.
///
/// # Errors
/// [`IndexError::Vector`] if it has no values, a value is not finite or beyond [`MAX_MAGNITUDE`], or it is too short to
/// have a direction under cosine.
pub fn check_vector(metric: Metric, vector: &[f32]) -> Result<(), IndexError> {
    if vector.is_empty() {
        return Err(IndexError::Vector { reason: "the vector has no values".to_string() });
    }
    if let Some(at) = vector.iter().position(|value| value.is_nan() || value.abs() > MAX_MAGNITUDE) {
        return Err(IndexError::Vector {
            reason: format!("value {at} is {}, not a number of magnitude up to {MAX_MAGNITUDE:e}", vector[at]),
        });
    }
    if metric == Metric::Cosine && norm(vector) < f64::from(MIN_NORM) {
        return Err(IndexError::Vector { reason: "a zero vector has no direction to compare by cosine".to_string() });
    }
    Ok(())
}

/// One over the norm of a vector: what its dot product is multiplied by for cosine. The sum is taken in f64, so that it
/// hardly depends on the dimension and neither under- nor overflows.
pub fn inverse_norm(vector: &[f32]) -> f32 {
    (1.0 / norm(vector)) as f32
}

fn norm(vector: &[f32]) -> f64 {
    // Partial sums in a fixed order: deterministic, and the compiler can use vector instructions.
    const PARTS: usize = 8;
    let mut parts = [0.0_f64; PARTS];
    let mut chunks = vector.chunks_exact(PARTS);
    for chunk in &mut chunks {
        for (part, &value) in parts.iter_mut().zip(chunk) {
            *part += f64::from(value) * f64::from(value);
        }
    }
    for (part, &value) in parts.iter_mut().zip(chunks.remainder()) {
        *part += f64::from(value) * f64::from(value);
    }
    parts.iter().sum::<f64>().sqrt()
}
