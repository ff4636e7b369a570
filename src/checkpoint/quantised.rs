//! Weights in 8 bits, as compressed-tensors lays them out (its format `int-quantized`): beside the integers of a matrix,
//! `X.weight`, stand the scales of each output and group of inputs, `X.weight_scale`.
//!
//! ```text
//! weight[output, input] = integer[output, input] * scale[output, input / group]
//! ```

use std::collections::BTreeMap;

use burn::{
    store::burn_pack::{self, Tensor as Stored},
    tensor::{Bytes, DType},
};
use rayon::prelude::*;
use serde_json::{Value, json};

use super::convert;
use crate::{Int8Layers, kernels::cpu::quantisation, model::linear::LinearRole};

/// Inputs that share a scale: as in the products of the CPU kernels, which rotate these numbers and round them once more.
const GROUP: usize = 128;
/// The largest integer.
const LARGEST: f32 = 127.0;
/// What the name of a scale has behind that of its weight.
const SCALE: &str = "_scale";
/// The end of a weight's name.
const WEIGHT: &str = ".weight";

/// The linear maps of a layer by the ends of their keys. v1's three projections are one matrix.
const ROLES: [(&str, LinearRole); 10] = [
    ("attention.self.query_proj.weight", LinearRole::Query),
    ("attention.self.key_proj.weight", LinearRole::Key),
    ("attention.self.value_proj.weight", LinearRole::Value),
    ("attention.self.in_proj.weight", LinearRole::Value),
    ("attention.self.query.weight", LinearRole::Query),
    ("attention.self.key.weight", LinearRole::Key),
    ("attention.self.value.weight", LinearRole::Value),
    ("attention.output.dense.weight", LinearRole::AttentionOutput),
    ("intermediate.dense.weight", LinearRole::Intermediate),
    ("output.dense.weight", LinearRole::Output),
];

/// Whether a tensor is part of a matrix in 8 bits, and so is written as it is.
pub(super) fn is_part(tensor: &Stored) -> bool {
    tensor.dtype == DType::I8 || is_scale(tensor)
}

/// Whether a tensor scales a weight.
fn is_scale(tensor: &Stored) -> bool {
    tensor.name.strip_suffix(SCALE).is_some_and(|name| name.ends_with(WEIGHT))
}

/// Turns the encoder's linear maps into integers and scales; the rest stays. Values are read when they are needed. Returns what
/// `config.json` has to say of it under `quantization_config`.
pub(super) fn quantise(tensors: Vec<Stored>, layers: Int8Layers) -> (Vec<Stored>, Value) {
    let chosen = |tensor: &Stored| {
        let (_, key) = tensor.name.split_once("encoder.layer.")?;
        let (_, key) = key.split_once('.')?;
        // Experts of a Switch layer are feed-forward networks like any other.
        let key = key.strip_prefix("switch.experts.").and_then(|key| key.split_once('.')).map_or(key, |(_, key)| key);
        let (_, role) = ROLES.iter().find(|(end, _)| *end == key)?;
        let &[_, inputs @ (1..)] = &tensor.shape[..] else { return None };
        (layers == Int8Layers::All || role.is_attention()).then_some(inputs)
    };
    // Groups have to be whole; widths other than the published ones have a scale for each output alone.
    let has_groups = tensors.iter().filter_map(chosen).all(|inputs| inputs.is_multiple_of(GROUP));
    let (mut result, mut others) = (Vec::with_capacity(2 * tensors.len()), Vec::new());
    for tensor in tensors {
        match (chosen(&tensor), tensor.name.strip_suffix(WEIGHT)) {
            (Some(inputs), _) => result.extend(quantised(&tensor, if has_groups { GROUP } else { inputs })),
            (None, module) => {
                let is_linear = tensor.shape.len() == 2 && !tensor.name.contains("embeddings");
                others.extend(module.filter(|_| is_linear).map(str::to_owned));
                result.push(tensor);
            }
        }
    }
    let mut weights = json!({ "num_bits": 8, "type": "int", "symmetric": true, "dynamic": false });
    if has_groups {
        weights["strategy"] = "group".into();
        weights["group_size"] = GROUP.into();
    } else {
        weights["strategy"] = "channel".into();
    }
    let config = json!({
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "config_groups": { "group_0": { "targets": ["Linear"], "format": "int-quantized", "weights": weights } },
        "ignore": others,
    });
    (result, config)
}

/// The integers of a matrix, and their scales.
fn quantised(tensor: &Stored, group: usize) -> [Stored; 2] {
    let [outputs, inputs] = [tensor.shape[0], tensor.shape[1]];
    let groups = inputs / group;
    let (weight, scaled) = (tensor.clone(), tensor.clone());
    let integers =
        Stored::deferred(tensor.name.clone(), DType::I8, [outputs, inputs], None, outputs * inputs, move || {
            let values = convert::values(&weight)?;
            let groups = values.par_chunks(group).flat_map_iter(|group| quantisation::group(group, LARGEST).1);
            Ok(Bytes::from_bytes_vec(groups.map(|integer| integer as i8 as u8).collect()))
        });
    let scales = Stored::deferred(
        format!("{}{SCALE}", tensor.name),
        DType::F32,
        [outputs, groups],
        None,
        outputs * groups * size_of::<f32>(),
        move || {
            let values = convert::values(&scaled)?;
            let scales: Vec<f32> =
                values.par_chunks(group).map(|group| quantisation::group(group, LARGEST).0).collect();
            match scales.iter().all(|scale| scale.is_finite()) {
                true => Ok(Bytes::from_elems(scales)),
                false => Err(invalid("NaN and infinity have no integers in 8 bits".into())),
            }
        },
    );
    [integers, scales]
}

/// Turns integers and their scales back into matrices in f32; what is not in 8 bits stays. Values are read when they are needed.
///
/// # Errors
/// The name of a tensor and what is wrong with it: integers without scales, scales of another shape, or a kind of
/// quantisation that is not supported.
pub(super) fn restore(tensors: Vec<Stored>) -> Result<Vec<Stored>, (String, String)> {
    if let Some(tensor) =
        tensors.iter().find(|tensor| ["_packed", "_zero_point"].iter().any(|end| tensor.name.ends_with(end)))
    {
        let problem = "it belongs to weights in less than 8 bits, or with a zero point; only symmetric ones in 8 bits \
                       (compressed-tensors' `int-quantized`) are supported: use the model's own weights in f16 or f32";
        return Err((tensor.name.clone(), problem.into()));
    }
    let (scales, others): (Vec<_>, Vec<_>) = tensors.into_iter().partition(is_scale);
    let mut scales: BTreeMap<_, _> = scales.into_iter().map(|scale| (scale.name.clone(), scale)).collect();
    let mut restored = Vec::with_capacity(others.len());
    for tensor in others {
        if tensor.dtype != DType::I8 {
            restored.push(tensor);
            continue;
        }
        let fail = |problem: String| (tensor.name.clone(), problem);
        let name = format!("{}{SCALE}", tensor.name);
        let scale = scales.remove(&name).ok_or_else(|| {
            fail(format!(
                "it is in 8 bits, and there is no `{name}`: only compressed-tensors' `int-quantized` is supported; use the \
                 model's own weights in f16 or f32"
            ))
        })?;
        let &[outputs @ (1..), inputs @ (1..)] = &tensor.shape[..] else {
            return Err(fail(format!("it is in 8 bits and has the shape {:?}, expected a matrix", tensor.shape)));
        };
        // One scale for all, one an output, or several.
        let count: usize = scale.shape.iter().product();
        let fits = matches!(&scale.shape[..], [] | [1]) || scale.shape[0] == outputs;
        if !fits || count == 0 || (outputs * inputs) % count != 0 || !convert::is_supported(scale.dtype) {
            let found = format!("{:?} {:?}", scale.dtype, scale.shape);
            return Err((name, format!("it is {found}, expected numbers for each output of {:?}", tensor.shape)));
        }
        let name = tensor.name.clone();
        let length = outputs * inputs * size_of::<f32>();
        restored.push(Stored::deferred(name, DType::F32, [outputs, inputs], None, length, move || {
            let (integers, scales) = (tensor.to_bytes()?, convert::values(&scale)?);
            let groups = integers.par_chunks(integers.len() / scales.len()).zip(scales);
            let values =
                groups.flat_map_iter(|(group, scale)| group.iter().map(move |byte| f32::from(*byte as i8) * scale));
            Ok(Bytes::from_elems(values.collect::<Vec<f32>>()))
        }));
    }
    match scales.into_keys().next() {
        Some(name) => Err((name, "there are no weights in 8 bits that it scales".into())),
        None => Ok(restored),
    }
}

fn invalid(problem: String) -> burn_pack::Error {
    burn_pack::Error::ValidationError(problem)
}
