//! What a model reads: a batch on the device.

use burn::{
    Tensor,
    tensor::{Device, Int, TensorData},
};

use crate::{
    Error, Result,
    batch::Batch,
    config::ModelConfig,
    model::{
        AttentionMask, attention::PreparedPositions, embeddings::EmbeddingSource, output::LayerRecord,
        switch::RoutingRecord,
    },
};

/// A batch on the device.
#[derive(Clone, Debug)]
pub struct ModelInput {
    /// Token ids, [batch, length].
    pub input_ids: Tensor<2, Int>,
    /// Tokens are true, padding is false, [batch, length]; none where nothing is padded.
    pub attention_mask: Option<AttentionMask>,
    /// Which text of a pair a token belongs to, [batch, length]; all 0 where absent.
    pub token_type_ids: Option<Tensor<2, Int>>,
    /// Whether to return the states of every layer.
    pub output_hidden_states: bool,
    /// Whether to return the attention weights of every layer.
    pub output_attentions: bool,
    /// What stands in front of the embeddings' LayerNorm.
    pub(crate) embedding: EmbeddingSource,
    /// Position tables that [`Prepared`](crate::model::inference::Prepared) has projected already.
    pub(crate) positions: Option<PreparedPositions>,
    /// Where Switch layers leave their losses and figures.
    pub(crate) routing: Option<RoutingRecord>,
}

impl ModelInput {
    /// Token ids alone, [batch, length], nothing padded.
    pub fn new(input_ids: Tensor<2, Int>) -> Self {
        Self {
            input_ids,
            attention_mask: None,
            token_type_ids: None,
            output_hidden_states: false,
            output_attentions: false,
            embedding: EmbeddingSource::Tables,
            positions: None,
            routing: None,
        }
    }

    /// Marks tokens true and padding false, [batch, length]: a mask, or a tensor of flags.
    pub fn attention_mask(mut self, mask: impl Into<AttentionMask>) -> Self {
        self.attention_mask = Some(mask.into());
        self
    }

    /// Says which text of a pair a token belongs to, [batch, length].
    pub fn token_type_ids(mut self, types: Tensor<2, Int>) -> Self {
        self.token_type_ids = Some(types);
        self
    }

    /// Returns the states of every layer too.
    pub fn with_hidden_states(mut self) -> Self {
        self.output_hidden_states = true;
        self
    }

    /// Returns the attention weights of every layer too.
    pub fn with_attentions(mut self) -> Self {
        self.output_attentions = true;
        self
    }

    /// Lets the Switch layers of a pass over this input leave their losses and figures in the returned record. Training adds
    /// [`RoutingRecord::loss`] to the loss of the task. A record is for one pass.
    pub fn record_routing(mut self) -> (Self, RoutingRecord) {
        let record = RoutingRecord::default();
        self.routing = Some(record.clone());
        (self, record)
    }

    /// An empty record of what this input asks for.
    pub(crate) fn record(&self) -> LayerRecord {
        LayerRecord::new(self.output_hidden_states, self.output_attentions)
    }
}

impl Batch {
    /// Puts the batch on the device, after checking that a model of this configuration can take it. A model with one token
    /// type (RoBERTa) reads every token as that, and a model without token types ignores them.
    ///
    /// # Errors
    /// An empty batch, lists of another size than `rows * length`, an id outside the vocabulary, a token type the model does not have, or more tokens than its absolute positions.
    pub fn to_input(&self, config: &ModelConfig, device: &Device) -> Result<ModelInput> {
        let (vocabulary, types) = match config {
            ModelConfig::Deberta(config) => (config.vocab_size, config.type_vocab_size),
            ModelConfig::Roberta(config) => (config.vocab_size, config.type_vocab_size),
        };
        let outside = |ids: &[i32], size: usize| {
            ids.iter().position(|id| usize::try_from(*id).is_ok_and(|id| id >= size) || *id < 0)
        };
        let cells = self.rows.checked_mul(self.length).unwrap_or(0);
        if cells == 0 || [self.input_ids.len(), self.attention_mask.len(), self.token_type_ids.len()] != [cells; 3] {
            let problem = format!("its lists must hold {} x {} elements, and at least one", self.rows, self.length);
            return Err(Error::input("batch", problem));
        }
        let place = |index: usize| format!("batch row {}, position {}", index / self.length, index % self.length);
        if let Some(limit) = config.max_length().filter(|limit| self.length > *limit) {
            let problem =
                format!("{} tokens, but the model's absolute positions end at {limit}; truncate the text", self.length);
            return Err(Error::input("batch", problem));
        }
        if let Some(index) = outside(&self.input_ids, vocabulary) {
            let problem = format!("token id {} is outside the vocabulary of {vocabulary}", self.input_ids[index]);
            return Err(Error::input(place(index), format!("{problem}; do tokenizer and weights belong together?")));
        }
        // With one type there is nothing to tell apart, though a tokenizer may number the texts of a pair.
        let tells_types = types > 1;
        if let Some(index) = outside(&self.token_type_ids, types).filter(|_| tells_types) {
            let problem = format!("token type {} is outside the model's {types}", self.token_type_ids[index]);
            return Err(Error::input(place(index), problem));
        }
        let shape = [self.rows, self.length];
        let ids = |ids: &[i32]| Tensor::from_data(TensorData::new(ids.to_vec(), shape), device);
        let padded = self.attention_mask.contains(&false);
        let mask = || AttentionMask::new(self.attention_mask.clone(), shape, device);
        Ok(ModelInput {
            attention_mask: padded.then(mask),
            token_type_ids: tells_types.then(|| ids(&self.token_type_ids)),
            ..ModelInput::new(ids(&self.input_ids))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(batch: Batch, config: &str) -> String {
        let config = ModelConfig::from_json(config).unwrap();
        batch.to_input(&config, &Device::flex()).expect_err("a batch that does not fit").to_string()
    }

    fn batch(ids: &[i32]) -> Batch {
        Batch {
            rows: 1,
            length: ids.len(),
            input_ids: ids.to_vec(),
            attention_mask: vec![true; ids.len()],
            token_type_ids: vec![0; ids.len()],
        }
    }

    const CONFIG: &str =
        r#"{"model_type": "deberta", "vocab_size": 10, "type_vocab_size": 2, "max_position_embeddings": 4}"#;

    #[test]
    fn what_the_model_cannot_take_is_named() {
        assert!(message(batch(&[1, 10]), CONFIG).contains("position 1: token id 10 is outside the vocabulary of 10"));
        assert!(message(batch(&[-1]), CONFIG).contains("token id -1"));
        assert!(message(batch(&[1; 5]), CONFIG).contains("5 tokens, but the model's absolute positions end at 4"));
        assert!(message(batch(&[]), CONFIG).contains("0 elements, and at least one"));
        assert!(message(Batch { rows: 2, ..batch(&[1]) }, CONFIG).contains("2 x 1 elements"));
        let wrapping = Batch { rows: 1 << 63, length: 2, ..batch(&[]) };
        assert!(message(wrapping, CONFIG).contains("9223372036854775808 x 2 elements"));
        let typed = Batch { token_type_ids: vec![2], ..batch(&[1]) };
        assert!(message(typed, CONFIG).contains("token type 2 is outside the model's 2"));
    }

    #[test]
    fn one_type_is_that_of_every_token() {
        for (types, read) in [(0, None), (1, None), (2, Some(vec![0, 1]))] {
            let key = format!("\"type_vocab_size\": {types}");
            let config = ModelConfig::from_json(&CONFIG.replace("\"type_vocab_size\": 2", &key)).unwrap();
            let pair = Batch { token_type_ids: vec![0, 1], ..batch(&[1, 2]) };
            let input = pair.to_input(&config, &Device::flex()).unwrap();
            let found =
                input.token_type_ids.map(|types| types.into_data().convert::<i32>().try_to_vec::<i32>().unwrap());
            assert_eq!(found, read, "{types}");
        }
    }

    #[test]
    fn a_mask_is_only_where_something_is_padded() {
        let config = ModelConfig::from_json(CONFIG).unwrap();
        let whole = batch(&[1, 2]).to_input(&config, &Device::flex()).unwrap();
        assert!(whole.attention_mask.is_none());
        let padded = Batch { attention_mask: vec![true, false], ..batch(&[1, 0]) };
        let mask = padded.to_input(&config, &Device::flex()).unwrap().attention_mask.unwrap();
        assert_eq!(mask.real().unwrap(), [true, false]);
    }
}
