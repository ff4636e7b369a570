//! Any text as a config.json or gliner_config.json: an error or a configuration that is read again when written, never a panic.
//!
//! `cargo fuzz run config fuzz/corpus/config fuzz/seeds/config`; on a stable toolchain with `RUSTC_BOOTSTRAP=1`.

#![no_main]

use deberta_burn::{
    ModelConfig,
    config::{GliClassConfig, GlinerConfig},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(config) = ModelConfig::from_json(text) {
        let again = ModelConfig::from_json(&config.to_json()).expect("what was written is read");
        assert_eq!(config.max_length(), again.max_length());
        assert_eq!(config.task(), again.task());
    }
    if let Ok(config) = GlinerConfig::from_json(text) {
        let again = GlinerConfig::from_json(&config.to_json()).expect("what was written is read");
        assert_eq!(config.to_json(), again.to_json());
    }
    let _ = GliClassConfig::from_json(text);
});
