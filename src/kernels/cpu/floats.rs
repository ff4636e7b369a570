//! Products of floating-point numbers, whose sums are f32.

use std::{fmt::Debug, marker::PhantomData};

use bytemuck::Pod;
use half::bf16;
use rayon::prelude::*;

use super::{
    amx,
    format::{Format, Operand, States},
    layout::pack_rows,
    lines::{Aligned, FLOATS, Line, room, stride},
    matrix::Matrix,
    packed::WeightType,
    quantisation::FEW,
    rounding::{pair_rows, round, round_rows},
    simd::Simd,
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
    const WEIGHT_TYPE: WeightType;

    fn from_f32(value: f32) -> Self;

    fn to_f32(self) -> f32;

    /// # Safety
    /// A register of weights can be read.
    unsafe fn load<S: Simd>(simd: S, from: *const Self) -> S::Vector;
}

impl Float for f32 {
    const WEIGHT_TYPE: WeightType = WeightType::F32;

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
    const WEIGHT_TYPE: WeightType = WeightType::Bf16;

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

    const WEIGHT_TYPE: WeightType = W::WEIGHT_TYPE;
    const GROUP: usize = 1;
    // Panels come from the second-level cache fast enough, a few bytes a cycle; what counts is how seldom sums are stored and
    // read again. 768 are two parts either way, 1,024 are two and not three.
    const DEPTH: usize = 512;

    fn pack(_: Isa, panel: &mut [W], weights: Matrix<'_>, _: &[f32], width: usize) {
        pack_rows(panel, weights, width, W::from_f32);
    }

    fn unpack(weight: W) -> f32 {
        weight.to_f32()
    }

    fn states(_: Isa, matrix: Matrix<'_>) -> States<'_, Self> {
        States::Given(matrix)
    }

    #[inline(always)]
    fn start<S: Simd>(simd: S, _: &[i32]) -> [S::Vector; 2] {
        [simd.splat(0.0); 2]
    }

    #[inline(always)]
    unsafe fn load_sums<S: Simd>(simd: S, from: *const i32) -> S::Vector {
        // SAFETY: the caller's promise.
        unsafe { simd.load(from.cast()) }
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
    fn values<S: Simd>(_: S, sums: S::Vector, _: S::Vector, _: S::Vector) -> S::Vector {
        sums
    }
}

impl<'a, W: Float> From<Matrix<'a>> for Operand<'a, Floats<W>> {
    fn from(matrix: Matrix<'a>) -> Self {
        Self { matrix, scales: None }
    }
}

/// Runs something with the format that the processor multiplies numbers in bf16 in, or where it has no instructions for that with
/// another.
macro_rules! in_bf16 {
    ($isa:expr, $format:ident => $run:expr, otherwise $other:ty) => {{
        if $isa.multiplies_tiles() {
            type $format = $crate::kernels::cpu::floats::AmxBf16;
            $run
        } else if $isa.multiplies_bf16() {
            type $format = $crate::kernels::cpu::floats::PairedBf16;
            $run
        } else {
            type $format = $other;
            $run
        }
    }};
}
pub(crate) use in_bf16;

/// A format in which a thread makes a left operand of a part of its own, as attention does.
pub(crate) trait Rounded: Format {
    /// A left operand, in `buffer` if it has to be rounded.
    fn operand<'a>(isa: Isa, matrix: Matrix<'a>, buffer: &'a mut Vec<Line>) -> Operand<'a, Self>;
}

impl Rounded for F32 {
    fn operand<'a>(_: Isa, matrix: Matrix<'a>, _: &'a mut Vec<Line>) -> Operand<'a, Self> {
        matrix.into()
    }
}

/// Weights and inputs of bf16, multiplied in pairs, for processors that have the instruction. It takes denormal numbers for zeros.
pub(crate) type PairedBf16 = PairsOfBf16<false>;

/// The same in whole tiles, for processors that multiply those.
pub(crate) type AmxBf16 = PairsOfBf16<true>;

/// Weights and inputs of bf16, in pairs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PairsOfBf16<const TILES: bool>;

impl<const TILES: bool> Format for PairsOfBf16<TILES> {
    type State = bf16;
    type Weight = bf16;
    type Sum<S: Simd> = S::Vector;

    const WEIGHT_TYPE: WeightType = WeightType::Bf16;
    const GROUP: usize = 2;
    const STEP: usize = if TILES { amx::ROW / size_of::<bf16>() } else { Self::GROUP };
    const AMX: Option<amx::Product> = if TILES { Some(amx::Product::Bf16) } else { None };
    // Panels of as many bytes as those of f32. A matrix unit wants them from the first-level cache.
    const DEPTH: usize = if TILES { F32::DEPTH } else { 2 * F32::DEPTH };

    fn pack(isa: Isa, panel: &mut [bf16], weights: Matrix<'_>, _: &[f32], width: usize) {
        let [_, columns] = weights.shape();
        // Pairs of bf16 have the bits of one number.
        let panel: &mut [f32] = bytemuck::cast_slice_mut(panel);
        if weights.has_contiguous_rows() {
            pair_rows(isa, panel, weights, width);
        } else {
            // A column's numbers lie side by side: they are rounded where they lie, and then move in pairs.
            let pairs = panel.len() / width;
            let mut rounded = vec![0.0; columns * pairs];
            round_rows(isa, weights.transposed(), bytemuck::cast_slice_mut(&mut rounded), pairs * Self::GROUP);
            pack_rows(panel, Matrix::new(&rounded, 0, columns, pairs, pairs).transposed(), width, |pair| pair);
        }
    }

    fn unpack(weight: bf16) -> f32 {
        weight.to_f32()
    }

    fn states(isa: Isa, matrix: Matrix<'_>) -> States<'_, Self> {
        let [rows, inner] = matrix.shape();
        let width = inner.next_multiple_of(Self::STEP);
        let stride = stride::<bf16>(width);
        // Whole lines of columns, where rows are columns in memory.
        let few = FEW.div_ceil(inner).next_multiple_of(FLOATS);
        let fill = |states: &mut [bf16]| {
            states.par_chunks_mut(few * stride).enumerate().for_each(|(number, states)| {
                round(isa, matrix.rows(number * few..rows.min((number + 1) * few)), states, stride);
            });
        };
        // SAFETY: every row is rounded, with what is behind it.
        let states = unsafe { Aligned::filled(rows * stride, fill) };
        States::Made { states, width, scales: Vec::new() }
    }

    #[inline(always)]
    fn start<S: Simd>(simd: S, _: &[i32]) -> [S::Vector; 2] {
        [simd.splat(0.0); 2]
    }

    #[inline(always)]
    unsafe fn load_sums<S: Simd>(simd: S, from: *const i32) -> S::Vector {
        // SAFETY: the caller's promise.
        unsafe { simd.load(from.cast()) }
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
    fn values<S: Simd>(_: S, sums: S::Vector, _: S::Vector, _: S::Vector) -> S::Vector {
        sums
    }
}

impl<const TILES: bool> Rounded for PairsOfBf16<TILES> {
    fn operand<'a>(isa: Isa, matrix: Matrix<'a>, buffer: &'a mut Vec<Line>) -> Operand<'a, Self> {
        let [rows, inner] = matrix.shape();
        let width = inner.next_multiple_of(Self::STEP);
        let stride = stride::<bf16>(width);
        let states = room::<bf16>(buffer, rows * stride);
        round(isa, matrix, states, stride);
        Operand { matrix: Matrix::new(states, 0, rows, width, stride), scales: None }
    }
}
