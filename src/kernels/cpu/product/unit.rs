//! Products by a [matrix unit](amx), in blocks of as many sums as its tiles hold.

use crate::{
    isa::Isa,
    kernels::cpu::{
        amx::{self, Block, Rows, SIDE, Unit},
        format::Format,
        lines::Line,
        matrix::MatrixMut,
        product::{Start, Tiles, both},
        simd::Simd,
    },
};

/// Rows of sums that are made numbers at a time.
const FEW: usize = 8;

/// A block's sums, i32 or f32.
#[repr(C, align(64))]
struct Sums([[i32; SIDE]; SIDE]);

/// What sums start from if from nothing.
static ZEROS: [Line; 2] = [Line::ZERO; 2];

impl<F: Format> Tiles<'_, F> {
    /// `output[.., columns] = start + lhs panel`, as [`run`](Self::run) does, for a format that the unit multiplies.
    #[inline(always)]
    pub(super) fn run_in_blocks<S: Simd>(
        &self,
        simd: S,
        isa: Isa,
        product: amx::Product,
        unit: &mut Unit,
        output: &mut MatrixMut<'_>,
    ) {
        let [rows, depth] = self.lhs.matrix.shape();
        let bytes = |elements: usize| elements * size_of::<F::State>();
        assert!(self.lhs.matrix.has_contiguous_rows(), "states lie in rows");
        // Sums of whole panels that are numbers already are the output.
        let is_output = self.lhs.scales.is_none() && self.columns.len() == 2 * S::LANES;
        let mut sums = Sums([[0; SIDE]; SIDE]);
        for first in (0..rows).step_by(SIDE) {
            let number = SIDE.min(rows - first);
            let states = self.lhs.matrix.rows(first..first + number);
            let mut tile = output.part(first..first + number, self.columns.clone());
            let to = Rows { pointer: tile.pointer().cast::<u8>(), stride: 4 * tile.stride() };
            let same = |pointer: *const u8| Rows { pointer, stride: 0 };
            let start = match self.start {
                _ if !self.offsets.is_empty() => same(self.offsets.as_ptr().cast()),
                Start::Bias(bias) if is_output => same(bias.as_ptr().cast()),
                Start::Output if is_output => Rows { pointer: to.pointer.cast_const(), stride: to.stride },
                _ => same(ZEROS.as_ptr().cast()),
            };
            let block = Block {
                rows: number,
                steps: bytes(depth) / amx::ROW,
                states: Rows { pointer: states.pointer().cast(), stride: bytes(1) as isize * states.strides()[0] },
                weights: self.panel.as_ptr().cast(),
                start,
                sums: match is_output {
                    true => to,
                    false => Rows { pointer: sums.0.as_mut_ptr().cast(), stride: size_of_val(&sums.0[0]) as isize },
                },
                // The next panel follows in memory; each block asks for its share of it.
                ahead: self.panel.as_ptr_range().end.cast::<u8>().wrapping_add(bytes(depth) * 8 * (first / SIDE)),
            };
            if isa.multiplies_tiles() {
                // SAFETY: the processor multiplies tiles. States have whole steps, and the panel has as many of two tiles; the output
                // and a bias are as wide, or `sums` and zeros take their places.
                unsafe { unit.multiply(product, &block) };
            } else {
                // SAFETY: as above, with tiles as wide as registers.
                #[cfg(test)]
                unsafe {
                    amx::multiply_portably(product, &block, S::LANES);
                }
                #[cfg(not(test))]
                unreachable!("weights are laid out for a unit only where there is one");
            }
            if !is_output {
                let mut row = 0;
                self.write_sums::<S, FEW>(simd, &sums, number, &mut row, first, output);
                self.write_sums::<S, 1>(simd, &sums, number, &mut row, first, output);
            }
        }
    }

    /// Makes numbers of the sums from `row` on, `R` rows at a time, as long as there are so many of `rows`.
    #[inline(always)]
    fn write_sums<S: Simd, const R: usize>(
        &self,
        simd: S,
        sums: &Sums,
        rows: usize,
        row: &mut usize,
        first: usize,
        output: &mut MatrixMut<'_>,
    ) {
        while *row + R <= rows {
            let sums: [_; R] = std::array::from_fn(|r| {
                let from = sums.0[*row + r].as_ptr();
                // SAFETY: a row of sums has room for two registers of any set.
                both(|i| unsafe { F::load_sums(simd, from.add(i * S::LANES)) })
            });
            self.write(simd, sums, first + *row, output);
            *row += R;
        }
    }
}
