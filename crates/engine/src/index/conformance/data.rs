use super::super::Rows;

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same on every machine.
pub(super) struct Seeded(u64);

impl Seeded {
    pub(super) fn new(seed: u64) -> Seeded {
        Seeded(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Between -1 and 1.
    fn uniform(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// Roughly normal, of variance 1.
    fn normal(&mut self) -> f32 {
        (0..3).map(|_| self.uniform()).sum()
    }
}

/// What values a sample has: the encodings of stored vectors differ in what they hold exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Values {
    /// Whole numbers of 0 to 255.
    Bytes,
    /// Numbers with few significant bits.
    Halves,
    /// Numbers with all 24 significant bits, some of them tiny or negative zero.
    Floats,
}

impl Values {
    pub(super) const ALL: [Values; 3] = [Values::Bytes, Values::Halves, Values::Floats];
}

/// Rows in clusters, as embeddings are, and queries from the same distribution.
pub(super) struct Sample {
    pub(super) dim: usize,
    values: Vec<f32>,
    pub(super) queries: Vec<Vec<f32>>,
}

const QUERIES: usize = 20;
const CLUSTERS: usize = 16;

impl Sample {
    pub(super) fn new(rows: usize, dim: usize, kind: Values, seed: u64) -> Sample {
        let mut random = Seeded::new(seed);
        let centres: Vec<f32> = (0..CLUSTERS * dim).map(|_| random.normal()).collect();
        let mut vector = |row: usize| -> Vec<f32> {
            let centre = &centres[random.below(CLUSTERS) * dim..][..dim];
            let mut vector: Vec<f32> = centre.iter().map(|value| value + 0.5 * random.normal()).collect();
            for value in &mut vector {
                *value = shape(kind, *value);
            }
            // Never all zero, which cosine refuses; and at times the values that encoders stumble over.
            vector[0] = if vector[0] == 0.0 { 1.0 } else { vector[0] };
            if kind == Values::Floats && dim > 2 && row.is_multiple_of(7) {
                vector[1] = -0.0;
                vector[2] = f32::MIN_POSITIVE / 8.0;
            }
            vector
        };
        let values = (0..rows).flat_map(&mut vector).collect();
        let queries = (0..QUERIES).map(vector).collect();
        Sample { dim, values, queries }
    }

    /// Every row the same.
    pub(super) fn constant(rows: usize, dim: usize) -> Sample {
        let one = Sample::new(1, dim, Values::Floats, 5);
        Sample { dim, values: one.values.repeat(rows), queries: one.queries }
    }

    /// Each row several times, spread over the sample.
    pub(super) fn repeated(distinct: usize, times: usize, dim: usize) -> Sample {
        let once = Sample::new(distinct, dim, Values::Halves, 6);
        Sample { dim, values: once.values.repeat(times), queries: once.queries }
    }

    pub(super) fn rows(&self) -> Rows<'_> {
        Rows::new(self.dim, &self.values).unwrap_or_else(|error| panic!("a sample is whole rows: {error}"))
    }

    pub(super) fn len(&self) -> usize {
        self.values.len() / self.dim
    }

    /// The same sample with one value replaced.
    pub(super) fn with_value(&self, at: usize, value: f32) -> Sample {
        let mut values = self.values.clone();
        values[at] = value;
        Sample { dim: self.dim, values, queries: self.queries.clone() }
    }
}

fn shape(kind: Values, value: f32) -> f32 {
    match kind {
        Values::Bytes => (value * 40.0 + 128.0).round().clamp(0.0, 255.0),
        Values::Halves => (value * 256.0).round() / 256.0,
        Values::Floats => value,
    }
}
