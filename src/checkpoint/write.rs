//! Writing a module as Hugging Face transformers would have saved it.

use std::{
    fmt::{self, Display},
    fs,
    io::Write,
    path::Path,
};

use burn::{
    module::Module,
    store::{
        bridge,
        burn_pack::{self, Tensor as Stored},
    },
    tensor::{DType, FloatDType, TensorData},
};
use serde_json::{Map, Value, json};

use super::{
    Checkpoint,
    convert::{self, Conversion},
    header::Header,
    names::{Names, Spelling, is_ignored, is_optimizer_state},
    parameters::Parameter,
    quantised,
    report::Few,
    v1,
};
use crate::{
    Error, Int8Layers, ModelConfig, Result,
    config::{Configuration, DebertaVersion},
    replacement::Replacement,
};

/// What to do with values beyond the range of the written element type. f16 ends at 65,504; bf16 has nearly the range
/// of f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RangePolicy {
    /// It is an error.
    #[default]
    Refuse,
    /// They become the largest value of the type.
    Clamp,
}

/// What a file's weights are held in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileType {
    /// All of them in one element type.
    Float(FloatDType),
    /// The linear maps of the encoder in 8 bits, with a scale for each output and 128 inputs, as compressed-tensors' format
    /// `int-quantized` has it; with [`Int8Layers::Mixed`] those of attention only. The rest in f16.
    Int8(Int8Layers),
}

impl From<FloatDType> for FileType {
    fn from(dtype: FloatDType) -> Self {
        Self::Float(dtype)
    }
}

impl FileType {
    fn of_floats(self) -> FloatDType {
        match self {
            Self::Float(dtype) => dtype,
            Self::Int8(_) => FloatDType::F16,
        }
    }
}

/// Values of a tensor that are beyond the range of the written element type.
#[derive(Debug, Clone, PartialEq)]
pub struct OutOfRange {
    /// The tensor's key.
    pub name: String,
    /// How many values.
    pub count: usize,
    /// The value of the largest magnitude.
    pub largest: f32,
}

impl Display for OutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { name, count, largest } = self;
        write!(f, "`{name}` ({count}, the largest is {largest:e})")
    }
}

/// Writes `module` into `folder` as `model.safetensors` and `config.json` (of a GLiNER, `gliner_config.json`), which Hugging
/// Face transformers (the package gliner) and [`Checkpoint::open`](super::Checkpoint::open) read. The folder is created if it
/// is missing. `config` decides the layout: a v1 model is written in the layout of v1. A masked language modelling head with the enhanced mask decoder
/// is always written as `lm_predictions`, with `"legacy": false` in `config.json`. Values are written as they are, or
/// cast to `dtype`.
///
/// Both files are written in full under temporary names before they replace older ones. (Windows cannot replace a
/// mapped file: there, do not write to a folder from which a living module was loaded.)
///
/// # Errors
/// [`Error::Io`] if a file cannot be written, [`Error::Tensor`] if a value cannot be read back from its device,
/// [`Error::Unsupported`] if one has a type other than f32, f16 and bf16, or is beyond the range of `dtype`.
pub fn write<M: Module>(
    module: &M,
    config: &dyn Configuration,
    folder: impl AsRef<Path>,
    dtype: Option<FloatDType>,
) -> Result<()> {
    let (parameters, mut encoder) = (Parameter::of(module), config.encoder());
    let names = names_in_file(&parameters, &mut encoder);
    let tensors = parameters.into_iter().map(|parameter| stored(parameter, &names)).collect();
    let file_type = dtype.map(FileType::from);
    write_folder(tensors, (config, encoder), folder.as_ref(), file_type, RangePolicy::Refuse).map(drop)
}

/// The names of a module's parameters in its file, whose configuration is made to say so.
pub(super) fn names_in_file(parameters: &[Parameter], config: &mut ModelConfig) -> Names {
    let spelling = match config {
        ModelConfig::Deberta(config) => {
            config.legacy &= !parameters.iter().any(|parameter| parameter.path.starts_with("decoder."));
            if config.legacy { Spelling::LegacyDeberta } else { Spelling::Deberta }
        }
        ModelConfig::Roberta(_) => Spelling::Roberta,
    };
    Names::new(parameters, spelling)
}

/// Writes the weights of `checkpoint`, whatever files they come from, into `folder` as one `model.safetensors` in
/// another type, with its `config.json`. Tensors keep their names. Integer buffers, which no model needs, and
/// an optimiser's state are left out. Returns the values that were clamped.
///
/// # Errors
/// As [`write()`]; a `config.json` that cannot be read; values beyond the range of the type, with
/// [`RangePolicy::Refuse`].
pub fn rewrite(
    checkpoint: &Checkpoint,
    folder: impl AsRef<Path>,
    file_type: impl Into<FileType>,
    range: RangePolicy,
) -> Result<Vec<OutOfRange>> {
    let config = checkpoint.config()?;
    let is_weight = |tensor: &&Stored| match tensor.dtype.is_float() {
        true => !is_optimizer_state(&tensor.name),
        false => !is_ignored(&tensor.name),
    };
    let weights = checkpoint.stored().filter(is_weight);
    let config = (&config as &dyn Configuration, config.encoder());
    write_folder(weights.cloned().collect(), config, folder.as_ref(), Some(file_type.into()), range)
}

/// The path of a parameter with NaN or infinity; none if all values are finite.
///
/// # Errors
/// [`Error::Device`] if a value cannot be read back from its device.
pub(crate) fn first_not_finite<M: Module>(module: &M) -> Result<Option<String>> {
    for parameter in Parameter::of(module) {
        let values = parameter.values.read()?;
        if !convert::is_finite(values.as_bytes(), values.dtype()) {
            return Ok(Some(parameter.path));
        }
    }
    Ok(None)
}

fn check_types(name: &str, types: [DType; 2]) -> Result<()> {
    match types.into_iter().find(|dtype| !convert::is_supported(*dtype)) {
        Some(unsupported) => {
            let problem = format!("it cannot be written as {unsupported:?}, only as F32, F16 or BF16");
            Err(Error::unsupported(format!("tensor `{name}`"), problem))
        }
        None => Ok(()),
    }
}

/// Writes tensors (in `file_type`, if given) and configuration, in the layout of the encoder's model type.
fn write_folder(
    mut tensors: Vec<Stored>,
    (config, mut encoder): (&dyn Configuration, ModelConfig),
    folder: &Path,
    file_type: Option<FileType>,
    range: RangePolicy,
) -> Result<Vec<OutOfRange>> {
    let dtype = file_type.map(|file_type| DType::from(file_type.of_floats()));
    match &mut encoder {
        ModelConfig::Deberta(config) => {
            if config.model_type == DebertaVersion::V1 {
                tensors = v1::merge(tensors, config.num_attention_heads);
            }
            tensors = declare_type(&mut config.other, tensors, file_type);
        }
        ModelConfig::Roberta(config) => tensors = declare_type(&mut config.other, tensors, file_type),
    }

    let written = |tensor: &Stored| dtype.filter(|_| !quantised::is_part(tensor)).unwrap_or(tensor.dtype);
    fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    let path = folder.join("model.safetensors");
    let mut out_of_range = Vec::new();
    let weights = Replacement::new(path.clone(), |file| {
        out_of_range = write_tensors(&tensors, written, file, &path)?;
        Ok(())
    })?;
    if !out_of_range.is_empty() && range == RangePolicy::Refuse {
        let dtype = dtype.unwrap_or(DType::F32);
        let problem = format!("some are beyond the range of {dtype:?}: {}", Few(&out_of_range));
        let advice = "choose another element type (bf16, f32), or have them clamped";
        return Err(Error::unsupported("weights", format!("{problem}; {advice}")));
    }
    let (name, text) = config.file(&encoder);
    let config = Replacement::of(folder.join(name), text.as_bytes())?;
    weights.commit()?;
    config.commit()?;
    Ok(out_of_range)
}

/// The tensors in the type of the file, which the configuration is made to say; transformers casts weights to the type that it
/// finds there.
fn declare_type(other: &mut Map<String, Value>, tensors: Vec<Stored>, file_type: Option<FileType>) -> Vec<Stored> {
    let floats = file_type.map(|file_type| DType::from(file_type.of_floats()));
    let name = match floats.or(tensors.first().map(|tensor| tensor.dtype)) {
        Some(DType::F16) => "float16",
        Some(DType::BF16) => "bfloat16",
        _ => "float32",
    };
    // The key has two names. The newer one is removed, because it would override the one that all versions of
    // transformers know.
    other.remove("dtype");
    other.insert("torch_dtype".into(), json!(name));
    // What was read may have been in 8 bits.
    other.remove("quantization_config");
    let Some(FileType::Int8(layers)) = file_type else { return tensors };
    let (tensors, config) = quantised::quantise(tensors, layers);
    other.insert("quantization_config".into(), config);
    tensors
}

/// The parameter as a tensor of the file. It is read and transposed when it is written.
pub(super) fn stored(parameter: Parameter, names: &Names) -> Stored {
    let (name, shape) = (names.key(&parameter.path), parameter.file_shape());
    let dtype = parameter.values.dtype();
    let transpose = parameter.is_transposed().then(|| [parameter.shape[0], parameter.shape[1]]);
    let conversion = Conversion { from: dtype, to: dtype, transpose };
    bridge::deferred(name, dtype, shape.clone().into(), None, move || {
        let values = parameter.values.read().map_err(|error| burn_pack::Error::ValidationError(error.to_string()))?;
        Ok(TensorData::from_bytes(conversion.apply(values.into_bytes()), shape.clone(), dtype))
    })
}

/// Writes a whole safetensors file, each tensor in the type that `written` says. Values beyond its range are clamped
/// and reported. `path` is for error messages.
pub(super) fn write_tensors(
    tensors: &[Stored],
    written: impl Fn(&Stored) -> DType,
    file: &mut impl Write,
    path: &Path,
) -> Result<Vec<OutOfRange>> {
    for tensor in tensors.iter().filter(|tensor| !quantised::is_part(tensor)) {
        check_types(&tensor.name, [tensor.dtype, written(tensor)])?;
    }
    let header =
        Header::encode(tensors.iter().map(|tensor| (tensor.name.as_str(), written(tensor), &tensor.shape[..])))?;
    file.write_all(&header).map_err(Error::io("write", path))?;
    let mut out_of_range = Vec::new();
    for tensor in tensors {
        let bytes = tensor.to_bytes().map_err(|error| Error::tensor(path, &tensor.name, error))?;
        let conversion = Conversion { from: tensor.dtype, to: written(tensor), transpose: None };
        let (bytes, beyond) = conversion.apply_clamped(bytes);
        let named = |convert::OutOfRange { count, largest }| OutOfRange { name: tensor.name.clone(), count, largest };
        out_of_range.extend(beyond.map(named));
        file.write_all(&bytes).map_err(Error::io("write", path))?;
    }
    Ok(out_of_range)
}
