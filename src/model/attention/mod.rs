//! Disentangled self-attention (paper section 3.1, Eq. 4; `DisentangledSelfAttention` in the reference).
//!
//! A token has a content vector and, towards each other token, a relative position. With d the head size, n one plus the
//! number of position terms, and idx(i, j) the row of [`position`](crate::model::attention::relative_position),
//!
//! ```text
//! score[i, j] = ( Qc[i] . Kc[j]  +  Qc[i] . Kr[idx(i, j)]  +  Qr[idx(i, j)] . Kc[j] ) / sqrt(d n)
//! context     = dropout(softmax(score)) Vc
//! ```
//!
//! Qc, Kc, Vc are projections of the hidden states, Kr and Qr of the position table, by the same weights where
//! `share_att_key` is set. The module makes the projections; [`fused`] chooses who does the arithmetic.

pub mod composed;
pub mod fused;
pub mod operands;
pub mod relative_position;

use std::sync::Arc;

use burn::{Tensor, module::Module};

use crate::{
    config::PositionTerms,
    model::{
        dropout::Dropout, init::Init, linear::Linear, masked_positions::MaskedPositions, token_layout::TokenLayout,
    },
};
use operands::{AttentionOperands, PositionIndex, RelativeOperands, TalkingHeads};

/// What attention is made of, whichever family it belongs to.
#[derive(Clone, Debug)]
pub struct AttentionConfig {
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Number of heads.
    pub heads: usize,
    /// Position terms in use.
    pub terms: PositionTerms,
    /// Whether there are relative positions at all; the scale counts the terms either way, as the reference does.
    pub relative: bool,
    /// Whether positions use the content's projections.
    pub share_projections: bool,
    /// Whether the key projections have a bias.
    pub key_bias: bool,
    /// Whether heads are mixed before and after the softmax.
    pub talking_heads: bool,
    /// Dropout of the probabilities.
    pub dropout: f64,
    /// Dropout of the position table.
    pub position_dropout: f64,
}

/// The projections of one layer's attention.
#[derive(Module, Debug)]
pub struct DisentangledAttention {
    query_proj: Linear,
    key_proj: Linear,
    value_proj: Linear,
    pos_key_proj: Option<Linear>,
    pos_query_proj: Option<Linear>,
    head_logits_proj: Option<Linear>,
    head_weights_proj: Option<Linear>,
    dropout: Dropout,
    position_dropout: Dropout,
    #[module(skip)]
    heads: usize,
    #[module(skip)]
    terms: PositionTerms,
}

/// The position table as one layer sees it: projected.
#[derive(Clone, Debug)]
pub struct PositionProjections {
    /// Kr, [rows, hidden], if c2p is in use.
    pub key: Option<Tensor<2>>,
    /// Qr, [rows, hidden], if p2c is in use.
    pub query: Option<Tensor<2>>,
    /// The row of both that the index counts from.
    pub first_row: usize,
}

/// The projected position table of every layer: Kr and Qr depend on weights alone, and for short texts cost as much as the
/// rest.
#[derive(Clone, Debug)]
pub struct PreparedPositions {
    /// Kr and Qr by layer.
    pub(crate) layers: Arc<[PositionProjections]>,
    /// The row of the position table that their first row is.
    pub(crate) first_row: usize,
    /// The longest input, in tokens, for which they have every row.
    pub(crate) length: usize,
}

/// What queries attend to: Kc and Vc of some states.
#[derive(Clone, Debug)]
pub struct KeyValue {
    /// Kc, [batch, length, hidden].
    pub key: Tensor<3>,
    /// Vc, [batch, length, hidden].
    pub value: Tensor<3>,
}

/// What attention reads.
pub struct AttentionInput<'a> {
    /// What the queries are made of: [batch, length, hidden], or [1, queries, hidden].
    pub query_states: Tensor<3>,
    /// What they attend to.
    pub key_value: KeyValue,
    /// How the tokens lie in the states.
    pub layout: &'a TokenLayout,
    /// The positions of the queries, if not every token has one (the enhanced mask decoder).
    pub query_positions: Option<&'a MaskedPositions>,
    /// The projected position table and the rows to use from it.
    pub relative: Option<(PositionProjections, PositionIndex)>,
    /// Whether to return the attention weights as well.
    pub with_weights: bool,
}

impl AttentionConfig {
    /// Fresh projections.
    pub(crate) fn init(&self, init: &Init<'_>) -> DisentangledAttention {
        let width = self.hidden_size;
        let key = || if self.key_bias { init.linear(width, width) } else { init.linear_without_bias(width, width) };
        let own = self.relative && !self.share_projections;
        let mix = || self.talking_heads.then(|| init.linear_without_bias(self.heads, self.heads));
        DisentangledAttention {
            query_proj: init.linear(width, width),
            key_proj: key(),
            value_proj: init.linear(width, width),
            pos_key_proj: (own && self.terms.c2p).then(key),
            pos_query_proj: (own && self.terms.p2c).then(|| init.linear(width, width)),
            head_logits_proj: mix(),
            head_weights_proj: mix(),
            dropout: Dropout::new(self.dropout),
            position_dropout: Dropout::new(self.position_dropout),
            heads: self.heads,
            terms: self.terms,
        }
    }
}

impl DisentangledAttention {
    /// Kr and Qr of this layer: they depend on weights alone, so inference may keep them.
    ///
    /// # Shapes
    /// - rel_embeddings: [rows, hidden], rows of the (normalised) position table
    pub fn project_positions(&self, rel_embeddings: Tensor<2>) -> PositionProjections {
        let table = self.position_dropout.forward(rel_embeddings);
        let project = |own: &Option<Linear>, shared: &Linear| own.as_ref().unwrap_or(shared).forward(table.clone());
        PositionProjections {
            key: self.terms.c2p.then(|| project(&self.pos_key_proj, &self.key_proj)),
            query: self.terms.p2c.then(|| project(&self.pos_query_proj, &self.query_proj)),
            first_row: 0,
        }
    }

    /// Kc and Vc of some states.
    ///
    /// # Shapes
    /// - hidden_states: [batch, length, hidden]
    pub fn key_value(&self, hidden_states: Tensor<3>) -> KeyValue {
        KeyValue { key: self.key_proj.forward(hidden_states.clone()), value: self.value_proj.forward(hidden_states) }
    }

    /// Attends.
    ///
    /// # Shapes
    /// - output: context, of the shape of the query's states, and attention weights [batch, heads, query, key] if asked for
    pub fn forward(&self, input: AttentionInput<'_>) -> (Tensor<3>, Option<Tensor<4>>) {
        let query = self.query_proj.forward(input.query_states);
        let head_size = query.dims()[2] / self.heads;
        let terms = 1 + self.terms.count();
        let talking_heads = self.head_logits_proj.as_ref().zip(self.head_weights_proj.as_ref());
        fused::attend(
            AttentionOperands {
                query,
                key: input.key_value.key,
                value: input.key_value.value,
                heads: self.heads,
                relative: input.relative.map(|(positions, index)| RelativeOperands { positions, index }),
                layout: input.layout,
                query_positions: input.query_positions,
                scale: 1.0 / ((head_size * terms) as f64).sqrt(),
                dropout: &self.dropout,
                rounds: self.query_proj.rounds_attention(),
            },
            talking_heads.map(|(logits, weights)| TalkingHeads { logits, weights }),
            input.with_weights,
        )
    }

    /// The projections that every token passes: of queries, keys and values.
    pub(crate) fn linears(&mut self) -> [&mut Linear; 3] {
        [&mut self.query_proj, &mut self.key_proj, &mut self.value_proj]
    }

    /// Whether heads are mixed, which fused kernels do not serve.
    pub(crate) fn has_talking_heads(&self) -> bool {
        self.head_logits_proj.is_some()
    }
}
