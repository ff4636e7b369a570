//! Saving, loading, and what the files beside a vocabulary say.

use std::{fs, path::Path};

use deberta_burn::tokenizer::{EncodeOptions, Text, Tokenizer};
use tempfile::TempDir;

use crate::{fixture, ids_of, length::LONG, load, one, read, reference::Lines};

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
    let tokenizer =
        Tokenizer::from_folder(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/small_tokenizer")).unwrap();
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
    assert!(error.contains("the id 4000000000, far beyond the 1000 pieces"), "{error}");
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
