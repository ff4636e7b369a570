//! A bidirectional LSTM over the words of each text (`torch.nn.LSTM`).

use burn::{
    Tensor,
    module::Module,
    tensor::activation::{sigmoid, tanh},
};

use super::GlinerLayout;
use crate::model::{init::Init, linear::Linear};

/// Layers of two directions, each with half of the width.
#[derive(Module, Debug)]
pub(super) struct BiLstm {
    layers: Vec<BiLstmLayer>,
}

#[derive(Module, Debug)]
struct BiLstmLayer {
    forward: Direction,
    backward: Direction,
}

/// One direction. Its gates are input, forget, candidate and output, side by side.
#[derive(Module, Debug)]
struct Direction {
    input: Linear,
    recurrent: Linear,
}

impl BiLstm {
    pub fn new(init: &Init, size: usize, layers: usize) -> Self {
        // As torch draws it, from the width of one direction.
        let fresh = |inputs: usize| init.uniform_linear(inputs, 2 * size, size / 2);
        let direction = || Direction { input: fresh(size), recurrent: fresh(size / 2) };
        Self { layers: (0..layers).map(|_| BiLstmLayer { forward: direction(), backward: direction() }).collect() }
    }

    /// # Shapes
    /// - words, output: [batch, words, hidden]; the output is any number at padding
    pub fn forward(&self, words: Tensor<3>, layout: &GlinerLayout) -> Tensor<3> {
        self.layers.iter().fold(words, |words, BiLstmLayer { forward, backward }| {
            // Padding is behind the words in both directions, so that no word sees it.
            let backwards = layout.reverse(backward.run(layout.reverse(words.clone())));
            Tensor::cat(vec![forward.run(words), backwards], 2)
        })
    }
}

impl Direction {
    /// Reads the words from the first to the last.
    ///
    /// # Shapes
    /// - words: [batch, words, inputs]
    /// - output: [batch, words, size]
    fn run(&self, words: Tensor<3>) -> Tensor<3> {
        let [batch, count, _] = words.dims();
        let inputs = self.input.forward(words);
        let size = inputs.dims()[2] / 4;
        let mut hidden = Tensor::<2>::zeros([batch, size], (&inputs.device(), inputs.dtype()));
        let mut cell = hidden.clone();
        let mut outputs = Vec::with_capacity(count);
        for word in 0..count {
            let gates = inputs.clone().narrow(1, word, 1).squeeze_dim::<2>(1) + self.recurrent.forward(hidden);
            let gate = |index: usize| gates.clone().narrow(1, index * size, size);
            cell = sigmoid(gate(1)) * cell + sigmoid(gate(0)) * tanh(gate(2));
            hidden = sigmoid(gate(3)) * tanh(cell.clone());
            outputs.push(hidden.clone());
        }
        Tensor::stack(outputs, 1)
    }
}
