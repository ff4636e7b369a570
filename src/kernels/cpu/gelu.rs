//! The exact GELU as one pass forward and one backward: x Phi(x), and Phi(x) + x phi(x).

use burn::{
    Tensor,
    backend::{TensorMetadata, tensor::FloatTensor},
};
use rayon::prelude::*;

use super::{
    backend::HostBackend,
    lanes,
    matrix::filled,
    operation::{Operation, apply},
    simd::vectorized,
};
use crate::isa::Isa;

/// Elements that one thread takes at a time: 64 KB, so that a chunk stays in cache.
const CHUNK: usize = 16 * 1024;

/// x Phi(x) on a host device, in f32.
///
/// # Shapes
/// - x, output: any, the same
pub(crate) fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    apply(Gelu, [x.into_dispatch()])
}

#[derive(Clone, Debug)]
struct Gelu;

impl<B: HostBackend> Operation<B, 1> for Gelu {
    /// x
    type Kept = FloatTensor<B>;

    fn forward(&self, [x]: [FloatTensor<B>; 1]) -> FloatTensor<B> {
        let shape = x.shape();
        let x = B::values(x);
        let (x, isa) = (x.as_ref(), Isa::in_use());
        let fill = |output: &mut [f32]| {
            output.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(output, x)| value(isa, output, x));
        };
        // SAFETY: there is a value for each x.
        B::tensor(unsafe { filled(x.len(), fill) }, shape)
    }

    fn forward_keeping(&self, [x]: [FloatTensor<B>; 1], _: [bool; 1]) -> (FloatTensor<B>, FloatTensor<B>) {
        (Operation::<B, 1>::forward(self, [x.clone()]), x)
    }

    fn backward(&self, x: FloatTensor<B>, gradient: FloatTensor<B>, _: [bool; 1]) -> [Option<FloatTensor<B>>; 1] {
        let shape = x.shape();
        let (x, gradient) = (B::values(x), B::values(gradient));
        let (x, gradient, isa) = (x.as_ref(), gradient.as_ref(), Isa::in_use());
        let fill = |output: &mut [f32]| {
            let inputs = x.par_chunks(CHUNK).zip(gradient.par_chunks(CHUNK));
            output.par_chunks_mut(CHUNK).zip(inputs).for_each(|(output, (x, gradient))| {
                derivative(isa, output, x, gradient);
            });
        };
        // SAFETY: there is a derivative for each x, which has as many elements as its gradient.
        [Some(B::tensor(unsafe { filled(x.len(), fill) }, shape))]
    }
}

vectorized! {
    /// x Phi(x)
    fn value(simd: impl Simd, output: &mut [f32], x: &[f32]) {
        for (output, x) in output.iter_mut().zip(x) {
            *output = x * lanes::gaussian(simd, *x).0;
        }
    }
}

vectorized! {
    /// The same in the place of x.
    pub(super) fn in_place(simd: impl Simd, x: &mut [f32]) {
        for x in x {
            *x *= lanes::gaussian(simd, *x).0;
        }
    }
}

vectorized! {
    /// gradient (Phi(x) + x phi(x))
    fn derivative(simd: impl Simd, output: &mut [f32], x: &[f32], gradient: &[f32]) {
        for ((output, x), gradient) in output.iter_mut().zip(x).zip(gradient) {
            let (distribution, density) = lanes::gaussian(simd, *x);
            *output = gradient * (distribution + x * density);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_has_the_values_and_slopes_of_f64() {
        // Lengths around those of the registers.
        for length in [1, 3, 16, 31, 1000] {
            let x: Vec<f32> = (0..length).map(|i| (i as f32 * 0.37) % 12.0 - 6.0).collect();
            for isa in Isa::available() {
                let (mut found, mut slopes) = (vec![f32::NAN; length], vec![f32::NAN; length]);
                value(isa, &mut found, &x);
                let mut replaced = x.clone();
                in_place(isa, &mut replaced);
                assert_eq!(replaced, found, "{isa}");
                derivative(isa, &mut slopes, &x, &vec![2.0; length]);
                for ((x, found), slope) in x.iter().zip(found).zip(slopes) {
                    let x = f64::from(*x);
                    let (distribution, density) = gaussian(x);
                    // Phi is within 1e-7 of the true one, and so is phi; both are multiplied with up to 6, and the slope with 2.
                    assert!((f64::from(found) - x * distribution).abs() < 2e-6, "{isa}: gelu({x}) = {found}");
                    assert!(
                        (f64::from(slope) - 2.0 * (distribution + x * density)).abs() < 4e-6,
                        "{isa}: slope at {x}"
                    );
                }
                let mut special = [0.0; 4];
                value(isa, &mut special, &[0.0, f32::INFINITY, f32::NAN, -100.0]);
                assert!(special[0] == 0.0 && special[1] == f32::INFINITY && special[2].is_nan(), "{special:?}");
                assert!(special[3].abs() < 1e-30, "{special:?}");
            }
        }
    }

    /// Phi(x) by its power series around 0, and phi(x).
    fn gaussian(x: f64) -> (f64, f64) {
        let density = (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt();
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= x * x / f64::from(2 * n + 1);
            sum += term;
        }
        (0.5 + density * sum, density)
    }
}
