//! From the field names of modules to the keys of Hugging Face's files: one table for reading and writing.

use super::parameters::Parameter;

/// Field names and their names in a key, applied from top to bottom. Both sides are whole names between dots.
type Rules = &'static [(&'static str, &'static str)];

/// The start of the path of a backbone's parameter, if the module is a head.
const BACKBONE: &str = "backbone.";

/// The backbones' own names in the file of a head.
pub(super) const BACKBONES: [&str; 2] = ["deberta.", "roberta."];

/// A key without the backbone's name in front.
pub(super) fn bare(key: &str) -> &str {
    BACKBONES.iter().find_map(|prefix| key.strip_prefix(prefix)).unwrap_or(key)
}

/// Names in every architecture.
const COMMON: Rules = &[
    ("attention", "attention.self"),
    ("attention_output.residual", "attention.output"),
    ("attention_output", "attention.output"),
    ("feed_forward.network.Dense.widen", "intermediate.dense"),
    ("feed_forward.network.Dense.narrow", "output.dense"),
    ("feed_forward.residual", "output"),
    // Those of a Switch layer are this crate's own.
    ("feed_forward.network.Switch", "switch"),
    ("widen", "intermediate.dense"),
    ("narrow", "output.dense"),
    ("layer_norm", "LayerNorm"),
    // burn's names for the parameters of a LayerNorm.
    ("gamma", "weight"),
    ("beta", "bias"),
];

/// Names in DeBERTa's backbone only.
const DEBERTA: Rules = &[("backbone", "deberta")];

/// Names in RoBERTa's backbone only.
const ROBERTA: Rules =
    &[("backbone", "roberta"), ("query_proj", "query"), ("key_proj", "key"), ("value_proj", "value")];

/// DeBERTa's masked language modelling head as in Microsoft's code, with the enhanced mask decoder. The decoder's
/// absolute positions are among the embeddings in the file.
const ORIGINAL_MASKED_LM: Rules =
    &[("lm_head", "lm_predictions.lm_head"), ("decoder.position_embeddings", "deberta.embeddings.position_embeddings")];

/// The same head as transformers names it by default.
const LEGACY_MASKED_LM: Rules = &[("lm_head.bias", "cls.predictions.bias"), ("lm_head", "cls.predictions.transform")];

const ROBERTA_MASKED_LM: Rules = &[("lm_head.LayerNorm", "lm_head.layer_norm")];

const ROBERTA_SEQUENCE_CLASSIFICATION: Rules =
    &[("classifier", "classifier.out_proj"), ("pooler.dense", "classifier.dense")];

const ROBERTA_MULTIPLE_CHOICE: Rules = &[("pooler.dense", "roberta.pooler.dense")];

/// GLiNER's backbone, a few classes deep.
const GLINER_BACKBONE: Rules = &[("backbone", "token_rep_layer.bert_layer.model")];

/// GLiNER's layers over it. `torch.nn.Sequential` numbers its steps, of which the first and the last have parameters.
const GLINER: Rules = &[
    ("projection", "token_rep_layer.projection"),
    ("scorer.Spans.start", "span_rep_layer.span_rep_layer.project_start"),
    ("scorer.Spans.end", "span_rep_layer.span_rep_layer.project_end"),
    ("scorer.Spans.out.Mlp", "span_rep_layer.span_rep_layer.out_project"),
    ("scorer.Spans.out.Linear", "span_rep_layer.span_rep_layer.out_project"),
    ("scorer.Spans.labels", "prompt_rep_layer"),
    ("scorer.Tokens.words", "scorer.proj_token"),
    ("scorer.Tokens.labels", "scorer.proj_label"),
    ("scorer.Tokens.out", "scorer.out_mlp"),
    ("inner", "0"),
    ("outer", "3"),
];

/// GLiClass's backbone.
const GLICLASS_BACKBONE: Rules = &[("backbone", "model.encoder_model")];

/// GLiClass's layers over it.
const GLICLASS: Rules = &[
    ("text", "model.text_projector"),
    ("labels", "model.classes_projector"),
    ("inner", "linear_1"),
    ("outer", "linear_2"),
];

/// Keys of older files, and their present names.
pub(super) const RENAMED: [(&str, &str); 2] =
    [("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")];

/// Keys that hold the same tensor as another key (the first is the copy); either may be absent from a file. A language model
/// whose file has both, and with other values, is refused.
pub(super) const TIED: [(&str, &str); 4] = [
    ("cls.predictions.decoder.weight", "deberta.embeddings.word_embeddings.weight"),
    ("cls.predictions.decoder.bias", "cls.predictions.bias"),
    ("lm_head.decoder.weight", "roberta.embeddings.word_embeddings.weight"),
    ("lm_head.decoder.bias", "lm_head.bias"),
];

/// Ends of keys that may be in a file although no model needs them.
const IGNORED: [&str; 3] = [
    // A buffer that counts from 0.
    "embeddings.position_ids",
    // The residual of gradient-disentangled embedding sharing: only pretraining needs it.
    "embeddings._weight",
    // If the embeddings do not add absolute positions, only the enhanced mask decoder needs them.
    "embeddings.position_embeddings.weight",
];

/// Whether a key that no parameter uses can be ignored: it is a copy of another one, or no model needs it.
pub(super) fn is_ignored(key: &str) -> bool {
    TIED.iter().any(|(copy, _)| *copy == key) || IGNORED.iter().any(|end| key.ends_with(end)) || is_optimizer_state(key)
}

/// Whether a key is that of an optimiser's state, which a file of training holds beside the model (`optimizer`,
/// `optimizer_states`).
pub(super) fn is_optimizer_state(key: &str) -> bool {
    key.split('.').next().is_some_and(|name| name.starts_with("optimizer"))
}

/// For each head, by the end of its name in transformers: keys that its file has, and a key that its file does not have
/// (it tells the head from others). The first of each kind is DeBERTa's, the second RoBERTa's.
const HEADS: [(&str, &[&str], Option<&str>); 6] = [
    ("ForSequenceClassification", &["pooler.dense.weight", "classifier.weight"], None),
    ("ForSequenceClassification", &["classifier.dense.weight", "classifier.out_proj.weight"], None),
    ("ForTokenClassification", &["classifier.weight"], Some("pooler.dense.weight")),
    ("ForMultipleChoice", &["pooler.dense.weight", "classifier.weight"], None),
    ("ForMultipleChoice", &["roberta.pooler.dense.weight", "classifier.weight"], None),
    ("ForQuestionAnswering", &["qa_outputs.weight"], None),
];

/// The keys of a classifier's weight, [labels, width].
pub(super) const CLASSIFIERS: [&str; 2] = ["classifier.weight", "classifier.out_proj.weight"];

/// The tasks that a model is fine-tuned for.
pub(super) fn fine_tuned() -> impl Iterator<Item = &'static str> {
    HEADS.iter().map(|(task, ..)| *task)
}

/// Whether a file has a head for this task; `contains` says which keys the file has.
pub(super) fn has_head(task: &str, contains: impl Fn(&str) -> bool) -> bool {
    HEADS.iter().any(|(name, keys, absent)| {
        *name == task && keys.iter().all(|key| contains(key)) && !absent.is_some_and(&contains)
    })
}

/// How a file spells its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    /// DeBERTa's, with Microsoft's masked language modelling head (`lm_predictions`).
    Deberta,
    /// DeBERTa's, with transformers' masked language modelling head (`cls.predictions`).
    LegacyDeberta,
    /// RoBERTa's.
    Roberta,
}

impl Spelling {
    /// The spelling of a file with these keys.
    pub fn of<'a>(mut keys: impl Iterator<Item = &'a str> + Clone) -> Self {
        // The file of a backbone alone has no prefix, but the families name their projections differently.
        let is_roberta = |key: &str| key.starts_with("roberta.") || key.contains(".attention.self.query.");
        match () {
            () if keys.clone().any(is_roberta) => Self::Roberta,
            () if keys.any(|key| key.starts_with("cls.predictions.transform.")) => Self::LegacyDeberta,
            () => Self::Deberta,
        }
    }
}

/// The names of one module's parameters in one file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names {
    /// The start of the backbone's keys in the file of a head.
    prefix: &'static str,
    backbone: Rules,
    head: Rules,
    /// Whether the module is a head with the backbone in a field, rather than the backbone itself.
    is_head: bool,
    /// The start of the backbone's keys in this file; empty in that of a backbone.
    in_file: &'static str,
}

impl Names {
    /// The names of a module's parameters in a file that is written for the module; `parameters` are all of them.
    pub fn new(parameters: &[Parameter], spelling: Spelling) -> Self {
        let is_in =
            |module: &str| parameters.iter().flat_map(|parameter| &parameter.containers).any(|name| name == module);
        let (prefix, backbone, head) = match spelling {
            _ if is_in("Struct:Gliner") => ("token_rep_layer.bert_layer.model.", GLINER_BACKBONE, GLINER),
            _ if is_in("Struct:GliClass") => ("model.encoder_model.", GLICLASS_BACKBONE, GLICLASS),
            Spelling::Deberta => ("deberta.", DEBERTA, ORIGINAL_MASKED_LM),
            Spelling::LegacyDeberta => ("deberta.", DEBERTA, LEGACY_MASKED_LM),
            Spelling::Roberta if is_in("Struct:SequenceClassification") => {
                ("roberta.", ROBERTA, ROBERTA_SEQUENCE_CLASSIFICATION)
            }
            Spelling::Roberta if is_in("Struct:MultipleChoice") => ("roberta.", ROBERTA, ROBERTA_MULTIPLE_CHOICE),
            Spelling::Roberta => ("roberta.", ROBERTA, ROBERTA_MASKED_LM),
        };
        let is_head = parameters.iter().any(|parameter| parameter.path.starts_with(BACKBONE));
        Self { prefix, backbone, head, is_head, in_file: if is_head { prefix } else { "" } }
    }

    /// The same for a file with the given keys, which may be that of a backbone or of another head.
    pub fn in_file<'a>(self, keys: impl Iterator<Item = &'a str> + Clone) -> Self {
        let mut prefixes = [self.prefix].into_iter().chain(BACKBONES);
        let in_file = prefixes.find(|prefix| keys.clone().any(|key| key.starts_with(prefix)));
        Self { in_file: in_file.unwrap_or_default(), ..self }
    }

    /// The key of the parameter at `path`.
    pub fn key(&self, path: &str) -> String {
        let own = if self.is_backbone(path) { self.backbone } else { self.head };
        // With dots at both ends, every name can be matched as a whole.
        let mut key = format!(".{path}.");
        for (ours, theirs) in COMMON.iter().chain(own) {
            key = key.replacen(&format!(".{ours}."), &format!(".{theirs}."), 1);
        }
        let key = lstm_key(key.trim_matches('.'));
        match key.strip_prefix(self.prefix) {
            Some(bare) => format!("{}{bare}", self.in_file),
            None if self.is_head => key,
            None => format!("{}{key}", self.in_file),
        }
    }

    /// Whether the parameter at `path` belongs to the backbone.
    pub fn is_backbone(&self, path: &str) -> bool {
        !self.is_head || path.starts_with(BACKBONE)
    }
}

/// The key of a parameter of an LSTM, whose layer and direction `torch.nn.LSTM` puts behind the parameter's name:
/// `rnn.layers.1.backward.recurrent.bias` is `rnn.lstm.bias_hh_l1_reverse`. Other keys stay as they are.
fn lstm_key(key: &str) -> String {
    let ["rnn", "layers", layer, direction, map, parameter] = key.split('.').collect::<Vec<_>>()[..] else {
        return key.into();
    };
    let map = if map == "input" { "ih" } else { "hh" };
    let direction = if direction == "forward" { "" } else { "_reverse" };
    format!("rnn.lstm.{parameter}_{map}_l{layer}{direction}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(prefix: &'static str, backbone: Rules, head: Rules) -> Names {
        Names { prefix, backbone, head, is_head: true, in_file: prefix }
    }

    #[test]
    fn every_kind_of_key() {
        let original = head("deberta.", DEBERTA, ORIGINAL_MASKED_LM);
        let legacy = head("deberta.", DEBERTA, LEGACY_MASKED_LM);
        let roberta = head("roberta.", ROBERTA, ROBERTA_MASKED_LM);
        let sequence = head("roberta.", ROBERTA, ROBERTA_SEQUENCE_CLASSIFICATION);
        let gliner = head("token_rep_layer.bert_layer.model.", GLINER_BACKBONE, GLINER);
        let gliclass = head("model.encoder_model.", GLICLASS_BACKBONE, GLICLASS);
        let cases = [
            (gliclass, "labels.inner.bias", "model.classes_projector.linear_1.bias"),
            (gliclass, "backbone.embeddings.layer_norm.gamma", "model.encoder_model.embeddings.LayerNorm.weight"),
            (gliner, "backbone.encoder.layer_norm.beta", "token_rep_layer.bert_layer.model.encoder.LayerNorm.bias"),
            (gliner, "projection.bias", "token_rep_layer.projection.bias"),
            (gliner, "rnn.layers.0.forward.input.weight", "rnn.lstm.weight_ih_l0"),
            (gliner, "rnn.layers.1.backward.recurrent.bias", "rnn.lstm.bias_hh_l1_reverse"),
            (gliner, "scorer.Spans.out.Mlp.outer.bias", "span_rep_layer.span_rep_layer.out_project.3.bias"),
            (gliner, "scorer.Spans.labels.inner.weight", "prompt_rep_layer.0.weight"),
            (gliner, "scorer.Tokens.out.inner.weight", "scorer.out_mlp.0.weight"),
            (original, "backbone.embeddings.word_embeddings.weight", "deberta.embeddings.word_embeddings.weight"),
            (original, "backbone.embeddings.layer_norm.gamma", "deberta.embeddings.LayerNorm.weight"),
            (original, "backbone.encoder.layer_norm.beta", "deberta.encoder.LayerNorm.bias"),
            (original, "backbone.encoder.rel_embeddings.weight", "deberta.encoder.rel_embeddings.weight"),
            (original, "backbone.encoder.conv.conv.weight", "deberta.encoder.conv.conv.weight"),
            (original, "backbone.encoder.conv.layer_norm.beta", "deberta.encoder.conv.LayerNorm.bias"),
            (
                original,
                "backbone.encoder.layer.3.attention.query_proj.bias",
                "deberta.encoder.layer.3.attention.self.query_proj.bias",
            ),
            (
                original,
                "backbone.encoder.layer.3.attention_output.dense.weight",
                "deberta.encoder.layer.3.attention.output.dense.weight",
            ),
            (
                original,
                "backbone.encoder.layer.3.attention_output.residual.layer_norm.gamma",
                "deberta.encoder.layer.3.attention.output.LayerNorm.weight",
            ),
            (
                original,
                "backbone.encoder.layer.3.feed_forward.network.Dense.widen.bias",
                "deberta.encoder.layer.3.intermediate.dense.bias",
            ),
            (
                original,
                "backbone.encoder.layer.3.feed_forward.network.Dense.narrow.bias",
                "deberta.encoder.layer.3.output.dense.bias",
            ),
            (
                original,
                "backbone.encoder.layer.3.feed_forward.residual.layer_norm.beta",
                "deberta.encoder.layer.3.output.LayerNorm.bias",
            ),
            (
                original,
                "backbone.encoder.layer.3.feed_forward.network.Switch.router.weight",
                "deberta.encoder.layer.3.switch.router.weight",
            ),
            (
                original,
                "backbone.encoder.layer.3.feed_forward.network.Switch.experts.7.narrow.bias",
                "deberta.encoder.layer.3.switch.experts.7.output.dense.bias",
            ),
            (original, "decoder.position_embeddings.weight", "deberta.embeddings.position_embeddings.weight"),
            (original, "lm_head.dense.weight", "lm_predictions.lm_head.dense.weight"),
            (original, "lm_head.layer_norm.gamma", "lm_predictions.lm_head.LayerNorm.weight"),
            (original, "lm_head.bias", "lm_predictions.lm_head.bias"),
            (original, "mask_predictions.layer_norm.gamma", "mask_predictions.LayerNorm.weight"),
            (original, "pooler.dense.weight", "pooler.dense.weight"),
            (legacy, "lm_head.dense.weight", "cls.predictions.transform.dense.weight"),
            (legacy, "lm_head.layer_norm.beta", "cls.predictions.transform.LayerNorm.bias"),
            (legacy, "lm_head.bias", "cls.predictions.bias"),
            (
                roberta,
                "backbone.encoder.layer.0.attention.query_proj.weight",
                "roberta.encoder.layer.0.attention.self.query.weight",
            ),
            (roberta, "backbone.pooler.dense.bias", "roberta.pooler.dense.bias"),
            (roberta, "lm_head.layer_norm.gamma", "lm_head.layer_norm.weight"),
            (roberta, "lm_head.bias", "lm_head.bias"),
            (sequence, "pooler.dense.weight", "classifier.dense.weight"),
            (sequence, "classifier.weight", "classifier.out_proj.weight"),
            (sequence, "backbone.pooler.dense.weight", "roberta.pooler.dense.weight"),
        ];
        for (names, path, key) in cases {
            assert_eq!(names.key(path), key, "{path}");
        }
    }

    #[test]
    fn backbones_and_heads_read_each_others_files() {
        let head = head("deberta.", DEBERTA, ORIGINAL_MASKED_LM);
        let bare = Names { is_head: false, in_file: "", ..head };
        let gliner =
            Names { prefix: "token_rep_layer.bert_layer.model.", backbone: GLINER_BACKBONE, head: GLINER, ..head };
        let (of_head, of_bare) = ("backbone.encoder.layer_norm.gamma", "encoder.layer_norm.gamma");
        let (head_file, bare_file) = (["deberta.a", "classifier.bias"].into_iter(), ["a"].into_iter());
        assert_eq!(head.in_file(head_file.clone()).key(of_head), "deberta.encoder.LayerNorm.weight");
        assert_eq!(head.in_file(bare_file.clone()).key(of_head), "encoder.LayerNorm.weight");
        assert_eq!(gliner.in_file(head_file.clone()).key(of_head), "deberta.encoder.LayerNorm.weight");
        assert_eq!(gliner.in_file(bare_file.clone()).key(of_head), "encoder.LayerNorm.weight");
        assert_eq!(bare.in_file(head_file).key(of_bare), "deberta.encoder.LayerNorm.weight");
        assert_eq!(bare.in_file(bare_file.clone()).key(of_bare), "encoder.LayerNorm.weight");
        assert_eq!(head.in_file(bare_file).key("classifier.weight"), "classifier.weight");
    }
}
