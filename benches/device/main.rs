//! What a GPU is to show, in one program that needs nothing but its arguments: see `benches/device/README.md`.

#[path = "../../examples/common/allocator.rs"]
mod allocator;
mod attention;
#[path = "../../tests/common/cast.rs"]
mod cast;
mod products;
mod profile;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Result;
use attention::{Case, Implementation, cases};
use burn::{
    Tensor,
    module::Module,
    tensor::{DType, Device, FloatDType, Int, TensorData},
};
use cast::Cast;
use clap::{Parser, Subcommand, ValueEnum};
use deberta_burn::{
    Backbone, ModelInput,
    config::{ModelConfig, PositionTerms, Preset},
    device::{describe, device},
    heads::{SequenceClassification, SequenceLabels},
    model::InferenceModel,
    parity::Reference,
    training::{AdamW, AdamWConfig, ParameterGroups, Schedule, ScheduleKind, Trainer, Warmup},
};
use serde_json::json;

/// Checks and times this crate on a device. Prints one JSON line a result; the exit code is 1 if a check fails.
#[derive(Parser)]
struct Arguments {
    /// cuda[:N], vulkan, wgpu, metal; flex and ndarray too.
    #[arg(long, default_value = "cuda")]
    device: String,

    /// Times of a model only start when this file is there: several programs can compile at a time, and be timed one by one.
    #[arg(long, global = true)]
    after: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Every fixture in f32 against the reference.
    Parity {
        /// Folder of fixtures.
        #[arg(long, default_value = "tests/fixtures")]
        fixtures: PathBuf,
    },
    /// The kernels of products and attention against their definitions in f64.
    Check {
        /// Types to compute in.
        #[arg(long, value_delimiter = ',', default_value = "f32,f16,bf16")]
        types: Vec<Type>,
    },
    /// Times of one layer's attention, 12 heads of 64.
    Attention {
        /// Type to compute in.
        #[arg(long, default_value = "bf16")]
        dtype: Type,
        /// Lengths of the sequences.
        #[arg(long, value_delimiter = ',', default_value = "512,1024,2048,4096,8192")]
        lengths: Vec<usize>,
        /// Tokens of a batch.
        #[arg(long, default_value_t = 16_384)]
        tokens: usize,
        /// Timed runs, of which the median is given.
        #[arg(long, default_value_t = 10)]
        times: usize,
        /// Longest sequences that the definition is timed at too: it needs several [batch, heads, length, length].
        #[arg(long, default_value_t = 2048)]
        composed_up_to: usize,
    },
    /// Times of a linear map of 16,384 rows.
    Products {
        /// Type to compute in.
        #[arg(long, default_value = "bf16")]
        dtype: Type,
        /// Inputs and outputs of each map.
        #[arg(long, value_delimiter = ',', default_value = "768x768,768x3072,3072x768")]
        maps: Vec<String>,
        /// Rows of the input.
        #[arg(long, default_value_t = 16_384)]
        rows: usize,
        /// Timed runs, of which the median is given.
        #[arg(long, default_value_t = 10)]
        times: usize,
    },
    /// Times of a model with fresh weights: a training step of a classifier in mixed precision, and inference in the type.
    Model {
        /// Shape of the model.
        #[arg(long, default_value = "deberta-v3-base")]
        preset: Preset,
        /// Type to compute in.
        #[arg(long, default_value = "bf16")]
        dtype: Type,
        /// Texts of a batch.
        #[arg(long, default_value_t = 32)]
        batch: usize,
        /// Tokens of a text.
        #[arg(long, default_value_t = 512)]
        length: usize,
        /// Timed runs, of which the median is given.
        #[arg(long, default_value_t = 10)]
        times: usize,
        /// Words of the vocabulary, instead of the preset's, for a device that holds less.
        #[arg(long)]
        vocabulary: Option<usize>,
        /// Says where one more training step spends its time, launch by launch.
        #[arg(long)]
        profile: bool,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Type {
    F32,
    F16,
    Bf16,
}

impl Type {
    fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
        }
    }

    /// The relative error that an output may have: the norm of what rounding a few operands to this type leaves.
    fn bound(self) -> f64 {
        match self {
            Self::F32 => 1e-5,
            Self::F16 => 2e-3,
            Self::Bf16 => 1.5e-2,
        }
    }
}

fn main() -> Result<ExitCode> {
    allocator::keep_freed_memory();
    let Arguments { device: name, after, command } = Arguments::parse();
    let device = device(&name)?;
    println!("{}", json!({ "device": name, "host": describe() }));
    let passed = match command {
        Command::Parity { fixtures } => parity(&fixtures, &device)?,
        Command::Check { types } => types.into_iter().filter(|dtype| !check(*dtype, &device)).count() == 0,
        Command::Attention { dtype, lengths, tokens, times, composed_up_to } => {
            for length in lengths {
                time_attention(dtype, length, tokens, times, composed_up_to, &device);
            }
            true
        }
        Command::Products { dtype, maps, rows, times } => {
            for map in maps {
                products::time(dtype.dtype(), rows, &map, times, &device)?;
            }
            true
        }
        Command::Model { preset, dtype, batch, length, times, vocabulary, profile } => {
            let mut config = preset.config();
            if let (Some(words), ModelConfig::Deberta(config)) = (vocabulary, &mut config) {
                config.vocab_size = words;
            }
            let case = ModelCase { name: preset.name(), config, dtype, shape: [batch, length], profile };
            case.time(times, after.as_deref(), &device)?;
            true
        }
    };
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether every fixture equals its reference.
fn parity(fixtures: &PathBuf, device: &Device) -> Result<bool> {
    let mut folders: Vec<_> = std::fs::read_dir(fixtures)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    // Those of the decoder and of replaced tokens have outputs of their own, which `tests/parity.rs` asks for by name.
    let general = |name: &str| !name.starts_with("emd_") && !name.starts_with("rtd_");
    folders.retain(|folder| folder.join("reference.safetensors").exists());
    folders.retain(|folder| folder.file_name().and_then(|name| name.to_str()).is_some_and(general));
    folders.sort();
    let mut passed = true;
    for folder in folders {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let start = Instant::now();
        let found =
            Reference::open(folder.join("reference.safetensors")).and_then(|file| file.compare(&folder, device));
        let seconds = start.elapsed().as_secs_f64();
        let holds = found.as_ref().is_ok_and(|comparison| comparison.max() <= 1e-4);
        passed &= holds;
        let line = match found {
            Ok(comparison) => {
                json!({ "parity": name, "largest": comparison.max(), "holds": holds, "seconds": seconds })
            }
            Err(error) => json!({ "parity": name, "error": error.to_string(), "holds": false }),
        };
        println!("{line}");
    }
    Ok(passed)
}

/// Whether every product and every case of attention is as exact as its type allows, and gives the same gradients twice.
fn check(dtype: Type, device: &Device) -> bool {
    let mut passed = products::check(dtype.dtype(), dtype.bound(), device);
    for (number, case) in cases().into_iter().enumerate() {
        let errors = case.errors(device, dtype.dtype(), number as u64 + 1);
        let tracked = device.clone().autodiff();
        let twice = [(); 2].map(|()| case.results(Implementation::Fused, &tracked, dtype.dtype(), 3));
        let same = twice[0] == twice[1];
        let holds = same && errors.iter().all(|(_, error)| *error <= dtype.bound());
        passed &= holds;
        let errors: serde_json::Map<_, _> =
            errors.into_iter().map(|(name, error)| (name.to_owned(), json!(error))).collect();
        println!(
            "{}",
            json!({
                "check": format!("{dtype:?}"), "lengths": case.lengths, "heads": case.heads, "size": case.head_size,
                "errors": errors, "same twice": same, "holds": holds,
            })
        );
    }
    passed
}

/// Runs three times.
fn warm_up(device: &Device, mut run: impl FnMut()) {
    for _ in 0..3 {
        run();
        device.sync().expect("the device answers");
    }
}

/// The median of some runs in milliseconds, each waited for.
fn timed(times: usize, device: &Device, mut run: impl FnMut()) -> f64 {
    let mut taken: Vec<_> = (0..times)
        .map(|_| {
            let start = Instant::now();
            run();
            device.sync().expect("the device answers");
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    taken.sort_by(f64::total_cmp);
    taken[taken.len() / 2]
}

/// The same after three runs that warm up.
fn median(times: usize, device: &Device, mut run: impl FnMut()) -> f64 {
    warm_up(device, &mut run);
    timed(times, device, run)
}

fn time_attention(dtype: Type, length: usize, tokens: usize, times: usize, composed_up_to: usize, device: &Device) {
    let case = Case::new(&vec![length; tokens / length], 12, 64);
    let plain = Case { terms: PositionTerms { c2p: false, p2c: false }, ..case.clone() };
    let inputs = plain.inputs(Implementation::Fused, device, dtype.dtype(), 1);
    let ms = median(times, device, || drop(plain.attend(Implementation::Fused, &inputs)));
    println!(
        "{}",
        json!({ "implementation": "fused, no position terms", "dtype": format!("{dtype:?}"), "length": length, "pass": "forward", "ms": ms })
    );
    for implementation in [Implementation::Fused, Implementation::Composed] {
        if implementation == Implementation::Composed && length > composed_up_to {
            continue;
        }
        let inputs = case.inputs(implementation, device, dtype.dtype(), 1);
        let forward = median(times, device, || drop(case.attend(implementation, &inputs)));
        let tracked = device.clone().autodiff();
        let inputs = case.inputs(implementation, &tracked, dtype.dtype(), 1);
        let both =
            median(times, device, || drop((case.attend(implementation, &inputs) * inputs.weight()).sum().backward()));
        let name = format!("{implementation:?}").to_lowercase();
        for (pass, ms) in [("forward", forward), ("forward and backward", both)] {
            println!(
                "{}",
                json!({ "implementation": name, "dtype": format!("{dtype:?}"), "length": length, "pass": pass, "ms": ms })
            );
        }
        println!("{}", json!({ "implementation": name, "length": length, "bytes reserved": reserved(device) }));
    }
}

/// The device memory that the process holds: at least what its tensors take.
fn reserved(device: &Device) -> Option<u64> {
    device.memory_pool_usage().map(|usage| usage.bytes_reserved)
}

/// A model to time.
struct ModelCase {
    name: &'static str,
    config: ModelConfig,
    dtype: Type,
    shape: [usize; 2],
    profile: bool,
}

impl ModelCase {
    fn input(&self, device: &Device) -> ModelInput {
        let [batch, length] = self.shape;
        let words = match &self.config {
            ModelConfig::Deberta(config) => config.vocab_size,
            ModelConfig::Roberta(config) => config.vocab_size,
        };
        // Some words are frequent, as in a text.
        let word = |at: usize| words as f64 * ((at * 7919 % 10_007) as f64 / 10_007.0).powi(4);
        let ids: Vec<i32> = (0..batch * length).map(|at| word(at) as i32).collect();
        ModelInput::new(Tensor::<2, Int>::from_data(TensorData::new(ids, self.shape), device))
    }

    fn time(&self, times: usize, after: Option<&Path>, device: &Device) -> Result<()> {
        let Self { name, config, dtype, shape: [batch, length], profile } = self;
        let line = |what: &str, ms: f64, bytes: Option<u64>| {
            println!(
                "{}",
                json!({
                    "model": name, "dtype": format!("{dtype:?}"), "batch": batch, "length": length, "what": what, "ms": ms,
                    "bytes reserved": bytes,
                })
            );
        };
        let tracked = device.clone().autodiff();
        let mut head = SequenceClassification::new(config, &tracked);
        // Mixed precision: parameters stay in f32.
        let compute_type = match dtype {
            Type::F32 => None,
            Type::F16 => Some(FloatDType::F16),
            Type::Bf16 => Some(FloatDType::BF16),
        };
        head.backbone_mut().set_compute_type(compute_type);
        let optimizer = AdamW::new(AdamWConfig::default(), ParameterGroups::default());
        let schedule = Schedule::new(ScheduleKind::Constant, Warmup::Steps(0), 1e-5, usize::MAX)?;
        let mut trainer = Trainer::new(head, vec![tracked.clone()], optimizer, schedule, None, 0);
        let inputs = self.input(&tracked);
        let classes = TensorData::new((0..*batch as i32).map(|text| text % 2).collect(), [*batch]);
        let classes = Tensor::<1, Int>::from_data(classes, &tracked);
        let mut step = || {
            trainer.train_step(vec![(inputs.clone(), SequenceLabels::Classes(classes.clone()))]);
        };
        warm_up(device, &mut step);
        let bytes = reserved(device);

        let model = Backbone::new(config, device).map(&mut Cast(dtype.dtype()));
        let inputs = self.input(device);
        let infer = || drop(model.forward(inputs.clone()));
        warm_up(device, infer);
        while after.is_some_and(|file| !file.exists()) {
            std::thread::sleep(Duration::from_millis(20));
        }
        line("training step", timed(times, device, &mut step), bytes);
        if *profile {
            profile::profile(device, step);
        }
        line("inference", timed(times, device, infer), None);
        Ok(())
    }
}
