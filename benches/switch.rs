//! A Switch layer beside a dense one: one layer of v3-base's shape on 8 x 128 tokens, its forward pass with weights laid out,
//! forward and backward pass with all gradients, and a whole step of a classifier with AdamW, which visits the parameters of all
//! experts. The layers take turns, so that a busy machine is no one's disadvantage.
//!
//! ```sh
//! cargo bench --bench switch
//! ```

mod common;
#[path = "common/training.rs"]
mod training;

use std::time::{Duration, Instant};

use burn::{
    optim::GradientsParams,
    tensor::{Device, Int, Tensor},
};
use deberta_burn::{
    Backbone, DebertaConfig, ModelInput, Prepared,
    config::{Preset, SwitchConfig},
    heads::SequenceClassification,
};
use training::Training;

const EXPERTS: usize = 8;
const ROUNDS: usize = 30;

/// One layer, dense or with experts.
fn config(experts: Option<usize>) -> DebertaConfig {
    let switch = |num_experts| SwitchConfig { num_experts, sparse_step: 1, ..SwitchConfig::default() };
    // A small table of words: it is none of the layer's.
    DebertaConfig {
        num_hidden_layers: 1,
        vocab_size: 1000,
        switch: experts.map(switch),
        ..common::config(Preset::DebertaV3Base)
    }
}

fn layer(experts: Option<usize>, device: &Device) -> Backbone {
    device.seed(1);
    config(experts).init(device)
}

/// 8 x 128 tokens.
fn input(device: &Device) -> ModelInput {
    let ids = Tensor::<1, Int>::arange(0..8 * 128, device) * 97 % 1000;
    ModelInput::new(ids.reshape([8, 128]))
}

/// The fastest run of each, which is the least disturbed; they take turns.
fn compare(what: &str, mut runs: [Box<dyn FnMut()>; 2]) {
    let mut times = [const { Vec::<Duration>::new() }; 2];
    for round in 0..=ROUNDS {
        for (run, times) in runs.iter_mut().zip(&mut times) {
            let start = Instant::now();
            run();
            // The first round finds memory.
            if round > 0 {
                times.push(start.elapsed());
            }
        }
    }
    let fastest = |times: &[Duration]| times.iter().min().map_or(0.0, |time| time.as_secs_f64() * 1e3);
    let [dense, switch] = [fastest(&times[0]), fastest(&times[1])];
    println!("{what}: dense {dense:.1} ms, {EXPERTS} experts {switch:.1} ms, ratio {:.2}", switch / dense);
}

fn main() {
    common::allocator::keep_freed_memory();
    let device = Device::flex();
    let layers = [None, Some(EXPERTS)];
    compare(
        "forward",
        layers.map(|experts| -> Box<dyn FnMut()> {
            let (model, input) = (Prepared::new(layer(experts, &device)), input(&device));
            Box::new(move || drop(model.forward(input.clone()).last_hidden_state.into_data()))
        }),
    );
    let device = device.autodiff();
    compare(
        "forward and backward",
        layers.map(|experts| -> Box<dyn FnMut()> {
            let (model, batch) = (layer(experts, &device), input(&device));
            Box::new(move || {
                let (input, routing) = batch.clone().record_routing();
                let loss = routing.add_to(model.forward(input).last_hidden_state.square().mean());
                drop(GradientsParams::from_grads(loss.backward(), &model));
            })
        }),
    );
    compare(
        "step",
        layers.map(|experts| -> Box<dyn FnMut()> {
            device.seed(1);
            let model = SequenceClassification::new(&config(experts).into(), &device);
            let mut training = Training::new(model, &device, false);
            let (batch, classes) = (input(&device), Tensor::zeros([8], &device));
            Box::new(move || assert!(training.step(batch.clone(), classes.clone()).is_finite()))
        }),
    );
    let (input, record) = input(&device).record_routing();
    layer(Some(EXPERTS), &device).forward(input);
    println!("{:?}", record.figures());
}
