//! Products of floating-point numbers, whose sums are f32.

use std::{borrow::Cow, fmt::Debug, marker::PhantomData};

use bytemuck::Pod;
use half::bf16;
use rayon::prelude::*;

use super::{
    format::{Format, Operand, States},
    layout::{pack_groups, pack_rows},
    matrix::Matrix,
    quantisation::FEW,
    simd::{Simd, vectorized},
};
use crate::isa::Isa;

/// Floating-point weights, multiplied in f32.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Floats<W>(PhantomData<W>);

/// f32 throughout.
pub(crate) type F32 = Floats<f32>;

/// Weights of half the bytes.
pub(crate) type Bf16 = Floats<bf16>;

/// A type of weights that are widened when they are loaded.
pub(crate) trait Float: Pod + Debug + Send + Sync {
    fn from_f32(value: f32) -> Self;

    fn to_f32(self) -> f32;

    /// # Safety
    /// A register of weights can be read.
    unsafe fn load<S: Simd>(simd: S, from: *const Self) -> S::Vector;
}

impl Float for f32 {
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value
    }

    fn to_f32(self) -> f32 {
        self
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const Self) -> S::Vector {
        // SAFETY: the caller's promise.
        unsafe { simd.load(from) }
    }
}

impl Float for bf16 {
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        Self::from_f32(value)
    }

    fn to_f32(self) -> f32 {
        self.to_f32()
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const Self) -> S::Vector {
        // SAFETY: the caller's promise.
        unsafe { simd.load_bf16(from) }
    }
}

impl<W: Float> Format for Floats<W> {
    type State = f32;
    type Weight = W;
    type Sum<S: Simd> = S::Vector;

    const GROUP: usize = 1;
    // Panels come from the second-level cache fast enough, a few bytes a cycle; what counts is how seldom sums are stored and
    // read again. 768 are two parts either way, 1,024 are two and not three.
    const DEPTH: usize = 512;

    fn pack(panel: &mut [W], weights: Matrix<'_>, _: &[f32], width: usize) {
        pack_rows(panel, weights, width, W::from_f32);
    }

    fn unpack(weight: W) -> f32 {
        weight.to_f32()
    }

    fn states(_: Isa, rows: &[f32], inner: usize) -> States<'_, Self> {
        States { states: Cow::Borrowed(rows), scales: Vec::new(), width: inner }
    }

    #[inline(always)]
    fn start<S: Simd>(simd: S, _: &[i32]) -> [S::Vector; 2] {
        [simd.splat(0.0); 2]
    }

    #[inline(always)]
    unsafe fn step<S: Simd, const R: usize>(
        simd: S,
        states: [*const f32; R],
        weights: *const W,
        sums: &mut [[S::Vector; 2]; R],
    ) {
        // SAFETY: the caller's promise.
        let weights = unsafe { [W::load(simd, weights), W::load(simd, weights.add(S::LANES))] };
        for (state, [low, high]) in states.into_iter().zip(sums) {
            // SAFETY: as above.
            let state = simd.splat(unsafe { *state });
            *low = simd.multiply_add(state, weights[0], *low);
            *high = simd.multiply_add(state, weights[1], *high);
        }
    }

    #[inline(always)]
    fn values<S: Simd>(_: S, sums: S::Vector) -> S::Vector {
        sums
    }
}

impl<'a, W: Float> From<Matrix<'a>> for Operand<'a, Floats<W>> {
    fn from(matrix: Matrix<'a>) -> Self {
        Self { matrix, scales: None }
    }
}

/// Weights and inputs of bf16, multiplied in pairs, for processors that have the instruction. It takes denormal numbers for zeros.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PairedBf16;

impl Format for PairedBf16 {
    type State = bf16;
    type Weight = bf16;
    type Sum<S: Simd> = S::Vector;

    const GROUP: usize = 2;
    // Panels of as many bytes as those of f32.
    const DEPTH: usize = 2 * F32::DEPTH;

    fn pack(panel: &mut [bf16], weights: Matrix<'_>, _: &[f32], width: usize) {
        pack_groups(panel, weights, width, Self::GROUP, |_, value| bf16::from_f32(value));
    }

    fn unpack(weight: bf16) -> f32 {
        weight.to_f32()
    }

    fn states(isa: Isa, rows: &[f32], inner: usize) -> States<'_, Self> {
        let width = inner.next_multiple_of(Self::GROUP);
        let mut states = vec![bf16::ZERO; rows.len() / inner * width];
        let pairs = states.par_chunks_exact_mut(width).zip(rows.par_chunks_exact(inner));
        pairs.with_min_len(FEW.div_ceil(inner)).for_each(|(states, row)| round(isa, row, states));
        States { states: Cow::Owned(states), scales: Vec::new(), width }
    }

    #[inline(always)]
    fn start<S: Simd>(simd: S, _: &[i32]) -> [S::Vector; 2] {
        [simd.splat(0.0); 2]
    }

    #[inline(always)]
    unsafe fn step<S: Simd, const R: usize>(
        simd: S,
        states: [*const bf16; R],
        weights: *const bf16,
        sums: &mut [[S::Vector; 2]; R],
    ) {
        // SAFETY: the caller's promise; a group takes the bytes of an i32.
        let weights = unsafe { [0, 1].map(|i| simd.load_integers(weights.cast::<i32>().add(i * S::LANES))) };
        for (state, [low, high]) in states.into_iter().zip(sums) {
            // SAFETY: as above.
            let state = simd.splat_integers(unsafe { state.cast::<i32>().read_unaligned() });
            *low = simd.pairs_of_bf16(state, weights[0], *low);
            *high = simd.pairs_of_bf16(state, weights[1], *high);
        }
    }

    #[inline(always)]
    fn values<S: Simd>(_: S, sums: S::Vector) -> S::Vector {
        sums
    }
}

vectorized! {
    /// One row to the nearest bf16; what it lacks in width stays as it is.
    fn round(row: &[f32], states: &mut [bf16]) {
        for (state, value) in states.iter_mut().zip(row) {
            *state = bf16::from_f32(*value);
        }
    }
}
