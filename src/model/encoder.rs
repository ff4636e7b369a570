//! The stack of layers (`DebertaV2Encoder` in the reference).

use std::{ops::Range, sync::Arc};

use burn::{
    Tensor,
    module::Module,
    nn::{Embedding, LayerNorm},
    tensor::Device,
};

use super::{
    attention::{PreparedPositions, operands::PositionIndex, relative_position::RelativePositions},
    context::{EncoderContext, PositionRows, RelativeTable},
    conv::ConvLayer,
    init::Init,
    input::ModelInput,
    layer::{EncoderLayer, EncoderLayerConfig},
    linear::Linear,
    output::LayerRecord,
    token_layout::{TokenLayout, Unpadding},
};
use crate::{config::DebertaConfig, kernels::attention_serves};

/// The layout of the states: unpadded if the input has padding and fused attention serves every layer, else padded.
pub(crate) fn token_layout(layers: &[EncoderLayer], input: &ModelInput) -> TokenLayout {
    let talking_heads = layers.iter().any(|layer| layer.attention().has_talking_heads());
    let device = input.input_ids.device();
    let dtype = layers.first().map(EncoderLayer::dtype);
    let unpads = !talking_heads && !input.output_attentions && dtype.is_some_and(|dtype| attention_serves(&device, dtype));
    match input.attention_mask.as_ref().filter(|_| unpads).and_then(Unpadding::new) {
        Some(unpadding) => TokenLayout::Unpadded(Arc::new(unpadding)),
        None => TokenLayout::Padded(input.attention_mask.clone()),
    }
}

/// The layers, the position table they share, and v2's convolution.
#[derive(Module, Debug)]
pub struct DebertaEncoder {
    layer: Vec<EncoderLayer>,
    rel_embeddings: Option<Embedding>,
    layer_norm: Option<LayerNorm>,
    conv: Option<ConvLayer>,
    #[module(skip)]
    positions: RelativePositions,
}

impl DebertaEncoder {
    pub(crate) fn new(config: &DebertaConfig, init: &Init<'_>) -> Self {
        let layer = EncoderLayerConfig::from(config);
        let positions = RelativePositions::new(config);
        Self {
            layer: (0..config.num_hidden_layers).map(|_| layer.init(init)).collect(),
            rel_embeddings: config
                .relative_attention
                .then(|| init.embedding(2 * positions.attention_span, config.hidden_size)),
            layer_norm: config.norm_relative_embeddings().then(|| init.layer_norm(config.hidden_size)),
            conv: config.conv_kernel_size().map(|kernel_size| ConvLayer::new(config, kernel_size, init)),
            positions,
        }
    }

    /// The layers, first to last.
    pub fn layers(&self) -> &[EncoderLayer] {
        &self.layer
    }

    /// The linear maps of all layers.
    pub(crate) fn linears(&mut self) -> Vec<&mut Linear> {
        self.layer.iter_mut().flat_map(EncoderLayer::linears).collect()
    }

    /// What the layers share for inputs of `length` tokens.
    pub fn context(
        &self,
        length: usize,
        layout: TokenLayout,
        prepared: Option<PreparedPositions>,
        device: &Device,
    ) -> EncoderContext {
        let relative = self.rel_embeddings.as_ref().map(|_| {
            let index = self.positions.index(length, length);
            let rows = match prepared {
                Some(prepared) => PositionRows::Projected(prepared),
                None => PositionRows::Embeddings(self.position_rows(index.rows())),
            };
            RelativeTable { rows, index: PositionIndex::new(index, device) }
        });
        EncoderContext { layout, relative }
    }

    /// Every layer's projections of the position table for inputs of up to `length` tokens, if attention is relative.
    pub(crate) fn prepare_positions(&self, length: usize) -> Option<PreparedPositions> {
        self.rel_embeddings.as_ref()?;
        let rows = self.positions.index(length, length).rows();
        let first_row = rows.start;
        let table = self.position_rows(rows);
        let layers = self.layer.iter().map(|layer| layer.attention().project_positions(table.clone())).collect();
        Some(PreparedPositions { layers, first_row, length })
    }

    /// Rows of the position table, normalised where the configuration says so, [rows, hidden].
    fn position_rows(&self, rows: Range<usize>) -> Tensor<2> {
        let table = self.rel_embeddings.as_ref().expect("only asked for where attention is relative");
        let rows = table.weight.val().slice(rows);
        match &self.layer_norm {
            Some(norm) => norm.forward(rows),
            None => rows,
        }
    }

    /// Runs some of the layers on the embeddings' output; the convolution belongs to the first.
    ///
    /// # Shapes
    /// - embeddings, output: [batch, length, hidden]
    pub fn forward(
        &self,
        embeddings: Tensor<3>,
        layers: Range<usize>,
        context: &EncoderContext,
        record: &mut LayerRecord,
    ) -> Tensor<3> {
        record.keep_states(&embeddings, &context.layout);
        let mut states = embeddings.clone();
        for number in layers {
            let (output, weights) = self.layer[number].forward(states, number, context, record.wants_weights());
            states = match &self.conv {
                Some(conv) if number == 0 => conv.forward(embeddings.clone(), output, &context.layout),
                _ => output,
            };
            record.keep_states(&states, &context.layout);
            record.keep_weights(weights);
        }
        states
    }
}
