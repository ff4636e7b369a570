//! The examples as programs: where texts come from, how answers are written, and what errors look like.

mod support;

use std::{fs, path::PathBuf};

use assert_cmd::{Command, assert::Assert};
use burn::tensor::Device;
use deberta_burn::{
    ModelConfig,
    checkpoint::Header,
    heads::{MaskedLm, MaskedLmLayout, QuestionAnswering, SequenceClassification, TokenClassification},
};
use predicates::{
    prelude::*,
    str::{contains, ends_with, is_empty, is_match, starts_with},
};
use serde_json::Value;
use support::{config, folder, repository::fixture};
use tempfile::TempDir;

/// The example of that name; `cargo test` builds them all beside the tests.
fn example(name: &str) -> Command {
    let tests = std::env::current_exe().expect("the path of this test");
    let path: PathBuf = tests.ancestors().nth(2).expect("the build folder").join("examples").join(name);
    assert!(path.exists(), "{} is not built; run `cargo build --release --examples`", path.display());
    Command::new(path)
}

fn classifier() -> TempDir {
    folder(config(&["sad", "glad"]), SequenceClassification::new)
}

fn masked_lm(config: &ModelConfig, device: &Device) -> MaskedLm {
    MaskedLm::new(config, MaskedLmLayout::EnhancedMaskDecoder, device).expect("two layers")
}

fn with_model(name: &str, model: &TempDir) -> Command {
    let mut command = example(name);
    command.arg("--model").arg(model.path());
    command
}

/// Standard output, parsed line by line.
fn json_lines(assert: &Assert) -> Vec<Value> {
    let text = str::from_utf8(&assert.get_output().stdout).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
}

/// One line on standard error, behind what the program says of its model; nothing on standard output.
fn fails(mut command: Command, part: &str) {
    let one_line = is_match("^((flex|head|score|pooling): [^\n]+\n)*error: [^\n]+\n$").expect("a pattern");
    command.assert().code(1).stdout(is_empty()).stderr(one_line.and(contains(part)));
}

#[test]
fn every_example_teaches_its_use() {
    for name in ["classify", "zero_shot", "rerank", "fill_mask", "ner", "gliner", "answer", "embed"] {
        let shared =
            contains("--model").and(contains("--device")).and(contains("--precision")).and(contains("--max-length"));
        example(name).arg("--help").assert().success().stdout(shared.and(contains("JSON lines have the field")));
    }
    example("classify").assert().code(2).stderr(contains("--model"));
}

#[test]
fn texts_come_from_an_argument_a_file_or_standard_input() {
    let model = classifier();
    let file = model.path().join("texts.txt");
    fs::write(&file, "war\npeace and the laws of nations\r\nlaw").unwrap();
    let from_file = with_model("classify", &model).arg("--file").arg(&file).assert().success();
    let lines = String::from_utf8(from_file.get_output().stdout.clone()).unwrap();
    assert_eq!(lines.lines().count(), 3, "{lines}");
    let scores = is_match(r"^(s|gl)ad \d\.\d{4}\t(s|gl)ad \d\.\d{4}\n$").unwrap();
    with_model("classify", &model).arg("war").assert().success().stdout(scores);

    // The same, whichever way they come.
    let texts = "war\npeace and the laws of nations\nlaw\n";
    with_model("classify", &model).write_stdin(texts).assert().success().stdout(lines.clone());
    with_model("classify", &model).args(["--file", "-"]).write_stdin(texts).assert().success().stdout(lines.clone());
    let jsonl = model.path().join("texts.jsonl");
    fs::write(
        &jsonl,
        "{\"text\": \"war\"}\n{\"text\": \"peace and the laws of nations\"}\n{\"text\": \"law\", \"id\": 3}\n",
    )
    .unwrap();
    with_model("classify", &model).arg("--file").arg(&jsonl).assert().success().stdout(lines);
    with_model("classify", &model)
        .args(["--whole"])
        .write_stdin(texts)
        .assert()
        .success()
        .stdout(contains("\n").count(1));
}

#[test]
fn marks_and_blank_lines_around_texts_do_not_count() {
    let model = classifier();
    let classify = |flags: &[&str], input: &str| {
        let assert = with_model("classify", &model).args(flags).write_stdin(input).assert().success();
        String::from_utf8(assert.get_output().stdout.clone()).unwrap()
    };
    let (plain, json) = ("war\nlaw\n", "{\"text\": \"war\"}\n{\"text\": \"law\"}\n");
    let expected = classify(&[], plain);
    for text in ["\u{feff}war\nlaw\n", "war\nlaw\n\n", "war\r\nlaw\r\n \r\n\r\n", "\u{feff}war\nlaw\n\n\n"] {
        assert_eq!(classify(&[], text), expected, "{text:?}");
    }
    for text in [format!("\u{feff}{json}"), format!("{json}\n \n"), json.replace('\n', "\r\n\r\n")] {
        assert_eq!(classify(&["--jsonl"], &text), expected, "{text:?}");
    }
    assert_eq!(classify(&["--whole"], "\u{feff}war"), classify(&[], "war"));
}

#[test]
fn cut_texts_are_counted_on_standard_error() {
    let model = classifier();
    let long = "war and peace ".repeat(40);
    let cut = "warning: 2 texts were too long and cut to 32 tokens, special tokens included\n";
    let texts = format!("{long}\nwar\n{long}\n");
    with_model("classify", &model).write_stdin(texts).assert().success().stderr(ends_with(cut));
    with_model("classify", &model).arg("war").assert().success().stderr(contains("warning").not());
}

#[test]
fn either_side_of_a_long_text_can_go() {
    let model = classifier();
    let (first, last) = ("war ".repeat(60), "peace and the laws of nations ".repeat(10));
    let answer = |side: &str, text: &str| {
        let assert = with_model("classify", &model).args(["--truncation", side, text]).assert().success();
        String::from_utf8(assert.get_output().stdout.clone()).unwrap()
    };
    let text = format!("{first}{last}");
    // What is left depends on one end alone.
    assert_eq!(answer("right", &text), answer("right", &first));
    assert_eq!(answer("left", &text), answer("left", &last));
    assert_ne!(answer("left", &text), answer("right", &text));
}

#[test]
fn precisions_are_chosen_and_told() {
    let model = classifier();
    let plain = with_model("classify", &model).args(["war", "--json"]).assert().success();
    let score = |assert: &Assert| json_lines(assert)[0][0]["score"].as_f64().unwrap();
    for (flags, told) in [
        (&[][..], " kernels; f32 ("),
        (&["--precision", "bf16"], " kernels; bf16: linear maps bf16 ("),
        (&["--dtype", "i16"], " kernels; i16: linear maps i16 ("),
        (&["--precision", "int8"], " kernels; int8 (mixed): attention's linear maps int8 ("),
        (&["--precision", "int8", "--int8", "all"], " kernels; int8 (all): linear maps int8 ("),
    ] {
        let lower = with_model("classify", &model).args(["war", "--json"]).args(flags).assert().success();
        // The same model answers; how exactly is tested in `precision.rs`. With random weights, probabilities are up to 0.03
        // away from those in f32.
        let difference = (score(&plain) - score(&lower)).abs();
        assert!(difference < 0.15, "{flags:?}: {difference}");
        lower.stderr(starts_with("flex: ").and(contains(told)));
    }
    let mut alone = with_model("classify", &model);
    alone.args(["war", "--int8", "all"]);
    fails(alone, "error: --int8: it says which linear maps are in 8 bits, and needs --precision int8");
    example("finetune_ner")
        .args(["--precision", "int8"])
        .assert()
        .code(2)
        .stderr(contains("possible values: f32, bf16, f16"));
}

#[test]
fn pairs_and_json() {
    let model = classifier();
    let plain = with_model("classify", &model).args(["war", "--pair", "peace", "--json"]).assert().success();
    let row = r#"{"text": "war", "pair": "peace"}"#;
    let json = with_model("classify", &model).args(["--jsonl", "--json"]).write_stdin(row).assert().success();
    assert_eq!(json_lines(&plain), json_lines(&json));
    let [scores] = &json_lines(&json)[..] else { panic!("one line") };
    let sum: f64 = scores.as_array().unwrap().iter().map(|score| score["score"].as_f64().unwrap()).sum();
    assert!((sum - 1.0).abs() < 1e-6, "{scores}");
}

#[test]
fn bad_input_is_named() {
    let model = classifier();
    let command = |args: &[&str], stdin: &[u8]| {
        let mut command = with_model("classify", &model);
        command.args(args).write_stdin(stdin);
        command
    };
    fails(
        command(&[], b"fine\nb\xffd\n"),
        "standard input, line 2: it is not valid UTF-8: save the file in that encoding",
    );
    fails(command(&[], b"fine\n\nfine\n"), "standard input, line 2: it is empty");
    fails(command(&[], b""), "standard input: it is empty");
    fails(command(&["--whole"], b" \n"), "standard input: it is empty");
    fails(command(&[""], b""), "the text argument: it is empty");
    fails(
        command(&["--jsonl"], b"{\"text\": \"a\"}\n{\"txt\": \"a\"}\n"),
        "standard input, line 2 is not valid JSON: missing field `text`",
    );
    fails(command(&["--jsonl"], b"{\"text\": \"a\"\n"), "standard input, line 1 is not valid JSON");
    fails(command(&["--file", "no/such/file"], b""), "cannot read no/such/file");
    fails(command(&["a", "--max-length", "2"], b""), "the text argument: max_length is 2");
    let row = b"\n{\"text\": \"a\"}\n";
    fails(command(&["--jsonl", "--max-length", "2"], row), "standard input, line 2: max_length is 2");
    fails(command(&["a", "--batch-tokens", "0"], b""), "batch tokens");
    fails(command(&["a", "--device", "tpu"], b""), "expected one of flex");
    let mut missing = example("classify");
    missing.args(["--model", "no/such/folder", "a"]);
    fails(missing, "no/such/folder/config.json");
}

#[test]
fn a_name_that_is_no_folder_is_a_repository() {
    let cache = tempfile::tempdir().unwrap();
    let mut command = example("classify");
    command.args(["--model", "nobody/nothing", "a"]).env("HF_HOME", cache.path()).env("HF_HUB_OFFLINE", "1");
    fails(command, "hub repository `nobody/nothing`");
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let model = classifier();
    let tests = std::env::current_exe().unwrap();
    let program = tests.ancestors().nth(2).unwrap().join("examples/classify");
    // More output than any pipe holds, so that writing goes on after the reader is gone.
    let line = "war and peace\n".repeat(3000);
    let file = model.path().join("many.txt");
    fs::write(&file, line).unwrap();
    let mut child = std::process::Command::new(program)
        .args(["--json", "--model"])
        .arg(model.path())
        .arg("--file")
        .arg(&file)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("error"), "{output:?}");
}

#[test]
fn the_shares_of_an_input_are_the_whole() {
    let model = classifier();
    let texts = "war\npeace\nlaw\nthe people\nof nations\n";
    let classify = |shard: &[&str]| {
        let assert = with_model("classify", &model).arg("--json").args(shard).write_stdin(texts).assert().success();
        json_lines(&assert).iter().map(|row| row[0]["score"].as_f64().unwrap()).collect::<Vec<_>>()
    };
    let shares = ["1/3", "2/3", "3/3"].map(|shard| classify(&["--shard", shard]));
    assert_eq!(shares.each_ref().map(Vec::len), [1, 2, 2]);
    // Batches differ in the order of f32 sums.
    assert!(shares.concat().iter().zip(classify(&[])).all(|(share, whole)| (share - whole).abs() < 1e-5));

    let with = |name: &str, flags: &[&str]| {
        let mut command = with_model(name, &model);
        command.args(flags).write_stdin(texts);
        command
    };
    let spelling = contains("'4/3'").and(contains("expected K/N, the K-th of N shares, with K from 1 to N"));
    with("classify", &["--shard", "4/3"]).assert().code(2).stderr(spelling);
    fails(with("classify", &["--shard", "1/6"]), "--shard: it has no row: standard input has 5");
    fails(
        with("rerank", &["--query", "war", "--shard", "1/2"]),
        "--shard: the passages of one query are ranked together",
    );
    let flag = if cfg!(feature = "parquet") { "--parts: it is missing" } else { "built with `--features parquet`" };
    fails(with("classify", &["--file", "texts.parquet"]), flag);
    fails(with("answer", &["--question", "who", "--file", "texts.parquet"]), "Parquet is read by classify, embed, ner");
}

#[test]
fn zero_shot_and_its_labels() {
    let model = folder(config(&["contradiction", "entailment"]), SequenceClassification::new);
    let scored = with_model("zero_shot", &model).args(["--labels", "war,peace", "--json", "a text"]).assert().success();
    let line = &json_lines(&scored)[0];
    let sum = line[0]["score"].as_f64().unwrap() + line[1]["score"].as_f64().unwrap();
    assert!((sum - 1.0).abs() < 1e-6, "{line}");
    let model = classifier();
    let mut command = with_model("zero_shot", &model);
    command.args(["--labels", "war", "a text"]);
    fails(command, "its labels are sad, glad");
    example("zero_shot").args(["--model", "x", "a"]).assert().code(2).stderr(contains("--labels"));
}

#[test]
fn rerank_by_query_or_by_line() {
    let model = classifier();
    let ranked =
        with_model("rerank", &model).args(["--query", "law"]).write_stdin("war\nthe law\npeace\n").assert().success();
    let ranked = ranked.stderr(contains("logit of glad less logit of sad")).get_output().stdout.clone();
    let text = String::from_utf8(ranked).unwrap();
    let mut numbers: Vec<_> = text.lines().map(|line| line.split('\t').next().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, ["1", "2", "3"], "{text}");

    let rows = "{\"query\": \"a\", \"passages\": [\"b\", \"c\"]}\n{\"query\": \"a\", \"passages\": [\"d\"]}\n";
    let lines = with_model("rerank", &model).args(["--jsonl", "--json"]).write_stdin(rows).assert().success();
    assert_eq!(json_lines(&lines).iter().map(|line| line.as_array().unwrap().len()).collect::<Vec<_>>(), [2, 1]);
    with_model("rerank", &model).arg("--jsonl").write_stdin(rows).assert().success().stdout(contains("\n\n").count(1));
    let mut command = with_model("rerank", &model);
    command.write_stdin("war\n");
    fails(command, "query: it is missing");

    // Which line, and which flags say what lines say themselves.
    let mut empty = with_model("rerank", &model);
    empty
        .arg("--jsonl")
        .write_stdin("{\"query\": \"a\", \"passages\": [\"b\"]}\n{\"query\": \"a\", \"passages\": []}\n");
    fails(empty, "standard input, line 2: it has no passages");
    for (program, flag) in [("rerank", "--query"), ("classify", "--pair"), ("answer", "--question")] {
        let mut command = with_model(program, &model);
        command.args(["--jsonl", flag, "law"]).write_stdin(rows);
        fails(command, &format!("{flag}: it is for plain lines"));
    }
}

#[test]
fn fill_mask_says_which_head_it_uses() {
    let model = folder(config(&[]), masked_lm);
    let filled = with_model("fill_mask", &model).args(["--top-k", "3", "the [MASK] of [MASK]"]).assert().success();
    let stdout = filled.stderr(contains("enhanced mask decoder")).get_output().stdout.clone();
    let words: Vec<usize> = String::from_utf8(stdout).unwrap().lines().map(|line| line.split('\t').count()).collect();
    assert_eq!(words, [3, 3]);
    let model = classifier();
    let mut command = with_model("fill_mask", &model);
    command.arg("the [MASK]");
    fails(command, "no language model head");
}

#[test]
fn ner_and_answer_give_characters() {
    let model = folder(config(&["B-A", "B-B"]), TokenClassification::new);
    let tagged = with_model("ner", &model).args(["--json", "« Zürich »"]).assert().success();
    let entities = &json_lines(&tagged)[0];
    assert_eq!(
        (&entities[1]["text"], &entities[1]["start"], &entities[1]["end"]),
        (&"Zürich".into(), &2.into(), &8.into())
    );
    let table = is_match(r"^0\t1\t(A|B)\t0\.\d{4}\t«\n2\t8\t").unwrap();
    with_model("ner", &model).arg("« Zürich »").assert().success().stdout(table);

    let model = folder(config(&[]), QuestionAnswering::new);
    let answered = with_model("answer", &model).args(["--question", "Where?", "--json", "Zürich"]).assert().success();
    assert_eq!(json_lines(&answered)[0]["no_answer"], false);
    let none = ["--question", "Where?", "--no-answer", "-1000", "Zürich"];
    with_model("answer", &model).args(none).assert().success().stdout(contains("no answer\t"));
    let mut command = with_model("answer", &model);
    command.arg("Zürich");
    fails(command, "its question is empty");
}

#[test]
fn gliner_finds_types_of_ones_own() {
    let gliner = |folder: &str, arguments: &[&str]| {
        let mut command = example("gliner");
        command.arg("--model").arg(fixture(folder)).args(arguments);
        command
    };
    let everything = ["--labels", "person,place", "--threshold", "0", "--nested", "--multi-label"];
    let found = gliner("gliner/span", &[&everything[..], &["--json", "« Zürich »"]].concat()).assert().success();
    let entities = json_lines(&found)[0].as_array().unwrap().len();
    // Of the six spans of three words, two overlap, and one of them counts; the others have both types.
    assert_eq!(entities, 10);
    let table = is_match(r"^0\t\d+\t(person|place)\t0\.\d{4}\t«").unwrap();
    gliner("gliner/span", &[&everything[..], &["« Zürich »"]].concat()).assert().success().stdout(table);

    let rows = "{\"text\": \"Ada\", \"labels\": [\"x\"]}\n{\"text\": \"Ada\"}\n";
    let mut lines = gliner("gliner/token", &[&everything[..], &["--jsonl", "--json"]].concat());
    let lines = lines.arg("--tokenizer").arg(fixture("gliner/tokenizer")).write_stdin(rows).assert().success();
    assert_eq!(json_lines(&lines).iter().map(|line| line.as_array().unwrap().len()).collect::<Vec<_>>(), [1, 2]);
    fails(gliner("gliner/token", &["--labels", "person", "Ada"]), "give that of tokenizer");
    fails(gliner("gliner/span", &["Ada"]), "the text argument: it is asked for no labels");
}

#[test]
fn embeddings_go_to_a_safetensors_file() {
    let model = classifier();
    let file = model.path().join("embeddings.safetensors");
    let mut command = with_model("embed", &model);
    command.write_stdin("war\npeace\n").args(["--normalize", "--output"]).arg(&file);
    command.assert().success().stdout(is_empty()).stderr(contains("2 vectors of 16"));
    let bytes = fs::read(&file).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensor = tensors.tensor("embeddings").unwrap();
    assert_eq!((tensor.shape(), tensor.dtype()), (&[2, 16][..], safetensors::Dtype::F32));

    let printed = with_model("embed", &model).args(["--normalize", "--json", "war"]).assert().success();
    let numbers: Vec<f32> = tensor.data()[..64].chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    let printed: Vec<f32> = serde_json::from_value(json_lines(&printed)[0].clone()).unwrap();
    // Alone and in a batch: the order of f32 sums differs.
    assert!(numbers.iter().zip(&printed).all(|(a, b)| (a - b).abs() < 1e-5), "{numbers:?} {printed:?}");
    let pooling = |flags: &[&str], told: &str| {
        with_model("embed", &model)
            .arg("war")
            .args(flags)
            .assert()
            .success()
            .stderr(contains(format!("pooling: {told}\n")));
    };
    pooling(&[], "mean (the default; the folder names none)");
    fs::create_dir(model.path().join("1_Pooling")).unwrap();
    let config = r#"{"pooling_mode_cls_token": true, "pooling_mode_lasttoken": true}"#;
    fs::write(model.path().join("1_Pooling/config.json"), config).unwrap();
    pooling(&["--normalize"], "cls + lasttoken, scaled to length 1 (1_Pooling/config.json)");
    pooling(&["--pooling", "max"], "max (--pooling)");
    let mut command = with_model("embed", &model);
    command.args(["war", "--output", "no/such/folder/x.safetensors"]);
    command.assert().code(1).stdout(is_empty()).stderr(contains("error: cannot create no/such/folder/x.safetensors"));
}

#[test]
fn a_conversion_says_what_it_clamped() {
    let model = classifier();
    let path = model.path().join("model.safetensors");
    let mut file = fs::read(&path).expect("weights");
    let entries = Header::parse(&file, &path).expect("a header").entries;
    let weight = entries.iter().find(|entry| entry.name == "classifier.weight").expect("the head");
    file[weight.range.start..weight.range.start + 4].copy_from_slice(&1e5f32.to_le_bytes());
    fs::write(&path, file).expect("weights");
    let output = TempDir::new().expect("a temporary folder");
    let convert = |flags: &[&str]| {
        let mut command = with_model("convert", &model);
        command.arg("--output").arg(output.path()).args(flags);
        command
    };
    fails(convert(&["--dtype", "f16"]), "beyond the range of F16: `classifier.weight` (1, the largest is 1e5)");
    convert(&["--dtype", "bf16"]).assert().success().stdout(contains("clamped").not());
    convert(&["--clamp"]).assert().success().stdout(contains("clamped `classifier.weight` (1, the largest is 1e5)"));
}
