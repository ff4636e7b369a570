//! Spelling noise, to measure how robust a model is.

use super::Random;
use crate::{Error, Result};

/// Swaps neighbouring letters of words, as in hasty typing: from left to right, two letters side by side are swapped
/// with probability `rate`, and letters that were swapped are not moved again.
///
/// Other characters stay in place, so words keep their letters. Give each text its own generator, such as
/// `Random::new(&[seed, index])`, so that not all are swapped at the same positions.
///
/// # Errors
/// A rate that is no probability.
pub fn swap_characters(text: &str, rate: f64, random: &mut Random) -> Result<String> {
    if !(0.0..=1.0).contains(&rate) {
        return Err(Error::value("rate of swapped letters", rate, "0 to 1"));
    }
    let mut characters: Vec<char> = text.chars().collect();
    let mut index = 1;
    while index < characters.len() {
        let letters = characters[index - 1].is_alphabetic() && characters[index].is_alphabetic();
        if letters && random.uniform() < rate {
            characters.swap(index - 1, index);
            index += 1;
        }
        index += 1;
    }
    Ok(characters.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn swapped(text: &str, rate: f64, seed: u64) -> String {
        swap_characters(text, rate, &mut Random::new(&[seed])).unwrap()
    }

    #[test]
    fn the_extreme_rates() {
        let text = "It's a fine, größere film-x 42";
        assert_eq!(swapped(text, 0.0, 1), text);
        assert_eq!(swapped(text, 1.0, 1), "tI's a ifen, rgßöree ifml-x 42");
    }

    #[test]
    fn the_rate_is_a_probability() {
        // Alternating, so that every swap shows and is two differences.
        let text = "ab".repeat(5000);
        let swaps = text.chars().zip(swapped(&text, 0.1, 2).chars()).filter(|(a, b)| a != b).count() / 2;
        // A swap skips a pair: 0.1 / 1.1 of 9,999 places are 909, with a standard deviation below 30; five of them.
        assert!(swaps.abs_diff(909) < 150, "{swaps}");
    }

    #[test]
    fn a_rate_beyond_probability_is_an_error() {
        for rate in [-0.1, 1.1, f64::NAN] {
            let error = swap_characters("a", rate, &mut Random::new(&[])).unwrap_err().to_string();
            assert!(error.ends_with("expected 0 to 1"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn letters_stay_in_their_words(text in "[a-zé]{0,6}([ ,'0-9][a-zé]{0,6}){0,5}", seed in any::<u64>()) {
            let noisy = swapped(&text, 0.5, seed);
            prop_assert_eq!(&noisy, &swapped(&text, 0.5, seed));
            let sorted = |word: &str| {
                let mut letters: Vec<char> = word.chars().collect();
                letters.sort_unstable();
                letters
            };
            let words = |text: &str| -> Vec<Vec<char>> {
                text.split(|character: char| !character.is_alphabetic()).map(sorted).collect()
            };
            prop_assert_eq!(words(&noisy), words(&text));
        }
    }
}
