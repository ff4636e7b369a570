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
fn switch_layers_are_read_and_written() {
    let dense = ModelConfig::from_json(r#"{"model_type": "deberta-v2"}"#).unwrap();
    assert!(dense.switch().is_none() && !dense.to_json().contains("switch"));
    for family in ["deberta", "deberta-v2", "roberta"] {
        let text = format!(r#"{{"model_type": "{family}", "switch": {{"num_experts": 4, "expert_capacity": 64}}}}"#);
        let config = ModelConfig::from_json(&text).unwrap();
        let switch = SwitchConfig { num_experts: 4, expert_capacity: Some(64), ..SwitchConfig::default() };
        assert_eq!(config.switch(), Some(&switch));
        assert_eq!(ModelConfig::from_json(&config.to_json()).unwrap(), config);
        assert!(!config.to_json().contains("null"));
    }
    let layers = |sparse_step| {
        let switch = SwitchConfig { sparse_step, ..SwitchConfig::default() };
        (0..6).filter(|layer| switch.is_switch(*layer)).collect::<Vec<_>>()
    };
    assert_eq!([1, 2, 4].map(layers), [vec![0, 1, 2, 3, 4, 5], vec![1, 3, 5], vec![1, 5]]);
}

#[test]
fn labels_are_read_as_they_are_written() {
    for (keys, labels) in [
        (r#""id2label": {"1": 5, "0": "4"}"#, vec!["4", "5"]),
        (r#""id2label": {"0": false, "1": 2.5, " 2 ": "x"}"#, vec!["false", "2.5", "x"]),
        (r#""label2id": {"no": 1, "yes": 0}"#, vec!["yes", "no"]),
        (r#""label2id": {"no": "1", "yes": "0"}, "num_labels": 7"#, vec!["yes", "no"]),
        (r#""id2label": {"0": "a"}, "label2id": {"b": 4}"#, vec!["a"]),
        (r#""id2label": null, "label2id": null, "num_labels": 2"#, vec!["LABEL_0", "LABEL_1"]),
    ] {
        let config = ModelConfig::from_json(&format!(r#"{{"model_type": "deberta-v2", {keys}}}"#)).unwrap();
        assert_eq!(config.task().labels, labels, "{keys}");
    }
}

#[test]
fn json_is_read_as_python_writes_it() {
    let config = |keys: &str| format!("\u{feff}{{\"model_type\": \"deberta-v2\", {keys}}}");
    let unread = config(r#""a": NaN, "b": [Infinity, {"c": -Infinity}], "task_specific_params": {"NaN": NaN}"#);
    let read = ModelConfig::from_json(&unread).unwrap();
    assert_eq!(ModelConfig::from_json(&read.to_json()).unwrap(), read);
    for (keys, problem) in [
        (r#""layer_norm_eps": NaN"#, r#"`layer_norm_eps` is "NaN""#),
        (r#""hidden_size": Infinity"#, r#"`hidden_size` is "Infinity""#),
        (r#""norm_rel_ebd": NaN"#, "`norm_rel_ebd` is `NaN`"),
        (r#""pos_att_type": -Infinity"#, r#"`pos_att_type` is "-Infinity""#),
        (r#""num_labels": NaN"#, r#"`num_labels` is "NaN""#),
    ] {
        let message = message(&config(keys));
        assert!(message.contains(problem) && message.contains("expected"), "{keys}: {message}");
    }
}

#[test]
fn absolute_positions_limit_the_length_wherever_they_are() {
    let limit = |keys: &str| ModelConfig::from_json(&format!("{{{keys}}}")).unwrap().max_length();
    let v3 = r#""model_type": "deberta-v2", "max_position_embeddings": 64, "position_biased_input": false"#;
    assert_eq!(limit(v3), None);
    assert_eq!(limit(&format!(r#"{v3}, "architectures": ["DebertaV2ForSequenceClassification"]"#)), None);
    // The enhanced mask decoder has a table of its own.
    assert_eq!(limit(&format!(r#"{v3}, "architectures": ["DebertaV2ForMaskedLM"]"#)), Some(64));
    assert_eq!(limit(r#""model_type": "deberta", "max_position_embeddings": 64"#), Some(64));
    assert_eq!(limit(r#""model_type": "roberta", "max_position_embeddings": 66"#), Some(64));
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
        (r#"{"model_type": "bert"}"#, "`model_type`: `bert` is not supported"),
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
        // Tables that no computer holds, and products beyond the integers.
        (r#"{"model_type": "deberta-v2", "vocab_size": 268435456}"#, "`vocab_size` is 268435456"),
        (r#"{"model_type": "deberta-v2", "type_vocab_size": 18446744073709551615}"#, "`type_vocab_size`"),
        (r#"{"model_type": "deberta-v2", "type_vocab_size": 268435456}"#, "`type_vocab_size`"),
        (r#"{"model_type": "deberta-v2", "embedding_size": 0}"#, "`embedding_size` is 0"),
        (r#"{"model_type": "deberta-v2", "embedding_size": 268435456}"#, "`vocab_size`"),
        (r#"{"model_type": "deberta-v2", "attention_head_size": 0}"#, "`attention_head_size` is 0"),
        (r#"{"model_type": "deberta-v2", "attention_head_size": 9223372036854775808}"#, "`attention_head_size`"),
        (r#"{"model_type": "deberta-v2", "intermediate_size": 268435456}"#, "`intermediate_size`"),
        (r#"{"model_type": "deberta-v2", "hidden_size": 268435456, "num_attention_heads": 1}"#, "`vocab_size`"),
        (r#"{"model_type": "deberta-v2", "max_position_embeddings": 268435456}"#, "`max_position_embeddings`"),
        (r#"{"model_type": "deberta-v2", "max_relative_positions": 9223372036854775807}"#, "`max_relative_positions`"),
        (r#"{"model_type": "deberta-v2", "max_relative_positions": 200000000}"#, "`max_relative_positions`"),
        (r#"{"model_type": "deberta-v2", "position_buckets": 9223372036854775807}"#, "`position_buckets`"),
        (r#"{"model_type": "deberta-v2", "conv_kernel_size": 18446744073709551615}"#, "`conv_kernel_size`"),
        (r#"{"model_type": "deberta-v2", "conv_kernel_size": 3, "conv_groups": 0}"#, "`conv_groups` is 0"),
        (r#"{"model_type": "deberta-v2", "num_labels": 1000000, "hidden_size": 98304}"#, "`num_labels` is 1000000"),
        (r#"{"model_type": "deberta-v2", "num_labels": 18446744073709551615}"#, "`num_labels`"),
        (r#"{"model_type": "deberta-v2", "label2id": {"a": 0, "b": 2}}"#, "`label2id`"),
        (r#"{"model_type": "deberta-v2", "label2id": {"a": 0, "b": 0}}"#, "`label2id`"),
        (r#"{"model_type": "deberta-v2", "label2id": {}}"#, "`label2id`"),
        (r#"{"model_type": "deberta-v2", "id2label": {"0": ["a"]}}"#, "`id2label`"),
        (r#"{"model_type": "deberta-v2", "norm_rel_ebd": "rms"}"#, "`norm_rel_ebd` is `rms`"),
        (r#"{"model_type": "roberta", "type_vocab_size": 0}"#, "`type_vocab_size` is 0"),
        (r#"{"model_type": "roberta", "max_position_embeddings": 18446744073709551615}"#, "`max_position_embeddings`"),
        (r#"{"model_type": "roberta", "vocab_size": 268435456}"#, "`vocab_size`"),
        (r#"{"model_type": "roberta", "pad_token_id": 18446744073709551615}"#, "`pad_token_id`"),
        (r#"{"model_type": "roberta", "switch": {"num_experts": 0}}"#, "`switch.num_experts` is 0"),
        (r#"{"model_type": "roberta", "switch": {"num_experts": "8"}}"#, "`switch.num_experts` is \"8\""),
        (r#"{"model_type": "roberta", "switch": {"experts": 8}}"#, "`num_experts`"),
        (r#"{"model_type": "roberta", "num_hidden_layers": 1, "switch": {}}"#, "`switch.sparse_step` is 2"),
        (r#"{"model_type": "deberta", "switch": {"sparse_step": 0}}"#, "`switch.sparse_step` is 0"),
        (r#"{"model_type": "deberta", "switch": {"capacity_factor": 0}}"#, "`switch.capacity_factor` is 0"),
        (r#"{"model_type": "deberta", "switch": {"eval_capacity_factor": -1}}"#, "`switch.eval_capacity_factor` is -1"),
        (r#"{"model_type": "deberta", "switch": {"expert_capacity": 0}}"#, "`switch.expert_capacity`"),
        (r#"{"model_type": "deberta", "switch": {"router_jitter_noise": 1}}"#, "`switch.router_jitter_noise` is 1"),
        (r#"{"model_type": "deberta", "switch": {"router_z_loss_coef": -1}}"#, "`switch.router_z_loss_coef` is -1"),
        (r#"{"model_type": "xlm-roberta"}"#, "mDeBERTa"),
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
