//! The folder of a module `Dense` of sentence-transformers: `config.json`, and the weights `linear.weight` and `linear.bias`.

use std::path::Path;

use burn::tensor::Device;
use serde::Deserialize;

use super::{Checkpoint, LoadOptions};
use crate::{Error, Result, config::Activation, heads::Dense, text_file};

/// The classes of activation functions that are supported; the second is the one of files that name none.
const ACTIVATIONS: [(&str, Activation); 2] =
    [("torch.nn.modules.linear.Identity", Activation::Linear), ("torch.nn.modules.activation.Tanh", Activation::Tanh)];

/// What is read between the modules.
const VECTOR: &str = "sentence_embedding";

/// The file `config.json`.
#[derive(Deserialize)]
struct DenseConfig {
    in_features: usize,
    out_features: usize,
    #[serde(default = "with_bias")]
    bias: bool,
    activation_function: Option<String>,
    module_input_name: Option<String>,
    module_output_name: Option<String>,
    #[serde(default)]
    use_residual: bool,
}

fn with_bias() -> bool {
    true
}

/// Reads the module in a folder.
///
/// # Errors
/// A file that is missing or damaged; weights of other shapes than the configuration says; an activation function, an input or
/// a residual connection that is not supported.
pub(crate) fn read_dense(folder: &Path, options: &LoadOptions, device: &Device) -> Result<Dense> {
    let path = folder.join("config.json");
    let config: DenseConfig = text_file::read_json(&path)?;
    let unsupported = |key: &str, found: &str, expected: &str| {
        let subject = format!("{}: config key `{key}`", path.display());
        Err(Error::unsupported(subject, format!("`{found}` is not supported, expected {expected}")))
    };
    let activation = match config.activation_function.as_deref() {
        None => Activation::Tanh,
        Some(name) => match ACTIVATIONS.iter().find(|(class, _)| *class == name) {
            Some((_, activation)) => *activation,
            None => return unsupported("activation_function", name, &ACTIVATIONS.map(|(class, _)| class).join(" or ")),
        },
    };
    if let Some(other) =
        [&config.module_input_name, &config.module_output_name].into_iter().flatten().find(|name| *name != VECTOR)
    {
        return unsupported("module_input_name", other, VECTOR);
    }
    if config.use_residual {
        return unsupported("use_residual", "true", "false");
    }
    let fresh = Dense::new([config.in_features, config.out_features], config.bias, activation, device);
    Ok(Checkpoint::open(folder)?.load(fresh, options)?.0)
}
