use super::*;

fn message(text: &str) -> String {
    ModelConfig::from_json(text).expect_err("an impossible configuration").to_string()
}

#[test]
fn missing_keys_take_the_reference_defaults() {
    let config = DebertaConfig::from_json(r#"{"model_type": "deberta-v2"}"#).unwrap();
    assert_eq!(config, DebertaConfig::new(DebertaVersion::V2));
    assert_eq!(config.hidden_size, 1536);
    assert!(config.position_biased_input && !config.relative_attention && config.pos_att_type.count() == 0);
    let config = DebertaConfig::from_json(r#"{"model_type": "deberta"}"#).unwrap();
    assert_eq!((config.vocab_size, config.num_hidden_layers), (50265, 12));
    assert_eq!(RobertaConfig::from_json(r#"{"model_type": "roberta"}"#).unwrap(), RobertaConfig::default());
}

#[test]
fn position_terms_are_a_string_or_a_list() {
    for (text, c2p, p2c) in [
        (r#""p2c|c2p""#, true, true),
        (r#"["c2p", "p2c"]"#, true, true),
        (r#""C2P""#, true, false),
        (r#"[]"#, false, false),
        ("null", false, false),
    ] {
        let config =
            DebertaConfig::from_json(&format!(r#"{{"model_type": "deberta", "pos_att_type": {text}}}"#)).unwrap();
        assert_eq!(config.pos_att_type, PositionTerms { c2p, p2c }, "{text}");
    }
}

#[test]
fn unknown_keys_survive_a_round_trip() {
    let text = r#"{"model_type": "deberta-v2", "hidden_size": 64, "num_attention_heads": 4, "summary_type": "first",
        "id2label": {"1": "yes", "0": "no"}, "problem_type": "single_label_classification"}"#;
    let config = ModelConfig::from_json(text).unwrap();
    assert_eq!(config.task().labels, ["no", "yes"]);
    let again = ModelConfig::from_json(&config.to_json()).unwrap();
    assert_eq!(config, again);
    assert!(again.to_json().contains(r#""summary_type": "first""#));
}

#[test]
fn version_decides_what_a_key_means() {
    let keys = r#""position_buckets": 8, "share_att_key": true, "norm_rel_ebd": "layer_norm", "conv_kernel_size": 3"#;
    let v1 = DebertaConfig::from_json(&format!(r#"{{"model_type": "deberta", {keys}}}"#)).unwrap();
    assert_eq!((v1.position_buckets(), v1.share_projections(), v1.conv_kernel_size()), (None, false, None));
    assert_eq!(v1.attention_span(), 512);
    let v2 = DebertaConfig::from_json(&format!(r#"{{"model_type": "deberta-v2", {keys}}}"#)).unwrap();
    assert_eq!((v2.position_buckets(), v2.share_projections(), v2.conv_kernel_size()), (Some(8), true, Some(3)));
    assert_eq!(v2.attention_span(), 8);
}

#[test]
fn impossible_values_name_their_key() {
    for (json, key) in [
        (r#"{"model_type": "bert"}"#, "`model_type` is `bert`"),
        (r#"{}"#, "`model_type` is missing"),
        (r#"{"model_type": "deberta-v2", "num_attention_heads": 7}"#, "`num_attention_heads` is 7"),
        (r#"{"model_type": "deberta-v2", "num_attention_heads": 0}"#, "`num_attention_heads` is 0"),
        (r#"{"model_type": "deberta-v2", "hidden_size": "wide"}"#, "`hidden_size` is \"wide\""),
        (r#"{"model_type": "deberta-v2", "hidden_size": -1}"#, "`hidden_size` is -1, expected usize"),
        (r#"{"model_type": "deberta-v2", "num_hidden_layers": 18446744073709551615}"#, "`num_hidden_layers`"),
        (r#"{"model_type": "roberta", "num_hidden_layers": 1000000000000}"#, "`num_hidden_layers`"),
        (
            r#"{"model_type": "deberta-v2", "max_position_embeddings": 9223372036854775808}"#,
            "`max_position_embeddings`",
        ),
        (r#"{"model_type": "deberta-v2", "hidden_dropout_prob": 1.5}"#, "`hidden_dropout_prob` is 1.5"),
        (r#"{"model_type": "deberta-v2", "hidden_act": "mish2"}"#, "`hidden_act` is \"mish2\""),
        (r#"{"model_type": "deberta-v2", "pos_att_type": "p2p"}"#, "`pos_att_type` is \"p2p\""),
        (r#"{"model_type": "deberta-v2", "position_buckets": 2000}"#, "`position_buckets` is 2000"),
        (r#"{"model_type": "deberta-v2", "conv_kernel_size": 2}"#, "`conv_kernel_size` is 2"),
        (r#"{"model_type": "deberta-v2", "id2label": {"0": "a", "2": "b"}}"#, "`id2label`"),
        (r#"{"model_type": "deberta-v2", "num_labels": 0}"#, "`num_labels` is 0"),
        (r#"{"model_type": "deberta-v2", "problem_type": "ranking"}"#, "`problem_type` is \"ranking\""),
        (r#"{"model_type": "roberta", "max_position_embeddings": 2}"#, "`max_position_embeddings` is 2"),
        (r#"{"model_type": "roberta", "pad_token_id": 60000}"#, "`pad_token_id` is 60000"),
    ] {
        let message = message(json);
        assert!(message.contains(key), "{json}: {message}");
        assert!(message.contains("expected"), "{json}: {message}");
    }
    assert!(message("{").contains("not valid JSON"));
    assert!(message("[]").contains("not valid JSON"));
}

#[test]
fn presets_are_the_published_architectures() {
    for preset in Preset::ALL {
        let config = preset.config();
        assert_eq!(preset.name().parse::<Preset>().unwrap(), *preset);
        assert_eq!(ModelConfig::from_json(&config.to_json()).unwrap(), config);
    }
    assert_eq!("microsoft/deberta-v3-base".parse::<Preset>().unwrap(), Preset::DebertaV3Base);
    assert!("deberta-v9".parse::<Preset>().unwrap_err().to_string().contains("deberta-v3-large"));
}
