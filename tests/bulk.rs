//! Jobs from Parquet to Parquet: parts, shards, what a stopped job leaves, and bad inputs.

mod support;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow_array::{
    ArrayRef, Int64Array, RecordBatch, StringArray,
    builder::{ListBuilder, StringBuilder},
};
use arrow_json::ArrayWriter;
use burn::tensor::Device;
use deberta_burn::{
    Backbone, Error, Result,
    bulk::{Answers, Column, Job, Outcome},
    data::Shard,
    heads::{SequenceClassification, TokenClassification},
    pipeline::{Classifier, Embedder, PipelineOptions, RankRequest, Reranker, TagOptions, TokenTagger},
};
use parquet::{
    arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
    file::properties::WriterProperties,
};
use serde::Deserialize;
use serde_json::{Value, json};
use support::{config, folder, repository::fixture};
use tempfile::TempDir;

const ROWS: usize = 23;
const TEXT: [Column; 1] = [Column::text("text")];

/// What computes vectors of rows.
type Answer<'a> = dyn FnMut(&[Row]) -> Result<Vec<Vec<f32>>> + 'a;

#[derive(Deserialize)]
struct Row {
    text: String,
}

fn texts() -> Vec<String> {
    let words = ["war", "peace", "the laws", "of «nations»", "🏔️ people", ""];
    (0..ROWS).map(|row| format!("{} {}", words[row % 6], words[row / 6 % 6]).repeat(1 + row % 3)).collect()
}

/// A file in row groups of 8, so that parts of 5 rows lie across them.
fn write(path: &Path, columns: &[(&str, ArrayRef)]) {
    let table = RecordBatch::try_from_iter(columns.to_vec()).unwrap();
    let settings = WriterProperties::builder().set_max_row_group_row_count(Some(8)).build();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), table.schema(), Some(settings)).unwrap();
    writer.write(&table).unwrap();
    writer.close().unwrap();
}

/// A folder with `texts.parquet`: ids and texts.
fn input() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(1000..1000 + ROWS as i64));
    write(&folder.path().join("texts.parquet"), &[("id", ids), ("text", Arc::new(StringArray::from(texts())))]);
    folder
}

fn job(folder: &TempDir, output: &str) -> Job {
    Job {
        input: folder.path().join("texts.parquet"),
        output: folder.path().join(output),
        part_rows: 5,
        keep: vec!["id".into()],
        shard: Shard::WHOLE,
    }
}

/// The name and content of each file of a folder.
fn files(folder: PathBuf) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

/// The rows of all parts of a folder, as JSON.
fn rows(folder: PathBuf) -> Vec<Value> {
    let parts = files(folder.clone()).into_keys().filter(|name| name.starts_with("part-"));
    let read = |name: String| {
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(folder.join(name)).unwrap()).unwrap();
        assert_eq!(reader.metadata().num_row_groups(), 1);
        let batches = reader.build().unwrap().map(|batch| batch.unwrap()).collect::<Vec<_>>();
        let mut writer = ArrayWriter::new(Vec::new());
        batches.iter().for_each(|batch| writer.write(batch).unwrap());
        writer.finish().unwrap();
        serde_json::from_slice::<Vec<Value>>(&writer.into_inner()).unwrap()
    };
    parts.flat_map(read).collect()
}

fn options() -> PipelineOptions {
    PipelineOptions::new(Device::flex())
}

fn embed(job: &Job, embedder: &Embedder) -> Result<Outcome> {
    let vectors = |rows: &[Row]| embedder.embed(rows.iter().map(|row| &row.text));
    job.run(&TEXT, Answers::Embedding(embedder.width()), &json!("a model"), vectors)
}

#[test]
fn shards_together_are_the_whole() {
    let (data, model) = (input(), folder(config(&[]), Backbone::new));
    let embedder = Embedder::from_folder(&model, options()).unwrap();
    let whole = embed(&job(&data, "whole"), &embedder).unwrap();
    assert_eq!(whole, Outcome { computed: 5, rows: ROWS, there: 5, parts: 5 });
    for (shard, there) in [("2/2", 3), ("1/2", 5)] {
        let outcome = embed(&Job { shard: shard.parse().unwrap(), ..job(&data, "shards") }, &embedder).unwrap();
        assert_eq!(outcome.there, there);
    }
    let found = files(data.path().join("whole"));
    assert_eq!(found, files(data.path().join("shards")));
    let parts = (0..5).map(|part| format!("part-{part:05}-of-00005.parquet"));
    assert!(found.keys().cloned().eq(["_job.json".to_owned()].into_iter().chain(parts)), "{:?}", found.keys());

    // One batch differs from another by the order of f32 sums.
    let expected = embedder.embed(texts()).unwrap();
    let found = rows(data.path().join("whole"));
    assert_eq!(found.len(), ROWS);
    for (row, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found["id"], 1000 + row);
        let numbers: Vec<f32> = serde_json::from_value(found["embedding"].clone()).unwrap();
        assert!(numbers.iter().zip(&expected).all(|(left, right)| (left - right).abs() < 1e-4));
    }
}

#[test]
fn a_stopped_job_goes_on_behind_its_last_part() {
    let data = input();
    let lengths = |rows: &[Row]| Ok(rows.iter().map(|row| vec![row.text.len() as f32]).collect());
    let run =
        |job: &Job, answer: &mut Answer| job.run(&TEXT, Answers::Embedding(1), &json!({ "weights": "a" }), answer);
    let whole = job(&data, "whole");
    run(&whole, &mut |rows| lengths(rows)).unwrap();

    let stopped = job(&data, "stopped");
    let mut calls = 0;
    let error = run(&stopped, &mut |rows| {
        calls += 1;
        if calls == 3 { Err(Error::text(2, "it is too long")) } else { lengths(rows) }
    });
    // The third text of the third part.
    let error = error.unwrap_err().to_string();
    assert!(error.ends_with("texts.parquet, row 13: it is too long"), "{error}");
    assert_eq!(files(stopped.output.clone()).len(), 3, "two parts and the record");
    // Missing in the middle, too.
    fs::remove_file(stopped.output.join("part-00000-of-00005.parquet")).unwrap();
    let mut read = 0;
    let outcome = run(&stopped, &mut |rows| {
        read += rows.len();
        lengths(rows)
    });
    assert_eq!((outcome.unwrap(), read), (Outcome { computed: 4, rows: 18, there: 5, parts: 5 }, 18));
    assert_eq!(files(stopped.output.clone()), files(whole.output.clone()));
    let nothing = run(&stopped, &mut |_| panic!("all is there")).unwrap();
    assert_eq!(nothing, Outcome { computed: 0, rows: 0, there: 5, parts: 5 });

    // Another job does not add to the folder.
    let other = Job { part_rows: 6, ..stopped.clone() };
    let error = run(&other, &mut |rows| lengths(rows)).unwrap_err().to_string();
    assert!(error.contains("_job.json: it is of another job, `part_rows` is 5 there and 6 here"), "{error}");
    let made_by = json!({ "weights": "b" });
    let error = stopped.run(&TEXT, Answers::Embedding(1), &made_by, |rows: &[Row]| lengths(rows)).unwrap_err();
    assert!(error.to_string().contains(r#"`made_by` is {"weights":"a"} there and {"weights":"b"} here"#), "{error}");
    let twice = Job { keep: ["id", "id"].map(String::from).to_vec(), ..stopped.clone() };
    let error = run(&twice, &mut |rows| lengths(rows)).unwrap_err().to_string();
    assert!(error.contains("keep: `id` is named twice"), "{error}");
    // Other texts of the same length.
    let others: Vec<String> = texts().iter().map(|text| text.replace("war", "law")).collect();
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(1000..1000 + ROWS as i64));
    let before = fs::metadata(&stopped.input).unwrap().len();
    write(&stopped.input, &[("id", ids), ("text", Arc::new(StringArray::from(others)))]);
    assert_eq!(fs::metadata(&stopped.input).unwrap().len(), before);
    let error = run(&stopped, &mut |rows| lengths(rows)).unwrap_err().to_string();
    assert!(error.contains("it is of another job, `input` is"), "{error}");
}

#[test]
fn answers_of_every_task_are_columns() {
    let data = input();
    let output = |name: &str| data.path().join(name);
    let texts = texts();
    let model = folder(config(&["sad", "glad"]), SequenceClassification::new);
    let classifier = Classifier::from_folder(&model, options()).unwrap();
    let label = |rows: &[Row]| classifier.classify(rows.iter().map(|row| &row.text));
    let of_classes = job(&data, "labels").run(&TEXT, Answers::Labels, &Value::Null, label).unwrap();
    assert_eq!(of_classes.rows, ROWS);
    for (found, expected) in rows(output("labels")).iter().zip(classifier.classify(&texts).unwrap()) {
        assert_eq!(found["labels"][0]["label"], expected[0].label);
        assert!((found["labels"][0]["score"].as_f64().unwrap() - f64::from(expected[0].score)).abs() < 1e-4);
    }

    let tags = folder(config(&["B-LEFT", "B-RIGHT"]), TokenClassification::new);
    let tagger = TokenTagger::from_folder(&tags, options()).unwrap();
    let tag = |rows: &[Row]| tagger.tag(&rows.iter().map(|row| &row.text).collect::<Vec<_>>(), TagOptions::default());
    job(&data, "entities").run(&TEXT, Answers::Entities, &Value::Null, tag).unwrap();
    for (found, expected) in rows(output("entities")).iter().zip(tagger.tag(&texts, TagOptions::default()).unwrap()) {
        let spans = |entities: &Value| {
            let entities = entities.as_array().unwrap().iter();
            entities
                .map(|entity| [&entity["start"], &entity["end"], &entity["text"]].map(Value::clone))
                .collect::<Vec<_>>()
        };
        assert_eq!(spans(&found["entities"]), spans(&json!(expected)));
    }

    let mut passages = ListBuilder::new(StringBuilder::new());
    for list in [&["peace", "war and the people"][..], &["law"]] {
        list.iter().for_each(|passage| passages.values().append_value(passage));
        passages.append(true);
    }
    let queries = StringArray::from(vec!["war", "the laws of nature"]);
    write(&output("queries.parquet"), &[("query", Arc::new(queries)), ("passages", Arc::new(passages.finish()))]);
    let columns = [Column::text("query"), Column::texts("passages")];
    let ranks = Job { input: output("queries.parquet"), keep: vec!["query".into()], ..job(&data, "ranking") };
    let reranker = Reranker::from_folder(&model, options()).unwrap();
    let rank = |requests: &[RankRequest]| reranker.rank(requests);
    ranks.run(&columns, Answers::Ranking, &Value::Null, rank).unwrap();
    let found = rows(output("ranking"));
    let places =
        |row: usize| found[row]["ranking"].as_array().unwrap().iter().map(|place| place["index"].as_u64().unwrap());
    assert_eq!(places(0).sum::<u64>(), 1);
    assert_eq!((places(1).collect::<Vec<_>>(), &found[1]["query"]), (vec![0], &json!("the laws of nature")));
}

/// The same rows in every compression, as pyarrow writes them.
#[test]
fn compressed_files_hold_the_same_rows() {
    let folder = tempfile::tempdir().unwrap();
    let read = |codec: &str| {
        let input = fixture("parquet").join(codec).with_extension("parquet");
        let (output, keep) = (folder.path().join(codec), vec!["id".into()]);
        let job = Job { input, output, part_rows: 4, keep, shard: Shard::WHOLE };
        let mut texts = Vec::new();
        let outcome = job.run(&TEXT, Answers::Embedding(1), &Value::Null, |rows: &[Row]| {
            texts.extend(rows.iter().map(|row| row.text.clone()));
            Ok(rows.iter().map(|row| vec![row.text.len() as f32]).collect())
        });
        outcome.map(|_| (texts, rows(job.output)))
    };
    let expected = read("none").unwrap();
    let texts: Vec<_> = (0..10).map(|id| format!("text number {id} {}", "of «many» 🏔️ ".repeat(id))).collect();
    assert_eq!(expected.0, texts);
    assert_eq!((&expected.1[9]["id"], &expected.1[9]["embedding"]), (&json!(9), &json!([texts[9].len() as f32])));
    for codec in ["zstd", "snappy", "lz4", "gzip"] {
        assert_eq!(read(codec).unwrap(), expected, "{codec}");
    }

    let error = read("brotli").unwrap_err().to_string();
    let message =
        "column `id` is compressed by BROTLI, expected Zstandard, Snappy, LZ4, gzip or none: write the file anew";
    assert!(error.ends_with(&format!("brotli.parquet: {message}")), "{error}");
    assert!(!folder.path().join("brotli").exists(), "nothing was begun");
}

#[test]
fn bad_inputs_are_errors_that_say_where() {
    let data = input();
    let lengths = |rows: &[Row]| Ok(rows.iter().map(|row| vec![row.text.len() as f32]).collect());
    let message = |job: &Job, columns: &[Column]| {
        job.run(columns, Answers::Embedding(1), &Value::Null, lengths).unwrap_err().to_string()
    };
    let plain = job(&data, "out");
    let error = message(&plain, &[Column::text("body")]);
    assert!(
        error.ends_with("texts.parquet: there is no column `body`, expected one of those here: `id`, `text`"),
        "{error}"
    );
    let error = message(&plain, &[Column::text("id")]);
    assert!(error.ends_with("texts.parquet: column `id` is of type Int64, expected strings"), "{error}");
    let error = message(&plain, &[Column::texts("text")]);
    assert!(error.ends_with("column `text` is of type Utf8, expected lists of strings"), "{error}");
    let error = message(&Job { keep: vec!["key".into()], ..plain.clone() }, &TEXT);
    assert!(error.contains("there is no column `key`, expected one of those here: `id`, `text`"), "{error}");
    assert!(
        message(&Job { part_rows: 0, ..plain.clone() }, &TEXT).contains("part rows: it is 0, expected at least one")
    );
    assert!(!plain.output.exists(), "nothing was begun");

    let write_texts = |name: &str, column: &str, values: Vec<Option<&str>>| {
        let path = data.path().join(name);
        write(&path, &[(column, Arc::new(StringArray::from(values)))]);
        Job { input: path, keep: Vec::new(), ..plain.clone() }
    };
    let mut values = vec![Some("war"); 9];
    values[7] = None;
    let with_null = write_texts("null.parquet", "text", values);
    let error = message(&with_null, &TEXT);
    assert!(
        error.ends_with("null.parquet, row 8: column `text` is null, expected a value: fill it in or remove the row")
    );
    let mut pairs = Vec::new();
    #[derive(Deserialize)]
    struct Pair {
        text: Option<String>,
    }
    let optional = Job { output: data.path().join("optional"), ..with_null };
    let columns = [Column::text("text").optional(), Column::text("pair").optional()];
    let count = |rows: &[Pair]| {
        pairs.extend(rows.iter().map(|row| row.text.is_some()));
        Ok(vec![vec![0f32]; rows.len()])
    };
    optional.run(&columns, Answers::Embedding(1), &Value::Null, count).unwrap();
    assert_eq!(pairs.iter().filter(|there| **there).count(), 8);

    let clash = Job { keep: vec!["embedding".into()], ..write_texts("clash.parquet", "embedding", vec![Some("a")]) };
    let error = message(&clash, &[Column::text("embedding")]);
    assert!(error.contains("`embedding` is also the name of the answers"), "{error}");
    assert!(message(&write_texts("empty.parquet", "text", vec![]), &TEXT).contains("it holds no rows"));
    let not_parquet = data.path().join("not.parquet");
    fs::write(&not_parquet, "{\"text\": \"war\"}\n").unwrap();
    let error = message(&Job { input: not_parquet, ..plain.clone() }, &TEXT);
    assert!(error.contains("not.parquet: it cannot be read (") && error.contains("expected a Parquet file"), "{error}");
    let error = message(&Job { input: data.path().join("none.parquet"), ..plain }, &TEXT);
    assert!(error.contains("cannot read ") && error.contains("none.parquet"), "{error}");
}
