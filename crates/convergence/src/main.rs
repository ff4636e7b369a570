//! Trains DeBERTa and RoBERTa under one protocol and reports which converges how fast.
//!
//! ```sh
//! cargo run --release -p convergence
//! cargo run --release -p convergence -- --preset hours --ablation --tune 5e-4,1e-3,2e-3,4e-3
//! cargo run --release --features cuda -p convergence -- --preset gpu --train books.txt.gz --valid held-out.txt.gz
//! ```
//!
//! Both models get the same text, vocabulary, batches in the same order with the same tokens masked, steps, optimiser, schedule,
//! initialisation, layers and width; several seeds each. The report says how good they are at masked language modelling against
//! steps, tokens, operations and time, how many times fewer steps DeBERTa needs for RoBERTa's final validation loss, and how good
//! the models of several steps are after fine-tuning. With `--ablation`, parts of DeBERTa are taken away, and feed-forward
//! networks become Switch layers.
//!
//! Without texts of your own, it reads those that ship with the repository. The output folder gets `results.csv` (a line an
//! evaluation), SVG pictures and `report.html`, one file that holds everything; below `runs/`, a folder for each run.
//!
//! Each run is a process of its own. The same command goes on where it was stopped; what is finished is not done again.

#[path = "../../../examples/common/allocator.rs"]
mod allocator;
#[path = "../../../examples/common/compute_type.rs"]
mod compute_type;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
    thread::available_parallelism,
    time::{Duration, Instant},
};

use clap::Parser;
use compute_type::ComputeType;
use convergence::{
    cost, figures, merge,
    pool::{self, Job, Workers},
    protocol::{Data, Preset, RunSpec, Settings, TUNING_SEED},
    report::{self, Model, Report, Trial},
    results::{self, Results, Spread},
    scale::{self, Scale},
    seeds::Seeds,
    texts,
    variant::Variant,
    worker,
};
use deberta_burn::{Error, Result, device::device, write_file};

/// The text that is read without --train.
const TEXT: &str = "examples/data/presidents";
/// The task that models are fine-tuned for without --downstream.
const DOWNSTREAM: &str = "examples/data/movie-reviews";

/// Train DeBERTa and RoBERTa under one protocol, and report how fast they converge
#[derive(Parser)]
#[command(args_override_self = true)]
#[command(after_help = "Stopped runs go on, and finished ones are not repeated, when the same command is given again.")]
struct Args {
    /// Sizes and budgets to start from
    #[arg(long, value_enum, default_value_t = Preset::Minutes)]
    preset: Preset,

    /// Also train DeBERTa without its parts (enhanced mask decoder, position terms), by replaced token detection, and with Switch
    /// layers of 4 and 8 experts
    #[arg(long)]
    ablation: bool,

    /// Runs of each model, with the seeds 0, 1, ...; or the first and the last seed
    #[arg(long, value_name = "N|A-B", default_value = "3")]
    seeds: Seeds,

    /// Stop after so many minutes; the same command goes on from the last evaluations. 0 only prepares the texts
    #[arg(long, value_name = "N")]
    minutes: Option<u32>,

    /// Count the finished runs of other output folders as well, which had other seeds and are otherwise the same
    #[arg(long, value_name = "DIR,DIR,...", value_delimiter = ',')]
    merge: Vec<PathBuf>,

    /// Output folder [default: runs/convergence-PRESET]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,

    /// flex, ndarray, cuda, vulkan, wgpu or metal; :N for the N-th of its kind [default: the preset's]
    #[arg(long)]
    device: Option<String>,

    /// Type that linear maps and attention compute in; all else is in f32 [default: f32]
    #[arg(long, visible_alias = "dtype", value_enum)]
    precision: Option<ComputeType>,

    /// Runs at a time [default: one a core; one on a GPU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    jobs: Option<u64>,

    /// Text to learn from, .txt (a paragraph a line, an empty line between documents) or .jsonl, also .gz
    #[arg(long, value_name = "FILE", requires = "valid", help_heading = "Data")]
    train: Option<PathBuf>,

    /// Text to predict in evaluations
    #[arg(long, value_name = "FILE", requires = "train", help_heading = "Data")]
    valid: Option<PathBuf>,

    /// Folder with the train.tsv, valid.tsv and test.tsv of a classification, columns `text` and `label`
    #[arg(long, value_name = "DIR", default_value = DOWNSTREAM, help_heading = "Data")]
    downstream: PathBuf,

    /// Tokens of the vocabulary [default for this and all below: the preset's]
    #[arg(long, value_name = "N", help_heading = "Model")]
    vocab_size: Option<usize>,

    /// Tokens of a sequence
    #[arg(long, value_name = "N", help_heading = "Model")]
    max_length: Option<usize>,

    /// Encoder layers
    #[arg(long, value_name = "N", help_heading = "Model")]
    layers: Option<usize>,

    /// Width of the model; the feed-forward network is four times as wide
    #[arg(long, value_name = "N", help_heading = "Model")]
    hidden: Option<usize>,

    /// Attention heads
    #[arg(long, value_name = "N", help_heading = "Model")]
    heads: Option<usize>,

    /// Optimiser steps
    #[arg(long, value_name = "N", help_heading = "Optimisation", value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,

    /// Sequences in a batch
    #[arg(long, value_name = "N", help_heading = "Optimisation")]
    batch_size: Option<usize>,

    /// Share of the steps in which the learning rate rises
    #[arg(long, value_name = "X", help_heading = "Optimisation")]
    warmup_ratio: Option<f64>,

    /// Fresh weights with NAME in theirs are X times as large: query_proj=2
    #[arg(long, value_name = "NAME=X,...", value_delimiter = ',', help_heading = "Optimisation")]
    init_scale: Vec<Scale>,

    /// RoBERTa's highest learning rate
    #[arg(long, value_name = "X", help_heading = "Optimisation")]
    roberta_learning_rate: Option<f64>,

    /// DeBERTa's highest learning rate, also of what lacks parts of it
    #[arg(long, value_name = "X", help_heading = "Optimisation")]
    deberta_learning_rate: Option<f64>,

    /// The highest learning rate of replaced token detection, which --tune leaves alone
    #[arg(long, value_name = "X", requires = "ablation", help_heading = "Optimisation")]
    rtd_learning_rate: Option<f64>,

    /// First train both models at each of these learning rates, with seeds of their own, and go on with the best of each
    #[arg(
        long,
        value_name = "X,X,...",
        value_delimiter = ',',
        conflicts_with_all = ["roberta_learning_rate", "deberta_learning_rate"],
        help_heading = "Optimisation"
    )]
    tune: Vec<f64>,

    /// Seeds at each rate of --tune; the mean of their last losses decides
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u64).range(1..),
        requires = "tune",
        help_heading = "Optimisation"
    )]
    tune_seeds: u64,

    /// The folder of a run to do, instead of an experiment
    #[arg(long, value_name = "DIR", hide = true)]
    worker: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match &args.worker {
        Some(folder) => {
            allocator::keep_freed_memory();
            worker::work(folder)
        }
        None => experiment(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn experiment(args: &Args) -> Result<()> {
    let settings = args.settings();
    let device = device(&settings.device)?;
    settings.precision.compute_type(&device)?;
    settings.pretraining(args.preset.learning_rate(Variant::Deberta), 0).validate()?;
    let mut variants = Variant::PAIR.to_vec();
    if args.ablation {
        variants.extend(Variant::ABLATIONS);
    }
    let parameters: Vec<_> = variants.iter().map(|variant| variant.parameters(&settings)).collect::<Result<_>>()?;
    scale::check(&settings.scales, &parameters.concat())?;
    let output = args.output.clone().unwrap_or_else(|| format!("runs/convergence-{}", args.preset.name()).into());
    let until = args.minutes.map(|minutes| Instant::now() + Duration::from_secs(60 * u64::from(minutes)));
    let given = |file: &Option<PathBuf>, name: &str| file.clone().unwrap_or_else(|| Path::new(TEXT).join(name));
    let (train, valid) = (given(&args.train, "train.txt.gz"), given(&args.valid, "valid.txt.gz"));
    let (data, text) = texts::prepare(train, valid, &args.downstream, &settings, &output)?;
    eprintln!("{}", settings.precision.describe(&device));
    let workers = args.workers(&settings);
    let experiment = Experiment { output: &output, settings: &settings, data: &data, workers, until };

    let Some(trials) = experiment.tune(&args.tune, args.tune_seeds)? else { return goes_on(&output) };
    let learning_rate = |variant: Variant| {
        let chosen = match variant {
            Variant::Roberta => args.roberta_learning_rate.or(report::best(&trials, variant)),
            Variant::ReplacedToken => args.rtd_learning_rate,
            _ => args.deberta_learning_rate.or(report::best(&trials, Variant::Deberta)),
        };
        chosen.unwrap_or_else(|| args.preset.learning_rate(variant))
    };
    let models: Vec<Model> = variants
        .iter()
        .zip(parameters)
        .map(|(variant, parameters)| Model {
            variant: *variant,
            parameters: parameters.iter().map(|parameter| parameter.size).sum(),
            flops_per_step: cost::training_step(*variant, &settings),
            learning_rate: learning_rate(*variant),
        })
        .collect();
    // Seed by seed, so that what is there early is of all models.
    let spec = |model: &Model, seed| experiment.spec(model.variant, seed, model.learning_rate, settings.checkpoints());
    let seeds = args.seeds.0.clone();
    let specs: Vec<RunSpec> = seeds.flat_map(|seed| models.iter().map(move |model| spec(model, seed))).collect();
    let of_any_seed: Vec<_> = models.iter().map(|model| (spec(model, 0), model.flops_per_step)).collect();
    let mut merged = Vec::new();
    for other in &args.merge {
        for seed in merge::add(other, &specs, &of_any_seed, &mut merged)? {
            eprintln!("{}: seed {seed} is left out, of which not every model is finished", other.display());
        }
    }
    let Some(mut rows) = experiment.run(&specs)? else { return goes_on(&output) };
    rows.extend(merged);
    let report = Report {
        command: env::args().skip(1).collect(),
        preset: args.preset,
        settings: &settings,
        data: &data,
        text,
        models,
        trials,
        results: Results { rows },
        workers: experiment.workers,
    };
    write_file(output.join("results.csv"), results::to_csv(&report.results.rows).as_bytes())?;
    let pictures = figures::pictures(&report.results, &settings)?;
    for picture in &pictures {
        picture.figure.write_svg(output.join(format!("{}.svg", picture.name)))?;
    }
    let path = output.join("report.html");
    write_file(&path, report.html(&pictures)?.as_bytes())?;
    println!("{}\n{}", report.models_table().text(), report.speed_ups_table().text());
    if args.ablation {
        println!("{}", report.switch_table().text());
    }
    println!("{}", path.display());
    Ok(())
}

/// Says that the time is up.
fn goes_on(output: &Path) -> Result<()> {
    println!("the time is up: {} has what is done, and the same command goes on", output.display());
    Ok(())
}

/// What the runs of an experiment share.
struct Experiment<'a> {
    output: &'a Path,
    settings: &'a Settings,
    data: &'a Data,
    workers: Workers,
    /// When to stop.
    until: Option<Instant>,
}

impl Experiment<'_> {
    fn spec(&self, variant: Variant, seed: u64, learning_rate: f64, checkpoints: Vec<usize>) -> RunSpec {
        let (settings, data) = (self.settings.clone(), self.data.clone());
        RunSpec { variant, seed, learning_rate, checkpoints, settings, data }
    }

    /// The folder of a run. Those that tune have the learning rate in their name, for there are several of one seed.
    fn folder(&self, spec: &RunSpec) -> PathBuf {
        let (name, seed) = (spec.variant.name(), spec.seed);
        self.output.join("runs").join(match seed < TUNING_SEED {
            true => format!("{name}-seed-{seed}"),
            false => format!("tuning-{name}-{}-seed-{seed}", spec.learning_rate),
        })
    }

    /// Trains RoBERTa and DeBERTa at each learning rate with each of so many seeds; none if the time was up before.
    fn tune(&self, rates: &[f64], seeds: u64) -> Result<Option<Vec<Trial>>> {
        let pairs = Variant::PAIR.iter().flat_map(|variant| rates.iter().map(move |rate| (*variant, *rate)));
        let of_seeds = |(variant, rate)| {
            (0..seeds).map(move |seed| self.spec(variant, TUNING_SEED + seed, rate, vec![])).collect::<Vec<_>>()
        };
        let trials: Vec<Vec<RunSpec>> = pairs.map(of_seeds).collect();
        if self.run(&trials.concat())?.is_none() {
            return Ok(None);
        }
        let loss = |spec: &RunSpec| {
            let rows = results::read_run(&self.folder(spec), spec, 0.0)?;
            Ok(rows.last().and_then(|row| row.validation_loss).unwrap_or(f64::NAN))
        };
        let trial = |specs: &Vec<RunSpec>| {
            let losses: Vec<f64> = specs.iter().map(loss).collect::<Result<_>>()?;
            let loss = Spread::of(&losses).expect("one seed at least");
            Ok(Trial { variant: specs[0].variant, learning_rate: specs[0].learning_rate, loss })
        };
        trials.iter().map(trial).collect::<Result<_>>().map(Some)
    }

    /// Does what is left of these runs, and reads all of them; none if the time was up before.
    fn run(&self, specs: &[RunSpec]) -> Result<Option<Vec<results::Row>>> {
        let mut jobs = Vec::new();
        for spec in specs {
            let folder = self.folder(spec);
            let path = folder.join(worker::SPECIFICATION);
            let text = serde_json::to_string_pretty(spec).expect("plain data");
            match fs::read_to_string(&path) {
                Ok(there) if there == text => {}
                Ok(_) => {
                    let problem = "this run was started with other settings or texts: choose another --output, or remove its folder";
                    return Err(Error::file(path, problem));
                }
                Err(_) => {
                    fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
                    write_file(&path, text.as_bytes())?;
                }
            }
            if !worker::is_finished(&folder, spec) {
                let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
                jobs.push(Job { name, folder });
            }
        }
        if !pool::run(jobs, self.workers, self.until)? {
            return Ok(None);
        }
        let read = |spec: &RunSpec| {
            let flops = cost::training_step(spec.variant, self.settings);
            results::read_run(&self.folder(spec), spec, flops)
        };
        Ok(Some(specs.iter().map(read).collect::<Result<Vec<_>>>()?.concat()))
    }
}

impl Args {
    /// The preset's settings with what the flags change.
    fn settings(&self) -> Settings {
        let preset = self.preset.settings();
        Settings {
            vocabulary: self.vocab_size.unwrap_or(preset.vocabulary),
            length: self.max_length.unwrap_or(preset.length),
            layers: self.layers.unwrap_or(preset.layers),
            hidden: self.hidden.unwrap_or(preset.hidden),
            heads: self.heads.unwrap_or(preset.heads),
            batch_size: self.batch_size.unwrap_or(preset.batch_size),
            steps: self.steps.map_or(preset.steps, |steps| steps as usize),
            warmup: self.warmup_ratio.unwrap_or(preset.warmup),
            scales: self.init_scale.clone(),
            device: self.device.clone().unwrap_or_else(|| preset.device.clone()),
            precision: self.precision.map_or(preset.precision, Into::into),
            ..preset
        }
    }

    fn workers(&self, settings: &Settings) -> Workers {
        let cores = available_parallelism().map_or(1, |cores| cores.get());
        match settings.on_cpu() {
            true => {
                let processes = self.jobs.map_or(cores, |jobs| jobs as usize);
                Workers { processes, threads: Some((cores / processes).max(1)) }
            }
            false => Workers { processes: self.jobs.unwrap_or(1) as usize, threads: None },
        }
    }
}
