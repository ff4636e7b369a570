//! Answers to the rows of a Parquet file, as a folder of Parquet files.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use clap::Args;
use deberta_burn::{
    Error, Result,
    bulk::{Answers, Column, Job},
    data::file_digest,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{CommonArgs, Failure};

/// Flags of inputs in Parquet.
#[derive(Args)]
#[command(next_help_heading = "Parquet")]
pub struct BulkArgs {
    /// Folder for the answers to a Parquet file (--file NAME.parquet): a Parquet file for every --part-rows rows. Those that are
    /// there already are not computed again
    #[arg(long, value_name = "DIR", conflicts_with = "json")]
    parts: Option<PathBuf>,

    /// Rows of a part
    #[arg(long, value_name = "N", default_value_t = 4096, requires = "parts")]
    part_rows: usize,

    /// Columns of the input to copy beside the answers
    #[arg(long, value_name = "NAME,..", value_delimiter = ',', requires = "parts")]
    keep: Vec<String>,
}

impl BulkArgs {
    /// The job that the flags ask for, if the input is in Parquet.
    pub fn job(&self, common: &CommonArgs) -> Result<Option<Job>> {
        match (common.input.parquet(), &self.parts) {
            (None, None) => Ok(None),
            (None, Some(_)) => {
                Err(Error::setting("--parts", "it is for the answers to a Parquet file, expected --file NAME.parquet"))
            }
            (Some(_), None) => Err(Error::setting("--parts", "it is missing, expected a folder for the answers")),
            (Some(input), Some(parts)) => Ok(Some(Job {
                input: input.to_owned(),
                output: parts.clone(),
                part_rows: self.part_rows,
                keep: self.keep.clone(),
                shard: common.input.shard(),
            })),
        }
    }
}

/// The digest of each file in a model's folder that says how the model is used: configuration, tokenizer, and what
/// sentence-transformers has in folders with a number (`1_Pooling`, `2_Dense`).
///
/// # Errors
/// Files that cannot be read.
pub fn settings_files(folder: &Path) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for path in entries(folder)? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if path.is_dir() && name.starts_with(|first: char| first.is_ascii_digit()) {
            for inside in entries(&path)?.into_iter().filter(|inside| inside.is_file()) {
                let of_module = inside.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                found.insert(format!("{name}/{of_module}"), file_digest(&inside)?);
            }
        } else if [".json", ".model", ".txt"].iter().any(|end| name.ends_with(end)) {
            found.insert(name, file_digest(&path)?);
        }
    }
    Ok(found)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let paths = |entries: fs::ReadDir| entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>();
    fs::read_dir(folder).and_then(paths).map_err(Error::io("read", folder))
}

/// Runs a job, and says on standard error what it did.
pub fn run<R: DeserializeOwned, A: Serialize>(
    job: &Job,
    columns: &[Column],
    answers: Answers,
    made_by: &Value,
    answer: impl FnMut(&[R]) -> Result<Vec<A>>,
) -> Result<(), Failure> {
    let start = Instant::now();
    let done = job.run(columns, answers, made_by, answer)?;
    let (folder, seconds) = (job.output.display(), start.elapsed().as_secs_f64());
    eprintln!(
        "{folder}: {} parts of {} rows computed in {seconds:.1} s; {} of {} parts are there",
        done.computed, done.rows, done.there, done.parts
    );
    Ok(())
}
