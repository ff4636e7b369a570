//! Views of row-major matrices inside larger buffers.

use std::{marker::PhantomData, ops::Range, slice};

use bytemuck::Pod;

/// A matrix to read. Strides are in elements and may be negative.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, T = f32> {
    pointer: *const T,
    rows: usize,
    columns: usize,
    row_stride: isize,
    column_stride: isize,
    lifetime: PhantomData<&'a [T]>,
}

// SAFETY: it reads what `&[T]` would, which threads may share.
unsafe impl<T: Sync> Send for Matrix<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Matrix<'_, T> {}

impl<'a, T: Copy> Matrix<'a, T> {
    /// `rows` rows of `columns` elements, `stride` apart, from `offset` on.
    ///
    /// # Panics
    /// If the matrix ends beyond `data`.
    pub fn new(data: &'a [T], offset: usize, rows: usize, columns: usize, stride: usize) -> Self {
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

    /// Some of the rows and columns.
    pub fn part(self, rows: Range<usize>, columns: Range<usize>) -> Self {
        assert!(columns.start <= columns.end && columns.end <= self.columns, "columns {columns:?} of {}", self.columns);
        let part = self.rows(rows);
        let pointer = part.pointer.wrapping_offset(columns.start as isize * part.column_stride);
        Self { pointer, columns: columns.len(), ..part }
    }

    /// [rows, columns]
    #[inline(always)]
    pub fn shape(&self) -> [usize; 2] {
        [self.rows, self.columns]
    }

    /// Elements from a row to the next, and from a column to the next.
    #[inline(always)]
    pub fn strides(&self) -> [isize; 2] {
        [self.row_stride, self.column_stride]
    }

    /// Its first element: [`shape`](Self::shape) and [`strides`](Self::strides) say which others can be read.
    #[inline(always)]
    pub fn pointer(&self) -> *const T {
        self.pointer
    }

    /// Whether rows are slices; otherwise columns are.
    pub fn has_contiguous_rows(&self) -> bool {
        self.column_stride == 1
    }

    /// One row, where rows are contiguous.
    pub fn row(&self, row: usize) -> &'a [T] {
        assert!(row < self.rows && self.column_stride == 1, "row {row} of {}", self.rows);
        // SAFETY: the constructor checked that every row lies inside the buffer, which `self` borrows.
        unsafe { slice::from_raw_parts(self.pointer.wrapping_offset(row as isize * self.row_stride), self.columns) }
    }

    /// One element.
    #[inline(always)]
    pub fn get(&self, row: usize, column: usize) -> T {
        assert!(
            row < self.rows && column < self.columns,
            "element {row}, {column} of {} x {}",
            self.rows,
            self.columns
        );
        let offset = row as isize * self.row_stride + column as isize * self.column_stride;
        // SAFETY: the constructor checked that every element lies inside the buffer.
        unsafe { *self.pointer.wrapping_offset(offset) }
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

    /// [rows, columns]
    pub fn shape(&self) -> [usize; 2] {
        [self.rows, self.columns]
    }

    /// Some of the rows, borrowed again.
    pub fn rows(&mut self, range: Range<usize>) -> MatrixMut<'_> {
        assert!(range.start <= range.end && range.end <= self.rows, "rows {range:?} of {}", self.rows);
        let pointer = self.pointer.wrapping_offset(range.start as isize * self.stride);
        MatrixMut { pointer, rows: range.len(), columns: self.columns, stride: self.stride, lifetime: PhantomData }
    }

    /// Some of the rows and columns, borrowed again.
    pub fn part(&mut self, rows: Range<usize>, columns: Range<usize>) -> MatrixMut<'_> {
        assert!(columns.start <= columns.end && columns.end <= self.columns, "columns {columns:?} of {}", self.columns);
        let part = self.rows(rows);
        MatrixMut { pointer: part.pointer.wrapping_add(columns.start), columns: columns.len(), ..part }
    }

    /// Its first element: [`shape`](Self::shape) and [`stride`](Self::stride) say which others can be written.
    #[inline(always)]
    pub fn pointer(&mut self) -> *mut f32 {
        self.pointer
    }

    /// Where some columns of a row are. Unlike slices, several such pointers may be to the same ones.
    #[inline(always)]
    pub fn place(&mut self, row: usize, columns: &Range<usize>) -> *mut f32 {
        assert!(row < self.rows && columns.start <= columns.end && columns.end <= self.columns, "columns of row {row}");
        self.pointer.wrapping_offset(row as isize * self.stride + columns.start as isize)
    }

    /// Elements from a row to the next.
    #[inline(always)]
    pub fn stride(&self) -> isize {
        self.stride
    }

    /// Makes every element the same.
    pub fn fill(&mut self, value: f32) {
        (0..self.rows).for_each(|row| self.row_mut(row).fill(value));
    }

    /// The same to read.
    pub fn view(&self) -> Matrix<'_> {
        Matrix {
            pointer: self.pointer.cast_const(),
            rows: self.rows,
            columns: self.columns,
            row_stride: self.stride,
            column_stride: 1,
            lifetime: PhantomData,
        }
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
        unsafe { slice::from_raw_parts_mut(self.pointer.wrapping_offset(row as isize * self.stride), self.columns) }
    }
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

/// A vector of numbers that `fill` writes. Nothing is written before: a pass of zeros over a layer's outputs, by one thread,
/// would take 2 % of an inference.
///
/// # Safety
/// `fill` writes every element, and reads none that it has not written.
pub(super) unsafe fn filled<T: Pod>(length: usize, fill: impl FnOnce(&mut [T])) -> Vec<T> {
    let mut values = Vec::with_capacity(length);
    let room = &mut values.spare_capacity_mut()[..length];
    if cfg!(any(test, debug_assertions)) {
        // What was forgotten shows: numbers of ones alone are NaN.
        // SAFETY: there is room for so many, and any bits are one.
        unsafe { room.as_mut_ptr().write_bytes(u8::MAX, length) };
    }
    // SAFETY: any bits are a number, and by the caller's promise none is read before it is written.
    fill(unsafe { slice::from_raw_parts_mut(room.as_mut_ptr().cast(), length) });
    // SAFETY: the vector has room for so many, and by the caller's promise all of them are written.
    unsafe { values.set_len(length) };
    values
}

fn assert_inside(length: usize, offset: usize, rows: usize, columns: usize, stride: usize) {
    // No rows are nowhere.
    let end = if rows == 0 { 0 } else { offset + (rows - 1) * stride + columns };
    assert!(end <= length && (rows <= 1 || columns <= stride), "a matrix of {rows} x {columns} ends beyond its buffer");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_of_views() {
        let mut data: Vec<f32> = (0..24).map(|value| value as f32).collect();
        let matrix = Matrix::new(&data, 1, 3, 4, 6); // rows from 1, 7 and 13 on
        assert_eq!(matrix.rows(1..3).row(0), [7.0, 8.0, 9.0, 10.0]);
        assert_eq!(matrix.reversed().row(0), [13.0, 14.0, 15.0, 16.0]);
        assert_eq!(matrix.part(1..3, 2..3).shape(), [2, 1]);
        assert_eq!(matrix.reversed().part(0..2, 1..3).row(1), [8.0, 9.0]);
        assert_eq!(matrix.transposed().shape(), [4, 3]);
        assert!(!matrix.transposed().has_contiguous_rows());
        MatrixMut::new(&mut data, 0, 3, 2, 8).rows(1..3).reversed().row_mut(0).fill(-1.0);
        assert_eq!(data[15..19], [15.0, -1.0, -1.0, 18.0]);
    }

    #[test]
    #[should_panic(expected = "ends beyond its buffer")]
    fn a_view_cannot_leave_its_buffer() {
        Matrix::new(&[0.0; 5], 0, 2, 3, 3);
    }
}
