//! The stack of layers (`DebertaV2Encoder`, `RobertaEncoder` in the reference).

use std::{ops::Range, sync::Arc};

use burn::{
    Tensor,
    module::Module,
    nn::{Embedding, LayerNorm},
    tensor::{Device, FloatDType},
};

use super::{
    attention::{PreparedPositions, operands::PositionIndex, relative_position::RelativePositions},
    context::{EncoderContext, PositionRows, RelativeTable},
    conv::{ConvConfig, ConvLayer},
    init::Init,
    input::ModelInput,
    layer::{EncoderLayer, EncoderLayerConfig},
    linear::{Linear, LinearRole},
    output::LayerRecord,
    precision::round,
    switch::RoutingRecord,
    token_layout::{TokenLayout, Unpadding},
};
use crate::{device::is_host, kernels::attention_serves};

/// The layout of the states: unpadded if the input has padding and fused attention serves every layer, else padded.
pub(crate) fn token_layout(layers: &[EncoderLayer], input: &ModelInput) -> TokenLayout {
    let talking_heads = layers.iter().any(|layer| layer.attention().has_talking_heads());
    let device = input.input_ids.device();
    let dtype = layers.first().map(EncoderLayer::dtype);
    let unpads =
        !talking_heads && !input.output_attentions && dtype.is_some_and(|dtype| attention_serves(&device, dtype));
    match input.attention_mask.as_ref().filter(|_| unpads).and_then(Unpadding::new) {
        Some(unpadding) => TokenLayout::Unpadded(Arc::new(unpadding)),
        None => TokenLayout::Padded(input.attention_mask.clone()),
    }
}

/// The layers, the table of relative positions that they share, and v2's convolution.
#[derive(Module, Debug)]
pub struct Encoder {
    layer: Vec<EncoderLayer>,
    rel_embeddings: Option<Embedding>,
    layer_norm: Option<LayerNorm>,
    conv: Option<ConvLayer>,
    #[module(skip)]
    positions: Option<RelativePositions>,
    /// See [`Backbone::set_compute_type`](super::Backbone::set_compute_type).
    #[module(skip)]
    compute_type: Option<FloatDType>,
    /// Whether a CPU rounds what it multiplies to bf16.
    #[module(skip)]
    rounds: bool,
}

/// What an encoder is made of, whichever family it belongs to.
#[derive(Clone, Debug)]
pub(crate) struct EncoderConfig {
    /// Number of layers.
    pub layers: usize,
    /// What each of them is made of.
    pub layer: EncoderLayerConfig,
    /// How relative positions become rows of their table, if attention is relative.
    pub positions: Option<RelativePositions>,
    /// Whether that table is normalised before it is used.
    pub normalise_positions: bool,
    /// v2's convolution, if there is one.
    pub conv: Option<ConvConfig>,
}

impl EncoderConfig {
    /// A fresh encoder.
    pub fn init(&self, init: &Init<'_>) -> Encoder {
        let hidden = self.layer.attention.hidden_size;
        let table = |positions: &RelativePositions| init.embedding(2 * positions.attention_span, hidden);
        Encoder {
            layer: (0..self.layers).map(|number| self.layer.init(number, init)).collect(),
            rel_embeddings: self.positions.as_ref().map(table),
            layer_norm: self.normalise_positions.then(|| init.layer_norm(hidden)),
            conv: self.conv.as_ref().map(|conv| conv.init(init)),
            positions: self.positions,
            compute_type: None,
            rounds: false,
        }
    }
}

impl Encoder {
    /// The layers, first to last.
    pub fn layers(&self) -> &[EncoderLayer] {
        &self.layer
    }

    /// The type that linear maps and attention compute in; if none, that of the parameters.
    pub fn compute_type(&self) -> Option<FloatDType> {
        self.compute_type
    }

    /// Whether a CPU rounds what it multiplies to bf16.
    pub(super) fn rounds(&self) -> bool {
        self.rounds
    }

    pub(super) fn set_compute_type(&mut self, dtype: Option<FloatDType>) {
        // Half of the bytes of states would save a CPU nothing, and casts take longer than products of bf16 gain.
        let mut rounds = dtype == Some(FloatDType::BF16);
        for (_, linear) in self.linears() {
            rounds &= is_host(&linear.device());
            linear.set_rounds(rounds);
        }
        self.rounds = rounds;
        self.compute_type = dtype.filter(|_| !rounds);
    }

    /// The linear maps of all layers.
    pub(crate) fn linears(&mut self) -> Vec<(LinearRole, &mut Linear)> {
        self.layer.iter_mut().flat_map(EncoderLayer::linears).collect()
    }

    /// What the layers share for inputs of `length` tokens.
    pub fn context(
        &self,
        length: usize,
        layout: TokenLayout,
        prepared: Option<PreparedPositions>,
        routing: Option<RoutingRecord>,
        device: &Device,
    ) -> EncoderContext {
        let relative = self.relative().map(|(positions, table)| {
            let index = positions.index(length, length);
            let (rows, first_row) = match prepared {
                Some(prepared) => (PositionRows::Projected(prepared.layers), prepared.first_row),
                None => {
                    let rows = index.whole_rows(index.rows().start, 2 * positions.attention_span);
                    (PositionRows::Embeddings(self.position_rows(table, rows.clone())), rows.start)
                }
            };
            RelativeTable { rows, first_row, index: PositionIndex::new(index, device) }
        });
        EncoderContext { layout, relative, routing, compute_type: self.compute_type }
    }

    /// Relative positions and their table, if attention is relative.
    fn relative(&self) -> Option<(RelativePositions, &Embedding)> {
        self.positions.zip(self.rel_embeddings.as_ref())
    }

    /// Every layer's projections of the position table for inputs of up to `length` tokens, or of any length if it is none, if
    /// attention is relative.
    pub(crate) fn prepare_positions(&self, length: Option<usize>) -> Option<PreparedPositions> {
        let (positions, table) = self.relative()?;
        let all = 2 * positions.attention_span;
        let rows = length.map_or(0..all, |length| {
            let index = positions.index(length, length);
            index.whole_rows(index.rows().start, all)
        });
        let first_row = rows.start;
        let table = self.position_rows(table, rows);
        let layers = self.layer.iter().map(|layer| layer.attention().project_positions(table.clone())).collect();
        Some(PreparedPositions { layers, first_row, length: length.unwrap_or(usize::MAX) })
    }

    /// Rows of the position table, normalised where the configuration says so, in the type to compute in, [rows, hidden].
    fn position_rows(&self, table: &Embedding, rows: Range<usize>) -> Tensor<2> {
        let rows = table.weight.val().slice(rows);
        let rows = match &self.layer_norm {
            Some(norm) => norm.forward(rows),
            None => rows,
        };
        round(rows, self.compute_type)
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
