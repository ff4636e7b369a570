//! Words for masks.

use std::fs;

use burn::tensor::Device;
use deberta_burn::{
    ModelConfig, RobertaConfig,
    checkpoint::{self, Checkpoint, LoadOptions},
    heads::{MaskedLm, MaskedLmLayout, ReplacedTokenDetection, SequenceClassification},
    pipeline::{Classifier, FillMask, PipelineOptions},
};

use crate::{
    assert_close, input, long_text, masked_lm, message, options, sequence,
    support::{LENGTH, config, folder, repository::fixture},
};

#[test]
fn masks_are_filled_by_the_enhanced_mask_decoder() {
    let folder = masked_lm(MaskedLmLayout::EnhancedMaskDecoder);
    let model = FillMask::from_folder(&folder, options()).unwrap();
    assert!(model.head().contains("enhanced mask decoder"), "{}", model.head());
    let texts = ["[MASK] of the people", "war", "the [MASK] and the [MASK] of nations"]
        .map(|text| text.replace("war", "[MASK]"));
    let filled = model.fill(&texts, 4).unwrap();
    assert_eq!(filled.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 2]);

    let head = MaskedLm::new(&config(&[]).into(), MaskedLmLayout::EnhancedMaskDecoder, &Device::flex()).unwrap();
    let (head, _) = Checkpoint::open(&folder).unwrap().load(head, &LoadOptions::default()).unwrap();
    for (text, masks) in texts.iter().zip(&filled) {
        let scores = burn::tensor::activation::softmax(head.forward(input(folder.path(), text)), 2);
        for mask in masks {
            let scores = scores.clone().slice([0..1, mask.position..mask.position + 1]).into_data();
            let scores = scores.try_to_vec::<f32>().unwrap();
            assert_eq!(mask.words.len(), 4);
            assert!(mask.words.is_sorted_by(|a, b| a.score >= b.score));
            for word in &mask.words {
                assert_close(&[word.score], &[scores[word.id as usize]]);
            }
            // Rows of the table beyond the vocabulary are no words.
            let best = (0..1536).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap();
            assert_eq!(mask.words[0].id as usize, best);
        }
    }
}

#[test]
fn the_head_in_the_file_decides() {
    for (layout, head) in [(MaskedLmLayout::Legacy, "cls.predictions"), (MaskedLmLayout::LastLayer, "last layer")] {
        let mut config = config(&[]);
        config.legacy = layout == MaskedLmLayout::Legacy;
        let folder = folder(config, |config, device| MaskedLm::new(config, layout, device).unwrap());
        let model = FillMask::from_folder(&folder, options()).unwrap();
        assert!(model.head().contains(head), "{layout:?}: {}", model.head());
        assert_eq!(model.fill(&["a [MASK]"], 3).unwrap()[0][0].words.len(), 3);
    }
}

#[test]
fn fill_mask_says_what_it_cannot_do() {
    let folder = masked_lm(MaskedLmLayout::EnhancedMaskDecoder);
    let model = FillMask::from_folder(&folder, options()).unwrap();
    assert!(message(model.fill(&["a [MASK]", "no mask"], 1)).starts_with("text 1: it holds no [MASK]"));
    let error = message(model.fill(&[format!("{} [MASK]", long_text())], 1));
    assert!(error.contains("text 0") && error.contains("shorten it"), "{error}");
    assert!(message(model.fill(&[""; 0], 1)).contains("there are none"));

    let discriminator = crate::support::folder(config(&[]), ReplacedTokenDetection::new);
    assert!(message(FillMask::from_folder(&discriminator, options())).contains("discriminator"));
    let classifier = sequence(config(&["a", "b"]));
    assert!(message(FillMask::from_folder(&classifier, options())).contains("no language model head"));
    // The decoder's absolute positions are a limit that the encoder does not have.
    let long = PipelineOptions { max_length: Some(LENGTH + 1), ..options() };
    let error = message(FillMask::from_folder(&folder, long));
    assert!(error.contains("max length: it is 33") && error.contains("end at 32"), "{error}");
}

#[test]
fn roberta_serves_too() {
    let folder = tempfile::tempdir().unwrap();
    let source = fixture("tokenizers/roberta");
    for file in ["vocab.json", "merges.txt"] {
        fs::copy(source.join(file), folder.path().join(file)).unwrap();
    }
    let mut config = RobertaConfig {
        vocab_size: 501,
        hidden_size: 16,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        intermediate_size: 24,
        max_position_embeddings: 34,
        initializer_range: 0.5,
        pad_token_id: 1,
        ..RobertaConfig::default()
    };
    let device = Device::flex();

    let masked_lm = ModelConfig::from(config.clone());
    let model = MaskedLm::new(&masked_lm, MaskedLmLayout::LastLayer, &device).unwrap();
    checkpoint::write(&model, &masked_lm, folder.path(), None).unwrap();
    let model = FillMask::from_folder(&folder, options()).unwrap();
    let [ours, theirs] = &model.fill(&["a [MASK] b", "a <mask> b"], 2).unwrap()[..] else { panic!("two texts") };
    assert_eq!(ours[0].words[0].id, theirs[0].words[0].id);

    config.task = config.task.with_num_labels(2);
    let config = ModelConfig::from(config);
    let model = SequenceClassification::new(&config, &device);
    checkpoint::write(&model, &config, folder.path(), None).unwrap();
    let classifier = Classifier::from_folder(&folder, options()).unwrap();
    let batch = classifier.classify(["a", "a longer text"]).unwrap();
    let single = classifier.classify(["a"]).unwrap();
    let score = |scores: &[deberta_burn::pipeline::LabelScore]| {
        scores.iter().find(|score| score.label == "LABEL_0").unwrap().score
    };
    assert_close(&[score(&batch[0])], &[score(&single[0])]);
}
