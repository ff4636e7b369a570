//! From numbers to small integers and scales: a block of a row or column is its integers times its scale, which makes the largest
//! of its magnitudes the largest integer.
//!
//! What is not finite makes the scale NaN, and so every product with that row or column. One whose magnitudes all lie below
//! [`SMALLEST`] counts as zeros.

use bytemuck::Pod;
use rayon::prelude::*;

use super::{
    lanes::ROUND,
    lines::{Aligned, stride},
    matrix::Matrix,
    rotation,
    simd::vectorized,
};
use crate::isa::Isa;

/// The least that is told from zero: the inverse of its scale is still a number.
const SMALLEST: f32 = 1e-30;

/// Numbers that are not worth a second thread.
pub(super) const FEW: usize = 16 * 1024;

/// The scale that makes `magnitude` the integer `range`, and what to multiply numbers with before they are rounded.
#[inline(always)]
fn scale(magnitude: f32, range: f32) -> (f32, f32) {
    if !magnitude.is_finite() {
        (f32::NAN, 0.0)
    } else if magnitude < SMALLEST {
        (0.0, 0.0)
    } else {
        (magnitude / range, range / magnitude)
    }
}

/// The integer of a number.
#[inline(always)]
pub(super) fn integer(value: f32, inverse: f32) -> i32 {
    // What is not finite becomes any integer: its scale is NaN.
    (value * inverse + ROUND).to_bits().wrapping_sub(ROUND.to_bits()) as i32
}

/// The largest magnitude, infinity and NaN being the largest of all.
#[inline(always)]
fn largest(values: impl Iterator<Item = f32>) -> f32 {
    // Magnitudes as floats and as integers have the same order.
    f32::from_bits(values.fold(0, |largest, value| largest.max(value.to_bits() & 0x7fff_ffff)))
}

/// The scale of each column.
pub(super) fn scales(weights: Matrix<'_>, range: f32) -> Vec<f32> {
    let [rows, columns] = weights.shape();
    let of = |column| scale(largest((0..rows).map(|row| weights.get(row, column))), range).0;
    (0..columns).into_par_iter().map(of).collect()
}

/// What to multiply the numbers of a column with, from its scale.
pub(super) fn inverse(scale: f32) -> f32 {
    if scale > 0.0 { 1.0 / scale } else { 0.0 }
}

/// The scale of a group of weights, and their integers.
pub(crate) fn group(weights: &[f32], range: f32) -> (f32, impl Iterator<Item = i32>) {
    let (scale, _) = scale(largest(weights.iter().copied()), range);
    (scale, weights.iter().map(move |weight| integer(*weight, inverse(scale))))
}

/// Integers that a number of their range fits.
pub(crate) trait Truncate {
    fn truncate(integer: i32) -> Self;
}

macro_rules! truncate {
    ($($type:ty),+) => {$(
        impl Truncate for $type {
            #[inline(always)]
            fn truncate(integer: i32) -> Self {
                integer as Self
            }
        }
    )+};
}
truncate!(i8, u8, i16);

/// How rows of numbers become integers.
#[derive(Clone, Copy)]
pub(super) struct Rounding {
    /// Numbers of a block, at most [`LONGEST`].
    pub depth: usize,
    /// Whether those of a block are [rotated](rotation) first.
    pub rotates: bool,
    /// What the largest of a block becomes.
    pub range: f32,
    /// What is added to each.
    pub offset: i32,
}

/// Numbers of the longest block.
const LONGEST: usize = 256;

/// Rows of `width` integers, a [`stride`] apart, and the scales of each block of them.
pub(super) fn rows<T: Truncate + Pod + Send>(
    isa: Isa,
    matrix: Matrix<'_>,
    width: usize,
    rounding: Rounding,
) -> (Aligned<T>, Vec<f32>) {
    let ([count, inner], stride) = (matrix.shape(), stride::<T>(width));
    let blocks = inner.div_ceil(rounding.depth);
    let mut scales = vec![0.0; count * blocks];
    let fill = |integers: &mut [T]| {
        let found = integers.par_chunks_exact_mut(stride).zip(scales.par_chunks_exact_mut(blocks)).enumerate();
        found.with_min_len(FEW.div_ceil(inner)).for_each(|(number, (integers, scales))| {
            row(isa, matrix.row(number), rounding, integers, scales);
        });
    };
    // SAFETY: every row is written, with what is behind it.
    (unsafe { Aligned::filled(count * stride, fill) }, scales)
}

vectorized! {
    /// One row, and zeros behind it.
    fn row<T: Truncate>(simd: impl Simd, numbers: &[f32], rounding: Rounding, integers: &mut [T], scales: &mut [f32]) {
        let (integers, rest) = integers.split_at_mut(numbers.len());
        rest.fill_with(|| T::truncate(0));
        let blocks = numbers.chunks(rounding.depth).zip(integers.chunks_mut(rounding.depth));
        let mut rotated = [0.0; LONGEST];
        for ((numbers, integers), found) in blocks.zip(scales) {
            let numbers = if rounding.rotates {
                let rotated = &mut rotated[..numbers.len()];
                match (numbers.as_array(), rotated.as_mut_array()) {
                    (Some(block), Some(rotated)) => rotation::rotate_block(simd, block, rotated),
                    _ => {
                        rotated.copy_from_slice(numbers);
                        rotation::rotate(rotated, 1);
                    }
                }
                rotated
            } else {
                numbers
            };
            let (scale, inverse) = scale(largest(numbers.iter().copied()), rounding.range);
            *found = scale;
            for (to, number) in integers.iter_mut().zip(numbers) {
                *to = T::truncate(integer(*number, inverse).wrapping_add(rounding.offset));
            }
        }
    }
}
