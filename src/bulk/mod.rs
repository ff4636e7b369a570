//! Answers to millions of texts, from Parquet to Parquet: in parts that a job can be stopped between, and that several machines
//! share. Feature `parquet`.
//!
//! A [`Job`] reads one file, and writes a folder with one file for each part of its rows, `part-00000-of-00025.parquet` and so
//! on. A part is written in full or not at all, and one that is there is not computed again. So a job that was killed goes on
//! where it stopped, and [shards](crate::data::Shard) of one job write into the same folder, at the same time or not. What their
//! parts hold does not depend on the shards. `_job.json` in the folder says which job it is, so that another one does not add to
//! it.

mod columns;
mod input;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow_array::RecordBatch;
use arrow_json::ReaderBuilder;
use arrow_schema::{Field, Schema};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::properties::WriterProperties,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

pub use columns::{Answers, Column};
use input::Input;

use crate::{Error, Result, data::Shard, text_file::read_json, write_file};

/// The file that says which job a folder is of. Readers of folders of Parquet pass over names that begin with `_`.
const RECORD: &str = "_job.json";

/// What is read and written.
#[derive(Clone, Debug)]
pub struct Job {
    /// The Parquet file that is read, uncompressed or compressed by Zstandard, Snappy, LZ4 or gzip.
    pub input: PathBuf,
    /// The folder for the answers.
    pub output: PathBuf,
    /// Rows of a part, the last one excepted.
    pub part_rows: usize,
    /// Columns of the input that the output has, too.
    pub keep: Vec<String>,
    /// Which parts are computed.
    pub shard: Shard,
}

/// What a [`Job`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Parts that were computed.
    pub computed: usize,
    /// The rows in them.
    pub rows: usize,
    /// Parts of all shards that are there now.
    pub there: usize,
    /// Parts of all shards.
    pub parts: usize,
}

impl Job {
    /// Computes the missing parts of the shard: `answer` gets rows with the given columns, as the type of rows reads them from
    /// JSON, and returns an answer for each. `made_by` is what else decides on the answers, such as the model; together with the
    /// input and the other settings it has to be that of the folder's record. Errors of `answer` about the text of some index
    /// name its row.
    ///
    /// # Errors
    /// A file that cannot be read or is not Parquet; a column that is missing, of another type, of another compression, or named as
    /// the answers; a value that is missing; a folder of another job; what `answer` fails with. Parts that were written before stay.
    pub fn run<R: DeserializeOwned, A: Serialize>(
        &self,
        columns: &[Column],
        answers: Answers,
        made_by: &Value,
        mut answer: impl FnMut(&[R]) -> Result<Vec<A>>,
    ) -> Result<Outcome> {
        if self.part_rows == 0 {
            return Err(Error::value("part rows", 0, "at least one"));
        }
        let input = Input::open(&self.input, columns, &self.keep)?;
        if let Some(name) =
            self.keep.iter().enumerate().find_map(|(at, name)| self.keep[..at].contains(name).then_some(name))
        {
            return Err(Error::setting("keep", format!("`{name}` is named twice, expected each column once")));
        }
        let field = answers.field();
        if self.keep.contains(field.name()) {
            let problem = format!("`{}` is also the name of the answers: rename the column", field.name());
            return Err(Error::setting("keep", problem));
        }
        self.enter(&input, &field, made_by)?;

        let parts = Parts { folder: &self.output, rows: input.rows(), size: self.part_rows };
        let missing: Vec<usize> = self.shard.range(parts.count()).filter(|part| !parts.path(*part).exists()).collect();
        let mut outcome = Outcome { computed: 0, rows: 0, there: 0, parts: parts.count() };
        let batches = input.batches(missing.iter().map(|part| parts.rows(*part)), self.part_rows)?;
        for (part, batch) in missing.iter().zip(batches) {
            let (first, rows) = (parts.rows(*part).start, batch?);
            let texts: Vec<R> = input.read(&rows, first)?;
            let found = answer(&texts).map_err(|error| error.with_text_name(|row| input.at_row(first + row)))?;
            let file = encoded(&input.kept(&rows)?, &field, &found);
            let problem = |error| Error::file(&self.output, format!("the answers cannot be written: {error}"));
            write_file(parts.path(*part), &file.map_err(problem)?)?;
            outcome.computed += 1;
            outcome.rows += rows.num_rows();
        }
        outcome.there = (0..parts.count()).filter(|part| parts.path(*part).exists()).count();
        Ok(outcome)
    }

    /// Makes the folder, or checks that it is one of this job.
    fn enter(&self, input: &Input, answers: &Field, made_by: &Value) -> Result<()> {
        let record = json!({
            "input": input.identity()?,
            "part_rows": self.part_rows,
            "keep": self.keep,
            "answers": answers.name(),
            "made_by": made_by,
        });
        fs::create_dir_all(&self.output).map_err(Error::io("create", &self.output))?;
        let path = self.output.join(RECORD);
        if !path.exists() {
            // Of shards that begin together, each writes the same.
            return write_file(path, format!("{record:#}\n").as_bytes());
        }
        let found: Value = read_json(&path)?;
        match record.as_object().into_iter().flatten().find(|(key, value)| found[key] != **value) {
            None => Ok(()),
            Some((key, value)) => {
                let advice = "go on with what the job began with, or choose another folder";
                let problem =
                    format!("it is of another job, `{key}` is {} there and {value} here: {advice}", found[key]);
                Err(Error::file(path, problem))
            }
        }
    }
}

/// The parts of an input.
struct Parts<'a> {
    folder: &'a Path,
    rows: usize,
    size: usize,
}

impl Parts<'_> {
    fn count(&self) -> usize {
        self.rows.div_ceil(self.size)
    }

    fn rows(&self, part: usize) -> std::ops::Range<usize> {
        part * self.size..((part + 1) * self.size).min(self.rows)
    }

    fn path(&self, part: usize) -> PathBuf {
        self.folder.join(format!("part-{part:05}-of-{:05}.parquet", self.count()))
    }
}

/// A Parquet file of one row group: the columns that are kept, and the answers beside them.
fn encoded<A: Serialize>(kept: &RecordBatch, answers: &Field, found: &[A]) -> Result<Vec<u8>, ParquetError> {
    let mut decoder = ReaderBuilder::new_with_field(answers.clone()).build_decoder()?;
    decoder.serialize(found)?;
    let (mut fields, mut columns) = (kept.schema().fields().to_vec(), kept.columns().to_vec());
    fields.push(Arc::new(answers.clone()));
    columns.extend(decoder.flush()?.iter().flat_map(|batch| batch.columns().to_vec()));
    let table = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;

    // Smaller than Snappy's, and no slower beside a model.
    let compression = Compression::ZSTD(ZstdLevel::default());
    let settings = WriterProperties::builder().set_compression(compression).set_max_row_group_row_count(None);
    let mut writer = ArrowWriter::try_new(Vec::new(), table.schema(), Some(settings.build()))?;
    writer.write(&table)?;
    writer.into_inner()
}
