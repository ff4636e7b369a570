//! From numbers to the nearest bf16: rows, columns as rows, and pairs of rows as panels have them.

use half::bf16;

use super::{
    layout::transposed,
    lines::FLOATS,
    matrix::Matrix,
    panels::WIDEST,
    simd::{Simd, vectorized},
};
use crate::isa::Isa;

/// Inputs of the squares that are transposed.
const SQUARE: usize = 8;

/// Numbers to the nearest bf16.
#[inline(always)]
fn round_row<S: Simd>(simd: S, values: &[f32], states: &mut [bf16]) {
    let whole = values.len() / S::LANES * S::LANES;
    let (values, rest) = values.split_at(whole);
    let (states, last) = states.split_at_mut(whole);
    for (values, states) in values.chunks_exact(S::LANES).zip(states.chunks_exact_mut(S::LANES)) {
        // SAFETY: both are as many as a register has.
        unsafe { simd.store_bf16(states.as_mut_ptr(), simd.load(values.as_ptr())) };
    }
    for (value, state) in rest.iter().zip(last) {
        *state = bf16::from_f32(*value);
    }
}

/// The numbers of two rows, rounded, side by side: pairs of bf16 in the bits of f32.
#[inline(always)]
fn pair_row<S: Simd>(simd: S, low: &[f32], high: &[f32], pairs: &mut [f32]) {
    let whole = pairs.len() / S::LANES * S::LANES;
    for ((low, high), pairs) in
        low.chunks_exact(S::LANES).zip(high.chunks_exact(S::LANES)).zip(pairs.chunks_exact_mut(S::LANES))
    {
        // SAFETY: all three are as many as a register has, and a pair takes the bytes of an f32.
        unsafe {
            simd.store_pairs_of_bf16(pairs.as_mut_ptr().cast(), simd.load(low.as_ptr()), simd.load(high.as_ptr()))
        };
    }
    for ((low, high), pair) in low.iter().zip(high).zip(pairs).skip(whole) {
        *pair = bytemuck::cast([bf16::from_f32(*low), bf16::from_f32(*high)]);
    }
}

/// The rows of a matrix to the nearest bf16, `stride` apart, and zeros where they end.
pub(super) fn round(isa: Isa, matrix: Matrix<'_>, states: &mut [bf16], stride: usize) {
    match matrix.has_contiguous_rows() {
        true => round_rows(isa, matrix, states, stride),
        false => round_columns(isa, matrix.transposed(), states, stride),
    }
}

vectorized! {
    /// The same of rows that are rows in memory.
    pub(super) fn round_rows(simd: impl Simd, rows: Matrix<'_>, states: &mut [bf16], stride: usize) {
        let [_, inner] = rows.shape();
        for (number, states) in states.chunks_exact_mut(stride).enumerate() {
            let (states, rest) = states.split_at_mut(inner);
            round_row(simd, rows.row(number), states);
            rest.fill(bf16::ZERO);
        }
    }
}

vectorized! {
    /// The same of rows that are columns in memory, which are rounded and moved in squares of four pairs by four.
    fn round_columns(simd: impl Simd, rows: Matrix<'_>, states: &mut [bf16], stride: usize) {
        let [inner, _] = rows.shape();
        for (number, states) in states.chunks_mut(FLOATS * stride).enumerate() {
            // Beyond the last row, and the last column, are zeros.
            let line = |row: usize| -> [f32; FLOATS] {
                let values = if row < inner { &rows.row(row)[number * FLOATS..] } else { &[] };
                values.first_chunk().copied().unwrap_or_else(|| {
                    let mut line = [0.0; FLOATS];
                    line[..values.len()].copy_from_slice(values);
                    line
                })
            };
            let end = inner.next_multiple_of(SQUARE).min(stride);
            states.chunks_exact_mut(stride).for_each(|states| states[end..].fill(bf16::ZERO));
            for first in (0..end).step_by(SQUARE) {
                let mut pairs = [[0.0; FLOATS]; SQUARE / 2];
                for (row, pairs) in (first..).step_by(2).zip(&mut pairs) {
                    pair_row(simd, &line(row), &line(row + 1), pairs);
                }
                let width = SQUARE.min(end - first);
                for (four, states) in states.chunks_mut(4 * stride).enumerate() {
                    let [a, b, c, d] = pairs.each_ref().map(|pairs| pairs.as_chunks::<4>().0[four]);
                    let square = transposed([a, b, c, d]);
                    for (pairs, states) in square.iter().zip(states.chunks_mut(stride)) {
                        states[first..][..width].copy_from_slice(&bytemuck::cast_slice(pairs)[..width]);
                    }
                }
            }
        }
    }
}

vectorized! {
    /// Each two rows, rounded, as one row of pairs, `width` apart, and zeros where there are no more.
    pub(super) fn pair_rows(simd: impl Simd, pairs: &mut [f32], rows: Matrix<'_>, width: usize) {
        let [count, columns] = rows.shape();
        let zeros = [0.0; WIDEST];
        for (number, pairs) in pairs.chunks_exact_mut(width).enumerate() {
            if 2 * number >= count {
                pairs.fill(0.0);
                continue;
            }
            let (pairs, rest) = pairs.split_at_mut(columns);
            let next = 2 * number + 1;
            pair_row(simd, rows.row(next - 1), if next < count { rows.row(next) } else { &zeros[..columns] }, pairs);
            rest.fill(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows and columns of every length around those of registers, squares and lines, also of numbers half way between two of bf16.
    #[test]
    fn every_instruction_set_rounds_to_the_nearest_and_to_even() {
        let numbers: Vec<f32> = (0..40 * 40u32)
            .map(|i| match i % 3 {
                0 => f32::from_bits(0x3f80_8000 + ((i << 16) | (i % 2))),
                _ => (i * 7919 % 2003) as f32 / 1001.0 - 1.0,
            })
            .map(|number| if number.is_finite() { number } else { 0.5 })
            .collect();
        for (isa, rows, columns) in Isa::available().flat_map(|isa| {
            [1, 7, 15, 16, 17, 33, 40]
                .into_iter()
                .flat_map(move |rows| [1, 8, 31, 40].map(|columns| (isa, rows, columns)))
        }) {
            let matrix = Matrix::new(&numbers, 0, rows, columns, 40);
            let what = format!("{isa}, {rows} x {columns}");
            let expected = |row: usize, column: usize| {
                if row < rows && column < columns { bf16::from_f32(matrix.get(row, column)) } else { bf16::ZERO }
            };
            for (matrix, transposed) in [(matrix, false), (matrix.transposed(), true)] {
                let [count, inner] = matrix.shape();
                let stride = inner.next_multiple_of(2) + 2;
                let mut found = vec![bf16::NAN; count * stride];
                round(isa, matrix, &mut found, stride);
                for (place, found) in found.iter().enumerate() {
                    let (row, column) = (place / stride, place % stride);
                    let expected = if transposed { expected(column, row) } else { expected(row, column) };
                    assert_eq!(*found, expected, "{what}, transposed {transposed}: row {row}, column {column}");
                }
            }
            if columns > WIDEST {
                continue;
            }
            let mut pairs = vec![f32::NAN; (rows.div_ceil(2) + 1) * WIDEST];
            pair_rows(isa, &mut pairs, matrix, WIDEST);
            for (place, pair) in pairs.iter().enumerate() {
                let (row, column) = (place / WIDEST * 2, place % WIDEST);
                let expected = [expected(row, column), expected(row + 1, column)];
                assert_eq!(bytemuck::cast::<_, [bf16; 2]>(*pair), expected, "{what}: pair {row}, {column}");
            }
        }
    }
}
