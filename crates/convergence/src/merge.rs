//! The finished runs of other output folders, so that seeds that were trained on other machines, or on other days, count as well.

use std::{
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use deberta_burn::{Error, Result};
use serde_json::Value;

use crate::{
    protocol::{RunSpec, TUNING_SEED},
    results::{self, Row},
    worker,
};

/// Adds the evaluations of the finished runs below `output` to `rows`, seed by seed: a seed of which a run of one of the `models` is
/// not finished is left out. They must not be those of this folder's `own` runs. Of `models`, specifications with any seed, they have
/// to have the same settings, texts and learning rates; runs of other variants, and those that only tune, do not count. Returns the
/// seeds that were left out.
///
/// # Errors
/// No finished seed, one under another protocol, one that is there already, and files that cannot be read.
pub fn add(output: &Path, own: &[RunSpec], models: &[(RunSpec, f64)], rows: &mut Vec<Row>) -> Result<Vec<u64>> {
    let folder = output.join("runs");
    let mut seeds: BTreeMap<u64, Vec<(PathBuf, RunSpec, f64)>> = BTreeMap::new();
    for run in runs(&folder)? {
        let path = run.join(worker::SPECIFICATION);
        let text = match fs::read_to_string(&path) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => continue,
            text => text.map_err(Error::io("read", &path))?,
        };
        let spec: RunSpec = serde_json::from_str(&text).map_err(Error::json(path.display()))?;
        let Some((model, flops_per_step)) = models.iter().find(|(model, _)| model.variant == spec.variant) else {
            continue;
        };
        if spec.seed >= TUNING_SEED || !worker::is_finished(&run, &spec) {
            continue;
        }
        if let Some(difference) = difference("", &protocol(model), &protocol(&spec)) {
            return Err(Error::file(path, format!("its protocol is another one: {difference}")));
        }
        seeds.entry(spec.seed).or_default().push((run, spec, *flops_per_step));
    }
    let (whole, parts): (BTreeMap<_, _>, BTreeMap<_, _>) =
        seeds.into_iter().partition(|(_, runs)| runs.len() == models.len());
    if whole.is_empty() {
        return Err(Error::file(folder, "no seed is finished in it, with a run of each of these models"));
    }
    for (run, spec, flops_per_step) in whole.into_values().flatten() {
        let there = rows.iter().map(|row| (row.variant, row.seed));
        if there.chain(own.iter().map(|own| (own.variant, own.seed))).any(|run| run == (spec.variant, spec.seed)) {
            let (variant, seed) = (spec.variant.name(), spec.seed);
            let problem =
                format!("there is a run of {variant} with the seed {seed} already; give each --seeds of its own");
            return Err(Error::file(run.join(worker::SPECIFICATION), problem));
        }
        rows.extend(results::read_run(&run, &spec, flops_per_step)?);
    }
    Ok(parts.into_keys().collect())
}

/// The folders of an experiment's runs.
fn runs(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut runs = fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>())
        .map_err(Error::io("read", folder))?;
    runs.sort_unstable();
    Ok(runs)
}

/// What has to be the same in runs that are compared; the steps that are fine-tuned follow from the settings. Texts are known by
/// their digests, wherever they lie.
fn protocol(spec: &RunSpec) -> Value {
    serde_json::json!({
        "settings": spec.settings,
        "learning_rate": spec.learning_rate,
        "texts": spec.data.digests,
    })
}

/// The first value that differs, with its name.
fn difference(name: &str, expected: &Value, found: &Value) -> Option<String> {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            expected.iter().find_map(|(key, value)| difference(key, value, found.get(key).unwrap_or(&Value::Null)))
        }
        _ => (expected != found).then(|| format!("`{name}` is {found}, expected {expected}")),
    }
}
