//! The Parquet file of a job: its rows as batches, and what is in them.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{Read, Seek, SeekFrom},
    ops::Range,
    path::{Path, PathBuf},
};

use arrow_array::{Array, RecordBatch};
use arrow_json::LineDelimitedWriter;
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{
            ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector,
        },
    },
    basic::CompressionCodec,
    errors::ParquetError,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::columns::Column;
use crate::{Error, Result};

/// An opened file, whose columns were checked.
pub(super) struct Input {
    path: PathBuf,
    file: File,
    bytes: u64,
    metadata: ArrowReaderMetadata,
    /// The columns that batches have, by their places in the file.
    projection: Vec<usize>,
    /// The columns that rows are read from, by their places in batches.
    texts: Vec<(usize, Column)>,
    /// The columns that the output has, too, by their places in batches.
    kept: Vec<usize>,
}

impl Input {
    /// Opens a file and looks for its columns.
    pub fn open(path: &Path, columns: &[Column], keep: &[String]) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("read", path))?;
        let bytes = file.metadata().map_err(Error::io("read", path))?.len();
        let metadata =
            ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()).map_err(|error| damaged(path, error))?;
        let fields = metadata.schema().fields();
        let place = |name: &str| fields.iter().position(|field| field.name() == name);
        let missing = |name: &str| {
            let there: Vec<String> = fields.iter().map(|field| format!("`{}`", field.name())).collect();
            let expected = format!("expected one of those here: {}", there.join(", "));
            Error::file(path, format!("there is no column `{name}`, {expected}"))
        };
        let mut texts = Vec::new();
        for column in columns {
            match place(column.name) {
                Some(place) if column.takes(fields[place].data_type()) => texts.push((place, *column)),
                Some(place) => {
                    let (name, kind, expected) = (column.name, fields[place].data_type(), column.expected());
                    return Err(Error::file(path, format!("column `{name}` is of type {kind}, expected {expected}")));
                }
                None if column.optional => {}
                None => return Err(missing(column.name)),
            }
        }
        let kept = keep.iter().map(|name| place(name).ok_or_else(|| missing(name))).collect::<Result<Vec<usize>>>()?;
        // Batches have the columns in the order of the file.
        let projection = BTreeSet::from_iter(texts.iter().map(|(place, _)| *place).chain(kept.iter().copied()));
        let in_batch = |place: usize| projection.range(..place).count();
        let texts = texts.into_iter().map(|(place, column)| (in_batch(place), column)).collect();
        let kept = kept.into_iter().map(in_batch).collect();
        let projection = projection.into_iter().collect();
        let input = Self { path: path.to_owned(), file, bytes, metadata, projection, texts, kept };
        input.check_codecs()?;
        match input.rows() {
            0 => Err(Error::file(path, "it holds no rows, expected at least one")),
            _ => Ok(input),
        }
    }

    /// Refuses columns in a compression that the feature `parquet` leaves out.
    fn check_codecs(&self) -> Result<()> {
        let (mask, groups) = (self.mask(), self.metadata.metadata().row_groups());
        let mut columns = groups.iter().flat_map(|group| group.columns().iter().enumerate());
        let left_out = |codec| matches!(codec, CompressionCodec::BROTLI | CompressionCodec::LZO);
        match columns.find(|(leaf, column)| mask.leaf_included(*leaf) && left_out(column.compression_codec())) {
            None => Ok(()),
            Some((_, column)) => {
                let (path, codec) = (column.column_path().string(), column.compression_codec());
                let expected = "expected Zstandard, Snappy, LZ4, gzip or none";
                let problem = format!("column `{path}` is compressed by {codec}, {expected}: write the file anew");
                Err(Error::file(&self.path, problem))
            }
        }
    }

    /// The columns that batches have.
    fn mask(&self) -> ProjectionMask {
        let schema = self.metadata.metadata().file_metadata().schema_descr();
        ProjectionMask::roots(schema, self.projection.iter().copied())
    }

    /// All rows.
    pub fn rows(&self) -> usize {
        self.metadata.metadata().file_metadata().num_rows() as usize
    }

    /// What tells this file from others: its size, its rows, and a digest of its footer, which holds the places and sizes of all
    /// columns, and mostly the least and the largest value of each. (All of its bytes would take as long to read as the job.)
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn identity(&self) -> Result<Value> {
        // The length of the footer and a magic number are the last eight bytes.
        let read = |from: u64, length: usize| {
            let mut bytes = vec![0; length];
            let mut file = &self.file;
            file.seek(SeekFrom::Start(from)).and_then(|_| file.read_exact(&mut bytes)).map(|()| bytes)
        };
        let footer = || {
            let end = read(self.bytes - 8, 8)?;
            let length = u32::from_le_bytes([end[0], end[1], end[2], end[3]]);
            read(self.bytes - 8 - u64::from(length), length as usize)
        };
        let footer = footer().map_err(Error::io("read", &self.path))?;
        Ok(json!({ "bytes": self.bytes, "rows": self.rows(), "footer": format!("{:x}", Sha256::digest(footer)) }))
    }

    /// The name of a row, by its number from 0, in errors.
    pub fn at_row(&self, row: usize) -> String {
        format!("{}, row {}", self.path.display(), row + 1)
    }

    /// The rows of ranges that follow each other, none longer than `size` and all but the last one so long.
    pub fn batches(
        &self,
        ranges: impl Iterator<Item = Range<usize>>,
        size: usize,
    ) -> Result<impl Iterator<Item = Result<RecordBatch>>> {
        let file = self.file.try_clone().map_err(Error::io("read", &self.path))?;
        let mut next = 0;
        let selectors = ranges.flat_map(|range| {
            let before = range.start - next;
            next = range.end;
            [RowSelector::skip(before), RowSelector::select(range.len())]
        });
        let selection = RowSelection::from_iter(selectors);
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone());
        let reader = builder.with_projection(self.mask()).with_row_selection(selection).with_batch_size(size).build();
        let path = self.path.clone();
        let damage = move |error: arrow_schema::ArrowError| damaged(&path, error.into());
        Ok(reader.map_err(|error| damaged(&self.path, error))?.map(move |batch| batch.map_err(&damage)))
    }

    /// The columns of a batch that the output has, too.
    pub fn kept(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        batch.project(&self.kept).map_err(|error| damaged(&self.path, error.into()))
    }

    /// The rows of a batch, whose first one has the number `first`.
    pub fn read<R: DeserializeOwned>(&self, batch: &RecordBatch, first: usize) -> Result<Vec<R>> {
        for (place, column) in self.texts.iter().filter(|(_, column)| !column.optional) {
            let values = batch.column(*place);
            if let Some(row) = (0..values.len()).find(|row| values.is_null(*row)) {
                let problem =
                    format!("column `{}` is null, expected a value: fill it in or remove the row", column.name);
                return Err(Error::input(self.at_row(first + row), problem));
            }
        }
        let places: Vec<usize> = self.texts.iter().map(|(place, _)| *place).collect();
        let texts = batch.project(&places).map_err(|error| damaged(&self.path, error.into()))?;
        let mut writer = LineDelimitedWriter::new(Vec::new());
        writer.write(&texts).and_then(|()| writer.finish()).map_err(|error| damaged(&self.path, error.into()))?;
        let lines = writer.into_inner();
        let rows = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).enumerate();
        rows.map(|(row, line)| {
            serde_json::from_slice(line).map_err(|error| Error::input(self.at_row(first + row), error.to_string()))
        })
        .collect()
    }
}

/// An error of the file's format.
fn damaged(path: &Path, error: ParquetError) -> Error {
    Error::file(path, format!("it cannot be read ({error}), expected a Parquet file; write it anew"))
}
