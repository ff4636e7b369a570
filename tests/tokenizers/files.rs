//! Saving, loading, and what the files beside a vocabulary say.

use std::{collections::BTreeMap, fs};

use deberta_burn::tokenizer::{EncodeOptions, Text, Tokenizer, TruncationSide};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{fixture, ids_of, length::LONG, load, one, read, reference::Lines, repository};

#[test]
fn saving_and_loading_changes_nothing() {
    let lines: Lines = read(&fixture("spm/expected.json"));
    let texts: Vec<Text> = lines.lines.iter().map(Text::from).collect();
    for folder in ["spm", "deberta", "roberta"] {
        let tokenizer = load(folder);
        let saved = TempDir::new().unwrap();
        tokenizer.save(saved.path()).unwrap();
        let mut names: Vec<_> = fs::read_dir(saved.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["tokenizer.json", "tokenizer_config.json"], "no temporary file is left");
        let loaded = Tokenizer::from_folder(saved.path()).unwrap();
        assert_eq!(ids_of(&loaded, &texts, true), ids_of(&tokenizer, &texts, true), "{folder}");
        assert_eq!(
            loaded.encode(&[("no", "war").into()], &EncodeOptions::default()).unwrap(),
            [one(&tokenizer, ("no", "war"))]
        );
        assert_eq!((loaded.mask_id(), loaded.vocab_size()), (tokenizer.mask_id(), tokenizer.vocab_size()));
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = load("deberta").save(&file).unwrap_err().to_string();
    assert!(error.starts_with("cannot create") && error.contains("file"), "{error}");
}

#[test]
fn a_small_tokenizer_loads() {
    let tokenizer = Tokenizer::from_folder(repository::fixture("small_tokenizer")).unwrap();
    assert_eq!((tokenizer.vocab_size(), tokenizer.mask_id()), (1536, 1535));
    let text = "The film is a [MASK] of peace and prosperity.";
    let encoding = one(&tokenizer, text);
    assert!(!encoding.ids.contains(&tokenizer.unk_id()));
    assert_eq!(encoding.ids.iter().filter(|&&id| id == tokenizer.mask_id()).count(), 1);
}

#[test]
fn length_settings_of_a_file_are_the_callers_business() {
    let saved = TempDir::new().unwrap();
    load("spm").save(saved.path()).unwrap();
    let path = saved.path().join("tokenizer.json");
    let mut json: serde_json::Value = read(&path);
    json["truncation"] =
        serde_json::json!({"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0});
    json["padding"] = serde_json::json!({"strategy": {"Fixed": 160}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"});
    fs::write(&path, json.to_string()).unwrap();
    assert_eq!(one(&Tokenizer::from_folder(saved.path()).unwrap(), LONG), one(&load("spm"), LONG));
}

#[derive(Deserialize)]
struct Settings {
    vocabulary: String,
    files: BTreeMap<String, Value>,
    texts: Vec<String>,
    ids: Vec<Vec<u32>>,
}

/// A folder with one of the vocabularies, and files beside it.
fn with_files<'a>(vocabulary: &str, files: impl IntoIterator<Item = (&'a str, String)>) -> TempDir {
    let folder = TempDir::new().unwrap();
    for file in fs::read_dir(fixture(vocabulary)).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    for (name, content) in files {
        fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

#[test]
fn files_beside_a_vocabulary_change_what_they_change_in_transformers() {
    let cases: Vec<Settings> = read(&fixture("settings.json"));
    assert_eq!(cases.len(), 20);
    for Settings { vocabulary, files, texts, ids } in cases {
        let written = files.iter().map(|(name, content)| (name.as_str(), content.to_string()));
        let folder = with_files(&vocabulary, written);
        let tokenizer = Tokenizer::from_folder(&folder).unwrap();
        // And again from what it saves.
        let saved = TempDir::new().unwrap();
        tokenizer.save(&saved).unwrap();
        for tokenizer in [tokenizer, Tokenizer::from_folder(&saved).unwrap()] {
            let inputs: Vec<Text> = texts.iter().map(Text::from).collect();
            for ((text, found), expected) in texts.iter().zip(ids_of(&tokenizer, &inputs, false)).zip(&ids) {
                assert_eq!(found, *expected, "{vocabulary} with {files:?}: {text:?}");
            }
        }
    }
}

#[test]
fn settings_of_a_tokenizer_json_give_way_to_those_beside_it() {
    let saved = TempDir::new().unwrap();
    load("roberta").save(&saved).unwrap();
    let json: Value = read(&saved.path().join("tokenizer.json"));
    let with = |change: fn(&mut Value), config: Value| {
        let (folder, mut json) = (TempDir::new().unwrap(), json.clone());
        change(&mut json);
        fs::write(folder.path().join("tokenizer.json"), json.to_string()).unwrap();
        fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
        Tokenizer::from_folder(&folder).unwrap()
    };
    let spaced = one(&load("roberta"), " the peace").ids;
    let prefix = with(|_| {}, json!({"add_prefix_space": true}));
    assert_eq!(one(&prefix, "the peace").ids, spaced);
    let own = with(|json| json["pre_tokenizer"]["add_prefix_space"] = true.into(), json!({}));
    assert_eq!(one(&own, "the peace").ids, spaced);
    let without =
        with(|json| json["pre_tokenizer"]["add_prefix_space"] = true.into(), json!({"add_prefix_space": false}));
    assert_eq!(one(&without, "the peace").ids, one(&load("roberta"), "the peace").ids);

    // A token that only the configuration has, and other properties for one that the file has.
    let listed = json!({"added_tokens_decoder": {
        "501": {"content": "<e1>", "special": true}, "500": {"content": "<mask>", "lstrip": false, "special": true}
    }});
    let added = with(|_| {}, listed);
    assert_eq!(added.id("<e1>"), Some(501));
    assert_eq!(one(&added, "the <mask>").len(), one(&load("roberta"), "the <mask>").len() + 1);

    let left = |json: &mut Value| {
        json["truncation"] = json!({"direction": "Left", "max_length": 4, "strategy": "LongestFirst", "stride": 0})
    };
    assert_eq!(with(left, json!({})).truncation_side(), TruncationSide::Left);
    assert_eq!(with(left, json!({"truncation_side": "right"})).truncation_side(), TruncationSide::Right);
}

#[test]
fn lengths_and_flags_are_read_or_refused() {
    for (config, length) in [
        (r#"{}"#, None),
        (r#"{"model_max_length": 62}"#, Some(62)),
        (r#"{"model_max_length": 62.0, "unread": NaN}"#, Some(62)),
        (r#"{"max_len": 62}"#, Some(62)),
        (r#"{"model_max_length": 1000000000000000019884624838656}"#, None),
        (r#"{"model_max_length": 1e30}"#, None),
        (r#"{"model_max_length": Infinity}"#, None),
        (r#"{"model_max_length": null}"#, None),
    ] {
        let folder = with_files("deberta", [("tokenizer_config.json", format!("\u{feff}{config}"))]);
        let tokenizer = Tokenizer::from_folder(&folder).unwrap();
        assert_eq!(tokenizer.model_max_length(), length, "{config}");
        tokenizer.save(&folder).unwrap();
        assert_eq!(Tokenizer::from_folder(&folder).unwrap().model_max_length(), length, "{config}");
    }
    for (config, problem) in [
        (r#"{"model_max_length": 0}"#, "`model_max_length` is 0"),
        (r#"{"model_max_length": -1}"#, "`model_max_length` is -1"),
        (r#"{"model_max_length": NaN}"#, "`model_max_length` is \"NaN\""),
        (r#"{"truncation_side": "middle"}"#, "`truncation_side` is \"middle\""),
        (r#"{"add_prefix_space": "yes"}"#, "`add_prefix_space` is \"yes\""),
        (r#"{"split_special_tokens": NaN}"#, "`split_special_tokens` is \"NaN\""),
        (r#"{"mask_token": 7}"#, "`mask_token` is 7"),
        (r#"{"mask_token": {"text": "x"}}"#, "`mask_token` is {\"text\":\"x\"}"),
        (r#"{"added_tokens_decoder": []}"#, "`added_tokens_decoder` is []"),
        (r#"{"added_tokens_decoder": {"x": {"content": "y"}}}"#, "`added_tokens_decoder.x` is x"),
        (r#"{"added_tokens_decoder": {"7": {"content": "y", "lstrip": 1}}}"#, "`added_tokens_decoder.7.lstrip` is 1"),
        (r#"{"added_tokens_decoder": {"7": {"content": "<new>"}}}"#, "\"<new>\" has the id 7, which belongs to"),
        (r#"{"added_tokens_decoder": {"501": {"content": "a"}}}"#, "\"a\" has the id 501"),
        (r#"{"added_tokens_decoder": {"501": {"content": "x y"}, "502": {"content": "x y"}}}"#, "\"x y\" has the id"),
        (r#"{"additional_special_tokens": "<e>"}"#, "`additional_special_tokens` is \"<e>\""),
        (r#"[1]"#, "not valid JSON"),
    ] {
        let folder = with_files("deberta", [("tokenizer_config.json", config.to_owned())]);
        let error = Tokenizer::from_folder(&folder).unwrap_err().to_string();
        assert!(error.contains(problem) && error.contains(folder.path().to_str().unwrap()), "{config}: {error}");
    }
}

#[test]
fn a_space_in_front_is_named_in_both_files() {
    for (prefix_space, named) in [(true, Value::Bool(true)), (false, Value::Null)] {
        let settings = json!({"add_prefix_space": prefix_space}).to_string();
        let folder = with_files("roberta", [("tokenizer_config.json", settings)]);
        let saved = TempDir::new().unwrap();
        Tokenizer::from_folder(&folder).unwrap().save(&saved).unwrap();
        let [tokenizer, config] =
            ["tokenizer.json", "tokenizer_config.json"].map(|file| read::<Value>(&saved.path().join(file)));
        assert_eq!(tokenizer["pre_tokenizer"]["add_prefix_space"], prefix_space);
        assert_eq!(config["add_prefix_space"], named);
    }
}

#[test]
fn every_file_may_start_with_a_byte_order_mark() {
    let files = ["vocab.json", "merges.txt", "config.json"];
    let read = |name: &str| format!("\u{feff}{}", fs::read_to_string(fixture("deberta").join(name)).unwrap());
    let marked = with_files("deberta", files.map(|name| (name, read(name))));
    assert_eq!(one(&Tokenizer::from_folder(&marked).unwrap(), LONG), one(&load("deberta"), LONG));
}

#[test]
fn tokens_that_normalise_to_nothing_are_found_as_they_are_written() {
    let tokens = ["[MASK]", "\n", "\u{200b}", "\u{1}"];
    let listed = tokens.iter().enumerate().map(|(index, token)| {
        let is_mask = index == 0;
        ((1000 + index).to_string(), json!({"content": token, "special": is_mask, "normalized": !is_mask}))
    });
    let config = json!({"added_tokens_decoder": Value::Object(listed.collect())}).to_string();
    let folder = with_files("spm", [("tokenizer_config.json", config)]);
    let beside = Tokenizer::from_folder(&folder).unwrap();

    // The same tokens in a tokenizer.json.
    let saved = TempDir::new().unwrap();
    beside.save(&saved).unwrap();
    let path = saved.path().join("tokenizer.json");
    let mut json: Value = read(&path);
    for token in json["added_tokens"].as_array_mut().unwrap() {
        if tokens[1..].iter().any(|new| token["content"] == *new) {
            token["normalized"] = true.into();
        }
    }
    fs::write(&path, json.to_string()).unwrap();

    for tokenizer in [beside, Tokenizer::from_folder(&saved).unwrap()] {
        let ids = |text: &str| ids_of(&tokenizer, &[text.into()], false).remove(0);
        let (the, peace) = (ids("the"), ids("peace"));
        for (token, id) in tokens[1..].iter().zip(1001..) {
            assert_eq!(ids(&format!("the{token}peace")), [&the[..], &[id], &peace].concat(), "{token:?}");
        }
        assert_eq!(ids("the peace"), ids_of(&load("spm"), &["the peace".into()], false)[0]);
    }
}

#[test]
fn added_tokens_follow_the_pieces() {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    fs::copy(fixture("spm/spm.model"), folder.path().join("spm.model")).unwrap();

    write("added_tokens.json", r#"{"[EXTRA]": 1001, "[MASK]": 1000}"#);
    let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
    assert_eq!((tokenizer.mask_id(), tokenizer.id("[EXTRA]")), (1000, Some(1001)));

    // A table may leave ids out, as mDeBERTa's does.
    write("added_tokens.json", r#"{"[MASK]": 1003}"#);
    assert_eq!(Tokenizer::from_folder(folder.path()).unwrap().mask_id(), 1003);

    write("added_tokens.json", r#"{"[MASK]": 7}"#);
    let error = Tokenizer::from_folder(folder.path()).unwrap_err().to_string();
    assert!(error.contains(r#"the added token "[MASK]" has the id 7"#), "{error}");
    write("added_tokens.json", r#"{"[MASK]": -1}"#);
    let error = Tokenizer::from_folder(folder.path()).unwrap_err().to_string();
    assert!(error.contains("added_tokens.json") && error.contains("-1"), "{error}");

    write("added_tokens.json", r#"{"[MASK]": 4000000000}"#);
    let error = Tokenizer::from_folder(folder.path()).unwrap_err().to_string();
    assert!(error.contains("the id 4000000000, far beyond the 1000 tokens"), "{error}");
    fs::remove_file(folder.path().join("added_tokens.json")).unwrap();

    write(
        "tokenizer_config.json",
        r#"{"added_tokens_decoder": {"1000": {"content": "<gap>"}}, "mask_token": {"content": "<gap>"}}"#,
    );
    assert_eq!(Tokenizer::from_folder(folder.path()).unwrap().id("<gap>"), Some(1000));
    write("tokenizer_config.json", r#"{"do_lower_case": true}"#);
    let lower = Tokenizer::from_folder(folder.path()).unwrap();
    assert_eq!(one(&lower, "The PEACE").ids, one(&load("spm"), "the peace").ids);
}
