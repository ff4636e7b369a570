//! Sums on GPUs, in a fixed order: over many rows (the gradients of biases), of products in parts, of products of a row's numbers
//! (delta of attention), and of squares (the norm of all gradients).

use burn::{
    Tensor,
    backend::{
        Backend, Dispatch, TensorMetadata, backend_extension, cubecl::dtype_to_elem_type, fusion::custom::TensorSpec,
        tensor::FloatTensor,
    },
    tensor::{DType, Shape},
};
use burn_cubecl::{CubeBackend, kernel::into_contiguous, tensor::CubeTensor};
use cubecl::{
    calculate_cube_count_elemwise,
    prelude::{CubeCount, CubeDim},
};

use super::{
    launch::{MOST_CUBES, like, rows},
    many::{Many, items_at_once, numbers_at_once},
};

/// Partial sums of [`squares`].
const PARTS: usize = 256;

/// Rows that a cube adds up, where there are many.
pub(super) const CHUNK: usize = 256;

/// Rows that a cube adds up if there are no more: a second launch would take longer.
pub(super) const FEW: usize = 1024;

/// The sum of the squares of all numbers of flat tensors in f32, in parts.
pub(crate) fn squares(values: Vec<Tensor<1>>) -> Tensor<1> {
    Tensor::from_dispatch(<Dispatch as GpuSums>::squares(Many::of(values)))
}

/// Sums without gradients.
#[backend_extension(Cube: cfg(feature = "gpu"), Fusion: cfg(feature = "gpu"))]
pub trait GpuSums: Backend {
    /// The sum of all rows, \[width\], in the type of `like`.
    #[fusion(meta = |x, like| TensorSpec { shape: Shape::new([x.shape[x.shape.num_dims() - 1]]), dtype: like.dtype })]
    fn sum_rows(x: FloatTensor<Self>, like: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Partial sums of the squares of all values.
    #[fusion(meta = |_values| TensorSpec { shape: Shape::new([PARTS]), dtype: DType::F32 })]
    fn squares(#[extension_type] values: Many<Self>) -> FloatTensor<Self>;

    /// For each row and head the sum of a times b, in f32, [rows, heads].
    #[fusion(meta = |a, _b, heads| TensorSpec { shape: Shape::new([rows(&a.shape), *heads]), dtype: DType::F32 })]
    fn dots(a: FloatTensor<Self>, b: FloatTensor<Self>, heads: usize) -> FloatTensor<Self>;
}

impl GpuSums for CubeBackend {
    fn sum_rows(x: FloatTensor<Self>, like: FloatTensor<Self>) -> FloatTensor<Self> {
        sum_rows(x, like.dtype)
    }

    fn squares(values: Many<Self>) -> FloatTensor<Self> {
        let values: Vec<_> = values.0.into_iter().map(into_contiguous).collect();
        let output = like(&values[0], Shape::new([PARTS]), DType::F32);
        let client = &output.client;
        for (launch, values) in values.chunks(items_at_once(client, 1)).enumerate() {
            let numbers = numbers_at_once(values.iter());
            kernels::squares::launch(
                client,
                CubeCount::Static(PARTS as u32, 1, 1),
                CubeDim::new_1d(kernels::UNITS as u32),
                numbers,
                values.iter().map(|values| values.clone().into_tensor_arg()).collect(),
                output.clone().into_tensor_arg(),
                values.iter().map(|values| (values.meta.num_elements() / numbers) as u32).collect(),
                launch > 0,
            );
        }
        output
    }

    fn dots(a: FloatTensor<Self>, b: FloatTensor<Self>, heads: usize) -> FloatTensor<Self> {
        let [a, b] = [a, b].map(into_contiguous);
        let rows = rows(&a.shape());
        let output = like(&a, Shape::new([rows, heads]), DType::F32);
        let size = a.meta.num_elements() / rows.max(1) / heads;
        for first in (0..rows).step_by(MOST_CUBES) {
            kernels::dots::launch(
                &a.client,
                CubeCount::Static(MOST_CUBES.min(rows - first) as u32, 1, 1),
                CubeDim::new_1d(kernels::UNITS as u32),
                a.clone().into_tensor_arg(),
                b.clone().into_tensor_arg(),
                output.clone().into_tensor_arg(),
                first as u32,
                heads,
                size,
                [dtype_to_elem_type(a.dtype), dtype_to_elem_type(b.dtype)],
            );
        }
        output
    }
}

/// The sum of all rows of x, [.., width], in a type: of chunks of rows first where there are many, then of the chunks' sums.
pub(super) fn sum_rows(x: CubeTensor, dtype: DType) -> CubeTensor {
    let mut x = into_contiguous(x);
    let shape = x.shape();
    let width = shape[shape.num_dims() - 1];
    let mut rows = shape.num_elements() / width;
    loop {
        let chunk = if rows <= FEW { FEW } else { CHUNK };
        let chunks = rows.div_ceil(chunk).max(1);
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
            chunk,
            [dtype_to_elem_type(x.dtype), dtype_to_elem_type(output.dtype)],
        );
        if last {
            return output;
        }
        (x, rows) = (output, chunks);
    }
}

/// The sums of parts in f32 that lie one after another, [parts, ..], in a type.
pub(super) fn sum_parts(x: &CubeTensor, dtype: DType) -> CubeTensor {
    let [parts, count] = x.meta.shape().dims();
    let output = like(x, Shape::new([count]), dtype);
    let numbers = if count.is_multiple_of(4) { 4 } else { 1 };
    let units = CubeDim::new_1d(kernels::UNITS as u32);
    let cubes = calculate_cube_count_elemwise(&x.client, count / numbers, units);
    kernels::sum_parts::launch(
        &x.client,
        cubes,
        units,
        numbers,
        x.clone().into_tensor_arg(),
        output.clone().into_tensor_arg(),
        parts as u32,
        (count / numbers) as u32,
        dtype_to_elem_type(dtype),
    );
    output
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

    /// A cube a row.
    ///
    /// # Shapes
    /// - a, b: [rows, heads * size]; output: [rows, heads]
    #[cube(launch)]
    pub fn dots<A: Float, B: Float>(
        a: &Tensor<A>,
        b: &Tensor<B>,
        output: &mut Tensor<f32>,
        first: u32,
        #[comptime] heads: usize,
        #[comptime] size: usize,
        #[define(A, B)] _dtypes: [ElemType; 2],
    ) {
        let width = comptime!(heads * size);
        let row = (first + CUBE_POS_X) as usize;
        let mut products = Shared::<[f32]>::new_slice(width);
        let mut at = UNIT_POS as usize;
        while at < width {
            products[at] = f32::cast_from(a[row * width + at]) * f32::cast_from(b[row * width + at]);
            at += UNITS;
        }
        sync_cube();
        let mut head = UNIT_POS as usize;
        while head < heads {
            let mut sum = 0.0f32;
            // Units begin at different numbers, which lie in different banks.
            for n in 0..size {
                sum += products[head * size + (n + head) % size];
            }
            output[row * heads + head] = sum;
            head += UNITS;
        }
    }

    /// A unit some numbers of the output.
    ///
    /// # Shapes
    /// - x: [parts, count]; output: \[count\]
    #[cube(launch)]
    pub fn sum_parts<O: Float, N: Size>(
        x: &Tensor<Vector<f32, N>>,
        output: &mut Tensor<Vector<O, N>>,
        parts: u32,
        count: u32,
        #[define(O)] _dtype: ElemType,
    ) {
        let (at, count) = (ABSOLUTE_POS, count as usize);
        if at < count {
            let mut sum = x[at];
            for part in 1..parts as usize {
                sum += x[part * count + at];
            }
            output[at] = Vector::cast_from(sum);
        }
    }

    /// A cube a part: the squares of its share of all values, added to what was there, if anything was.
    ///
    /// # Shapes
    /// - values: \[count\], with counts of their own; output: \[parts\]
    #[cube(launch)]
    pub fn squares<N: Size>(
        values: &Sequence<OwnedTensor<Vector<f32, N>>>,
        output: &mut Tensor<f32>,
        counts: &Sequence<u32>,
        #[comptime] adds: bool,
    ) {
        let mut sums = Vector::<f32, N>::new(0.0f32);
        #[unroll]
        for tensor in 0..values.len() {
            let mut at = CUBE_POS_X as usize * UNITS + UNIT_POS as usize;
            while at < counts[tensor] as usize {
                let value = values.index(tensor).as_slice()[at];
                sums += value * value;
                at += comptime!(UNITS * PARTS);
            }
        }
        let mut of_units = Shared::<[f32]>::new_slice(UNITS);
        let mut sum = 0.0f32;
        #[unroll]
        for number in 0..N::value() {
            sum += sums.extract(number);
        }
        of_units[UNIT_POS as usize] = sum;
        sync_cube();
        if UNIT_POS == 0 {
            let mut total = 0.0f32;
            if comptime!(adds) {
                total = output[CUBE_POS_X as usize];
            }
            for unit in 0..UNITS {
                total += of_units[unit];
            }
            output[CUBE_POS_X as usize] = total;
        }
    }
}
