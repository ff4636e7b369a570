//! Products with weights that were laid out for them once.
//!
//! A matrix product first copies its right operand into panels, a register block wide, to read it in order. Weights give the
//! same copy in every call, and for a short text it costs as much as the multiplications. Here it is made once:
//!
//! ```text
//! weight [inputs, outputs]  ->  for each DEPTH inputs, for each two registers of outputs: a panel [depth, width]
//! ```
//!
//! The product walks blocks of rows, blocks of inputs, panels, and tiles of a few rows whose sums stay in registers: a panel
//! stays in the first-level cache while the tiles of a block pass over it, the block's states in the second, and each tile
//! asks for its share of the next panel ahead of time. The bias is what the sums start from.

use std::{ops::Range, sync::Arc};

use burn::{
    Tensor,
    backend::{TensorMetadata, tensor::FloatTensor},
};
use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use super::{
    backend::HostBackend,
    matrix::{MatrixMut, Shared},
    operation::{Operation, apply},
    simd::{Simd, vectorized},
};
use crate::isa::Isa;

/// Inputs of a panel: 384 inputs of 16 outputs are 24 of the first-level cache's 32 KB, of 32 outputs all 48 of an AVX-512 one's.
const DEPTH: usize = 384;
/// Rows whose states stay in the second-level cache, a multiple of every tile's: 384 inputs of 120 rows are 184 KB.
const ROWS: usize = 120;
/// Outputs that one task computes, a multiple of every panel's width.
const OUTPUTS: usize = 192;
/// Outputs of the widest panel.
const WIDEST: usize = 32;

/// A cache line of weights: a register load that crosses two costs twice.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([f32; 16]);

// SAFETY: all-zero bytes are 16 numbers.
unsafe impl Zeroable for Line {}
// SAFETY: 16 numbers of 4 bytes fill the 64 bytes that it is aligned to, and any bytes are numbers.
unsafe impl Pod for Line {}

/// A weight matrix in panels.
#[derive(Debug)]
pub(crate) struct PackedWeight {
    panels: Vec<Line>,
    inputs: usize,
    outputs: usize,
    /// The instructions it is laid out for.
    isa: Isa,
    /// Outputs of a panel: two registers.
    width: usize,
}

impl PackedWeight {
    /// Lays out a matrix [inputs, outputs], row-major.
    pub fn new(isa: Isa, weight: &[f32], inputs: usize, outputs: usize) -> Self {
        let width = 2 * isa.lanes();
        assert_eq!(weight.len(), inputs * outputs, "a weight of {inputs} x {outputs}");
        let lines = (inputs * outputs.next_multiple_of(width)).div_ceil(16);
        let mut packed = Self { panels: bytemuck::zeroed_vec(lines), inputs, outputs, isa, width };
        for (depth, columns) in packed.blocks() {
            let start = packed.offset(&depth, columns.start);
            let panels: &mut [f32] = bytemuck::cast_slice_mut(&mut packed.panels);
            for (input, panel_row) in depth.zip(panels[start..].chunks_exact_mut(width)) {
                panel_row[..columns.len()].copy_from_slice(&weight[input * outputs..][columns.clone()]);
            }
        }
        packed
    }

    /// The matrix as it was.
    pub fn unpack(&self) -> Vec<f32> {
        let mut weight = vec![0.0; self.inputs * self.outputs];
        for (depth, columns) in self.blocks() {
            let start = self.offset(&depth, columns.start);
            for (input, panel_row) in depth.zip(self.weights()[start..].chunks_exact(self.width)) {
                weight[input * self.outputs..][columns.clone()].copy_from_slice(&panel_row[..columns.len()]);
            }
        }
        weight
    }

    /// The panels, one behind the other.
    fn weights(&self) -> &[f32] {
        bytemuck::cast_slice(&self.panels)
    }

    /// [inputs, outputs]
    pub fn shape(&self) -> [usize; 2] {
        [self.inputs, self.outputs]
    }

    /// The inputs and outputs of each panel.
    fn blocks(&self) -> impl Iterator<Item = (Range<usize>, Range<usize>)> + use<> {
        let (inputs, outputs, width) = (self.inputs, self.outputs, self.width);
        parts(0..inputs, DEPTH)
            .flat_map(move |depth| parts(0..outputs, width).map(move |columns| (depth.clone(), columns)))
    }

    /// Where the panel of these inputs and the outputs from `column` on begins.
    fn offset(&self, depth: &Range<usize>, column: usize) -> usize {
        depth.start * self.outputs.next_multiple_of(self.width) + column * depth.len()
    }

    /// `output = states weight + bias`
    ///
    /// # Shapes
    /// - states: [rows, inputs]
    /// - bias: [outputs]
    /// - output: [rows, outputs]
    pub fn product(&self, states: &[f32], bias: Option<&[f32]>, output: &mut [f32]) {
        let rows = output.len() / self.outputs;
        assert_eq!((states.len(), output.len()), (rows * self.inputs, rows * self.outputs), "states and output");
        assert!(bias.is_none_or(|bias| bias.len() == self.outputs), "bias");
        let output = Shared::new(output);
        // Row blocks of the same outputs follow each other: they find the weights in cache.
        let tasks: Vec<_> = parts(0..self.outputs, OUTPUTS)
            .flat_map(|columns| parts(0..rows, ROWS).map(move |rows| (rows, columns.clone())))
            .collect();
        tasks.into_par_iter().for_each(|(rows, columns)| {
            let states = &states[rows.start * self.inputs..rows.end * self.inputs];
            let bias = bias.map(|bias| &bias[columns.clone()]);
            let start = rows.start * self.outputs + columns.start;
            // SAFETY: the tasks' rows and columns are parts of the output that do not overlap.
            let block = unsafe { output.matrix(start, rows.len(), columns.len(), self.outputs) };
            panels(self.isa, self, states, columns, bias, block);
        });
    }
}

vectorized! {
    /// Some outputs of the rows of `states`, panel by panel.
    fn panels(
        simd: impl Simd,
        weight: &PackedWeight,
        states: &[f32],
        columns: Range<usize>,
        bias: Option<&[f32]>,
        output: MatrixMut<'_>,
    ) {
        let rows = states.len() / weight.inputs;
        let mut output = output;
        for depth in parts(0..weight.inputs, DEPTH) {
            for panel_columns in parts(columns.clone(), weight.width) {
                let start = weight.offset(&depth, panel_columns.start);
                let place = panel_columns.start - columns.start..panel_columns.end - columns.start;
                let start_of_sums = match bias {
                    _ if depth.start > 0 => Start::Output,
                    Some(bias) => Start::Bias(&bias[place.clone()]),
                    None => Start::Zero,
                };
                let panel = Panel {
                    weights: &weight.weights()[start..][..depth.len() * weight.width],
                    states,
                    inputs: weight.inputs,
                    first: depth.start,
                    columns: place,
                    start: start_of_sums,
                };
                panel.product(simd, rows, &mut output);
            }
        }
    }
}

/// What the sums of a tile start from.
#[derive(Clone, Copy)]
enum Start<'a> {
    Zero,
    /// The panel's part of the bias.
    Bias(&'a [f32]),
    /// What the inputs before have left in the output.
    Output,
}

/// The product with one panel.
struct Panel<'a> {
    /// [depth, width]
    weights: &'a [f32],
    /// [rows, inputs]
    states: &'a [f32],
    inputs: usize,
    /// The panel's first input.
    first: usize,
    /// The panel's columns in the output.
    columns: Range<usize>,
    start: Start<'a>,
}

impl Panel<'_> {
    /// `output[.., columns] (+)= states[.., inputs of the panel] weights` for all rows.
    #[inline(always)]
    fn product<S: Simd>(&self, simd: S, rows: usize, output: &mut MatrixMut<'_>) {
        let depth = self.weights.len() / (2 * S::LANES);
        // The next panel follows in memory; each tile asks for its share of it.
        let share = depth.div_ceil((rows / S::TILE_ROWS).max(1));
        let mut row = 0;
        // As many rows as possible in large tiles.
        self.tiles::<S, 12>(simd, &mut row, rows, share, output);
        self.tiles::<S, 6>(simd, &mut row, rows, share, output);
        self.tiles::<S, 4>(simd, &mut row, rows, share, output);
        self.tiles::<S, 2>(simd, &mut row, rows, share, output);
        self.tiles::<S, 1>(simd, &mut row, rows, share, output);
    }

    /// Tiles of `R` rows from `row` on, as long as there are so many, where the registers hold so many.
    #[inline(always)]
    fn tiles<S: Simd, const R: usize>(
        &self,
        simd: S,
        row: &mut usize,
        rows: usize,
        share: usize,
        output: &mut MatrixMut<'_>,
    ) {
        if R <= S::TILE_ROWS {
            while *row + R <= rows {
                self.tile::<S, R>(simd, *row, share, output);
                *row += R;
            }
        }
    }

    /// One tile: `R` rows from `row` on.
    #[inline(always)]
    fn tile<S: Simd, const R: usize>(&self, simd: S, row: usize, share: usize, output: &mut MatrixMut<'_>) {
        let width = 2 * S::LANES;
        let depth = self.weights.len() / width;
        let states = &self.states[row * self.inputs + self.first..][..(R - 1) * self.inputs + depth];
        let mut sums = [[simd.splat(0.0); 2]; R];
        match self.start {
            Start::Zero => {}
            Start::Bias(bias) => sums = [load(simd, bias); R],
            Start::Output => {
                for (r, sums) in sums.iter_mut().enumerate() {
                    *sums = load(simd, &output.row_mut(row + r)[self.columns.clone()]);
                }
            }
        }
        // The share begins where that of the tile before ended.
        let ahead = (depth + row / S::TILE_ROWS * share) * width;
        for input in 0..depth {
            // SAFETY: the weights have `depth` rows of two registers, the states (R - 1) rows of `inputs` and `depth` more.
            unsafe {
                let weights = self.weights.as_ptr().add(input * width);
                if input < share {
                    prefetch(weights.wrapping_add(ahead), width);
                }
                let weights = [simd.load(weights), simd.load(weights.add(S::LANES))];
                for (r, [low, high]) in sums.iter_mut().enumerate() {
                    let state = simd.splat(*states.as_ptr().add(r * self.inputs + input));
                    *low = simd.multiply_add(state, weights[0], *low);
                    *high = simd.multiply_add(state, weights[1], *high);
                }
            }
        }
        for (r, sums) in sums.into_iter().enumerate() {
            store(simd, sums, &mut output.row_mut(row + r)[self.columns.clone()]);
        }
    }
}

/// Two registers from a row, which is shorter in the last panel.
#[inline(always)]
fn load<S: Simd>(simd: S, row: &[f32]) -> [S::Vector; 2] {
    let mut whole = [0.0; WIDEST];
    let from = match row.len() == 2 * S::LANES {
        true => row.as_ptr(),
        false => {
            whole[..row.len()].copy_from_slice(row);
            whole.as_ptr()
        }
    };
    // SAFETY: the row has two registers of numbers, or `whole` has at least as many.
    unsafe { [simd.load(from), simd.load(from.add(S::LANES))] }
}

/// Two registers into a row, which is shorter in the last panel.
#[inline(always)]
fn store<S: Simd>(simd: S, [low, high]: [S::Vector; 2], row: &mut [f32]) {
    let mut whole = [0.0; WIDEST];
    let is_whole = row.len() == 2 * S::LANES;
    let to = if is_whole { row.as_mut_ptr() } else { whole.as_mut_ptr() };
    // SAFETY: as in `load`.
    unsafe {
        simd.store(to, low);
        simd.store(to.add(S::LANES), high);
    }
    if !is_whole {
        row.copy_from_slice(&whole[..row.len()]);
    }
}

/// Asks for `width` weights that will be needed soon; on other processors than x86 they come by themselves.
#[inline(always)]
fn prefetch(weights: *const f32, width: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..width).step_by(16) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a hint, which touches no memory whatever the address is.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(weights.wrapping_add(line).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (weights, width);
}

/// A range in parts of `size`, of which the last may be shorter.
fn parts(range: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(size).map(move |start| start..end.min(start + size))
}

/// `x weight + bias` on a host device without gradients.
///
/// # Shapes
/// - x: [.., inputs]
/// - bias: [outputs]
/// - output: [.., outputs]
pub(crate) fn linear<const D: usize>(x: Tensor<D>, weight: Arc<PackedWeight>, bias: Option<Tensor<1>>) -> Tensor<D> {
    let x = x.into_dispatch();
    match bias {
        Some(bias) => apply(PackedLinear { weight }, [x, bias.into_dispatch()]),
        None => apply(PackedLinear { weight }, [x]),
    }
}

/// A weight on a host device, in f32, in panels.
pub(crate) fn pack(weight: Tensor<2>) -> PackedWeight {
    let [inputs, outputs] = weight.dims();
    let data = weight.into_data();
    PackedWeight::new(Isa::in_use(), data.as_slice().expect("a weight in f32"), inputs, outputs)
}

/// The product with x, and a bias where there is a second tensor.
#[derive(Clone, Debug)]
struct PackedLinear {
    weight: Arc<PackedWeight>,
}

impl<const N: usize> Operation<N> for PackedLinear {
    type Kept<B: HostBackend> = ();

    fn forward<B: HostBackend>(&self, tensors: [FloatTensor<B>; N]) -> FloatTensor<B> {
        let mut shape = tensors[0].shape();
        let last = shape.num_dims() - 1;
        shape[last] = self.weight.outputs;
        let tensors = tensors.map(B::values);
        let mut output = vec![0.0; shape.num_elements()];
        self.weight.product(tensors[0].as_ref(), tensors.get(1).map(AsRef::as_ref), &mut output);
        B::tensor(output, shape)
    }

    fn forward_keeping<B: HostBackend>(&self, _: [FloatTensor<B>; N]) -> (FloatTensor<B>, ()) {
        unreachable!("weights are laid out on devices without gradients only")
    }

    fn backward<B: HostBackend>(&self, _: (), _: FloatTensor<B>, _: [bool; N]) -> [Option<FloatTensor<B>>; N] {
        unreachable!("there was no forward pass with gradients")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::cpu::{matrix::Matrix, rate};

    /// `count` numbers from -1 to 1.
    fn values(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        // Every remainder of rows, of a panel's inputs and outputs, and of a task's outputs.
        #[test]
        fn products_are_those_of_the_plain_weight(
            rows in 1usize..260,
            inputs in 1usize..900,
            outputs in 1usize..420,
            biased: bool,
        ) {
            let (states, weight, bias) = (values(rows * inputs, 1), values(inputs * outputs, 2), values(outputs, 3));
            let mut expected: Vec<f32> = (0..rows).flat_map(|_| bias.iter().map(|b| if biased { *b } else { 0.0 })).collect();
            MatrixMut::new(&mut expected, 0, rows, outputs, outputs).product(
                Matrix::new(&states, 0, rows, inputs, inputs),
                Matrix::new(&weight, 0, inputs, outputs, outputs),
                true,
            );
            for isa in Isa::available() {
                let packed = PackedWeight::new(isa, &weight, inputs, outputs);
                prop_assert!(packed.unpack() == weight, "{isa}: the weight has changed");
                // What stood in the output must not matter.
                let mut output = vec![f32::NAN; rows * outputs];
                packed.product(&states, biased.then_some(&bias), &mut output);
                for (found, expected) in output.iter().zip(&expected) {
                    // Two orders of up to 900 products: some 30 roundings (the root of their number) of partial sums up to
                    // 150, each by up to 1e-5. A product too many or too few would show as 0.3.
                    prop_assert!((found - expected).abs() < 1e-3, "{isa}: {found} instead of {expected}");
                }
            }
        }
    }

    /// Code that the compiler has failed to vectorise shows as a rate far below `gemm`'s.
    #[test]
    fn products_are_as_fast_as_their_registers_are_wide() {
        for [rows, inputs, outputs] in [[4, 768, 768], [32, 768, 768], [128, 384, 768], [128, 768, 384]] {
            let (states, weight) = (values(rows * inputs, 1), values(inputs * outputs, 2));
            let mut output = vec![0.0; rows * outputs];
            for isa in Isa::available() {
                let packed = PackedWeight::new(isa, &weight, inputs, outputs);
                let ratio = rate::beside_gemm([rows, inputs, outputs], || packed.product(&states, None, &mut output));
                rate::assert_vectorised(isa, ratio, &format!("packed product of {rows} x {inputs} x {outputs}"));
            }
        }
    }
}
