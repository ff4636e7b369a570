//! What an encoding holds beside the ids.

use deberta_burn::tokenizer::{Batch, EncodeOptions, Encoding, Padding, Text};

use crate::{load, one};

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
    let end_of_word = encoding.offsets.iter().zip(&encoding.word_ids).rfind(|(_, word)| **word == Some(0)).unwrap();
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
        let text = "The state of the Union is naïve: 🫠.";
        assert_eq!(tokenizer.decode(&one(&tokenizer, text).ids, true).unwrap(), text, "{folder}");
        let error = tokenizer.decode(&[1, 70_000], true).unwrap_err().to_string();
        assert!(error.contains("token id 70000") && error.contains("not in the vocabulary"), "{error}");
    }
}
