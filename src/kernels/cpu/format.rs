//! The element types of products: what weights and what they are multiplied with are held in, and a step of the inner loop.
//!
//! | format | weights | inputs | sums | multiplied by |
//! |---|---|---|---|---|
//! | [`F32`](super::floats::F32) | f32 | f32 | f32 | multiply-add |
//! | [`Bf16`](super::floats::Bf16) | bf16, widened in registers | f32 | f32 | multiply-add |
//! | [`PairedBf16`](super::floats::PairedBf16) | bf16 | bf16 | f32 | pairs: `vdpbf16ps` |
//! | [`AmxBf16`](super::floats::AmxBf16) | the same | the same | the same | tiles: `tdpbf16ps` |
//! | [`I16`](super::integers::I16) | 12 bits | 13 bits | i32 over a block of 256 inputs, then f32 | pairs: `vpdpwssd`, `vpmaddwd`, `smull` |
//! | [`Int8`](super::integers::Int8) | 8 bits | 8 bits | i32 over a block of 128 inputs, then f32 | bytes: `vpdpbusd` |
//! | [`AmxInt8`](super::integers::AmxInt8) | the same | the same | the same | tiles: `tdpbusd` |
//! | [`WidenedInt8`](super::integers::WidenedInt8) | the same | the same | the same | pairs, of weights widened in registers |
//!
//! Integers have a scale for each block of a column or row, and bytes are [rotated](super::rotation) in blocks first. Sums of integers are exact, and what is made of them takes the same
//! roundings on every processor: products of integers are the same to the bit whichever instructions compute them.

use std::{fmt::Debug, ops::Range};

use bytemuck::Pod;

use super::{
    amx,
    lines::{Aligned, stride},
    matrix::Matrix,
    packed::WeightType,
    simd::Simd,
};
use crate::isa::Isa;

/// One of the formats above.
pub(crate) trait Format: Copy + Debug + Send + Sync + 'static {
    /// What the left operand is held in.
    type State: Pod + Send + Sync;
    /// What the right operand is held in.
    type Weight: Pod + Send + Sync;
    /// A register of sums.
    type Sum<S: Simd>: Copy;

    /// Its name for those who choose it.
    const WEIGHT_TYPE: WeightType;
    /// Inputs that one step takes, side by side in memory.
    const GROUP: usize;
    /// Rows of states, and panels, are padded with zeros to a multiple of so many inputs.
    const STEP: usize = Self::GROUP;
    /// How a [matrix unit](amx) multiplies it, if it is for one.
    const AMX: Option<amx::Product> = None;
    /// Rows that every set of registers, or a matrix unit, multiplies in whole tiles.
    const TILE_ROWS: usize = match Self::AMX {
        None => 12,
        Some(_) => amx::SIDE,
    };
    /// Inputs of a block, a multiple of `STEP`. After each block the output is visited: a panel of so many rows stays in the
    /// first-level cache, and sums of integers do not overflow. Integers have scales of their own in each block.
    const DEPTH: usize;

    /// Whether the inputs of each block are [rotated](super::rotation) before they are rounded.
    const ROTATES: bool = false;

    /// What the weights of a block are multiples of, column by column; empty where they are numbers themselves.
    fn scales(_weights: Matrix<'_>) -> Vec<f32> {
        Vec::new()
    }

    /// Lays out a panel, [depth, columns] of the weights, whose scales these are.
    fn pack(isa: Isa, panel: &mut [Self::Weight], weights: Matrix<'_>, scales: &[f32], width: usize);

    /// A weight as it was, but for its scale.
    fn unpack(weight: Self::Weight) -> f32;

    /// What the sums of each column of a panel start from; empty for zeros.
    fn offsets(_panel: &[Self::Weight], _width: usize) -> Vec<i32> {
        Vec::new()
    }

    /// What a matrix is as a left operand; all threads make it. For integers its rows have to be contiguous.
    fn states(isa: Isa, matrix: Matrix<'_>) -> States<'_, Self>;

    /// Two registers of sums to start from.
    fn start<S: Simd>(simd: S, offsets: &[i32]) -> [Self::Sum<S>; 2];

    /// A register of sums from memory.
    ///
    /// # Safety
    /// A register can be read.
    unsafe fn load_sums<S: Simd>(simd: S, from: *const i32) -> Self::Sum<S>;

    /// Adds the products of one group of inputs.
    ///
    /// # Safety
    /// A group can be read from each of R rows of states, and two registers of groups from the weights.
    unsafe fn step<S: Simd, const R: usize>(
        simd: S,
        states: [*const Self::State; R],
        weights: *const Self::Weight,
        sums: &mut [[Self::Sum<S>; 2]; R],
    );

    /// Sums as numbers: integers times the scales of their row and their columns.
    fn values<S: Simd>(simd: S, sums: Self::Sum<S>, of_row: S::Vector, of_columns: S::Vector) -> S::Vector;
}

/// The left operand of a product.
pub(crate) struct Operand<'a, F: Format> {
    /// [rows, inputs], with as many inputs as make whole steps.
    pub matrix: Matrix<'a, F::State>,
    /// What the states of each row and block are multiples of, [rows, blocks]; none where they are numbers themselves.
    pub scales: Option<Matrix<'a>>,
}

impl<F: Format> Operand<'_, F> {
    /// Some of the rows.
    pub fn rows(self, range: Range<usize>) -> Self {
        Self { matrix: self.matrix.rows(range.clone()), scales: self.scales.map(|scales| scales.rows(range)) }
    }

    /// The block that has these inputs.
    pub fn block(self, depth: Range<usize>) -> Self {
        let (rows, number) = (0..self.matrix.shape()[0], depth.start / F::DEPTH);
        let scales = self.scales.map(|scales| scales.part(rows.clone(), number..number + 1));
        Self { matrix: self.matrix.part(rows, depth), scales }
    }
}

impl<F: Format> Clone for Operand<'_, F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F: Format> Copy for Operand<'_, F> {}

/// What an [`Operand`] looks at.
pub(crate) enum States<'a, F: Format> {
    /// A matrix as it is.
    Given(Matrix<'a, F::State>),
    /// What was made of one.
    Made {
        /// Rows of `width` states, a [stride](super::lines::stride) apart, so that they need not be [copied](super::product).
        states: Aligned<F::State>,
        width: usize,
        /// For each row and block; empty where the states are numbers themselves.
        scales: Vec<f32>,
    },
}

impl<F: Format> States<'_, F> {
    pub fn operand(&self) -> Operand<'_, F> {
        match self {
            Self::Given(matrix) => Operand { matrix: *matrix, scales: None },
            Self::Made { states, width, scales } => {
                let stride = stride::<F::State>(*width);
                let (rows, blocks) = (states.len() / stride, width.div_ceil(F::DEPTH));
                let scales = (!scales.is_empty()).then(|| Matrix::new(scales, 0, rows, blocks, blocks));
                Operand { matrix: Matrix::new(states, 0, rows, *width, stride), scales }
            }
        }
    }
}
