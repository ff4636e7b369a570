//! The files that make a checkpoint folder one of sentence-transformers: which modules follow the encoder (`modules.json`), and
//! how its states are pooled (`1_Pooling/config.json`).

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};

use super::{Checkpoint, dense::write_dense};
use crate::{Error, ModelConfig, Result, heads::Pooling, text_file, write_file};

/// What a folder of sentence-transformers does with the hidden states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SentenceModules {
    /// The poolings in `1_Pooling/config.json`; the vectors of several are concatenated.
    pub pooling: Vec<Pooling>,
    /// The folders of the linear maps that follow, in their order.
    pub dense: Vec<PathBuf>,
    /// Whether `modules.json` scales vectors to length 1.
    pub normalize: bool,
}

impl SentenceModules {
    /// Reads them; none if the folder has no `1_Pooling/config.json`.
    ///
    /// # Errors
    /// A file that is not JSON, an unknown pooling or none at all, a module other than `Transformer`, `Pooling`, `Dense` and
    /// `Normalize`, or one behind `Normalize`.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join("1_Pooling").join("config.json");
        let Some(config) = read_json(&path)? else { return Ok(None) };
        let pooling = match config.as_object() {
            Some(config) => modes(config),
            None => Err("it is no JSON object".to_owned()),
        };
        let pooling = pooling.map_err(|problem| Error::file(path, problem))?;

        let path = folder.join("modules.json");
        let modules = read_json(&path)?.unwrap_or_default();
        let (mut dense, mut normalize) = (Vec::new(), false);
        for module in modules.as_array().into_iter().flatten() {
            let class = module["type"].as_str().unwrap_or_default();
            match class.rsplit('.').next().unwrap_or_default() {
                "Transformer" | "Pooling" => {}
                "Dense" if !normalize => dense.push(folder.join(module["path"].as_str().unwrap_or_default())),
                "Normalize" => normalize = true,
                _ => {
                    let problem = format!(
                        "the module `{class}` is not supported there, expected Transformer, Pooling, Dense and Normalize, \
                         in this order; name a pooling to embed without those behind it"
                    );
                    return Err(Error::file(path, problem));
                }
            }
        }
        Ok(Some(Self { pooling, dense, normalize }))
    }
}

/// Makes the checkpoint folder of a [`TextEncoder`](crate::heads::TextEncoder) one of sentence-transformers: `modules.json`, a
/// pooling in `1_Pooling`, and the linear map behind it, if the model has one, in `2_Dense`. The map is also in the weights'
/// own file, from which training goes on.
///
/// # Errors
/// A file that cannot be read or written.
pub fn write_sentence_modules(folder: impl AsRef<Path>, pooling: Pooling) -> Result<()> {
    let folder = folder.as_ref();
    let width = ModelConfig::from_folder(folder)?.hidden_size();
    let mut modules = vec![("", "Transformer"), ("1_Pooling", "Pooling")];
    if write_dense(&Checkpoint::open(folder)?, &folder.join("2_Dense"))? {
        modules.push(("2_Dense", "Dense"));
    }
    let module = |(index, (path, class)): (usize, &(&str, &str))| {
        let class = format!("sentence_transformers.models.{class}");
        json!({ "idx": index, "name": index.to_string(), "path": path, "type": class })
    };
    let modules = Value::Array(modules.iter().enumerate().map(module).collect());
    let flags = Pooling::ALL.map(|other| {
        let end = match other {
            Pooling::Cls => "_token",
            Pooling::LastToken | Pooling::MeanSqrtLen => "",
            _ => "_tokens",
        };
        (format!("pooling_mode_{other}{end}"), Value::Bool(other == pooling))
    });
    let mut config = Map::from_iter(flags);
    config.insert("word_embedding_dimension".into(), width.into());
    let pooling = folder.join("1_Pooling");
    fs::create_dir_all(&pooling).map_err(Error::io("create", &pooling))?;
    write_file(pooling.join("config.json"), format!("{:#}\n", Value::Object(config)).as_bytes())?;
    write_file(folder.join("modules.json"), format!("{modules:#}\n").as_bytes())
}

/// The poolings that a configuration turns on: flags such as `pooling_mode_mean_tokens`, or names in `pooling_mode`.
fn modes(config: &Map<String, Value>) -> Result<Vec<Pooling>, String> {
    let mut names: Vec<&str> = Vec::new();
    for (key, value) in config {
        match (key.strip_prefix("pooling_mode"), value) {
            (Some(""), Value::String(name)) => names.push(name),
            (Some(""), Value::Array(list)) => {
                for name in list {
                    names.push(name.as_str().ok_or_else(|| format!("`{key}` holds {name}, expected names"))?);
                }
            }
            (Some(name), Value::Bool(on)) if !name.is_empty() => names.extend(on.then_some(&name[1..])),
            (Some(_), Value::Null) | (None, _) => {}
            (Some(_), value) => return Err(format!("`{key}` is {value}, expected a name, or true or false")),
        }
    }
    let known = |name: &str| {
        let mode = name.trim_end_matches("_tokens").trim_end_matches("_token");
        Pooling::ALL.into_iter().find(|pooling| pooling.name().trim_end_matches("_tokens") == mode)
    };
    let mut poolings = Vec::new();
    for name in names {
        poolings.push(known(name).ok_or_else(|| {
            let names: Vec<&str> = Pooling::ALL.iter().map(|pooling| pooling.name()).collect();
            format!("the pooling `{name}` is not known, expected {}", names.join(", "))
        })?);
    }
    match poolings.is_empty() {
        true => Err("it turns no pooling on, expected one".to_owned()),
        false => Ok(Pooling::ALL.into_iter().filter(|pooling| poolings.contains(pooling)).collect()),
    }
}

/// The JSON of a file; none if there is no such file.
fn read_json(path: &Path) -> Result<Option<Value>> {
    if !path.is_file() {
        return Ok(None);
    }
    text_file::read_json(path).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_flags_or_names() {
        let modes = |config: Value| modes(config.as_object().unwrap());
        let flags = json!({"word_embedding_dimension": 8, "pooling_mode_cls_token": false, "include_prompt": true,
            "pooling_mode_mean_tokens": true, "pooling_mode_mean_sqrt_len_tokens": true, "pooling_mode_max_tokens": true,
            "pooling_mode_weightedmean_tokens": true, "pooling_mode_lasttoken": true});
        use Pooling::*;
        assert_eq!(modes(flags).unwrap(), [Max, Mean, MeanSqrtLen, WeightedMean, LastToken]);
        assert_eq!(modes(json!({"pooling_mode_cls_token": true})).unwrap(), [Cls]);
        assert_eq!(modes(json!({"pooling_mode": "lasttoken"})).unwrap(), [LastToken]);
        assert_eq!(modes(json!({"pooling_mode": ["mean", "cls"]})).unwrap(), [Cls, Mean]);
        let error = modes(json!({"pooling_mode_attention_tokens": true})).unwrap_err();
        assert!(error.starts_with("the pooling `attention_tokens` is not known, expected cls, max, mean,"), "{error}");
        assert!(modes(json!({"pooling_mode_attention_tokens": false, "pooling_mode_mean_tokens": true})).is_ok());
        assert!(modes(json!({"pooling_mode_mean_tokens": false})).unwrap_err().contains("turns no pooling on"));
        assert!(modes(json!({"pooling_mode_mean_tokens": 1})).unwrap_err().contains("expected a name"));
    }

    #[test]
    fn modules_beside_pooling_are_known_or_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(SentenceModules::read(folder.path()).unwrap(), None);
        fs::create_dir(folder.path().join("1_Pooling")).unwrap();
        fs::write(folder.path().join("1_Pooling/config.json"), r#"{"pooling_mode_cls_token": true}"#).unwrap();
        let read = |modules: Value| {
            fs::write(folder.path().join("modules.json"), modules.to_string()).unwrap();
            SentenceModules::read(folder.path())
        };
        let module = |name: &str| json!({"path": "", "type": format!("sentence_transformers.models.{name}")});
        let plain = read(json!([module("Transformer"), module("Pooling")])).unwrap().unwrap();
        assert_eq!(plain, SentenceModules { pooling: vec![Pooling::Cls], dense: vec![], normalize: false });
        assert!(read(json!([module("Pooling"), module("Normalize")])).unwrap().unwrap().normalize);
        let dense = json!({"path": "2_Dense", "type": "sentence_transformers.models.Dense"});
        let maps = read(json!([module("Pooling"), dense, dense, module("Normalize")])).unwrap().unwrap();
        assert_eq!((maps.dense, maps.normalize), (vec![folder.path().join("2_Dense"); 2], true));
        for (modules, wrong) in [
            (json!([module("Pooling"), module("LayerNorm")]), "LayerNorm"),
            (json!([module("Normalize"), dense]), "Dense"),
        ] {
            let error = read(modules).unwrap_err().to_string();
            let named = format!("modules.json: the module `sentence_transformers.models.{wrong}` is not supported");
            assert!(error.contains(&named), "{error}");
        }
    }
}
