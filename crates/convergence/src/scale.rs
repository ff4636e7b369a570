//! Fresh weights that are larger or smaller than usual: whether a model learns may depend on where it begins.

use std::{fmt, str::FromStr};

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    tensor::Tensor,
};
use deberta_burn::{Error, Result};
use serde::{Deserialize, Serialize};

/// A factor of the fresh parameters whose paths have `name` in them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scale {
    pub name: String,
    pub factor: f64,
}

impl FromStr for Scale {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected a part of parameters' names and a factor: query_proj=2".to_owned();
        let (name, factor) = text.split_once('=').ok_or_else(expected)?;
        let factor: f64 = factor.parse().map_err(|_| expected())?;
        let is_scale = !name.is_empty() && factor.is_finite() && factor >= 0.0;
        is_scale.then(|| Self { name: name.to_owned(), factor }).ok_or_else(expected)
    }
}

impl fmt::Display for Scale {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} times {}", self.name, self.factor)
    }
}

/// The model, on a device with gradients, with the parameters scaled that are meant.
pub fn scaled<M: Module>(model: M, scales: &[Scale]) -> M {
    model.map(&mut Scaling { path: Vec::new(), scales })
}

/// A parameter of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// The field names that lead to it, joined by dots.
    pub path: String,
    /// The number of its values.
    pub size: usize,
}

/// The parameters of a model.
pub fn parameters(model: &impl Module) -> Vec<Parameter> {
    let mut collector = Collector::default();
    model.visit(&mut collector);
    collector.found
}

/// Checks that every name is in the path of one of these parameters.
///
/// # Errors
/// One that is in none.
pub fn check(scales: &[Scale], parameters: &[Parameter]) -> Result<()> {
    match scales.iter().find(|scale| !parameters.iter().any(|parameter| parameter.path.contains(&scale.name))) {
        Some(Scale { name, .. }) => {
            let example = parameters.first().map_or("", |parameter| &parameter.path);
            let problem = format!("no parameter has `{name}` in its name, expected a part of one such as {example}");
            Err(Error::input("--init-scale", problem))
        }
        None => Ok(()),
    }
}

struct Scaling<'a> {
    path: Vec<String>,
    scales: &'a [Scale],
}

impl ModuleMapper for Scaling<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.path.join(".");
        let meant = self.scales.iter().filter(|scale| path.contains(&scale.name));
        let Some(factor) = meant.map(|scale| scale.factor).reduce(|product, factor| product * factor) else {
            return param;
        };
        // A leaf of the tape, or it would not learn.
        let (id, value) = (param.id, Tensor::from_inner(param.val().inner() * factor));
        param.transform_for_load(value, id)
    }
}

#[derive(Default)]
struct Collector {
    path: Vec<String>,
    found: Vec<Parameter>,
}

impl ModuleVisitor for Collector {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.found.push(Parameter { path: self.path.join("."), size: param.lazy_shape().num_elements() });
    }
}

#[cfg(test)]
mod tests {
    use burn::{nn::LinearConfig, tensor::Device};

    use super::*;

    #[test]
    fn only_what_is_meant_is_scaled_and_learns() {
        let device = Device::flex().autodiff();
        let layer = LinearConfig::new(2, 3).init(&device);
        let (weight, bias) = (layer.weight.val().into_data(), layer.bias.as_ref().unwrap().val().into_data());
        let layer = scaled(layer, &["weight=2".parse().unwrap()]);
        assert!(layer.weight.val().into_data().iter::<f32>().eq(weight.iter::<f32>().map(|value| 2.0 * value)));
        assert_eq!(layer.bias.as_ref().unwrap().val().into_data(), bias);
        let loss = (layer.weight.val() * 3.0).sum();
        assert!(layer.weight.val().grad(&loss.backward()).is_some());
        let parameter = |path: &str, size| Parameter { path: path.to_owned(), size };
        assert_eq!(parameters(&layer), [parameter("weight", 6), parameter("bias", 3)]);
    }

    #[test]
    fn scales_are_a_name_and_a_factor() {
        assert_eq!("a.b=0.5".parse(), Ok(Scale { name: "a.b".to_owned(), factor: 0.5 }));
        for wrong in ["a", "=2", "a=", "a=b", "a=-1", "a=inf"] {
            assert!(wrong.parse::<Scale>().is_err(), "{wrong}");
        }
        let parameters = [Parameter { path: "a.weight".to_owned(), size: 1 }];
        let error = check(&["b=2".parse().unwrap()], &parameters).unwrap_err().to_string();
        assert!(error.contains("--init-scale") && error.contains("`b`") && error.contains("a.weight"), "{error}");
        check(&["weight=2".parse().unwrap()], &parameters).unwrap();
    }
}
