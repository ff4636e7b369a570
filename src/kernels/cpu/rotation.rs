//! Rotations of inputs, which spread an outlier over 32 of them before they are rounded to 8 bits.
//!
//! ```text
//! x W = (H x) (H W) / 32,   H H = 32
//! ```
//!
//! with Hadamard's matrix H of signs, by sums and differences of inputs. DeBERTa's feed-forward networks have inputs, and the second
//! of their maps weights, of which a few are far larger than the others, which loses those in steps of the largest. (Ashkboos and others, "QuaRot", NeurIPS 2024, rotate whole layers;
//! here a block's inputs are rotated where they are rounded, which needs nothing of the model.)

use rayon::prelude::*;

use super::{
    matrix::Matrix,
    simd::{MOST_LANES, Simd},
};

/// Inputs that are mixed: fewer leave more of an outlier, and more than these made no decision better (8 and 128 were tried).
const MIXED: usize = 32;

/// Rotates a block of inputs, each `width` numbers side by side: powers of two of them, the largest first, in groups of up to
/// [`MIXED`], of which a group's inputs lie as far apart as they can, so that registers of neighbours are added.
pub(super) fn rotate(block: &mut [f32], width: usize) {
    let mut rest = block;
    while rest.len() >= width {
        let (inputs, others) = rest.split_at_mut(width << (rest.len() / width).ilog2());
        let nearest = (inputs.len() / MIXED).max(width);
        let mut stride = inputs.len() / 2;
        while stride >= nearest {
            for pairs in inputs.chunks_exact_mut(2 * stride) {
                let (sums, differences) = pairs.split_at_mut(stride);
                for (a, b) in sums.iter_mut().zip(differences) {
                    (*a, *b) = (*a + *b, *a - *b);
                }
            }
            stride /= 2;
        }
        rest = others;
    }
}

/// Inputs of a usual block, which is rotated in registers.
const BLOCK: usize = 128;

/// Registers of the narrowest set that such a block fills.
const REGISTERS: usize = BLOCK / 4;

/// [`rotate`] of a usual block, to the bit.
#[inline(always)]
pub(super) fn rotate_block<S: Simd>(simd: S, block: &[f32; BLOCK], rotated: &mut [f32; BLOCK]) {
    const { assert!(BLOCK == 128 && MIXED == 32, "the strides below are those of `rotate`") };
    let mut registers = [simd.splat(0.0); REGISTERS];
    for (register, numbers) in registers.iter_mut().zip(block.chunks_exact(S::LANES)) {
        // SAFETY: there are as many numbers as a register has lanes.
        *register = unsafe { simd.load(numbers.as_ptr()) };
    }
    // From half a block to its part of [`MIXED`], as constants: only then do numbers stay in registers.
    add_and_subtract::<S, { BLOCK / 2 }>(simd, &mut registers);
    add_and_subtract::<S, { BLOCK / 4 }>(simd, &mut registers);
    add_and_subtract::<S, { BLOCK / 8 }>(simd, &mut registers);
    add_and_subtract::<S, { BLOCK / 16 }>(simd, &mut registers);
    add_and_subtract::<S, { BLOCK / MIXED }>(simd, &mut registers);
    for (register, numbers) in registers.into_iter().zip(rotated.chunks_exact_mut(S::LANES)) {
        // SAFETY: as above.
        unsafe { simd.store(numbers.as_mut_ptr(), register) };
    }
}

/// Makes sums and differences of numbers of a block that are `STRIDE` apart, in registers or within each.
#[inline(always)]
fn add_and_subtract<S: Simd, const STRIDE: usize>(simd: S, registers: &mut [S::Vector; REGISTERS]) {
    let apart = STRIDE / S::LANES;
    if apart > 0 {
        let minus = simd.splat(-1.0);
        for number in (0..BLOCK / S::LANES).filter(|number| number & apart == 0) {
            let (a, b) = (registers[number], registers[number + apart]);
            registers[number] = simd.add(a, b);
            registers[number + apart] = simd.multiply_add(b, minus, a);
        }
        return;
    }
    // Each lane's partner, plus or minus the lane.
    let (mut partners, mut signs) = ([0; MOST_LANES], [1.0; MOST_LANES]);
    for lane in 0..MOST_LANES {
        partners[lane] = (lane ^ STRIDE) as i32;
        signs[lane] = if lane & STRIDE == 0 { 1.0 } else { -1.0 };
    }
    // SAFETY: no register has more lanes.
    let (partners, signs) = unsafe { (simd.load_integers(partners.as_ptr()), simd.load(signs.as_ptr())) };
    for register in &mut registers[..BLOCK / S::LANES] {
        *register = simd.multiply_add(*register, signs, simd.pick(*register, partners));
    }
}

/// Weights, [inputs, outputs], rotated in blocks of `depth` inputs and divided by as many as are mixed, which is exact.
pub(super) fn rotated(weights: Matrix<'_>, depth: usize) -> Vec<f32> {
    let [inner, columns] = weights.shape();
    let mut rotated = vec![0.0; inner * columns];
    rotated.par_chunks_mut(depth * columns).enumerate().for_each(|(block, numbers)| {
        for (row, numbers) in (block * depth..).zip(numbers.chunks_exact_mut(columns)) {
            for (column, number) in numbers.iter_mut().enumerate() {
                *number = weights.get(row, column);
            }
        }
        let inputs = numbers.len() / columns;
        rotate(numbers, columns);
        for (mixed, numbers) in sizes(inputs).zip(numbers.chunks_exact_mut(columns)) {
            numbers.iter_mut().for_each(|number| *number /= mixed as f32);
        }
    });
    rotated
}

/// [`rotated`] weights, [inputs, outputs], as they were.
pub(super) fn rotate_back(weights: &mut [f32], columns: usize, depth: usize) {
    weights.par_chunks_mut(depth * columns).for_each(|block| rotate(block, columns));
}

/// How many inputs each of a block is mixed with, itself among them.
fn sizes(inputs: usize) -> impl Iterator<Item = usize> {
    let (mut rest, power) = (inputs, |rest: usize| (rest > 0).then(|| 1 << rest.ilog2()));
    let powers = std::iter::from_fn(move || power(rest).inspect(|size| rest -= size));
    powers.flat_map(|size: usize| std::iter::repeat_n(size.min(MIXED), size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_stay_and_outliers_go() {
        for inner in [1, 2, 3, 31, 32, 100, 128, 160, 384] {
            let columns = 3;
            let mut x: Vec<f32> = (0..inner).map(|i| (i * 7919 % 2003) as f32 / 1001.0 - 1.0).collect();
            x[inner / 2] = 100.0;
            let weights: Vec<f32> = (0..inner * columns).map(|i| (i * 104_729 % 1999) as f32 / 999.0 - 1.0).collect();
            let product = |x: &[f32], weights: &[f32], column: usize| -> f64 {
                (0..inner).map(|row| f64::from(x[row]) * f64::from(weights[row * columns + column])).sum()
            };
            let mut turned_x = x.clone();
            turned_x.chunks_mut(128).for_each(|block| rotate(block, 1));
            let mut turned = rotated(Matrix::new(&weights, 0, inner, columns, columns), 128);
            for column in 0..columns {
                let (found, expected) = (product(&turned_x, &turned, column), product(&x, &weights, column));
                // Five roundings of numbers up to 100.
                assert!((found - expected).abs() < 2e-3, "{inner}: {found} instead of {expected}");
            }
            let mixed: Vec<usize> = (0..inner).step_by(128).flat_map(|start| sizes((inner - start).min(128))).collect();
            assert_eq!(mixed.len(), inner);
            for (x, mixed) in turned_x.iter().zip(mixed) {
                // In units as before: of 32 numbers, 31 have a size of up to 1, at the very most all with the same sign.
                let size = x.abs() / (mixed as f32).sqrt();
                assert!(mixed < 32 || size < 101.0 / 32f32.sqrt() + 5.5, "{inner}: {size}");
            }
            rotate_back(&mut turned, columns, 128);
            for (found, expected) in turned.iter().zip(&weights) {
                assert!((found - expected).abs() < 1e-6, "{inner}: {found} instead of {expected}");
            }
        }
    }
}
