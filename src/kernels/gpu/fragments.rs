//! Matrix fragments of a plane of 32 units, as `mma.m16n8k16` lays them out: which unit holds which element is known, so scores
//! become probabilities, and probabilities operands, without leaving the registers.
//!
//! A unit holds two rows of a result of 16 rows, `lane / 4` and the same + 8, and of each block of 8 columns the pair that starts at
//! `lane % 4 * 2`.

use cubecl::{
    cmma::{MatrixIdent, MmaDefinition},
    cube,
    prelude::*,
};

use super::shared::Variant;

/// Two neighbours in a row.
pub(super) type Pair = Const<2>;
/// What one load of 16 bytes brings.
pub(super) type Line = Const<8>;

/// Units of a plane, and rows of a fragment.
pub(super) const PLANE: usize = 32;
pub(super) const FRAGMENT: usize = 16;

/// A left operand, 16 x 16: row, row + 8, then the same of the columns from 8 on.
pub(super) type Left<F> = Array<Vector<F, Pair>>;
/// A result, 16 x 8: row and row + 8.
pub(super) type Sums = Array<Vector<f32, Pair>>;

/// Lines of a row in shared memory: one more than it needs, so that the rows of a fragment lie in different banks.
pub(super) fn stride(size: usize) -> usize {
    size / 8 + 1
}

/// Copies the columns of one head of some rows into shared memory; zeros where there is no row.
///
/// # Shapes
/// - source: [tokens, heads * head_size]
/// - tile: [count, stride] lines
#[cube]
pub(super) fn stage<F: Float>(
    source: &Tensor<Vector<F, Line>>,
    tile: &mut Shared<[Vector<F, Line>]>,
    start: usize,
    end: usize,
    heads: usize,
    #[comptime] count: usize,
    #[comptime] variant: Variant,
) {
    let lines = comptime!(variant.head_size / 8);
    let units = comptime!(variant.own / FRAGMENT * PLANE);
    #[unroll]
    for n in 0..comptime!((count * lines).div_ceil(units)) {
        let at = n * units + UNIT_POS as usize;
        let (row, column) = (at / lines, at % lines);
        if row < count {
            let mut line = Vector::<F, Line>::zeroed();
            if start + row < end {
                line = source[((start + row) * heads + CUBE_POS_Y as usize) * lines + column];
            }
            tile[row * comptime!(stride(variant.head_size)) + column] = line;
        }
    }
}

/// The left operands that 16 rows of a tile are, block of 16 columns by block.
#[cube]
pub(super) fn left_of<F: Float>(
    tile: &Shared<[Vector<F, Line>]>,
    first: usize,
    #[comptime] size: usize,
) -> Sequence<Left<F>> {
    let lane = UNIT_POS as usize % PLANE;
    let multiply = MmaDefinition::<F, F, f32>::new(16usize, 8usize, 16usize);
    let mut blocks = Sequence::<Left<F>>::new();
    #[unroll]
    for block in 0..comptime!(size / 16) {
        let at = (first + lane % 16) * comptime!(stride(size)) + block * 2 + lane / 16;
        blocks.push(multiply.load_matrix::<Vector<F, Line>, Pair>(&tile[at..at + 1], MatrixIdent::A, 4usize, false));
    }
    blocks
}

/// Results of zeros.
#[cube]
pub(super) fn no_sums(#[comptime] count: usize) -> Sequence<Sums> {
    let mut all = Sequence::<Sums>::new();
    #[unroll]
    for _ in 0..count {
        let mut sums = Sums::new(2usize);
        sums[0] = Vector::zeroed();
        sums[1] = Vector::zeroed();
        all.push(sums);
    }
    all
}

/// sums += left * tile^T (`by_rows`: the tile's rows are the result's columns), or left * tile.
///
/// # Shapes
/// - left: [16, size] or [16, rows]
/// - tile: [rows, size]
/// - sums: [16, rows] or [16, size]
#[cube]
pub(super) fn product<F: Float>(
    left: &Sequence<Left<F>>,
    tile: &Shared<[Vector<F, Line>]>,
    sums: &mut Sequence<Sums>,
    #[comptime] size: usize,
    #[comptime] rows: usize,
    #[comptime] by_rows: bool,
) {
    let lane = UNIT_POS as usize % PLANE;
    let multiply = MmaDefinition::<F, F, f32>::new(16usize, 8usize, 16usize);
    let (depth, width) = comptime!(if by_rows { (size / 16, rows / 16) } else { (rows / 16, size / 16) });
    #[unroll]
    for column in 0..width {
        #[unroll]
        for k in 0..depth {
            let at = if comptime!(by_rows) {
                (column * 16 + lane / 16 * 8 + lane % 8) * comptime!(stride(size)) + k * 2 + lane / 8 % 2
            } else {
                (k * 16 + lane % 16) * comptime!(stride(size)) + column * 2 + lane / 16
            };
            let right = multiply.load_matrix::<Vector<F, Line>, Pair>(
                &tile[at..at + 1],
                MatrixIdent::B,
                4usize,
                comptime!(!by_rows),
            );
            #[unroll]
            for half in 0..2usize {
                let mut block = Array::<Vector<F, Pair>>::new(2usize);
                block[0] = right[half * 2];
                block[1] = right[half * 2 + 1];
                multiply.execute_inplace(left.index(k), &block, sums.index_mut(comptime!(column * 2 + half)));
            }
        }
    }
}

/// Results as the left operand of the next product.
#[cube]
pub(super) fn as_left<F: Float>(sums: &Sequence<Sums>, #[comptime] count: usize) -> Sequence<Left<F>> {
    let mut blocks = Sequence::<Left<F>>::new();
    #[unroll]
    for block in 0..comptime!(count / 2) {
        let mut left = Left::<F>::new(4usize);
        #[unroll]
        for half in 0..2usize {
            left[half] = Vector::cast_from(sums.index(comptime!(block * 2))[half]);
            left[half + 2] = Vector::cast_from(sums.index(comptime!(block * 2 + 1))[half]);
        }
        blocks.push(left);
    }
    blocks
}

/// The largest and the sum of a value over the four units that share a row.
#[cube]
pub(super) fn largest_of_row(value: f32) -> f32 {
    let value = max(value, plane_shuffle_xor(value, 1u32));
    max(value, plane_shuffle_xor(value, 2u32))
}

#[cube]
pub(super) fn sum_of_row(value: f32) -> f32 {
    let value = value + plane_shuffle_xor(value, 1u32);
    value + plane_shuffle_xor(value, 2u32)
}
