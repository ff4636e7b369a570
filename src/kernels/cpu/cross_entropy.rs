//! The mean cross entropy of rows of logits as one operation: no tensor of logarithms is made on the way, which with 128,000 words
//! would be the largest of a training step.
//!
//! ```text
//! loss = mean over the rows r with a target t of  z_r - l[r, t],   z_r = ln( sum_c exp(l[r, c]) )
//!
//! dl[r, c] = ( exp(l[r, c] - z_r) - [c = t] ) / number of rows with a target
//! ```

use std::sync::Arc;

use burn::{
    Tensor,
    backend::{TensorMetadata, tensor::FloatTensor},
    tensor::Int,
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

/// Logits that one thread takes at a time, in whole rows.
const CHUNK: usize = 16 * 1024;

/// Mean cross entropy on a host device, in f32, over the rows whose target is not negative; zero if there is none.
///
/// # Shapes
/// - logits: [rows, classes]
/// - targets: [rows]
/// - output: [1]
///
/// # Panics
/// If there are no classes, or a target is not below their number.
pub(crate) fn cross_entropy(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    let [rows, classes] = logits.dims();
    let targets: Arc<[_]> = targets.into_data().iter::<i64>().map(|target| usize::try_from(target).ok()).collect();
    assert_eq!(targets.len(), rows, "targets of rows");
    assert!(classes > 0, "no classes");
    if let Some(beyond) = targets.iter().flatten().find(|target| **target >= classes) {
        panic!("a target of class {beyond}, where there are {classes} classes");
    }
    apply(CrossEntropy { targets }, [logits.into_dispatch()])
}

/// The loss of rows of logits.
#[derive(Clone, Debug)]
struct CrossEntropy {
    /// The class of each row that counts.
    targets: Arc<[Option<usize>]>,
}

impl CrossEntropy {
    /// How many rows count; at least one, so that it can be divided by.
    fn counted(&self) -> usize {
        self.targets.iter().flatten().count().max(1)
    }

    /// The loss, and z of each row.
    fn run<B: HostBackend>(&self, logits: FloatTensor<B>) -> (FloatTensor<B>, Vec<f32>) {
        let (classes, isa) = (logits.shape()[1], Isa::in_use());
        let logits = B::values(logits);
        let logits = logits.as_ref();
        let rows = rows_of_a_chunk(classes);
        let mut normalisers = vec![0.0; self.targets.len()];
        normalisers.par_chunks_mut(rows).zip(logits.par_chunks(rows * classes)).for_each(|(normalisers, logits)| {
            normalise(isa, normalisers, logits);
        });
        let losses = self.targets.iter().zip(logits.chunks_exact(classes)).zip(&normalisers);
        let losses = losses.filter_map(|((target, logits), z)| Some(f64::from(*z) - f64::from(logits[(*target)?])));
        // In f64: a sum of many rows loses nothing, and is the same for any number of threads.
        let loss = losses.sum::<f64>() / self.counted() as f64;
        (B::tensor(vec![loss as f32], [1].into()), normalisers)
    }
}

/// As many rows as make a chunk, at least one.
fn rows_of_a_chunk(classes: usize) -> usize {
    (CHUNK / classes).max(1)
}

impl<B: HostBackend> Operation<B, 1> for CrossEntropy {
    /// The logits, and z of each row.
    type Kept = (FloatTensor<B>, Vec<f32>);

    fn forward(&self, [logits]: [FloatTensor<B>; 1]) -> FloatTensor<B> {
        self.run::<B>(logits).0
    }

    fn forward_keeping(&self, [logits]: [FloatTensor<B>; 1], _: [bool; 1]) -> (FloatTensor<B>, Self::Kept) {
        let (loss, normalisers) = self.run::<B>(logits.clone());
        (loss, (logits, normalisers))
    }

    fn backward(
        &self,
        (logits, normalisers): Self::Kept,
        gradient: FloatTensor<B>,
        _: [bool; 1],
    ) -> [Option<FloatTensor<B>>; 1] {
        let (shape, isa) = (logits.shape(), Isa::in_use());
        let classes = shape[1];
        let scale = B::values(gradient).as_ref()[0] / self.counted() as f32;
        let logits = B::values(logits);
        let logits = logits.as_ref();
        let rows = rows_of_a_chunk(classes);
        let fill = |output: &mut [f32]| {
            let inputs = logits.par_chunks(rows * classes).zip(normalisers.par_chunks(rows));
            let outputs = output.par_chunks_mut(rows * classes).zip(self.targets.par_chunks(rows));
            outputs.zip(inputs).for_each(|((output, targets), (logits, normalisers))| {
                differentiate(isa, output, logits, normalisers, targets, scale);
            });
        };
        // SAFETY: every logit has a gradient, be it zero.
        [Some(B::tensor(unsafe { filled(logits.len(), fill) }, shape))]
    }
}

vectorized! {
    /// The logarithm of the sum of the exponentials of each row.
    fn normalise(simd: impl Simd, normalisers: &mut [f32], logits: &[f32]) {
        let classes = logits.len() / normalisers.len();
        for (normaliser, logits) in normalisers.iter_mut().zip(logits.chunks_exact(classes)) {
            let highest = lanes::maximum(logits);
            let sum = lanes::sum_of(logits, |logit| lanes::exp(simd, logit - highest));
            *normaliser = highest + sum.ln();
        }
    }
}

vectorized! {
    /// The gradients of some rows: zeros for one without a target.
    fn differentiate(
        simd: impl Simd,
        output: &mut [f32],
        logits: &[f32],
        normalisers: &[f32],
        targets: &[Option<usize>],
        scale: f32,
    ) {
        let classes = output.len() / targets.len();
        let rows = output.chunks_exact_mut(classes).zip(logits.chunks_exact(classes));
        for ((output, logits), (target, normaliser)) in rows.zip(targets.iter().zip(normalisers)) {
            let Some(target) = target else {
                output.fill(0.0);
                continue;
            };
            for (output, logit) in output.iter_mut().zip(logits) {
                let logarithm = logit - normaliser;
                // What `exp` has in the place of less is no zero, and times the scale a number that processors are slow with.
                *output = if logarithm < -87.0 { 0.0 } else { scale * lanes::exp(simd, logarithm) };
            }
            output[*target] -= scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits of size 10, of 5 rows.
    fn logits(classes: usize) -> Vec<f32> {
        (0..5 * classes).map(|i| (i * 7919 % 2003) as f32 / 100.0 - 10.0).collect()
    }

    #[test]
    fn every_instruction_set_has_the_values_and_slopes_of_f64() {
        // Lengths around those of the registers.
        for classes in [1, 2, 15, 33, 1000] {
            let logits = logits(classes);
            let targets: Vec<_> = (0..5).map(|row| (row != 2).then_some(row * 7 % classes)).collect();
            for isa in Isa::available() {
                let mut normalisers = vec![f32::NAN; 5];
                normalise(isa, &mut normalisers, &logits);
                let mut found = vec![f32::NAN; logits.len()];
                differentiate(isa, &mut found, &logits, &normalisers, &targets, 0.5);
                for (row, (logits, found)) in logits.chunks_exact(classes).zip(found.chunks_exact(classes)).enumerate()
                {
                    let sum: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
                    // Sums of up to 1,000 exponentials, each within 2e-7 of itself, and the rounding of a number up to 20.
                    let off = f64::from(normalisers[row]) - sum.ln();
                    assert!(off.abs() < 4e-6, "{isa}, {classes} classes: z is off by {off:e}");
                    for (class, (logit, found)) in logits.iter().zip(found).enumerate() {
                        let probability = f64::from(*logit).exp() / sum;
                        let expected = match targets[row] {
                            Some(target) => 0.5 * (probability - f64::from(u8::from(target == class))),
                            None => 0.0,
                        };
                        // z is off by as much as above, which moves a probability by that part of itself.
                        let close = (f64::from(*found) - expected).abs() < 4e-6;
                        assert!(close, "{isa}, {classes} classes: {found} instead of {expected}");
                    }
                }
            }
        }
    }
}
