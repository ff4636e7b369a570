//! How the numbers of a panel lie: groups of inputs side by side, column after column.

use bytemuck::Pod;

use super::matrix::Matrix;

/// Lays out a panel of groups: `weight` makes one of a column and a number.
pub(super) fn pack_groups<T: Pod>(
    panel: &mut [T],
    matrix: Matrix<'_>,
    width: usize,
    group: usize,
    weight: impl Fn(usize, f32) -> T,
) {
    let [inner, columns] = matrix.shape();
    panel.fill(T::zeroed());
    for row in 0..inner {
        let groups = &mut panel[row / group * group * width..];
        for column in 0..columns {
            groups[column * group + row % group] = weight(column, matrix.get(row, column));
        }
    }
}

/// Lays out a panel of numbers, each its own group.
pub(super) fn pack_rows<T: Pod>(panel: &mut [T], matrix: Matrix<'_>, width: usize, from: impl Fn(f32) -> T) {
    let [inner, columns] = matrix.shape();
    if columns < width {
        panel.fill(T::zeroed());
    }
    if matrix.has_contiguous_rows() {
        for (row, panel_row) in panel.chunks_exact_mut(width).enumerate() {
            for (to, value) in panel_row.iter_mut().zip(matrix.row(row)) {
                *to = from(*value);
            }
        }
        return;
    }
    // Columns become rows in squares of four, as far as there are whole ones.
    let matrix = matrix.transposed();
    let whole = [columns / 4 * 4, inner / 4 * 4];
    for column in (0..whole[0]).step_by(4) {
        let lines = [0, 1, 2, 3].map(|line| matrix.row(column + line).as_chunks::<4>().0);
        for (number, rows) in panel[..whole[1] * width].chunks_exact_mut(4 * width).enumerate() {
            let square = transposed(lines.map(|line| line[number]));
            for (row, four) in square.into_iter().enumerate() {
                rows[row * width + column..][..4].copy_from_slice(&four.map(&from));
            }
        }
    }
    for column in 0..columns {
        let done = if column < whole[0] { whole[1] } else { 0 };
        for (row, value) in matrix.row(column).iter().enumerate().skip(done) {
            panel[row * width + column] = from(*value);
        }
    }
}

/// Rows as columns.
#[inline(always)]
pub(super) fn transposed(square: [[f32; 4]; 4]) -> [[f32; 4]; 4] {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_TRANSPOSE4_PS, _mm_loadu_ps, _mm_storeu_ps};
        // SAFETY: every x86-64 processor has these instructions; loads and stores are of four numbers each.
        unsafe {
            let [mut a, mut b, mut c, mut d] = square.map(|row| _mm_loadu_ps(row.as_ptr()));
            _MM_TRANSPOSE4_PS(&mut a, &mut b, &mut c, &mut d);
            [a, b, c, d].map(|row| {
                let mut four = [0.0; 4];
                _mm_storeu_ps(four.as_mut_ptr(), row);
                four
            })
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    [0, 1, 2, 3].map(|column: usize| square.map(|row| row[column]))
}
