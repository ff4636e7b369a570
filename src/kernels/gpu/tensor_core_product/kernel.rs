//! The kernel: fragments as in [`fragments`](crate::kernels::gpu::fragments).

use cubecl::{
    cmma::{MatrixIdent, MmaDefinition},
    cube,
    prelude::*,
};

use crate::kernels::gpu::fragments::{FRAGMENT, Left, Line, PLANE, Pair, no_sums, stride};

/// Numbers of the inner side that are in shared memory at a time.
pub const DEPTH: usize = 32;

/// Numbers of a line.
pub const LINE: usize = 8;

/// What a unit writes at a time.
type Four = Const<4>;

/// How a factor's tile lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Staging {
    /// Rows or columns of the output that it is for.
    pub across: usize,
    /// Whether the numbers of the inner side are neighbours.
    pub along: bool,
    /// Units that bring it.
    pub units: usize,
}

impl Staging {
    /// Rows of the tile in shared memory.
    fn rows(self) -> usize {
        if self.along { self.across } else { DEPTH }
    }

    /// Numbers of such a row.
    fn width(self) -> usize {
        if self.along { DEPTH } else { self.across }
    }

    /// Lines that the tile takes in shared memory.
    fn lines(self) -> usize {
        self.rows() * stride(self.width())
    }

    /// Lines that each unit brings.
    fn of_unit(self) -> usize {
        self.rows() * self.width() / LINE / self.units
    }
}

/// What is fixed when the kernel is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Variant {
    /// The left factor's tile.
    pub lhs: Staging,
    /// The right factor's tile.
    pub rhs: Staging,
    /// Rows and columns of the output that a plane makes.
    pub plane: (usize, usize),
    /// Whether there is a bias.
    pub bias: bool,
}

impl Variant {
    /// A cube for so many rows and columns, of planes for so many.
    fn new(cube: (usize, usize), plane: (usize, usize), along: [bool; 2], bias: bool) -> Self {
        let units = (cube.0 / plane.0) * (cube.1 / plane.1) * PLANE;
        let [lhs, rhs] =
            [(cube.0, along[0]), (cube.1, along[1])].map(|(across, along)| Staging { across, along, units });
        Self { lhs, rhs, plane, bias }
    }

    /// The variant for an output of so many columns.
    pub fn of(columns: usize, along: [bool; 2], bias: bool) -> Self {
        let (cube, plane) = if columns <= 64 { ((128, 64), (64, 32)) } else { ((128, 128), (64, 64)) };
        Self::new(cube, plane, along, bias)
    }
}

/// The numbers of a launch: how many there are, and how far apart.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub struct Numbers {
    /// Rows of the output.
    pub rows: u32,
    /// Columns of the output.
    pub columns: u32,
    /// Numbers of the inner side.
    pub inner: u32,
    /// Numbers of the inner side that a part sums.
    pub of_part: u32,
    /// Number of matrices.
    pub matrices: u32,
    /// Lines from a matrix of the left factor to the next.
    pub lhs_matrix: u32,
    /// Lines from a row of the left factor, as it lies in memory, to the next.
    pub lhs_row: u32,
    /// Lines from a matrix of the right factor to the next.
    pub rhs_matrix: u32,
    /// Lines from a row of the right factor, as it lies in memory, to the next.
    pub rhs_row: u32,
    /// Numbers from a part of the output to the next.
    pub output_part: u32,
    /// Numbers from a matrix of the output to the next.
    pub output_matrix: u32,
    /// Numbers from a row of the output to the next.
    pub output_row: u32,
}

/// The lines of a factor's tile that this unit brings: from `inner` on the inner side, zeros from `end` on.
#[cube]
fn fetch<F: Float>(
    source: &Tensor<Vector<F, Line>>,
    start: usize,
    step: usize,
    first: usize,
    count: usize,
    inner: usize,
    end: usize,
    #[comptime] staging: Staging,
) -> Array<Vector<F, Line>> {
    let mut lines = Array::<Vector<F, Line>>::new(comptime!(staging.of_unit()));
    let of_row = comptime!(staging.width() / LINE);
    #[unroll]
    for n in 0..comptime!(staging.of_unit()) {
        let at = comptime!(n * staging.units) + UNIT_POS as usize;
        let (row, line) = (at / of_row, at % of_row);
        let mut found = Vector::<F, Line>::zeroed();
        if comptime!(staging.along) {
            // Rows that are not there are others once more; nobody writes what comes of them.
            if inner + line * LINE < end {
                found = source[start + min(first + row, count - 1) * step + inner / LINE + line];
            }
        } else if inner + row < end {
            found = source[start + (inner + row) * step + min(first / LINE + line, count / LINE - 1)];
        }
        lines[n] = found;
    }
    lines
}

/// Puts the lines that this unit brought where they belong in shared memory.
#[cube]
fn put<F: Float>(
    lines: &Array<Vector<F, Line>>,
    tile: &mut Shared<[Vector<F, Line>]>,
    start: usize,
    #[comptime] staging: Staging,
) {
    let of_row = comptime!(staging.width() / LINE);
    #[unroll]
    for n in 0..comptime!(staging.of_unit()) {
        let at = comptime!(n * staging.units) + UNIT_POS as usize;
        tile[start + at / of_row * comptime!(stride(staging.width())) + at % of_row] = lines[n];
    }
}

/// Four 8 x 8 matrices, as two fragments' worth of a right operand or one of a left: rows and columns of the tile where it is said,
/// numbers of the inner side from `inner` on.
#[cube]
fn matrices<F: Float>(
    tile: &Shared<[Vector<F, Line>]>,
    start: usize,
    first: usize,
    #[comptime] inner: usize,
    #[comptime] staging: Staging,
    #[comptime] left: bool,
) -> Array<Vector<F, Pair>> {
    let lane = UNIT_POS as usize % PLANE;
    let multiply = MmaDefinition::<F, F, f32>::new(16usize, 8usize, 16usize);
    // Eight units each name the rows of a matrix. A left operand has its second matrix below the first, a right one beyond it.
    let (low, high) = if comptime!(left) { (lane / 8 % 2, lane / 16) } else { (lane / 16, lane / 8 % 2) };
    let width = comptime!(stride(staging.width()));
    let at = if comptime!(staging.along) {
        (first + low * 8 + lane % 8) * width + comptime!(inner / LINE) + high
    } else {
        (inner + high * 8 + lane % 8) * width + first / LINE + low
    };
    let ident = comptime!(if left { MatrixIdent::A } else { MatrixIdent::B });
    multiply.load_matrix::<Vector<F, Line>, Pair>(
        &tile[start + at..start + at + 1],
        ident,
        4usize,
        comptime!(!staging.along),
    )
}

/// The sums of a cube's tile, of one part of the inner side.
///
/// # Shapes
/// - lhs: [matrices, rows, inner], or turned; rhs: [matrices, inner, columns], or turned; bias: \[columns\]
/// - output: [parts, matrices, rows, columns], whose matrices may lie between each other
#[cube(launch_unchecked)]
pub fn multiply<F: Float, O: Float, B: Float>(
    lhs: &Tensor<Vector<F, Line>>,
    rhs: &Tensor<Vector<F, Line>>,
    bias: &Tensor<Vector<B, Four>>,
    output: &mut Tensor<Vector<O, Four>>,
    numbers: Numbers,
    #[comptime] variant: Variant,
    #[define(F, O, B)] _dtypes: [ElemType; 3],
) {
    let multiply = MmaDefinition::<F, F, f32>::new(16usize, 8usize, 16usize);
    let (lane, plane) = (UNIT_POS as usize % PLANE, UNIT_POS as usize / PLANE);
    let (plane_rows, plane_columns) = comptime!(variant.plane);
    let beside = comptime!(variant.rhs.across / plane_columns);
    let (own_row, own_column) = (plane / beside * plane_rows, plane % beside * plane_columns);
    let first_row = CUBE_POS_Y as usize * comptime!(variant.lhs.across);
    let first_column = CUBE_POS_X as usize * comptime!(variant.rhs.across);
    let matrix = CUBE_POS_Z as usize % numbers.matrices as usize;
    let part = CUBE_POS_Z as usize / numbers.matrices as usize;

    let (rows, columns) = (numbers.rows as usize, numbers.columns as usize);
    let (lhs_start, lhs_step) = (matrix * numbers.lhs_matrix as usize, numbers.lhs_row as usize);
    let (rhs_start, rhs_step) = (matrix * numbers.rhs_matrix as usize, numbers.rhs_row as usize);
    let mut inner = part * numbers.of_part as usize;
    let end = min(inner + numbers.of_part as usize, numbers.inner as usize);

    let (lhs_lines, rhs_lines) = comptime!((variant.lhs.lines(), variant.rhs.lines()));
    let mut lhs_tile = Shared::<[Vector<F, Line>]>::new_aligned_slice(comptime!(2 * lhs_lines), 16usize);
    let mut rhs_tile = Shared::<[Vector<F, Line>]>::new_aligned_slice(comptime!(2 * rhs_lines), 16usize);
    let (left_blocks, right_blocks) = comptime!((plane_rows / FRAGMENT, plane_columns / FRAGMENT));
    let mut sums = no_sums(comptime!(left_blocks * right_blocks * 2));

    let lines = fetch::<F>(lhs, lhs_start, lhs_step, first_row, rows, inner, end, comptime!(variant.lhs));
    put::<F>(&lines, &mut lhs_tile, 0usize, comptime!(variant.lhs));
    let lines = fetch::<F>(rhs, rhs_start, rhs_step, first_column, columns, inner, end, comptime!(variant.rhs));
    put::<F>(&lines, &mut rhs_tile, 0usize, comptime!(variant.rhs));
    sync_cube();

    let mut side = 0usize.runtime();
    while inner < end {
        let next = inner + DEPTH;
        let lhs_next = fetch::<F>(lhs, lhs_start, lhs_step, first_row, rows, next, end, comptime!(variant.lhs));
        let rhs_next = fetch::<F>(rhs, rhs_start, rhs_step, first_column, columns, next, end, comptime!(variant.rhs));

        let (lhs_side, rhs_side) = (side * lhs_lines, side * rhs_lines);
        #[unroll]
        for k in 0..comptime!(DEPTH / FRAGMENT) {
            let mut left = Sequence::<Left<F>>::new();
            #[unroll]
            for block in 0..left_blocks {
                let first = own_row + block * FRAGMENT;
                left.push(matrices::<F>(
                    &lhs_tile,
                    lhs_side,
                    first,
                    comptime!(k * FRAGMENT),
                    comptime!(variant.lhs),
                    true,
                ));
            }
            #[unroll]
            for column in 0..right_blocks {
                let first = own_column + column * FRAGMENT;
                let both =
                    matrices::<F>(&rhs_tile, rhs_side, first, comptime!(k * FRAGMENT), comptime!(variant.rhs), false);
                #[unroll]
                for half in 0..2usize {
                    let mut right = Array::<Vector<F, Pair>>::new(2usize);
                    right[0] = both[half * 2];
                    right[1] = both[half * 2 + 1];
                    #[unroll]
                    for block in 0..left_blocks {
                        let at = comptime!((block * right_blocks + column) * 2 + half);
                        multiply.execute_inplace(left.index(block), &right, sums.index_mut(at));
                    }
                }
            }
        }

        side = 1 - side;
        put::<F>(&lhs_next, &mut lhs_tile, side * lhs_lines, comptime!(variant.lhs));
        put::<F>(&rhs_next, &mut rhs_tile, side * rhs_lines, comptime!(variant.rhs));
        sync_cube();
        inner = next;
    }

    // A unit has two neighbours in a row of each fragment. It gives those of one to the unit beside it, and gets those of the other:
    // then it has four neighbours in one of them, and four units write 16 in a row.
    let odd = lane % 2;
    let start = part * numbers.output_part as usize + matrix * numbers.output_matrix as usize;
    #[unroll]
    for pair in 0..right_blocks {
        let column = first_column + own_column + pair * FRAGMENT + odd * 8 + lane / 2 % 2 * 4;
        let mut shift = Vector::<f32, Four>::zeroed();
        if comptime!(variant.bias) && column < columns {
            shift = Vector::cast_from(bias[column / 4]);
        }
        #[unroll]
        for block in 0..left_blocks {
            #[unroll]
            for half in 0..2usize {
                let even_block = sums.index(comptime!((block * right_blocks + pair) * 2))[half];
                let odd_block = sums.index(comptime!((block * right_blocks + pair) * 2 + 1))[half];
                let mut four = Vector::<f32, Four>::zeroed();
                #[unroll]
                for e in 0..2usize {
                    let (low, high) = (even_block.extract(e), odd_block.extract(e));
                    let other = plane_shuffle_xor(select(odd == 1, low, high), 1u32);
                    four.insert(e, select(odd == 1, other, low));
                    four.insert(e + 2, select(odd == 1, high, other));
                }
                let row = first_row + own_row + block * FRAGMENT + half * 8 + lane / 4;
                if row < rows && column < columns {
                    output[(start + row * numbers.output_row as usize + column) / 4] = Vector::cast_from(four + shift);
                }
            }
        }
    }
}
