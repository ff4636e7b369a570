//! The gradients of a step, on one device or data-parallel on several. With several, each device has a copy of the
//! model and takes a share of the step's batches. The gradients are summed on the first device, in the same way as
//! accumulation on one device.

use std::thread;

use burn::{
    Tensor,
    module::Module,
    optim::{GradientsAccumulator, GradientsParams},
    tensor::Device,
};

use crate::{data::Random, kernels::draws};

/// The devices that a model is trained on. They have gradients, and the model is on the first.
#[derive(Clone, Debug)]
pub(super) struct Devices(Vec<Device>);

/// One pass over some batches.
struct Pass<'a, F> {
    /// Seed of the random numbers of this pass. Each batch has numbers of its own, whatever its device.
    seed: u64,
    /// Number of batches in the step.
    count: usize,
    run: &'a F,
}

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

    /// Calls `run` on each batch; the batch is on its [device](Self::of). `run` returns the batch's loss, \[1\], and a
    /// value to keep. Its random numbers depend on the seed and the number of the batch alone. Returns the gradients of
    /// the mean loss, and the kept values in the order of the batches.
    ///
    /// # Panics
    /// Without any batch.
    pub fn gradients<M: Module, B: Send, K: Send>(
        &self,
        seed: u64,
        model: &M,
        batches: Vec<B>,
        run: impl Fn(&M, B) -> (Tensor<1>, K) + Sync,
    ) -> (GradientsParams, Vec<K>) {
        assert!(!batches.is_empty(), "a step needs a batch");
        let count = batches.len();
        let pass = Pass { seed, count, run: &run };
        let batches = batches.into_iter().enumerate();
        if self.0.len() == 1 {
            return pass.share(model, batches.collect());
        }
        let mut shares: Vec<Vec<(usize, B)>> = self.0.iter().map(|_| Vec::new()).collect();
        for (number, batch) in batches {
            shares[number % self.0.len()].push((number, batch));
        }
        let results: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = shares
                .into_iter()
                .zip(&self.0)
                .filter(|(share, _)| !share.is_empty())
                .map(|(batches, device)| {
                    // A fork has leaves of its own. That is needed even if two entries are one device: threads that
                    // share leaves share a graph, and burn-autodiff takes its locks in different orders, so that such
                    // threads could wait for each other for ever.
                    let copy = model.clone().fork(device);
                    let pass = &pass;
                    scope.spawn(move || pass.share(&copy, batches))
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

impl<F> Pass<'_, F> {
    /// Sums the gradients of some of the step's batches, each divided by the number of batches in the step.
    fn share<M: Module, B, K>(&self, model: &M, batches: Vec<(usize, B)>) -> (GradientsParams, Vec<K>)
    where
        F: Fn(&M, B) -> (Tensor<1>, K),
    {
        let mut accumulator = GradientsAccumulator::new();
        let kept = batches.into_iter().map(|(number, batch)| {
            let key = Random::new(&[self.seed, number as u64]).next_u64();
            let (loss, kept) = draws::keyed(key, || (self.run)(model, batch));
            let loss = if self.count > 1 { loss / self.count as f64 } else { loss };
            accumulator.accumulate(model, GradientsParams::from_grads(loss.backward(), model));
            kept
        });
        let kept = kept.collect();
        (accumulator.grads(), kept)
    }
}
