//! The right operand of a [product](super::product), laid out in panels, two registers wide, to be read in order:
//!
//! ```text
//! matrix [inner, columns]  ->  for each DEPTH rows, for each two registers of columns: a panel [depth, width]
//! ```

use std::{fmt, ops::Range};

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use super::matrix::Matrix;
use crate::isa::Isa;

/// Rows of a panel: 384 rows of 16 columns are 24 of the first-level cache's 32 KB, of 32 columns all 48 KB of an AVX-512
/// processor's.
pub(super) const DEPTH: usize = 384;
/// Numbers that are not worth a second thread to lay out.
const FEW: usize = 64 * 1024;

/// A cache line: a register load that crosses two costs twice.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([f32; 16]);

// SAFETY: all-zero bytes are 16 numbers.
unsafe impl Zeroable for Line {}
// SAFETY: 16 numbers of 4 bytes fill the 64 bytes that it is aligned to, and any bytes are numbers.
unsafe impl Pod for Line {}

/// A right operand in panels.
pub(crate) struct Panels {
    lines: Vec<Line>,
    inner: usize,
    columns: usize,
    /// The instructions it is laid out for.
    isa: Isa,
    /// Columns of a panel: two registers.
    width: usize,
}

impl fmt::Debug for Panels {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} x {} in panels for {}", self.inner, self.columns, self.isa)
    }
}

impl Panels {
    /// Room for operands to come.
    pub fn empty(isa: Isa) -> Self {
        Self { lines: Vec::new(), inner: 0, columns: 0, isa, width: 2 * isa.lanes() }
    }

    /// Lays out a matrix.
    pub fn new(isa: Isa, matrix: Matrix<'_>) -> Self {
        let mut panels = Self::empty(isa);
        panels.pack(matrix);
        panels
    }

    /// Lays out a matrix in the place of the one before.
    pub fn pack(&mut self, matrix: Matrix<'_>) {
        [self.inner, self.columns] = matrix.shape();
        let (width, stride) = (self.width, self.columns.next_multiple_of(self.width));
        let lines = (self.inner * stride).div_ceil(16);
        if self.lines.len() < lines {
            self.lines = bytemuck::zeroed_vec(lines);
        }
        let mut rest: &mut [f32] = bytemuck::cast_slice_mut(&mut self.lines);
        for depth in parts(0..self.inner, DEPTH) {
            let (panels, others) = rest.split_at_mut(depth.len() * stride);
            rest = others;
            let size = depth.len() * width;
            panels.par_chunks_mut(size).with_min_len(FEW / size).enumerate().for_each(|(number, panel)| {
                let columns = number * width..self.columns.min((number + 1) * width);
                pack_panel(panel, matrix.part(depth.clone(), columns), width);
            });
        }
    }

    /// The matrix as it was, row by row.
    pub fn unpack(&self) -> Vec<f32> {
        let mut matrix = vec![0.0; self.inner * self.columns];
        for depth in parts(0..self.inner, DEPTH) {
            for columns in parts(0..self.columns, self.width) {
                let panel = self.panel(&depth, columns.start);
                for (row, panel_row) in depth.clone().zip(panel.chunks_exact(self.width)) {
                    matrix[row * self.columns..][columns.clone()].copy_from_slice(&panel_row[..columns.len()]);
                }
            }
        }
        matrix
    }

    /// [inner, columns]
    pub fn shape(&self) -> [usize; 2] {
        [self.inner, self.columns]
    }

    /// The instructions it is laid out for.
    pub(super) fn isa(&self) -> Isa {
        self.isa
    }

    /// Columns of a panel.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// The panel of these rows and the columns from `column` on.
    #[inline(always)]
    pub(super) fn panel(&self, depth: &Range<usize>, column: usize) -> &[f32] {
        let start = depth.start * self.columns.next_multiple_of(self.width) + column * depth.len();
        &bytemuck::cast_slice(&self.lines)[start..][..depth.len() * self.width]
    }

    /// The first column of the panel that a column is in.
    pub fn panel_start(&self, column: usize) -> usize {
        column / self.width * self.width
    }
}

/// Lays out one panel.
fn pack_panel(panel: &mut [f32], matrix: Matrix<'_>, width: usize) {
    let [inner, columns] = matrix.shape();
    if columns < width {
        panel.fill(0.0);
    }
    if matrix.has_contiguous_rows() {
        for (row, panel_row) in panel.chunks_exact_mut(width).enumerate() {
            panel_row[..columns].copy_from_slice(matrix.row(row));
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
                rows[row * width + column..][..4].copy_from_slice(&four);
            }
        }
    }
    for column in 0..columns {
        let from = if column < whole[0] { whole[1] } else { 0 };
        for (row, value) in matrix.row(column).iter().enumerate().skip(from) {
            panel[row * width + column] = *value;
        }
    }
}

/// Rows as columns.
#[inline(always)]
fn transposed(square: [[f32; 4]; 4]) -> [[f32; 4]; 4] {
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

/// A range in parts of `size`, of which the last may be shorter.
pub(super) fn parts(range: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(size).map(move |start| start..end.min(start + size))
}
