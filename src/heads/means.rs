//! Vectors that are means of several tokens' states.

use std::ops::Range;

use burn::{
    Tensor,
    tensor::{Device, TensorData},
};

/// The part of each token in each mean: times the states, [batch, length, hidden], it gives [batch, means, hidden]. An empty
/// range gives zeros.
///
/// # Shapes
/// - output: [batch, means, length]; zeros where a sequence has fewer ranges than another one
pub(super) fn means(sequences: &[Vec<Range<usize>>], length: usize, device: &Device) -> Tensor<3> {
    let most = sequences.iter().map(Vec::len).max().unwrap_or(0);
    let mut parts = vec![0.0f32; sequences.len() * most * length];
    for (ranges, parts) in sequences.iter().zip(parts.chunks_mut(most * length)) {
        for (tokens, parts) in ranges.iter().zip(parts.chunks_mut(length)) {
            parts[tokens.clone()].fill(1.0 / tokens.len() as f32);
        }
    }
    Tensor::from_data(TensorData::new(parts, [sequences.len(), most, length]), device)
}
