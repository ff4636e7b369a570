//! Products of matrices on tensor cores, in bf16 and f16: a cube makes a tile of the output, a plane a part of it that stays in its
//! registers. While planes multiply one step of the inner side out of shared memory, each unit already holds its lines of the next.
//!
//! A factor lies in memory along its inner side or across it; its tile in shared memory lies the same way, and fragments are
//! turned where they are loaded. So a gradient, which reads a factor of the forward pass the other way, needs no copy of it.

use burn::backend::cubecl::dtype_to_elem_type;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::{CubeCount, CubeDim};

pub(super) mod kernel;

use self::kernel::{DEPTH, LINE, Variant};
use super::launch::{MOST_CUBES, multiplies_fragments, multiprocessors};

/// Numbers of a row that a unit writes at a time.
const AT_A_TIME: usize = 4;

/// Parts that sums are made in at most.
const MOST_PARTS: usize = 8;

/// Numbers of a tensor at most.
const MOST_NUMBERS: usize = u32::MAX as usize;

/// A factor in memory.
#[derive(Clone, Copy, Debug)]
struct Side {
    along: bool,
    /// Lines from matrix to matrix and from row to row.
    steps: [u32; 2],
}

impl Side {
    /// Of matrices [count, .., ..] whose inner side is this axis, if they lie in whole lines.
    fn of(factor: &CubeTensor, inner: usize) -> Option<Self> {
        let lengths = factor.meta.shape().dims::<3>();
        let strides: [usize; 3] = std::array::from_fn(|axis| factor.meta.strides()[axis]);
        let along = strides[inner] == 1;
        let (near, far) = if along { (inner, 3 - inner) } else { (3 - inner, inner) };
        let whole = [lengths[near], strides[0], strides[far]].into_iter().all(|number| number.is_multiple_of(LINE));
        (strides[near] == 1 && whole).then(|| Self { along, steps: [0, far].map(|axis| (strides[axis] / LINE) as u32) })
    }
}

/// A product that tensor cores can make.
pub(super) struct TensorCoreProduct {
    sides: [Side; 2],
    /// Matrices, rows, columns, and the length of the sums.
    shape: [usize; 4],
}

impl TensorCoreProduct {
    /// That of lhs [matrices, rows, inner] and rhs [matrices, inner, columns]; `None` where device, type or layout do not allow it.
    pub fn of(lhs: &CubeTensor, rhs: &CubeTensor) -> Option<Self> {
        let [matrices, rows, inner] = lhs.meta.shape().dims();
        let columns = rhs.meta.shape()[2];
        let sides = [Side::of(lhs, 2)?, Side::of(rhs, 1)?];
        let [_, y] = tiles(rows, columns);
        // The kernel counts numbers in 32 bits.
        let counts = [lhs.meta.num_elements(), rhs.meta.num_elements(), matrices * rows * columns];
        let fits = y.max(matrices * MOST_PARTS) <= MOST_CUBES && counts.into_iter().all(|count| count <= MOST_NUMBERS);
        (fits && multiplies_fragments(lhs) && columns.is_multiple_of(AT_A_TIME))
            .then_some(Self { sides, shape: [matrices, rows, columns, inner] })
    }

    /// In how many parts the sums are made, each by cubes of its own, so that the last round of cubes does not leave most of the
    /// device idle. The gradient of a weight is a sum over all tokens, but has fewer tiles than the device takes cubes.
    pub fn parts(&self, lhs: &CubeTensor) -> usize {
        /// Sums of a part are not shorter.
        const SHORTEST: usize = 512;
        /// Cubes that a multiprocessor has at a time.
        const CUBES: usize = 2;
        /// Writing and reading a number of a part takes as long as so many of its products.
        const PASS: f64 = 320.0;
        let [matrices, rows, columns, inner] = self.shape;
        let [x, y] = tiles(rows, columns);
        let at_once = CUBES * multiprocessors(lhs);
        let time = |parts: usize| {
            let cubes = x * y * matrices * parts;
            let products = cubes.div_ceil(at_once) as f64 * inner as f64 / parts as f64;
            let passes = if parts > 1 { PASS * cubes as f64 / at_once as f64 } else { 0.0 };
            products + passes
        };
        let most = MOST_PARTS.min(inner / SHORTEST).min(MOST_NUMBERS / (matrices * rows * columns));
        let candidates = 1..=most.max(1);
        candidates.min_by(|a, b| time(*a).total_cmp(&time(*b))).expect("one at least")
    }

    /// Launches it, with the strides [matrix, row] of the output, of which there are so many parts. A bias is added to a whole only.
    pub fn launch(
        &self,
        [lhs, rhs]: [CubeTensor; 2],
        bias: Option<CubeTensor>,
        output: CubeTensor,
        strides: [usize; 2],
        parts: usize,
    ) {
        let [matrices, rows, columns, inner] = self.shape;
        let variant = Variant::of(columns, self.sides.map(|side| side.along), bias.is_some());
        let of_part = inner.div_ceil(parts).next_multiple_of(DEPTH);
        let [x, y] = tiles(rows, columns);
        let cubes = [x, y, matrices * parts];
        assert!(bias.is_none() || parts == 1, "a bias for {parts} parts");
        let [lhs_steps, rhs_steps] = self.sides.map(|side| side.steps);
        let [output_matrix, output_row] = strides.map(|stride| stride as u32);
        let numbers = kernel::NumbersLaunch::new(
            rows as u32,
            columns as u32,
            inner as u32,
            of_part as u32,
            matrices as u32,
            lhs_steps[0],
            lhs_steps[1],
            rhs_steps[0],
            rhs_steps[1],
            (matrices * rows * columns) as u32,
            output_matrix,
            output_row,
        );
        let client = lhs.client.clone();
        // Where there is no bias, a tensor stands in for it that nobody reads.
        let bias = bias.unwrap_or_else(|| rhs.clone());
        let dtypes = [&lhs, &output, &bias].map(|tensor| dtype_to_elem_type(tensor.dtype));
        let [x, y, z] = cubes.map(|count| count as u32);
        // SAFETY: the kernel reads rows and lines of the factors that exist, as `Side` holds them to whole lines, and writes where
        // row and column are of the output; columns come in fours, as do the biases. What it reads lies at multiples of 16 bytes:
        // tensors begin at multiples of the device's alignment, and burn copies a slice that would not.
        unsafe {
            kernel::multiply::launch_unchecked(
                &client,
                CubeCount::Static(x, y, z),
                CubeDim::new_1d(variant.lhs.units as u32),
                lhs.into_tensor_arg(),
                rhs.into_tensor_arg(),
                bias.into_tensor_arg(),
                output.into_tensor_arg(),
                numbers,
                variant,
                dtypes,
            );
        }
    }
}

/// Tiles beside and below each other.
fn tiles(rows: usize, columns: usize) -> [usize; 2] {
    let variant = Variant::of(columns, [true; 2], false);
    [columns.div_ceil(variant.rhs.across), rows.div_ceil(variant.lhs.across)]
}
