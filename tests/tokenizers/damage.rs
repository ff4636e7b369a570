//! Damaged files: an error that names the file and the problem, never a panic.

use std::{fs, path::Path};

use deberta_burn::tokenizer::{EncodeOptions, Text, Tokenizer, sentencepiece::SentencePieceModel};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::{fixture, load, read};

/// Writes files into a fresh folder and gives the message of the error that reading its tokenizer must be.
fn failure(files: &[(&str, &[u8])]) -> String {
    let folder = TempDir::new().unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    Tokenizer::from_folder(folder.path()).expect_err("these files are damaged").to_string()
}

#[track_caller]
fn assert_failure(files: &[(&str, &[u8])], named: &str, problem: &str) {
    let message = failure(files);
    assert!(message.contains(named) && message.contains(problem), "{message}");
}

/// A field of wire type 2, its length in two bytes.
fn bytes_field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap();
    [&[number << 3 | 2, length as u8 | 0x80, (length >> 7) as u8], bytes].concat()
}

fn piece(text: &str, kind: u8) -> Vec<u8> {
    bytes_field(1, &[bytes_field(1, text.as_bytes()), vec![0x18, kind]].concat())
}

#[test]
fn folders_without_a_tokenizer_say_what_was_looked_for() {
    assert_failure(&[], "", "looked for tokenizer.json, spm.model, and vocab.json with merges.txt");
    assert_failure(&[("vocab.json", b"{}")], "", "without its merges.txt");
    assert_failure(&[("vocab.txt", b"[PAD]")], "", "BERT's (vocab.txt, WordPiece)");
    assert_failure(&[("sentencepiece.bpe.model", b"")], "", "XLM-RoBERTa");
    let error = Tokenizer::from_folder("/nowhere/at/all").unwrap_err().to_string();
    assert_eq!(error, "tokenizer /nowhere/at/all: no such folder");
    assert_failure(&[("tokenizer_config.json", b"{"), ("spm.model", b"")], "tokenizer_config.json", "not valid JSON");
}

#[test]
fn damaged_sentencepiece_models_are_errors() {
    let model = fs::read(fixture("spm/spm.model")).unwrap();
    let unknown = piece("[UNK]", 2);
    let with_unknown = |more: &[u8]| [&unknown, more].concat();
    let not_utf8 = bytes_field(1, &bytes_field(1, b"\xff\xfe"));
    let not_finite = bytes_field(1, &[bytes_field(1, b"a"), vec![0x15, 0, 0, 0xc0, 0x7f]].concat());
    let charsmap = |map: &[u8]| with_unknown(&bytes_field(3, &bytes_field(2, map)));
    // The root's only child is `a`; its value, in unit 2, lies beyond the replacements.
    let mut units = [0u32; 128];
    units[0] = 1 << 10;
    units[0x60] = (0x60 ^ 2) << 10 | 1 << 8 | u32::from(b'a');
    units[2] = 1 << 31 | 1000;
    let trie = units.iter().flat_map(|unit| unit.to_le_bytes());
    let astray: Vec<u8> = 512u32.to_le_bytes().into_iter().chain(trie).chain(*b"x\0").collect();
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (vec![], "its vocabulary is empty"),
        (model[..model.len() / 2].to_vec(), "it ends too early"),
        (model[..5].to_vec(), "it ends too early"),
        (
            vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f, 0],
            "it ends too early: a field needs 4294967295 more bytes and 1 are left",
        ),
        (b"<!DOCTYPE html><html>".to_vec(), "the wire type 4"),
        (with_unknown(&[0x08, 1]), "`pieces` has the wire type of an integer"),
        (with_unknown(&bytes_field(2, &[0x18, 2])), "its model_type is 2, expected 1 (unigram)"),
        (with_unknown(&bytes_field(2, &[0x98, 0x02, 1])), "no piece for each of the 256 bytes"),
        (piece("a", 1), "no piece for unknown text"),
        (with_unknown(&piece("<unk>", 2)), "several pieces for unknown text"),
        (with_unknown(&[piece("a", 1), piece("a", 1)].concat()), "holds \"a\" twice"),
        (with_unknown(&piece("a", 9)), "a piece has the type 9"),
        (with_unknown(&piece("", 1)), "a piece of its vocabulary is empty"),
        (with_unknown(&not_utf8), "`piece` is not valid UTF-8"),
        (with_unknown(&not_finite), "has the score NaN"),
        (charsmap(b"abc"), "the character map ends within its length field"),
        (charsmap(&[8, 0, 0, 0, 1, 2, 3]), "the character map claims a trie of 8 of its 3 bytes"),
        (charsmap(&[4, 0, 0, 0, 0, 0, 0, 0, 0xff]), "the character map's replacements are not valid UTF-8"),
        (charsmap(&astray), "a rule of the character map points outside its replacements"),
        (with_unknown(&bytes_field(3, &[0x28, 0])), "leaves spaces unescaped"),
        (unknown.clone(), "no token \"[PAD]\" for padding (`pad_token`)"),
    ];
    for (bytes, problem) in cases {
        assert_failure(&[("spm.model", &bytes)], "spm.model", problem);
    }
    assert_failure(
        &[("spm.model", &model), ("tokenizer_config.json", br#"{"split_by_punct": true}"#)],
        "split_by_punct",
        "not supported",
    );
}

#[test]
fn damaged_vocabularies_are_errors() {
    let vocabulary = fs::read(fixture("deberta/vocab.json")).unwrap();
    let merges = fs::read(fixture("deberta/merges.txt")).unwrap();
    let config: &[u8] = br#"{"model_type": "deberta"}"#;
    let with = |vocabulary: &[u8], merges: &[u8], config: &[u8], named: &str, problem: &str| {
        assert_failure(&[("vocab.json", vocabulary), ("merges.txt", merges), ("config.json", config)], named, problem);
    };
    with(b"{}", &merges, config, "vocab.json", "the vocabulary is empty");
    with(&vocabulary[..100], &merges, config, "vocab.json", "not valid JSON");
    with(br#"{"a": -1}"#, &merges, config, "vocab.json", "not valid JSON");
    with(br#"{"a": 7, "b": 7}"#, b"", config, "vocab.json", "have the same id 7");
    with(&vocabulary, b"a b c", config, "merges.txt", "line 1 is \"a b c\", expected two tokens");
    with(&vocabulary, b"#version: 0.2\nab", config, "merges.txt", "line 2 is \"ab\"");
    with(&vocabulary, b"zz qq", config, "merges.txt", "needs the token \"zz\", which the vocabulary lacks");
    with(&vocabulary, b"\xff\xfe", config, "merges.txt", "not valid UTF-8");
    with(br#"{"a": 0}"#, b"", br#"{"model_type": "bert"}"#, "model_type", "found \"bert\"");
    assert_failure(&[("vocab.json", &vocabulary), ("merges.txt", &merges)], "config.json", "found null");
    with(&vocabulary, &merges, b"[7]", "config.json", "found null");
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n";
    with(pointer, &merges, config, "vocab.json", "Git LFS pointer");
    with(&vocabulary, pointer, config, "merges.txt", "Git LFS pointer");
    assert_failure(&[("tokenizer.json", pointer)], "tokenizer.json", "Git LFS pointer");
    assert_failure(&[("spm.model", pointer)], "spm.model", "Git LFS pointer");
}

#[test]
fn damaged_tokenizer_files_are_errors() {
    let saved = TempDir::new().unwrap();
    load("deberta").save(saved.path()).unwrap();
    let whole: serde_json::Value = read(&saved.path().join("tokenizer.json"));
    let changed = |change: fn(&mut serde_json::Value)| {
        let mut json = whole.clone();
        change(&mut json);
        json.to_string().into_bytes()
    };
    let text = whole.to_string();
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (text.as_bytes()[..text.len() / 2].to_vec(), "not valid JSON"),
        (b"[]".to_vec(), "no vocabulary (`model.vocab`)"),
        (changed(|json| json["model"]["vocab"] = serde_json::json!({})), "its vocabulary (`model.vocab`) is empty"),
        (changed(|json| json["model"]["merges"] = serde_json::json!([["zz", "qq"]])), "needs the token \"zz\""),
        (changed(|json| json["model"]["merges"] = serde_json::json!([7])), "not a pair of tokens"),
        (changed(|json| json["post_processor"].take().as_null().unwrap_or(())), "adds no special tokens"),
        (
            changed(|json| json["post_processor"] = serde_json::json!({"type": "Nothing"})),
            "its post_processor cannot be read",
        ),
        (
            changed(|json| {
                json["normalizer"] = serde_json::json!({"type": "Precompiled", "precompiled_charsmap": "?"})
            }),
            "not base64",
        ),
        (
            changed(|json| {
                json["normalizer"] = serde_json::json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"})
            }),
            "character map",
        ),
        (changed(|json| json["normalizer"] = serde_json::json!({"type": "Sequence"})), "no list `normalizers`"),
        (changed(|json| json["version"] = "7.0".into()), "7.0"),
        (
            changed(|json| {
                json["added_tokens"] = serde_json::json!([]);
                json["model"]["vocab"].as_object_mut().unwrap().remove("[MASK]");
            }),
            "no token \"[MASK]\" for masked words",
        ),
    ];
    for (bytes, problem) in cases {
        assert_failure(&[("tokenizer.json", &bytes)], "tokenizer.json", problem);
    }
}

/// The pointers to every value but those of the vocabulary, of which there are too many.
fn paths(json: &serde_json::Value, path: &str) -> Vec<String> {
    let below = |key: &str, value| paths(value, &format!("{path}/{}", key.replace('~', "~0").replace('/', "~1")));
    let inner: Vec<String> = match json {
        serde_json::Value::Object(map) if !path.ends_with("/vocab") => {
            map.iter().flat_map(|(key, value)| below(key, value)).collect()
        }
        serde_json::Value::Array(list) if !path.ends_with("/merges") => {
            list.iter().enumerate().flat_map(|(index, value)| below(&index.to_string(), value)).collect()
        }
        _ => Vec::new(),
    };
    inner.into_iter().chain((!path.is_empty()).then(|| path.to_owned())).collect()
}

/// Reads a model and, where that works, encodes with it.
fn exercise(bytes: &[u8]) {
    let model = SentencePieceModel::parse(Path::new("spm.model"), bytes);
    if let Ok(tokenizer) = model.and_then(Tokenizer::from_sentencepiece) {
        let texts = [Text::from("a\u{301} ① \u{1112}\u{1161} [MASK] ﬁnal\u{0}"), Text::words(["x", "\u{200b}"])];
        tokenizer.encode(&texts, &EncodeOptions::default()).unwrap();
    }
}

/// Values that a key may hold by mistake.
const ODD: [&str; 14] = [
    "null",
    "true",
    "-1",
    "0",
    "1.5",
    "1e300",
    "18446744073709551616",
    "NaN",
    "-Infinity",
    "\"\"",
    "\"left\"",
    "[]",
    "[null]",
    "{\"content\": \"a\", \"lstrip\": true}",
];

/// What `tokenizer_config.json` is read for.
const KEYS: [&str; 9] = [
    "model_max_length",
    "truncation_side",
    "add_prefix_space",
    "split_special_tokens",
    "do_lower_case",
    "mask_token",
    "pad_token",
    "additional_special_tokens",
    "added_tokens_decoder",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn odd_settings_never_panic(
        keys in prop::collection::vec((prop::sample::select(&KEYS[..]), prop::sample::select(&ODD[..])), 1..4),
        vocabulary in prop::sample::select(vec!["spm", "deberta", "roberta"]),
    ) {
        let config: Vec<String> = keys.iter().map(|(key, value)| format!("\"{key}\": {value}")).collect();
        let folder = TempDir::new().unwrap();
        for file in fs::read_dir(fixture(vocabulary)).unwrap().map(|file| file.unwrap()) {
            fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
        }
        fs::write(folder.path().join("tokenizer_config.json"), format!("{{{}}}", config.join(","))).unwrap();
        match Tokenizer::from_folder(&folder) {
            Ok(tokenizer) => drop(tokenizer.encode(&["a [MASK] b".into()], &EncodeOptions::default())),
            Err(error) => prop_assert!(error.to_string().contains(folder.path().to_str().unwrap()), "{error}"),
        }
    }

    #[test]
    fn odd_values_in_a_tokenizer_file_never_panic(
        place in any::<prop::sample::Index>(),
        value in prop::sample::select(&ODD[..]),
    ) {
        let folder = TempDir::new().unwrap();
        load("deberta").save(&folder).unwrap();
        let mut json: serde_json::Value = read(&folder.path().join("tokenizer.json"));
        let mut paths = paths(&json, "");
        let path = paths.swap_remove(place.index(paths.len()));
        *json.pointer_mut(&path).unwrap() = "odd value".into();
        let text = json.to_string().replace("\"odd value\"", value);
        fs::write(folder.path().join("tokenizer.json"), text).unwrap();
        match Tokenizer::from_folder(&folder) {
            Ok(tokenizer) => drop(tokenizer.encode(&["a [MASK] b".into()], &EncodeOptions::default())),
            Err(error) => prop_assert!(error.to_string().contains("tokenizer.json"), "{path}: {error}"),
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        exercise(&bytes);
    }

    #[test]
    fn mutated_models_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = fs::read(fixture("spm/spm.model")).unwrap();
        for (index, value) in changes {
            let index = index.index(bytes.len());
            bytes[index] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        exercise(&bytes);
    }
}
