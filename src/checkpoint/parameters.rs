//! The parameters of a module as a flat list, without initialising them.

use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::{DType, Device, Tensor, TensorData},
};

use crate::{Result, device};

/// One float parameter of a module.
pub(super) struct Parameter {
    /// The field names that lead to it, joined by dots.
    pub path: String,
    /// The types of the modules on the way, outermost first, as burn reports them: `Struct:Backbone`.
    pub containers: Vec<String>,
    /// Its shape in the module.
    pub shape: Vec<usize>,
    /// The device it is or will be on.
    pub device: Device,
    /// Its values.
    pub values: Box<dyn Values>,
}

/// Access to a parameter's values, whatever its rank. A parameter without values is initialised on first access.
pub(super) trait Values: Send + Sync {
    /// The element type.
    fn dtype(&self) -> DType;
    /// The values, copied to the host.
    fn read(&self) -> Result<TensorData>;
}

impl<const D: usize> Values for Param<Tensor<D>> {
    fn dtype(&self) -> DType {
        self.val().dtype()
    }

    fn read(&self) -> Result<TensorData> {
        let value = self.val();
        let device = value.device();
        value.try_into_data().map_err(|error| device::unreadable(&device, error))
    }
}

impl Parameter {
    /// The parameters of `module`, in the order of its fields.
    pub fn of(module: &impl Module) -> Vec<Self> {
        let mut collector = Collector::default();
        module.visit(&mut collector);
        collector.found
    }

    /// Whether this is the matrix of a linear map, or of its low-rank change, which is transposed in files.
    pub fn is_transposed(&self) -> bool {
        let is_linear = |innermost: &String| matches!(innermost.as_str(), "Struct:Linear" | "Struct:LowRank");
        self.shape.len() == 2 && self.containers.last().is_some_and(is_linear)
    }

    /// The shape in a file.
    pub fn file_shape(&self) -> Vec<usize> {
        let mut shape = self.shape.clone();
        if self.is_transposed() {
            shape.reverse();
        }
        shape
    }
}

#[derive(Default)]
struct Collector {
    path: Vec<String>,
    containers: Vec<String>,
    found: Vec<Parameter>,
}

impl ModuleVisitor for Collector {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.push(name.into());
        self.containers.push(container_type.into());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
        self.containers.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.found.push(Parameter {
            path: self.path.join("."),
            containers: self.containers.clone(),
            shape: param.lazy_shape().to_vec(),
            device: param.lazy_device(),
            values: Box::new(param.clone()),
        });
    }
}
