//! The random numbers of a training step: dropout masks, the noise of SiFT, the words of a generator.
//!
//! A number is a function of the pass's key, of how many draws the pass has made before, and of its own row and column (a
//! counter-based generator, as in Salmon and others, "Parallel random numbers: as easy as 1, 2, 3", SC 2011). No device keeps
//! a random state: what a pass draws depends neither on the device nor on other passes that run at the same time.

use std::{cell::Cell, f64::consts::PI};

use burn::tensor::{Bool, DType, Device, Int, Tensor, TensorData};
use rayon::prelude::*;

use crate::{
    device::is_host,
    kernels::cpu::dropout::{DropoutMask, MULTIPLIERS, RandomRow, SHIFTS, SPREAD, mix},
};

/// Where this thread's draws are.
#[derive(Clone, Copy)]
struct Stream {
    key: u64,
    draws: u32,
}

thread_local! {
    static STREAM: Cell<Stream> = const { Cell::new(Stream { key: 0, draws: 0 }) };
}

/// Runs `pass`, whose draws on this thread follow from the key: the same key gives the same numbers. Without it, the draws of
/// a thread follow one after the other from its start.
pub fn keyed<R>(key: u64, pass: impl FnOnce() -> R) -> R {
    /// Puts the stream back, also where the pass panics.
    struct Restore(Stream);
    impl Drop for Restore {
        fn drop(&mut self) {
            STREAM.set(self.0);
        }
    }
    let _restore = Restore(STREAM.replace(Stream { key, draws: 0 }));
    pass()
}

/// The seed of this thread's next draw.
pub(crate) fn next_seed() -> u32 {
    let Stream { key, draws } = STREAM.get();
    STREAM.set(Stream { key, draws: draws.wrapping_add(1) });
    mix(mix(key as u32 ^ draws.wrapping_mul(SPREAD)) ^ (key >> 32) as u32)
}

/// Numbers between 0 and 1, without both, in steps of 2^-23.
///
/// # Shapes
/// - output: [rows, width]
pub(crate) fn uniforms([rows, width]: [usize; 2], device: &Device) -> Tensor<2> {
    const STEP: f64 = 1.0 / (1 << 23) as f64;
    let seed = next_seed();
    if is_host(device) {
        let values = fill(seed, [rows, width], |bits| ((bits >> 9) as f32 + 0.5) * STEP as f32);
        return Tensor::from_data(TensorData::new(values, [rows, width]), device);
    }
    (shift(bits(seed, [rows, width], device), 9).float().cast(DType::F32) + 0.5) * STEP
}

/// Numbers of the standard normal distribution (Box and Muller's transform).
///
/// # Shapes
/// - output: the shape
pub(crate) fn normals(shape: [usize; 3], device: &Device) -> Tensor<3> {
    let [batch, length, width] = shape;
    let [radius, angle] = [(); 2].map(|()| uniforms([batch * length, width], device));
    ((radius.log() * -2.0).sqrt() * (angle * (2.0 * PI)).cos()).reshape(shape)
}

/// The elements that a mask drops.
///
/// # Shapes
/// - output: [rows, width]
pub(crate) fn dropped(mask: DropoutMask, [rows, width]: [usize; 2], device: &Device) -> Tensor<2, Bool> {
    let threshold = mask.threshold();
    if is_host(device) {
        let values = fill(mask.seed, [rows, width], |bits| bits < threshold);
        return Tensor::from_data(TensorData::new(values, [rows, width]), device);
    }
    // Signed numbers compare as unsigned ones do once the highest bit of both is flipped.
    let flip = |value: u32| (value ^ 1 << 31) as i32;
    bits(mask.seed, [rows, width], device).bitwise_xor_scalar(flip(0)).lower_elem(flip(threshold))
}

/// What `value` makes of each element's random bits, row by row.
fn fill<T: Clone + Default + Send>(seed: u32, [rows, width]: [usize; 2], value: impl Fn(u32) -> T + Sync) -> Vec<T> {
    let mut values = vec![T::default(); rows * width];
    values.par_chunks_mut(width.max(1)).enumerate().for_each(|(row, values)| {
        let row = RandomRow::new(seed, 0, row);
        for (column, slot) in (0..).zip(values) {
            *slot = value(row.bits(column));
        }
    });
    values
}

/// The same bits as tensor operations, for devices whose memory the host does not see, [rows, width] of i32.
fn bits(seed: u32, [rows, width]: [usize; 2], device: &Device) -> Tensor<2, Int> {
    let spread = |values: Vec<i32>, shape: [usize; 2]| {
        let values = TensorData::new(values, shape);
        Tensor::<2, Int>::from_data(values, (device, DType::I32)).expand([rows, width])
    };
    let seeds = (0..rows).map(|row| RandomRow::new(seed, 0, row).seed() as i32).collect();
    let columns = (0..width as u32).map(|column| column.wrapping_mul(SPREAD) as i32).collect();
    let words = spread(seeds, [rows, 1]).bitwise_xor(spread(columns, [1, width]));
    let steps = SHIFTS.into_iter().zip(MULTIPLIERS.map(Some).into_iter().chain([None]));
    steps.fold(words, |words, (by, multiplier)| {
        let words = words.clone().bitwise_xor(shift(words, by));
        match multiplier {
            Some(multiplier) => words * multiplier as i32,
            None => words,
        }
    })
}

/// Unsigned shift to the right of signed numbers.
fn shift(words: Tensor<2, Int>, by: u32) -> Tensor<2, Int> {
    words.bitwise_right_shift_scalar(by as i32).bitwise_and_scalar((u32::MAX >> by) as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().try_to_vec().unwrap()
    }

    #[test]
    fn a_key_is_a_stream() {
        let draw = || [next_seed(), next_seed()];
        let [first, second] = keyed(7, draw);
        assert_eq!(keyed(7, draw), [first, second]);
        assert_ne!(first, second);
        // Both halves of the key count.
        assert!(keyed(8, next_seed) != first && keyed(7 | 1 << 32, next_seed) != first);
        // A pass in a pass leaves the outer one as it was, and so does a thread beside it.
        let outer = keyed(7, || {
            let first = next_seed();
            keyed(9, draw);
            std::thread::spawn(move || keyed(7, draw)).join().unwrap();
            [first, next_seed()]
        });
        assert_eq!(outer, [first, second]);
    }

    #[test]
    fn tensor_operations_give_the_bits_of_the_host() {
        let (shape, device) = ([5, 300], Device::flex());
        for seed in [0, 1, 0x8000_0000, u32::MAX] {
            let found = bits(seed, shape, &device).into_data().try_to_vec::<i32>().unwrap();
            assert_eq!(found, fill(seed, shape, |bits| bits as i32));
        }
        let words = Tensor::<2, Int>::from_data([[-1i32, 5, i32::MIN]], (&device, DType::I32));
        let shifted = shift(words, 9).into_data().try_to_vec::<i32>().unwrap();
        assert_eq!(shifted, [-1i32, 5, i32::MIN].map(|word| (word as u32 >> 9) as i32));
    }

    #[test]
    fn numbers_have_their_distributions() {
        let (shape, device) = ([400, 500], Device::flex());
        let count = 200_000.0;
        let moments = |values: &[f32]| {
            let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / count;
            (mean, values.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>() / count)
        };
        // Five standard deviations of each estimate.
        keyed(3, || {
            let values = host(uniforms(shape, &device));
            assert!(values.iter().all(|value| *value > 0.0 && *value < 1.0));
            let (mean, variance) = moments(&values);
            assert!((mean - 0.5).abs() < 5.0 * (1.0 / 12.0 / count).sqrt(), "{mean}");
            assert!((variance - 1.0 / 12.0).abs() < 5.0 * (1.0 / 180.0 / count).sqrt(), "{variance}");
            let (mean, variance) = moments(&host(normals([4, 100, 500], &device)));
            assert!(mean.abs() < 5.0 / count.sqrt(), "{mean}");
            assert!((variance - 1.0).abs() < 5.0 * (2.0 / count).sqrt(), "{variance}");
            for probability in [0.1, 0.5, 0.9] {
                let mask = DropoutMask::new(probability, next_seed());
                let dropped = dropped(mask, shape, &device).into_data().try_to_vec::<bool>().unwrap();
                let share = dropped.iter().filter(|dropped| **dropped).count() as f64 / count;
                let bound = 5.0 * (probability * (1.0 - probability) / count).sqrt();
                assert!((share - probability).abs() < bound, "{share} instead of {probability}");
            }
        });
    }
}
