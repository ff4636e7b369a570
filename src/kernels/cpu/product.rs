//! Matrix products, whose right operand is laid out in [panels](Panels).
//!
//! A product walks blocks of rows of the left operand, blocks of its columns, panels, and tiles of a few rows whose sums stay
//! in registers: a panel stays in the first-level cache while the tiles of a block pass over it, the block's rows in the
//! second, and each tile asks for its share of the next panel ahead of time. Rows that would push each other out of the cache
//! are copied first. What a product starts from, a bias or what stands in the output, is added to a tile's sums.

mod copies;
mod unit;

use std::{cell::RefCell, hint::black_box, ops::Range};

use rayon::prelude::*;

use copies::{copied, is_cached};

use super::{
    amx,
    format::{Format, Operand},
    gelu,
    lines::Line,
    matrix::{Matrix, MatrixMut, Shared},
    panels::{Panels, WIDEST, parts},
    simd::{Simd, vectorized},
};
use crate::isa::Isa;

/// Rows of the left operand that stay in the second-level cache, in whole tiles: 512 inputs of 120 rows of f32 are 246 KB.
const fn rows_of_a_block<F: Format>() -> usize {
    128 / F::TILE_ROWS * F::TILE_ROWS
}
/// Columns that one task computes, a multiple of every panel's width. A matrix unit is done with the 128 inputs of a block of bytes
/// so soon that the sums have to stay in the first-level cache from block to block: 32 KB.
const fn columns_of_a_task<F: Format>() -> usize {
    match F::AMX {
        Some(amx::Product::Bytes) => 64,
        _ => 192,
    }
}
/// Rows of a tile that one register addresses; a higher tile has another for the rest.
const NEAR: usize = 6;

/// What the sums of a product start from.
#[derive(Clone, Copy)]
pub(crate) enum Start<'a> {
    Zero,
    /// The same in each row: a number a column.
    Bias(&'a [f32]),
    /// What stands in the output.
    Output,
}

/// What becomes of the sums of a product, block by block, as long as they are in cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finish {
    /// The output.
    Sums,
    /// The output is their [`gelu`].
    Gelu,
}

impl Finish {
    fn apply(self, isa: Isa, mut block: MatrixMut<'_>) {
        if self == Self::Gelu {
            (0..block.shape()[0]).for_each(|row| gelu::in_place(isa, block.row_mut(row)));
        }
    }
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

impl<F: Format> Panels<F> {
    /// `output = start + lhs matrix`, on this thread.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn product<'a>(&self, lhs: impl Into<Operand<'a, F>>, start: Start<'_>, output: MatrixMut<'_>) {
        self.product_of_columns(lhs, 0..self.shape()[1], start, output);
    }

    /// The same with some of the columns, of which the first [begins a panel](Self::panel_start).
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn product_of_columns<'a>(
        &self,
        lhs: impl Into<Operand<'a, F>>,
        columns: Range<usize>,
        start: Start<'_>,
        output: MatrixMut<'_>,
    ) {
        let lhs = lhs.into();
        self.check(lhs, &columns, start, output.shape());
        self.blocks(lhs, columns, start, output);
    }

    /// `output = finish(start + lhs matrix)`, on all threads, with the rows of `output` end to end. Every element of it is written.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn parallel_product<'a>(
        &self,
        lhs: impl Into<Operand<'a, F>>,
        start: Start<'_>,
        finish: Finish,
        output: &mut [f32],
    ) {
        let lhs = lhs.into();
        let ([rows, _], [_, width]) = (lhs.matrix.shape(), self.shape());
        assert_eq!(output.len(), rows * width, "the output");
        assert!(self.depth() > 0, "a product of no columns with no rows");
        self.check(lhs, &(0..width), start, [rows, width]);
        let mut copy = Vec::new();
        // Copied here once, and not by each task, where several take the same rows.
        let is_shared = width > columns_of_a_task::<F>();
        let lhs = if is_shared && lhs.matrix.has_contiguous_rows() && !is_cached(lhs.matrix) {
            Operand { matrix: copied(lhs.matrix, &mut copy, true), ..lhs }
        } else {
            lhs
        };
        let output = Shared::new(output);
        // Row blocks of the same columns follow each other: they find the panels in cache.
        let tasks: Vec<_> = parts(0..width, columns_of_a_task::<F>())
            .flat_map(|columns| parts(0..rows, rows_of_a_block::<F>()).map(move |rows| (rows, columns.clone())))
            .collect();
        // Each can be taken by another thread, down to the last.
        tasks.into_par_iter().with_max_len(1).for_each(|(rows, columns)| {
            let place = rows.start * width + columns.start;
            // SAFETY: the tasks' rows and columns are parts of the output that do not overlap.
            let mut block = unsafe { output.matrix(place, rows.len(), columns.len(), width) };
            let all = 0..rows.len();
            self.blocks(lhs.rows(rows), columns.clone(), start.columns(columns), block.rows(all));
            finish.apply(self.isa(), block);
        });
    }

    /// Some columns of a product, block by block of the left operand.
    fn blocks(&self, lhs: Operand<'_, F>, columns: Range<usize>, start: Start<'_>, mut output: MatrixMut<'_>) {
        thread_local! {
            static COPY: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
        }
        let [rows, inner] = lhs.matrix.shape();
        for rows in parts(0..rows, rows_of_a_block::<F>()) {
            let lhs = lhs.rows(rows.clone());
            for depth in parts(0..inner, F::DEPTH) {
                let lhs = lhs.block(depth.clone());
                let block = lhs.matrix;
                let start = if depth.start > 0 { Start::Output } else { start };
                let mut run = |matrix: Matrix<'_, F::State>| {
                    let (block, output) = (Operand { matrix, ..lhs }, output.rows(rows.clone()));
                    multiply(self.isa(), self, block, depth.clone(), columns.clone(), start, output);
                };
                if is_cached(block) {
                    run(block);
                } else {
                    // On this thread alone: waiting for others it could take up another product, which wants the same buffer.
                    COPY.with_borrow_mut(|copy| run(copied(block, copy, false)));
                }
            }
        }
    }

    fn check(&self, lhs: Operand<'_, F>, columns: &Range<usize>, start: Start<'_>, output: [usize; 2]) {
        let ([rows, inner], [_, width]) = (lhs.matrix.shape(), self.shape());
        assert_eq!(inner, self.depth(), "inner sizes");
        assert!(columns.start.is_multiple_of(self.width()) && columns.end <= width, "columns {columns:?}");
        assert_eq!(output, [rows, columns.len()], "outer sizes");
        assert!(!matches!(start, Start::Bias(bias) if bias.len() != columns.len()), "bias");
    }
}

vectorized! {
    /// The product of some rows and columns of the left operand with some columns of the panels.
    fn multiply<F: Format>(
        simd: impl Simd,
        panels: &Panels<F>,
        lhs: Operand<'_, F>,
        depth: Range<usize>,
        columns: Range<usize>,
        start: Start<'_>,
        output: MatrixMut<'_>,
    ) {
        let mut output = output;
        let mut unit = amx::Unit::new();
        for from in parts(columns.clone(), panels.width()) {
            let to = from.start - columns.start..from.end - columns.start;
            let tiles = Tiles {
                lhs,
                panel: panels.panel(&depth, from.start),
                scales: panels.scales(&depth, from.start),
                offsets: panels.offsets(&depth, from.start),
                start: start.columns(to.clone()),
                columns: to,
            };
            match F::AMX {
                None => tiles.run(simd, &mut output),
                Some(product) => tiles.run_in_blocks(simd, panels.isa(), product, &mut unit, &mut output),
            }
        }
    }
}

/// The product with one panel.
struct Tiles<'a, F: Format> {
    /// [rows, depth]
    lhs: Operand<'a, F>,
    /// [depth / group, width, group]
    panel: &'a [F::Weight],
    /// Of the panel's columns, if they have any.
    scales: &'a [f32],
    /// Of the panel's columns, if they have any.
    offsets: &'a [i32],
    /// The panel's columns in the output.
    columns: Range<usize>,
    start: Start<'a>,
}

impl<F: Format> Tiles<'_, F> {
    /// `output[.., columns] = start + lhs panel`
    #[inline(always)]
    fn run<S: Simd>(&self, simd: S, output: &mut MatrixMut<'_>) {
        let [rows, depth] = self.lhs.matrix.shape();
        // The next panel follows in memory; each tile asks for its share of it.
        let share = (depth / F::GROUP).div_ceil((rows / S::TILE_ROWS).max(1));
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
            while *row + R <= self.lhs.matrix.shape()[0] {
                self.tile::<S, R>(simd, *row, share, output);
                *row += R;
            }
        }
    }

    /// One tile: `R` rows from `row` on.
    #[inline(always)]
    fn tile<S: Simd, const R: usize>(&self, simd: S, row: usize, share: usize, output: &mut MatrixMut<'_>) {
        // Of the panel, a step.
        let width = 2 * S::LANES * F::GROUP;
        let steps = self.panel.len() / width;
        let lhs = self.lhs.matrix.part(row..row + R, 0..steps * F::GROUP);
        let [row_stride, column_stride] = lhs.strides();
        // Of the first rows from one another. The compiler is not to know that these are multiples: it would add up strides in each
        // step, which takes as many instructions as the products of integers.
        let offsets: [isize; NEAR] = std::array::from_fn(|row| black_box(row as isize * row_stride));
        let mut sums = [F::start(simd, self.offsets); R];
        // The share begins where that of the tile before ended.
        let ahead = (steps + row / S::TILE_ROWS * share) * width;
        for step in 0..steps {
            // SAFETY: the panel has `steps` groups of two registers, and `lhs` R rows of as many groups.
            unsafe {
                let weights = self.panel.as_ptr().add(step * width);
                if step < share {
                    prefetch(weights.wrapping_add(ahead), width);
                }
                let states = lhs.pointer().offset((step * F::GROUP) as isize * column_stride);
                let far = |row: usize| (row / NEAR * NEAR) as isize * row_stride;
                let states: [_; R] = std::array::from_fn(|row| states.offset(far(row)).offset(offsets[row % NEAR]));
                F::step(simd, states, weights, &mut sums);
            }
        }
        self.write(simd, sums, row, output);
    }

    /// Makes of a tile's sums what the output has in the rows from `row` on.
    #[inline(always)]
    fn write<S: Simd, const R: usize>(
        &self,
        simd: S,
        sums: [[F::Sum<S>; 2]; R],
        row: usize,
        output: &mut MatrixMut<'_>,
    ) {
        let mut tile = output.part(row..row + R, self.columns.clone());
        let scales: [f32; R] = match self.lhs.scales {
            Some(scales) => std::array::from_fn(|r| scales.get(row + r, 0)),
            None => [1.0; R],
        };
        if self.columns.len() == 2 * S::LANES {
            let (to, stride) = (tile.pointer(), tile.stride());
            // SAFETY: R rows of the tile are two registers wide, and so are a bias and a panel's scales.
            unsafe {
                match self.start {
                    Start::Zero => self.write_from(simd, sums, scales, None, to, stride),
                    Start::Bias(bias) => self.write_from(simd, sums, scales, Some((bias.as_ptr(), 0)), to, stride),
                    Start::Output => self.write_from(simd, sums, scales, Some((to.cast_const(), stride)), to, stride),
                }
            }
            return;
        }
        // The last panel has columns that are no part of the output.
        let mut whole = [[0.0; WIDEST]; R];
        for (r, whole) in whole.iter_mut().enumerate() {
            match self.start {
                Start::Zero => {}
                Start::Bias(bias) => whole[..bias.len()].copy_from_slice(bias),
                Start::Output => whole[..self.columns.len()].copy_from_slice(tile.row_mut(r)),
            }
        }
        let (to, stride) = (whole.as_mut_ptr().cast::<f32>(), WIDEST as isize);
        // SAFETY: as above.
        unsafe { self.write_from(simd, sums, scales, Some((to.cast_const(), stride)), to, stride) };
        for (r, whole) in whole.iter().enumerate() {
            tile.row_mut(r).copy_from_slice(&whole[..self.columns.len()]);
        }
    }

    /// Adds sums to what they start from, if to anything, and writes them. A loop so short that the sums stay in registers.
    ///
    /// # Safety
    /// There are R rows of two registers, strides apart, of what to write and of what to start from.
    #[inline(always)]
    unsafe fn write_from<S: Simd, const R: usize>(
        &self,
        simd: S,
        sums: [[F::Sum<S>; 2]; R],
        scales: [f32; R],
        start: Option<(*const f32, isize)>,
        to: *mut f32,
        stride: isize,
    ) {
        // SAFETY: the caller's promise; a panel that has scales has two registers of them.
        unsafe {
            let of_columns = both(|i| match self.scales {
                [] => simd.splat(1.0),
                scales => simd.load(scales.as_ptr().add(i * S::LANES)),
            });
            for (r, (sums, scale)) in sums.into_iter().zip(scales).enumerate() {
                let scale = simd.splat(scale);
                let mut values = both(|i| F::values(simd, sums[i], scale, of_columns[i]));
                if let Some((from, stride)) = start {
                    let from = from.offset(r as isize * stride);
                    values = both(|i| simd.add(simd.load(from.add(i * S::LANES)), values[i]));
                }
                let to = to.offset(r as isize * stride);
                simd.store(to, values[0]);
                simd.store(to.add(S::LANES), values[1]);
            }
        }
    }
}

/// The same for two registers.
#[inline(always)]
fn both<T>(of: impl Fn(usize) -> T) -> [T; 2] {
    [of(0), of(1)]
}

/// Asks for `width` weights that will be needed soon; on other processors than x86 they come by themselves.
#[inline(always)]
fn prefetch<T>(weights: *const T, width: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..width).step_by(size_of::<Line>() / size_of::<T>()) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a hint, which touches no memory whatever the address is.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(weights.wrapping_add(line).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (weights, width);
}

#[cfg(test)]
mod tests;
