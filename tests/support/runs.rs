//! Training runs of the examples, as programs that can be killed.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use assert_cmd::assert::OutputAssertExt;
use deberta_burn::data::Random;
use serde_json::Value;
use tempfile::TempDir;

/// A program is waited for in naps. So many are ten minutes, many times what any run takes on a busy machine: what takes longer
/// hangs. They are counted rather than timed, because a machine may also stop everything for a while.
const NAP: Duration = Duration::from_millis(1);
const NAPS: usize = 600_000;

/// The example of that name; `cargo test` builds them all beside the tests.
pub fn example(name: &str) -> Command {
    let tests = std::env::current_exe().expect("the path of this test");
    let path: PathBuf = tests.ancestors().nth(2).expect("the build folder").join("examples").join(name);
    assert!(path.exists(), "{} is not built; run `cargo build --release --examples`", path.display());
    let mut command = Command::new(path);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command
}

/// A model to begin with, and the files of one test.
pub struct Case {
    pub model: TempDir,
    files: TempDir,
}

impl Case {
    pub fn new(model: TempDir) -> Self {
        Self { model, files: tempfile::tempdir().expect("a temporary folder") }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        fs::write(self.path(name), content).expect("a file");
        self.path(name)
    }

    /// A classification of sentences by a word in them.
    pub fn reviews(&self, name: &str, rows: usize) -> PathBuf {
        let mut random = Random::new(&[rows as u64]);
        let words = ["the", "film", "was", "long", "and", "loud", "story", "actor"];
        let row = |index: usize, random: &mut Random| {
            let text: Vec<_> = (0..3 + random.below(9)).map(|_| words[random.below(words.len())]).collect();
            let (word, label) = if index.is_multiple_of(2) { ("good", "glad") } else { ("bad", "sad") };
            format!("{} {word}\t{label}\n", text.join(" "))
        };
        let rows: String = (0..rows).map(|index| row(index, &mut random)).collect();
        self.file(name, &format!("text\tlabel\n{rows}"))
    }
}

/// `metrics.csv` without the column that depends on the clock.
pub fn figures(folder: &Path) -> Vec<Vec<String>> {
    let text = fs::read_to_string(folder.join("metrics.csv")).expect("metrics.csv");
    let rows: Vec<Vec<String>> = text.lines().map(|line| line.split(',').map(str::to_owned).collect()).collect();
    let clock = rows[0].iter().position(|name| name == "tokens_per_second").expect("the column");
    rows.into_iter()
        .map(|mut row| {
            row.remove(clock);
            row
        })
        .collect()
}

/// The training loss of each line of `metrics.csv`.
pub fn losses(folder: &Path) -> Vec<f64> {
    let rows = figures(folder);
    let column = rows[0].iter().position(|name| name == "train_loss").expect("the column");
    rows[1..].iter().map(|row| row[column].parse().expect("a number")).collect()
}

/// Waits until a program that runs has done something.
///
/// # Panics
/// If it ends before, or hangs.
pub fn wait_until(run: &mut Child, mut done: impl FnMut() -> bool) {
    for _ in 0..NAPS {
        if done() {
            return;
        }
        assert!(run.try_wait().expect("a process").is_none(), "the run ended by itself");
        thread::sleep(NAP);
    }
    run.kill().expect("SIGKILL");
    panic!("the run hangs");
}

/// How a program ends, and what it said on standard error, which is a pipe.
///
/// # Panics
/// If it hangs.
pub fn outcome_of(mut run: Child) -> (ExitStatus, String) {
    let mut said = run.stderr.take().expect("a pipe");
    let reader = thread::spawn(move || {
        let mut text = String::new();
        said.read_to_string(&mut text).map(|_| text).expect("UTF-8")
    });
    let status = (0..NAPS).find_map(|_| {
        thread::sleep(NAP);
        run.try_wait().expect("a process")
    });
    if status.is_none() {
        run.kill().expect("SIGKILL");
    }
    let text = reader.join().expect("what it said");
    (status.unwrap_or_else(|| panic!("the run hangs: {text}")), text)
}

/// Starts a program whose standard error is kept.
pub fn spawned(mut command: Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("a process")
}

/// What a program that fails says.
pub fn error_of(command: Command) -> String {
    let (status, text) = outcome_of(spawned(command));
    assert_eq!(status.code(), Some(1), "{text}");
    text
}

/// The last line of that: the error.
pub fn error_line(command: Command) -> String {
    let text = error_of(command);
    let line = text.lines().last().unwrap_or_default().to_owned();
    assert!(line.starts_with("error: "), "{text}");
    line
}

pub fn outcome(folder: &Path) -> Value {
    let text = fs::read_to_string(folder.join("training.json")).expect("training.json");
    serde_json::from_str::<Value>(&text).expect("JSON")["outcome"].clone()
}

/// The step of the newest checkpoint in an output folder, 0 if there is none.
pub fn saved_step(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("an ASCII name"));
    names.filter_map(|name| name.strip_prefix("checkpoint-")?.parse().ok()).max().unwrap_or(0)
}

/// The step of the last whole line of a table.
fn last_step(table: &str) -> usize {
    let whole = &table[..table.rfind('\n').unwrap_or(0)];
    whole.lines().last().and_then(|line| line.split(',').next()?.parse().ok()).unwrap_or(0)
}

/// Every file in the folder, and below it, is whole.
pub fn assert_whole(folder: &Path) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        // What is not yet in its place has another name, and no reader looks at it.
        if name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            assert_whole(&path);
        } else if name.ends_with(".safetensors") {
            let bytes = fs::read(&path).expect("readable");
            safetensors::SafeTensors::deserialize(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        } else if name.ends_with(".json") {
            let text = fs::read_to_string(&path).expect("readable");
            serde_json::from_str::<Value>(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
    }
}

/// Starts one run that is left alone, and one that is killed `rounds` times and resumed; both leave the same.
pub fn kill_and_resume(case: &Case, rounds: usize, start: impl Fn(&str) -> Command) {
    let start = |output: &str| {
        let mut command = start(output);
        command.arg("--resume").stderr(Stdio::null()).stdout(Stdio::null());
        command
    };
    start("whole").assert().success();

    let mut random = Random::new(&[7]);
    let folder = case.path("killed");
    for round in 0..rounds {
        let table = || fs::read_to_string(folder.join("metrics.csv")).unwrap_or_default();
        let (before, saved) = (table(), saved_step(&folder));
        // A few steps on, before the next checkpoint or behind it, and not at once after a report.
        let goal = saved + 2 * (1 + random.below(4));
        let mut run = start("killed").spawn().expect("a process");
        wait_until(&mut run, || table() != before && last_step(&table()) >= goal);
        thread::sleep(Duration::from_millis(random.below(15) as u64));
        run.kill().expect("SIGKILL");
        assert!(!run.wait().expect("an exit").success(), "round {round}: the run was done already");
        assert_whole(&folder);
    }
    start("killed").assert().success();
    let (whole, killed) = (case.path("whole"), case.path("killed"));
    assert_eq!(figures(&whole), figures(&killed));
    assert_eq!(outcome(&whole), outcome(&killed));
    let weights = |folder: &Path| {
        let files = ["model.safetensors", "adapter_model.safetensors"].map(|file| folder.join(file));
        fs::read(files.iter().find(|path| path.exists()).expect("weights")).expect("weights")
    };
    assert!(weights(&whole) == weights(&killed), "the models differ");
    let left: Vec<_> = fs::read_dir(&killed).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("checkpoint-")), "{left:?}");
}
