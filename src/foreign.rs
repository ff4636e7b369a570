//! Folders that are made for other software. They are recognised by the names of their files, so that an error can say
//! what a folder is, and not only what it lacks.

use std::{fs, path::Path};

use crate::Error;

/// The part of a checkpoint that was not found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// A model of any kind.
    Model,
    /// Its weights.
    Weights,
    /// The weights of its head.
    Head,
    /// Its tokenizer.
    Tokenizer,
}

impl Part {
    /// The start of an error message about a folder without this part.
    fn subject(self, folder: &Path) -> String {
        let kind = if self == Self::Tokenizer { "tokenizer" } else { "checkpoint" };
        format!("{kind} {}", folder.display())
    }
}

/// What a file name says about its folder.
pub(crate) struct Sign {
    /// The parts that a folder with this file lacks.
    parts: &'static [Part],
    /// The file's name. A `*` at the start or end stands for any text.
    name: &'static str,
    /// What the folder is, and what to do.
    pub meaning: &'static str,
    /// Whether the folder is of a supported kind, but lacks a file.
    incomplete: bool,
}

/// The sign of a model whose weights are of another kind.
const fn weights(name: &'static str, meaning: &'static str) -> Sign {
    Sign { parts: &[Part::Weights], name, meaning, incomplete: false }
}

/// The sign of a vocabulary of another kind.
const fn tokenizer(name: &'static str, meaning: &'static str) -> Sign {
    Sign { parts: &[Part::Tokenizer], name, meaning, incomplete: false }
}

const FLAX: &str = "its weights are Flax's; convert them: load the model in transformers (before version 5) with \
                    from_flax=True and save it with save_pretrained";
const TENSORFLOW: &str = "its weights are TensorFlow's; convert them: load the model in transformers (before version 5) \
                          with from_tf=True and save it with save_pretrained";
const ONNX: &str = "it holds an ONNX export, which is a program and not weights; take the model it was exported from";
const SHARDS: &str = "it holds shards of weights without the index that says what is in which; fetch the file \
                      *.index.json too";
const SETFIT: &str = "it is a SetFit model, whose head is not part of the checkpoint (model_head.pkl, of scikit-learn) and \
                      is not supported; its encoder alone can embed texts";
const SENTENCEPIECE: &str = "its vocabulary is a SentencePiece model for XLM-RoBERTa, CamemBERT, ALBERT or another model \
                             that is not supported; DeBERTa's is called spm.model";

/// From the surest sign to the least sure.
const SIGNS: [Sign; 27] = [
    Sign {
        parts: &[Part::Model, Part::Weights, Part::Head, Part::Tokenizer],
        name: "adapter_config.json",
        meaning: "it holds a PEFT adapter alone (adapter_config.json), not a model; open its base model, and give this folder \
                  as the adapter (--adapter)",
        incomplete: false,
    },
    Sign {
        parts: &[Part::Model, Part::Head],
        name: "gliner_config.json",
        meaning: "it is a GLiNER model (gliner_config.json), which finds entities of any type; open it with the pipeline \
                  Gliner (example gliner)",
        incomplete: false,
    },
    Sign { parts: &[Part::Head], name: "config_setfit.json", meaning: SETFIT, incomplete: false },
    Sign { parts: &[Part::Head], name: "model_head.pkl", meaning: SETFIT, incomplete: false },
    Sign {
        parts: &[Part::Model, Part::Weights, Part::Tokenizer],
        name: "0_Transformer",
        meaning: "it is a folder of sentence-transformers whose model is in its folder 0_Transformer; open that one",
        incomplete: false,
    },
    Sign { incomplete: true, ..weights("model-*", SHARDS) },
    Sign { incomplete: true, ..weights("pytorch_model-*", SHARDS) },
    weights("flax_model*", FLAX),
    weights("*.msgpack", FLAX),
    weights("tf_model*", TENSORFLOW),
    weights("*.h5", TENSORFLOW),
    weights("*.ckpt.index", TENSORFLOW),
    weights("*.onnx", ONNX),
    weights("onnx", ONNX),
    weights("openvino_model.xml", "it holds an OpenVINO export, not weights; take the model it was exported from"),
    weights("*.gguf", "its weights are of llama.cpp (GGUF), which is not supported; take the original model"),
    weights("rust_model.ot", "its weights are of rust-bert, which is not supported; take the original model"),
    weights(
        "zero_to_fp32.py",
        "its weights are DeepSpeed's, in parts; join them with the zero_to_fp32.py beside them, as pytorch_model.bin",
    ),
    weights(
        "*.ckpt",
        "its weights are in a training checkpoint (*.ckpt); if PyTorch wrote it, rename it to pytorch_model.bin",
    ),
    weights("*.pt", "its weights have an unusual name (*.pt); if PyTorch wrote them, rename them to pytorch_model.bin"),
    weights(
        "*.pth",
        "its weights have an unusual name (*.pth); if PyTorch wrote them, rename them to pytorch_model.bin",
    ),
    tokenizer("sentencepiece.bpe.model", SENTENCEPIECE),
    tokenizer("spiece.model", SENTENCEPIECE),
    tokenizer(
        "vocab.txt",
        "its vocabulary is BERT's (vocab.txt, WordPiece), which is read only as a tokenizer.json; make one: load the \
         tokenizer with transformers' AutoTokenizer and save it with save_pretrained",
    ),
    Sign { incomplete: true, ..tokenizer("vocab.json", "it has a vocab.json without its merges.txt; fetch that too") },
    Sign { incomplete: true, ..tokenizer("merges.txt", "it has a merges.txt without its vocab.json; fetch that too") },
    tokenizer(
        "bpe_encoder.bin",
        "its vocabulary is in the format of DeBERTa's first release (bpe_encoder.bin); take vocab.json and merges.txt of \
         microsoft/deberta-base, which are the same",
    ),
];

impl Sign {
    fn is_in(&self, names: &[String]) -> bool {
        names.iter().any(|name| match (self.name.strip_prefix('*'), self.name.strip_suffix('*')) {
            (Some(end), _) => name.ends_with(end),
            (None, Some(start)) => name.starts_with(start),
            (None, None) => name == self.name,
        })
    }
}

/// The error for a folder that lacks this part because it is made for other software; none if its files are no sign of
/// that.
pub(crate) fn unsupported(folder: &Path, missing: Part) -> Option<Error> {
    explain(folder, missing).map(|sign| Error::unsupported(missing.subject(folder), sign.meaning))
}

/// The error for a folder without any of the files that hold this part. It says what the folder is, if a file is a sign
/// of it, and `otherwise` if none is.
pub(crate) fn not_found(folder: &Path, missing: Part, otherwise: &str, looked_for: &str) -> Error {
    let (sign, subject) = (explain(folder, missing), missing.subject(folder));
    let problem = format!("{}; looked for {looked_for}", sign.map_or(otherwise, |sign| sign.meaning));
    match sign {
        Some(Sign { incomplete: false, .. }) => Error::unsupported(subject, problem),
        _ => Error::missing(folder, format!("{subject}: {problem}")),
    }
}

/// The sign in a folder that lacks this part, if there is one.
pub(crate) fn explain(folder: &Path, missing: Part) -> Option<&'static Sign> {
    let entries = fs::read_dir(folder).ok()?.filter_map(Result::ok);
    let names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    explain_names(&names, missing)
}

/// The same for a folder or repository with these files.
pub(crate) fn explain_names(names: &[String], missing: Part) -> Option<&'static Sign> {
    SIGNS.iter().find(|sign| sign.parts.contains(&missing) && sign.is_in(names))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_told_by_their_files() {
        for (names, part, meaning) in [
            (vec!["adapter_config.json", "adapter_model.safetensors"], Part::Weights, "PEFT adapter"),
            (vec!["gliner_config.json", "pytorch_model.bin"], Part::Model, "GLiNER"),
            (vec!["config.json", "model_head.pkl"], Part::Head, "SetFit"),
            (vec!["config.json", "flax_model.msgpack.index.json"], Part::Weights, "Flax"),
            (vec!["config.json", "tf_model-00001-of-00002.h5"], Part::Weights, "TensorFlow"),
            (vec!["config.json", "model_quantized.onnx"], Part::Weights, "ONNX"),
            (vec!["config.json", "model-00001-of-00002.safetensors"], Part::Weights, "index"),
            (vec!["sentencepiece.bpe.model"], Part::Tokenizer, "XLM-RoBERTa"),
            (vec!["vocab.txt"], Part::Tokenizer, "WordPiece"),
            (vec!["vocab.json"], Part::Tokenizer, "merges.txt"),
        ] {
            let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
            assert!(explain_names(&names, part).is_some_and(|sign| sign.meaning.contains(meaning)), "{names:?}");
        }
        let ordinary = ["config.json", "model.safetensors", "tokenizer.json"].map(str::to_owned);
        for part in [Part::Model, Part::Weights, Part::Head, Part::Tokenizer] {
            assert!(explain_names(&ordinary, part).is_none());
        }
    }
}
