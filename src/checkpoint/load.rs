//! Putting the tensors of a checkpoint into a module.

use std::collections::{BTreeSet, HashMap};

use burn::{
    module::{Module, ModuleMapper, Param},
    store::burn_pack::Tensor as Stored,
    tensor::{Bytes, DType, FloatDType, Tensor, TensorData},
};
use rayon::prelude::*;

use super::{
    convert::{self, Conversion},
    names::{self, Names, Spelling},
    parameters::Parameter,
    read::Checkpoint,
    report::{Few, LoadReport, Misshapen},
};
use crate::{
    Error, Result, device,
    foreign::{self, Part},
    model::parameter::with_value,
};

/// How [`Checkpoint::load`] fills a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadOptions {
    /// The element type that all parameters get: f32, f16 or bf16.
    pub dtype: FloatDType,
    /// What to do if the file lacks a parameter of the head.
    pub head: HeadPolicy,
}

impl Default for LoadOptions {
    /// For inference in f32.
    fn default() -> Self {
        Self { dtype: FloatDType::F32, head: HeadPolicy::Required }
    }
}

/// What to do if a checkpoint lacks a parameter of the module's head, or has it in another shape. Parameters of the
/// backbone are always required.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadPolicy {
    /// It is an error. For inference: a random head would give random answers.
    Required,
    /// It is initialised at random and reported. For fine-tuning.
    InitialiseIfMissing,
    /// The file's head is never used. For fine-tuning on other labels.
    Initialise,
}

impl Checkpoint {
    /// Fills `module` with the tensors of the checkpoint. A head can read the file of a backbone or of another head,
    /// and a backbone the file of any head.
    ///
    /// Parameters that are loaded are not initialised at random before. On CPU devices, tensors whose type and layout
    /// need no change (such as the token embeddings of an f32 model) stay in the mapped file and are not copied.
    ///
    /// # Errors
    /// - [`Error::Tensor`] if a parameter of the backbone (with [`HeadPolicy::Required`], also of the head) is missing
    ///   or has another shape, or if a tensor cannot be read. The message names all of them.
    /// - [`Error::Tensor`] if the module is a masked language model and the file has an output layer that differs from the
    ///   token embeddings, for which the module has no place.
    /// - [`Error::Device`] if the module's device does not compute in the wanted type.
    pub fn load<M: Module>(&self, module: M, options: &LoadOptions) -> Result<(M, LoadReport)> {
        let dtype = DType::from(options.dtype);
        let parameters = Parameter::of(&module);
        check_dtype(dtype, &parameters)?;
        let names = Names::new(&parameters, Spelling::of(self.keys())).in_file(self.keys());
        if options.head != HeadPolicy::Initialise {
            self.expect_tied(&parameters, &names)?;
        }

        let mut report = LoadReport { skipped: self.skipped().to_vec(), ..Default::default() };
        let mut pairs = Vec::with_capacity(parameters.len());
        let (mut fatal, mut only_heads) = (Vec::<(String, String)>::new(), true);
        for parameter in &parameters {
            let (name, expected) = (names.key(&parameter.path), parameter.file_shape());
            let is_backbone = names.is_backbone(&parameter.path);
            let required = is_backbone || options.head == HeadPolicy::Required;
            let wanted = is_backbone || options.head != HeadPolicy::Initialise;
            let problem = match self.find(&name).filter(|_| wanted) {
                Some(stored) if stored.shape[..] == expected => {
                    pairs.push((parameter, stored));
                    continue;
                }
                Some(stored) => {
                    let misshapen = Misshapen { name, expected, found: stored.shape.to_vec() };
                    let problem = misshapen.to_string();
                    report.misshapen.push(misshapen);
                    problem
                }
                None => {
                    let problem = format!("`{name}` of shape {expected:?} is missing");
                    report.missing.push(name);
                    problem
                }
            };
            if required {
                fatal.push((names.key(&parameter.path), problem));
                only_heads &= !is_backbone;
            }
        }
        if let Some((name, _)) = fatal.first().cloned() {
            let advice = match only_heads {
                true => foreign::explain(self.folder(), Part::Head)
                    .map_or("the checkpoint was not trained for this task: fine-tune it first", |sign| sign.meaning)
                    .to_owned(),
                false if pairs.is_empty() => {
                    let keys: Vec<_> = self.keys().map(|key| format!("`{key}`")).collect();
                    format!("no key of the file is one of this model's, they are {}", Few(&keys))
                }
                false => "check that config.json belongs to these weights".to_owned(),
            };
            let problems: Vec<_> = fatal.into_iter().map(|(_, problem)| problem).collect();
            let problem = format!("{}; {advice}", Few(&problems));
            return Err(Error::Tensor { path: self.folder().to_owned(), name, problem });
        }

        // Tensors are independent of each other, and moving memory takes most of the time: all threads help.
        let filled = pairs.par_iter().map(|(parameter, stored)| self.values(parameter, stored, dtype));
        let filled = filled.collect::<Result<Vec<_>>>()?;
        let mut values = HashMap::with_capacity(pairs.len());
        for ((parameter, stored), (data, is_finite)) in pairs.into_iter().zip(filled) {
            if !is_finite {
                report.not_finite.push(stored.name.clone());
            }
            report.used.push(stored.name.clone());
            values.insert(parameter.path.clone(), data);
        }
        let used: BTreeSet<&str> = report.used.iter().map(String::as_str).collect();
        let misshapen = |key: &str| report.misshapen.iter().any(|misshapen| misshapen.name == key);
        let rest = self.keys().filter(|key| !used.contains(key) && !misshapen(key)).map(String::from);
        (report.ignored, report.unexpected) = rest.partition(|key| names::is_ignored(key));

        let module = module.map(&mut Filler { path: Vec::new(), values, dtype });
        Ok((module, report))
    }

    /// Refuses a language model whose output layer is not its token embeddings: modules compute with these for both.
    fn expect_tied(&self, parameters: &[Parameter], names: &Names) -> Result<()> {
        let Some(bias) = parameters.iter().find(|parameter| parameter.path == "lm_head.bias") else { return Ok(()) };
        let key = names.key(&bias.path);
        let head = key.trim_end_matches("bias");
        for (copy, original) in names::TIED.iter().filter(|(copy, _)| copy.starts_with(head)) {
            let (Some(copy), Some(original)) = (self.get(copy), self.get(original)) else { continue };
            let is_alike = copy.dtype == original.dtype && copy.shape == original.shape;
            if !is_alike || self.bytes(copy)? != self.bytes(original)? {
                let problem = format!(
                    "it differs from `{}`: the output layer of this language model has weights of its own \
                     (`tie_word_embeddings` is false), which is not supported; use a model whose output layer is its token \
                     embeddings",
                    original.name
                );
                return Err(Error::tensor(self.folder(), &copy.name, problem));
            }
        }
        Ok(())
    }

    /// The tensor of this key, or its copy under another key.
    fn find(&self, key: &str) -> Option<&Stored> {
        let copy = || names::TIED.iter().find(|(_, original)| *original == key).and_then(|(copy, _)| self.get(copy));
        self.get(key).or_else(copy)
    }

    /// The values of `stored` as `parameter` wants them, and whether they are finite.
    fn values(&self, parameter: &Parameter, stored: &Stored, to: DType) -> Result<(TensorData, bool)> {
        let fail = |problem: String| Error::tensor(self.folder(), &stored.name, problem);
        let from = stored.dtype;
        if !convert::is_supported(from) {
            return Err(fail(format!("the element type is {from:?}, expected F32, F16 or BF16")));
        }
        let transpose = parameter.is_transposed().then(|| [stored.shape[0], stored.shape[1]]);
        let bytes = self.bytes(stored)?;
        let source = bytes.as_ptr_range();
        let bytes = Conversion { from, to, transpose }.apply(bytes);
        if bytes.as_ptr() != source.start {
            self.release(source);
        }
        let is_finite = convert::is_finite(&bytes, to);
        let data =
            TensorData::try_from_bytes(bytes, parameter.shape.clone(), to).map_err(|error| fail(error.to_string()))?;
        Ok((data, is_finite))
    }

    /// The bytes of a tensor as they are in the file.
    fn bytes(&self, stored: &Stored) -> Result<Bytes> {
        stored
            .to_bytes()
            .map_err(|error| Error::tensor(self.folder(), &stored.name, format!("{error}; copy the file again")))
    }
}

/// Whether the device of the parameters computes in `dtype`.
fn check_dtype(dtype: DType, parameters: &[Parameter]) -> Result<()> {
    let Some(Parameter { device, .. }) = parameters.first() else { return Ok(()) };
    let fail = |problem: String| Err(Error::Device { device: device::name(device), problem });
    if !convert::is_supported(dtype) {
        return fail(format!("weights cannot be loaded as {dtype:?}, only as F32, F16 or BF16"));
    }
    if !device.supports_dtype(dtype) {
        return fail(format!("it does not compute in {dtype:?}; use f32"));
    }
    Ok(())
}

/// Moves values into a module.
struct Filler {
    path: Vec<String>,
    /// By path of the parameter.
    values: HashMap<String, TensorData>,
    dtype: DType,
}

impl ModuleMapper for Filler {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let value = match self.values.remove(&self.path.join(".")) {
            Some(data) => Tensor::from_data(data, (&param.lazy_device(), self.dtype)),
            // A random initialisation has the device's own type.
            None => param.val().inner().cast(self.dtype),
        };
        with_value(param, value)
    }
}
