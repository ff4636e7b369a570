//! Views of row-major matrices inside larger buffers, and their product: the one place where the CPU kernels touch raw
//! pointers.

use std::{marker::PhantomData, ops::Range};

/// A matrix to read. Strides are in elements and may be negative.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pointer: *const f32,
    rows: usize,
    columns: usize,
    row_stride: isize,
    column_stride: isize,
    lifetime: PhantomData<&'a [f32]>,
}

impl<'a> Matrix<'a> {
    /// `rows` rows of `columns` elements, `stride` apart, from `offset` on.
    ///
    /// # Panics
    /// If the matrix ends beyond `data`.
    pub fn new(data: &'a [f32], offset: usize, rows: usize, columns: usize, stride: usize) -> Self {
        assert_inside(data.len(), offset, rows, columns, stride);
        Self {
            pointer: data.as_ptr().wrapping_add(offset),
            rows,
            columns,
            row_stride: stride as isize,
            column_stride: 1,
            lifetime: PhantomData,
        }
    }

    /// Some of the rows.
    pub fn rows(self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.rows, "rows {range:?} of {}", self.rows);
        let pointer = self.pointer.wrapping_offset(range.start as isize * self.row_stride);
        Self { pointer, rows: range.len(), ..self }
    }

    /// The rows from last to first.
    pub fn reversed(self) -> Self {
        let last = self.rows.saturating_sub(1) as isize;
        Self { pointer: self.pointer.wrapping_offset(last * self.row_stride), row_stride: -self.row_stride, ..self }
    }

    /// Rows as columns.
    pub fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// A matrix to write, whose rows are contiguous.
pub(crate) struct MatrixMut<'a> {
    pointer: *mut f32,
    rows: usize,
    columns: usize,
    stride: isize,
    lifetime: PhantomData<&'a mut [f32]>,
}

impl<'a> MatrixMut<'a> {
    /// `rows` rows of `columns` elements, `stride` apart, from `offset` on.
    ///
    /// # Panics
    /// If the matrix ends beyond `data`.
    pub fn new(data: &'a mut [f32], offset: usize, rows: usize, columns: usize, stride: usize) -> Self {
        assert_inside(data.len(), offset, rows, columns, stride);
        let pointer = data.as_mut_ptr().wrapping_add(offset);
        Self { pointer, rows, columns, stride: stride as isize, lifetime: PhantomData }
    }

    /// Some of the rows, borrowed again.
    pub fn rows(&mut self, range: Range<usize>) -> MatrixMut<'_> {
        assert!(range.start <= range.end && range.end <= self.rows, "rows {range:?} of {}", self.rows);
        let pointer = self.pointer.wrapping_offset(range.start as isize * self.stride);
        MatrixMut { pointer, rows: range.len(), columns: self.columns, stride: self.stride, lifetime: PhantomData }
    }

    /// The rows from last to first, borrowed again.
    pub fn reversed(&mut self) -> MatrixMut<'_> {
        let last = self.rows.saturating_sub(1) as isize;
        MatrixMut {
            pointer: self.pointer.wrapping_offset(last * self.stride),
            rows: self.rows,
            columns: self.columns,
            stride: -self.stride,
            lifetime: PhantomData,
        }
    }

    /// One row.
    pub fn row_mut(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        // SAFETY: the constructor checked that every row lies inside the buffer, which `self` borrows exclusively (or, from
        // `Shared::matrix`, whose caller promised that no one else has these rows).
        unsafe {
            std::slice::from_raw_parts_mut(self.pointer.wrapping_offset(row as isize * self.stride), self.columns)
        }
    }

    /// `self = lhs rhs`, or `self += lhs rhs`, on this thread.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn product(&mut self, lhs: Matrix<'_>, rhs: Matrix<'_>, accumulate: bool) {
        assert_eq!(lhs.columns, rhs.rows, "inner sizes");
        assert_eq!((self.rows, self.columns), (lhs.rows, rhs.columns), "outer sizes");
        // SAFETY: the constructors checked that all elements of the three matrices lie inside their buffers, the assertions
        // above that the product reads and writes no others, and `self` borrows its buffer exclusively, so that it overlaps
        // neither operand. `gemm` reads the destination only where it accumulates.
        unsafe { multiply(self.pointer, self.stride, accumulate, lhs, rhs, gemm::Parallelism::None) };
    }
}

/// Writes `lhs rhs` to `output`, whose rows are `stride` apart, or adds it.
///
/// # Safety
/// The inner sizes agree, `output` has room for the product and overlaps neither operand, and its elements are initialised where
/// the product is added.
unsafe fn multiply(
    output: *mut f32,
    stride: isize,
    accumulate: bool,
    lhs: Matrix<'_>,
    rhs: Matrix<'_>,
    parallelism: gemm::Parallelism,
) {
    // SAFETY: the caller's promise; the views lie inside their buffers.
    unsafe {
        gemm::gemm(
            lhs.rows,
            rhs.columns,
            lhs.columns,
            output,
            1,
            stride,
            accumulate,
            lhs.pointer,
            lhs.column_stride,
            lhs.row_stride,
            rhs.pointer,
            rhs.column_stride,
            rhs.row_stride,
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// `lhs rhs`, plus `start` in each row where given, on all threads: row by row in a new buffer.
///
/// # Panics
/// If the shapes do not fit.
pub(crate) fn product(lhs: Matrix<'_>, rhs: Matrix<'_>, start: Option<&[f32]>) -> Vec<f32> {
    let (rows, columns) = (lhs.rows, rhs.columns);
    assert_eq!(lhs.columns, rhs.rows, "inner sizes");
    let mut output = Vec::with_capacity(rows * columns);
    if let Some(start) = start {
        assert_eq!(start.len(), columns, "the start of each row");
        (0..rows).for_each(|_| output.extend_from_slice(start));
    }
    let parallelism = match rayon::current_num_threads() {
        1 => gemm::Parallelism::None,
        threads => gemm::Parallelism::Rayon(threads),
    };
    // SAFETY: as in `MatrixMut::product`; the new buffer has room for rows x columns elements. `gemm` reads them only where it
    // accumulates, in which case the loop above has written them all, and has written them all itself when it returns.
    unsafe {
        multiply(output.as_mut_ptr(), columns as isize, start.is_some(), lhs, rhs, parallelism);
        output.set_len(rows * columns);
    }
    output
}

/// A buffer of which several threads write different parts.
pub(crate) struct Shared<'a> {
    pointer: *mut f32,
    length: usize,
    lifetime: PhantomData<&'a mut [f32]>,
}

// SAFETY: the buffer can only be reached through `matrix`, whose caller promises that threads write different parts.
unsafe impl Sync for Shared<'_> {}
// SAFETY: as above; a plain buffer of numbers belongs to no thread.
unsafe impl Send for Shared<'_> {}

impl<'a> Shared<'a> {
    /// Borrows the whole buffer.
    pub fn new(data: &'a mut [f32]) -> Self {
        Self { pointer: data.as_mut_ptr(), length: data.len(), lifetime: PhantomData }
    }

    /// A matrix inside the buffer.
    ///
    /// # Safety
    /// No element of it may belong to another matrix that lives at the same time.
    ///
    /// # Panics
    /// If the matrix ends beyond the buffer.
    pub unsafe fn matrix(&self, offset: usize, rows: usize, columns: usize, stride: usize) -> MatrixMut<'_> {
        assert_inside(self.length, offset, rows, columns, stride);
        let pointer = self.pointer.wrapping_add(offset);
        MatrixMut { pointer, rows, columns, stride: stride as isize, lifetime: PhantomData }
    }
}

fn assert_inside(length: usize, offset: usize, rows: usize, columns: usize, stride: usize) {
    let end = if rows == 0 { offset } else { offset + (rows - 1) * stride + columns };
    assert!(end <= length && (rows <= 1 || columns <= stride), "a matrix of {rows} x {columns} ends beyond its buffer");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_views() {
        let data: Vec<f32> = (0..24).map(|value| value as f32).collect();
        let lhs = Matrix::new(&data, 1, 2, 3, 6); // [1 2 3; 7 8 9]
        let rhs = Matrix::new(&data, 12, 3, 2, 4); // [12 13; 16 17; 20 21]
        let mut out = vec![0.0; 6];
        MatrixMut::new(&mut out, 0, 2, 2, 3).product(lhs, rhs, false);
        assert_eq!(out, [104.0, 110.0, 0.0, 392.0, 416.0, 0.0]);
        MatrixMut::new(&mut out, 0, 2, 2, 3).product(lhs, rhs, true);
        assert_eq!(out[0], 208.0);
        MatrixMut::new(&mut out, 0, 2, 2, 3).reversed().product(lhs.reversed(), rhs, false);
        assert_eq!(out, [104.0, 110.0, 0.0, 392.0, 416.0, 0.0]);
        assert_eq!(product(lhs, rhs, None), [104.0, 110.0, 392.0, 416.0]);
        assert_eq!(product(lhs, rhs, Some(&[1.0, -1.0])), [105.0, 109.0, 393.0, 415.0]);
        let mut square = vec![0.0; 9];
        MatrixMut::new(&mut square, 0, 3, 3, 3).product(lhs.transposed(), lhs, false);
        assert_eq!(square[1], 1.0 * 2.0 + 7.0 * 8.0);
    }

    #[test]
    #[should_panic(expected = "ends beyond its buffer")]
    fn a_view_cannot_leave_its_buffer() {
        Matrix::new(&[0.0; 5], 0, 2, 3, 3);
    }
}
