//! From the bytes of a file to the bytes of a parameter and back: element type, layout of matrices, a look for NaN.

use burn::tensor::{Bytes, DType};
use bytemuck::Pod;
use half::{bf16, f16, slice::HalfFloatSliceExt, vec::HalfFloatVecExt};

/// What has to be done to the values of a tensor between file and module.
#[derive(Clone, Copy)]
pub(super) struct Conversion {
    /// The element type at hand; must be [supported](is_supported).
    pub from: DType,
    /// The element type wanted; must be [supported](is_supported).
    pub to: DType,
    /// Rows and columns of the matrix at hand if it is to be transposed. PyTorch keeps the weight of a linear map as
    /// [output, input], burn as [input, output].
    pub transpose: Option<[usize; 2]>,
}

/// Whether weights of this element type can be read and written.
pub(super) fn is_supported(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F16 | DType::BF16)
}

/// Whether all values in a buffer of the [supported](is_supported) type `dtype` are neither NaN nor infinite, that is,
/// whether no exponent is all ones.
pub(super) fn is_finite(bytes: &[u8], dtype: DType) -> bool {
    match dtype {
        DType::F32 => any::<u32>(bytes, |bits| bits & 0x7f80_0000 == 0x7f80_0000),
        DType::F16 => any::<u16>(bytes, |bits| bits & 0x7c00 == 0x7c00),
        _ => any::<u16>(bytes, |bits| bits & 0x7f80 == 0x7f80),
    }
    .eq(&false)
}

/// Looks at every element, so that the loop vectorises: a tensor with a hit is the exception.
fn any<T: Pod>(bytes: &[u8], test: impl Fn(T) -> bool) -> bool {
    bytes.chunks_exact(size_of::<T>()).fold(false, |hit, bits| hit | test(bytemuck::pod_read_unaligned(bits)))
}

impl Conversion {
    /// Converts `bytes`, whose length must be a multiple of the element size. Nothing is copied where nothing changes.
    pub fn apply(self, bytes: Bytes) -> Bytes {
        let bytes = self.cast(bytes);
        match self.transpose {
            // The transpose of a single row or column has the same bytes.
            None | Some([1, _] | [_, 1]) => bytes,
            Some(shape) if self.to == DType::F32 => transposed::<u32>(&bytes, shape),
            Some(shape) => transposed::<u16>(&bytes, shape),
        }
    }

    /// Goes by way of f32, which holds every f16 and bf16 exactly. The result is aligned for its elements.
    fn cast(self, bytes: Bytes) -> Bytes {
        if self.from == self.to && bytes.as_ptr().align_offset(self.to.size()) == 0 {
            return bytes;
        }
        let values: Vec<f32> = match self.from {
            DType::F16 => elements::<f16>(&bytes).to_f32_vec(),
            DType::BF16 => elements::<bf16>(&bytes).to_f32_vec(),
            _ => elements(&bytes),
        };
        match self.to {
            DType::F16 => Bytes::from_elems(Vec::<f16>::from_f32_slice(&values)),
            DType::BF16 => Bytes::from_elems(Vec::<bf16>::from_f32_slice(&values)),
            _ => Bytes::from_elems(values),
        }
    }
}

/// The elements of a buffer that need not be aligned for them.
fn elements<T: Pod>(bytes: &[u8]) -> Vec<T> {
    bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect()
}

/// Transposes an aligned row-major matrix, block by block.
fn transposed<T: Pod + Send + Sync>(bytes: &[u8], [rows, columns]: [usize; 2]) -> Bytes {
    // A block of the source and one of the target fit into the first-level cache together.
    const BLOCK: usize = 32;
    let source: &[T] = bytemuck::cast_slice(bytes);
    let mut target = vec![T::zeroed(); source.len()];
    for (band, lines) in target.chunks_mut(BLOCK * rows).enumerate() {
        for start in (0..rows).step_by(BLOCK) {
            let block = start..rows.min(start + BLOCK);
            for (column, line) in (band * BLOCK..).zip(lines.chunks_mut(rows)) {
                for row in block.clone() {
                    line[row] = source[row * columns + column];
                }
            }
        }
    }
    Bytes::from_elems(target)
}
