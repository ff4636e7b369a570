//! Scale-invariant fine-tuning (paper section 5, `sift/sift.py` in the reference): the model is trained to give the
//! same answers when its normalised word embeddings are moved a little in the worst direction.
//!
//! x is the sum of the embeddings, and f is the rest of the model:
//!
//! ```text
//! n     = (x - mean(x)) / sqrt(var(x) + 1e-7)           in front of the embeddings' own LayerNorm
//! delta = clamp(N(0, noise^2), +-2 noise)               a number for each dimension of each token
//! g     = d/d delta  sum D( f(sg(n) + delta), sg(f(n)) )
//! delta = delta + step_size g / (1e-6 + max |g|)        the maximum of each token; left alone if g is not finite
//! loss  = task loss( f(n) )  +  lambda mean D( f(sg(n) + delta), f(n) )  +  loss of the routers in f(n), if there are any
//! ```
//!
//! sg stops the gradient. For distributions, D(p, q) is the symmetric cross entropy CE(sg(p), q) + CE(sg(q), p); if p =
//! q it is not zero, but its gradient is. For numbers, D is the mean squared error (the reference takes a softmax over
//! the single output, which is a defect). Everything but the passes through the model is computed in f32. Each pass has
//! its own dropout. The inner pass gives the parameters no gradient, and the perturbed pass gives the token embeddings
//! none. The reference keeps the first normalisation for evaluation; here only training has it. In front of a LayerNorm
//! it only changes how much that norm's epsilon matters.

use std::sync::{Arc, OnceLock};

use burn::{Tensor, tensor::activation::log_softmax};
use serde::{Deserialize, Serialize};

use super::objective::{Compared, Objective};
use crate::{
    kernels::draws::normals,
    model::{
        AttentionMask, RoutingRecord, embeddings::EmbeddingSource, input::ModelInput, precision::in_f32,
        token_layout::Unpadding,
    },
};

/// What the inner pass climbs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SiftLoss {
    /// The symmetric cross entropy.
    #[default]
    SymmetricKl,
    /// The cross entropy with the clean distribution.
    Kl,
    /// The mean squared difference of the logits.
    Mse,
}

/// The numbers of scale-invariant fine-tuning; the defaults are those of the published recipes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sift {
    /// Weight of the adversarial term.
    pub lambda: f64,
    /// Length of the step along the gradient, measured in the largest component of each token.
    pub step_size: f64,
    /// Standard deviation of the noise that the step starts from.
    pub noise: f64,
    /// What the inner pass climbs.
    pub loss: SiftLoss,
}

impl Default for Sift {
    fn default() -> Self {
        Self { lambda: 5.0, step_size: 1e-4, noise: 1e-2, loss: SiftLoss::SymmetricKl }
    }
}

/// What a step of scale-invariant fine-tuning computes.
#[derive(Clone, Debug)]
pub struct SiftLosses {
    /// The task's loss plus that of the routers plus lambda times the adversarial term, \[1\].
    pub total: Tensor<1>,
    /// The task's loss, \[1\].
    pub task: Tensor<1>,
    /// The adversarial term, \[1\].
    pub adversarial: Tensor<1>,
    /// What the routers of the clean pass left; their loss is part of the total.
    pub routing: RoutingRecord,
    /// The perturbation, in the model's layout of tokens: [batch, length, hidden], or packed [1, tokens, hidden].
    pub perturbation: Tensor<3>,
}

impl Sift {
    /// The loss of a batch, on a device with gradients. The perturbation starts from `noise` [batch, length, hidden];
    /// if none, it is drawn. What the inner pass climbs is multiplied by `scale`, and its gradient divided by it, so that a
    /// model that computes in f16 can represent it.
    ///
    /// # Panics
    /// On a device without gradients.
    pub fn losses<M: Objective>(
        &self,
        model: &M,
        input: &ModelInput,
        labels: &M::Labels,
        noise: Option<Tensor<3>>,
        scale: f64,
    ) -> SiftLosses {
        let mask = input.attention_mask.as_ref();
        let pass =
            |model: &M, embedding, routing| model.logits(ModelInput { embedding, routing, ..input.clone() }, labels);
        let compared = |model: &M, logits| model.compared(logits, labels, mask).map(in_f32);

        let normalised = Arc::new(OnceLock::new());
        let routing = RoutingRecord::default();
        let logits = pass(model, EmbeddingSource::Normalised(normalised.clone()), Some(routing.clone()));
        let clean = compared(model, logits.clone());
        let states = normalised.get().expect("the clean pass leaves them").clone().detach();
        let noise = match noise {
            Some(noise) => arrange(noise, mask, &states),
            None => self.fresh_noise(&states),
        };

        // The parameters of this copy get no gradient: the backward pass computes that of the perturbation only.
        let frozen = model.clone().no_grad();
        let delta = noise.detach().require_grad();
        let moved = |delta: Tensor<3>| EmbeddingSource::Given(states.clone() + delta.cast(states.dtype()));
        let perturbed = pass(&frozen, moved(delta.clone()), None);
        let climbed = self.inner(compared(&frozen, perturbed), clean.clone().map(Tensor::detach));
        let gradient = delta.grad(&(climbed * scale).backward()).map(|gradient| gradient / scale);
        drop(frozen);
        let delta = match gradient.map(Tensor::from_inner).filter(is_finite) {
            Some(gradient) => {
                let largest = gradient.clone().abs().max_dim(2);
                delta.detach() + gradient / (largest + 1e-6) * self.step_size
            }
            None => delta.detach(),
        };

        let perturbed = pass(model, moved(delta.clone()), None);
        let adversarial = divergence(compared(model, perturbed), clean).mean();
        let task = model.loss(logits, labels.clone());
        SiftLosses {
            total: routing.add_to(task.clone() + adversarial.clone() * self.lambda),
            task,
            adversarial,
            routing,
            perturbation: delta.inner(),
        }
    }

    fn fresh_noise(&self, states: &Tensor<3>) -> Tensor<3> {
        let noise = normals(states.dims(), &states.device()) * self.noise;
        noise.clamp(-2.0 * self.noise, 2.0 * self.noise)
    }

    /// What the inner pass climbs, \[1\]: for distributions a sum over rows, for numbers a mean.
    fn inner(&self, perturbed: Compared, clean: Compared) -> Tensor<1> {
        match (self.loss, perturbed, clean) {
            (SiftLoss::Kl, Compared::Distributions(perturbed), Compared::Distributions(clean)) => {
                cross_entropy(clean, perturbed).sum()
            }
            (SiftLoss::Mse, Compared::Distributions(perturbed), Compared::Distributions(clean)) => {
                (perturbed - clean).square().mean()
            }
            (_, perturbed, clean) => divergence(perturbed, clean).sum(),
        }
    }
}

impl Compared {
    fn map(self, map: impl Fn(Tensor<2>) -> Tensor<2>) -> Self {
        match self {
            Self::Distributions(logits) => Self::Distributions(map(logits)),
            Self::Numbers(numbers) => Self::Numbers(map(numbers)),
        }
    }
}

/// D of each row, \[rows\]; for numbers the mean over all rows, \[1\].
fn divergence(perturbed: Compared, clean: Compared) -> Tensor<1> {
    match (perturbed, clean) {
        (Compared::Distributions(perturbed), Compared::Distributions(clean)) => {
            cross_entropy(clean.clone(), perturbed.clone()) + cross_entropy(perturbed, clean)
        }
        (Compared::Numbers(perturbed), Compared::Numbers(clean)) => (perturbed - clean).square().mean(),
        _ => unreachable!("one head compares one kind of predictions"),
    }
}

/// CE(sg(target), prediction) of each row, \[rows\]; both are logits.
fn cross_entropy(target: Tensor<2>, prediction: Tensor<2>) -> Tensor<1> {
    -(log_softmax(target.detach(), 1).exp() * log_softmax(prediction, 1)).sum_dim(1).squeeze_dim(1)
}

/// Brings [batch, length, hidden] into the layout of `states`.
fn arrange(noise: Tensor<3>, mask: Option<&AttentionMask>, states: &Tensor<3>) -> Tensor<3> {
    if noise.dims() == states.dims() {
        return noise;
    }
    let unpadding = mask.and_then(Unpadding::new).expect("states are unpadded only where the mask allows it");
    unpadding.unpad(noise)
}

/// Whether the norm of all elements is a finite number.
fn is_finite(gradient: &Tensor<3>) -> bool {
    gradient.clone().square().sum().into_scalar::<f32>().is_finite()
}
