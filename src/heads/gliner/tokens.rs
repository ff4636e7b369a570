//! Scores of words: whether each starts, ends, or is inside an entity of each label (`Scorer` in the reference).

use burn::{Tensor, module::Module};

use super::{GlinerVectors, Mlp, fresh, part};
use crate::{
    kernels::matmul,
    model::{init::Init, linear::Linear},
};

/// A network over a word, a label, and their product.
#[derive(Module, Debug)]
pub(super) struct TokenScorer {
    words: Linear,
    labels: Linear,
    out: Mlp,
}

impl TokenScorer {
    pub fn new(init: &Init, size: usize, dropout: f64) -> Self {
        let out = Mlp::new(init, [3 * size, 4 * size, 3], dropout);
        Self { words: fresh(init, size, 2 * size), labels: fresh(init, size, 2 * size), out }
    }

    /// The hidden units of a pair are a sum: a word's part and a label's part are computed once, and only their product's for
    /// each pair.
    ///
    /// # Shapes
    /// - output: [batch, words, labels * 3]
    pub fn forward(&self, GlinerVectors { labels, words }: GlinerVectors) -> Tensor<3> {
        let [_, count, size] = labels.dims();
        let (words, labels) = (self.words.forward(words), self.labels.forward(labels));
        let half = |x: &Tensor<3>, index: usize| x.clone().narrow(2, index * size, size);
        let first = &self.out.inner;
        let of_words = matmul(half(&words, 0), part(first, 0, size).unsqueeze());
        let of_labels = matmul(half(&labels, 0), part(first, 1, size).unsqueeze());
        let of_labels = match &first.bias {
            Some(bias) => of_labels + bias.val().unsqueeze(),
            None => of_labels,
        };
        let of_products = part(first, 2, size).unsqueeze::<3>();
        let (words, labels) = (half(&words, 1), half(&labels, 1));
        // One label after the other, because all of them together would take much memory.
        let of_label = |label: usize| {
            let product = words.clone() * labels.clone().narrow(1, label, 1);
            let units = of_words.clone() + of_labels.clone().narrow(1, label, 1) + matmul(product, of_products.clone());
            self.out.outer.forward(self.out.hidden(units))
        };
        Tensor::cat((0..count).map(of_label).collect(), 2)
    }
}
