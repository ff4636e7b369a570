//! The gradients of a step, on one device or data-parallel on several: each then has a copy of the model and takes its share of
//! the step's batches, and the gradients are summed on the first, as accumulation on one device sums them.

use std::thread;

use burn::{
    Tensor,
    module::Module,
    optim::{GradientsAccumulator, GradientsParams},
    tensor::Device,
};

use crate::{data::Random, kernels::draws};

/// Where a model trains, devices with gradients; the model is on the first.
#[derive(Clone, Debug)]
pub(super) struct Devices(Vec<Device>);

/// One pass over some batches.
struct Pass<'a, F> {
    /// Of the pass's draws; each batch has its own, whichever device it is on.
    seed: u64,
    /// Batches of the step.
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

    /// Calls `run` on each batch, which is on its [device](Self::of); it returns the batch's loss, \[1\], and anything to keep.
    /// What it draws follows from the seed and the number of the batch. Returns the gradients of the mean loss, and what was
    /// kept in the order of the batches.
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
                    // Also where a device is there twice: a fork has leaves of its own. Threads that share leaves share a
                    // graph, and burn-autodiff locks graph and table of graphs in either order: they would wait for each other.
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
    /// Sums the gradients of some of the step's batches, numbered, each divided by their count.
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
