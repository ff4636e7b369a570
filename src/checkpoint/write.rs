//! Writing a module as Hugging Face transformers would have saved it.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use burn::{
    module::Module,
    store::{
        bridge,
        burn_pack::{self, Tensor as Stored},
    },
    tensor::{DType, FloatDType, TensorData},
};
use serde_json::json;
use tempfile::NamedTempFile;

use super::{
    convert::{self, Conversion},
    header::Header,
    names::Names,
    parameters::Parameter,
    v1,
};
use crate::{Error, ModelConfig, Result, config::DebertaVersion};

/// Writes `module` into `folder`, made if it is not there, as `model.safetensors` and `config.json`, which Hugging Face
/// transformers and [`Checkpoint::open`](super::Checkpoint::open) read. `config` decides the layout: a v1 model is written in
/// v1's. A masked language modelling head with the enhanced mask decoder is always written as `lm_predictions`, with
/// `"legacy": false` in `config.json`. Values are written as they are, or cast to `dtype`.
///
/// Both files are written in full under other names before they replace what was there.
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
    let mut tensors =
        parameters.into_iter().map(|parameter| stored(parameter, &names, dtype)).collect::<Result<Vec<_>>>()?;
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
    let weights = Replacement::new(folder, "model.safetensors", |file| write_tensors(&tensors, file))?;
    let config = Replacement::new(folder, "config.json", |file| {
        file.write_all(config.to_json().as_bytes()).map_err(Error::io("write", folder))
    })?;
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
    if let Some(unsupported) = [from, to].into_iter().find(|dtype| !convert::is_supported(*dtype)) {
        return Err(Error::Model(format!("`{name}` cannot be written as {unsupported:?}, only as F32, F16 or BF16")));
    }
    let transpose = parameter.is_transposed().then(|| [parameter.shape[0], parameter.shape[1]]);
    let conversion = Conversion { from, to, transpose };
    Ok(bridge::deferred(name, to, shape.clone().into(), None, move || {
        let values = parameter.values.read().map_err(|error| burn_pack::Error::ValidationError(error.to_string()))?;
        Ok(TensorData::from_bytes(conversion.apply(values.into_bytes()), shape.clone(), to))
    }))
}

/// Writes a whole safetensors file.
fn write_tensors(tensors: &[Stored], file: &mut impl Write) -> Result<()> {
    let header = Header::encode(tensors.iter().map(|tensor| (tensor.name.as_str(), tensor.dtype, &tensor.shape[..])))?;
    let fail = |source| Error::io("write", "model.safetensors")(source);
    file.write_all(&header).map_err(fail)?;
    for tensor in tensors {
        let bytes = tensor.to_bytes().map_err(|error| Error::Model(format!("`{}`: {error}", tensor.name)))?;
        file.write_all(&bytes).map_err(fail)?;
    }
    Ok(())
}

/// A file that is complete under a temporary name and only has to take its place.
struct Replacement {
    file: NamedTempFile,
    path: PathBuf,
}

impl Replacement {
    fn new(folder: &Path, name: &str, write: impl FnOnce(&mut BufWriter<&File>) -> Result<()>) -> Result<Self> {
        let path = folder.join(name);
        let mut builder = tempfile::Builder::new();
        // Others may read a model; the default for temporary files is that they may not. The umask still applies.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder.prefix(name).tempfile_in(folder).map_err(Error::io("create", &path))?;
        let mut buffer = BufWriter::new(file.as_file());
        write(&mut buffer)?;
        buffer.flush().map_err(Error::io("write", &path))?;
        drop(buffer);
        Ok(Self { file, path })
    }

    fn commit(self) -> Result<()> {
        self.file.persist(&self.path).map_err(|error| Error::io("replace", &self.path)(error.error))?;
        Ok(())
    }
}
