//! Writing a module as Hugging Face transformers would have saved it.

use std::{fs, io::Write, path::Path};

use burn::{
    module::Module,
    store::{
        bridge,
        burn_pack::{self, Tensor as Stored},
    },
    tensor::{DType, FloatDType, TensorData},
};
use serde_json::json;

use super::{
    Checkpoint,
    convert::{self, Conversion},
    header::Header,
    names::{Names, is_ignored},
    parameters::Parameter,
    v1,
};
use crate::{Error, ModelConfig, Result, config::DebertaVersion, replacement::Replacement};

/// Writes `module` into `folder`, made if it is not there, as `model.safetensors` and `config.json`, which Hugging Face
/// transformers and [`Checkpoint::open`](super::Checkpoint::open) read. `config` decides the layout: a v1 model is written in
/// v1's. A masked language modelling head with the enhanced mask decoder is always written as `lm_predictions`, with
/// `"legacy": false` in `config.json`. Values are written as they are, or cast to `dtype`.
///
/// Both files are written in full under other names before they replace what was there. (Windows does not let go of a file
/// that is mapped: there, write to another folder than a module that is still alive was loaded from.)
///
/// # Errors
/// [`Error::Io`] if a file cannot be written, [`Error::Model`] if a value cannot be read back from its device or has a type
/// other than f32, f16 and bf16.
pub fn write<M: Module>(
    module: &M,
    config: &ModelConfig,
    folder: impl AsRef<Path>,
    dtype: Option<FloatDType>,
) -> Result<()> {
    let folder = folder.as_ref();
    let parameters = Parameter::of(module);
    let mut config = config.clone();
    let mut legacy = false;
    if let ModelConfig::Deberta(config) = &mut config {
        config.legacy &= !parameters.iter().any(|parameter| parameter.path.starts_with("decoder."));
        legacy = config.legacy;
    }
    let names = Names::new(&parameters, legacy);
    let tensors =
        parameters.into_iter().map(|parameter| stored(parameter, &names, dtype)).collect::<Result<Vec<_>>>()?;
    write_folder(tensors, config, folder)
}

/// Writes the weights of `checkpoint` into `folder` as one `model.safetensors` in another element type, whatever files they
/// come from, and its `config.json` beside them. Tensors keep their names; buffers of whole numbers, which no model needs, are
/// left out.
///
/// # Errors
/// As [`write()`]; a `config.json` that cannot be read.
pub fn rewrite(checkpoint: &Checkpoint, folder: impl AsRef<Path>, dtype: FloatDType) -> Result<()> {
    let config = ModelConfig::from_folder(checkpoint.folder())?;
    let weights = checkpoint.stored().filter(|tensor| tensor.dtype.is_float() || !is_ignored(&tensor.name));
    let tensors = weights.map(|tensor| cast(tensor, dtype)).collect::<Result<_>>()?;
    write_folder(tensors, config, folder.as_ref())
}

/// The path of a parameter that holds NaN or infinity, if one does.
///
/// # Errors
/// [`Error::Model`] if a value cannot be read back from its device.
pub(crate) fn first_not_finite<M: Module>(module: &M) -> Result<Option<String>> {
    for parameter in Parameter::of(module) {
        let values = parameter.values.read()?;
        if !convert::is_finite(values.as_bytes(), values.dtype()) {
            return Ok(Some(parameter.path));
        }
    }
    Ok(None)
}

/// The tensor in another element type.
fn cast(tensor: &Stored, dtype: FloatDType) -> Result<Stored> {
    let (from, to) = (tensor.dtype, DType::from(dtype));
    check_types(&tensor.name, [from, to])?;
    let (source, shape) = (tensor.clone(), tensor.shape.clone());
    Ok(bridge::deferred(tensor.name.clone(), to, shape.clone(), None, move || {
        let conversion = Conversion { from, to, transpose: None };
        Ok(TensorData::from_bytes(conversion.apply(source.to_bytes()?), shape.clone(), to))
    }))
}

fn check_types(name: &str, types: [DType; 2]) -> Result<()> {
    match types.into_iter().find(|dtype| !convert::is_supported(*dtype)) {
        Some(unsupported) => {
            Err(Error::Model(format!("`{name}` cannot be written as {unsupported:?}, only as F32, F16 or BF16")))
        }
        None => Ok(()),
    }
}

/// Writes tensors and configuration in the layout that the configuration asks for.
fn write_folder(mut tensors: Vec<Stored>, mut config: ModelConfig, folder: &Path) -> Result<()> {
    match &mut config {
        ModelConfig::Deberta(config) => {
            if config.model_type == DebertaVersion::V1 {
                tensors = v1::merge(tensors, config.num_attention_heads);
            }
            declare_dtype(&mut config.other, &tensors);
        }
        ModelConfig::Roberta(config) => declare_dtype(&mut config.other, &tensors),
    }

    fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    let path = folder.join("model.safetensors");
    let weights = Replacement::new(path.clone(), |file| write_tensors(&tensors, file, &path))?;
    let config = Replacement::of(folder.join("config.json"), config.to_json().as_bytes())?;
    weights.commit()?;
    config.commit()
}

/// Says in the configuration which element type the weights have; transformers casts them to what it finds there.
fn declare_dtype(other: &mut serde_json::Map<String, serde_json::Value>, tensors: &[Stored]) {
    let name = match tensors.first().map(|tensor| tensor.dtype) {
        Some(DType::F16) => "float16",
        Some(DType::BF16) => "bfloat16",
        _ => "float32",
    };
    // The newer of its two names would win over the one that all versions of transformers know.
    other.remove("dtype");
    other.insert("torch_dtype".into(), json!(name));
}

/// The parameter as a tensor of the file, to be read and converted when its turn comes.
fn stored(parameter: Parameter, names: &Names, dtype: Option<FloatDType>) -> Result<Stored> {
    let (name, shape) = (names.key(&parameter.path), parameter.file_shape());
    let from = parameter.values.dtype();
    let to = dtype.map_or(from, DType::from);
    check_types(&name, [from, to])?;
    let transpose = parameter.is_transposed().then(|| [parameter.shape[0], parameter.shape[1]]);
    let conversion = Conversion { from, to, transpose };
    Ok(bridge::deferred(name, to, shape.clone().into(), None, move || {
        let values = parameter.values.read().map_err(|error| burn_pack::Error::ValidationError(error.to_string()))?;
        Ok(TensorData::from_bytes(conversion.apply(values.into_bytes()), shape.clone(), to))
    }))
}

/// Writes a whole safetensors file, which is to be at `path`.
fn write_tensors(tensors: &[Stored], file: &mut impl Write, path: &Path) -> Result<()> {
    let header = Header::encode(tensors.iter().map(|tensor| (tensor.name.as_str(), tensor.dtype, &tensor.shape[..])))?;
    file.write_all(&header).map_err(Error::io("write", path))?;
    for tensor in tensors {
        let bytes = tensor.to_bytes().map_err(|error| Error::Model(format!("`{}`: {error}", tensor.name)))?;
        file.write_all(&bytes).map_err(Error::io("write", path))?;
    }
    Ok(())
}
