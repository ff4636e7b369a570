//! Training on disk: what a run needs to go on as if it had never stopped.
//!
//! A folder `checkpoint-STEP` holds the model as every checkpoint does, `optimizer.safetensors` with both moments of each
//! parameter under the parameter's path, and `progress.json`; where two models are trained, each has a folder of its own in it.
//! It is written under another name and renamed when it is complete; only then is the one before it removed.

use std::{
    borrow::Cow,
    collections::BTreeMap,
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

use super::optimizer::{AdamW, Moments};
use crate::{
    Error, ModelConfig, Result,
    checkpoint::{self, Checkpoint, LoadOptions},
    kernels::{can_fuse, cpu::adamw},
};

/// How the folders' names begin.
const PREFIX: &str = "checkpoint-";
const OPTIMIZER: &str = "optimizer.safetensors";
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

/// Saves a run after `step` steps: what `write` puts into a folder, and the progress. Removes older checkpoints.
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

/// Removes what only a run that is not done needs.
pub(super) fn remove(output: &Path) -> Result<()> {
    while let Some(folder) = newest(output)? {
        fs::remove_dir_all(&folder).map_err(Error::io("remove", &folder))?;
    }
    Ok(())
}

/// Writes a model and its optimiser into a folder, which is made if it is not there.
pub(super) fn write_model<M: Module>(folder: &Path, model: &M, config: &ModelConfig, optimizer: &AdamW) -> Result<()> {
    checkpoint::write(model, config, folder, None)?;
    write_moments(&folder.join(OPTIMIZER), optimizer)
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
    let (steps, moments) = read_moments(&folder.join(OPTIMIZER), device, options.dtype.into())?;
    optimizer.restore(steps, moments);
    Ok(model)
}

/// Elements of a row, the first moment, the second.
type Rows<'a> = (usize, Cow<'a, [f32]>, Cow<'a, [f32]>);

/// Elements of a row, and both moments, on the host. What is not on the host has one row.
fn rows(moments: &Moments) -> Result<Rows<'_>> {
    match moments {
        Moments::Host(moments) => Ok((moments.width, (&moments.first).into(), (&moments.second).into())),
        Moments::Device(first, second) => {
            let read = |tensor: &Tensor<1>| {
                tensor.clone().try_into_vec_as::<f32>().map_err(|error| {
                    Error::Model(format!("the optimiser's state cannot be read back from its device: {error}"))
                })
            };
            let (first, second) = (read(first)?, read(second)?);
            Ok((first.len(), first.into(), second.into()))
        }
    }
}

fn write_moments(path: &Path, optimizer: &AdamW) -> Result<()> {
    let mut values = Vec::new();
    for (name, moments) in optimizer.moments() {
        let (width, first, second) = rows(moments)?;
        values.push((format!("{name}.first"), width, first));
        values.push((format!("{name}.second"), width, second));
    }
    let views = values.iter().map(|(name, width, values)| {
        let shape = vec![values.len() / width, *width];
        let view = TensorView::new(Dtype::F32, shape, bytemuck::cast_slice(values)).expect("a shape that fits");
        (name.as_str(), view)
    });
    let metadata = [("steps".to_owned(), optimizer.steps().to_string())].into();
    safetensors::serialize_to_file(views, Some(metadata), path)
        .map_err(|error| Error::io("write", path)(std::io::Error::other(error)))
}

fn read_moments(path: &Path, device: &Device, dtype: DType) -> Result<(usize, BTreeMap<String, Moments>)> {
    let fail = |problem: String| Error::checkpoint(path, format!("{problem}; start the run anew without --resume"));
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| fail(error.to_string()))?;
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|error| fail(error.to_string()))?;
    let steps = metadata.metadata().as_ref().and_then(|metadata| metadata.get("steps")?.parse().ok());
    let steps = steps.ok_or_else(|| fail("it does not say after how many steps it was written".into()))?;
    let mut moments = BTreeMap::new();
    for name in file.names() {
        let Some(path) = name.strip_suffix(".first") else { continue };
        let values = |name: &str| -> Result<Vec<f32>> {
            let view = file.tensor(name).map_err(|error| fail(error.to_string()))?;
            Ok(view.data().chunks_exact(4).map(bytemuck::pod_read_unaligned).collect())
        };
        let view = file.tensor(name).map_err(|error| fail(error.to_string()))?;
        let (first, second) = (values(name)?, values(&format!("{path}.second"))?);
        let [_, width @ 1..=usize::MAX] = view.shape()[..] else {
            return Err(fail(format!("`{name}` has the shape {:?}, expected rows and columns", view.shape())));
        };
        if first.len() != second.len() {
            return Err(fail(format!("the two moments of `{path}` differ in size")));
        }
        // As the optimiser itself decides.
        let restored = match can_fuse(device, dtype) {
            true => Moments::Host(adamw::Moments::from_values(first, second, width)),
            false => {
                let flat = |values: Vec<f32>| {
                    let shape = [values.len()];
                    Tensor::from_data(TensorData::new(values, shape), &device.clone().inner())
                };
                Moments::Device(flat(first), flat(second))
            }
        };
        moments.insert(path.to_owned(), restored);
    }
    Ok((steps, moments))
}
