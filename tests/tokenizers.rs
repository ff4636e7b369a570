//! Tokenizers against the `sentencepiece` package and transformers, and against damaged files.
//!
//! Fixtures: `fixtures/make_tokenizer_fixtures.py`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use deberta_burn::{
    batch::{Batch, Encoding, Padding},
    tokenizer::{EncodeOptions, Text, Tokenizer, Truncation, sentencepiece::SentencePieceModel},
};
use proptest::prelude::*;
use serde::Deserialize;
use tempfile::TempDir;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizers").join(name)
}

fn load(name: &str) -> Tokenizer {
    Tokenizer::from_folder(fixture(name)).unwrap()
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> T {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn encode<'a>(tokenizer: &Tokenizer, text: impl Into<Text<'a>>, options: &EncodeOptions) -> Vec<Encoding> {
    tokenizer.encode(&[text.into()], options).unwrap()
}

fn one<'a>(tokenizer: &Tokenizer, text: impl Into<Text<'a>>) -> Encoding {
    encode(tokenizer, text, &EncodeOptions::default()).remove(0)
}

fn ids_of(tokenizer: &Tokenizer, texts: &[Text<'_>], add_special_tokens: bool) -> Vec<Vec<u32>> {
    let options = EncodeOptions { max_length: usize::MAX, add_special_tokens, ..EncodeOptions::default() };
    tokenizer.encode(texts, &options).unwrap().into_iter().map(|encoding| encoding.ids).collect()
}

// --- Equality with the references ---

#[derive(Deserialize)]
struct Lines {
    lines: Vec<String>,
    ids: Vec<Vec<u32>>,
}

impl Lines {
    /// Lines whose ids differ from sentencepiece's, with both.
    fn differences<'a>(&'a self, tokenizer: &Tokenizer) -> Vec<(&'a str, Vec<u32>, &'a [u32])> {
        let texts: Vec<Text> = self.lines.iter().map(Text::from).collect();
        let found = ids_of(tokenizer, &texts, false);
        let compared = self.lines.iter().zip(found).zip(&self.ids);
        compared
            .filter(|((_, found), ids)| found != *ids)
            .map(|((line, found), ids)| (line.as_str(), found, ids.as_slice()))
            .collect()
    }
}

#[test]
fn spm_model_gives_the_ids_of_sentencepiece() {
    let expected: Lines = read(&fixture("spm/expected.json"));
    assert!(expected.lines.len() > 400);
    assert_eq!(expected.differences(&load("spm")), []);
}

#[test]
fn published_spm_model_gives_the_ids_of_sentencepiece() {
    let Some(folder) = std::env::var_os("DEBERTA_REAL_CHECKPOINT").map(PathBuf::from) else {
        println!("skipped: DEBERTA_REAL_CHECKPOINT names no folder with spm.model and spm_expected.json");
        return;
    };
    let expected: Lines = read(&folder.join("spm_expected.json"));
    // By itself, so that a tokenizer.json beside it does not rule.
    let alone = TempDir::new().unwrap();
    fs::copy(folder.join("spm.model"), alone.path().join("spm.model")).unwrap();
    let differences = expected.differences(&Tokenizer::from_folder(alone.path()).unwrap());
    // Repetitions split into the same pieces in another order with the same probability: rounding decides.
    let sorted = |ids: &[u32]| {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids
    };
    let (ties, others): (Vec<_>, Vec<_>) =
        differences.iter().partition(|(_, ours, theirs)| sorted(ours) == sorted(theirs));
    println!("{} lines, {} ties, {} other differences", expected.lines.len(), ties.len(), others.len());
    assert!(expected.lines.len() > 10_000);
    assert!(others.is_empty(), "{:?}", others.first());
    assert!(ties.len() * 1000 < expected.lines.len(), "{:?}", ties.first());
}

#[derive(Deserialize)]
struct Texts {
    texts: Vec<String>,
    ids: Vec<Vec<u32>>,
    pairs: Vec<(String, String)>,
    pair_ids: Vec<Vec<u32>>,
}

#[test]
fn vocab_and_merges_give_the_ids_of_transformers() {
    for folder in ["deberta", "roberta"] {
        let tokenizer = load(folder);
        let expected: Texts = read(&fixture(folder).join("expected.json"));
        let texts: Vec<Text> = expected.texts.iter().map(Text::from).collect();
        for (text, (found, ids)) in
            expected.texts.iter().zip(ids_of(&tokenizer, &texts, true).iter().zip(&expected.ids))
        {
            assert_eq!(found, ids, "{folder}: {text:?}");
        }
        let pairs: Vec<Text> = expected.pairs.iter().map(|(a, b)| Text::from((a, b))).collect();
        for (pair, (found, ids)) in
            expected.pairs.iter().zip(ids_of(&tokenizer, &pairs, true).iter().zip(&expected.pair_ids))
        {
            assert_eq!(found, ids, "{folder}: {pair:?}");
        }
    }
}

// --- What an encoding holds ---

#[test]
fn special_tokens_have_the_published_ids() {
    let v3 = load("spm");
    assert_eq!([v3.pad_id(), v3.cls_id(), v3.sep_id(), v3.unk_id(), v3.mask_id()], [0, 1, 2, 3, 1000]);
    assert_eq!(v3.vocab_size(), 1001);
    let v1 = load("deberta");
    assert_eq!([v1.pad_id(), v1.cls_id(), v1.sep_id(), v1.unk_id(), v1.mask_id()], [0, 1, 2, 3, 500]);
    let roberta = load("roberta");
    assert_eq!([roberta.cls_id(), roberta.pad_id(), roberta.sep_id(), roberta.unk_id()], [0, 1, 2, 3]);
    assert_eq!(roberta.id("<mask>"), Some(roberta.mask_id()));
    assert_eq!(v3.token(1001), None);
}

#[test]
fn pairs_follow_the_template() {
    for folder in ["spm", "deberta"] {
        let tokenizer = load(folder);
        let pair = one(&tokenizer, ("no", "war"));
        let (cls, sep) = (tokenizer.cls_id(), tokenizer.sep_id());
        let middle = pair.ids.iter().position(|&id| id == sep).unwrap();
        assert_eq!((pair.ids[0], *pair.ids.last().unwrap()), (cls, sep), "{folder}");
        assert_eq!(pair.ids.iter().filter(|&&id| id == sep).count(), 2, "{folder}");
        let types = (0..pair.len()).map(|position| u32::from(position > middle));
        assert_eq!(pair.type_ids, types.collect::<Vec<_>>(), "{folder}");
        for position in 0..pair.len() {
            let special = [0, middle, pair.len() - 1].contains(&position);
            assert_eq!(pair.special[position], special, "{folder}");
            let sequence = if special { None } else { Some(usize::from(position > middle)) };
            assert_eq!(pair.sequence_ids[position], sequence, "{folder}");
        }
    }
    let roberta = load("roberta");
    let pair = one(&roberta, ("no", "war"));
    assert_eq!(pair.ids.iter().filter(|&&id| id == roberta.sep_id()).count(), 3);
    assert!(pair.type_ids.iter().all(|&type_id| type_id == 0));
}

#[test]
fn a_mask_in_the_text_is_one_token() {
    for (folder, text) in [("spm", "the [MASK] of"), ("deberta", "the [MASK] of"), ("roberta", "the <mask> of")] {
        let tokenizer = load(folder);
        let encoding = one(&tokenizer, text);
        let position = encoding.ids.iter().position(|&id| id == tokenizer.mask_id()).expect(folder);
        assert_eq!(encoding.offsets[position].1, text.len() - 3, "{folder}");
        assert_eq!(encoding.sequence_ids[position], Some(0), "{folder}");
    }
}

#[test]
fn offsets_are_where_a_reader_sees_the_token() {
    let text = "  Zürich:  naïve café\u{a0}日本 “peace” 👍🏽 and\twar ";
    let characters: Vec<char> = text.chars().collect();
    for folder in ["spm", "deberta", "roberta"] {
        let tokenizer = load(folder);
        let encoding = one(&tokenizer, text);
        let mut covered = String::new();
        let mut last = (0, 0);
        for (position, &(start, end)) in encoding.offsets.iter().enumerate() {
            if encoding.special[position] {
                assert_eq!((start, end), (0, 0), "{folder}");
                continue;
            }
            let surface: String = characters[start..end].iter().collect();
            assert_eq!(surface, surface.trim(), "{folder}: no spaces at the ends");
            let token = tokenizer.token(encoding.ids[position]).unwrap();
            let plain = token.trim_start_matches(['\u{2581}', '\u{120}']);
            if !plain.is_empty() && plain.is_ascii() && !plain.starts_with('<') {
                assert_eq!(surface, plain, "{folder}: the token {token:?}");
            }
            if (start, end) != last {
                covered.push_str(&surface);
                last = (start, end);
            }
        }
        // Each visible character belongs to a token, in order and once (the bytes of one character share it).
        assert_eq!(covered, text.split_whitespace().collect::<String>(), "{folder}");
    }
}

#[test]
fn offsets_hold_accents_that_normalisation_merges() {
    let text = "cafe\u{301} war";
    let tokenizer = load("spm");
    let encoding = one(&tokenizer, text);
    let end_of_word =
        encoding.offsets.iter().zip(&encoding.word_ids).filter(|(_, word)| **word == Some(0)).last().unwrap();
    assert_eq!(end_of_word.0.1, 5);
    assert_eq!(encoding.ids, one(&tokenizer, "café war").ids);
}

#[test]
fn word_ids_count_words() {
    let tokenizer = load("spm");
    let encoding = one(&tokenizer, "peace and prosperity");
    let words: Vec<u32> = encoding.word_ids.iter().flatten().copied().collect();
    assert_eq!((words[0], *words.last().unwrap()), (0, 2));
    assert!(words.is_sorted());
    assert_eq!((encoding.word_ids[0], encoding.word_ids[encoding.len() - 1]), (None, None));
}

#[test]
fn given_words_keep_their_numbers() {
    let words = ["The", "naïve", "Congress", ".", "", "prosperity"];
    for folder in ["spm", "deberta", "roberta"] {
        let tokenizer = load(folder);
        let encoding = one(&tokenizer, Text::words(words));
        // The words are read as they would be in running text.
        let running = one(&tokenizer, "The naïve Congress");
        let prefix = running.len() - 1;
        assert_eq!(encoding.ids[..prefix], running.ids[..prefix], "{folder}");
        for (index, word) in words.iter().enumerate() {
            let offsets = encoding.offsets.iter().zip(&encoding.word_ids).filter(|(_, id)| **id == Some(index as u32));
            let offsets: Vec<_> = offsets.map(|(offset, _)| *offset).collect();
            if word.is_empty() {
                continue;
            }
            let ends = (offsets.first().unwrap().0, offsets.last().unwrap().1);
            assert_eq!(ends, (0, word.chars().count()), "{folder}: {word}");
        }
        assert_eq!(encoding.word_ids[encoding.len() - 2], Some(5), "{folder}");
    }
}

#[test]
fn the_order_of_texts_is_kept() {
    let tokenizer = load("spm");
    let texts = [Text::from("war"), Text::from(("peace", "war")), Text::from(""), Text::from("peace".to_owned())];
    let encodings = tokenizer.encode(&texts, &EncodeOptions::default()).unwrap();
    assert_eq!(encodings.iter().map(|encoding| encoding.text).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!(encodings[0].ids, one(&tokenizer, "war").ids);
    assert_eq!(encodings[2].ids, [tokenizer.cls_id(), tokenizer.sep_id()]);
    assert!(tokenizer.encode(&[], &EncodeOptions::default()).unwrap().is_empty());

    let batch = Batch::collate(&encodings, tokenizer.pad_id(), Padding::Longest).unwrap();
    assert_eq!((batch.rows, batch.length), (4, encodings[1].len()));
    let real = batch.attention_mask.iter().filter(|&&real| real).count();
    assert_eq!(real, encodings.iter().map(Encoding::len).sum::<usize>());
}

#[test]
fn decoding_gives_the_text_back() {
    for folder in ["spm", "deberta", "roberta"] {
        let tokenizer = load(folder);
        let text = "The state of the Union is naïve.";
        assert_eq!(tokenizer.decode(&one(&tokenizer, text).ids, true).unwrap(), text, "{folder}");
        let error = tokenizer.decode(&[1, 70_000], true).unwrap_err().to_string();
        assert!(error.contains("token id 70000") && error.contains("not in the vocabulary"), "{error}");
    }
}

// --- Length ---

const LONG: &str = "the state of the Union and the peace of the people of the United States and of the world";

fn options(max_length: usize, truncation: Truncation, stride: Option<usize>) -> EncodeOptions {
    EncodeOptions { max_length, truncation, stride, ..EncodeOptions::default() }
}

/// Token ids of the first and of the second text.
fn parts(encoding: &Encoding) -> [Vec<u32>; 2] {
    let part = |sequence| {
        let positions = (0..encoding.len()).filter(|&position| encoding.sequence_ids[position] == Some(sequence));
        positions.map(|position| encoding.ids[position]).collect()
    };
    [part(0), part(1)]
}

#[test]
fn truncation_shortens_what_it_names() {
    let tokenizer = load("spm");
    let [long, _] = parts(&one(&tokenizer, LONG));
    let [short, _] = parts(&one(&tokenizer, "peace"));

    let single = &encode(&tokenizer, LONG, &options(10, Truncation::LongestFirst, None))[0];
    assert_eq!((single.len(), &parts(single)[0][..]), (10, &long[..8]));
    assert_eq!((single.ids[0], single.ids[9]), (tokenizer.cls_id(), tokenizer.sep_id()));

    let pair = &encode(&tokenizer, ("peace", LONG), &options(12, Truncation::LongestFirst, None))[0];
    assert_eq!(pair.len(), 12);
    assert_eq!(parts(pair), [short.clone(), long[..9 - short.len()].to_vec()]);
    let both = &encode(&tokenizer, (LONG, LONG), &options(13, Truncation::LongestFirst, None))[0];
    assert_eq!(parts(both), [long[..5].to_vec(), long[..5].to_vec()]);

    let first = &encode(&tokenizer, (LONG, "peace"), &options(12, Truncation::OnlyFirst, None))[0];
    assert_eq!(parts(first), [long[..9 - short.len()].to_vec(), short.clone()]);
    let second = &encode(&tokenizer, ("peace", LONG), &options(12, Truncation::OnlySecond, None))[0];
    assert_eq!(parts(second), [short.clone(), long[..9 - short.len()].to_vec()]);

    let fits = &encode(&tokenizer, "peace", &options(short.len() + 2, Truncation::Error, None))[0];
    assert_eq!(parts(fits)[0], short);
}

#[test]
fn windows_overlap_and_cover_everything() {
    let tokenizer = load("spm");
    let [long, _] = parts(&one(&tokenizer, LONG));
    let [question, _] = parts(&one(&tokenizer, "peace"));
    let (stride, max_length) = (3, 14);

    let single = encode(&tokenizer, LONG, &options(max_length, Truncation::LongestFirst, Some(stride)));
    let pair = encode(&tokenizer, ("peace", LONG), &options(max_length, Truncation::OnlySecond, Some(stride)));
    let first = encode(&tokenizer, (LONG, "peace"), &options(max_length, Truncation::OnlyFirst, Some(stride)));
    for (windows, long_part) in [(single, 0), (pair, 1), (first, 0)] {
        assert!(windows.len() > 2);
        let mut joined: Vec<u32> = Vec::new();
        for (index, window) in windows.iter().enumerate() {
            assert_eq!((window.text, window.window), (0, index));
            assert!(window.len() <= max_length);
            let parts = parts(window);
            if !parts[1].is_empty() {
                assert_eq!(parts[1 - long_part], question);
            }
            let overlap = if index == 0 { 0 } else { stride };
            assert_eq!(parts[long_part][..overlap], joined[joined.len() - overlap..]);
            joined.extend(&parts[long_part][overlap..]);
        }
        assert_eq!(joined, long);
        // Offsets still point into the whole text.
        let end = windows.last().unwrap().offsets.iter().map(|offset| offset.1).max().unwrap();
        assert_eq!(end, LONG.len());
    }
    let short = encode(&tokenizer, "peace", &options(max_length, Truncation::LongestFirst, Some(stride)));
    assert_eq!(short.len(), 1);
}

#[test]
fn what_cannot_fit_is_an_error_that_names_the_text() {
    let tokenizer = load("spm");
    let cases: [(Text, EncodeOptions, &str); 6] = [
        (LONG.into(), options(10, Truncation::Error, None), "8 fit into max_length 10"),
        (LONG.into(), options(10, Truncation::OnlySecond, None), "OnlySecond cannot shorten it enough"),
        ((LONG, "peace").into(), options(5, Truncation::OnlySecond, None), "OnlySecond cannot shorten it enough"),
        (
            LONG.into(),
            options(2, Truncation::LongestFirst, None),
            "max_length is 2, expected more than the 2 special tokens",
        ),
        (LONG.into(), options(10, Truncation::LongestFirst, Some(8)), "a stride of 8 leaves no step"),
        ((LONG, LONG).into(), options(20, Truncation::OnlySecond, Some(1)), "a window holds 0 of them"),
    ];
    for (text, options, expected) in cases {
        let error = tokenizer.encode(&["peace".into(), text], &EncodeOptions { ..options }).unwrap_err().to_string();
        assert!(error.starts_with("text 1: ") || options.max_length == 2, "{error}");
        assert!(error.contains(expected), "{error}");
    }
}

// --- Files ---

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
fn the_tiny_models_tokenizer_loads() {
    let tokenizer = Tokenizer::from_folder(Path::new(env!("CARGO_MANIFEST_DIR")).join("models/deberta-tiny")).unwrap();
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

/// A field of wire type 2.
fn bytes_field(number: u8, bytes: &[u8]) -> Vec<u8> {
    assert!(bytes.len() < 128);
    [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
}

fn piece(text: &str, kind: u8) -> Vec<u8> {
    bytes_field(1, &[bytes_field(1, text.as_bytes()), vec![0x18, kind]].concat())
}

#[test]
fn folders_without_a_tokenizer_say_what_was_looked_for() {
    assert_failure(&[], "", "looked for tokenizer.json, spm.model, and vocab.json with merges.txt");
    assert_failure(&[("vocab.json", b"{}")], "", "no tokenizer found");
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
    // A root whose child `a` has its value at unit 0, which points far beyond the replacements.
    let mut astray = vec![0u32; 256];
    astray[0] = 1 << 10;
    astray[usize::from(b'a') ^ 1] = u32::from(b'a') | 1 << 8 | ((u32::from(b'a') ^ 1) << 10);
    astray[0] |= 0x4000_0000;
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
    with(&vocabulary, b"\xff\xfe", config, "merges.txt", "cannot read");
    with(br#"{"a": 0}"#, b"", br#"{"model_type": "bert"}"#, "model_type", "found \"bert\"");
    assert_failure(&[("vocab.json", &vocabulary), ("merges.txt", &merges)], "config.json", "found null");
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

// --- Whatever the bytes, no panic ---

/// Reads a model and, where that works, encodes with it.
fn exercise(bytes: &[u8]) {
    let model = SentencePieceModel::parse(Path::new("spm.model"), bytes);
    if let Ok(tokenizer) = model.and_then(Tokenizer::from_sentencepiece) {
        let texts = [Text::from("a\u{301} ① \u{1112}\u{1161} [MASK] ﬁnal\u{0}"), Text::words(["x", "\u{200b}"])];
        tokenizer.encode(&texts, &EncodeOptions::default()).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

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
