//! The stack of layers (`DebertaV2Encoder` in the reference).

use std::{ops::Range, sync::Arc};

use burn::{
    Tensor,
    module::Module,
    nn::{Embedding, LayerNorm},
    tensor::{DType, Device},
};

use crate::{
    activation::Activation,
    attention::{
        AttentionConfig, AttentionInput, DisentangledAttention, KeyValue, PositionProjections,
        op::{PositionIndex, can_fuse},
    },
    config::{DebertaConfig, RobertaConfig},
    conv::ConvLayer,
    feed_forward::{FeedForward, ResidualOutput},
    init::Init,
    input::ModelInput,
    linear::Linear,
    packing::{Packing, TokenLayout},
    places::Places,
    position::{RelativeIndex, RelativePositions},
    prepared::PreparedPositions,
};

/// One layer: attention, then feed-forward, each with its residual.
#[derive(Module, Debug)]
pub struct EncoderLayer {
    attention: DisentangledAttention,
    attention_output: ResidualOutput,
    feed_forward: FeedForward,
}

/// What one layer is made of, whichever family it belongs to.
#[derive(Clone, Debug)]
pub struct EncoderLayerConfig {
    /// The attention.
    pub attention: AttentionConfig,
    /// Width of the feed-forward network.
    pub intermediate_size: usize,
    /// Its activation.
    pub activation: Activation,
    /// Dropout in front of both residuals.
    pub dropout: f64,
}

impl From<&DebertaConfig> for EncoderLayerConfig {
    fn from(config: &DebertaConfig) -> Self {
        Self {
            attention: config.into(),
            intermediate_size: config.intermediate_size,
            activation: config.hidden_act,
            dropout: config.hidden_dropout_prob,
        }
    }
}

impl From<&RobertaConfig> for EncoderLayerConfig {
    fn from(config: &RobertaConfig) -> Self {
        Self {
            attention: config.into(),
            intermediate_size: config.intermediate_size,
            activation: config.hidden_act,
            dropout: config.hidden_dropout_prob,
        }
    }
}

impl EncoderLayerConfig {
    pub(crate) fn init(&self, init: &Init<'_>) -> EncoderLayer {
        let hidden = self.attention.hidden_size;
        EncoderLayer {
            attention: self.attention.init(init),
            attention_output: ResidualOutput::new(init, hidden, hidden, self.dropout),
            feed_forward: FeedForward::new(init, hidden, self.intermediate_size, self.activation, self.dropout),
        }
    }
}

/// How the tokens of an input are to lie in the states: packed where something is padded and fused attention will serve every
/// layer, padded otherwise.
pub(crate) fn token_layout(layers: &[EncoderLayer], input: &ModelInput) -> TokenLayout {
    let talking_heads = layers.iter().any(|layer| layer.attention.has_talking_heads());
    let device = input.input_ids.device();
    let dtype = layers.first().map(EncoderLayer::dtype);
    let packs = !talking_heads && !input.output_attentions && dtype.is_some_and(|dtype| can_fuse(&device, dtype));
    match input.attention_mask.as_ref().filter(|_| packs).and_then(Packing::new) {
        Some(packing) => TokenLayout::Packed(Arc::new(packing)),
        None => TokenLayout::Padded(input.attention_mask.clone()),
    }
}

/// What all layers of one forward pass share.
#[derive(Clone, Debug)]
pub struct EncoderContext {
    /// How the tokens lie in the states.
    pub layout: TokenLayout,
    /// The position table and the rows to use from it, if attention is relative.
    pub relative: Option<RelativeTable>,
}

/// The reached rows of the position table, normalised where the configuration says so.
#[derive(Clone, Debug)]
pub struct RelativeTable {
    /// R, or what each layer has made of it.
    pub rows: PositionRows,
    /// The row of each pair of tokens.
    pub index: PositionIndex,
}

/// The rows of the position table.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one in a forward pass")]
pub enum PositionRows {
    /// R, [rows, hidden], for the layers to project.
    Embeddings(Tensor<2>),
    /// Projected already, layer by layer.
    Projected(PreparedPositions),
}

impl RelativeTable {
    /// The rows as layer `number` sees them.
    fn project(&self, number: usize, attention: &DisentangledAttention) -> PositionProjections {
        match &self.rows {
            PositionRows::Embeddings(rows) => attention.project_positions(rows.clone()),
            PositionRows::Projected(layers) => {
                let first_row = self.index.host().rows().start - layers.first_row;
                PositionProjections { first_row, ..layers.layers[number].clone() }
            }
        }
    }
}

impl EncoderLayer {
    /// The linear maps that every token passes.
    pub(crate) fn linears(&mut self) -> impl Iterator<Item = &mut Linear> {
        let attention = self.attention.linears().into_iter().chain([self.attention_output.linear()]);
        attention.chain(self.feed_forward.linears())
    }

    /// The element type of its parameters.
    fn dtype(&self) -> DType {
        self.feed_forward.dtype()
    }

    /// Kc and Vc of some states, [batch, length, hidden].
    pub fn key_value(&self, hidden_states: Tensor<3>) -> KeyValue {
        self.attention.key_value(hidden_states)
    }

    /// Runs the layer, `number` of its stack: every token attends to all.
    ///
    /// # Shapes
    /// - states, output: [batch, length, hidden]
    /// - attention maps, if asked for: [batch, heads, query, key]
    pub fn forward(
        &self,
        states: Tensor<3>,
        number: usize,
        context: &EncoderContext,
        maps: bool,
    ) -> (Tensor<3>, Option<Tensor<4>>) {
        let key_value = self.key_value(states.clone());
        self.attend(states, key_value, None, number, context, maps)
    }

    /// Runs the layer on queries of their own: `query_states` attend to keys and values, and are the residual. They are the
    /// states of all tokens, or of those at the places.
    ///
    /// # Shapes
    /// - query_states, output: [batch, length, hidden], or [1, places, hidden]
    /// - attention maps, if asked for: [batch, heads, query, key]
    pub fn attend(
        &self,
        query_states: Tensor<3>,
        key_value: KeyValue,
        places: Option<&Places>,
        number: usize,
        context: &EncoderContext,
        maps: bool,
    ) -> (Tensor<3>, Option<Tensor<4>>) {
        let relative =
            context.relative.as_ref().map(|table| (table.project(number, &self.attention), table.index.clone()));
        let residual = query_states.clone();
        let input = AttentionInput { query_states, key_value, layout: &context.layout, places, relative, maps };
        let (attended, maps) = self.attention.forward(input);
        (self.feed_forward.forward(self.attention_output.forward(attended, residual)), maps)
    }
}

/// States and maps of every layer, kept where the input asks for them.
#[derive(Clone, Debug, Default)]
pub struct LayerRecord {
    /// The embeddings' output, then each layer's, [batch, length, hidden].
    pub hidden_states: Option<Vec<Tensor<3>>>,
    /// Each layer's attention probabilities, [batch, heads, query, key].
    pub attentions: Option<Vec<Tensor<4>>>,
}

impl LayerRecord {
    /// An empty record that keeps what is asked for.
    pub fn new(hidden_states: bool, attentions: bool) -> Self {
        Self { hidden_states: hidden_states.then(Vec::new), attentions: attentions.then(Vec::new) }
    }

    pub(crate) fn keep_states(&mut self, states: &Tensor<3>, layout: &TokenLayout) {
        if let Some(kept) = &mut self.hidden_states {
            kept.push(layout.restore(states.clone()));
        }
    }

    pub(crate) fn keep_maps(&mut self, maps: Option<Tensor<4>>) {
        if let Some(kept) = &mut self.attentions {
            kept.extend(maps);
        }
    }

    /// Whether maps are to be kept.
    pub(crate) fn wants_maps(&self) -> bool {
        self.attentions.is_some()
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
            rel_embeddings: config.relative_attention.then(|| init.embedding(2 * positions.span, config.hidden_size)),
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
            let index = RelativeIndex::new(self.positions, length, length);
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
        let rows = RelativeIndex::new(self.positions, length, length).rows();
        let first_row = rows.start;
        let table = self.position_rows(rows);
        let layers = self.layer.iter().map(|layer| layer.attention.project_positions(table.clone())).collect();
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
            let (output, maps) = self.layer[number].forward(states, number, context, record.wants_maps());
            states = match &self.conv {
                Some(conv) if number == 0 => conv.forward(embeddings.clone(), output, &context.layout),
                _ => output,
            };
            record.keep_states(&states, &context.layout);
            record.keep_maps(maps);
        }
        states
    }
}
