//! What no pipeline takes: checkpoints of other tasks, and answers that are not finite.

use std::fs;

use deberta_burn::{
    Backbone, Error, Precision,
    heads::{MaskedLmLayout, QuestionAnswering, TokenClassification},
    pipeline::{
        AnswerOptions, Classifier, Embedder, FillMask, PipelineOptions, QuestionAnswerer, RankRequest, Reranker,
        TagOptions, TokenTagger, ZeroShot, ZeroShotOptions,
    },
};
use tempfile::TempDir;

use crate::{
    masked_lm, message, options, question, sequence,
    support::{config, folder},
};

#[test]
fn heads_of_other_tasks_are_refused() {
    let mut classifier = config(&["a", "b"]);
    classifier.task.architectures = vec!["DebertaV2ForSequenceClassification".into()];
    let folder = sequence(classifier);
    let error = message(TokenTagger::from_folder(&folder, options()));
    assert!(
        error.contains("DebertaV2ForSequenceClassification") && error.contains("ForTokenClassification"),
        "{error}"
    );
    // Without a declaration the tensors tell.
    let undeclared = sequence(config(&["a", "b"]));
    let error = message(QuestionAnswerer::from_folder(&undeclared, options()));
    assert!(error.contains("qa_outputs.weight") && error.contains("missing"), "{error}");
    let bare = masked_lm(MaskedLmLayout::EnhancedMaskDecoder);
    let error = message(Classifier::from_folder(&bare, options()));
    assert!(error.contains("classifier.weight") && error.contains("fine-tune"), "{error}");
    let wrong_count = sequence(config(&["a", "b"]));
    let path = wrong_count.path().join("config.json");
    let text = fs::read_to_string(&path).unwrap().replace("\"b\"", "\"b\", \"2\": \"c\"");
    fs::write(&path, text).unwrap();
    assert!(Classifier::from_folder(&wrong_count, options()).is_err());
}

#[test]
fn a_name_left_over_from_the_backbone_gives_way_to_the_weights() {
    let named = |name: &str, labels: &[&str]| {
        let mut config = config(labels);
        config.task.architectures = vec![name.to_owned()];
        config
    };
    for name in ["DebertaV2Model", "DebertaV2ForMaskedLM", "DebertaV2ForTokenClassification"] {
        assert!(Classifier::from_folder(sequence(named(name, &["a", "b"])), options()).is_ok(), "{name}");
    }
    let tagger = |name| folder(named(name, &["A", "O"]), TokenClassification::new);
    for name in ["DebertaV2Model", "DebertaV2ForSequenceClassification"] {
        assert!(TokenTagger::from_folder(tagger(name), options()).is_ok(), "{name}");
        let error = message(Classifier::from_folder(tagger(name), options()));
        assert!(error.contains(&format!("this is a {name}")) || error.contains("is missing"), "{error}");
    }
    let answers = folder(named("DebertaV2ForMaskedLM", &[]), QuestionAnswering::new);
    assert!(QuestionAnswerer::from_folder(answers, options()).is_ok());
    // Where the weights of the head are not there either, the name says what is.
    let error = message(Classifier::from_folder(folder(named("DebertaV2Model", &[]), Backbone::new), options()));
    assert!(error.contains("this is a DebertaV2Model; this task needs a …ForSequenceClassification"), "{error}");

    let setfit = folder(named("DebertaV2Model", &[]), Backbone::new);
    fs::write(setfit.path().join("model_head.pkl"), "").unwrap();
    let error = message(Classifier::from_folder(&setfit, options()));
    assert!(error.contains("SetFit") && error.contains("not supported"), "{error}");
}

/// The folder with another first value of one of its tensors.
fn with_value(folder: TempDir, key: &str, value: f32) -> TempDir {
    let path = folder.path().join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let tensors: serde_json::Value = serde_json::from_slice(&bytes[8..header]).unwrap();
    let start = header + tensors[key]["data_offsets"][0].as_u64().unwrap_or_else(|| panic!("{key}")) as usize;
    bytes[start..start + 4].copy_from_slice(&value.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    folder
}

#[test]
fn answers_that_are_not_finite_are_errors() {
    // An f32 that f16 does not reach.
    let huge = |folder, key| with_value(folder, key, 1e6);
    let (f32, f16) = (options(), PipelineOptions { precision: Precision::F16, ..options() });
    let check = |name: &str, ask: &dyn Fn(PipelineOptions) -> Option<Error>| {
        assert!(ask(f32.clone()).is_none(), "{name} in f32");
        let error = ask(f16.clone()).unwrap_or_else(|| panic!("{name} in f16"));
        assert!(matches!(error, Error::NotFinite { index: Some(0), .. }), "{error}");
        let message = error.to_string();
        assert!(message.starts_with(&format!("{name}: the model's answer holds ")), "{message}");
        assert!(message.ends_with("(`--precision bf16|f32`)"), "{message}");
    };
    let folder = huge(sequence(config(&["entailment", "contradiction"])), "classifier.bias");
    let request = [RankRequest::new("a", vec!["b".into()])];
    check("text 0", &|options| Classifier::from_folder(&folder, options).unwrap().classify(["a"]).err());
    check("request 0, passage 0", &|options| Reranker::from_folder(&folder, options).unwrap().rank(&request).err());
    check("text 0", &|options| {
        ZeroShot::from_folder(&folder, options)
            .unwrap()
            .classify(&["a"], &["b", "c"], &ZeroShotOptions::default())
            .err()
    });
    let folder = huge(crate::support::folder(config(&["A", "O"]), TokenClassification::new), "classifier.bias");
    check("text 0", &|options| {
        TokenTagger::from_folder(&folder, options).unwrap().tag(&["a"], TagOptions::default()).err()
    });
    let folder = huge(crate::support::folder(config(&[]), QuestionAnswering::new), "qa_outputs.bias");
    check("question 0", &|options| {
        let questions = [question("a", "b")];
        QuestionAnswerer::from_folder(&folder, options).unwrap().answer(&questions, &AnswerOptions::default()).err()
    });
    let folder = huge(masked_lm(MaskedLmLayout::EnhancedMaskDecoder), "lm_predictions.lm_head.bias");
    check("text 0", &|options| FillMask::from_folder(&folder, options).unwrap().fill(&["a [MASK]"], 1).err());
    let folder = huge(sequence(config(&["a", "b"])), "deberta.encoder.layer.1.output.LayerNorm.bias");
    check("text 0", &|options| Embedder::from_folder(&folder, options).unwrap().embed(["a"]).err());

    let broken = with_value(sequence(config(&["a", "b"])), "classifier.bias", f32::NAN);
    let error = Classifier::from_folder(&broken, options()).unwrap().classify(["a"]).unwrap_err().to_string();
    assert!(error.contains("holds NaN, expected finite numbers; the checkpoint's weights are damaged"), "{error}");
}
