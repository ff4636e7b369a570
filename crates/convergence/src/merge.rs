//! The finished runs of other output folders, so that seeds that were trained on other machines, or on other days, count as well.

use std::{fs, io::ErrorKind, path::Path};

use deberta_burn::{Error, Result};
use serde_json::Value;

use crate::{
    protocol::{RunSpec, TUNING_SEED},
    results::{self, Row},
    worker,
};

/// Adds the evaluations of the finished runs below `output` to `rows`. They must not be those of this folder's `own` runs. Of
/// `models`, specifications with any seed, they have to have the same settings, texts and learning rates; runs of other variants,
/// and those that only tune, are left out.
///
/// # Errors
/// No finished run of these variants, one under another protocol, one that is there already, and files that cannot be read.
pub fn add(output: &Path, own: &[RunSpec], models: &[(RunSpec, f64)], rows: &mut Vec<Row>) -> Result<()> {
    let runs = output.join("runs");
    let mut folders = fs::read_dir(&runs)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>())
        .map_err(Error::io("read", &runs))?;
    folders.sort_unstable();
    let mut found = false;
    for folder in folders {
        let path = folder.join(worker::SPECIFICATION);
        let text = match fs::read_to_string(&path) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => continue,
            text => text.map_err(Error::io("read", &path))?,
        };
        let spec: RunSpec = serde_json::from_str(&text).map_err(Error::json(path.display()))?;
        let Some((model, flops_per_step)) = models.iter().find(|(model, _)| model.variant == spec.variant) else {
            continue;
        };
        if spec.seed >= TUNING_SEED || !worker::is_finished(&folder, &spec) {
            continue;
        }
        if let Some(difference) = difference("", &protocol(model), &protocol(&spec)) {
            return Err(Error::file(path, format!("its protocol is another one: {difference}")));
        }
        let mut there =
            rows.iter().map(|row| (row.variant, row.seed)).chain(own.iter().map(|own| (own.variant, own.seed)));
        if there.any(|run| run == (spec.variant, spec.seed)) {
            let (variant, seed) = (spec.variant.name(), spec.seed);
            let problem =
                format!("there is a run of {variant} with the seed {seed} already; give each --seeds of its own");
            return Err(Error::file(path, problem));
        }
        rows.extend(results::read_run(&folder, &spec, *flops_per_step)?);
        found = true;
    }
    let problem = "no run of these models is finished in it";
    if found { Ok(()) } else { Err(Error::file(runs, problem)) }
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
