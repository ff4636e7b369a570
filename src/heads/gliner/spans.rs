//! Scores of spans: the dot product of a span's vector and a label's.
//!
//! A span's vector is a network of the vectors s and e of its first and last word: `W2 relu(W1 [s; e] + b1) + b2`. A label p
//! scores `p W2 relu(..) + p b2`. Since `W1 [s; e] = Ws s + We e`, both halves are computed once a word, and `p W2` once a
//! label; only the sum, the ReLU and one dot product are left for each span. The numbers are those of the reference, up to the
//! order of sums, with about a sixth of its operations.

use burn::{Tensor, module::Module, tensor::activation::relu};

use super::{GlinerVectors, Mlp, fresh, part};
use crate::{
    kernels::matmul,
    model::{init::Init, linear::Linear},
};

/// The networks of words and labels.
#[derive(Module, Debug)]
pub(super) struct SpanScorer {
    start: Mlp,
    end: Mlp,
    out: SpanOutput,
    labels: Mlp,
    max_width: usize,
}

/// From both ends to a span's vector.
#[allow(clippy::large_enum_variant, reason = "there is one in a model")]
#[derive(Module, Debug)]
enum SpanOutput {
    Mlp(Mlp),
    Linear(Linear),
}

impl SpanScorer {
    /// `markerV0` in the reference.
    pub fn new(init: &Init, size: usize, max_width: usize, dropout: f64) -> Self {
        let word = || Mlp::new(init, [size, 4 * size, size], dropout);
        let out = SpanOutput::Mlp(Mlp::new(init, [2 * size, 4 * size, size], dropout));
        Self { start: word(), end: word(), out, labels: word(), max_width }
    }

    /// `marker` in the reference.
    pub fn linear(init: &Init, size: usize, max_width: usize, dropout: f64) -> Self {
        let word = || Mlp::new(init, [size, 2 * size, size], dropout);
        let labels = Mlp::new(init, [size, 4 * size, size], dropout);
        Self { start: word(), end: word(), out: SpanOutput::Linear(fresh(init, 2 * size, size)), labels, max_width }
    }

    /// # Shapes
    /// - output: [batch, spans, labels], in the order of [`spans`](super::spans)
    pub fn forward(&self, GlinerVectors { labels, words }: GlinerVectors) -> Tensor<3> {
        let [_, count, size] = words.dims();
        let (start, end) = (relu(self.start.forward(words.clone())), relu(self.end.forward(words)));
        let labels = self.labels.forward(labels);
        let (first, last) = match &self.out {
            SpanOutput::Mlp(Mlp { inner: first, outer: last, .. }) => (first, Some(last)),
            SpanOutput::Linear(only) => (only, None),
        };
        // What the two ends contribute to each hidden unit, [batch, words, units].
        let start = linear(start, part(first, 0, size), first);
        let end = matmul(end, part(first, 1, size).unsqueeze());
        // The weight of each hidden unit for a label, [batch, units, labels], and its constant, [batch, 1, labels].
        let weights = |last: &Linear| matmul(labels.clone(), last.weight.val().transpose().unsqueeze()).swap_dims(1, 2);
        let (weights, bias) = match last {
            Some(last) => (weights(last), bias(&labels, last)),
            None => (labels.clone().swap_dims(1, 2), None),
        };
        let of_width = |more: usize| {
            let starts = count - more;
            let units = start.clone().narrow(1, 0, starts) + end.clone().narrow(1, more, starts);
            let units = match &self.out {
                SpanOutput::Mlp(out) => out.hidden(units),
                SpanOutput::Linear(_) => units,
            };
            matmul(units, weights.clone())
        };
        let logits = Tensor::cat((0..self.max_width.min(count)).map(of_width).collect(), 1);
        match bias {
            Some(bias) => logits + bias,
            None => logits,
        }
    }
}

/// x W + the bias of a map.
fn linear(x: Tensor<3>, weight: Tensor<2>, map: &Linear) -> Tensor<3> {
    let product = matmul(x, weight.unsqueeze());
    match &map.bias {
        Some(bias) => product + bias.val().unsqueeze(),
        None => product,
    }
}

/// The dot product of each label and the bias of a map, [batch, 1, labels].
fn bias(labels: &Tensor<3>, map: &Linear) -> Option<Tensor<3>> {
    let bias = map.bias.as_ref()?.val();
    Some(matmul(labels.clone(), bias.unsqueeze_dim::<2>(1).unsqueeze()).swap_dims(1, 2))
}
