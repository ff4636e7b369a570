//! Dropout as a function: which elements fall is computed from their place, so that no mask is stored for the backward pass.

use burn::{
    Tensor,
    nn::Dropout,
    tensor::{Device, Distribution},
};

/// Which elements are dropped, as a function of seed, head (or other part), row and column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct DropoutMask {
    /// Probability of dropping.
    pub probability: f64,
    /// Another mask for each call.
    pub seed: u32,
}

/// The factors of dropout in one row: 0, or 1 / (1 - p).
pub(crate) struct DropoutRow {
    threshold: u32,
    factor: f32,
    seed: u32,
}

impl DropoutMask {
    /// A mask where burn's own dropout would act: in training, on a device with gradients. The seed comes from the device's
    /// random state, so that [`Device::seed`] makes it repeatable.
    pub fn of(dropout: &Dropout, device: &Device) -> Option<Self> {
        let acts = dropout.training.is_enabled() && device.is_autodiff() && dropout.prob > 0.0;
        acts.then(|| {
            let random = Tensor::<1>::random([2], Distribution::Uniform(0.0, 65536.0), &device.clone().inner());
            let seed = random.into_data().iter::<f32>().fold(0, |seed, half| seed << 16 | half as u32);
            Self { probability: dropout.prob, seed }
        })
    }

    /// The factors of one row of a part.
    #[inline(always)]
    pub fn row(self, part: usize, row: usize) -> DropoutRow {
        DropoutRow {
            threshold: (self.probability * f64::from(u32::MAX)) as u32,
            factor: (1.0 / (1.0 - self.probability)) as f32,
            seed: mix(mix(self.seed ^ mix(part as u32 + 1)) ^ row as u32),
        }
    }
}

impl DropoutRow {
    /// The factor of a column.
    #[inline(always)]
    pub fn factor(&self, column: u32) -> f32 {
        let random = mix(self.seed ^ column.wrapping_mul(0x9E37_79B9));
        if random < self.threshold { 0.0 } else { self.factor }
    }
}

/// A bijection of 32 bits in which every input bit moves every output bit (xorshift and multiply; constants found by search
/// in the `hash-prospector` project).
#[inline(always)]
fn mix(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x7feb_352d);
    x ^= x >> 15;
    x = x.wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}
