//! Copies of rows that would push each other out of the first-level cache.

use bytemuck::Pod;
use rayon::prelude::*;

use super::NEAR;
use crate::kernels::cpu::{
    lines::{Line, room, stride},
    matrix::Matrix,
    quantisation::FEW,
};

/// Whether the rows of a tile stay in the first-level cache while a product goes along them. Columns far apart do not, nor do rows
/// a multiple of 2 KB apart: a usual such cache has 64 sets of 8 or 12 lines, and the lines of 12 such rows share one or two.
pub(super) fn is_cached<T: Copy>(block: Matrix<'_, T>) -> bool {
    let [rows, _] = block.shape();
    let bytes = block.strides()[0] as usize * size_of::<T>();
    block.has_contiguous_rows() && (rows <= NEAR || !bytes.is_multiple_of(2048))
}

/// The same block in a buffer where it is, copied by all threads or by this one.
pub(super) fn copied<'a, T: Pod + Send + Sync>(
    block: Matrix<'_, T>,
    buffer: &'a mut Vec<Line>,
    by_all_threads: bool,
) -> Matrix<'a, T> {
    let [rows, columns] = block.shape();
    let by_row = block.has_contiguous_rows();
    let (from, stride) = if by_row { (block, stride::<T>(columns)) } else { (block.transposed(), rows) };
    let [count, width] = from.shape();
    let copy = room::<T>(buffer, count * stride);
    let copy_row = |(row, copy): (usize, &mut [T])| copy[..width].copy_from_slice(from.row(row));
    if by_all_threads {
        let rows = copy.par_chunks_exact_mut(stride).take(count).enumerate();
        rows.with_min_len(FEW.div_ceil(width)).for_each(copy_row);
    } else {
        copy.chunks_exact_mut(stride).take(count).enumerate().for_each(copy_row);
    }
    let copy = Matrix::new(copy, 0, count, width, stride);
    if by_row { copy } else { copy.transposed() }
}
