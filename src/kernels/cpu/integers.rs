//! Products of small integers, whose sums are exact.

use std::{fmt::Debug, marker::PhantomData};

use bytemuck::Pod;

use super::{
    amx,
    format::{Format, States},
    layout::pack_groups,
    matrix::Matrix,
    packed::WeightType,
    quantisation::{self, Rounding, Truncate},
    simd::Simd,
};
use crate::isa::Isa;

/// A format of integers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Integers<I>(PhantomData<I>);

/// 12 bits a weight, 13 bits an input.
pub(crate) type I16 = Integers<Words>;

/// 8 bits a weight and an input, for processors that multiply bytes.
pub(crate) type Int8 = Integers<Bytes<false>>;

/// The same for processors that multiply tiles of them: the same sums.
pub(crate) type AmxInt8 = Integers<Bytes<true>>;

/// 8 bits a weight and an input, with weights that are widened when they are loaded, for all others: the same sums.
pub(crate) type WidenedInt8 = Integers<WidenedBytes>;

/// Which integers they are. A group of them fills 32 bits in a register.
pub(crate) trait Kind: Copy + Debug + Send + Sync + 'static {
    type State: Pod + Truncate + Send + Sync;
    type Weight: Pod + Truncate + Into<f32> + Into<i32> + Send + Sync;

    /// As in [`Format`].
    const WEIGHT_TYPE: WeightType = WeightType::Int8;
    /// As in [`Format`].
    const GROUP: usize;
    /// As in [`Format`].
    const STEP: usize = Self::GROUP;
    /// As in [`Format`].
    const AMX: Option<amx::Product> = None;
    /// As in [`Format`].
    const DEPTH: usize;
    /// As in [`Format`].
    const ROTATES: bool = true;
    /// The largest weight.
    const WEIGHTS: f32;
    /// The largest state.
    const STATES: f32;
    /// What is added to each state, so that it has no sign; the sums start from what that adds too much.
    const OFFSET: i32 = 0;

    /// # Safety
    /// A register of groups can be read.
    unsafe fn load<S: Simd>(simd: S, weights: *const Self::Weight) -> S::Integers;

    /// Adds the products of groups: pairs of i16, where nothing else is said.
    #[inline(always)]
    fn add_products<S: Simd>(simd: S, states: S::Integers, weights: S::Integers, sums: S::Integers) -> S::Integers {
        simd.pairs(states, weights, sums)
    }
}

/// i16. No sum overflows: 256 times 2047 times 4095 is less than 2^31.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Words;

impl Kind for Words {
    type State = i16;
    type Weight = i16;

    const WEIGHT_TYPE: WeightType = WeightType::I16;
    const GROUP: usize = 2;
    const DEPTH: usize = 256;
    // Outliers leave the others bits enough.
    const ROTATES: bool = false;
    const WEIGHTS: f32 = 2047.0;
    const STATES: f32 = 4095.0;

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, weights: *const i16) -> S::Integers {
        // SAFETY: the caller's promise.
        unsafe { simd.load_integers(weights.cast()) }
    }
}

/// Bytes: processors multiply those with a sign by those without. Blocks are short for the sake of the numbers: an outlier makes the
/// steps of its own block coarse, and no others, and is [spread](super::rotation) there. (Blocks of 64 inputs hardly change fewer decisions, and take a third longer.)
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bytes<const TILES: bool>;

impl<const TILES: bool> Kind for Bytes<TILES> {
    type State = u8;
    type Weight = i8;

    const GROUP: usize = 4;
    const STEP: usize = if TILES { amx::ROW } else { Self::GROUP };
    const AMX: Option<amx::Product> = if TILES { Some(amx::Product::Bytes) } else { None };
    const DEPTH: usize = 128;
    const WEIGHTS: f32 = 127.0;
    const STATES: f32 = 127.0;
    const OFFSET: i32 = 128;

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, weights: *const i8) -> S::Integers {
        // SAFETY: the caller's promise.
        unsafe { simd.load_integers(weights.cast()) }
    }

    #[inline(always)]
    fn add_products<S: Simd>(simd: S, states: S::Integers, weights: S::Integers, sums: S::Integers) -> S::Integers {
        simd.bytes(states, weights, sums)
    }
}

/// The same integers, multiplied as i16. (AVX2 multiplies bytes too, but sums of two saturate.)
#[derive(Clone, Copy, Debug)]
pub(crate) struct WidenedBytes;

impl Kind for WidenedBytes {
    type State = i16;
    type Weight = i8;

    const GROUP: usize = 2;
    const DEPTH: usize = Bytes::<false>::DEPTH;
    const WEIGHTS: f32 = Bytes::<false>::WEIGHTS;
    const STATES: f32 = Bytes::<false>::STATES;

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, weights: *const i8) -> S::Integers {
        // SAFETY: the caller's promise.
        unsafe { simd.load_bytes(weights) }
    }
}

impl<K: Kind> Format for Integers<K> {
    type State = K::State;
    type Weight = K::Weight;
    type Sum<S: Simd> = S::Integers;

    const WEIGHT_TYPE: WeightType = K::WEIGHT_TYPE;
    const GROUP: usize = K::GROUP;
    const STEP: usize = K::STEP;
    const AMX: Option<amx::Product> = K::AMX;
    const DEPTH: usize = K::DEPTH;
    const ROTATES: bool = K::ROTATES;

    fn scales(weights: Matrix<'_>) -> Vec<f32> {
        quantisation::scales(weights, K::WEIGHTS)
    }

    fn pack(_: Isa, panel: &mut [K::Weight], weights: Matrix<'_>, scales: &[f32], width: usize) {
        let inverses: Vec<f32> = scales.iter().map(|scale| quantisation::inverse(*scale)).collect();
        pack_groups(panel, weights, width, K::GROUP, |column, value| {
            K::Weight::truncate(quantisation::integer(value, inverses[column]))
        });
    }

    fn unpack(weight: K::Weight) -> f32 {
        weight.into()
    }

    fn offsets(panel: &[K::Weight], width: usize) -> Vec<i32> {
        if K::OFFSET == 0 {
            return Vec::new();
        }
        let mut offsets = vec![0; width];
        for groups in panel.chunks_exact(width * K::GROUP) {
            for (offset, group) in offsets.iter_mut().zip(groups.chunks_exact(K::GROUP)) {
                *offset -= K::OFFSET * group.iter().map(|weight| -> i32 { (*weight).into() }).sum::<i32>();
            }
        }
        offsets
    }

    fn states(isa: Isa, matrix: Matrix<'_>) -> States<'_, Self> {
        let width = matrix.shape()[1].next_multiple_of(K::STEP);
        let rounding = Rounding { depth: K::DEPTH, rotates: K::ROTATES, range: K::STATES, offset: K::OFFSET };
        let (states, scales) = quantisation::rows(isa, matrix, width, rounding);
        States::Made { states, width, scales }
    }

    #[inline(always)]
    fn start<S: Simd>(simd: S, offsets: &[i32]) -> [S::Integers; 2] {
        if K::OFFSET == 0 {
            return [simd.splat_integers(0); 2];
        }
        assert_eq!(offsets.len(), 2 * S::LANES, "a number for each column of a panel");
        // SAFETY: there are two registers of them.
        unsafe { [simd.load_integers(offsets.as_ptr()), simd.load_integers(offsets.as_ptr().add(S::LANES))] }
    }

    #[inline(always)]
    unsafe fn load_sums<S: Simd>(simd: S, from: *const i32) -> S::Integers {
        // SAFETY: the caller's promise.
        unsafe { simd.load_integers(from) }
    }

    #[inline(always)]
    unsafe fn step<S: Simd, const R: usize>(
        simd: S,
        states: [*const K::State; R],
        weights: *const K::Weight,
        sums: &mut [[S::Integers; 2]; R],
    ) {
        // SAFETY: the caller's promise.
        let weights = unsafe { [K::load(simd, weights), K::load(simd, weights.add(S::LANES * K::GROUP))] };
        for (state, [low, high]) in states.into_iter().zip(sums) {
            // SAFETY: as above.
            let group = unsafe { state.cast::<i32>().read_unaligned() };
            let states = simd.splat_integers(group);
            *low = K::add_products(simd, states, weights[0], *low);
            *high = K::add_products(simd, states, weights[1], *high);
        }
    }

    #[inline(always)]
    fn values<S: Simd>(simd: S, sums: S::Integers, of_row: S::Vector, of_columns: S::Vector) -> S::Vector {
        simd.multiply(simd.to_floats(sums), simd.multiply(of_row, of_columns))
    }
}

#[cfg(test)]
mod tests;
