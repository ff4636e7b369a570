//! From logits to scores, on the host.

/// exp(x) over the sum of all, in f64 so that large vocabularies add up to 1.
pub(super) fn softmax(logits: &[f32]) -> Vec<f32> {
    let norm = log_sum_exp(logits.iter().copied());
    logits.iter().map(|&logit| (f64::from(logit) - norm).exp() as f32).collect()
}

/// ln of the sum of exp(x); -infinity for none.
pub(super) fn log_sum_exp(logits: impl Iterator<Item = f32> + Clone) -> f64 {
    let largest = logits.clone().fold(f32::NEG_INFINITY, f32::max);
    if largest == f32::NEG_INFINITY {
        return f64::NEG_INFINITY;
    }
    let largest = f64::from(largest);
    largest + logits.map(|logit| (f64::from(logit) - largest).exp()).sum::<f64>().ln()
}

/// 1 / (1 + exp(-x)).
pub(super) fn sigmoid(logit: f32) -> f32 {
    (1.0 / (1.0 + (-f64::from(logit)).exp())) as f32
}

/// Sorts by score, highest first; equal ones keep their order.
pub(super) fn sort_by_score<T>(items: &mut [T], score: impl Fn(&T) -> f32) {
    items.sort_by(|a, b| score(b).total_cmp(&score(a)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_is_a_distribution_even_for_large_logits() {
        let scores = softmax(&[1000.0, 999.0, -1000.0]);
        // 1 / (1 + 1/e), to f32's rounding.
        assert!((scores[0] - 0.731_058_6).abs() < 1e-6 && scores[2] == 0.0, "{scores:?}");
        assert!((scores.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }

    #[test]
    fn sigmoid_is_softmax_against_zero() {
        for logit in [-200.0, -1.5, 0.0, 3.0] {
            assert!((sigmoid(logit) - softmax(&[logit, 0.0])[0]).abs() < 1e-7, "{logit}");
        }
    }

    #[test]
    fn log_sum_exp_of_nothing_is_no_probability() {
        assert_eq!(log_sum_exp([].into_iter()), f64::NEG_INFINITY);
        assert!((log_sum_exp([0.0, 0.0].into_iter()) - 2f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn sorting_puts_the_highest_first_and_survives_nan() {
        let mut items = [1.0, f32::NAN, 3.0];
        sort_by_score(&mut items, |score| *score);
        assert_eq!(items[1..], [3.0, 1.0]);
    }
}
