//! The losses of the heads, averaged as the reference averages them.

use burn::tensor::{Int, Tensor, activation};

/// Mean cross entropy over the rows whose target is not negative (transformers marks the others with -100); zero if there is
/// none.
///
/// # Shapes
/// - logits: [rows, classes]
/// - targets: \[rows\]
/// - output: \[1\]
pub fn cross_entropy(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
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
    (predictions - targets).square().mean()
}

/// Binary cross entropy of each logit, not averaged: `max(x, 0) - x y + ln(1 + exp(-|x|))`, which never overflows.
///
/// # Shapes
/// - logits, targets (0 to 1), output: the same
pub fn binary_cross_entropy<const D: usize>(logits: Tensor<D>, targets: Tensor<D>) -> Tensor<D> {
    activation::relu(logits.clone()) - logits.clone() * targets + (-logits.abs()).exp().log1p()
}
