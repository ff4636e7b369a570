//! Products of matrices on GPUs, with their backward passes.
//!
//! In bf16 and f16 on tensor cores the kernel is [`tensor_core_product`](super::tensor_core_product). Everywhere else the kernels
//! are cubek's, those of burn's own `matmul`; which of them runs is decided in [`strategy`](super::strategy), by type and shape.
//! burn tries several for each new shape, and compiles each for that, so that minutes go by before a first training step ends. And
//! where a card has tensor cores, burn rounds the operands of a product in f32 to the 11 bits of TF32; here f32 stays f32.

use burn::{
    Tensor,
    backend::{
        Autodiff, Backend, Dispatch, TensorMetadata, autodiff::checkpoint::strategy::CheckpointStrategy,
        backend_extension, fusion::custom::TensorSpec, tensor::FloatTensor,
    },
    tensor::{DType, Shape},
};
use burn_cubecl::{
    CubeBackend,
    kernel::{self, into_contiguous},
    ops::numeric::{empty_device_contiguous_dtype, zeros_client},
    tensor::CubeTensor,
};
use cubecl::zspace::metadata::Metadata;

use super::{
    strategy,
    sums::{GpuSums, sum_parts},
    tensor_core_product::TensorCoreProduct,
};
use crate::kernels::operation::{Operation, differentiable};

/// Where the matrices of a tensor are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// [.., rows, columns]: one matrix; the leading axes count as more rows.
    One,
    /// [.., rows, heads * columns]: one a head, beside each other.
    ByHead(usize),
    /// [.., rows, columns]: the leading axes count the matrices.
    Stack,
}

/// A factor of a product.
#[derive(Clone, Copy, Debug)]
pub(super) struct Factor {
    form: Form,
    /// Whether rows and columns of its matrices are exchanged.
    transposed: bool,
}

impl Factor {
    pub const fn new(form: Form) -> Self {
        Self { form, transposed: false }
    }

    pub const fn transposed(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }

    /// Shape and strides [matrices, rows, columns] of a tensor whose numbers lie end to end.
    fn layout(self, shape: &Shape) -> [[usize; 3]; 2] {
        let last = shape[shape.num_dims() - 1];
        let [mut lengths, mut strides] = match self.form {
            Form::One => [[1, shape.num_elements() / last.max(1), last], [shape.num_elements(), last, 1]],
            Form::ByHead(heads) => {
                let columns = last / heads;
                [[heads, shape.num_elements() / last.max(1), columns], [columns, last, 1]]
            }
            Form::Stack => {
                let rows = shape[shape.num_dims() - 2];
                let matrix = rows * last;
                [[shape.num_elements() / matrix.max(1), rows, last], [matrix, last, 1]]
            }
        };
        if self.transposed {
            lengths.swap(1, 2);
            strides.swap(1, 2);
        }
        [lengths, strides]
    }

    /// The same numbers as matrices.
    fn view(self, tensor: &CubeTensor) -> CubeTensor {
        let [lengths, strides] = self.layout(tensor.meta.shape());
        let mut view = tensor.clone();
        *view.meta = Metadata::new(lengths, strides);
        view
    }
}

/// Which product: of which matrices, and where it is put.
#[derive(Clone, Debug)]
pub struct Product {
    pub(super) lhs: Factor,
    pub(super) rhs: Factor,
    pub(super) output: Form,
    /// The shape of the output.
    pub(super) shape: Shape,
    /// The type of the output. The factors are of lhs's: another type of rhs is cast to it.
    pub(super) dtype: DType,
}

impl Product {
    /// What gives the gradient of lhs, which is of this shape and type, and whether G stands on the left: `dL = G R^T`, or `R G^T`
    /// where the product reads L transposed.
    fn of_lhs(&self, shape: Shape, dtype: DType) -> (Self, bool) {
        let gradient = Factor::new(self.output);
        let output = self.lhs.form;
        match self.lhs.transposed {
            false => (Self { lhs: gradient, rhs: self.rhs.transposed(), output, shape, dtype }, true),
            true => (Self { lhs: self.rhs, rhs: gradient.transposed(), output, shape, dtype }, false),
        }
    }

    /// The same for rhs: `dR = L^T G`, or `G^T L`.
    fn of_rhs(&self, shape: Shape, dtype: DType) -> (Self, bool) {
        let gradient = Factor::new(self.output);
        let output = self.rhs.form;
        match self.rhs.transposed {
            false => (Self { lhs: self.lhs.transposed(), rhs: gradient, output, shape, dtype }, false),
            true => (Self { lhs: gradient.transposed(), rhs: self.lhs, output, shape, dtype }, true),
        }
    }
}

/// x weight + bias, in the type of x: parameters of another type are cast to it. Their gradients are of their own type: sums over
/// all tokens are not rounded on the way.
///
/// # Shapes
/// - x: [.., inputs]
/// - weight: [inputs, outputs], or [outputs, inputs] if it is `transposed`
/// - bias: \[outputs\]
/// - output: [.., outputs]
pub(crate) fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    transposed: bool,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    let mut shape = x.shape();
    shape[D - 1] = weight.dims()[usize::from(!transposed)];
    let one = Factor::new(Form::One);
    let rhs = if transposed { one.transposed() } else { one };
    let product = Product { lhs: one, rhs, output: Form::One, shape, dtype: x.dtype() };
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(match bias {
        Some(bias) => <Dispatch as GpuProduct>::affine(x, weight, bias.into_dispatch(), product),
        None => <Dispatch as GpuProduct>::product(x, weight, product),
    })
}

/// The products of matrices that lie in the last two axes, like burn's `matmul`.
///
/// # Shapes
/// - lhs: [.., rows, inner], rhs: [.., inner, columns]; leading axes of 1 are repeated
/// - output: [.., rows, columns]
pub(crate) fn matmul<const D: usize>(lhs: Tensor<D>, rhs: Tensor<D>) -> Tensor<D> {
    let of = [lhs.dims(), rhs.dims()];
    let leading = |axis: usize| of[0][axis].max(of[1][axis]);
    let spread = |tensor: Tensor<D>| {
        let own = tensor.dims();
        tensor.expand::<D, _>(std::array::from_fn(|axis| if axis + 2 < D { leading(axis) } else { own[axis] }))
    };
    let (lhs, rhs) = (spread(lhs), spread(rhs));
    let mut shape = lhs.shape();
    shape[D - 1] = rhs.dims()[D - 1];
    let stack = Factor::new(Form::Stack);
    let product = Product { lhs: stack, rhs: stack, output: Form::Stack, shape, dtype: lhs.dtype() };
    Tensor::from_dispatch(<Dispatch as GpuProduct>::product(lhs.into_dispatch(), rhs.into_dispatch(), product))
}

/// The operations.
#[backend_extension(Cube: cfg(feature = "gpu"), Autodiff, Fusion: cfg(feature = "gpu"))]
pub trait GpuProduct: Backend {
    /// The product of two tensors' matrices.
    #[fusion(meta = |_lhs, _rhs, product| TensorSpec { shape: product.shape.clone(), dtype: product.dtype })]
    fn product(lhs: FloatTensor<Self>, rhs: FloatTensor<Self>, product: Product) -> FloatTensor<Self>;

    /// The same with a bias added to each row, of any type.
    #[fusion(meta = |_lhs, _rhs, _bias, product| TensorSpec { shape: product.shape.clone(), dtype: product.dtype })]
    fn affine(
        lhs: FloatTensor<Self>,
        rhs: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        product: Product,
    ) -> FloatTensor<Self>;
}

impl GpuProduct for CubeBackend {
    fn product(lhs: FloatTensor<Self>, rhs: FloatTensor<Self>, product: Product) -> FloatTensor<Self> {
        product.compute(lhs, rhs, None)
    }

    fn affine(
        lhs: FloatTensor<Self>,
        rhs: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        product: Product,
    ) -> FloatTensor<Self> {
        product.compute(lhs, rhs, Some(bias))
    }
}

impl Product {
    fn compute(self, lhs: CubeTensor, rhs: CubeTensor, bias: Option<CubeTensor>) -> CubeTensor {
        let (client, device) = (lhs.client.clone(), lhs.device.clone());
        let rhs = kernel::cast(rhs, lhs.dtype);
        let [lhs, rhs] =
            [(lhs, self.lhs), (rhs, self.rhs)].map(|(tensor, factor)| factor.view(&into_contiguous(tensor)));
        let (shape, dtype) = (self.shape, self.dtype);
        let inner = lhs.meta.shape()[2];
        if shape.num_elements() == 0 || inner == 0 {
            return with_bias::<CubeBackend>(zeros_client(client, device, shape, dtype), bias);
        }
        let on_tensor_cores = if strategy::is_chosen() { None } else { TensorCoreProduct::of(&lhs, &rhs) };
        let parts = on_tensor_cores.as_ref().map_or_else(|| strategy::parts(&lhs, &rhs), |product| product.parts(&lhs));
        let (all, sums) = match parts {
            1 => (shape.clone(), dtype),
            _ => (Shape::new([parts, shape.num_elements()]), DType::F32),
        };
        let output = empty_device_contiguous_dtype(client.clone(), device.clone(), all, sums);
        let [lengths, strides] = Factor::new(self.output).layout(&shape);
        let bias = match on_tensor_cores {
            Some(product) => {
                let (now, later) = if parts == 1 { (bias.map(into_contiguous), None) } else { (None, bias) };
                product.launch([lhs, rhs], now, output.clone(), [strides[0], strides[1]], parts);
                later
            }
            None => {
                strategy::launch([lhs, rhs], output.clone(), [lengths, strides], parts);
                bias
            }
        };
        let whole = match parts {
            1 => output,
            _ => CubeTensor::new_contiguous(client, device, shape, sum_parts(&output, dtype).handle, dtype),
        };
        with_bias::<CubeBackend>(whole, bias)
    }
}

/// The tensor in a type. burn's `float_cast` may launch a copy where the tensor has the type already.
fn cast<B: Backend>(tensor: FloatTensor<B>, dtype: DType) -> FloatTensor<B> {
    if tensor.dtype() == dtype { tensor } else { B::float_cast(tensor, dtype.into()) }
}

/// x + bias, if there is one.
fn with_bias<B: Backend>(x: FloatTensor<B>, bias: Option<FloatTensor<B>>) -> FloatTensor<B> {
    let Some(bias) = bias else { return x };
    let mut shape = vec![1; x.shape().num_dims()];
    *shape.last_mut().expect("an axis at least") = bias.shape()[0];
    let bias = cast::<B>(bias, x.dtype());
    B::float_add(x, B::float_reshape(bias, Shape::from(shape)))
}

impl<B: GpuProduct + GpuSums, C: CheckpointStrategy> GpuProduct for Autodiff<B, C> {
    fn product(lhs: FloatTensor<Self>, rhs: FloatTensor<Self>, product: Product) -> FloatTensor<Self> {
        differentiable::<B, C, _, 2>(product, [lhs, rhs])
    }

    fn affine(
        lhs: FloatTensor<Self>,
        rhs: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        product: Product,
    ) -> FloatTensor<Self> {
        differentiable::<B, C, _, 3>(Affine(product), [lhs, rhs, bias])
    }
}

/// What the backward pass of a product needs.
#[derive(Clone, Debug)]
pub(crate) struct Kept<F> {
    /// Those that the gradient of the other is made of.
    factors: [Option<F>; 2],
    shapes: [Shape; 2],
    dtypes: [DType; 2],
}

impl<F: TensorMetadata + Clone> Kept<F> {
    /// Of two factors, the second of which may be there in the type that it was cast to.
    fn new<B: Backend<FloatTensorPrimitive = F>>([lhs, rhs]: [F; 2], wanted: [bool; 2]) -> (Self, [F; 2]) {
        let dtypes = [lhs.dtype(), rhs.dtype()];
        // Cast here, it need not be cast again in the backward pass.
        let factors = [lhs.clone(), cast::<B>(rhs, lhs.dtype())];
        let [lhs, rhs] = factors.clone();
        let shapes = [lhs.shape(), rhs.shape()];
        // A frozen weight needs no input, and an input without a gradient no weight.
        (Self { factors: [wanted[1].then_some(lhs), wanted[0].then_some(rhs)], shapes, dtypes }, factors)
    }
}

impl Product {
    /// The gradients of both factors.
    fn gradients<B: GpuProduct>(
        &self,
        kept: Kept<FloatTensor<B>>,
        gradient: &FloatTensor<B>,
    ) -> [Option<FloatTensor<B>>; 2] {
        let Kept { factors: [lhs, rhs], shapes: [of_lhs, of_rhs], dtypes } = kept;
        let through = |other: Option<FloatTensor<B>>, (product, gradient_first)| {
            other.map(|other| match gradient_first {
                true => B::product(gradient.clone(), other, product),
                false => B::product(other, gradient.clone(), product),
            })
        };
        [through(rhs, self.of_lhs(of_lhs, dtypes[0])), through(lhs, self.of_rhs(of_rhs, dtypes[1]))]
    }
}

impl<B: GpuProduct> Operation<B, 2> for Product {
    type Kept = Kept<FloatTensor<B>>;

    fn forward(&self, [lhs, rhs]: [FloatTensor<B>; 2]) -> FloatTensor<B> {
        B::product(lhs, rhs, self.clone())
    }

    fn forward_keeping(&self, tensors: [FloatTensor<B>; 2], wanted: [bool; 2]) -> (FloatTensor<B>, Self::Kept) {
        let (kept, factors) = Kept::new::<B>(tensors, wanted);
        (Operation::<B, 2>::forward(self, factors), kept)
    }

    fn backward(&self, kept: Self::Kept, gradient: FloatTensor<B>, _: [bool; 2]) -> [Option<FloatTensor<B>>; 2] {
        self.gradients::<B>(kept, &gradient)
    }
}

/// A product with a bias.
#[derive(Clone, Debug)]
struct Affine(Product);

impl<B: GpuProduct + GpuSums> Operation<B, 3> for Affine {
    /// The bias for its type.
    type Kept = (Kept<FloatTensor<B>>, FloatTensor<B>);

    fn forward(&self, [lhs, rhs, bias]: [FloatTensor<B>; 3]) -> FloatTensor<B> {
        B::affine(lhs, rhs, bias, self.0.clone())
    }

    fn forward_keeping(
        &self,
        [lhs, rhs, bias]: [FloatTensor<B>; 3],
        [of_lhs, of_rhs, _]: [bool; 3],
    ) -> (FloatTensor<B>, Self::Kept) {
        let (kept, [lhs, rhs]) = Kept::new::<B>([lhs, rhs], [of_lhs, of_rhs]);
        (B::affine(lhs, rhs, bias.clone(), self.0.clone()), (kept, bias))
    }

    fn backward(
        &self,
        (kept, bias): Self::Kept,
        gradient: FloatTensor<B>,
        [_, _, of_bias]: [bool; 3],
    ) -> [Option<FloatTensor<B>>; 3] {
        let [lhs, rhs] = self.0.gradients::<B>(kept, &gradient);
        [lhs, rhs, of_bias.then(|| B::sum_rows(gradient, bias))]
    }
}
