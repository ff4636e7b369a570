//! Products with weights that were laid out for them once.
//!
//! A matrix product first copies its right operand into panels, a register block wide, to read it in order. Weights give the
//! same copy in every call, and for a short text it costs as much as the multiplications. Here it is made once:
//!
//! ```text
//! weight [inputs, outputs]  ->  for each DEPTH inputs, for each WIDTH outputs: a panel [depth, WIDTH]
//! ```
//!
//! The product walks blocks of rows, blocks of inputs, panels, and tiles of [`TILE`] rows whose sums stay in registers: a panel
//! stays in the first-level cache while the tiles of a block pass over it, the block's states in the second, and each tile
//! asks for its share of the next panel ahead of time. The bias is what the sums start from.

// burn-ndarray is deprecated in favour of burn-flex, and supported until it is gone.
#![allow(deprecated)]

use std::{ops::Range, sync::Arc};

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use super::lanes::{Instructions, instructions};
use super::{
    extension::*,
    matrix::{MatrixMut, Shared},
};

/// Inputs of a panel: 384 inputs of 16 outputs are 24 of the first-level cache's 32 KB.
const DEPTH: usize = 384;
/// Rows of a tile: with two registers of outputs, 12 of AVX2's 16 registers hold sums, two the weights and one the state.
const TILE: usize = 6;
/// Rows whose states stay in the second-level cache: 384 inputs of 120 rows are 184 KB.
const ROWS: usize = 20 * TILE;
/// Outputs that one task computes, a multiple of every panel's width.
const OUTPUTS: usize = 192;

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
    /// Outputs of a panel: two registers of the processor.
    width: usize,
}

/// Outputs of a panel on this processor, if it multiplies and adds in one instruction: others are served by burn's products.
fn panel_width() -> Option<usize> {
    #[cfg(target_arch = "x86_64")]
    return match instructions() {
        Instructions::Avx512 => Some(32),
        Instructions::Avx2 => Some(16),
        Instructions::Portable => None,
    };
    #[cfg(not(target_arch = "x86_64"))]
    cfg!(target_arch = "aarch64").then_some(16)
}

/// Whether weights can be packed for this processor.
pub(crate) fn is_supported() -> bool {
    panel_width().is_some()
}

impl PackedWeight {
    /// Lays out a matrix [inputs, outputs], row-major.
    ///
    /// # Panics
    /// On processors that are not [supported](is_supported).
    pub fn new(weight: &[f32], inputs: usize, outputs: usize) -> Self {
        let width = panel_width().expect("the caller asks first whether weights can be packed");
        assert_eq!(weight.len(), inputs * outputs, "a weight of {inputs} x {outputs}");
        let lines = inputs * outputs.next_multiple_of(width) / 16;
        let mut packed = Self { panels: bytemuck::zeroed_vec(lines), inputs, outputs, width };
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
            self.block(states, columns, bias, block);
        });
    }

    /// Some outputs of some rows, with the processor's own instructions.
    fn block(&self, states: &[f32], columns: Range<usize>, bias: Option<&[f32]>, output: MatrixMut<'_>) {
        #[cfg(target_arch = "x86_64")]
        {
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            fn avx512(
                weight: &PackedWeight,
                states: &[f32],
                columns: Range<usize>,
                bias: Option<&[f32]>,
                output: MatrixMut<'_>,
            ) {
                weight.panels::<32>(states, columns, bias, output);
            }

            #[target_feature(enable = "avx2,fma")]
            fn avx2(
                weight: &PackedWeight,
                states: &[f32],
                columns: Range<usize>,
                bias: Option<&[f32]>,
                output: MatrixMut<'_>,
            ) {
                weight.panels::<16>(states, columns, bias, output);
            }

            match instructions() {
                // SAFETY: the processor has the instructions that the function is compiled for.
                Instructions::Avx512 => unsafe { avx512(self, states, columns, bias, output) },
                // SAFETY: as above.
                Instructions::Avx2 => unsafe { avx2(self, states, columns, bias, output) },
                Instructions::Portable => unreachable!("`new` lays out nothing for such a processor"),
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        self.panels::<16>(states, columns, bias, output);
    }

    /// Some outputs of the rows of `states`, panel by panel.
    #[inline(always)]
    fn panels<const WIDTH: usize>(
        &self,
        states: &[f32],
        columns: Range<usize>,
        bias: Option<&[f32]>,
        mut output: MatrixMut<'_>,
    ) {
        let rows = states.len() / self.inputs;
        for depth in parts(0..self.inputs, DEPTH) {
            for panel_columns in parts(columns.clone(), WIDTH) {
                let start = self.offset(&depth, panel_columns.start);
                let place = panel_columns.start - columns.start..panel_columns.end - columns.start;
                let mut tiles = Tiles {
                    states,
                    inputs: self.inputs,
                    depth: depth.clone(),
                    panel: self.weights()[start..][..depth.len() * WIDTH].as_chunks::<WIDTH>().0,
                    bias: bias.filter(|_| depth.start == 0).map(|bias| &bias[place.clone()]),
                    columns: place,
                    share: depth.len().div_ceil((rows / TILE).max(1)),
                };
                let mut row = 0;
                while row + TILE <= rows {
                    tiles.tile::<TILE>(row, &mut output);
                    row += TILE;
                }
                // What is left in tiles of 4, 2 and 1 rows.
                if row + 4 <= rows {
                    tiles.tile::<4>(row, &mut output);
                    row += 4;
                }
                if row + 2 <= rows {
                    tiles.tile::<2>(row, &mut output);
                    row += 2;
                }
                if row < rows {
                    tiles.tile::<1>(row, &mut output);
                }
            }
        }
    }
}

/// The tiles of one panel.
struct Tiles<'a, const WIDTH: usize> {
    /// [rows, inputs]
    states: &'a [f32],
    inputs: usize,
    /// The panel's inputs.
    depth: Range<usize>,
    panel: &'a [[f32; WIDTH]],
    /// The panel's part of the bias, where the sums start from it.
    bias: Option<&'a [f32]>,
    /// The panel's columns in the output.
    columns: Range<usize>,
    /// Rows of the next panel that each tile asks for.
    share: usize,
}

impl<const WIDTH: usize> Tiles<'_, WIDTH> {
    /// `output[row.., columns] (+)= states[row.., depth] panel` for `R` rows.
    #[inline(always)]
    fn tile<const R: usize>(&mut self, row: usize, output: &mut MatrixMut<'_>) {
        let columns = self.columns.clone();
        let panel = self.panel;
        let states: [&[f32]; R] =
            std::array::from_fn(|r| &self.states[(row + r) * self.inputs + self.depth.start..][..panel.len()]);
        // Rows are copied whole to and from the sums, which have to stay in registers.
        let mut sums: [[f32; WIDTH]; R] = std::array::from_fn(|r| {
            let mut start = [0.0; WIDTH];
            match self.bias {
                Some(bias) => start[..columns.len()].copy_from_slice(bias),
                None if self.depth.start > 0 => {
                    start[..columns.len()].copy_from_slice(&output.row_mut(row + r)[columns.clone()]);
                }
                None => {}
            }
            start
        });
        // The next panel follows in memory; this tile's share of it begins where the last one's ended.
        let ahead = (panel.len() + row / TILE * self.share) * WIDTH;
        for input in 0..panel.len() {
            let weights = &panel[input];
            if input < self.share {
                prefetch(weights, ahead);
            }
            for (sums, states) in sums.iter_mut().zip(&states) {
                let state = states[input];
                for (sum, weight) in sums.iter_mut().zip(weights) {
                    *sum = state.mul_add(*weight, *sum);
                }
            }
        }
        for (r, sums) in sums.into_iter().enumerate() {
            output.row_mut(row + r)[columns.clone()].copy_from_slice(&sums[..columns.len()]);
        }
    }
}

/// Asks for the weights that lie `ahead` elements further on; on other processors than x86 they come by themselves.
#[inline(always)]
fn prefetch<const WIDTH: usize>(weights: &[f32; WIDTH], ahead: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..WIDTH).step_by(16) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a hint, which touches no memory whatever the address is.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(weights.as_ptr().wrapping_add(ahead + line).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (weights, ahead);
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
    // Operations take a fixed number of tensors: an absent bias is one that nobody reads.
    let biased = bias.is_some();
    let bias = bias.unwrap_or_else(|| Tensor::zeros([1], &x.device()));
    Tensor::from_dispatch(Dispatch::packed_linear(x.into_dispatch(), bias.into_dispatch(), biased, weight))
}

/// A weight on a host device, in f32, in panels.
///
/// # Panics
/// On processors that are not [supported](is_supported).
pub(crate) fn pack(weight: Tensor<2>) -> PackedWeight {
    let [inputs, outputs] = weight.dims();
    let data = weight.into_data();
    PackedWeight::new(data.as_slice().expect("a weight in f32"), inputs, outputs)
}

/// The operation, for the host backends.
#[backend_extension(Flex: cfg(feature = "flex"), NdArray: cfg(feature = "ndarray"))]
pub(crate) trait PackedLinear: Backend {
    fn packed_linear(
        x: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        biased: bool,
        weight: Arc<PackedWeight>,
    ) -> FloatTensor<Self>;
}

fn forward<B: HostBackend>(
    x: FloatTensor<B>,
    bias: FloatTensor<B>,
    biased: bool,
    weight: &PackedWeight,
) -> FloatTensor<B> {
    let mut shape = x.shape();
    let last = shape.num_dims() - 1;
    shape[last] = weight.outputs;
    let (x, bias) = (B::values(x), B::values(bias));
    let mut output = vec![0.0; shape.num_elements()];
    weight.product(x.as_ref(), biased.then_some(bias.as_ref()), &mut output);
    B::tensor(output, shape)
}

#[cfg(feature = "flex")]
impl PackedLinear for Flex {
    fn packed_linear(
        x: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        biased: bool,
        weight: Arc<PackedWeight>,
    ) -> FloatTensor<Self> {
        forward::<Self>(x, bias, biased, &weight)
    }
}

#[cfg(feature = "ndarray")]
impl PackedLinear for NdArray {
    fn packed_linear(
        x: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        biased: bool,
        weight: Arc<PackedWeight>,
    ) -> FloatTensor<Self> {
        forward::<Self>(x, bias, biased, &weight)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::cpu::matrix::Matrix;

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
            let values = |count: usize, seed: usize| -> Vec<f32> {
                (0..count).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0).collect()
            };
            let (states, weight, bias) = (values(rows * inputs, 1), values(inputs * outputs, 2), values(outputs, 3));
            if !is_supported() {
                return Ok(());
            }
            let packed = PackedWeight::new(&weight, inputs, outputs);
            prop_assert_eq!(packed.unpack(), weight.clone());

            let mut expected: Vec<f32> = (0..rows).flat_map(|_| bias.iter().map(|b| if biased { *b } else { 0.0 })).collect();
            MatrixMut::new(&mut expected, 0, rows, outputs, outputs).product(
                Matrix::new(&states, 0, rows, inputs, inputs),
                Matrix::new(&weight, 0, inputs, outputs, outputs),
                true,
            );
            // What stood in the output must not matter.
            let mut output = vec![f32::NAN; rows * outputs];
            packed.product(&states, biased.then_some(&bias), &mut output);
            for (found, expected) in output.iter().zip(&expected) {
                // Two orders of up to 900 products: some 30 roundings (the root of their number) of partial sums up to 150, each
                // by up to 1e-5. A product too many or too few would show as 0.3.
                prop_assert!((found - expected).abs() < 1e-3, "{found} instead of {expected}");
            }
        }
    }
}
