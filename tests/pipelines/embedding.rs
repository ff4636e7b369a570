//! Vectors for texts.

use std::{fs, path::Path};

use burn::{
    Tensor,
    tensor::{Device, FloatDType, Int},
};
use deberta_burn::{
    checkpoint::{self, Checkpoint, LoadOptions, RangePolicy, copy_sentence_modules, write_sentence_modules},
    pipeline::{EmbedOptions, Embedder, Pipeline, PipelineOptions, Pooling},
    tokenizer::Tokenizer,
};
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    TEXTS, assert_close, input, long_text, message, options, sequence,
    support::{LENGTH, config},
};

#[test]
fn embeddings_are_pooled_states_of_any_checkpoint() {
    let folder = sequence(config(&["a", "b"]));
    let embedder = |pooling: &[Pooling], normalize| {
        let embedder = Embedder::from_folder(&folder, options()).unwrap();
        embedder.with_options(EmbedOptions { pooling: pooling.to_vec(), normalize, ..EmbedOptions::default() })
    };
    let embed = |pooling: &[Pooling], normalize| embedder(pooling, normalize).unwrap().embed(TEXTS).unwrap();
    let single = |pooling| embed(&[pooling], false);
    let (mean, cls, max) = (single(Pooling::Mean), single(Pooling::Cls), single(Pooling::Max));
    let (last, weighted) = (single(Pooling::LastToken), single(Pooling::WeightedMean));

    let (model, _) =
        Checkpoint::open(&folder).unwrap().load(config(&[]).init(&Device::flex()), &LoadOptions::default()).unwrap();
    for (index, text) in TEXTS.iter().enumerate() {
        let states = model.forward(input(folder.path(), text)).last_hidden_state;
        let values = |tensor: Tensor<3>| tensor.into_data().try_to_vec::<f32>().unwrap();
        assert_close(&mean[index], &values(states.clone().mean_dim(1)));
        assert_close(&cls[index], &values(states.clone().narrow(1, 0, 1)));
        assert_close(&max[index], &values(states.clone().max_dim(1)));
        let length = states.dims()[1];
        assert_close(&last[index], &values(states.clone().narrow(1, length - 1, 1)));
        let weights = Tensor::<1, Int>::arange(1..length as i64 + 1, &Device::flex()).float().reshape([1, length, 1]);
        let total = weights.clone().sum().into_scalar::<f32>();
        assert_close(&weighted[index], &values((states * weights).sum_dim(1) / total));
    }
    // Several are put one behind the other.
    let both = embed(&[Pooling::Cls, Pooling::Mean], false);
    assert_close(&both[1], &[&cls[1][..], &mean[1]].concat());
    assert!(message(embedder(&[], false)).contains("no pooling is named"));
    for (unit, mean) in embed(&[Pooling::Mean], true).iter().zip(&mean) {
        let length = mean.iter().map(|x| x * x).sum::<f32>().sqrt();
        assert_close(unit, &mean.iter().map(|x| x / length).collect::<Vec<_>>());
    }
    assert_eq!(mean[0].len(), 16);
}

#[test]
fn long_texts_are_cut_where_there_are_no_windows() {
    let folder = sequence(config(&["a", "b"]));
    let embedder = Embedder::from_folder(&folder, options()).unwrap();
    let embed = |text: &str| embedder.embed([text]).unwrap().remove(0);
    let long = long_text();
    assert_eq!(embed(&long), embed(&format!("{long} and more of it")));
    let short = PipelineOptions { max_length: Some(8), ..options() };
    assert_ne!(Embedder::from_folder(&folder, short).unwrap().embed([&long]).unwrap()[0], embed(&long));
}

#[test]
fn a_folder_of_sentence_transformers_says_how_to_pool() {
    let folder = sequence(config(&["a", "b"]));
    assert_eq!(EmbedOptions::from_folder(&folder).unwrap(), None);
    let pooling = folder.path().join("1_Pooling");
    fs::create_dir(&pooling).unwrap();
    let config =
        r#"{"word_embedding_dimension": 16, "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true}"#;
    fs::write(pooling.join("config.json"), config).unwrap();
    let modules =
        r#"[{"type": "sentence_transformers.models.Transformer"}, {"type": "sentence_transformers.models.Normalize"}]"#;
    fs::write(folder.path().join("modules.json"), modules).unwrap();
    let found = EmbedOptions::from_folder(&folder).unwrap().unwrap();
    let expected =
        EmbedOptions { pooling: vec![Pooling::Cls, Pooling::Mean], normalize: true, ..EmbedOptions::default() };
    assert_eq!(found, expected);
    let vectors =
        Embedder::from_folder(&folder, options()).unwrap().with_options(found).unwrap().embed(["war"]).unwrap();
    assert_eq!(vectors[0].len(), 32);
    assert_close(&[vectors[0].iter().map(|x| x * x).sum()], &[1.0]);
    fs::write(pooling.join("config.json"), config.replace("mean_tokens", "moon_tokens")).unwrap();
    let error = message(EmbedOptions::from_folder(&folder));
    assert!(error.contains("1_Pooling/config.json: the pooling `moon_tokens` is not known"), "{error}");
}

#[test]
fn a_folder_of_sentence_transformers_says_how_long_texts_are() {
    let folder = sequence(config(&["a", "b"]));
    let write = |file: &str, content: &str| fs::write(folder.path().join(file), content).unwrap();
    let length = |max_length| {
        let embedder = Embedder::from_folder(&folder, PipelineOptions { max_length, ..options() });
        embedder.map(|embedder| embedder.runner().max_length())
    };
    write("sentence_bert_config.json", r#"{"max_seq_length": 12, "do_lower_case": false}"#);
    assert_eq!(length(None).unwrap(), LENGTH, "there is no pooling in it");
    write_sentence_modules(&folder, Pooling::Mean).unwrap();
    assert_eq!((length(None).unwrap(), length(Some(20)).unwrap()), (12, 20), "the caller is free");
    // Before the tokenizer's.
    let path = folder.path().join("tokenizer_config.json");
    let mut settings: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    settings["model_max_length"] = 8.into();
    write("tokenizer_config.json", &settings.to_string());
    assert_eq!(length(None).unwrap(), 12);
    write("sentence_bert_config.json", r#"{"max_seq_length": null}"#);
    assert_eq!(length(None).unwrap(), 8);
    write("sentence_bert_config.json", r#"{"max_seq_length": 0}"#);
    let error = message(length(None));
    assert!(error.contains("sentence_bert_config.json: config key `max_seq_length` is 0"), "{error}");
}

#[test]
fn a_length_beyond_the_models_positions_is_cut_to_them() {
    let mut config = config(&["a", "b"]);
    config.position_biased_input = true;
    let folder = sequence(config);
    write_sentence_modules(&folder, Pooling::Mean).unwrap();
    fs::write(folder.path().join("sentence_bert_config.json"), r#"{"max_seq_length": 1000}"#).unwrap();
    assert_eq!(Embedder::from_folder(&folder, options()).unwrap().runner().max_length(), LENGTH);
}

/// Puts a linear map into a folder: the first numbers of a vector, each times two and plus one.
fn write_dense(folder: &Path, inputs: usize, config: &str) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("config.json"), config).unwrap();
    let weight: Vec<f32> = (0..2 * inputs).map(|index| if index % (inputs + 1) == 0 { 2.0 } else { 0.0 }).collect();
    let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let (weight, bias) = (bytes(&weight), bytes(&[1.0; 2]));
    let tensors = [("linear.weight", vec![2, inputs], &weight), ("linear.bias", vec![2], &bias)];
    let views = tensors.map(|(name, shape, bytes)| (name, TensorView::new(Dtype::F32, shape, bytes).unwrap()));
    safetensors::serialize_to_file(views, None, &folder.join("model.safetensors")).unwrap();
}

#[test]
fn pooled_vectors_pass_linear_maps_and_are_cut() {
    let folder = sequence(config(&["a", "b"]));
    let map = folder.path().join("2_Dense");
    let identity = r#"{"in_features": 16, "out_features": 2, "bias": true,
        "activation_function": "torch.nn.modules.linear.Identity"}"#;
    write_dense(&map, 16, identity);
    let embed = |how: EmbedOptions| {
        let embedder = Embedder::from_folder(&folder, options()).unwrap();
        embedder.with_options(how).map(|embedder| embedder.embed(TEXTS).unwrap())
    };
    let plain = embed(EmbedOptions::default()).unwrap();
    let mapped = || EmbedOptions { dense: vec![map.clone()], ..EmbedOptions::default() };
    let doubled = |vector: &[f32]| vector[..2].iter().map(|x| 2.0 * x + 1.0).collect::<Vec<f32>>();
    for (vector, plain) in embed(mapped()).unwrap().iter().zip(&plain) {
        assert_close(vector, &doubled(plain));
    }
    // The beginning of a vector, with a length of its own.
    let cut = embed(EmbedOptions { size: Some(5), normalize: true, ..EmbedOptions::default() }).unwrap();
    for (vector, plain) in cut.iter().zip(&plain) {
        let length = plain[..5].iter().map(|x| x * x).sum::<f32>().sqrt();
        assert_close(vector, &plain[..5].iter().map(|x| x / length).collect::<Vec<_>>());
    }
    for (size, most) in [(0, 16), (17, 16)] {
        let error = message(embed(EmbedOptions { size: Some(size), ..EmbedOptions::default() }));
        assert_eq!(error, format!("size: it is {size}, expected from 1 to {most}, the numbers of a vector"));
    }
    assert!(message(embed(EmbedOptions { size: Some(3), ..mapped() })).contains("from 1 to 2, the numbers"));

    // A file that names no activation function means the hyperbolic tangent.
    write_dense(&map, 16, r#"{"in_features": 16, "out_features": 2}"#);
    for (vector, plain) in embed(mapped()).unwrap().iter().zip(&plain) {
        assert_close(vector, &doubled(plain).into_iter().map(f32::tanh).collect::<Vec<_>>());
    }
    for (inputs, config, expected) in [
        (8, identity.replace("16", "8"), "it takes vectors of 8 numbers, but those in front of it have 16"),
        (8, identity.to_owned(), "`linear.weight`"),
        (
            16,
            identity.replace("linear.Identity", "activation.GELU"),
            "`torch.nn.modules.activation.GELU` is not supported",
        ),
        (16, identity.replace("true", r#"true, "use_residual": true"#), "`use_residual`"),
        (16, identity.replace("true", r#"true, "module_input_name": "token_embeddings""#), "`module_input_name`"),
        (16, r#"{"in_features": 16}"#.to_owned(), "2_Dense/config.json"),
    ] {
        write_dense(&map, inputs, &config);
        let error = message(embed(mapped()));
        assert!(error.contains(expected) && error.contains("2_Dense"), "{error}");
    }
    write_dense(&map, 16, identity);
    fs::remove_file(map.join("model.safetensors")).unwrap();
    assert!(message(embed(mapped())).contains("there are no weights in it"));
}

#[test]
fn a_rewritten_folder_embeds_as_before() {
    let folder = sequence(config(&["a", "b"]));
    write_sentence_modules(&folder, Pooling::Max).unwrap();
    write_dense(&folder.path().join("2_Map"), 16, r#"{"in_features": 16, "out_features": 2}"#);
    let modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Map", "Dense"), ("3_Normalize", "Normalize")];
    let module =
        |(path, class): (&str, &str)| json!({"path": path, "type": format!("sentence_transformers.models.{class}")});
    fs::write(folder.path().join("modules.json"), json!(modules.map(module)).to_string()).unwrap();
    fs::write(folder.path().join("sentence_bert_config.json"), r#"{"max_seq_length": 8}"#).unwrap();

    let copy = TempDir::new().unwrap();
    let checkpoint = Checkpoint::open(&folder).unwrap();
    checkpoint::rewrite(&checkpoint, &copy, FloatDType::F32, RangePolicy::Refuse).unwrap();
    Tokenizer::from_folder(&folder).unwrap().save(&copy).unwrap();
    copy_sentence_modules(&folder, &copy).unwrap();
    let vectors = |folder: &TempDir| {
        let how = EmbedOptions::from_folder(folder).unwrap().unwrap();
        let embedder = Embedder::from_folder(folder, options()).unwrap().with_options(how).unwrap();
        embedder.embed([long_text().as_str(), TEXTS[1]]).unwrap()
    };
    for (found, expected) in vectors(&copy).iter().zip(vectors(&folder)) {
        assert_close(found, &expected);
    }
}

#[test]
fn every_pooling_that_is_written_is_read() {
    let folder = sequence(config(&["a", "b"]));
    for pooling in Pooling::ALL {
        write_sentence_modules(&folder, pooling).unwrap();
        let found = EmbedOptions::from_folder(&folder).unwrap().unwrap();
        assert_eq!(found, EmbedOptions { pooling: vec![pooling], ..EmbedOptions::default() });
    }
    assert!(!folder.path().join("2_Dense").exists());
}
