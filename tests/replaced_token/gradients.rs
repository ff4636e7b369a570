//! Draws, labels, losses and gradients of one step.

use burn::{module::Module, tensor::Tensor};
use deberta_burn::{
    model::dropout::keyed,
    training::replaced_token::{Corrupted, ReplacedTokenPretraining, Sharing, generator_config, sample},
};

use crate::{
    CASES, Case, SHARINGS, WEIGHT,
    common::{IntoGradients, cpu_devices, gradient_tolerance, largest},
    parameters,
};

fn assert_close(context: &str, found: &[f32], expected: &[f32], largest_of_model: f32) {
    let difference = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    let allowed = gradient_tolerance(expected, largest_of_model);
    assert!(difference <= allowed, "{context} is off by {difference:e}, allowed {allowed:e}");
}

#[test]
fn losses_labels_and_gradients_equal_the_original() {
    for name in CASES {
        for (backend, device) in cpu_devices() {
            let case = Case::new(name, &device.autodiff());
            for sharing in SHARINGS {
                check(&format!("{name}, {backend}, {sharing:?}"), &case, sharing);
            }
        }
    }
}

fn check(context: &str, case: &Case, sharing: Sharing) {
    let model = case.model(sharing);
    let (masked, labels) = case.batch();
    let logits = model.generator_logits(masked.clone(), &labels);
    let drawn = sample(logits.clone(), Some(case.uniforms()));
    assert_eq!(
        drawn.clone().into_data().convert::<i32>().try_to_vec::<i32>().unwrap(),
        case.values("drawn"),
        "{context}"
    );

    let text = Corrupted::new(&masked, &labels, drawn);
    let (original, read_by) = (case.values("input_ids"), text.input.input_ids.clone().into_data().convert::<i32>());
    let expected: Vec<bool> =
        original.iter().zip(read_by.try_to_vec::<i32>().unwrap()).map(|(original, now)| *original != now).collect();
    assert_eq!(text.replaced.clone().into_data().try_to_vec::<bool>().unwrap(), expected, "{context}");
    assert!(expected.contains(&true));

    let generator_loss = model.generator_loss(logits, labels);
    let discriminator_loss = model.discriminator_loss(model.discriminator_logits(text.input.clone()), text);
    let shared = sharing == Sharing::Shared;
    let key = if shared { "shared.discriminator_loss" } else { "discriminator_loss" };
    for (key, found) in [("generator_loss", &generator_loss), (key, &discriminator_loss)] {
        let (found, expected) = (found.clone().into_scalar::<f32>(), case.data[key].1[0]);
        assert!((found - expected).abs() <= 1e-4 * expected, "{context}: {key} {found} instead of {expected}");
    }

    let generator_config = generator_config(&case.config).unwrap();
    let halves = |model: ReplacedTokenPretraining| {
        (parameters(model.generator(), &generator_config), parameters(model.discriminator(), &case.config))
    };
    let (of_generator, none) = halves(model.clone().map(&mut IntoGradients(&generator_loss.backward())));
    let (into_generator, of_discriminator) =
        halves(model.map(&mut IntoGradients(&(discriminator_loss * WEIGHT).backward())));
    assert!(none.values().all(|(_, values)| values.iter().all(|value| *value == 0.0)), "{context}");

    let most =
        largest(case.data.iter().filter(|(key, _)| key.starts_with("grad.")).flat_map(|(_, (_, values))| values));
    let (mut moved, prefix) = (0, if shared { "grad.shared.discriminator." } else { "grad.discriminator." });
    for (key, (_, expected)) in &case.data {
        if let Some(name) = key.strip_prefix("grad.generator.") {
            assert_close(&format!("{context}: {key}"), &of_generator[name].1, expected, most);
            let sum: Vec<f32> = of_generator[name].1.iter().zip(&into_generator[name].1).map(|(a, b)| a + b).collect();
            match case.data.get(&format!("grad.shared.generator.{name}")).filter(|_| shared) {
                Some((_, both)) => {
                    assert_close(&format!("{context}: {key} of both losses"), &sum, both, most);
                    moved += 1;
                }
                // Exactly: nothing of the discriminator's loss comes here.
                None => assert!(into_generator[name].1.iter().all(|value| *value == 0.0), "{context}: {name}"),
            }
        } else if let Some(name) = key.strip_prefix(prefix) {
            assert_close(&format!("{context}: {key}"), &of_discriminator[name].1, expected, most);
            moved += 1;
        }
    }
    assert!(moved > 25, "{context}: only {moved} gradients");
}

#[test]
fn words_are_drawn_as_often_as_they_are_likely() {
    let (_, device) = &cpu_devices()[0];
    let logits = Tensor::<2>::from_data([[0.0, 1.0, 2.0, -1.0]], device);
    let likely = burn::tensor::activation::softmax(logits.clone(), 1).into_data().try_to_vec::<f32>().unwrap();
    let drawn = keyed(1, || sample(logits.repeat_dim(0, 20_000), None))
        .into_data()
        .convert::<i32>()
        .try_to_vec::<i32>()
        .unwrap();
    for (word, likely) in likely.into_iter().enumerate() {
        let share = drawn.iter().filter(|drawn| **drawn == word as i32).count() as f32 / 20_000.0;
        // Five standard deviations.
        let bound = 5.0 * (likely * (1.0 - likely) / 20_000.0).sqrt();
        assert!((share - likely).abs() < bound, "word {word}: {share} instead of {likely}");
    }
}
