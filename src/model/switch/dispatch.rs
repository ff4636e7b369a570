//! Which expert takes which token.

use crate::config::SwitchConfig;

/// The tokens of one pass through a router, sorted by expert.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Dispatch {
    /// The rows that each expert takes, in order of position.
    experts: Vec<Vec<usize>>,
    /// The rows that share a capacity: those of the batch, or those of a sequence. None is empty.
    pub groups: Vec<Vec<usize>>,
    /// For each group, how many of its tokens chose each expert, with those that found no place.
    pub chosen: Vec<Vec<usize>>,
}

impl Dispatch {
    /// Sends each token to its likeliest expert, the first if there are several, as long as there is room.
    ///
    /// # Shapes
    /// - probabilities: [rows, experts]
    pub fn new(probabilities: &[f32], sequences: Vec<Vec<usize>>, config: &SwitchConfig, is_training: bool) -> Self {
        let count = config.num_experts;
        let mut groups = if config.expert_capacity.is_some() { sequences } else { vec![sequences.concat()] };
        groups.retain(|rows| !rows.is_empty());
        let (mut experts, mut chosen) = (vec![Vec::new(); count], Vec::new());
        for rows in &groups {
            let capacity = capacity(config, rows.len(), is_training);
            let mut counts = vec![0; count];
            for row in rows {
                let expert = likeliest(&probabilities[row * count..][..count]);
                if counts[expert] < capacity {
                    experts[expert].push(*row);
                }
                counts[expert] += 1;
            }
            chosen.push(counts);
        }
        Self { experts, groups, chosen }
    }

    /// The experts that take any rows, and these.
    pub fn experts(&self) -> impl Iterator<Item = (usize, &[usize])> {
        self.experts.iter().map(Vec::as_slice).enumerate().filter(|(_, rows)| !rows.is_empty())
    }

    /// The rows that experts take, expert by expert.
    pub fn taken(&self) -> Vec<usize> {
        self.experts.concat()
    }

    /// The number of tokens, with those that found no place.
    pub fn tokens(&self) -> usize {
        self.groups.iter().map(Vec::len).sum()
    }
}

/// How many tokens of a group an expert may take.
fn capacity(config: &SwitchConfig, tokens: usize, is_training: bool) -> usize {
    let factor = if is_training { Some(config.capacity_factor) } else { config.eval_capacity_factor };
    match (config.expert_capacity, factor) {
        (Some(capacity), _) => capacity,
        (None, Some(factor)) => (factor * tokens as f64 / config.num_experts as f64).ceil() as usize,
        (None, None) => usize::MAX,
    }
}

/// The place of the largest number, the first if there are several.
fn likeliest(probabilities: &[f32]) -> usize {
    let larger = |best, place| if probabilities[place] > probabilities[best] { place } else { best };
    (0..probabilities.len()).fold(0, larger)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Six tokens in two sequences, with padding in row 3; all but one choose expert 1.
    fn dispatch(config: SwitchConfig, is_training: bool) -> Dispatch {
        let config = SwitchConfig { num_experts: 2, ..config };
        let probabilities = [0.1, 0.9, 0.2, 0.8, 0.5, 0.5, 0.0, 1.0, 0.3, 0.7, 0.4, 0.6, 0.1, 0.9];
        Dispatch::new(&probabilities, vec![vec![0, 1, 2], vec![], vec![4, 5, 6]], &config, is_training)
    }

    #[test]
    fn capacity_is_that_of_the_batch_in_order_of_position() {
        let config = SwitchConfig { capacity_factor: 1.0, ..SwitchConfig::default() };
        let found = dispatch(config.clone(), true);
        // The tie of row 2 goes to the first expert; six tokens give each expert three places.
        assert_eq!(found.experts, [vec![2], vec![0, 1, 4]]);
        assert_eq!((found.tokens(), &found.chosen[..]), (6, &[vec![1, 5]][..]));
        assert_eq!(dispatch(config.clone(), false).experts, [vec![2], vec![0, 1, 4, 5, 6]]);
        let config = SwitchConfig { eval_capacity_factor: Some(0.5), ..config };
        assert_eq!(dispatch(config, false).experts, [vec![2], vec![0, 1]]);
    }

    #[test]
    fn capacity_is_that_of_a_sequence_as_in_transformers() {
        let config = SwitchConfig { expert_capacity: Some(1), ..SwitchConfig::default() };
        for is_training in [true, false] {
            let found = dispatch(config.clone(), is_training);
            assert_eq!(found.experts, [vec![2], vec![0, 4]]);
            assert_eq!(found.chosen, [vec![1, 2], vec![0, 3]]);
        }
    }
}
