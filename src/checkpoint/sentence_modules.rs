//! The files that make a checkpoint folder one of sentence-transformers: which modules follow the encoder (`modules.json`),
//! how its states are pooled (`1_Pooling/config.json`), and how long texts may be (`sentence_bert_config.json`).

use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
};

use serde_json::{Map, Value, json};

use super::{Checkpoint, dense::write_dense};
use crate::{Error, ModelConfig, Result, heads::Pooling, text_file, write_file};

/// The folder of the pooling.
const POOLING: &str = "1_Pooling";

/// Which modules there are.
const MODULES: &str = "modules.json";

/// The settings of the encoder.
const ENCODER: &str = "sentence_bert_config.json";

/// The settings of the whole, of which cross-encoders need the activation function.
const WHOLE: &str = "config_sentence_transformers.json";

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
        let path = folder.join(POOLING).join("config.json");
        let Some(config) = read_json(&path)? else { return Ok(None) };
        let pooling = match config.as_object() {
            Some(config) => modes(config),
            None => Err("it is no JSON object".to_owned()),
        };
        let pooling = pooling.map_err(|problem| Error::file(path, problem))?;

        let path = folder.join(MODULES);
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

    /// The largest number of tokens of a text, `max_seq_length` in `sentence_bert_config.json`, which takes the place of the
    /// tokenizer's. None if the file does not say, or the folder has no `1_Pooling/config.json`.
    ///
    /// # Errors
    /// A file that is not JSON, or another value than a number of tokens.
    pub fn max_length(folder: &Path) -> Result<Option<usize>> {
        if !folder.join(POOLING).join("config.json").is_file() {
            return Ok(None);
        }
        let path = folder.join(ENCODER);
        let config = read_json(&path)?.unwrap_or_default();
        let found = &config["max_seq_length"];
        match found.as_u64().filter(|length| *length > 0) {
            Some(length) => Ok(Some(length as usize)),
            None if found.is_null() => Ok(None),
            None => Err(Error::config("max_seq_length", found, "a number of tokens from 1, or null").in_config(&path)),
        }
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
    let mut modules = vec![("", "Transformer"), (POOLING, "Pooling")];
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
    let pooling = folder.join(POOLING);
    fs::create_dir_all(&pooling).map_err(Error::io("create", &pooling))?;
    write_file(pooling.join("config.json"), format!("{:#}\n", Value::Object(config)).as_bytes())?;
    write_file(folder.join(MODULES), format!("{modules:#}\n").as_bytes())
}

/// Copies what makes a checkpoint folder one of sentence-transformers into another folder, beside the weights that
/// [`rewrite`](super::rewrite) leaves there: the modules behind the encoder as they are, the length of texts, and the activation
/// function of a cross-encoder. Of other folders it copies nothing.
///
/// # Errors
/// A file that cannot be read or written; a `modules.json` that is not JSON, or names a folder elsewhere.
pub fn copy_sentence_modules(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
    let (from, to) = (from.as_ref(), to.as_ref());
    let mut files: Vec<PathBuf> = [MODULES, ENCODER, WHOLE].map(PathBuf::from).into();
    for module in module_folders(from)? {
        let folder = from.join(&module);
        for entry in fs::read_dir(&folder).map_err(Error::io("read", &folder))? {
            let name = entry.map_err(Error::io("read", &folder))?.file_name();
            files.push(Path::new(&module).join(name));
        }
    }
    for file in files.iter().filter(|file| from.join(file).is_file()) {
        let target = to.join(file);
        let folder = target.parent().unwrap_or(to);
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        write_file(&target, &text_file::read_bytes(from.join(file))?)?;
    }
    Ok(())
}

/// The folders of the modules behind the encoder, which has none of its own.
fn module_folders(folder: &Path) -> Result<BTreeSet<String>> {
    let path = folder.join(MODULES);
    let modules = read_json(&path)?.unwrap_or_default();
    let named = modules.as_array().into_iter().flatten().filter_map(|module| module["path"].as_str());
    let named = named.chain([POOLING]).filter(|name| !name.is_empty() && folder.join(name).is_dir());
    let folders: BTreeSet<String> = named.map(str::to_owned).collect();
    // Such a file is input from outside: it must not lead to files outside its folder.
    let is_inside = |name: &String| Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    match folders.iter().find(|name| !is_inside(name)) {
        Some(outside) => {
            Err(Error::file(path, format!("a module's `path` is `{outside}`, expected a folder beside this file")))
        }
        None => Ok(folders),
    }
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
    fn the_length_of_texts_is_that_of_the_encoder() {
        let folder = tempfile::tempdir().unwrap();
        let length = |config: &str| {
            fs::write(folder.path().join(ENCODER), config).unwrap();
            SentenceModules::max_length(folder.path())
        };
        // A cross-encoder has the file, too.
        assert_eq!(length(r#"{"max_seq_length": 8}"#).unwrap(), None);
        fs::create_dir(folder.path().join(POOLING)).unwrap();
        fs::write(folder.path().join("1_Pooling/config.json"), "{}").unwrap();
        assert_eq!(length(r#"{"max_seq_length": 8, "do_lower_case": false}"#).unwrap(), Some(8));
        for none in [r#"{"max_seq_length": null}"#, "{}"] {
            assert_eq!(length(none).unwrap(), None, "{none}");
        }
        for wrong in ["0", "-1", "1.5", "\"8\""] {
            let error = length(&format!(r#"{{"max_seq_length": {wrong}}}"#)).unwrap_err().to_string();
            let key = format!("sentence_bert_config.json: config key `max_seq_length` is {wrong}, expected a number");
            assert!(error.contains(&key), "{error}");
        }
        fs::remove_file(folder.path().join(ENCODER)).unwrap();
        assert_eq!(SentenceModules::max_length(folder.path()).unwrap(), None);
    }

    #[test]
    fn what_makes_a_folder_one_of_sentence_transformers_is_copied() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let write = |file: &str, content: &str| {
            let path = from.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        let module = |path: &str| json!({"path": path, "type": "sentence_transformers.models.Module"});
        let modules = json!([module(""), module("1_Pooling"), module("2_Map"), module("3_Normalize")]).to_string();
        let copied = [
            (MODULES, modules.as_str()),
            (ENCODER, r#"{"max_seq_length": 8}"#),
            (WHOLE, r#"{"activation_fn": "torch.nn.modules.linear.Identity"}"#),
            ("1_Pooling/config.json", "{}"),
            ("2_Map/config.json", "{}"),
            ("2_Map/model.safetensors", "weights"),
        ];
        for (file, content) in copied {
            write(file, content);
        }
        for other in ["model.safetensors", "config.json", "other/config.json"] {
            write(other, "{}");
        }
        copy_sentence_modules(&from, &to).unwrap();
        for (file, content) in copied {
            assert_eq!(fs::read_to_string(to.path().join(file)).unwrap(), content, "{file}");
        }
        let mut names: Vec<_> = fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["1_Pooling", "2_Map", WHOLE, MODULES, ENCODER]);

        // A pooling alone is enough for such a folder, and another folder has nothing to copy.
        fs::remove_file(from.path().join(MODULES)).unwrap();
        let (pooled, nothing) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        copy_sentence_modules(&from, &pooled).unwrap();
        assert!(pooled.path().join("1_Pooling/config.json").is_file() && !pooled.path().join("2_Map").exists());
        copy_sentence_modules(from.path().join("other"), &nothing).unwrap();
        assert_eq!(fs::read_dir(&nothing).unwrap().count(), 0);

        for outside in ["../", to.path().to_str().unwrap(), "2_Map/.."] {
            write(MODULES, &json!([module(outside)]).to_string());
            let error = copy_sentence_modules(&from, &nothing).unwrap_err().to_string();
            let named = format!("modules.json: a module's `path` is `{outside}`, expected a folder beside this file");
            assert!(error.contains(&named), "{error}");
        }
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
