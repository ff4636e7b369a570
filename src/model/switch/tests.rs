//! Layers and models with experts. That their numbers are transformers' is shown by the fixtures `switch_*`.

use burn::{
    module::{ModuleMapper, Param},
    tensor::{Bool, DType, Device, Int, TensorData},
};

use super::*;
use crate::{
    config::{DebertaConfig, DebertaVersion, PositionTerms},
    device::device,
    kernels::draws::keyed,
    model::{
        Backbone, ModelInput, Prepared,
        feed_forward::{FeedForward, Network},
    },
};

const HIDDEN: usize = 8;

/// What two orders of the same sums differ by: states are of size 1 to 3.
const TOLERANCE: f32 = 1e-5;

fn devices() -> [Device; 2] {
    ["flex", "ndarray"].map(|name| device(name).unwrap())
}

fn config() -> SwitchConfig {
    SwitchConfig { num_experts: 3, router_jitter_noise: 0.0, ..SwitchConfig::default() }
}

fn layer(network: SwitchNetwork, device: &Device) -> FeedForward {
    let init = Init { device, std: 0.5, epsilon: 1e-7 };
    FeedForward::of(Network::Switch(network), &init, HIDDEN, 0.0)
}

fn network(config: &SwitchConfig, device: &Device) -> SwitchNetwork {
    device.seed(4);
    let init = Init { device, std: 0.5, epsilon: 1e-7 };
    SwitchNetwork::new(&init, [HIDDEN, 12], Activation::Gelu, config)
}

/// Any numbers from -2 to 2, [2, 10, hidden].
fn states(device: &Device) -> Tensor<3> {
    let values: Vec<f32> = (0..20 * HIDDEN).map(|at| (at * 7919 % 2003) as f32 / 500.0 - 2.0).collect();
    Tensor::from_data(TensorData::new(values, [2, 10, HIDDEN]), device)
}

fn stream(states: &Tensor<3>) -> Stream {
    Stream::new(states.clone(), None)
}

fn tokens(layout: &TokenLayout) -> RoutedTokens<'_> {
    RoutedTokens { layout, positions: None, record: None }
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.cast(DType::F32).into_data().try_to_vec().unwrap()
}

#[test]
fn tokens_without_a_place_are_their_residual_to_the_bit() {
    for device in devices() {
        let config = SwitchConfig { expert_capacity: Some(2), ..config() };
        let (layout, states) = (TokenLayout::Padded(None), states(&device));
        let record = RoutingRecord::default();
        let network = network(&config, &device);
        let mapped = network.forward(stream(&states), tokens(&layout));
        let layer = layer(network, &device);
        let output = layer.forward(stream(&states), RoutedTokens { record: Some(&record), ..tokens(&layout) });
        // An expert that takes nothing would leave the residual alone.
        let padding = Tensor::<2, Bool>::from_data([[false; 10]; 2], &device);
        let residual = layer.forward(stream(&states), tokens(&TokenLayout::Padded(Some(padding.into()))));
        let (mapped, output, residual) = (values(mapped), values(output), values(residual));
        let mut overflow = 0;
        for row in 0..20 {
            let row = row * HIDDEN..(row + 1) * HIDDEN;
            let is_left = mapped[row.clone()].iter().all(|value| *value == 0.0);
            assert_eq!(output[row.clone()] == residual[row], is_left);
            overflow += usize::from(is_left);
        }
        assert!(overflow > 3, "{overflow}");
        assert_eq!(record.figures().unwrap().overflow, overflow as f64 / 20.0);
    }
}

#[test]
fn decisions_in_half_precision_are_those_of_f32() {
    let device = Device::flex();
    let whole = network(&config(), &device);
    let half = |tensor: Tensor<2>| tensor.cast(DType::BF16);
    let router = Linear::new(Param::from_tensor(half(whole.router.weight.val())), None);
    let rounded = Param::from_tensor(half(whole.router.weight.val()).cast(DType::F32));
    let states = states(&device).reshape([20, HIDDEN]).cast(DType::BF16);
    let exact = SwitchNetwork { router: Linear::new(rounded, None), ..whole.clone() };
    let exact = exact.logits(states.clone().cast(DType::F32));
    let found = SwitchNetwork { router, ..whole }.logits(states);
    assert_eq!(found.dtype(), DType::F32);
    // The same numbers, and so the same probabilities and decisions.
    assert_eq!(values(found), values(exact));
}

#[test]
fn noise_is_for_training_and_follows_its_key() {
    let device = Device::flex();
    let network = network(&SwitchConfig { router_jitter_noise: 0.3, ..config() }, &device);
    let logits = |network: &SwitchNetwork, device: &Device, key| {
        let states = states(device).reshape([20, HIDDEN]);
        values(keyed(key, || network.logits(states)))
    };
    let plain = logits(&network, &device, 1);
    assert_eq!(plain, logits(&network, &device, 2));
    let training = device.autodiff();
    let trained = network.fork(&training);
    let noisy = logits(&trained, &training, 1);
    assert!(noisy != plain && noisy != logits(&trained, &training, 2));
    assert_eq!(noisy, logits(&trained, &training, 1));
}

#[test]
fn experts_drop_inner_states_in_training_alone() {
    // One expert, so that its output is multiplied by exactly 1, that leaves gelu(1) of its inner states as they are.
    const WIDTH: usize = 64;
    const ROWS: usize = 512;
    let device = Device::flex();
    let parameter = |value: Tensor<2>| Param::from_tensor(value);
    let bias = Param::from_tensor(Tensor::ones([WIDTH], &device));
    let widen = Linear::new(parameter(Tensor::zeros([WIDTH, WIDTH], &device)), Some(bias));
    let narrow = Linear::new(parameter(Tensor::eye(WIDTH, &device)), None);
    let network = SwitchNetwork {
        router: Linear::new(parameter(Tensor::zeros([WIDTH, 1], &device)), None),
        experts: vec![Mlp::new(widen, narrow, Activation::Gelu)],
        dropout: Dropout::new(0.4),
        config: SwitchConfig { num_experts: 1, ..config() },
    };
    let run = |network: &SwitchNetwork, device: &Device, key| {
        let (layout, states) = (TokenLayout::Padded(None), Tensor::<3>::ones([1, ROWS, WIDTH], device));
        values(keyed(key, || network.forward(stream(&states), tokens(&layout))))
    };
    let plain = run(&network, &device, 1);
    assert!(plain[0] > 0.8 && plain.iter().all(|value| *value == plain[0]), "{}", plain[0]);

    let training = device.clone().autodiff();
    let trained = network.fork(&training);
    let dropped = run(&trained, &training, 1);
    // The others are divided by the share that is left; one rounding.
    let kept = plain[0] / 0.6;
    let is_whole = |value: &f32| (value - kept).abs() < 1e-6;
    assert!(dropped.iter().all(|value| *value == 0.0 || is_whole(value)));
    let zeros = dropped.iter().filter(|value| **value == 0.0).count() as f64 / dropped.len() as f64;
    // Four standard deviations of a share of 32,768 draws.
    assert!((zeros - 0.4).abs() < 4.0 * (0.4f64 * 0.6 / (ROWS * WIDTH) as f64).sqrt(), "{zeros}");
    assert_eq!(dropped, run(&trained, &training, 1));
    assert!(dropped != run(&trained, &training, 2));
    assert_eq!(run(&trained.valid(), &device, 1), plain);
}

#[test]
fn a_router_that_knows_nothing_has_a_balance_of_one() {
    let device = Device::flex();
    let network = network(&config(), &device);
    let weight = Param::from_tensor(network.router.weight.val().zeros_like());
    let network = SwitchNetwork { router: Linear::new(weight, None), ..network };
    let (layout, record) = (TokenLayout::Padded(None), RoutingRecord::default());
    network.forward(stream(&states(&device)), RoutedTokens { record: Some(&record), ..tokens(&layout) });
    let figures = record.figures().unwrap();
    // All choose the first of three experts, with a probability of a third.
    assert_eq!((figures.least, figures.most, figures.overflow), (0.0, 1.0, 0.0));
    assert!((figures.balance - 1.0).abs() < 1e-6 && (figures.entropy - 3f64.ln()).abs() < 1e-6, "{figures:?}");
    let loss = record.loss().unwrap().into_scalar::<f64>();
    assert!((loss - 0.01).abs() < 1e-8, "{loss}");
}

/// A model with a Switch layer over a dense one.
fn model(switch: SwitchConfig, device: &Device) -> Backbone {
    let config = DebertaConfig {
        vocab_size: 20,
        hidden_size: HIDDEN,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        intermediate_size: 12,
        max_position_embeddings: 16,
        relative_attention: true,
        position_buckets: 4,
        pos_att_type: PositionTerms { c2p: true, p2c: true },
        type_vocab_size: 0,
        switch: Some(switch),
        ..DebertaConfig::new(DebertaVersion::V2)
    };
    config.validate().unwrap();
    keyed(5, || config.init(device).map(&mut Drawn))
}

/// Draws matrices by key: burn's generator is one for the process, and other tests draw from it.
struct Drawn;

impl ModuleMapper for Drawn {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if D != 2 {
            return param;
        }
        let (value, id) = (param.val(), param.id);
        // Large enough for tokens to differ.
        let drawn = (uniforms([value.shape().num_elements(), 1], &value.device()) - 0.5) * 1.7;
        Param::initialized(id, drawn.reshape(value.shape()))
    }
}

const LENGTHS: [usize; 3] = [9, 5, 7];

/// Three texts, padded to `length`.
fn input(length: usize, device: &Device) -> ModelInput {
    let places =
        || LENGTHS.iter().enumerate().flat_map(|(text, count)| (0..length).map(move |at| (text, at, at < *count)));
    let ids: Vec<i32> =
        places().map(|(text, at, real)| if real { (1 + (31 * text + at) * 7 % 19) as i32 } else { 0 }).collect();
    let mask: Vec<bool> = places().map(|(_, _, real)| real).collect();
    ModelInput::new(Tensor::<2, Int>::from_data(TensorData::new(ids, [3, length]), device))
        .attention_mask(Tensor::from_data(TensorData::new(mask, [3, length]), device))
}

/// The states of the texts' tokens, and the share of the most chosen expert.
fn run(input: ModelInput, forward: impl FnOnce(ModelInput) -> Tensor<3>) -> (Vec<f32>, f64) {
    let (input, record) = input.record_routing();
    let states = forward(input);
    let texts = LENGTHS.iter().enumerate().map(|(text, count)| states.clone().slice([text..text + 1, 0..*count]));
    (texts.flat_map(values).collect(), record.figures().unwrap().most)
}

#[test]
fn padding_batches_layouts_and_prepared_weights_change_nothing() {
    let by_sequence = SwitchConfig { expert_capacity: Some(3), ..config() };
    for switch in [config(), by_sequence] {
        for device in devices() {
            let model = model(switch.clone(), &device);
            let forward = |input| model.forward(input).last_hidden_state;
            let (expected, most) = run(input(9, &device), forward);
            assert!(most < 0.9, "one expert is chosen by {most} of the tokens");
            let same = |found: Vec<f32>, what: &str| {
                let difference = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(found.len() == expected.len() && difference < TOLERANCE, "{what}: {difference}");
            };
            same(run(input(14, &device), forward).0, "more padding");
            // Attention weights are there in padded batches only.
            same(run(input(9, &device).with_attentions(), forward).0, "padding in the tensors");
            let alone = LENGTHS.iter().enumerate().flat_map(|(text, count)| {
                let ids = input(9, &device).input_ids.slice([text..text + 1, 0..*count]);
                values(model.forward(ModelInput::new(ids)).last_hidden_state)
            });
            same(alone.collect(), "each text by itself");
            let prepared = Prepared::new(model.clone());
            same(run(input(9, &device), |input| prepared.forward(input).last_hidden_state).0, "weights laid out");
        }
    }
}
