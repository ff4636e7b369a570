//! From the tensors of a device to logits, scores and decisions on the host.

use burn::Tensor;

use crate::{Result, device};

/// The values of a tensor, row after row, as f32.
///
/// # Errors
/// The values cannot be read from the device.
pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    let device = tensor.device();
    tensor.try_into_vec_as::<f32>().map_err(|error| device::unreadable(&device, error))
}

/// The same, as one list for each row of the first dimension.
pub(crate) fn rows<const D: usize>(tensor: Tensor<D>) -> Result<Vec<Vec<f32>>> {
    let [count, size] = [tensor.dims()[0], tensor.dims()[1..].iter().product()];
    let values = values(tensor)?;
    Ok((0..count).map(|row| values[row * size..(row + 1) * size].to_vec()).collect())
}

/// The index of the largest value (the first of several); 0 if there are no values.
pub(crate) fn argmax(values: &[f32]) -> usize {
    (0..values.len()).rev().max_by(|&a, &b| values[a].total_cmp(&values[b])).unwrap_or(0)
}

/// exp(x) over the sum of all, computed in f64 so that probabilities over a large vocabulary add up to 1.
pub(crate) fn softmax(logits: &[f32]) -> Vec<f32> {
    let norm = log_sum_exp(logits.iter().copied());
    logits.iter().map(|&logit| (f64::from(logit) - norm).exp() as f32).collect()
}

/// ln of the sum of exp(x); -infinity if there are no values.
pub(crate) fn log_sum_exp(logits: impl Iterator<Item = f32> + Clone) -> f64 {
    let largest = logits.clone().fold(f32::NEG_INFINITY, f32::max);
    if largest == f32::NEG_INFINITY {
        return f64::NEG_INFINITY;
    }
    let largest = f64::from(largest);
    largest + logits.map(|logit| (f64::from(logit) - largest).exp()).sum::<f64>().ln()
}

/// 1 / (1 + exp(-x)).
pub(crate) fn sigmoid(logit: f32) -> f32 {
    (1.0 / (1.0 + (-f64::from(logit)).exp())) as f32
}

/// Sorts by score, highest first; equal ones keep their order.
pub(crate) fn sort_by_score<T>(items: &mut [T], score: impl Fn(&T) -> f32) {
    items.sort_by(|a, b| score(b).total_cmp(&score(a)));
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn softmax_is_a_distribution_even_for_large_logits() {
        let scores = softmax(&[1000.0, 999.0, -1000.0]);
        // 1 / (1 + 1/e), to f32's rounding.
        assert!((scores[0] - 0.731_058_6).abs() < 1e-6 && scores[2] == 0.0, "{scores:?}");
        assert!((scores.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }

    #[test]
    fn sigmoid_is_softmax_against_zero() {
        for logit in [-200.0, -1.5, 0.0, 3.0] {
            assert!((sigmoid(logit) - softmax(&[logit, 0.0])[0]).abs() < 1e-7, "{logit}");
        }
    }

    #[test]
    fn log_sum_exp_of_nothing_is_no_probability() {
        assert_eq!(log_sum_exp([].into_iter()), f64::NEG_INFINITY);
        assert!((log_sum_exp([0.0, 0.0].into_iter()) - 2f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn argmax_is_the_first_of_the_largest() {
        assert_eq!((argmax(&[0.1, 0.5, 0.5]), argmax(&[-1.0]), argmax(&[])), (1, 0, 0));
    }

    #[test]
    fn rows_are_cut_along_the_first_dimension() {
        let tensor = Tensor::<3>::from_data([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]], &Device::flex());
        assert_eq!(rows(tensor).unwrap(), [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]);
    }

    #[test]
    fn sorting_puts_the_highest_first_and_survives_nan() {
        let mut items = [1.0, f32::NAN, 3.0];
        sort_by_score(&mut items, |score| *score);
        assert_eq!(items[1..], [3.0, 1.0]);
    }
}
