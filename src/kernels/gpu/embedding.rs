//! Rows of a table of embeddings, with a backward pass that sums each row's gradients in the order of the tokens.
//!
//! burn's own backward pass gives each column of the table to one unit, which goes through all tokens one after the other.

use burn::{
    Tensor,
    backend::{
        Autodiff, Backend, Dispatch, TensorMetadata,
        autodiff::checkpoint::strategy::CheckpointStrategy,
        backend_extension,
        cubecl::dtype_to_elem_type,
        fusion::custom::TensorSpec,
        tensor::{FloatTensor, IntTensor},
    },
    tensor::{Int, IntDType, Shape},
};
use burn_cubecl::{CubeBackend, kernel::into_contiguous, ops::numeric::zeros_client, tensor::CubeTensor};
use cubecl::prelude::{CubeCount, CubeDim};

use super::launch::MOST_CUBES;
use crate::kernels::operation::{Operation, differentiable};

/// The rows of a table.
///
/// # Shapes
/// - table: [rows, width]
/// - ids: [batch, length]
/// - output: [batch, length, width]
pub(crate) fn embedding(table: Tensor<2>, ids: Tensor<2, Int>) -> Tensor<3> {
    Tensor::from_dispatch(<Dispatch as GpuEmbedding>::look_up(table.into_dispatch(), ids.into_dispatch()))
}

/// The operation.
#[backend_extension(Cube: cfg(feature = "gpu"), Autodiff, Fusion: cfg(feature = "gpu"))]
pub trait GpuEmbedding: Backend {
    /// The table's rows of these ids.
    #[fusion(meta = |table, ids| {
        let shape = Shape::new([ids.shape[0], ids.shape[1], table.shape[1]]);
        TensorSpec { shape, dtype: table.dtype }
    })]
    fn look_up(table: FloatTensor<Self>, ids: IntTensor<Self>) -> FloatTensor<Self>;
}

/// What its backward pass is made of.
#[backend_extension(Cube: cfg(feature = "gpu"), Fusion: cfg(feature = "gpu"))]
pub trait SumByRow: Backend {
    /// The gradient of a table with so many rows.
    #[fusion(meta = |gradient, _ids, rows| {
        let shape = Shape::new([*rows, gradient.shape[2]]);
        TensorSpec { shape, dtype: gradient.dtype }
    })]
    fn sum_by_row(gradient: FloatTensor<Self>, ids: IntTensor<Self>, rows: usize) -> FloatTensor<Self>;
}

impl GpuEmbedding for CubeBackend {
    fn look_up(table: FloatTensor<Self>, ids: IntTensor<Self>) -> FloatTensor<Self> {
        use burn::backend::ops::ModuleOps;
        Self::embedding(table, ids)
    }
}

impl SumByRow for CubeBackend {
    fn sum_by_row(gradient: FloatTensor<Self>, ids: IntTensor<Self>, rows: usize) -> FloatTensor<Self> {
        use burn::backend::ops::IntTensorOps;
        let ids = into_contiguous(Self::int_cast(ids, IntDType::I32));
        let gradient = into_contiguous(gradient);
        let (client, dtype, width) = (gradient.client.clone(), gradient.dtype, gradient.meta.shape()[2]);
        let zeros = zeros_client(client.clone(), gradient.device.clone(), Shape::new([rows * width]), dtype);
        let output = CubeTensor::new_contiguous(
            client.clone(),
            gradient.device.clone(),
            Shape::new([rows, width]),
            zeros.handle,
            dtype,
        );
        let tokens = ids.meta.shape().num_elements();
        for first in (0..tokens).step_by(MOST_CUBES) {
            let cubes = CubeCount::Static(MOST_CUBES.min(tokens - first) as u32, 1, 1);
            kernel::sum_rows::launch(
                &client,
                cubes,
                CubeDim::new_1d(kernel::UNITS as u32),
                ids.clone().into_tensor_arg(),
                gradient.clone().into_tensor_arg(),
                output.clone().into_tensor_arg(),
                first as u32,
                tokens as u32,
                width,
                dtype_to_elem_type(dtype),
            );
        }
        output
    }
}

impl<B: GpuEmbedding + SumByRow, C: CheckpointStrategy> GpuEmbedding for Autodiff<B, C> {
    fn look_up(table: FloatTensor<Self>, ids: IntTensor<Self>) -> FloatTensor<Self> {
        differentiable::<B, C, _, 1>(LookUp::<B> { ids }, [table])
    }
}

#[derive(Clone, Debug)]
struct LookUp<B: Backend> {
    ids: IntTensor<B>,
}

impl<B: GpuEmbedding + SumByRow> Operation<B, 1> for LookUp<B> {
    /// The number of the table's rows.
    type Kept = usize;

    fn forward(&self, [table]: [FloatTensor<B>; 1]) -> FloatTensor<B> {
        B::look_up(table, self.ids.clone())
    }

    fn forward_keeping(&self, [table]: [FloatTensor<B>; 1], _: [bool; 1]) -> (FloatTensor<B>, usize) {
        let rows = table.shape()[0];
        (B::look_up(table, self.ids.clone()), rows)
    }

    fn backward(&self, rows: usize, gradient: FloatTensor<B>, _: [bool; 1]) -> [Option<FloatTensor<B>>; 1] {
        [Some(B::sum_by_row(gradient, self.ids.clone(), rows))]
    }
}

pub(super) mod kernel {
    use cubecl::{cube, prelude::*};

    /// Units of a cube.
    pub const UNITS: usize = 256;

    /// Tokens that a cube looks at between two barriers.
    const CHUNK: usize = 1024;

    /// A cube for each token. The first token of an id owns the row: its cube sums the gradients of all tokens of that id.
    ///
    /// # Shapes
    /// - ids: \[tokens\]; gradient: [tokens, width]; output: [rows, width]
    #[cube(launch)]
    pub fn sum_rows<F: Float>(
        ids: &Tensor<i32>,
        gradient: &Tensor<F>,
        output: &mut Tensor<F>,
        first: u32,
        tokens: u32,
        #[comptime] width: usize,
        #[define(F)] _dtype: ElemType,
    ) {
        let own = first as usize + CUBE_POS_X as usize;
        let id = ids[own];
        let tokens = tokens as usize;
        let columns = comptime!(width.div_ceil(UNITS));
        let mut sums = Array::<f32>::new(columns);
        #[unroll]
        for part in 0..columns {
            sums[part] = 0.0f32;
        }
        // 1 where the chunk has the id, whether it has it at all, and whether a token before this one has it.
        let mut same = Shared::<[u32]>::new_slice(CHUNK);
        let mut any = Shared::<[u32]>::new_slice(2usize);
        if UNIT_POS == 0 {
            any[1] = 0u32;
        }
        let mut start = 0usize;
        // The same number of rounds for every cube: barriers want it so.
        while start < tokens {
            sync_cube();
            if UNIT_POS == 0 {
                any[0] = 0u32;
            }
            sync_cube();
            #[unroll]
            for part in 0..comptime!(CHUNK / UNITS) {
                let at = part * UNITS + UNIT_POS as usize;
                let token = start + at;
                let mut hit = 0u32;
                // The last token stands in for those that are not there.
                let other = ids[min(token, tokens - 1)];
                if token < tokens && other == id {
                    hit = 1u32;
                    any[0] = 1u32;
                    if token < own {
                        any[1] = 1u32;
                    }
                }
                same[at] = hit;
            }
            sync_cube();
            if any[0] == 1 && any[1] == 0 {
                for at in 0..CHUNK {
                    if same[at] == 1 {
                        let row = (start + at) * width;
                        #[unroll]
                        for part in 0..columns {
                            let column = part * UNITS + UNIT_POS as usize;
                            if column < width {
                                sums[part] += f32::cast_from(gradient[row + column]);
                            }
                        }
                    }
                }
            }
            start += CHUNK;
        }
        if any[1] == 0 {
            #[unroll]
            for part in 0..columns {
                let column = part * UNITS + UNIT_POS as usize;
                if column < width {
                    output[id as usize * width + column] = F::cast_from(sums[part]);
                }
            }
        }
    }
}
