//! Sums over many rows on GPUs, in a fixed order: the gradients of biases, and the norm of all gradients.

use burn::{
    Tensor,
    backend::{
        Autodiff, Backend, Dispatch, TensorMetadata, autodiff::checkpoint::strategy::CheckpointStrategy,
        backend_extension, cubecl::dtype_to_elem_type, fusion::custom::TensorSpec, tensor::FloatTensor,
    },
    tensor::{DType, Shape},
};
use burn_cubecl::{CubeBackend, kernel::into_contiguous, tensor::CubeTensor};
use cubecl::prelude::{CubeCount, CubeDim};

use super::launch::like;
use crate::kernels::operation::{Operation, differentiable};

/// Partial sums of [`add_squares`].
pub(crate) const PARTS: usize = 256;

/// Rows that are added up in one go.
pub(super) const CHUNK: usize = 256;

/// x + row, for x [.., width] and row \[width\].
pub(crate) fn add_row<const D: usize>(x: Tensor<D>, row: Tensor<1>) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as AddRow>::add_row(x.into_dispatch(), row.into_dispatch()))
}

/// Adds the squares of a tensor's numbers to partial sums in f32, [[`PARTS`]].
pub(crate) fn add_squares(parts: Tensor<1>, values: Tensor<1>) -> Tensor<1> {
    Tensor::from_dispatch(<Dispatch as GpuSums>::add_squares(parts.into_dispatch(), values.into_dispatch()))
}

/// The sum with a row, whose gradient is the sum of all rows.
#[backend_extension(Cube: cfg(feature = "gpu"), Autodiff, Fusion: cfg(feature = "gpu"))]
pub trait AddRow: Backend {
    /// x + row, which burn joins with what follows.
    #[fusion(default)]
    fn add_row(x: FloatTensor<Self>, row: FloatTensor<Self>) -> FloatTensor<Self> {
        let mut shape = vec![1; x.shape().num_dims()];
        *shape.last_mut().expect("an axis at least") = row.shape()[0];
        Self::float_add(x, Self::float_reshape(row, Shape::from(shape)))
    }
}

impl AddRow for CubeBackend {}

impl<B: AddRow + GpuSums, C: CheckpointStrategy> AddRow for Autodiff<B, C> {
    fn add_row(x: FloatTensor<Self>, row: FloatTensor<Self>) -> FloatTensor<Self> {
        differentiable::<B, C, _, 2>(RowAddition, [x, row])
    }
}

#[derive(Clone, Debug)]
struct RowAddition;

impl<B: AddRow + GpuSums> Operation<B, 2> for RowAddition {
    /// The row, for its type.
    type Kept = FloatTensor<B>;

    fn forward(&self, [x, row]: [FloatTensor<B>; 2]) -> FloatTensor<B> {
        B::add_row(x, row)
    }

    fn forward_keeping(&self, [x, row]: [FloatTensor<B>; 2], _: [bool; 2]) -> (FloatTensor<B>, FloatTensor<B>) {
        (B::add_row(x, row.clone()), row)
    }

    fn backward(
        &self,
        row: FloatTensor<B>,
        gradient: FloatTensor<B>,
        wanted: [bool; 2],
    ) -> [Option<FloatTensor<B>>; 2] {
        let to_row = wanted[1].then(|| B::sum_rows(gradient.clone(), row));
        [Some(gradient), to_row]
    }
}

/// Sums without gradients.
#[backend_extension(Cube: cfg(feature = "gpu"), Fusion: cfg(feature = "gpu"))]
pub trait GpuSums: Backend {
    /// The sum of all rows, \[width\], in the type of `like`.
    #[fusion(meta = |x, like| TensorSpec { shape: Shape::new([x.shape[x.shape.num_dims() - 1]]), dtype: like.dtype })]
    fn sum_rows(x: FloatTensor<Self>, like: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Partial sums with the squares of more values.
    #[fusion(dtype = parts, shape = parts)]
    fn add_squares(parts: FloatTensor<Self>, values: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl GpuSums for CubeBackend {
    fn sum_rows(x: FloatTensor<Self>, like: FloatTensor<Self>) -> FloatTensor<Self> {
        sum_rows(x, like.dtype)
    }

    fn add_squares(parts: FloatTensor<Self>, values: FloatTensor<Self>) -> FloatTensor<Self> {
        let [parts, values] = [parts, values].map(into_contiguous);
        let output = like(&parts, parts.shape(), DType::F32);
        kernels::add_squares::launch(
            &parts.client,
            CubeCount::Static(PARTS as u32, 1, 1),
            CubeDim::new_1d(kernels::UNITS as u32),
            parts.clone().into_tensor_arg(),
            values.clone().into_tensor_arg(),
            output.clone().into_tensor_arg(),
            values.shape().num_elements() as u32,
            dtype_to_elem_type(values.dtype),
        );
        output
    }
}

/// The sum of all rows of x, [.., width], in a type: of chunks of rows first, then of the chunks' sums.
pub(super) fn sum_rows(x: CubeTensor, dtype: DType) -> CubeTensor {
    let mut x = into_contiguous(x);
    let shape = x.shape();
    let width = shape[shape.num_dims() - 1];
    let mut rows = shape.num_elements() / width;
    loop {
        let chunks = rows.div_ceil(CHUNK).max(1);
        let last = chunks == 1;
        let shape = if last { Shape::new([width]) } else { Shape::new([chunks, width]) };
        let output = like(&x, shape, if last { dtype } else { DType::F32 });
        kernels::sum_chunks::launch(
            &x.client,
            CubeCount::Static(width.div_ceil(kernels::COLUMNS) as u32, chunks as u32, 1),
            CubeDim::new_1d(kernels::UNITS as u32),
            x.clone().into_tensor_arg(),
            output.clone().into_tensor_arg(),
            rows as u32,
            width as u32,
            CHUNK,
            [dtype_to_elem_type(x.dtype), dtype_to_elem_type(output.dtype)],
        );
        if last {
            return output;
        }
        (x, rows) = (output, chunks);
    }
}

pub(super) mod kernels {
    use cubecl::{cube, prelude::*};

    use super::PARTS;

    /// Units of a cube.
    pub const UNITS: usize = 256;

    /// Columns of a cube; its units share the rows of each.
    pub const COLUMNS: usize = 32;

    /// Sums of chunks of rows.
    ///
    /// # Shapes
    /// - x: [rows, width]; output: [chunks, width]
    #[cube(launch)]
    pub fn sum_chunks<F: Float, O: Float>(
        x: &Tensor<F>,
        output: &mut Tensor<O>,
        rows: u32,
        width: u32,
        #[comptime] chunk: usize,
        #[define(F, O)] _dtypes: [ElemType; 2],
    ) {
        let groups = comptime!(UNITS / COLUMNS);
        let (rows, width) = (rows as usize, width as usize);
        let column = CUBE_POS_X as usize * COLUMNS + UNIT_POS as usize % COLUMNS;
        let group = UNIT_POS as usize / COLUMNS;
        let mut parts = Shared::<[f32]>::new_slice(UNITS);
        let mut sum = 0.0f32;
        if column < width {
            let start = CUBE_POS_Y as usize * chunk;
            let end = min(start + chunk, rows);
            let mut row = start + group;
            while row < end {
                sum += f32::cast_from(x[row * width + column]);
                row += groups;
            }
        }
        parts[UNIT_POS as usize] = sum;
        sync_cube();
        if group == 0 && column < width {
            let mut total = 0.0f32;
            for other in 0..groups {
                total += parts[other * COLUMNS + UNIT_POS as usize];
            }
            output[CUBE_POS_Y as usize * width + column] = O::cast_from(total);
        }
    }

    /// A cube a part: adds the squares of its share of the values.
    #[cube(launch)]
    pub fn add_squares<F: Float>(
        parts: &Tensor<f32>,
        values: &Tensor<F>,
        output: &mut Tensor<f32>,
        count: u32,
        #[define(F)] _dtype: ElemType,
    ) {
        let mut sum = 0.0f32;
        let mut at = CUBE_POS_X as usize * UNITS + UNIT_POS as usize;
        while at < count as usize {
            let value = f32::cast_from(values[at]);
            sum += value * value;
            at += comptime!(UNITS * PARTS);
        }
        let mut of_units = Shared::<[f32]>::new_slice(UNITS);
        of_units[UNIT_POS as usize] = sum;
        sync_cube();
        if UNIT_POS == 0 {
            let mut total = parts[CUBE_POS_X as usize];
            for unit in 0..UNITS {
                total += of_units[unit];
            }
            output[CUBE_POS_X as usize] = total;
        }
    }
}
