//! The gradients of a step, on one device or data-parallel on several: each then has a copy of the model and takes its share of
//! the step's batches, and the gradients are summed on the first, as accumulation on one device sums them.

use std::thread;

use burn::{
    Tensor,
    module::Module,
    optim::{GradientsAccumulator, GradientsParams},
    tensor::Device,
};

use crate::data::Random;

/// Where a model trains, devices with gradients; the model is on the first.
#[derive(Clone, Debug)]
pub(super) struct Devices(Vec<Device>);

impl Devices {
    /// # Panics
    /// Without a device.
    pub fn new(devices: &[Device]) -> Self {
        assert!(!devices.is_empty(), "training needs a device");
        Self(devices.to_vec())
    }

    /// The device of a step's batch with this number.
    pub fn of(&self, batch: usize) -> &Device {
        &self.0[batch % self.0.len()]
    }

    /// Dropout, noise and samples draw from the devices' random states: from here on they follow from seed and step.
    pub fn seed(&self, seed: u64, step: usize) {
        for (number, device) in self.0.iter().enumerate() {
            device.seed(Random::new(&[seed, step as u64, number as u64]).next_u64());
        }
    }

    /// Runs `pass` on each batch, which is on its [device](Self::of); it returns the batch's loss, \[1\], and anything to keep.
    /// Returns the gradients of the mean loss, and what was kept in the order of the batches.
    ///
    /// # Panics
    /// Without any batch.
    pub fn gradients<M: Module, B: Send, K: Send>(
        &self,
        model: &M,
        batches: Vec<B>,
        pass: impl Fn(&M, B) -> (Tensor<1>, K) + Sync,
    ) -> (GradientsParams, Vec<K>) {
        assert!(!batches.is_empty(), "a step needs a batch");
        let count = batches.len();
        if self.0.len() == 1 {
            return share(model, batches, count, &pass);
        }
        let mut shares: Vec<Vec<B>> = self.0.iter().map(|_| Vec::new()).collect();
        for (number, batch) in batches.into_iter().enumerate() {
            shares[number % self.0.len()].push(batch);
        }
        let results: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = shares
                .into_iter()
                .zip(&self.0)
                .filter(|(share, _)| !share.is_empty())
                .map(|(batches, device)| {
                    let copy = model.clone();
                    let copy = if *device == self.0[0] { copy } else { copy.fork(device) };
                    let pass = &pass;
                    scope.spawn(move || share(&copy, batches, count, pass))
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("a device's pass")).collect()
        });
        let (mut accumulator, mut kept) = (GradientsAccumulator::new(), Vec::new());
        for (number, (gradients, values)) in results.into_iter().enumerate() {
            let gradients =
                if number == 0 { gradients } else { gradients.to_device(&self.0[0].clone().inner(), model) };
            accumulator.accumulate(model, gradients);
            kept.push(values.into_iter());
        }
        let devices = kept.len();
        let kept = (0..count).map(|number| kept[number % devices].next().expect("a value a batch")).collect();
        (accumulator.grads(), kept)
    }
}

/// Sums the gradients of some of a step's `count` batches, each divided by `count`.
fn share<M: Module, B, K>(
    model: &M,
    batches: Vec<B>,
    count: usize,
    pass: &impl Fn(&M, B) -> (Tensor<1>, K),
) -> (GradientsParams, Vec<K>) {
    let mut accumulator = GradientsAccumulator::new();
    let kept = batches.into_iter().map(|batch| {
        let (loss, kept) = pass(model, batch);
        let loss = if count > 1 { loss / count as f64 } else { loss };
        accumulator.accumulate(model, GradientsParams::from_grads(loss.backward(), model));
        kept
    });
    let kept = kept.collect();
    (accumulator.grads(), kept)
}
