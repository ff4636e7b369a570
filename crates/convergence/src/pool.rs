//! Runs as processes of their own, several at a time: small models leave most of several threads idle, and a device's random
//! state belongs to its process.

use std::{
    collections::VecDeque,
    env,
    fs::{self, File},
    io::{BufRead, BufReader, IsTerminal, stderr},
    path::PathBuf,
    process::{Command, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use deberta_burn::{Error, Result};
use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressStyle};

/// The hidden argument that makes this program a worker.
pub const WORKER: &str = "--worker";

/// A run that is left to do.
pub struct Job {
    pub name: String,
    pub folder: PathBuf,
}

/// How many processes there are, and the threads of each.
#[derive(Clone, Copy)]
pub struct Workers {
    pub processes: usize,
    /// None lets each process use the whole machine.
    pub threads: Option<usize>,
}

/// Runs all jobs. Returns whether all are done: those under way `until` then are stopped, and go on from their last evaluation
/// when they are run again.
///
/// # Errors
/// The first failure, with the run's name. Runs that are under way then end, no others begin.
pub fn run(jobs: Vec<Job>, workers: Workers, until: Option<Instant>) -> Result<bool> {
    if jobs.is_empty() {
        return Ok(true);
    }
    let display = Display::new(jobs.len());
    let is_over = || until.is_some_and(|until| Instant::now() >= until);
    let all = jobs.len();
    let queue = Mutex::new(VecDeque::from(jobs));
    let failure = Mutex::new(None);
    let next = || {
        let failed = failure.lock().expect("no worker panics").is_some();
        queue.lock().expect("no worker panics").pop_front().filter(|_| !failed && !is_over())
    };
    thread::scope(|scope| {
        for _ in 0..workers.processes {
            scope.spawn(|| {
                while let Some(job) = next() {
                    if let Err(error) = run_one(&job, workers, &display, is_over) {
                        failure.lock().expect("no worker panics").get_or_insert(error);
                    }
                }
            });
        }
    });
    let done = display.close();
    failure.into_inner().expect("no worker panics").map_or(Ok(done == all), Err)
}

fn run_one(job: &Job, workers: Workers, display: &Display, is_over: impl Fn() -> bool) -> Result<()> {
    let program = env::current_exe().map_err(Error::io("find", "this program"))?;
    let log = job.folder.join("worker.log");
    let errors = File::create(&log).map_err(Error::io("create", &log))?;
    let mut command = Command::new(&program);
    command.arg(WORKER).arg(&job.folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
    if let Some(threads) = workers.threads {
        command.env("RAYON_NUM_THREADS", threads.to_string());
    }
    let mut child = command.spawn().map_err(Error::io("start", &program))?;
    let mut shown = display.begin(&job.name);
    let output = child.stdout.take().expect("it is piped");
    let mut stopped = false;
    for line in BufReader::new(output).lines().map_while(|line| line.ok()) {
        if let Some((share, message)) = line.split_once('\t') {
            display.update(&mut shown, share.parse().unwrap_or(0.0), message);
        }
        if is_over() && !stopped {
            stopped = true;
            child.kill().map_err(Error::io("stop", &program))?;
        }
    }
    let status = child.wait().map_err(Error::io("wait for", &program))?;
    let end = match (status.success(), stopped) {
        (true, _) => End::Done,
        (false, true) => End::Stopped,
        (false, false) => End::Failed,
    };
    display.end(shown, end);
    if end != End::Failed {
        return Ok(());
    }
    let said = fs::read_to_string(&log).unwrap_or_default();
    // What a panic says comes before a note on backtraces.
    let is_said = |line: &&str| !line.trim().is_empty() && !line.starts_with("note:");
    let problem = match said.lines().rev().find(is_said) {
        Some(line) => line.trim_start_matches("error: ").to_owned(),
        None => format!("it ended with {status}"),
    };
    Err(Error::input(format!("run {}", job.name), problem))
}

/// How a run ended.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Done,
    /// The time was up.
    Stopped,
    Failed,
}

/// How it goes: bars where there is a terminal, now and then a line where there is none.
struct Display {
    bars: Option<(MultiProgress, ProgressBar)>,
    progress: Mutex<Progress>,
    count: usize,
    began: Instant,
}

/// The shares of the runs under way, and the number of those that are done.
#[derive(Default)]
struct Progress {
    running: Vec<(String, f64)>,
    done: usize,
}

/// A run on display.
struct Shown {
    name: String,
    bar: Option<ProgressBar>,
    said: Instant,
}

/// Parts of a bar.
const PARTS: u64 = 1000;
/// Between lines of a run where there is no terminal.
const PAUSE: Duration = Duration::from_secs(60);

impl Display {
    fn new(count: usize) -> Self {
        let bars = stderr().is_terminal().then(|| {
            let bars = MultiProgress::new();
            let style = ProgressStyle::with_template("{wide_bar} {msg}").expect("a valid template");
            let all = bars.add(ProgressBar::new(PARTS).with_style(style));
            all.enable_steady_tick(Duration::from_secs(1));
            (bars, all)
        });
        Self { bars, progress: Mutex::default(), count, began: Instant::now() }
    }

    fn begin(&self, name: &str) -> Shown {
        let bar = self.bars.as_ref().map(|(bars, all)| {
            let style = ProgressStyle::with_template("{prefix:24} {bar:30} {percent:>3} %, {msg}");
            let bar = ProgressBar::new(PARTS).with_style(style.expect("a valid template")).with_prefix(name.to_owned());
            bars.insert_before(all, bar)
        });
        if bar.is_none() {
            eprintln!("{name}: begins");
        }
        self.progress.lock().expect("no worker panics").running.push((name.to_owned(), 0.0));
        Shown { name: name.to_owned(), bar, said: Instant::now() }
    }

    fn update(&self, shown: &mut Shown, share: f64, message: &str) {
        let left = {
            let mut progress = self.progress.lock().expect("no worker panics");
            if let Some(run) = progress.running.iter_mut().find(|run| run.0 == shown.name) {
                run.1 = share;
            }
            self.left(&progress)
        };
        match (&shown.bar, &self.bars) {
            (Some(bar), Some((_, all))) => {
                bar.set_position((share * PARTS as f64) as u64);
                bar.set_message(message.to_owned());
                all.set_message(left);
            }
            _ if shown.said.elapsed() >= PAUSE => {
                eprintln!("{}: {:.0} %, {message}; {left}", shown.name, 100.0 * share);
                shown.said = Instant::now();
            }
            _ => {}
        }
    }

    fn end(&self, shown: Shown, end: End) {
        let left = {
            let mut progress = self.progress.lock().expect("no worker panics");
            progress.running.retain(|run| run.0 != shown.name);
            progress.done += usize::from(end == End::Done);
            self.left(&progress)
        };
        let how = match end {
            End::Done => "done",
            End::Stopped => "stopped",
            End::Failed => "failed",
        };
        let line = format!("{}: {how}; {left}", shown.name);
        match (shown.bar, &self.bars) {
            (Some(bar), Some((bars, all))) => {
                bar.finish_and_clear();
                all.set_message(left);
                // A bar that cannot be drawn is no reason to stop.
                let _ = bars.println(line);
            }
            _ => eprintln!("{line}"),
        }
    }

    /// How many runs are done, and how long the others will take if they go on as they did.
    fn left(&self, progress: &Progress) -> String {
        let share = (progress.done as f64 + progress.running.iter().map(|run| run.1).sum::<f64>()) / self.count as f64;
        if let Some((_, all)) = &self.bars {
            all.set_position((share * PARTS as f64) as u64);
        }
        let counted = format!("{} of {} runs done", progress.done, self.count);
        // Too early to tell: the first seconds go into reading.
        if share < 0.01 || progress.done == self.count {
            return counted;
        }
        let left = self.began.elapsed().mul_f64((1.0 - share) / share);
        format!("{counted}, {} left", HumanDuration(left))
    }

    /// Takes the bars away; how many runs are done.
    fn close(self) -> usize {
        if let Some((_, all)) = &self.bars {
            all.finish_and_clear();
        }
        self.progress.into_inner().expect("no worker panics").done
    }
}
