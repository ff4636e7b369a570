//! How the modules' field names become the keys of Hugging Face's files: the one table that reading and writing share.

use super::parameters::Parameter;

/// Field names and what stands for them in a key, applied from top to bottom; both sides are whole names between dots.
type Rules = &'static [(&'static str, &'static str)];

/// The encoder, embeddings and heads of every architecture.
const COMMON: Rules = &[
    ("attention", "attention.self"),
    ("attention_output", "attention.output"),
    ("feed_forward.intermediate", "intermediate.dense"),
    ("feed_forward.output", "output"),
    ("layer_norm", "LayerNorm"),
    // burn's names for the parameters of a LayerNorm.
    ("gamma", "weight"),
    ("beta", "bias"),
];

/// What only DeBERTa has: the absolute positions belong to the embeddings in the file, to the decoder in the module.
const DEBERTA: Rules = &[("decoder.position_embeddings", "deberta.embeddings.position_embeddings")];

/// DeBERTa's masked language modelling head as Microsoft wrote it.
const ORIGINAL_HEAD: Rules = &[("lm_head", "lm_predictions.lm_head")];

/// The same head as Hugging Face transformers has it by default.
const HUGGING_FACE_HEAD: Rules = &[("lm_head.bias", "cls.predictions.bias"), ("lm_head", "cls.predictions.transform")];

/// What only RoBERTa has.
const ROBERTA: Rules = &[
    ("query_proj", "query"),
    ("key_proj", "key"),
    ("value_proj", "value"),
    ("lm_head.LayerNorm", "lm_head.layer_norm"),
];

/// Keys that older files use, and what they are called today.
pub(super) const RENAMED: [(&str, &str); 2] = [("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")];

/// Keys that hold the same tensor as another key (the first is the copy); either may be absent from a file.
pub(super) const TIED: [(&str, &str); 4] = [
    ("cls.predictions.decoder.weight", "deberta.embeddings.word_embeddings.weight"),
    ("cls.predictions.decoder.bias", "cls.predictions.bias"),
    ("lm_head.decoder.weight", "roberta.embeddings.word_embeddings.weight"),
    ("lm_head.decoder.bias", "lm_head.bias"),
];

/// Ends of keys that a file may have and no model needs.
const IGNORED: [&str; 3] = [
    // A buffer that counts from 0.
    "embeddings.position_ids",
    // The residual of gradient-disentangled embedding sharing: only pretraining has a use for it.
    "embeddings._weight",
    // Absolute positions are for the enhanced mask decoder alone where the embeddings do not add them.
    "embeddings.position_embeddings.weight",
];

/// Whether a key that no parameter asked for can be passed over: it is a copy of another one, or of no use to any model.
pub(super) fn is_ignored(key: &str) -> bool {
    TIED.iter().any(|(copy, _)| *copy == key) || IGNORED.iter().any(|end| key.ends_with(end))
}

/// Whose masked language modelling head a DeBERTa checkpoint has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaskedLmLayout {
    /// Microsoft's, `lm_predictions.lm_head.*`: what the pretrained checkpoints have. It belongs behind the enhanced mask
    /// decoder; Hugging Face transformers (`"legacy": false`) puts it behind the last layer.
    Original,
    /// Hugging Face's, `cls.predictions.*` (`"legacy": true`, the default), behind the last layer.
    HuggingFace,
}

/// The two families of architectures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Deberta,
    Roberta,
}

/// The names of one module's parameters in one file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names {
    family: Family,
    layout: MaskedLmLayout,
    /// Whether the module is a head with the backbone in a field, rather than the backbone itself.
    is_head: bool,
    /// Whether the file is that of a head.
    has_prefix: bool,
}

impl Names {
    /// The names of `parameters`, which are all those of one module, in a file that is written for that module.
    pub fn new(parameters: &[Parameter], layout: MaskedLmLayout) -> Self {
        let roberta = parameters.iter().flat_map(|parameter| &parameter.containers).any(|c| c.starts_with("Struct:Roberta"));
        let family = if roberta { Family::Roberta } else { Family::Deberta };
        let names = Self { family, layout, is_head: false, has_prefix: false };
        let is_head = parameters.iter().any(|parameter| parameter.path.starts_with(names.prefix()));
        Self { is_head, has_prefix: is_head, ..names }
    }

    /// The same for a file that may be for the backbone alone or for another head, and has the given keys.
    pub fn in_file<'a>(self, mut keys: impl Iterator<Item = &'a str>) -> Self {
        Self { has_prefix: keys.any(|key| key.starts_with(self.prefix())), ..self }
    }

    /// The key of the parameter at `path`.
    pub fn key(&self, path: &str) -> String {
        let (own, head) = match (self.family, self.layout) {
            (Family::Deberta, MaskedLmLayout::Original) => (DEBERTA, ORIGINAL_HEAD),
            (Family::Deberta, MaskedLmLayout::HuggingFace) => (DEBERTA, HUGGING_FACE_HEAD),
            (Family::Roberta, _) => (ROBERTA, &[] as Rules),
        };
        // The outer dots let every name be matched as a whole.
        let mut key = format!(".{path}.");
        for (ours, theirs) in COMMON.iter().chain(own).chain(head) {
            key = key.replacen(&format!(".{ours}."), &format!(".{theirs}."), 1);
        }
        let key = key.trim_matches('.');
        match (key.strip_prefix(self.prefix()), self.has_prefix) {
            (Some(bare), false) => bare.into(),
            (None, true) if !self.is_head => format!("{}{key}", self.prefix()),
            _ => key.into(),
        }
    }

    /// Whether the parameter at `path` belongs to the backbone, without which no head is of use.
    pub fn is_backbone(&self, path: &str) -> bool {
        !self.is_head || path.starts_with(self.prefix())
    }

    fn prefix(&self) -> &'static str {
        match self.family {
            Family::Deberta => "deberta.",
            Family::Roberta => "roberta.",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(family: Family, layout: MaskedLmLayout) -> Names {
        Names { family, layout, is_head: true, has_prefix: true }
    }

    #[test]
    fn every_kind_of_key() {
        let original = names(Family::Deberta, MaskedLmLayout::Original);
        let hugging_face = names(Family::Deberta, MaskedLmLayout::HuggingFace);
        let roberta = names(Family::Roberta, MaskedLmLayout::HuggingFace);
        let cases = [
            (original, "deberta.embeddings.word_embeddings.weight", "deberta.embeddings.word_embeddings.weight"),
            (original, "deberta.embeddings.layer_norm.gamma", "deberta.embeddings.LayerNorm.weight"),
            (original, "deberta.encoder.layer_norm.beta", "deberta.encoder.LayerNorm.bias"),
            (original, "deberta.encoder.rel_embeddings.weight", "deberta.encoder.rel_embeddings.weight"),
            (original, "deberta.encoder.conv.conv.weight", "deberta.encoder.conv.conv.weight"),
            (original, "deberta.encoder.conv.layer_norm.beta", "deberta.encoder.conv.LayerNorm.bias"),
            (original, "deberta.encoder.layer.3.attention.query_proj.bias", "deberta.encoder.layer.3.attention.self.query_proj.bias"),
            (original, "deberta.encoder.layer.3.attention_output.dense.weight", "deberta.encoder.layer.3.attention.output.dense.weight"),
            (original, "deberta.encoder.layer.3.attention_output.layer_norm.gamma", "deberta.encoder.layer.3.attention.output.LayerNorm.weight"),
            (original, "deberta.encoder.layer.3.feed_forward.intermediate.bias", "deberta.encoder.layer.3.intermediate.dense.bias"),
            (original, "deberta.encoder.layer.3.feed_forward.output.dense.bias", "deberta.encoder.layer.3.output.dense.bias"),
            (original, "deberta.encoder.layer.3.feed_forward.output.layer_norm.beta", "deberta.encoder.layer.3.output.LayerNorm.bias"),
            (original, "decoder.position_embeddings.weight", "deberta.embeddings.position_embeddings.weight"),
            (original, "lm_head.dense.weight", "lm_predictions.lm_head.dense.weight"),
            (original, "lm_head.layer_norm.gamma", "lm_predictions.lm_head.LayerNorm.weight"),
            (original, "lm_head.bias", "lm_predictions.lm_head.bias"),
            (original, "mask_predictions.layer_norm.gamma", "mask_predictions.LayerNorm.weight"),
            (original, "pooler.dense.weight", "pooler.dense.weight"),
            (hugging_face, "lm_head.dense.weight", "cls.predictions.transform.dense.weight"),
            (hugging_face, "lm_head.layer_norm.beta", "cls.predictions.transform.LayerNorm.bias"),
            (hugging_face, "lm_head.bias", "cls.predictions.bias"),
            (roberta, "roberta.encoder.layer.0.attention.query_proj.weight", "roberta.encoder.layer.0.attention.self.query.weight"),
            (roberta, "roberta.pooler.dense.bias", "roberta.pooler.dense.bias"),
            (roberta, "lm_head.layer_norm.gamma", "lm_head.layer_norm.weight"),
            (roberta, "lm_head.bias", "lm_head.bias"),
            (roberta, "classifier.out_proj.weight", "classifier.out_proj.weight"),
        ];
        for (names, path, key) in cases {
            assert_eq!(names.key(path), key, "{path}");
        }
    }

    #[test]
    fn backbones_and_heads_read_each_others_files() {
        let head = names(Family::Deberta, MaskedLmLayout::Original);
        let backbone = Names { is_head: false, has_prefix: false, ..head };
        let (of_head, of_backbone) = ("deberta.encoder.layer_norm.gamma", "encoder.layer_norm.gamma");
        let (head_file, backbone_file) = (["deberta.a", "classifier.bias"].into_iter(), ["a"].into_iter());
        assert_eq!(head.in_file(backbone_file.clone()).key(of_head), "encoder.LayerNorm.weight");
        assert_eq!(head.in_file(head_file.clone()).key(of_head), "deberta.encoder.LayerNorm.weight");
        assert_eq!(backbone.in_file(head_file).key(of_backbone), "deberta.encoder.LayerNorm.weight");
        assert_eq!(backbone.in_file(backbone_file.clone()).key(of_backbone), "encoder.LayerNorm.weight");
        assert_eq!(head.in_file(backbone_file).key("classifier.weight"), "classifier.weight");
    }
}
