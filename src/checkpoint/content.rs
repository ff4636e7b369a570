//! What is in a file of weights: safetensors, PyTorch's, or an index of several.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    path::Path,
};

use burn::{
    store::{
        bridge,
        burn_pack::Tensor as Stored,
        pytorch_reader::{PickleValue, PytorchError, PytorchReader},
    },
    tensor::{AllocationProperty, Bytes},
};
use serde::Deserialize;

use super::{header::Header, mapped::MappedFile};
use crate::{Error, Result, text_file};

/// The content of a file.
#[derive(Default)]
pub(super) struct Content {
    pub tensors: Vec<Stored>,
    /// Names of entries that are no tensors.
    pub skipped: Vec<String>,
    /// The mapped files that the tensors are in.
    pub files: Vec<MappedFile>,
}

impl Content {
    /// Reads the file at `path`; its extension says which format it has.
    pub fn of(path: &Path) -> Result<Self> {
        match path.extension().and_then(OsStr::to_str) {
            Some("safetensors") => safetensors(path),
            Some("bin") => pytorch(path),
            _ => shards(path),
        }
    }
}

fn safetensors(path: &Path) -> Result<Content> {
    let file = MappedFile::open(path)?;
    let map = file.bytes();
    let header = Header::parse(&map, path)?;
    let tensors = header.entries.into_iter().map(|entry| {
        let bytes = Bytes::from_shared(map.slice(entry.range), AllocationProperty::File);
        Stored::new(entry.name, entry.dtype, entry.shape, None, bytes)
    });
    Ok(Content { tensors: tensors.collect(), skipped: Vec::new(), files: vec![file] })
}

fn pytorch(path: &Path) -> Result<Content> {
    // The reader opens the file itself; the map is for a look at its start.
    text_file::refuse_pointer(path, &MappedFile::open(path)?.bytes())?;
    let fail = |error: PytorchError| {
        Error::checkpoint(path, format!("not a readable PyTorch checkpoint ({error}); copy it again"))
    };
    let tensors = PytorchReader::new(path).map_err(fail)?.into_tensors();
    let mut skipped = Vec::new();
    // The reader skips entries that are no tensors; the pickle is read again to find their names.
    if let PickleValue::Dict(entries) = PytorchReader::read_pickle_data(path, None).map_err(fail)? {
        let is_tensor = |key: &String| {
            tensors.keys().any(|name| {
                name.strip_prefix(key.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
        };
        skipped.extend(entries.into_keys().filter(|key| !is_tensor(key)));
        skipped.sort();
    }
    Ok(Content { tensors: tensors.into_values().map(bridge::from_pytorch).collect(), skipped, files: Vec::new() })
}

/// Reads the index at `path` and all files it names.
fn shards(path: &Path) -> Result<Content> {
    let index = Index::open(path)?;
    let fail = |name: &str, problem: String| Err(Error::tensor(path, name, problem));
    let mut content = Content::default();
    let mut seen = BTreeSet::new();
    for shard in index.files() {
        let shard_path = path.with_file_name(shard);
        if !shard_path.exists() {
            let problem = format!("the index names the shard `{shard}`, which is not there; download it too");
            return Err(Error::missing(&shard_path, format!("checkpoint {}: {problem}", path.display())));
        }
        let Content { tensors, skipped, files } = Content::of(&shard_path)?;
        for Stored { name, .. } in &tensors {
            if !seen.insert(name.clone()) {
                return fail(name, format!("it is in two shards, once more in `{shard}`; which one counts is unknown"));
            }
        }
        if let Some((key, _)) = index.weight_map.iter().find(|(key, file)| *file == shard && !seen.contains(*key)) {
            return fail(key, format!("the index says that it is in `{shard}`, but it is not; download both again"));
        }
        content.tensors.extend(tensors);
        content.skipped.extend(skipped);
        content.files.extend(files);
    }
    Ok(content)
}

/// Which shard holds which tensor.
#[derive(Deserialize)]
pub(super) struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Index {
    pub fn open(path: &Path) -> Result<Self> {
        let index: Self = text_file::read_json(path)?;
        // An index is input from outside: it must not lead to files outside its folder.
        let is_beside =
            |file: &&String| Path::new(file).file_name() == Some(OsStr::new(file)) && !file.ends_with(".json");
        match index.weight_map.values().find(|file| !is_beside(file)) {
            Some(file) => {
                Err(Error::checkpoint(path, format!("the index names the shard `{file}`, expected a file beside it")))
            }
            None => Ok(index),
        }
    }

    /// The names of the shards.
    pub fn files(&self) -> BTreeSet<&str> {
        self.weight_map.values().map(String::as_str).collect()
    }
}
