//! The right operand of a [product](super::product), laid out in panels, two registers wide, to be read in order:
//!
//! ```text
//! matrix [inner, columns]  ->  for each DEPTH rows, for each two registers of columns: a panel [depth / GROUP, width, GROUP]
//! ```
//!
//! with the depth and the group of its [format](Format).

use std::{fmt, iter, marker::PhantomData, ops::Range};

use rayon::prelude::*;

use super::{
    floats::F32,
    format::Format,
    lines::{Line, lines},
    matrix::Matrix,
    rotation,
    simd::MOST_LANES,
};
use crate::isa::Isa;

/// Weights that are not worth a second thread to lay out.
const FEW: usize = 64 * 1024;

/// Columns of the widest panel.
pub(super) const WIDEST: usize = 2 * MOST_LANES;

/// A right operand in panels.
pub(crate) struct Panels<F = F32> {
    lines: Vec<Line>,
    inner: usize,
    columns: usize,
    /// The instructions it is laid out for.
    isa: Isa,
    /// Columns of a panel: two registers.
    width: usize,
    /// What the weights of each panel's columns are multiples of, panel by panel; empty where they are numbers themselves.
    scales: Vec<f32>,
    /// What the sums of each panel's columns start from, panel by panel; empty for zeros.
    offsets: Vec<i32>,
    format: PhantomData<F>,
}

impl<F: Format> fmt::Debug for Panels<F> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} x {} in panels for {}", self.inner, self.columns, self.isa)
    }
}

impl<F: Format> Panels<F> {
    /// Room for operands to come.
    pub fn empty(isa: Isa) -> Self {
        Self {
            lines: Vec::new(),
            inner: 0,
            columns: 0,
            isa,
            width: 2 * isa.lanes(),
            scales: Vec::new(),
            offsets: Vec::new(),
            format: PhantomData,
        }
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
        let rotated;
        let matrix = if F::ROTATES {
            rotated = rotation::rotated(matrix, F::DEPTH);
            Matrix::new(&rotated, 0, self.inner, self.columns, self.columns)
        } else {
            matrix
        };
        let (width, stride, depth) = (self.width, self.stride(), self.depth());
        if size_of_val(&self.lines[..]) < depth * stride * size_of::<F::Weight>() {
            self.lines = lines::<F::Weight>(depth * stride);
        }
        self.scales.clear();
        let mut rest: &mut [F::Weight] = bytemuck::cast_slice_mut(&mut self.lines);
        for depth in parts(0..depth, F::DEPTH) {
            let (panels, others) = rest.split_at_mut(depth.len() * stride);
            rest = others;
            let rows = depth.start..depth.end.min(self.inner);
            let scales = F::scales(matrix.part(rows.clone(), 0..self.columns));
            let size = depth.len() * width;
            panels.par_chunks_mut(size).with_min_len(FEW / size).enumerate().for_each(|(number, panel)| {
                let columns = number * width..self.columns.min((number + 1) * width);
                F::pack(
                    self.isa,
                    panel,
                    matrix.part(rows.clone(), columns.clone()),
                    scales.get(columns).unwrap_or_default(),
                    width,
                );
            });
            if !scales.is_empty() {
                let missing = stride - scales.len();
                self.scales.extend(scales.into_iter().chain(iter::repeat_n(0.0, missing)));
            }
        }
        self.offsets =
            self.places().flat_map(|(depth, columns)| F::offsets(self.panel(&depth, columns.start), width)).collect();
    }

    /// The matrix as it was, row by row, but for the roundings of its format.
    pub fn unpack(&self) -> Vec<f32> {
        let mut matrix = vec![0.0; self.inner * self.columns];
        for (depth, columns) in self.places() {
            let (panel, scales) = (self.panel(&depth, columns.start), self.scales(&depth, columns.start));
            for row in depth.start..depth.end.min(self.inner) {
                let (group, place) = ((row - depth.start) / F::GROUP, row % F::GROUP);
                for column in columns.clone() {
                    let weight = panel[(group * self.width + column - columns.start) * F::GROUP + place];
                    let scale = scales.get(column - columns.start).copied().unwrap_or(1.0);
                    matrix[row * self.columns + column] = F::unpack(weight) * scale;
                }
            }
        }
        if F::ROTATES {
            rotation::rotate_back(&mut matrix, self.columns, F::DEPTH);
        }
        matrix
    }

    /// [inner, columns]
    pub fn shape(&self) -> [usize; 2] {
        [self.inner, self.columns]
    }

    /// Rows of whole steps.
    pub(super) fn depth(&self) -> usize {
        self.inner.next_multiple_of(F::STEP)
    }

    /// Columns of whole panels.
    fn stride(&self) -> usize {
        self.columns.next_multiple_of(self.width)
    }

    /// The rows and columns of each panel.
    fn places(&self) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
        let columns = parts(0..self.columns, self.width);
        parts(0..self.depth(), F::DEPTH)
            .flat_map(move |depth| columns.clone().map(move |columns| (depth.clone(), columns)))
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
    pub(super) fn panel(&self, depth: &Range<usize>, column: usize) -> &[F::Weight] {
        let start = depth.start * self.stride() + column * depth.len();
        &bytemuck::cast_slice(&self.lines)[start..][..depth.len() * self.width]
    }

    /// What the weights of this panel's columns are multiples of, if anything.
    #[inline(always)]
    pub(super) fn scales(&self, depth: &Range<usize>, column: usize) -> &[f32] {
        self.scales.get(self.columns_of(depth, column)).unwrap_or_default()
    }

    /// What the sums of this panel's columns start from, if not zeros.
    #[inline(always)]
    pub(super) fn offsets(&self, depth: &Range<usize>, column: usize) -> &[i32] {
        self.offsets.get(self.columns_of(depth, column)).unwrap_or_default()
    }

    /// A panel's columns among those of all panels.
    #[inline(always)]
    fn columns_of(&self, depth: &Range<usize>, column: usize) -> Range<usize> {
        let start = depth.start / F::DEPTH * self.stride() + column;
        start..start + self.width
    }

    /// The first column of the panel that a column is in.
    pub fn panel_start(&self, column: usize) -> usize {
        column / self.width * self.width
    }
}

/// A range in parts of `size`, of which the last may be shorter.
pub(super) fn parts(range: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> + Clone {
    let end = range.end;
    range.step_by(size).map(move |start| start..end.min(start + size))
}
