//! AdamW as in DeBERTa's recipes: no decay of biases and LayerNorms, clipping by the global norm, and optionally a
//! learning rate for each layer.
//!
//! ```text
//! g = gradient min(1, max_norm / |all gradients|)
//! m = beta_1 m + (1 - beta_1) g        v = beta_2 v + (1 - beta_2) g^2
//! w = w (1 - rate decay) - rate m / (1 - beta_1^t) / ( sqrt(v / (1 - beta_2^t)) + epsilon )
//! ```
//!
//! burn's own optimiser clips each tensor by its own norm, which is another algorithm. It reads the token embeddings,
//! 128,100 rows, a dozen times in each step, and writes a new tensor each time. It finds its state by parameter ids,
//! which another process does not have. On a CPU, this optimiser makes one pass over a parameter, in place, and skips
//! rows that have never had a gradient. Its state goes by the names of the parameters.
//!
//! Parameters, gradients and moments are in f32, also where the model computes in a shorter type: in bf16, most updates are
//! smaller than half a unit of the weight's last place and would be lost.

mod groups;
mod loss_scale;
mod on_device;
mod schedule;

use std::collections::{BTreeMap, HashMap};

use burn::{
    Tensor,
    module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId},
    optim::GradientsParams,
    tensor::{DType, Device, FloatDType, TensorData},
};
use serde::{Deserialize, Serialize};

use crate::kernels::{self, Coefficients, cpu::adamw, host_serves};
pub(super) use groups::freeze;
pub use groups::{Frozen, ParameterGroups};
pub(super) use loss_scale::LossScale;
use on_device::OnDevice;
pub use schedule::{Schedule, ScheduleKind, Warmup};

/// The optimiser's numbers; the defaults are those of the published recipes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdamWConfig {
    /// Decay of the first moment.
    pub beta_1: f64,
    /// Decay of the second moment.
    pub beta_2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decay of the weights, in units of the learning rate; biases, LayerNorms and temperatures have none.
    pub weight_decay: f64,
    /// The largest norm that all gradients together may have; 0 turns clipping off.
    pub max_norm: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-6, weight_decay: 0.01, max_norm: 1.0 }
    }
}

/// AdamW with its state.
#[derive(Clone, Debug)]
pub struct AdamW {
    config: AdamWConfig,
    groups: ParameterGroups,
    count: StepCount,
    scale: LossScale,
    moments: BTreeMap<String, Moments>,
}

/// Steps so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct StepCount {
    /// All.
    pub all: usize,
    /// Those whose gradients were finite; the others changed nothing, and the corrections of the moments do not count them.
    pub updates: usize,
}

/// The running means of a parameter's gradient and of its square.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one a parameter, beside its numbers")]
pub(super) enum Moments {
    /// Row by row on the host.
    Host(adamw::Moments),
    /// On the parameter's device.
    Device(DeviceMoments),
}

/// Flat tensors in f32.
#[derive(Clone, Debug)]
pub(super) struct DeviceMoments {
    pub first: Tensor<1>,
    pub second: Tensor<1>,
}

impl DeviceMoments {
    fn on(self, device: &Device) -> Self {
        Self { first: self.first.to_device(device), second: self.second.to_device(device) }
    }
}

impl AdamW {
    /// A fresh optimiser for parameters in f32.
    pub fn new(config: AdamWConfig, groups: ParameterGroups) -> Self {
        Self { config, groups, count: StepCount::default(), scale: LossScale::None, moments: BTreeMap::new() }
    }

    /// Scales the loss if a model that computes in this type needs it. A scale that is there already stays.
    pub(super) fn scale_for(&mut self, compute_type: Option<FloatDType>) {
        if self.scale == LossScale::None {
            self.scale = LossScale::of(compute_type);
        }
    }

    /// The number of steps made.
    pub fn steps(&self) -> usize {
        self.count.all
    }

    /// The number of all steps, and of those that changed the model.
    pub(super) fn count(&self) -> StepCount {
        self.count
    }

    /// The state, by the path of the parameter.
    pub(super) fn moments(&self) -> &BTreeMap<String, Moments> {
        &self.moments
    }

    /// The factor that the loss has to be multiplied by.
    pub(super) fn scale(&self) -> LossScale {
        self.scale
    }

    /// Goes on from a state.
    pub(super) fn restore(&mut self, count: StepCount, scale: LossScale, moments: BTreeMap<String, Moments>) {
        (self.count, self.scale, self.moments) = (count, scale, moments);
    }

    /// One step on gradients of the scaled loss. Returns the model and the norm of all gradients, unscaled and before
    /// clipping. If the norm is not finite, only the number of steps and the scale change, so that one bad batch cannot
    /// spoil the model.
    pub fn step<M: Module>(&mut self, model: M, gradients: GradientsParams, learning_rate: f64) -> (M, f64) {
        self.count.all += 1;
        let mut collected = Collected { source: gradients, found: HashMap::new(), squares: 0.0, on_device: Vec::new() };
        model.visit(&mut collected);
        let scale = self.scale.factor();
        let norm = collected.sum_of_squares().sqrt() / scale;
        self.scale.update(norm.is_finite());
        if !norm.is_finite() {
            return (model, norm);
        }
        self.count.updates += 1;
        let AdamWConfig { beta_1, beta_2, epsilon, weight_decay, max_norm } = self.config;
        let time = self.count.updates as i32;
        let clip = if max_norm > 0.0 { (max_norm / (norm + 1e-6)).min(1.0) } else { 1.0 };
        let mut update = Update {
            coefficients: Coefficients {
                factor: clip / scale,
                beta_1,
                beta_2,
                epsilon,
                correction_1: 1.0 - beta_1.powi(time),
                correction_2: 1.0 - beta_2.powi(time),
                rate: learning_rate,
                decay: weight_decay,
            },
            groups: &self.groups,
            gradients: collected.found,
            moments: &mut self.moments,
            path: Vec::new(),
            on_device: OnDevice::default(),
        };
        let model = model.map(&mut update);
        (update.on_device.update(model, &mut self.moments), norm)
    }
}

/// One parameter's gradient.
enum Gradient {
    /// Its rows, and which of them are not zero.
    Host(TensorData, Vec<bool>),
    Device(Tensor<1>),
}

/// Takes the gradients out and sums their squares.
struct Collected {
    source: GradientsParams,
    found: HashMap<ParamId, Gradient>,
    /// The sum over gradients on the host.
    squares: f64,
    /// The others, in the order of the parameters.
    on_device: Vec<Tensor<1>>,
}

impl Collected {
    fn sum_of_squares(&mut self) -> f64 {
        let on_device = std::mem::take(&mut self.on_device);
        if on_device.is_empty() {
            return self.squares;
        }
        self.squares + kernels::sum_of_squares(on_device).sum().into_scalar::<f64>()
    }
}

impl ModuleVisitor for Collected {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(gradient) = self.source.remove::<D>(param.id) else { return };
        let gradient = if host_serves(&gradient.device(), gradient.dtype()) {
            let width = gradient.dims()[D - 1];
            let data = gradient.into_data();
            let (squares, occupied) = adamw::squares(data.as_slice().expect("a gradient in f32"), width);
            self.squares += squares;
            Gradient::Host(data, occupied)
        } else {
            let gradient = gradient.flatten(0, D - 1).cast(DType::F32);
            self.on_device.push(gradient.clone());
            Gradient::Device(gradient)
        };
        self.found.insert(param.id, gradient);
    }
}

/// Updates the parameters that have a gradient.
struct Update<'a> {
    coefficients: Coefficients,
    groups: &'a ParameterGroups,
    gradients: HashMap<ParamId, Gradient>,
    moments: &'a mut BTreeMap<String, Moments>,
    path: Vec<String>,
    /// What is updated at the end, all at once.
    on_device: OnDevice,
}

impl ModuleMapper for Update<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let id = param.id;
        let Some(gradient) = self.gradients.remove(&id) else { return param };
        let path = self.path.join(".");
        let group = self.groups.of(&path);
        let mut coefficients = self.coefficients;
        coefficients.rate *= group.rate;
        if !group.decays {
            coefficients.decay = 0.0;
        }
        let moments = self.moments.remove(&path);
        param.map(|tensor| match gradient {
            Gradient::Host(gradient, occupied) => {
                let (device, required, width) = (tensor.device(), tensor.is_require_grad(), tensor.dims()[D - 1]);
                let mut weights = tensor.inner().into_data();
                let mut moments = match moments {
                    Some(Moments::Host(moments)) => moments,
                    _ => adamw::Moments::new(weights.num_elements(), width),
                };
                let gradient = gradient.as_slice().expect("a gradient in f32");
                let values = weights.as_mut_slice().expect("a weight in f32");
                adamw::update(values, gradient, &occupied, &mut moments, &coefficients);
                self.moments.insert(path, Moments::Host(moments));
                Tensor::from_inner(Tensor::from_data(weights, &device.inner())).set_require_grad(required)
            }
            Gradient::Device(gradient) => {
                let moments = match moments {
                    // Moments that were read from a file are on the first device at first.
                    Some(Moments::Device(moments)) => moments.on(&gradient.device()),
                    _ => DeviceMoments { first: gradient.zeros_like(), second: gradient.zeros_like() },
                };
                self.on_device.take(id, path, tensor, gradient, moments, coefficients)
            }
        })
    }
}
