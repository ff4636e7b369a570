//! Dropout as a function: which elements fall is computed from their place, so that no mask is stored for the backward pass.

/// Which elements are dropped, as a function of seed, head (or other part), row and column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct DropoutMask {
    /// Probability of dropping.
    pub probability: f64,
    /// Another mask for each call.
    pub seed: u32,
    /// Added to the number of each part, where a call computes some of the parts only.
    pub first_part: usize,
}

/// The factors of dropout in one row: 0, or 1 / (1 - p).
pub(crate) struct DropoutRow {
    threshold: u32,
    factor: f32,
    random: RandomRow,
}

/// Random bits for each column of a row.
#[derive(Clone, Copy)]
pub(crate) struct RandomRow {
    seed: u32,
}

impl DropoutMask {
    /// The mask of a seed.
    pub fn new(probability: f64, seed: u32) -> Self {
        Self { probability, seed, first_part: 0 }
    }

    /// The factors of one row of a part.
    #[inline(always)]
    pub fn row(self, part: usize, row: usize) -> DropoutRow {
        let random = RandomRow::new(self.seed, self.first_part + part, row);
        DropoutRow { threshold: self.threshold(), factor: self.factor() as f32, random }
    }

    /// Random bits below this number drop their element.
    #[inline(always)]
    pub fn threshold(self) -> u32 {
        (self.probability * f64::from(u32::MAX)) as u32
    }

    /// The factor of what is kept.
    #[inline(always)]
    pub fn factor(self) -> f64 {
        1.0 / (1.0 - self.probability)
    }
}

impl DropoutRow {
    /// The factor of a column.
    #[inline(always)]
    pub fn factor(&self, column: u32) -> f32 {
        if self.random.bits(column) < self.threshold { 0.0 } else { self.factor }
    }
}

impl RandomRow {
    /// A row of a part.
    #[inline(always)]
    pub fn new(seed: u32, part: usize, row: usize) -> Self {
        Self { seed: mix(mix(seed ^ mix(part as u32 + 1)) ^ row as u32) }
    }

    /// What the columns are mixed with.
    pub fn seed(self) -> u32 {
        self.seed
    }

    /// The bits of a column.
    #[inline(always)]
    pub fn bits(self, column: u32) -> u32 {
        mix(self.seed ^ column.wrapping_mul(SPREAD))
    }
}

/// 2^32 divided by the golden ratio, made odd: multiples of it lie far apart.
pub(crate) const SPREAD: u32 = 0x9E37_79B9;
/// The shifts of [`mix`].
pub(crate) const SHIFTS: [u32; 3] = [16, 15, 16];
/// Its multipliers, one between two shifts; found by search in the `hash-prospector` project.
pub(crate) const MULTIPLIERS: [u32; 2] = [0x7feb_352d, 0x846c_a68b];

/// A bijection of 32 bits in which every input bit moves every output bit: xorshift and multiply.
#[inline(always)]
pub(crate) fn mix(mut x: u32) -> u32 {
    x ^= x >> SHIFTS[0];
    x = x.wrapping_mul(MULTIPLIERS[0]);
    x ^= x >> SHIFTS[1];
    x = x.wrapping_mul(MULTIPLIERS[1]);
    x ^ (x >> SHIFTS[2])
}
