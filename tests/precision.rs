//! Models prepared in lower precisions beside the same in f32.

mod common;

use burn::{
    module::Module,
    tensor::{DType, Device, FloatDType, Tensor, TensorData},
};
use common::{config_without_dropout, cpu_devices, fixture};
use deberta_burn::{
    Backbone, DebertaConfig, Int8Layers, ModelConfig, ModelInput, Precision, Prepared,
    checkpoint::{Checkpoint, LoadOptions},
    config::DebertaVersion,
    parity::Reference,
};

/// Lower precisions are as far from f32 as their steps are wide, the same for every length, and in this order.
#[test]
fn lower_precisions_stay_near_f32() {
    fn check(name: &str, config: &ModelConfig, whole: &ModelInput, backend: &str, device: &Device) {
        let checkpoint = Checkpoint::open(fixture(name)).unwrap();
        let load = || checkpoint.load(Backbone::new(config, device), &LoadOptions::default()).unwrap().0;
        let length = whole.input_ids.dims()[1];
        let input = |length: usize| ModelInput::new(whole.input_ids.clone().narrow(1, 0, length));
        let states = |model: &Backbone, length: usize| model.forward(input(length)).last_hidden_state;
        let mean = |tensor: Tensor<3>| tensor.abs().mean().into_scalar::<f32>();
        let exact = load();
        let size = mean(states(&exact, length));
        let precisions =
            [Precision::I16, Precision::Bf16, Precision::Int8(Int8Layers::Mixed), Precision::Int8(Int8Layers::All)];
        // The step of the coarser factor as a part of its largest value: 2^-11, 2^-8 and 2^-7. Two or three layers of sums of
        // errors of both signs leave no more than a few of them on average.
        for (precision, step) in precisions.into_iter().zip([4.9e-4, 3.9e-3, 7.9e-3, 7.9e-3]) {
            let prepared = Prepared::with_precision(load(), precision).unwrap();
            for length in [3, length] {
                let found = prepared.forward(input(length)).last_hidden_state;
                let error = mean(found - states(&exact, length)) / size;
                assert!(
                    error > 0.0 && error < 4.0 * step,
                    "{name} on {backend} in {precision}, {length} tokens: {error}"
                );
            }
            // Back, the weights are those that it computed with.
            let returned = prepared.into_inner();
            assert_eq!(Module::num_params(&returned), Module::num_params(&exact), "{name}");
            let error = mean(states(&returned, length) - states(&exact, length)) / size;
            assert!(error > 0.0 && error < 4.0 * step, "{name} on {backend} in {precision}, given back: {error}");
        }
    }

    for name in ["v3_long", "v1_clamped", "roberta"] {
        let reference = Reference::open(fixture(name).join("reference.safetensors")).unwrap();
        let config = ModelConfig::from_folder(fixture(name)).unwrap();
        for (backend, device) in cpu_devices() {
            let input = reference.input(&config, &device).unwrap();
            check(name, &config, &input, backend, &device);
        }
    }
}

/// What a model was trained in is not what it is prepared in.
#[test]
fn what_training_rounds_is_not_rounded_after_preparation() {
    let (name, device) = ("v1_clamped", Device::flex());
    let config = ModelConfig::from_folder(fixture(name)).unwrap();
    let reference = Reference::open(fixture(name).join("reference.safetensors")).unwrap();
    let input = reference.input(&config, &device).unwrap().input_ids;
    for precision in [Precision::F32, Precision::I16] {
        let states = |trained_in: Option<FloatDType>| {
            let checkpoint = Checkpoint::open(fixture(name)).unwrap();
            let mut model = checkpoint.load(Backbone::new(&config, &device), &LoadOptions::default()).unwrap().0;
            model.set_compute_type(trained_in);
            let model = Prepared::with_precision(model, precision).unwrap();
            model.forward(ModelInput::new(input.clone())).last_hidden_state.into_data()
        };
        assert!(states(Some(FloatDType::BF16)) == states(None), "{precision}");
    }
}

/// Routers compute in f32 whatever the model's type. No decision of the fixtures is as close as rounding of the states and of the
/// router's weights could turn it.
#[test]
fn routers_decide_as_in_f32() {
    let device = Device::flex();
    for name in ["switch_v3_sequence", "switch_v3_token"] {
        let config = config_without_dropout(name);
        let reference = Reference::open(fixture(name).join("reference.safetensors")).unwrap();
        let checkpoint = Checkpoint::open(fixture(name)).unwrap();
        let load = |dtype: FloatDType, device: &Device| {
            let options = LoadOptions { dtype, ..LoadOptions::default() };
            checkpoint.load(Backbone::new(&config, device), &options).unwrap().0
        };
        let decisions = |device: &Device, forward: &dyn Fn(ModelInput) -> Tensor<3>| {
            let (input, record) = reference.input(&config, device).unwrap().record_routing();
            let states = forward(input);
            (record.experts(), states.cast(DType::F32).into_data())
        };
        let exact = load(FloatDType::F32, &device);
        let (expected, states) = decisions(&device, &|input| exact.forward(input).last_hidden_state);
        // 34 tokens in each layer, of which some find no place and the others choose among three experts.
        for layer in &expected {
            assert_eq!(layer.len(), 34);
            assert!([None, Some(0), Some(1), Some(2)].iter().all(|choice| layer.contains(choice)), "{layer:?}");
        }
        let same = |what: &str, (found, rounded): (Vec<Vec<Option<usize>>>, TensorData)| {
            assert_eq!(found, expected, "{name} in {what}");
            assert!(rounded != states, "{name} in {what} is computed in f32");
        };
        for dtype in [FloatDType::F16, FloatDType::BF16] {
            let model = load(dtype, &device);
            same(&format!("{dtype:?}"), decisions(&device, &|input| model.forward(input).last_hidden_state));
            let training = device.clone().autodiff();
            let mut model = load(FloatDType::F32, &training);
            model.set_compute_type(Some(dtype));
            let found = decisions(&training, &|input| model.forward(input).last_hidden_state);
            same(&format!("training in {dtype:?}"), found);
        }
        for precision in [Precision::Bf16, Precision::I16, Precision::Int8(Int8Layers::Mixed)] {
            let model = Prepared::with_precision(load(FloatDType::F32, &device), precision).unwrap();
            same(&precision.to_string(), decisions(&device, &|input| model.forward(input).last_hidden_state));
        }
    }
}

#[test]
fn precisions_that_a_model_cannot_have_are_refused() {
    let config = DebertaConfig { num_hidden_layers: 1, ..DebertaConfig::new(DebertaVersion::V2) };
    let config =
        DebertaConfig { hidden_size: 8, num_attention_heads: 2, intermediate_size: 8, vocab_size: 9, ..config };
    let config = ModelConfig::Deberta(config);
    let prepare =
        |device: &Device, precision| Prepared::with_precision(Backbone::new(&config, device), precision).err();
    for precision in [Precision::Bf16, Precision::I16, Precision::Int8(Int8Layers::All)] {
        let message = prepare(&Device::flex().autodiff(), precision).expect("gradients").to_string();
        assert_eq!(
            message,
            format!("device `flex`: weights in {precision} have no gradients; load the model on `device.inner()`")
        );
        assert!(prepare(&Device::flex(), precision).is_none());
    }
    assert!(prepare(&Device::flex().autodiff(), Precision::F32).is_none());
    let message = prepare(&Device::flex(), Precision::F16).expect("it is in f32").to_string();
    assert_eq!(message, "device `flex`: f16 is made of weights in F16, but these were loaded in F32");
}
