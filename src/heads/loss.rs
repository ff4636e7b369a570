//! The losses of the heads, averaged as the reference averages them. Whatever the type of the logits, they are computed in f32
//! at least: a sum of many terms leaves f16's range, and so does their number.

use burn::tensor::{Bool, Int, Tensor, activation};
use serde::{Deserialize, Serialize};

use crate::{Error, Result, kernels, model::precision::in_f32};

/// Mean cross entropy over the rows whose target is not negative (transformers marks the others with -100); zero if there is
/// none.
///
/// # Shapes
/// - logits: [rows, classes]
/// - targets: \[rows\]
/// - output: \[1\]
///
/// # Panics
/// On CPUs, if a target is not below the number of classes.
pub fn cross_entropy(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    let logits = in_f32(logits);
    if kernels::host_serves(&logits.device(), logits.dtype()) {
        return kernels::cross_entropy(logits, targets);
    }
    let counted = targets.clone().greater_equal_elem(0).float().cast(logits.dtype());
    let log_probabilities = activation::log_softmax(logits, 1);
    let picked = log_probabilities.gather(1, targets.clamp_min(0).unsqueeze_dim(1)).squeeze_dim(1);
    -(picked * counted.clone()).sum() / counted.sum().clamp_min(1.0)
}

/// Mean squared error over all elements.
///
/// # Shapes
/// - predictions, targets: the same
/// - output: \[1\]
pub fn mean_squared_error<const D: usize>(predictions: Tensor<D>, targets: Tensor<D>) -> Tensor<1> {
    let predictions = in_f32(predictions);
    let targets = targets.cast(predictions.dtype());
    (predictions - targets).square().mean()
}

/// Binary cross entropy of each logit, not averaged: `max(x, 0) - x y + ln(1 + exp(-|x|))`, which never overflows.
///
/// # Shapes
/// - logits, targets (0 to 1), output: the same
pub fn binary_cross_entropy<const D: usize>(logits: Tensor<D>, targets: Tensor<D>) -> Tensor<D> {
    let logits = in_f32(logits);
    let targets = targets.cast(logits.dtype());
    activation::relu(logits.clone()) - logits.clone() * targets + (-logits.abs()).exp().log1p()
}

/// Binary cross entropy that counts less where the model is right already (Lin and others, "Focal loss for dense object
/// detection", ICCV 2017; `focal_loss_with_logits` in the package gliner).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FocalLoss {
    /// Weight of what is there, from 0 to 1; what is not there weighs the rest. If none, both weigh 1.
    pub alpha: Option<f64>,
    /// The power of the probability of being wrong that each term is multiplied with, at least 0.
    pub gamma: f64,
}

impl Default for FocalLoss {
    /// Plain binary cross entropy, as in the reference.
    fn default() -> Self {
        Self { alpha: None, gamma: 0.0 }
    }
}

impl FocalLoss {
    /// The loss of each logit, not averaged.
    ///
    /// # Shapes
    /// - logits, targets (0 or 1), output: the same
    pub fn of<const D: usize>(&self, logits: Tensor<D>, targets: Tensor<D>) -> Tensor<D> {
        let logits = in_f32(logits);
        let targets = targets.cast(logits.dtype());
        let mut losses = binary_cross_entropy(logits.clone(), targets.clone());
        if self.gamma > 0.0 {
            // The logarithm of the probability of being wrong; a power of the probability itself has no finite gradient at 0.
            let wrong = -binary_cross_entropy(logits, -targets.clone() + 1.0);
            losses = losses * (wrong * self.gamma).exp();
        }
        match self.alpha {
            Some(alpha) => losses * (targets * (2.0 * alpha - 1.0) + (1.0 - alpha)),
            None => losses,
        }
    }

    /// Checks both numbers.
    ///
    /// # Errors
    /// A number out of its range. The error names the command line flag that sets it in the examples.
    pub fn validate(&self) -> Result<()> {
        let number = |flag: &str, value: f64, holds: bool, expected: &str| match holds {
            true => Ok(()),
            false => Err(Error::setting(flag, format!("it is {value}, expected a number {expected}"))),
        };
        let alpha = self.alpha.unwrap_or(0.5);
        number("--focal-alpha", alpha, (0.0..=1.0).contains(&alpha), "from 0 to 1")?;
        number("--focal-gamma", self.gamma, (0.0..=100.0).contains(&self.gamma), "from 0 to 100")
    }
}

/// Mean over lists of the cross entropy between the softmax of their scores and target shares that add up to 1.
///
/// # Shapes
/// - scores, targets (zero where the mask is false): [lists, length]
/// - mask: the same, true within a list
/// - output: \[1\]
pub fn list_cross_entropy(scores: Tensor<2>, targets: Tensor<2>, mask: Tensor<2, Bool>) -> Tensor<1> {
    // Finite, so that a target of zero times the logarithm is zero and not NaN.
    let scores = in_f32(scores).mask_fill(mask.bool_not(), -1e9);
    let targets = targets.cast(scores.dtype());
    -(activation::log_softmax(scores, 1) * targets).sum_dim(1).mean()
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Device, FloatDType, TensorData};

    use super::*;

    #[test]
    fn rows_without_a_target_count_for_nothing() {
        let device = Device::flex().autodiff();
        let logits = || Tensor::<2>::from_floats([[0.0, 1.0], [3.0, -2.0], [5.0, 5.0]], &device).require_grad();
        for (targets, counted) in [([1, -100, 0], true), ([-100, -1, -100], false)] {
            let all = logits();
            let loss = cross_entropy(all.clone(), Tensor::from_ints(targets, &device));
            let gradient = all.grad(&loss.backward()).expect("a gradient").into_data();
            if !counted {
                assert_eq!((loss.into_scalar::<f32>(), gradient), (0.0, TensorData::zeros::<f32, _>([3, 2])));
                continue;
            }
            // ln(1 + 1/e) and ln 2.
            let expected = ((1.0 + (-1f32).exp()).ln() + 2f32.ln()) / 2.0;
            assert!((loss.into_scalar::<f32>() - expected).abs() < 1e-6);
            assert_eq!(gradient.as_slice::<f32>().expect("numbers")[2..4], [0.0, 0.0]);
        }
    }

    #[test]
    #[should_panic(expected = "a target of class 2, where there are 2 classes")]
    fn targets_beyond_the_classes_are_refused() {
        let device = Device::flex();
        cross_entropy(Tensor::zeros([2, 2], &device), Tensor::from_ints([1, 2], &device));
    }

    #[test]
    fn lists_of_any_length_count_alike() {
        let device = Device::flex();
        // The softmax of (0, ln 3) is (1/4, 3/4); of three equal scores, 1/3 each.
        let log = 3f32.ln();
        let scores = Tensor::from_floats([[0.0, log, 50.0], [2.0, 2.0, 2.0]], &device);
        let targets = Tensor::from_floats([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]], &device);
        let mask = Tensor::from_bool(TensorData::from([[true, true, false], [true, true, true]]), &device);
        let loss = list_cross_entropy(scores, targets, mask).into_scalar::<f32>();
        let expected = (0.5 * 4f32.ln() + 0.5 * (4.0 / 3f32).ln() + log) / 2.0;
        assert!((loss - expected).abs() < 1e-6, "{loss}, expected {expected}");
    }

    #[test]
    fn a_focal_loss_is_a_weighted_power_of_the_probability() {
        let device = Device::flex().autodiff();
        let logits = [-120.0, -2.0, 0.0, 3.0, 120.0f32];
        for (target, focal) in [0.0, 1.0].into_iter().flat_map(|target| {
            [(None, 0.0), (Some(0.75), 2.0), (Some(0.25), 0.5)]
                .map(|(alpha, gamma)| (target, FocalLoss { alpha, gamma }))
        }) {
            let tensor = Tensor::<1>::from_floats(logits, &device).require_grad();
            let losses = focal.of(tensor.clone(), tensor.clone().detach().zeros_like() + target);
            let found = losses.clone().into_data();
            for (found, logit) in found.iter::<f32>().zip(logits.map(f64::from)) {
                let right = if target == 1.0 { logit } else { -logit };
                let wrong = 1.0 / (1.0 + right.exp());
                let weight = focal.alpha.map_or(1.0, |alpha| if target == 1.0 { alpha } else { 1.0 - alpha });
                let expected = weight * wrong.powf(focal.gamma) * ((-right).exp().ln_1p()).min(120.0);
                // A few roundings of f32, of the logit and of the power's exponent.
                assert!(
                    (f64::from(found) - expected).abs() <= 1e-5 * expected + 1e-7,
                    "{focal:?}: {found}, {expected}"
                );
            }
            let gradient = tensor.grad(&losses.sum().backward()).expect("a gradient");
            assert!(gradient.into_data().iter::<f32>().all(f32::is_finite), "{focal:?}");
        }
    }

    /// As many rows of logits and targets as make a sum of losses, and a number of elements, beyond f16's largest number.
    const SHAPE: [usize; 2] = [9830, 128];

    /// Numbers from -4 to 4, rounded to the type.
    fn logits(dtype: FloatDType, device: &Device) -> Tensor<2> {
        let values: Vec<f32> = (0..SHAPE[0] * SHAPE[1]).map(|at| (at * 7919 % 1000) as f32 / 125.0 - 4.0).collect();
        Tensor::from_data(TensorData::new(values, SHAPE), (device, DType::from(dtype)))
    }

    #[test]
    fn losses_of_half_precision_are_those_of_f32() {
        let device = Device::flex().autodiff();
        for dtype in [FloatDType::F16, FloatDType::BF16] {
            let half = logits(dtype, &device).require_grad();
            let exact = half.clone().inner().cast(DType::F32);
            let exact = Tensor::from_inner(exact).require_grad();
            let classes = Tensor::<1, Int>::arange(0..SHAPE[0] as i64, &device) % SHAPE[1] as i64;
            let on = exact.clone().detach().greater_elem(1.0).float();
            let losses = |logits: &Tensor<2>| {
                [
                    cross_entropy(logits.clone(), classes.clone()),
                    binary_cross_entropy(logits.clone(), on.clone()).mean(),
                    mean_squared_error(logits.clone(), on.clone()),
                ]
            };
            for (found, expected) in losses(&half).into_iter().zip(losses(&exact)) {
                assert_eq!(found.clone().into_scalar::<f32>(), expected.clone().into_scalar::<f32>(), "{dtype:?}");
                let gradient = half.grad(&found.backward()).expect("a gradient");
                let expected = exact.grad(&expected.backward()).expect("a gradient");
                let difference = (gradient.cast(DType::F32) - expected.clone()).abs().max().into_scalar::<f32>();
                // Half a unit in the last of bf16's 8 bits, at most 2^-8 of a number, or half of f16's smallest number.
                let bound = expected.abs().max().into_scalar::<f32>() * 2f32.powi(-8) + 2f32.powi(-25);
                assert!(difference <= bound, "{dtype:?}: {difference:e}");
            }
        }
    }
}
