//! The state of a run on disk: what it needs to go on as if it had never stopped.
//!
//! A folder `checkpoint-STEP` holds the model (as in any checkpoint folder), `optimizer.safetensors` and
//! `progress.json`. `optimizer.safetensors` has both moments of each parameter under the parameter's path. If two models are
//! trained, each has a folder of its own in it. The folder is written under a temporary name and renamed when it is complete; then the previous one is removed.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

use burn::{
    Tensor,
    module::Module,
    tensor::{DType, Device, TensorData},
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Serialize, de::DeserializeOwned};

use super::optimizer::{AdamW, DeviceMoments, LossScale, Moments, StepCount};
use crate::{
    Error, Result,
    checkpoint::{self, Checkpoint, LoadOptions, adapter},
    config::Configuration,
    kernels::{cpu::adamw, host_serves},
    scores,
};

/// The start of the folders' names.
const PREFIX: &str = "checkpoint-";
const OPTIMIZER: &str = "optimizer.safetensors";
const TRAINED: &str = "trained.safetensors";
const PROGRESS: &str = "progress.json";

/// The newest complete checkpoint in an output folder.
pub(super) fn newest(output: &Path) -> Result<Option<PathBuf>> {
    let entries = match fs::read_dir(output) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        entries => entries.map_err(Error::io("read", output))?,
    };
    let step = |path: &Path| path.file_name()?.to_str()?.strip_prefix(PREFIX)?.parse::<usize>().ok();
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(paths.filter_map(|path| Some((step(&path)?, path))).max().map(|(_, path)| path))
}

/// Saves a run after `step` steps: `write` puts the model into the folder, and the progress is added. Removes older
/// folders.
pub(super) fn save(
    output: &Path,
    step: usize,
    progress: &impl Serialize,
    write: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let folder = output.join(format!("{PREFIX}{step}"));
    let before = newest(output)?.filter(|before| *before != folder);
    let unfinished = output.join(".checkpoint-unfinished");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).map_err(Error::io("remove", &unfinished))?;
    }
    write(&unfinished)?;
    let path = unfinished.join(PROGRESS);
    let text = serde_json::to_string_pretty(progress).expect("plain data");
    fs::write(&path, text).map_err(Error::io("write", &path))?;
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(Error::io("remove", &folder))?;
    }
    fs::rename(&unfinished, &folder).map_err(Error::io("rename", &unfinished))?;
    before.map_or(Ok(()), |before| fs::remove_dir_all(&before).map_err(Error::io("remove", &before)))
}

/// The progress in a checkpoint.
pub(super) fn read_progress<P: DeserializeOwned>(folder: &Path) -> Result<P> {
    let path = folder.join(PROGRESS);
    let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    serde_json::from_str(&text).map_err(Error::json(path.display()))
}

/// Removes the saved states, which a finished run does not need.
pub(super) fn remove(output: &Path) -> Result<()> {
    while let Some(folder) = newest(output)? {
        fs::remove_dir_all(&folder).map_err(Error::io("remove", &folder))?;
    }
    Ok(())
}

/// Writes a model and its optimiser into a folder, which is made if it is not there.
pub(super) fn write_model<M: Module>(
    folder: &Path,
    model: &M,
    config: &dyn Configuration,
    optimizer: &AdamW,
) -> Result<()> {
    checkpoint::write(model, config, folder, None)?;
    write_moments(folder, optimizer)
}

/// Fills a model and its optimiser from such a folder.
pub(super) fn read_model<M: Module>(
    folder: &Path,
    model: M,
    options: &LoadOptions,
    optimizer: &mut AdamW,
    device: &Device,
) -> Result<M> {
    let (model, _) = Checkpoint::open(folder)?.load(model, options)?;
    read_moments(folder, device, optimizer)?;
    Ok(model)
}

/// Writes the trained part of an adapted model, and its optimiser.
pub(super) fn write_adapter<M: Module>(folder: &Path, model: &M, optimizer: &AdamW) -> Result<()> {
    fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    checkpoint::write_some(model, adapter::is_part, &folder.join(TRAINED))?;
    write_moments(folder, optimizer)
}

/// Puts the trained part of such a folder back into the adapted base model, and fills the optimiser.
pub(super) fn read_adapter<M: Module>(folder: &Path, model: M, optimizer: &mut AdamW, device: &Device) -> Result<M> {
    let model = checkpoint::read_some(model, adapter::is_part, &folder.join(TRAINED))?;
    read_moments(folder, device, optimizer)?;
    Ok(model)
}

/// What the file keeps of a parameter: the elements of a row, and the values of each kind.
type Rows<'a> = (usize, Vec<(&'static str, Cow<'a, [f32]>)>);

const FIRST: &str = "first";
const SECOND: &str = "second";

/// The values, copied to the host. Values from another device are one row.
fn rows(moments: &Moments) -> Result<Rows<'_>> {
    match moments {
        Moments::Host(moments) => {
            Ok((moments.width, vec![(FIRST, (&moments.first).into()), (SECOND, (&moments.second).into())]))
        }
        Moments::Device(DeviceMoments { first, second }) => {
            let read =
                |(kind, tensor): (_, &Tensor<1>)| scores::values(tensor.clone()).map(|values| (kind, values.into()));
            let kinds = [(FIRST, first), (SECOND, second)].into_iter().map(read).collect::<Result<_>>()?;
            Ok((first.dims()[0], kinds))
        }
    }
}

/// Writes an optimiser into a folder.
pub(super) fn write_moments(folder: &Path, optimizer: &AdamW) -> Result<()> {
    let path = &folder.join(OPTIMIZER);
    let mut values = Vec::new();
    for (name, moments) in optimizer.moments() {
        let (width, kinds) = rows(moments)?;
        values.extend(kinds.into_iter().map(|(kind, values)| (format!("{name}.{kind}"), width, values)));
    }
    let views = values.iter().map(|(name, width, values)| {
        let shape = vec![values.len() / width, *width];
        let view = TensorView::new(Dtype::F32, shape, bytemuck::cast_slice(values)).expect("a shape that fits");
        (name.as_str(), view)
    });
    let StepCount { all, updates } = optimizer.count();
    let counts = [("steps", all), ("updates", updates)];
    let mut metadata: HashMap<_, _> = counts.map(|(key, count)| (key.to_owned(), count.to_string())).into();
    if let LossScale::Moving { factor, steps } = optimizer.scale() {
        metadata.insert("loss_scale".to_owned(), format!("{factor} {steps}"));
    }
    safetensors::serialize_to_file(views, Some(metadata), path)
        .map_err(|error| Error::io("write", path)(std::io::Error::other(error)))
}

/// Fills the optimiser of a model on this device from such a folder.
pub(super) fn read_moments(folder: &Path, device: &Device, optimizer: &mut AdamW) -> Result<()> {
    let path = &folder.join(OPTIMIZER);
    let fail = |problem: String| Error::checkpoint(path, format!("{problem}; start the run anew without --resume"));
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| fail(error.to_string()))?;
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|error| fail(error.to_string()))?;
    let entry = |key: &str| metadata.metadata().as_ref().and_then(|metadata| metadata.get(key));
    let count = |key: &str| {
        let count = entry(key).and_then(|count| count.parse().ok());
        count.ok_or_else(|| fail("it does not say after how many steps it was written".into()))
    };
    let count = StepCount { all: count("steps")?, updates: count("updates")? };
    let scale = match entry("loss_scale") {
        Some(text) => {
            let numbers =
                text.split_once(' ').and_then(|(factor, steps)| Some((factor.parse().ok()?, steps.parse().ok()?)));
            let (factor, steps) =
                numbers.ok_or_else(|| fail(format!("its loss scale is `{text}`, not two numbers")))?;
            LossScale::Moving { factor, steps }
        }
        None => LossScale::None,
    };
    let values = |name: &str| -> Result<Vec<f32>> {
        let view = file.tensor(name).map_err(|error| fail(error.to_string()))?;
        Ok(view.data().chunks_exact(4).map(bytemuck::pod_read_unaligned).collect())
    };
    let mut moments = BTreeMap::new();
    for name in file.names() {
        let Some(path) = name.strip_suffix(FIRST).and_then(|path| path.strip_suffix('.')) else { continue };
        let view = file.tensor(name).map_err(|error| fail(error.to_string()))?;
        let [_, width @ 1..=usize::MAX] = view.shape()[..] else {
            return Err(fail(format!("`{name}` has the shape {:?}, expected rows and columns", view.shape())));
        };
        let (first, second) = (values(name)?, values(&format!("{path}.{SECOND}"))?);
        if second.len() != first.len() {
            return Err(fail(format!("the values of `{path}` differ in number")));
        }
        // The optimiser decides in the same way.
        let restored = match host_serves(device, DType::F32) {
            true => Moments::Host(adamw::Moments::from_values(first, second, width)),
            false => {
                let flat = |values: Vec<f32>| {
                    let shape = [values.len()];
                    Tensor::from_data(TensorData::new(values, shape), (&device.clone().inner(), DType::F32))
                };
                Moments::Device(DeviceMoments { first: flat(first), second: flat(second) })
            }
        };
        moments.insert(path.to_owned(), restored);
    }
    optimizer.restore(count, scale, moments);
    Ok(())
}
