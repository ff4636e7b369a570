//! What routers leave for training: their losses, and figures of how they share out tokens.

use std::sync::{Arc, Mutex, PoisonError};

use burn::{
    Tensor,
    tensor::{TensorData, activation::log_softmax},
};

use super::dispatch::Dispatch;
use crate::config::SwitchConfig;

/// What the Switch layers of one forward pass leave behind; see
/// [`ModelInput::record_routing`](crate::ModelInput::record_routing).
#[derive(Clone, Debug, Default)]
pub struct RoutingRecord(Arc<Mutex<Vec<LayerRouting>>>);

/// What one run of a layer leaves.
#[derive(Clone, Debug)]
struct LayerRouting {
    loss: Tensor<1>,
    figures: RoutingFigures,
    experts: Vec<Option<usize>>,
}

/// How routers share out the tokens of a pass, averaged over the Switch layers. The enhanced mask decoder runs the last layer
/// twice, and each run counts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RoutingFigures {
    /// The share of tokens that chose the least chosen expert.
    pub least: f64,
    /// The share of tokens that chose the most chosen expert.
    pub most: f64,
    /// The share of tokens that found no place.
    pub overflow: f64,
    /// The mean entropy of a token's probabilities, in nats: at most the logarithm of the number of experts.
    pub entropy: f64,
    /// The balance loss without its weight: 1 if all experts are chosen alike.
    pub balance: f64,
}

impl RoutingFigures {
    /// Name and value of each figure, as training reports them.
    pub fn named(&self) -> [(&'static str, f64); 5] {
        [
            ("router_least", self.least),
            ("router_most", self.most),
            ("router_overflow", self.overflow),
            ("router_entropy", self.entropy),
            ("router_balance", self.balance),
        ]
    }

    /// The mean of some; none if there are none.
    pub fn mean(figures: &[Self]) -> Option<Self> {
        let mean = |figure: fn(&Self) -> f64| figures.iter().map(figure).sum::<f64>() / figures.len() as f64;
        (!figures.is_empty()).then(|| Self {
            least: mean(|figures| figures.least),
            most: mean(|figures| figures.most),
            overflow: mean(|figures| figures.overflow),
            entropy: mean(|figures| figures.entropy),
            balance: mean(|figures| figures.balance),
        })
    }
}

impl RoutingRecord {
    /// The mean over the layers of `aux_coef balance + z_coef z`, \[1\], to be added to the loss; none if the model has no
    /// Switch layer. For each layer, with E experts,
    ///
    /// ```text
    /// balance = E sum over experts of (share of the tokens that chose it) (mean of its probability)
    /// z       = mean over tokens of ln( sum of exp(logits) )^2
    /// ```
    ///
    /// (the paper's equations 4 to 6; Zoph and others 2022, equation 5). Tokens without a place count, padding does not. If
    /// capacity counts per sequence, so does the balance, and its mean over sequences is taken, as in transformers.
    pub fn loss(&self) -> Option<Tensor<1>> {
        let losses: Vec<_> = self.layers().into_iter().map(|layer| layer.loss).collect();
        (!losses.is_empty()).then(|| Tensor::cat(losses, 0).mean())
    }

    /// The loss of a batch with that of the routers added to it, \[1\].
    pub fn add_to(&self, loss: Tensor<1>) -> Tensor<1> {
        match self.loss() {
            Some(routers) => loss + routers,
            None => loss,
        }
    }

    /// The figures; none if the model has no Switch layer.
    pub fn figures(&self) -> Option<RoutingFigures> {
        let figures: Vec<_> = self.layers().into_iter().map(|layer| layer.figures).collect();
        RoutingFigures::mean(&figures)
    }

    /// For each run of a Switch layer, the expert that each token passes; none if it found no place. Tokens are in the order of
    /// the texts of a batch, without padding.
    pub fn experts(&self) -> Vec<Vec<Option<usize>>> {
        self.layers().into_iter().map(|layer| layer.experts).collect()
    }

    fn layers(&self) -> Vec<LayerRouting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps what one run of a router gave; `on_host` are its probabilities.
    ///
    /// # Shapes
    /// - logits, probabilities, on_host: [rows, experts]
    pub(super) fn keep(
        &self,
        config: &SwitchConfig,
        logits: Tensor<2>,
        probabilities: Tensor<2>,
        on_host: &[f32],
        dispatch: &Dispatch,
    ) {
        let tokens = dispatch.tokens();
        if tokens == 0 {
            return;
        }
        let (shape, device) = (logits.dims(), logits.device());
        let weights = balance_weights(dispatch, shape);
        let balance = on_host.iter().zip(&weights).map(|(value, weight)| f64::from(value * weight)).sum();
        let weights = Tensor::from_data(TensorData::new(weights, shape), &device);
        let mut loss = (probabilities * weights).sum() * config.router_aux_loss_coef;
        if config.router_z_loss_coef > 0.0 {
            // Each logit is as far above its logarithmic probability as the logarithm of the sum.
            let excess = (logits.clone() - log_softmax(logits, 1)).narrow(1, 0, 1);
            let rows = dispatch.groups.concat();
            let mut counted = vec![0f32; shape[0]];
            rows.into_iter().for_each(|row| counted[row] = 1.0 / tokens as f32);
            let counted = Tensor::<2>::from_data(TensorData::new(counted, [shape[0], 1]), &device);
            loss = loss + (excess.square() * counted).sum() * config.router_z_loss_coef;
        }
        let chosen = |expert: usize| dispatch.chosen.iter().map(|counts| counts[expert]).sum::<usize>();
        let chosen: Vec<usize> = (0..shape[1]).map(chosen).collect();
        let share = |count: usize| count as f64 / tokens as f64;
        let entropy = |row: &usize| -> f64 {
            let probabilities = on_host[row * shape[1]..][..shape[1]].iter().filter(|value| **value > 0.0);
            -probabilities.map(|value| f64::from(*value) * f64::from(*value).ln()).sum::<f64>()
        };
        let figures = RoutingFigures {
            least: share(chosen.iter().copied().min().unwrap_or(0)),
            most: share(chosen.iter().copied().max().unwrap_or(0)),
            overflow: share(tokens - dispatch.taken().len()),
            entropy: dispatch.groups.iter().flatten().map(entropy).sum::<f64>() / tokens as f64,
            balance,
        };
        let mut expert_of = vec![None; shape[0]];
        dispatch.experts().for_each(|(expert, rows)| rows.iter().for_each(|row| expert_of[*row] = Some(expert)));
        let experts = dispatch.groups.iter().flatten().map(|row| expert_of[*row]).collect();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(LayerRouting { loss, figures, experts });
    }
}

/// The factors that make the balance of the probabilities, [rows, experts]: the shares of tokens have no gradient.
fn balance_weights(dispatch: &Dispatch, [rows, experts]: [usize; 2]) -> Vec<f32> {
    let mut weights = vec![0.0; rows * experts];
    for (group, chosen) in dispatch.groups.iter().zip(&dispatch.chosen) {
        let (tokens, groups) = (group.len() as f64, dispatch.groups.len() as f64);
        for row in group {
            for (weight, chosen) in weights[row * experts..][..experts].iter_mut().zip(chosen) {
                *weight = (experts as f64 * *chosen as f64 / (tokens * tokens * groups)) as f32;
            }
        }
    }
    weights
}
