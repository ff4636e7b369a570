//! How much attention goes to the neighbours of a token, by which one sees when a model begins to use the words around a mask.

use burn::{
    Tensor,
    tensor::{DType, Device, s},
};
use deberta_burn::{
    Result,
    data::Part,
    heads::MaskedLm,
    model::ModelInput,
    training::{
        Task, TaskBatch, TaskModel,
        metrics::{Metrics, Score},
        tasks::MaskedLmTask,
    },
};

/// The column of `metrics.csv` with [`NeighbourAttention::mean`].
pub const MEAN: &str = "neighbour_attention";
/// The column with [`NeighbourAttention::best`].
pub const BEST: &str = "best_neighbour_attention";

/// Masked language modelling whose evaluations also say how much attention goes to neighbours.
pub struct Watched(pub MaskedLmTask);

impl Task for Watched {
    type Learner = <MaskedLmTask as Task>::Learner;

    fn lengths(&self) -> Vec<usize> {
        self.0.lengths()
    }

    fn batch(&self, examples: &[usize], epoch: usize, device: &Device) -> Result<TaskBatch<Self>> {
        self.0.batch(examples, epoch, device)
    }

    /// The figures of the task, and those of [`NeighbourAttention`] on its first batch.
    fn evaluate(&self, model: &TaskModel<Self>, part: Part, device: &Device) -> Result<Option<Metrics>> {
        let Some(mut metrics) = self.0.evaluate(model, part, device)? else { return Ok(None) };
        if let Some((input, _)) = self.0.evaluation(part, device).and_then(|mut batches| batches.next()).transpose()? {
            let attention = NeighbourAttention::of(model, input);
            metrics = metrics.with(Score::highest(MEAN, attention.mean)).with(Score::highest(BEST, attention.best));
        }
        Ok(Some(metrics))
    }
}

/// The mean probability with which a token attends to the one before it, and to the one behind it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NeighbourAttention {
    /// The mean over both neighbours and all heads of all layers.
    pub mean: f64,
    /// The highest of one head for one neighbour.
    pub best: f64,
}

impl NeighbourAttention {
    /// That of a model's encoder on some texts of more than one token.
    pub fn of(model: &MaskedLm, input: ModelInput) -> Self {
        let layers = model.backbone().forward(input.with_attentions()).attentions.unwrap_or_default();
        let figures: Vec<f64> = layers.into_iter().flat_map(to_neighbours).map(f64::from).collect();
        Self { mean: figures.iter().sum::<f64>() / figures.len() as f64, best: figures.into_iter().fold(0.0, f64::max) }
    }
}

/// The mean weight that each head gives to the token before, then that to the token behind, over all tokens that have one.
///
/// # Shapes
/// - weights: [batch, heads, query, key]; a query's sum to 1, those of padding are 0
fn to_neighbours(weights: Tensor<4>) -> Vec<f32> {
    // In mixed precision they are in the lower one.
    let weights = weights.cast(DType::F32);
    let [_, heads, length, _] = weights.dims();
    let behind_another = weights.clone().slice(s![.., .., 1.., ..]);
    let before = behind_another.clone().slice(s![.., .., .., ..length as i64 - 1]);
    let behind = weights.slice(s![.., .., ..length as i64 - 1, 1..]);
    let is_neighbour = Tensor::<2>::eye(length - 1, &before.device()).unsqueeze::<4>();
    let by_head = |weights: Tensor<4>| weights.swap_dims(0, 1).reshape([heads as i32, -1]).sum_dim(1);
    // Every token but the first has one before it, and is itself behind one: as many pairs as these tokens, whose weights sum to 1.
    let pairs = by_head(behind_another);
    let sums = [before, behind].map(|weights| by_head(weights * is_neighbour.clone()) / pairs.clone());
    Tensor::cat(sums.into(), 0).into_data().iter::<f32>().collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;

    #[test]
    fn weights_of_neighbours_are_averaged_over_pairs() {
        // One head. A text of three tokens, and one of two with padding behind it.
        let weights = [
            [[0.5, 0.25, 0.25], [0.75, 0.25, 0.0], [0.0, 0.5, 0.5]],
            [[0.0, 1.0, 0.0], [0.25, 0.75, 0.0], [0.0, 0.0, 0.0]],
        ];
        let weights = Tensor::<3>::from_data(TensorData::from(weights), &Device::flex()).unsqueeze_dim(1);
        // Three pairs: 0.75, 0.5 and 0.25 to the token before; 0.25, 0 and 1 to the one behind. All are sums of powers of two.
        let [before, behind] = [1.5_f32 / 3.0, 1.25 / 3.0];
        assert_eq!(to_neighbours(weights.clone()), [before, behind]);
        assert_eq!(to_neighbours(weights.clone().cast(DType::BF16)), [before, behind]);
        // Heads are told apart.
        let uniform = weights.ones_like() / 3.0;
        let both = to_neighbours(Tensor::cat(vec![weights, uniform], 1));
        assert_eq!((both[0], both[2], both.len()), (before, behind, 4));
    }
}
