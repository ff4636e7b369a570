//! A model's configuration, by file or by name.

use std::path::Path;

use deberta_burn::{Error, ModelConfig, Result, config::Preset};

/// Reads a config.json, or looks up the name of a published architecture.
///
/// # Errors
/// Neither a file nor a name that is known, or a file that is no configuration.
pub fn read_config(name: &str) -> Result<ModelConfig> {
    if let Ok(preset) = name.parse::<Preset>() {
        return Ok(preset.config());
    }
    if !Path::new(name).exists() {
        let known: Vec<_> = Preset::ALL.iter().map(|preset| preset.name()).collect();
        let problem = format!("there is no such file, expected a config.json or one of {}", known.join(", "));
        return Err(Error::input(name, problem));
    }
    ModelConfig::from_file(name)
}
