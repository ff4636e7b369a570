//! Prefixes of keys: training writes the names of wrappers in front of the model's own keys.

use std::collections::BTreeSet;

use super::names::BACKBONES;

/// Names that wrappers put between a module and its fields, at any position in a key: data parallelism and DeepSpeed,
/// compilation, sharding, activation checkpointing, Lightning's strategies.
const WRAPPERS: [&str; 5] =
    ["module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"];

/// The end of the key of the token embeddings. In front of it are the backbone's name and the names of wrappers.
const WORDS: &str = "embeddings.word_embeddings.weight";

/// Removes from every key what does not belong to the model: the names of wrappers, and all names in front of the whole
/// model, such as `model.` of a training class or `state_dict.` of a nested file.
///
/// # Errors
/// The file has several models, and all of them have such names in front.
pub(super) fn unwrap(keys: &mut [&mut String]) -> Result<(), String> {
    for key in keys.iter_mut() {
        if key.split('.').any(|name| WRAPPERS.contains(&name)) {
            let own: Vec<_> = key.split('.').filter(|name| !WRAPPERS.contains(name)).collect();
            **key = own.join(".");
        }
    }
    let models: BTreeSet<String> = keys.iter().filter_map(|key| in_front_of_model(key)).map(str::to_owned).collect();
    let mut models = models.into_iter();
    // The empty name comes first.
    match (models.next(), models.next()) {
        (Some(prefix), None) if !prefix.is_empty() => {
            for key in keys.iter_mut().filter(|key| key.starts_with(&prefix)) {
                key.drain(..prefix.len());
            }
        }
        (Some(first), Some(second)) if !first.is_empty() => {
            return Err(format!(
                "it holds several models, `{first}…` and `{second}…` among them; save the one that is meant by itself"
            ));
        }
        _ => {}
    }
    Ok(())
}

/// The part in front of the model, if this is the key of its token embeddings.
fn in_front_of_model(key: &str) -> Option<&str> {
    let names = key.strip_suffix(WORDS)?;
    let prefix = BACKBONES.into_iter().find_map(|backbone| names.strip_suffix(backbone)).unwrap_or(names);
    (prefix.is_empty() || prefix.ends_with('.')).then_some(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unwrapped(keys: &[&str]) -> Result<Vec<String>, String> {
        let mut keys: Vec<String> = keys.iter().map(|&key| key.to_owned()).collect();
        unwrap(&mut keys.iter_mut().collect::<Vec<_>>())?;
        Ok(keys)
    }

    #[test]
    fn what_is_in_front_of_the_model_goes() {
        let head = ["deberta.embeddings.word_embeddings.weight", "deberta.encoder.layer.0.output.dense.bias", "pooler"];
        for prefix in
            ["", "module.", "_orig_mod.", "model.", "module._orig_mod.", "state_dict.model.", "net.a.module.b."]
        {
            let keys = head.map(|key| format!("{prefix}{key}"));
            assert_eq!(unwrapped(&keys.each_ref().map(String::as_str)).unwrap(), head, "{prefix}");
        }
        let bare = ["embeddings.word_embeddings.weight", "encoder.layer.0.output.dense.bias", "classifier.weight"];
        assert_eq!(unwrapped(&bare).unwrap(), bare);
        // A training class with the encoder in one field and its own head beside it.
        for encoder in ["encoder.", "bert.", "model.backbone."] {
            let keys = [format!("{encoder}{}", bare[0]), format!("{encoder}{}", bare[1]), bare[2].to_owned()];
            assert_eq!(unwrapped(&keys.each_ref().map(String::as_str)).unwrap(), bare, "{encoder}");
        }
        let within = ["roberta._orig_mod.embeddings.word_embeddings.weight", "roberta.encoder._orig_mod.layer.0.x"];
        assert_eq!(
            unwrapped(&within).unwrap(),
            ["roberta.embeddings.word_embeddings.weight", "roberta.encoder.layer.0.x"]
        );
    }

    #[test]
    fn one_of_several_models_must_be_told() {
        let token_embeddings = |model: &str| format!("{model}.deberta.embeddings.word_embeddings.weight");
        let (generator, discriminator) = (token_embeddings("generator"), token_embeddings("discriminator"));
        let problem = unwrapped(&[&generator, &discriminator]).unwrap_err();
        assert!(problem.contains("`discriminator.…` and `generator.…`"), "{problem}");
        let own = "deberta.embeddings.word_embeddings.weight";
        assert_eq!(unwrapped(&[own, &generator]).unwrap(), [own, &generator]);
    }
}
