//! Some parameters of a module in a file, by the paths of their fields: what a run needs to go on beside the model that it
//! began with.

use std::{collections::HashMap, path::Path};

use burn::{
    module::{Module, ModuleMapper, Param},
    store::{bridge, burn_pack, burn_pack::Tensor as Stored},
    tensor::{Tensor, TensorData},
};

use super::{content::Content, parameters::Parameter, write::write_tensors};
use crate::{Error, Result, replacement::Replacement};

/// Writes the parameters whose paths are wanted, as they are, into a safetensors file.
///
/// # Errors
/// A file that cannot be written, or a value that cannot be read back from its device.
pub(crate) fn write_some<M: Module>(module: &M, wanted: fn(&str) -> bool, path: &Path) -> Result<()> {
    let parameters = Parameter::of(module).into_iter().filter(|parameter| wanted(&parameter.path));
    let tensors: Vec<_> = parameters.map(as_it_is).collect();
    Replacement::new(path.to_owned(), |file| write_tensors(&tensors, |tensor| tensor.dtype, file, path).map(drop))?
        .commit()
}

/// The parameter as a tensor of the file.
fn as_it_is(parameter: Parameter) -> Stored {
    let (name, shape, dtype) = (parameter.path.clone(), parameter.shape.clone(), parameter.values.dtype());
    bridge::deferred(name, dtype, shape.into(), None, move || {
        parameter.values.read().map_err(|error| burn_pack::Error::ValidationError(error.to_string()))
    })
}

/// Puts the parameters of such a file back; all that are wanted have to be there.
///
/// # Errors
/// A file that cannot be read, or one of another model.
pub(crate) fn read_some<M: Module>(module: M, wanted: fn(&str) -> bool, path: &Path) -> Result<M> {
    let mut stored: HashMap<_, _> =
        Content::of(path)?.tensors.into_iter().map(|tensor| (tensor.name.clone(), tensor)).collect();
    let mut values = HashMap::new();
    for parameter in Parameter::of(&module).into_iter().filter(|parameter| wanted(&parameter.path)) {
        let fail = |problem: String| Error::tensor(path, &parameter.path, problem);
        let tensor = stored.remove(&parameter.path).ok_or_else(|| fail("it is missing".into()))?;
        if tensor.shape[..] != parameter.shape[..] {
            return Err(fail(format!("it has the shape {:?}, expected {:?}", tensor.shape, parameter.shape)));
        }
        let bytes = tensor.to_bytes().map_err(|error| fail(error.to_string()))?;
        let data = TensorData::try_from_bytes(bytes, parameter.shape.clone(), tensor.dtype);
        values.insert(parameter.path.clone(), data.map_err(|error| fail(error.to_string()))?);
    }
    Ok(module.map(&mut Restore { path: Vec::new(), values }))
}

/// Replaces the values of some parameters.
struct Restore {
    path: Vec<String>,
    values: HashMap<String, TensorData>,
}

impl ModuleMapper for Restore {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(data) = self.values.remove(&self.path.join(".")) else { return param };
        let (id, dtype) = (param.id, data.dtype());
        let tensor = Tensor::from_data(data, (&param.lazy_device(), dtype));
        param.transform_for_load(tensor, id)
    }
}
