//! Any text as a config.json: an error or a configuration that survives its own round trip, never a panic.
#![no_main]

use deberta_burn::ModelConfig;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(config) = ModelConfig::from_json(text) {
        let again = ModelConfig::from_json(&config.to_json()).expect("what was written is read");
        assert_eq!(config, again);
        let _ = (config.max_length(), config.trained_length(), config.task().num_labels());
    }
});
