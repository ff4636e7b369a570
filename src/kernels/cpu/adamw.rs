//! AdamW's arithmetic: row by row on the host, and composed of tensor operations elsewhere.

use burn::Tensor;
use rayon::prelude::*;

use super::{lanes, simd::vectorized};
use crate::isa::Isa;

/// Elements that one thread takes at a time.
const CHUNK: usize = 16 * 1024;

/// The numbers of one step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Coefficients {
    /// Of the gradient: clipping, and what undoes the scale of the loss.
    pub factor: f64,
    pub beta_1: f64,
    pub beta_2: f64,
    pub epsilon: f64,
    /// 1 - beta_1^t
    pub correction_1: f64,
    /// 1 - beta_2^t
    pub correction_2: f64,
    pub rate: f64,
    pub decay: f64,
}

/// A parameter outside of host memory, flat, in f32.
#[derive(Clone, Debug)]
pub(crate) struct Parameter {
    pub weights: Tensor<1>,
    pub gradient: Tensor<1>,
    /// The first and the second.
    pub moments: [Tensor<1>; 2],
    pub coefficients: Coefficients,
}

impl Parameter {
    /// The step as tensor operations: the updated weights and moments.
    pub fn step(self) -> [Tensor<1>; 3] {
        let Self { weights, gradient, moments: [first, second], coefficients } = self;
        let Coefficients { factor, beta_1, beta_2, epsilon, correction_1, correction_2, rate, decay } = coefficients;
        let gradient = gradient * factor;
        let first = first * beta_1 + gradient.clone() * (1.0 - beta_1);
        let second = second * beta_2 + gradient.square() * (1.0 - beta_2);
        let root = (second.clone() / correction_2).sqrt() + epsilon;
        let weights = weights * (1.0 - rate * decay) - first.clone() / root * (rate / correction_1);
        [weights, first, second]
    }
}

/// The running means of a gradient's rows and of their squares.
#[derive(Clone, Debug)]
pub(crate) struct Moments {
    pub first: Vec<f32>,
    pub second: Vec<f32>,
    /// Elements of a row.
    pub width: usize,
    /// Rows that have had a gradient; both moments of the others are zero, and nobody looks at them.
    pub touched: Vec<bool>,
}

impl Moments {
    /// Zero.
    pub fn new(size: usize, width: usize) -> Self {
        Self { first: vec![0.0; size], second: vec![0.0; size], width, touched: vec![false; size / width] }
    }

    /// Moments that were saved.
    pub fn from_values(first: Vec<f32>, second: Vec<f32>, width: usize) -> Self {
        let rows = first.par_chunks(width).zip(second.par_chunks(width));
        let touched = rows.map(|(first, second)| first.iter().chain(second).any(|value| *value != 0.0)).collect();
        Self { first, second, width, touched }
    }
}

/// Rows of `width` elements in a thread's share.
fn rows(width: usize) -> usize {
    (CHUNK / width).max(1)
}

/// The sum of the squares of all elements, and which rows hold anything but zeros. The order of the sum depends on the shape
/// alone.
pub(crate) fn squares(values: &[f32], width: usize) -> (f64, Vec<bool>) {
    let mut sums = vec![0.0f32; values.len() / width];
    let mut occupied = vec![false; sums.len()];
    let results = sums.par_chunks_mut(rows(width)).zip(occupied.par_chunks_mut(rows(width)));
    let isa = Isa::in_use();
    results.zip(values.par_chunks(rows(width) * width)).for_each(|((sums, occupied), values)| {
        square_rows(isa, sums, values, width);
        // A row whose squares vanish in f32 is not a row of zeros; while the share is in cache, a second look is cheap.
        for ((occupied, sum), row) in occupied.iter_mut().zip(sums).zip(values.chunks_exact(width)) {
            *occupied = *sum != 0.0 || row.iter().any(|value| *value != 0.0);
        }
    });
    (sums.iter().map(|sum| f64::from(*sum)).sum(), occupied)
}

vectorized! {
    /// The sum of squares of each row.
    fn square_rows(sums: &mut [f32], values: &[f32], width: usize) {
        for (sum, row) in sums.iter_mut().zip(values.chunks_exact(width)) {
            *sum = lanes::dot(row, row);
        }
    }
}

/// One step of all rows, in place.
pub(crate) fn update(
    weights: &mut [f32],
    gradient: &[f32],
    occupied: &[bool],
    moments: &mut Moments,
    coefficients: &Coefficients,
) {
    let width = moments.width;
    let (rows, chunk, isa) = (rows(width), rows(width) * width, Isa::in_use());
    let states = moments.first.par_chunks_mut(chunk).zip(moments.second.par_chunks_mut(chunk));
    let flags = moments.touched.par_chunks_mut(rows).zip(occupied.par_chunks(rows));
    weights.par_chunks_mut(chunk).zip(gradient.par_chunks(chunk)).zip(states).zip(flags).for_each(
        |(((weights, gradient), (first, second)), (touched, occupied))| {
            update_rows(isa, weights, gradient, first, second, touched, occupied, coefficients);
        },
    );
}

vectorized! {
    /// One step of some rows.
    fn update_rows(
        weights: &mut [f32],
        gradient: &[f32],
        first: &mut [f32],
        second: &mut [f32],
        touched: &mut [bool],
        occupied: &[bool],
        coefficients: &Coefficients,
    ) {
        let Coefficients { factor, beta_1, beta_2, epsilon, correction_1, correction_2, rate, decay } = *coefficients;
        let keep = (1.0 - rate * decay) as f32;
        let (factor, beta_1, rest_1, beta_2, rest_2) =
            (factor as f32, beta_1 as f32, (1.0 - beta_1) as f32, beta_2 as f32, (1.0 - beta_2) as f32);
        let (step, root, epsilon) = ((rate / correction_1) as f32, (1.0 / correction_2.sqrt()) as f32, epsilon as f32);
        let width = weights.len() / touched.len();
        let flags = touched.iter_mut().zip(occupied);
        for (row, (touched, occupied)) in flags.enumerate() {
            let range = row * width..(row + 1) * width;
            let weights = &mut weights[range.clone()];
            *touched |= *occupied;
            if !*touched {
                if keep != 1.0 {
                    weights.iter_mut().for_each(|weight| *weight *= keep);
                }
                continue;
            }
            let moments = first[range.clone()].iter_mut().zip(&mut second[range.clone()]);
            for ((weight, gradient), (first, second)) in weights.iter_mut().zip(&gradient[range]).zip(moments) {
                let gradient = gradient * factor;
                *first = *first * beta_1 + gradient * rest_1;
                *second = *second * beta_2 + gradient * gradient * rest_2;
                *weight = *weight * keep - step * *first / (second.sqrt() * root + epsilon);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A weight and its moments after steps with these gradients, in f64.
    fn by_definition(weight: f32, gradients: &[f32], coefficients: impl Fn(i32) -> Coefficients) -> [f64; 3] {
        let (mut weight, mut first, mut second) = (f64::from(weight), 0.0, 0.0);
        for (step, gradient) in (1..).zip(gradients) {
            let of = coefficients(step);
            let gradient = f64::from(*gradient) * of.factor;
            first = of.beta_1 * first + (1.0 - of.beta_1) * gradient;
            second = of.beta_2 * second + (1.0 - of.beta_2) * gradient * gradient;
            let direction = (first / of.correction_1) / ((second / of.correction_2).sqrt() + of.epsilon);
            weight -= of.rate * (direction + of.decay * weight);
        }
        [weight, first, second]
    }

    fn gradient() -> impl Strategy<Value = f32> {
        prop_oneof![8 => -1.0f32..1.0, 2 => Just(0.0), 1 => Just(1e-40), 1 => Just(-1e15), 1 => Just(f32::NAN), 1 => Just(f32::INFINITY)]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        // Rows that had a gradient and such that had none, denormal and huge ones, and what is no number in its own place.
        #[test]
        fn steps_are_those_of_f64(
            rows in prop::collection::vec((-2.0f32..2.0, prop::collection::vec(gradient(), 3), any::<bool>()), 1..40),
            width in prop_oneof![1usize..40, Just(384)],
            decay in prop_oneof![Just(0.0), Just(0.1)],
        ) {
            let coefficients = |step: i32| Coefficients {
                factor: 0.5,
                beta_1: 0.9,
                beta_2: 0.999,
                epsilon: 1e-6,
                correction_1: 1.0 - 0.9f64.powi(step),
                correction_2: 1.0 - 0.999f64.powi(step),
                rate: 1e-2,
                decay,
            };
            // One column of a row has its gradients, the others have zeros or, in rows with more, the same.
            let column = width / 2;
            let of = |row: usize, at: usize, step: usize| {
                let (_, gradients, everywhere) = &rows[row];
                if at == column || *everywhere { gradients[step] } else { 0.0 }
            };
            for isa in Isa::available() {
                let mut weights: Vec<f32> = rows.iter().flat_map(|(weight, ..)| vec![*weight; width]).collect();
                let mut moments = Moments::new(weights.len(), width);
                for step in 0..3 {
                    let places = (0..rows.len()).flat_map(|row| (0..width).map(move |at| (row, at)));
                    let gradient: Vec<f32> = places.map(|(row, at)| of(row, at, step)).collect();
                    let (_, occupied) = squares(&gradient, width);
                    let Moments { first, second, touched, .. } = &mut moments;
                    let coefficients = coefficients(step as i32 + 1);
                    update_rows(isa, &mut weights, &gradient, first, second, touched, &occupied, &coefficients);
                }
                for (place, found) in weights.iter().enumerate() {
                    let (row, at) = (place / width, place % width);
                    let gradients = [0, 1, 2].map(|step| of(row, at, step));
                    let expected = by_definition(rows[row].0, &gradients, coefficients);
                    let found = [*found, moments.first[place], moments.second[place]].map(f64::from);
                    for (found, expected) in found.into_iter().zip(expected) {
                        // A dozen roundings; moments below the least normal number lose more, and weigh nothing.
                        let close = (found - expected).abs() <= 2e-6 * expected.abs() + 2e-6 * 1e-2;
                        let alike = found.is_nan() && expected.is_nan() || found == expected;
                        prop_assert!(close || alike, "{isa}: {found} instead of {expected}, by {gradients:?}");
                    }
                }
            }
        }
    }
}
