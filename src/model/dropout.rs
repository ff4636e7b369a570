//! Dropout, whose masks are drawn by key.

use burn::{Tensor, module::Module, nn::DropoutConfig, tensor::Device};

pub use crate::kernels::draws::keyed;
use crate::kernels::{
    cpu::dropout::DropoutMask,
    draws::{dropped, next_seed},
};

/// Sets elements to zero with some probability p, and multiplies the others by 1 / (1 - p), in training alone: on devices with
/// gradients, unless the module was frozen.
#[derive(Module, Debug)]
pub struct Dropout {
    /// burn's own, for its probability and its flag of training, which burn turns on and off.
    flagged: burn::nn::Dropout,
}

impl Dropout {
    /// Drops with this probability.
    ///
    /// # Panics
    /// If it is not from 0 up to, but not including, 1.
    pub fn new(probability: f64) -> Self {
        Self { flagged: DropoutConfig::new(probability).init() }
    }

    /// # Shapes
    /// - x, output: any, the same
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let (device, dims) = (x.device(), x.dims());
        match self.mask(&device) {
            Some(mask) => {
                let (rows, width) = (dims[..D - 1].iter().product(), dims[D - 1]);
                let dropped = dropped(mask, [rows, width], &device).reshape(dims);
                x.mask_fill(dropped, 0.0) * mask.factor()
            }
            None => x,
        }
    }

    /// Whether the module that it belongs to is in training, on this device.
    pub(crate) fn is_training(&self, device: &Device) -> bool {
        self.flagged.training.is_enabled() && device.is_autodiff()
    }

    /// A mask of its own for each call, or none where nothing is dropped.
    pub(crate) fn mask(&self, device: &Device) -> Option<DropoutMask> {
        let probability = self.flagged.prob;
        let acts = probability > 0.0 && self.is_training(device);
        acts.then(|| DropoutMask::new(probability, next_seed()))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, FloatDType};

    use super::*;

    #[test]
    fn acts_in_training_alone() {
        let (device, dropout) = (Device::flex(), Dropout::new(0.5));
        let run = |dropout: &Dropout, device: &Device| {
            let ones = Tensor::<2>::ones([8, 8], device);
            dropout.forward(ones).into_data().try_to_vec::<f32>().unwrap()
        };
        let trained = keyed(1, || run(&dropout, &device.clone().autodiff()));
        assert!(trained.iter().all(|value| *value == 0.0 || *value == 2.0));
        assert!(trained.contains(&0.0) && trained.contains(&2.0));
        assert_eq!(trained, keyed(1, || run(&dropout, &device.clone().autodiff())));
        for (dropout, device) in
            [(&dropout, &device), (&dropout.valid(), &device.clone().autodiff()), (&Dropout::new(0.0), &device)]
        {
            assert_eq!(run(dropout, device), vec![1.0; 64]);
        }
    }

    #[test]
    fn gradients_pass_what_is_kept() {
        for dtype in [FloatDType::F32, FloatDType::F16, FloatDType::BF16] {
            let device = Device::flex().autodiff();
            let x = Tensor::<3>::ones([2, 3, 4], (&device, DType::from(dtype))).require_grad();
            let output = Dropout::new(0.25).forward(x.clone());
            let gradient = x.grad(&output.clone().sum().backward()).expect("a gradient");
            let values = |tensor: Tensor<3>| tensor.cast(DType::F32).into_data().try_to_vec::<f32>().unwrap();
            assert_eq!(values(gradient), values(output.inner()), "{dtype:?}");
        }
    }
}
