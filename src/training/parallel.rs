//! Data-parallel training. Each device keeps a model and an optimiser of its own and takes a share of every step's batches.
//! The gradients of all are summed, and every device takes the same step on the sum. So all models stay the same, and gradients
//! are all that travels between devices.
//!
//! Each parameter's gradients are summed on one device, and the sum is copied to the others. The parameters, and parts of the
//! large ones, are spread over the devices by their sizes, so that no device carries the traffic of all. burn's own collective
//! operations are not used: in 0.22.1 they are NCCL's, on CUDA devices of one process, and other devices panic on them.

use std::{panic::resume_unwind, thread};

use burn::{
    Tensor,
    module::{Module, ModuleVisitor, Param},
    optim::{GradientsAccumulator, GradientsParams},
    tensor::Device,
};

use crate::{data::Random, device, kernels::draws};

/// What one device has.
#[derive(Debug)]
struct Replica<M, O> {
    device: Device,
    /// None only during a step: the optimiser updates parameters in place if it is their only owner.
    model: Option<M>,
    optimizer: O,
}

impl<M, O> Replica<M, O> {
    fn model(&self) -> &M {
        self.model.as_ref().expect("every step puts it back")
    }
}

/// A model in training and its optimiser, on each of some devices.
#[derive(Debug)]
pub(super) struct Replicas<M, O>(Vec<Replica<M, O>>);

/// One pass over some batches.
struct Pass<'a, F> {
    /// Seed of the random numbers of this pass. Each batch has numbers of its own, whatever its device.
    seed: u64,
    /// Number of batches in the step.
    count: usize,
    run: &'a F,
}

impl<M: Module, O: Clone + Send> Replicas<M, O> {
    /// Copies the model, which is on the first device, to the others. The devices have gradients.
    ///
    /// # Panics
    /// Without a device.
    pub fn new(model: M, optimizer: O, devices: &[Device]) -> Self {
        let (first, others) = devices.split_first().expect("training needs a device");
        // A fork has leaves of its own. That is needed even if two entries are one device: threads that share leaves share a
        // graph, and burn-autodiff takes its locks in different orders, so that such threads could wait for each other for ever.
        let fork = |device: &Device| Replica {
            device: device.clone(),
            model: Some(model.clone().fork(device)),
            optimizer: optimizer.clone(),
        };
        let others: Vec<_> = others.iter().map(fork).collect();
        let first = Replica { device: first.clone(), model: Some(model), optimizer };
        Self([first].into_iter().chain(others).collect())
    }

    /// The model.
    pub fn model(&self) -> &M {
        self.0[0].model()
    }

    /// Its optimiser.
    pub fn optimizer(&self) -> &O {
        &self.0[0].optimizer
    }

    /// The device of a step's batch with this number.
    pub fn device(&self, batch: usize) -> &Device {
        &self.0[batch % self.0.len()].device
    }

    /// Calls `run` on each batch; the batch is on its [device](Self::device). `run` returns the batch's loss, \[1\], and a
    /// value to keep. Its random numbers depend on the seed and the number of the batch alone. Returns the gradients of the
    /// mean loss, once for each device, and the kept values in the order of the batches.
    ///
    /// # Panics
    /// Without any batch.
    pub fn gradients<B: Send, K: Send>(
        &mut self,
        seed: u64,
        batches: Vec<B>,
        run: impl Fn(&M, B) -> (Tensor<1>, K) + Sync,
    ) -> (Vec<GradientsParams>, Vec<K>) {
        assert!(!batches.is_empty(), "a step needs a batch");
        let (count, devices) = (batches.len(), self.0.len());
        let pass = Pass { seed, count, run: &run };
        let mut shares: Vec<Vec<(usize, B)>> = (0..devices).map(|_| Vec::new()).collect();
        for (number, batch) in batches.into_iter().enumerate() {
            shares[number % devices].push((number, batch));
        }
        let found = self.on_each(shares, |replica, share| pass.share(replica.model(), share));
        let (gradients, kept): (Vec<_>, Vec<_>) = found.into_iter().unzip();
        let mut kept: Vec<_> = kept.into_iter().map(Vec::into_iter).collect();
        let kept = (0..count).map(|number| kept[number % devices].next().expect("a value a batch")).collect();
        if devices == 1 {
            return (gradients, kept);
        }
        let devices: Vec<_> = self.0.iter().map(|replica| replica.device.clone().inner()).collect();
        let (sums, moved) = reduce(self.model(), &devices, gradients, SPLIT);
        tracing::debug!(bytes = moved, devices = devices.len(), "gradients summed");
        (sums, kept)
    }

    /// Every device takes the same step, each on its own copy of the gradients. Returns what the first reports.
    pub fn step<G: Send, R: Send>(&mut self, gradients: Vec<G>, step: impl Fn(M, &mut O, G) -> (M, R) + Sync) -> R {
        let mut reports = self.on_each(gradients, |replica, gradients| {
            let model = replica.model.take().expect("every step puts it back");
            let (model, report) = step(model, &mut replica.optimizer, gradients);
            replica.model = Some(model);
            report
        });
        reports.swap_remove(0)
    }

    /// Runs on all devices at the same time, on each with an argument of its own.
    fn on_each<A: Send, R: Send>(
        &mut self,
        arguments: Vec<A>,
        run: impl Fn(&mut Replica<M, O>, A) -> R + Sync,
    ) -> Vec<R> {
        let work = self.0.iter_mut().zip(arguments);
        if work.len() == 1 {
            let here = |(replica, argument): (&mut Replica<M, O>, A)| {
                let device = replica.device.clone();
                device::in_its_threads(&device, || run(replica, argument))
            };
            return work.map(here).collect();
        }
        thread::scope(|scope| {
            let run = &run;
            let threads: Vec<_> = work.map(|(replica, argument)| scope.spawn(move || run(replica, argument))).collect();
            let join =
                |thread: thread::ScopedJoinHandle<'_, R>| thread.join().unwrap_or_else(|panic| resume_unwind(panic));
            threads.into_iter().map(join).collect()
        })
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

/// Gradients of at least so many numbers are summed in parts, one on each device: a table of embeddings is a third of a model.
const SPLIT: usize = 1 << 24;

/// The sum of the gradients that each device found, on each device, and the bytes that were copied between devices. Gradients of
/// `split` numbers or more are summed in parts.
fn reduce<M: Module>(
    model: &M,
    devices: &[Device],
    found: Vec<GradientsParams>,
    split: usize,
) -> (Vec<GradientsParams>, usize) {
    let sums = devices.iter().map(|_| GradientsParams::new()).collect();
    let mut reduction = Reduction { devices, split, found, sums, load: vec![0; devices.len()], moved: 0 };
    model.visit(&mut reduction);
    (reduction.sums, reduction.moved)
}

/// Sums parameter by parameter, in the order of the devices.
struct Reduction<'a> {
    devices: &'a [Device],
    split: usize,
    found: Vec<GradientsParams>,
    sums: Vec<GradientsParams>,
    /// The numbers that each device has summed.
    load: Vec<usize>,
    moved: usize,
}

impl Reduction<'_> {
    /// The sum, on the device that has summed least.
    fn sum<const D: usize>(&mut self, gradients: Vec<Tensor<D>>) -> Option<Tensor<D>> {
        let owner = (0..self.devices.len()).min_by_key(|&device| self.load[device])?;
        let copies: Vec<_> = gradients.into_iter().map(|gradient| self.copy(gradient, owner)).collect();
        let sum = copies.into_iter().reduce(|sum, gradient| sum + gradient)?;
        self.load[owner] += sum.shape().num_elements();
        Some(sum)
    }

    fn copy<const D: usize>(&mut self, tensor: Tensor<D>, device: usize) -> Tensor<D> {
        let device = &self.devices[device];
        if tensor.device() != *device {
            self.moved += tensor.shape().num_elements() * tensor.dtype().size();
        }
        tensor.to_device(device)
    }
}

impl ModuleVisitor for Reduction<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let found: Vec<_> = self.found.iter_mut().filter_map(|gradients| gradients.remove::<D>(param.id)).collect();
        let Some(first) = found.first() else { return };
        let count = if first.shape().num_elements() >= self.split { self.devices.len() } else { 1 };
        let mut parts: Vec<_> = found.into_iter().map(|gradient| gradient.chunk(count, 0).into_iter()).collect();
        let mut sums: Vec<Vec<Tensor<D>>> = self.devices.iter().map(|_| Vec::new()).collect();
        // One part of each gradient after the other, until there is none.
        while let Some(sum) = self.sum(parts.iter_mut().filter_map(Iterator::next).collect()) {
            for (device, sums) in sums.iter_mut().enumerate() {
                sums.push(self.copy(sum.clone(), device));
            }
        }
        for (sums, mut parts) in self.sums.iter_mut().zip(sums) {
            let whole = if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, 0) };
            sums.register(param.id, whole);
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::{
        nn::{Linear, LinearConfig},
        tensor::Device,
    };

    use super::*;

    const WIDTHS: [usize; 4] = [3, 64, 65, 33];
    /// Two of the layers are summed in parts.
    const SPLIT: usize = 64 * 64;

    /// Layers of these widths, and the gradients of a loss in which layer i has the factor i + `shift`.
    fn found(device: &Device, shift: f64) -> (Vec<Linear>, GradientsParams) {
        let device = device.clone().autodiff();
        let layers: Vec<_> =
            WIDTHS.iter().map(|&width| LinearConfig::new(width, width).with_bias(false).init(&device)).collect();
        let losses = layers.iter().enumerate().map(|(i, layer)| layer.weight.val().sum() * (i as f64 + shift));
        let loss = losses.reduce(|sum, loss| sum + loss).expect("layers");
        (layers.clone(), GradientsParams::from_grads(loss.backward(), &layers))
    }

    /// Every device has the sum. Each gradient but the summing device's own went there, and each sum from there to the others;
    /// and with the same gradient in two devices that are one, nothing is copied.
    #[test]
    #[allow(deprecated, reason = "ndarray stands for another device")]
    fn sums_are_on_every_device_and_bytes_are_counted() {
        let (flex, ndarray) = (Device::flex(), Device::ndarray());
        let (layers, first) = found(&flex, 1.0);
        let other = |device: &Device, factor: f32| {
            let mut gradients = GradientsParams::new();
            for layer in &layers {
                gradients.register(layer.weight.id, Tensor::<2>::full(layer.weight.dims(), factor, device));
            }
            gradients
        };
        let devices = [flex.clone(), ndarray.clone()];
        let (mut sums, moved) = reduce(&layers, &devices, vec![first, other(&ndarray, 0.5)], SPLIT);
        let size = WIDTHS.iter().map(|width| width * width).sum::<usize>() * size_of::<f32>();
        assert_eq!(moved, 2 * size);
        for (sums, device) in sums.iter_mut().zip(&devices) {
            for (i, layer) in layers.iter().enumerate() {
                let sum = sums.remove::<2>(layer.weight.id).expect("a sum");
                assert_eq!(sum.device(), *device);
                let values = sum.into_data().try_to_vec::<f32>().expect("f32");
                assert!(values.iter().all(|value| *value == i as f32 + 1.5), "{i}: {}", values[0]);
            }
        }
        let same = [flex.clone(), flex.clone()];
        assert_eq!(reduce(&layers, &same, vec![other(&flex, 1.0), other(&flex, 2.0)], SPLIT).1, 0);
        // Frozen parameters have no gradient, and are not copied.
        let frozen = vec![GradientsParams::new(), GradientsParams::new()];
        assert_eq!(reduce(&layers, &devices, frozen, SPLIT).1, 0);
    }
}
