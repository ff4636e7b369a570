//! What it costs to pretrain with a vocabulary of 128,100: a step of masked language modelling of v3-base's shape, with the
//! decoder and the vocabulary at the masked positions only, and everywhere.
//!
//! ```sh
//! cargo bench --bench pretraining            # a batch of 8 texts of 512 tokens, 20 minutes and 14 GB of memory
//! cargo bench --bench pretraining -- 2 128   # 2 of 128
//! ```
//!
//! Each way runs in a process of its own, so that its peak memory (Linux's VmHWM) is its own, and the ways take turns.

mod common;

use std::{
    env,
    process::{Command, ExitCode},
    time::Instant,
};

use burn::{
    Tensor,
    module::Module,
    tensor::{Device, Int, TensorData},
};
use deberta_burn::{
    Backbone, DebertaConfig, ModelInput,
    config::Preset,
    heads::{MaskedLm, MaskedLmLayout, MaskedPositions, loss},
    model::AttentionMask,
    training::{
        AdamW, AdamWConfig, Compared, MaskedLmLabels, Objective, ParameterGroups, Schedule, ScheduleKind, Trainer,
        Warmup,
    },
};

/// Rounds in which each way has one process.
const ROUNDS: usize = 3;
/// Steps of a process; the first is not counted.
const STEPS: usize = 3;
/// One token of so many is masked (15 %).
const EVERY: usize = 7;

/// Where decoder and vocabulary are computed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Masked,
    DecoderEverywhere,
    AllEverywhere,
}

impl Way {
    const ALL: [Self; 3] = [Self::Masked, Self::DecoderEverywhere, Self::AllEverywhere];

    fn describe(self) -> &'static str {
        match self {
            Self::Masked => "decoder and vocabulary at masked positions",
            Self::DecoderEverywhere => "decoder at all tokens, vocabulary at masked positions",
            Self::AllEverywhere => "decoder and vocabulary at all tokens",
        }
    }
}

/// The model, trained in one of the ways; the loss and its gradients are the same in all.
#[derive(Module, Debug)]
struct Pretraining {
    model: MaskedLm,
    #[module(skip)]
    way: Way,
}

impl Objective for Pretraining {
    type Labels = MaskedLmLabels;
    type Logits = Tensor<2>;

    fn backbones_mut(&mut self) -> Vec<&mut Backbone> {
        self.model.backbones_mut()
    }

    fn logits(&self, input: ModelInput, labels: &MaskedLmLabels) -> Tensor<2> {
        let rows = labels.positions.rows(&input.input_ids.device());
        match self.way {
            Way::Masked => self.model.logits(input, labels),
            Way::DecoderEverywhere => {
                let states = self.model.states(input, None).flatten::<2>(0, 1).select(0, rows);
                self.model.predict(states.unsqueeze()).squeeze_dim(0)
            }
            Way::AllEverywhere => self.model.forward(input).flatten::<2>(0, 1).select(0, rows),
        }
    }

    fn loss(&self, logits: Tensor<2>, labels: MaskedLmLabels) -> Tensor<1> {
        loss::cross_entropy(logits, labels.tokens)
    }

    fn compared(&self, logits: Tensor<2>, _: &MaskedLmLabels, _: Option<&AttentionMask>) -> Compared {
        Compared::Distributions(logits)
    }
}

/// One process: steps in one way; prints the seconds of each, the loss before the last, and the peak of memory in KiB.
fn worker(way: Way, batch: usize, length: usize) {
    common::allocator::keep_freed_memory();
    let device = Device::flex().autodiff();
    device.seed(0);
    // Without dropout, which would fall differently in each way, the losses are the same.
    let config = DebertaConfig {
        hidden_dropout_prob: 0.0,
        attention_probs_dropout_prob: 0.0,
        ..common::config(Preset::DebertaV3Base)
    };
    let model =
        MaskedLm::new(&config.clone().into(), MaskedLmLayout::EnhancedMaskDecoder, &device).expect("twelve layers");
    let schedule = Schedule::new(ScheduleKind::Constant, Warmup::Steps(0), 1e-4, usize::MAX).expect("a constant rate");
    let optimizer = AdamW::new(AdamWConfig::default(), ParameterGroups::default());
    let mut trainer = Trainer::new(Pretraining { model, way }, vec![device.clone()], optimizer, schedule, None, 0);

    // Any ids do, as long as they differ.
    let ids: Vec<i32> = (0..batch * length).map(|token| 3 + (token as i32 * 7919) % 128_000).collect();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [batch, length]), &device);
    let masked: Vec<usize> = (1..length).step_by(EVERY).collect();
    let positions = MaskedPositions::new(length, vec![&masked; batch]);
    let tokens = ids.clone().flatten::<1>(0, 1).select(0, positions.rows(&device));
    for _ in 0..STEPS {
        let labels = MaskedLmLabels { positions: positions.clone(), tokens: tokens.clone() };
        let start = Instant::now();
        let report = trainer.train_step(vec![(ModelInput::new(ids.clone()), labels)]);
        println!("{} {}", start.elapsed().as_secs_f64(), report.loss);
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB"));
    println!("{}", peak.unwrap_or("0").trim());
}

fn main() -> ExitCode {
    // Cargo adds `--bench`.
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let number = |at: usize, default: usize| match arguments.get(at) {
        Some(text) => text.parse().map_err(|_| format!("`{text}` is no number")),
        None => Ok(default),
    };
    match (number(0, 8), number(1, 512), number(2, Way::ALL.len())) {
        (Ok(batch), Ok(length), Ok(way)) if way < Way::ALL.len() => worker(Way::ALL[way], batch, length),
        (Ok(batch), Ok(length), Ok(_)) => compare(batch, length),
        (Err(problem), ..) | (_, Err(problem), _) | (.., Err(problem)) => {
            eprintln!("error: {problem}; expected the number of texts and their length");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Runs the ways in turn and prints a table of medians.
fn compare(batch: usize, length: usize) {
    let mut seconds = [const { Vec::new() }; Way::ALL.len()];
    let (mut losses, mut peaks) = ([0.0; Way::ALL.len()], [0.0f64; Way::ALL.len()]);
    for round in 1..=ROUNDS {
        for (number, way) in Way::ALL.into_iter().enumerate() {
            eprintln!("round {round} of {ROUNDS}: {}", way.describe());
            let program = env::current_exe().expect("the path of this program");
            let arguments = [batch, length, number].map(|argument| argument.to_string());
            let output = Command::new(program).args(arguments).output().expect("a process of its own");
            assert!(output.status.success(), "{way:?}: {}", String::from_utf8_lossy(&output.stderr));
            let text = String::from_utf8(output.stdout).expect("numbers");
            let mut lines: Vec<&str> = text.lines().collect();
            let peak: f64 = lines.pop().expect("the peak").parse().expect("a number");
            peaks[number] = peaks[number].max(peak / (1 << 20) as f64);
            for line in &lines[1..] {
                let (time, loss) = line.split_once(' ').expect("seconds and loss");
                seconds[number].push(time.parse::<f64>().expect("a number"));
                losses[number] = loss.parse().expect("a number");
            }
        }
    }
    println!("\nbatch {batch} x {length}, {} threads\n", rayon::current_num_threads());
    println!("| computed | seconds a step | peak memory, GiB | loss |\n|---|---:|---:|---:|");
    for (number, way) in Way::ALL.into_iter().enumerate() {
        seconds[number].sort_by(f64::total_cmp);
        let median = seconds[number][seconds[number].len() / 2];
        println!("| {} | {median:.2} | {:.2} | {:.4} |", way.describe(), peaks[number], losses[number]);
    }
}
