//! Checks and changes of a `tokenizer.json` before `tokenizers` reads it.

use serde_json::Value;
use tokenizers::models::bpe::Merges;

use super::byte_level;

/// Prevents a post-processor from trimming offsets a second time: [`Tokenizer::encode`] has done it, for every kind of
/// tokenizer.
pub(super) fn keep_offsets(post_processor: &mut Value) {
    if let Some(trim) = post_processor.get_mut("trim_offsets") {
        *trim = false.into();
    }
    let steps = post_processor.get_mut("processors").and_then(Value::as_array_mut);
    steps.into_iter().flatten().for_each(keep_offsets);
}

/// Sets whether the byte-level steps of a pre-tokenizer put a space in front of a text.
pub(super) fn set_prefix_space(pre_tokenizer: &mut Value, prefix_space: bool) {
    if let Some(flag) = pre_tokenizer.get_mut("add_prefix_space") {
        *flag = prefix_space.into();
    }
    let steps = pre_tokenizer.get_mut("pretokenizers").and_then(Value::as_array_mut);
    steps.into_iter().flatten().for_each(|step| set_prefix_space(step, prefix_space));
}

/// Checks what `tokenizers` does not check in the templates of a post-processor: that special tokens are described, and
/// that the template of a single text contains no second text.
pub(super) fn check_templates(post_processor: &Value) -> Result<(), String> {
    for (kind, sequences) in [("single", 1), ("pair", 2)] {
        for piece in post_processor[kind].as_array().into_iter().flatten() {
            if let Some(name) = piece["SpecialToken"]["id"].as_str()
                && post_processor["special_tokens"].get(name).is_none()
            {
                return Err(format!("`post_processor.{kind}` names `{name}`, which its `special_tokens` do not have"));
            }
            if sequences == 1 && piece["Sequence"]["id"] == "B" {
                return Err("`post_processor.single` names sequence `B`, but there is only `A`".into());
            }
        }
    }
    post_processor["processors"].as_array().into_iter().flatten().try_for_each(check_templates)
}

/// Checks what `tokenizers` does not check in the model of a tokenizer.json.
pub(super) fn check_model(model: &Value) -> Result<(), String> {
    let vocabulary = &model["vocab"];
    let empty = vocabulary.as_object().map(|map| map.is_empty()).or(vocabulary.as_array().map(|list| list.is_empty()));
    match empty {
        None => return Err("it has no vocabulary (`model.vocab`)".into()),
        Some(true) => return Err("its vocabulary (`model.vocab`) is empty".into()),
        Some(false) => {}
    }
    let Some(merges) = model["merges"].as_array() else { return Ok(()) };
    let merges: Option<Merges> = merges
        .iter()
        .map(|merge| match merge {
            Value::String(pair) => pair.split_once(' ').map(|(left, right)| (left.to_owned(), right.to_owned())),
            pair => Some((pair[0].as_str()?.to_owned(), pair[1].as_str()?.to_owned())),
        })
        .collect();
    let merges = merges.ok_or("one of its merges (`model.merges`) is not a pair of tokens")?;
    let prefix = model["continuing_subword_prefix"].as_str().unwrap_or_default();
    if let Some((_, right)) = merges.iter().find(|(_, right)| !right.starts_with(prefix)) {
        return Err(format!(
            "one of its merges (`model.merges`) ends with `{right}`, which has no `{prefix}` (`continuing_subword_prefix`) in front"
        ));
    }
    byte_level::check_merges(&merges, |token| vocabulary.get(token).is_some())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn merges_have_the_prefix_of_their_model() {
        let model = |prefix: Value| json!({"vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"], "continuing_subword_prefix": prefix});
        for none in [Value::Null, "".into()] {
            assert_eq!(check_model(&model(none)), Ok(()));
        }
        let error = check_model(&model("##".into())).unwrap_err();
        assert!(error.contains("ends with `b`, which has no `##`"), "{error}");
    }

    #[test]
    fn templates_name_what_is_there() {
        let template = |token: &str, sequence: &str| {
            let single =
                json!([{"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": sequence, "type_id": 0}}]);
            json!({"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": {"[CLS]": {}}})
        };
        assert_eq!(check_templates(&template("[CLS]", "A")), Ok(()));
        let unknown = template("[BOS]", "A");
        assert!(check_templates(&unknown).unwrap_err().contains("`post_processor.single` names `[BOS]`"));
        assert!(check_templates(&json!({"processors": [unknown]})).is_err());
        assert!(check_templates(&template("[CLS]", "B")).unwrap_err().contains("only `A`"));
        assert_eq!(check_templates(&Value::Null), Ok(()));
    }
}
