//! Vectors for texts.

use std::fs;

use burn::{
    Tensor,
    tensor::{Device, Int},
};
use deberta_burn::{
    checkpoint::{Checkpoint, LoadOptions},
    pipeline::{EmbedOptions, Embedder, PipelineOptions, Pooling},
};

use crate::{TEXTS, assert_close, input, long_text, message, options, sequence, support::config};

#[test]
fn embeddings_are_pooled_states_of_any_checkpoint() {
    let folder = sequence(config(&["a", "b"]));
    let embedder = |pooling: &[Pooling], normalize| {
        let embedder = Embedder::from_folder(&folder, options()).unwrap();
        embedder.with_options(EmbedOptions { pooling: pooling.to_vec(), normalize })
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
    assert_eq!(found, EmbedOptions { pooling: vec![Pooling::Cls, Pooling::Mean], normalize: true });
    let vectors =
        Embedder::from_folder(&folder, options()).unwrap().with_options(found).unwrap().embed(["war"]).unwrap();
    assert_eq!(vectors[0].len(), 32);
    assert_close(&[vectors[0].iter().map(|x| x * x).sum()], &[1.0]);
    fs::write(pooling.join("config.json"), config.replace("mean_tokens", "moon_tokens")).unwrap();
    let error = message(EmbedOptions::from_folder(&folder));
    assert!(error.contains("1_Pooling/config.json: the pooling `moon_tokens` is not known"), "{error}");
}
