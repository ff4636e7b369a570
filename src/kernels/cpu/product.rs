//! Matrix products, whose right operand is laid out in [panels](Panels).
//!
//! A product walks blocks of rows of the left operand, blocks of its columns, panels, and tiles of a few rows whose sums stay
//! in registers: a panel stays in the first-level cache while the tiles of a block pass over it, the block's rows in the
//! second, and each tile asks for its share of the next panel ahead of time. A bias is what the sums start from.

use std::{cell::RefCell, ops::Range};

use rayon::prelude::*;

use super::{
    matrix::{Matrix, MatrixMut, Shared},
    panels::{DEPTH, Panels, parts},
    simd::{Simd, vectorized},
};

/// Rows of the left operand that stay in the second-level cache, a multiple of every tile's: 384 inputs of 120 rows are 184 KB.
const ROWS: usize = 120;
/// Columns that one task computes, a multiple of every panel's width.
const COLUMNS: usize = 192;
/// Columns of the widest panel.
const WIDEST: usize = 32;

/// What the sums of a product start from.
#[derive(Clone, Copy)]
pub(crate) enum Start<'a> {
    Zero,
    /// The same in each row: a number a column.
    Bias(&'a [f32]),
    /// What stands in the output.
    Output,
}

impl Start<'_> {
    /// For some of the columns.
    #[inline(always)]
    fn columns(self, range: Range<usize>) -> Self {
        match self {
            Self::Bias(bias) => Self::Bias(&bias[range]),
            other => other,
        }
    }
}

impl Panels {
    /// `output = start + lhs matrix`, on this thread.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn product(&self, lhs: Matrix<'_>, start: Start<'_>, output: MatrixMut<'_>) {
        self.product_of_columns(lhs, 0..self.shape()[1], start, output);
    }

    /// The same with some of the columns, of which the first [begins a panel](Self::panel_start).
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn product_of_columns(&self, lhs: Matrix<'_>, columns: Range<usize>, start: Start<'_>, output: MatrixMut<'_>) {
        self.check(lhs, &columns, start, output.shape());
        self.blocks(lhs, columns, start, output);
    }

    /// `output = start + lhs matrix`, on all threads, with the rows of `output` end to end.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn parallel_product(&self, lhs: Matrix<'_>, start: Start<'_>, output: &mut [f32]) {
        let ([rows, _], [_, width]) = (lhs.shape(), self.shape());
        assert_eq!(output.len(), rows * width, "the output");
        self.check(lhs, &(0..width), start, [rows, width]);
        let output = Shared::new(output);
        // Row blocks of the same columns follow each other: they find the panels in cache.
        let tasks: Vec<_> = parts(0..width, COLUMNS)
            .flat_map(|columns| parts(0..rows, ROWS).map(move |rows| (rows, columns.clone())))
            .collect();
        tasks.into_par_iter().for_each(|(rows, columns)| {
            let place = rows.start * width + columns.start;
            // SAFETY: the tasks' rows and columns are parts of the output that do not overlap.
            let block = unsafe { output.matrix(place, rows.len(), columns.len(), width) };
            self.blocks(lhs.rows(rows), columns.clone(), start.columns(columns), block);
        });
    }

    /// Some columns of a product, block by block of the left operand.
    fn blocks(&self, lhs: Matrix<'_>, columns: Range<usize>, start: Start<'_>, mut output: MatrixMut<'_>) {
        thread_local! {
            static COPY: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
        }
        let [rows, inner] = lhs.shape();
        for rows in parts(0..rows, ROWS) {
            for depth in parts(0..inner, DEPTH) {
                let block = lhs.part(rows.clone(), depth.clone());
                let start = if depth.start > 0 { Start::Output } else { start };
                let mut run = |block: Matrix<'_>| {
                    let output = output.rows(rows.clone());
                    multiply(self.isa(), self, block, depth.clone(), columns.clone(), start, output);
                };
                if block.has_contiguous_rows() {
                    run(block);
                } else {
                    // Far strides miss the caches: the block is copied to where its columns lie end to end.
                    COPY.with_borrow_mut(|copy| {
                        let columns = block.transposed();
                        copy.clear();
                        (0..depth.len()).for_each(|column| copy.extend_from_slice(columns.row(column)));
                        run(Matrix::new(copy, 0, depth.len(), rows.len(), rows.len()).transposed());
                    });
                }
            }
        }
    }

    fn check(&self, lhs: Matrix<'_>, columns: &Range<usize>, start: Start<'_>, output: [usize; 2]) {
        let ([rows, inner], [own, width]) = (lhs.shape(), self.shape());
        assert_eq!(inner, own, "inner sizes");
        assert!(columns.start.is_multiple_of(self.width()) && columns.end <= width, "columns {columns:?}");
        assert_eq!(output, [rows, columns.len()], "outer sizes");
        assert!(!matches!(start, Start::Bias(bias) if bias.len() != columns.len()), "bias");
    }
}

vectorized! {
    /// The product of some rows and columns of the left operand with some columns of the panels.
    fn multiply(
        simd: impl Simd,
        panels: &Panels,
        lhs: Matrix<'_>,
        depth: Range<usize>,
        columns: Range<usize>,
        start: Start<'_>,
        output: MatrixMut<'_>,
    ) {
        let mut output = output;
        for from in parts(columns.clone(), panels.width()) {
            let to = from.start - columns.start..from.end - columns.start;
            let start = start.columns(to.clone());
            Tiles { lhs, panel: panels.panel(&depth, from.start), columns: to, start }.run(simd, &mut output);
        }
    }
}

/// The product with one panel.
struct Tiles<'a> {
    /// [rows, depth]
    lhs: Matrix<'a>,
    /// [depth, width]
    panel: &'a [f32],
    /// The panel's columns in the output.
    columns: Range<usize>,
    start: Start<'a>,
}

impl Tiles<'_> {
    /// `output[.., columns] = start + lhs panel`
    #[inline(always)]
    fn run<S: Simd>(&self, simd: S, output: &mut MatrixMut<'_>) {
        let [rows, depth] = self.lhs.shape();
        // The next panel follows in memory; each tile asks for its share of it.
        let share = depth.div_ceil((rows / S::TILE_ROWS).max(1));
        let mut row = 0;
        // As many rows as possible in large tiles.
        self.tiles::<S, 12>(simd, &mut row, share, output);
        self.tiles::<S, 6>(simd, &mut row, share, output);
        self.tiles::<S, 4>(simd, &mut row, share, output);
        self.tiles::<S, 2>(simd, &mut row, share, output);
        self.tiles::<S, 1>(simd, &mut row, share, output);
    }

    /// Tiles of `R` rows from `row` on, as long as there are so many, where the registers hold so many.
    #[inline(always)]
    fn tiles<S: Simd, const R: usize>(&self, simd: S, row: &mut usize, share: usize, output: &mut MatrixMut<'_>) {
        if R <= S::TILE_ROWS {
            while *row + R <= self.lhs.shape()[0] {
                self.tile::<S, R>(simd, *row, share, output);
                *row += R;
            }
        }
    }

    /// One tile: `R` rows from `row` on.
    #[inline(always)]
    fn tile<S: Simd, const R: usize>(&self, simd: S, row: usize, share: usize, output: &mut MatrixMut<'_>) {
        let width = 2 * S::LANES;
        let depth = self.panel.len() / width;
        let lhs = self.lhs.part(row..row + R, 0..depth);
        let (pointer, [row_stride, column_stride]) = (lhs.pointer(), lhs.strides());
        let mut sums = [[simd.splat(0.0); 2]; R];
        match self.start {
            Start::Zero => {}
            Start::Bias(bias) => sums = [load(simd, bias); R],
            Start::Output => {
                for (r, sums) in sums.iter_mut().enumerate() {
                    *sums = load(simd, &output.row_mut(row + r)[self.columns.clone()]);
                }
            }
        }
        // The share begins where that of the tile before ended.
        let ahead = (depth + row / S::TILE_ROWS * share) * width;
        for step in 0..depth {
            // SAFETY: the panel has `depth` rows of two registers, and `lhs` R rows of `depth` elements.
            unsafe {
                let weights = self.panel.as_ptr().add(step * width);
                if step < share {
                    prefetch(weights.wrapping_add(ahead), width);
                }
                let weights = [simd.load(weights), simd.load(weights.add(S::LANES))];
                let column = pointer.offset(step as isize * column_stride);
                for (r, [low, high]) in sums.iter_mut().enumerate() {
                    let state = simd.splat(*column.offset(r as isize * row_stride));
                    *low = simd.multiply_add(state, weights[0], *low);
                    *high = simd.multiply_add(state, weights[1], *high);
                }
            }
        }
        for (r, sums) in sums.into_iter().enumerate() {
            store(simd, sums, &mut output.row_mut(row + r)[self.columns.clone()]);
        }
    }
}

/// Two registers from a row, which is shorter in the last panel.
#[inline(always)]
fn load<S: Simd>(simd: S, row: &[f32]) -> [S::Vector; 2] {
    let mut whole = [0.0; WIDEST];
    let from = match row.len() == 2 * S::LANES {
        true => row.as_ptr(),
        false => {
            whole[..row.len()].copy_from_slice(row);
            whole.as_ptr()
        }
    };
    // SAFETY: the row has two registers of numbers, or `whole` has at least as many.
    unsafe { [simd.load(from), simd.load(from.add(S::LANES))] }
}

/// Two registers into a row, which is shorter in the last panel.
#[inline(always)]
fn store<S: Simd>(simd: S, [low, high]: [S::Vector; 2], row: &mut [f32]) {
    let mut whole = [0.0; WIDEST];
    let is_whole = row.len() == 2 * S::LANES;
    let to = if is_whole { row.as_mut_ptr() } else { whole.as_mut_ptr() };
    // SAFETY: as in `load`.
    unsafe {
        simd.store(to, low);
        simd.store(to.add(S::LANES), high);
    }
    if !is_whole {
        row.copy_from_slice(&whole[..row.len()]);
    }
}

/// Asks for `width` weights that will be needed soon; on other processors than x86 they come by themselves.
#[inline(always)]
fn prefetch(weights: *const f32, width: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..width).step_by(16) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a hint, which touches no memory whatever the address is.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(weights.wrapping_add(line).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (weights, width);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{isa::Isa, kernels::cpu::rate};

    /// `count` numbers from -1 to 1.
    fn values(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0).collect()
    }

    /// A matrix over a buffer of as many elements, its rows contiguous or its columns.
    fn matrix(data: &[f32], rows: usize, columns: usize, transposed: bool) -> Matrix<'_> {
        match transposed {
            true => Matrix::new(data, 0, columns, rows, rows).transposed(),
            false => Matrix::new(data, 0, rows, columns, columns),
        }
    }

    /// An element of such a matrix.
    fn at(data: &[f32], rows: usize, columns: usize, transposed: bool, [row, column]: [usize; 2]) -> f64 {
        f64::from(if transposed { data[column * rows + row] } else { data[row * columns + column] })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        // Every remainder of rows, of a panel's rows and columns, and of a task's columns.
        #[test]
        fn products_are_those_of_f64(
            (rows, inner, columns) in (1usize..258, 1usize..900, 1usize..420),
            (lhs_transposed, rhs_transposed, biased) in any::<(bool, bool, bool)>(),
            first in 0usize..420,
        ) {
            let (lhs, rhs, bias) = (values(rows * inner, 1), values(inner * columns, 2), values(columns, 3));
            let lhs_matrix = matrix(&lhs, rows, inner, lhs_transposed);
            let rhs_matrix = matrix(&rhs, inner, columns, rhs_transposed);
            // Some of the elements, in f64.
            let places: Vec<[usize; 2]> = (0..200).map(|n| [n * 31 % rows, n * 17 % columns]).collect();
            let expected: Vec<f64> = places.iter().map(|[row, column]| {
                let products = (0..inner).map(|k| {
                    at(&lhs, rows, inner, lhs_transposed, [*row, k]) * at(&rhs, inner, columns, rhs_transposed, [k, *column])
                });
                products.sum::<f64>() + if biased { f64::from(bias[*column]) } else { 0.0 }
            }).collect();
            let start = if biased { Start::Bias(&bias) } else { Start::Zero };
            // One rounding a product of partial sums of up to 900, at worst all in one direction.
            let close = |found: f32, expected: f64| (f64::from(found) - expected).abs() < 900.0 * 900.0 * 6e-8;
            for isa in Isa::available() {
                let panels = Panels::new(isa, rhs_matrix);
                let unpacked = panels.unpack();
                let is_same = |i: usize| {
                    let place = [i / columns, i % columns];
                    f64::from(unpacked[i]) == at(&rhs, inner, columns, rhs_transposed, place)
                };
                prop_assert!((0..inner * columns).all(is_same), "{isa}: the matrix has changed");
                // What stood in the output must not matter, and the numbers of threads neither.
                let mut output = vec![f32::NAN; rows * columns];
                panels.parallel_product(lhs_matrix, start, &mut output);
                for ([row, column], expected) in places.iter().zip(&expected) {
                    let found = output[row * columns + column];
                    prop_assert!(close(found, *expected), "{isa}: {found} instead of {expected}");
                }
                let mut alone = vec![f32::NAN; rows * columns];
                panels.product(lhs_matrix, start, MatrixMut::new(&mut alone, 0, rows, columns, columns));
                prop_assert!(alone == output, "{isa}: other threads, other sums");
                // Added to what stands there, and some of the columns only.
                panels.product(lhs_matrix, Start::Output, MatrixMut::new(&mut alone, 0, rows, columns, columns));
                let first = panels.panel_start(first.min(columns - 1));
                let mut some = vec![f32::NAN; rows * (columns - first)];
                let some_matrix = MatrixMut::new(&mut some, 0, rows, columns - first, columns - first);
                let some_start = if biased { Start::Bias(&bias[first..]) } else { Start::Zero };
                panels.product_of_columns(lhs_matrix, first..columns, some_start, some_matrix);
                for ([row, column], expected) in places.iter().zip(&expected) {
                    let twice = 2.0 * expected - if biased { f64::from(bias[*column]) } else { 0.0 };
                    prop_assert!(close(alone[row * columns + column], twice), "{isa}: added to what stood there");
                    if *column >= first {
                        let found = some[row * (columns - first) + column - first];
                        prop_assert!(found == output[row * columns + column], "{isa}: {found} of some columns");
                    }
                }
            }
        }
    }

    #[test]
    fn numbers_that_are_none_stay_in_their_row() {
        let special = [f32::NAN, f32::INFINITY, f32::MAX, f32::from_bits(1), -0.0];
        for isa in Isa::available() {
            let (mut lhs, rhs) = (values(13 * 40, 1), values(40 * 33, 2));
            for (row, value) in special.into_iter().enumerate() {
                lhs[row * 40 + 3] = value;
            }
            let mut output = vec![0.0; 13 * 33];
            Panels::new(isa, matrix(&rhs, 40, 33, false)).parallel_product(
                matrix(&lhs, 13, 40, false),
                Start::Zero,
                &mut output,
            );
            let rows: Vec<&[f32]> = output.chunks(33).collect();
            assert!(rows[0].iter().all(|value| value.is_nan()), "{isa}");
            assert!(rows[1].iter().zip(&rhs[3 * 33..]).all(|(value, weight)| *weight == 0.0 || value.is_infinite()));
            assert!(rows[2..].iter().flat_map(|row| row.iter()).all(|value| value.is_finite()), "{isa}");
        }
    }

    /// Code that the compiler has failed to vectorise shows as a rate far below `gemm`'s.
    #[test]
    fn products_are_as_fast_as_their_registers_are_wide() {
        // Linear maps, scores of attention, its context, and both gradients of a linear map.
        let shapes = [
            ([1, 768, 768], false, false),
            ([4, 768, 768], false, false),
            ([32, 768, 768], false, false),
            ([128, 768, 384], false, false),
            ([60, 64, 512], false, true),
            ([60, 512, 64], false, false),
            ([128, 384, 768], false, true),
            ([384, 128, 768], true, false),
        ];
        for ([rows, inner, columns], lhs_transposed, rhs_transposed) in shapes {
            let (lhs, rhs) = (values(rows * inner, 1), values(inner * columns, 2));
            let (lhs, rhs) = (matrix(&lhs, rows, inner, lhs_transposed), matrix(&rhs, inner, columns, rhs_transposed));
            let mut output = vec![0.0; rows * columns];
            for isa in Isa::available() {
                let panels = Panels::new(isa, rhs);
                let ratio = rate::beside_gemm(lhs, rhs, || panels.parallel_product(lhs, Start::Zero, &mut output));
                rate::assert_vectorised(isa, ratio, &format!("product of {rows} x {inner} x {columns}"));
            }
        }
    }
}
