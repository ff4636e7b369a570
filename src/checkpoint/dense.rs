//! The folder of a module `Dense` of sentence-transformers: `config.json`, and the weights `linear.weight` and `linear.bias`.

use std::{fs, path::Path};

use burn::tensor::Device;
use serde::Deserialize;
use serde_json::json;

use super::{Checkpoint, LoadOptions, write::write_tensors};
use crate::{Error, Result, config::Activation, heads::Dense, replacement::Replacement, text_file, write_file};

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

/// The keys of a text encoder's linear map, and those of the module.
const KEYS: [(&str, &str); 2] = [("projection.weight", "linear.weight"), ("projection.bias", "linear.bias")];

/// Writes the linear map of a text encoder as such a module; whether there is one.
///
/// # Errors
/// A file that cannot be written.
pub(super) fn write_dense(checkpoint: &Checkpoint, folder: &Path) -> Result<bool> {
    let Some([outputs, inputs]) = checkpoint.projection() else { return Ok(false) };
    let renamed = |(own, theirs): &(&str, &str)| {
        let mut tensor = checkpoint.get(own)?.clone();
        tensor.name = (*theirs).to_owned();
        Some(tensor)
    };
    let tensors: Vec<_> = KEYS.iter().filter_map(renamed).collect();
    fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    let path = folder.join("model.safetensors");
    let weights =
        Replacement::new(path.clone(), |file| write_tensors(&tensors, |tensor| tensor.dtype, file, &path).map(drop))?;
    let config = json!({
        "in_features": inputs,
        "out_features": outputs,
        "bias": true,
        "activation_function": ACTIVATIONS[0].0,
    });
    weights.commit()?;
    write_file(folder.join("config.json"), format!("{config:#}\n").as_bytes())?;
    Ok(true)
}

impl Checkpoint {
    /// The shape of the linear map behind the pooling of a [`TextEncoder`](crate::heads::TextEncoder), \[numbers of a vector,
    /// hidden size\]; none if it has no such map.
    pub fn projection(&self) -> Option<[usize; 2]> {
        self.get(KEYS[0].0)?.shape[..].try_into().ok()
    }
}
