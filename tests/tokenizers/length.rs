//! Truncation and overlapping windows.

use deberta_burn::tokenizer::{EncodeOptions, Encoding, Text, Tokenizer, Truncation, TruncationSide};

use crate::{encode, load, one};

pub const LONG: &str = "the state of the Union and the peace of the people of the United States and of the world";

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
fn the_side_that_loses_tokens_is_the_folders() {
    let folder = tempfile::TempDir::new().unwrap();
    std::fs::copy(crate::fixture("spm/spm.model"), folder.path().join("spm.model")).unwrap();
    std::fs::write(folder.path().join("tokenizer_config.json"), r#"{"truncation_side": "left"}"#).unwrap();
    let left = Tokenizer::from_folder(&folder).unwrap();
    assert_eq!((left.truncation_side(), load("spm").truncation_side()), (TruncationSide::Left, TruncationSide::Right));
    left.save(&folder).unwrap();

    let [long, _] = parts(&one(&left, LONG));
    for left in [left, Tokenizer::from_folder(&folder).unwrap()] {
        let single = &encode(&left, LONG, &options(10, Truncation::LongestFirst, None))[0];
        assert_eq!((single.len(), single.cut, &parts(single)[0][..]), (10, long.len() - 8, &long[long.len() - 8..]));
        let pair = &encode(&left, (LONG, LONG), &options(13, Truncation::LongestFirst, None))[0];
        assert_eq!((pair.cut, parts(pair)), (2 * long.len() - 10, [&long[long.len() - 5..]; 2].map(<[u32]>::to_vec)));
        // Windows are the same from either side: they cover everything.
        let windows = |tokenizer| encode(tokenizer, LONG, &options(14, Truncation::LongestFirst, Some(3)));
        let right = load("spm");
        assert_eq!(windows(&left), windows(&right));
        assert!(windows(&left).iter().all(|window| window.cut == 0));
    }
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
