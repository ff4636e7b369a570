//! From the bytes of a file to the bytes of a parameter and back: element type, layout of matrices, a check for NaN.

use burn::{
    store::burn_pack::{self, Tensor as Stored},
    tensor::{Bytes, DType},
};
use bytemuck::Pod;
use half::{bf16, f16, slice::HalfFloatSliceExt, vec::HalfFloatVecExt};

/// The conversion of a tensor's values between file and module.
#[derive(Clone, Copy)]
pub(super) struct Conversion {
    /// The present element type; must be [supported](is_supported).
    pub from: DType,
    /// The wanted element type; must be [supported](is_supported).
    pub to: DType,
    /// Present rows and columns of a matrix that is to be transposed. PyTorch stores the weight of a linear map as
    /// [output, input], burn as [input, output].
    pub transpose: Option<[usize; 2]>,
}

/// The values of a tensor of a [supported](is_supported) type, in f32.
pub(super) fn values(tensor: &Stored) -> Result<Vec<f32>, burn_pack::Error> {
    let conversion = Conversion { from: tensor.dtype, to: DType::F32, transpose: None };
    Ok(elements(&conversion.apply(tensor.to_bytes()?)))
}

/// Whether weights of this element type can be read and written.
pub(super) fn is_supported(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F16 | DType::BF16)
}

/// Whether all values in a buffer of the [supported](is_supported) type `dtype` are finite, that is, whether no
/// exponent has only ones.
pub(super) fn is_finite(bytes: &[u8], dtype: DType) -> bool {
    match dtype {
        DType::F32 => all::<u32>(bytes, |bits| bits & 0x7f80_0000 != 0x7f80_0000),
        DType::F16 => all::<u16>(bytes, |bits| bits & 0x7c00 != 0x7c00),
        _ => all::<u16>(bytes, |bits| bits & 0x7f80 != 0x7f80),
    }
}

/// Values that are too large for an element type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct OutOfRange {
    /// How many there are.
    pub count: usize,
    /// The value of the largest magnitude.
    pub largest: f32,
}

/// The smallest magnitude that rounds from f32 to infinity in `dtype`, and the largest finite value of `dtype`. The
/// first is larger than the second by half a unit in the last place.
fn range(dtype: DType) -> Option<(f32, f32)> {
    match dtype {
        DType::F16 => Some((65520.0, f16::MAX.to_f32())),
        DType::BF16 => Some((f32::from_bits(0x7f7f_8000), bf16::MAX.to_f32())),
        _ => None,
    }
}

/// Checks every element even after a failure, so that the loop can be vectorised: failures are rare.
fn all<T: Pod>(bytes: &[u8], test: impl Fn(T) -> bool) -> bool {
    bytes.chunks_exact(size_of::<T>()).fold(true, |so_far, bits| so_far & test(bytemuck::pod_read_unaligned(bits)))
}

impl Conversion {
    /// Converts `bytes`, whose length must be a multiple of the element size. If nothing changes, nothing is copied.
    pub fn apply(self, bytes: Bytes) -> Bytes {
        let bytes = self.cast(bytes);
        match self.transpose {
            // The transpose of a single row or column has the same bytes.
            None | Some([1, _] | [_, 1]) => bytes,
            Some(shape) if self.to == DType::F32 => transposed::<u32>(&bytes, shape),
            Some(shape) => transposed::<u16>(&bytes, shape),
        }
    }

    /// The same, but values beyond the range of the new type become its largest value instead of infinity, and are
    /// counted. NaN and infinity stay as they are.
    pub fn apply_clamped(self, bytes: Bytes) -> (Bytes, Option<OutOfRange>) {
        let (Some((limit, largest)), true) = (range(self.to), self.from != self.to) else {
            return (self.apply(bytes), None);
        };
        let mut values: Vec<f32> = elements(&Self { to: DType::F32, transpose: None, ..self }.cast(bytes));
        let is_beyond = |value: &f32| value.abs() >= limit && value.is_finite();
        let found = values.iter().filter(|value| is_beyond(value)).fold(None, |found: Option<OutOfRange>, value| {
            let OutOfRange { count, largest } = found.unwrap_or(OutOfRange { count: 0, largest: 0.0 });
            let largest = if value.abs() > largest.abs() { *value } else { largest };
            Some(OutOfRange { count: count + 1, largest })
        });
        if found.is_some() {
            for value in values.iter_mut().filter(|value| is_beyond(value)) {
                *value = largest.copysign(*value);
            }
        }
        (Self { from: DType::F32, ..self }.apply(Bytes::from_elems(values)), found)
    }

    /// Converts through f32, which represents every f16 and bf16 exactly. The result is aligned for its elements.
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

/// The elements of a buffer, which need not be aligned.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_of_any_size_are_transposed() {
        // Smaller than, equal to and larger than the block size, and single rows or columns.
        for [rows, columns] in [[1, 5], [5, 1], [3, 2], [32, 32], [33, 64], [70, 45], [2, 100]] {
            let values: Vec<f32> = (0..rows * columns).map(|i| i as f32).collect();
            let conversion = |from, to| Conversion { from, to, transpose: Some([rows, columns]) };
            let expected: Vec<f32> =
                (0..columns).flat_map(|column| (0..rows).map(move |row| (row * columns + column) as f32)).collect();
            let bytes = conversion(DType::F32, DType::F32).apply(Bytes::from_elems(values.clone()));
            assert_eq!(elements::<f32>(&bytes), expected, "{rows} x {columns}");
            let bytes = conversion(DType::F32, DType::F16).apply(Bytes::from_elems(values));
            let expected = Vec::<f16>::from_f32_slice(&expected);
            assert_eq!(elements::<f16>(&bytes), expected, "{rows} x {columns}");
        }
    }

    #[test]
    fn values_beyond_the_range_are_clamped_and_counted() {
        let cast = |values: &[f32], to| {
            let conversion = Conversion { from: DType::F32, to, transpose: None };
            let (bytes, found) = conversion.apply_clamped(Bytes::from_elems(values.to_vec()));
            let back = Conversion { from: to, to: DType::F32, transpose: None };
            (elements::<f32>(&back.apply(bytes)), found)
        };
        // The last value that rounds down to the largest, and the first that does not.
        let below = f32::from_bits(65520f32.to_bits() - 1);
        assert_eq!(cast(&[below, -65504.0, 0.5], DType::F16), (vec![65504.0, -65504.0, 0.5], None));
        let (values, found) = cast(&[1.0, 65520.0, -1e6, 7e5], DType::F16);
        assert_eq!(values, [1.0, 65504.0, -65504.0, 65504.0]);
        assert_eq!(found, Some(OutOfRange { count: 3, largest: -1e6 }));
        let (values, found) = cast(&[f32::INFINITY, f32::NEG_INFINITY, f32::NAN], DType::F16);
        assert!(values[0] == f32::INFINITY && values[1] == f32::NEG_INFINITY && values[2].is_nan());
        assert_eq!(found, None);

        let largest = bf16::MAX.to_f32();
        assert_eq!(cast(&[1e38, f32::from_bits(0x7f7f_7fff)], DType::BF16).1, None);
        assert_eq!(
            cast(&[f32::from_bits(0x7f7f_8000), f32::MIN], DType::BF16),
            (vec![largest, -largest], Some(OutOfRange { count: 2, largest: f32::MIN }))
        );
        assert_eq!(cast(&[f32::MAX], DType::F32), (vec![f32::MAX], None));
    }

    #[test]
    fn nan_and_infinity_are_found_in_every_type() {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(!is_finite(&[0.0, value].map(f32::to_le_bytes).concat(), DType::F32));
            assert!(!is_finite(&[0.0, value].map(|value| f16::from_f32(value).to_le_bytes()).concat(), DType::F16));
            assert!(!is_finite(&[0.0, value].map(|value| bf16::from_f32(value).to_le_bytes()).concat(), DType::BF16));
        }
        assert!(is_finite(&[f32::MAX, f32::MIN, 0.0, f32::MIN_POSITIVE].map(f32::to_le_bytes).concat(), DType::F32));
        assert!(is_finite(&[f16::MAX, f16::MIN].map(f16::to_le_bytes).concat(), DType::F16));
        assert!(is_finite(&[bf16::MAX, bf16::MIN].map(bf16::to_le_bytes).concat(), DType::BF16));
    }
}
