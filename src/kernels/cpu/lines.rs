//! Buffers of whole cache lines, so that a register's load, or a tile's row, lies in one of them: in two it costs twice.

use std::{
    marker::PhantomData,
    ops::{Deref, DerefMut},
};

use bytemuck::{Pod, Zeroable};

use super::matrix::filled;

/// Numbers in a cache line.
pub(crate) const FLOATS: usize = 16;

/// A cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Line([f32; FLOATS]);

impl Line {
    pub const ZERO: Self = Self([0.0; FLOATS]);
}

// SAFETY: all-zero bytes are 16 numbers.
unsafe impl Zeroable for Line {}
// SAFETY: 16 numbers of 4 bytes fill the 64 bytes that it is aligned to, and any bytes are numbers.
unsafe impl Pod for Line {}

/// Lines for so many elements.
pub(crate) fn lines<T>(elements: usize) -> Vec<Line> {
    bytemuck::zeroed_vec((elements * size_of::<T>()).div_ceil(size_of::<Line>()))
}

/// Elements from one row to the next of a matrix in lines: whole ones, so that a register of a row's lies in one of them, and an odd
/// number, so that rows take turns in all sets of a cache.
pub(crate) fn stride<T>(columns: usize) -> usize {
    let in_a_line = size_of::<Line>() / size_of::<T>();
    (columns.div_ceil(in_a_line) | 1) * in_a_line
}

/// Room for so many elements in a buffer, which grows when it must; what stands in it is of no meaning.
pub(crate) fn room<T: Pod>(buffer: &mut Vec<Line>, elements: usize) -> &mut [T] {
    if size_of_val(&buffer[..]) < elements * size_of::<T>() {
        *buffer = lines::<T>(elements);
    }
    &mut bytemuck::cast_slice_mut(buffer)[..elements]
}

/// Elements in lines of their own.
pub(crate) struct Aligned<T> {
    lines: Vec<Line>,
    elements: usize,
    of: PhantomData<T>,
}

impl<T: Pod> Aligned<T> {
    /// Elements that `fill` writes.
    ///
    /// # Safety
    /// As of [`filled`].
    pub unsafe fn filled(elements: usize, fill: impl FnOnce(&mut [T])) -> Self {
        let count = (elements * size_of::<T>()).div_ceil(size_of::<Line>());
        let fill = |lines: &mut [Line]| {
            // It may be longer than what is in it.
            if let Some(last) = lines.last_mut() {
                *last = Line::ZERO;
            }
            fill(&mut bytemuck::cast_slice_mut(lines)[..elements]);
        };
        // SAFETY: the caller's promise.
        Self { lines: unsafe { filled(count, fill) }, elements, of: PhantomData }
    }
}

impl<T: Pod> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &bytemuck::cast_slice(&self.lines)[..self.elements]
    }
}

impl<T: Pod> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.elements]
    }
}
