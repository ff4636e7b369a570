//! A seed gives one model, on whichever device.

mod common;

use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::Tensor,
};
use common::{config_without_dropout, devices};
use deberta_burn::{
    device,
    heads::{MaskedLm, MaskedLmLayout},
};

#[derive(Default)]
struct Values(Vec<Vec<f32>>);

impl ModuleVisitor for Values {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.push(param.val().into_data().try_to_vec().expect("parameters in f32"));
    }
}

#[test]
fn fresh_models_are_the_same_on_every_device() {
    // With a convolution.
    let config = config_without_dropout("v2_conv");
    let fresh = |device: &burn::tensor::Device, seed: u64| {
        device::seed(device, seed);
        let model = MaskedLm::new(&config, MaskedLmLayout::EnhancedMaskDecoder, device).expect("a decoder");
        let mut values = Values::default();
        model.visit(&mut values);
        values.0
    };
    let (_, first) = &devices()[0];
    let expected = fresh(first, 5);
    assert_ne!(fresh(first, 6), expected);
    for (name, device) in devices() {
        assert!(fresh(&device, 5) == expected, "{name} draws another model");
    }
}
