//! Any bytes as an spm.model: an error or a tokenizer that encodes, never a panic.
//!
//! `cargo fuzz run spm fuzz/corpus/spm fuzz/seeds/spm`; on a stable toolchain with `RUSTC_BOOTSTRAP=1`.

#![no_main]

use std::path::Path;

use deberta_burn::tokenizer::{EncodeOptions, Text, Tokenizer, sentencepiece::SentencePieceModel};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let model = SentencePieceModel::parse(Path::new("spm.model"), bytes);
    if let Ok(tokenizer) = model.and_then(Tokenizer::from_sentencepiece) {
        let texts = [Text::from("ab\u{301} ① \u{1112}\u{1161} [MASK] ﬁnal\u{0}"), Text::words(["x", "\u{200b}"])];
        tokenizer.encode(&texts, &EncodeOptions::default()).expect("every text can be encoded");
    }
});
