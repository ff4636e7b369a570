//! `adapter_config.json`: what an adapter changes, and by how much.

use std::{collections::BTreeMap, path::Path};

use fancy_regex::Regex;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::no_adapter;
use crate::{Error, Result, text_file};

/// Kinds of LoRA that are not W + s B A, by the key that turns them on.
const UNSUPPORTED: [&str; 13] = [
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "velora_config",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
    "fan_in_fan_out",
    "lora_bias",
];

/// Initialisations that leave the weights of the base model as they are. Others move a part of them into the adapter.
const INITIALISATIONS: [&str; 3] = ["gaussian", "orthogonal", "eva"];

/// Tasks by PEFT's names, and the ends of transformers' names for their models.
pub(super) const TASKS: [(&str, &str); 3] = [
    ("SEQ_CLS", "ForSequenceClassification"),
    ("TOKEN_CLS", "ForTokenClassification"),
    ("QUESTION_ANS", "ForQuestionAnswering"),
];

/// The keys of `adapter_config.json` that say how an adapter is merged.
#[derive(Debug, Deserialize)]
pub(super) struct AdapterConfig {
    task_type: Option<String>,
    r: usize,
    lora_alpha: f64,
    #[serde(default)]
    use_rslora: bool,
    target_modules: Option<Targets>,
    #[serde(default)]
    rank_pattern: BTreeMap<String, usize>,
    #[serde(default)]
    alpha_pattern: BTreeMap<String, f64>,
    #[serde(default)]
    bias: Bias,
    modules_to_save: Option<Vec<String>>,
    /// `target_modules` as an expression, and the patterns of ranks and alphas.
    #[serde(skip)]
    expressions: Expressions,
}

/// Which modules are changed: by their names or the ends of them, or by an expression that fits the whole name.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Targets {
    Names(Vec<String>),
    Expression(String),
}

/// Which biases were trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Bias {
    #[default]
    None,
    All,
    LoraOnly,
}

#[derive(Debug, Default)]
struct Expressions {
    target: Option<Regex>,
    ranks: Vec<(Regex, usize)>,
    alphas: Vec<(Regex, f64)>,
}

impl AdapterConfig {
    /// Reads `adapter_config.json`.
    ///
    /// # Errors
    /// A file that is missing or no such JSON; another kind of adapter, or of LoRA, which is named; a rank of 0.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let path = folder.join("adapter_config.json");
        if !path.exists() {
            return Err(no_adapter(folder));
        }
        let file: Map<String, Value> = text_file::read_json(&path)?;
        refuse_other_kinds(&file, &path)?;
        let mut config: Self = serde_json::from_value(Value::Object(file)).map_err(Error::json(path.display()))?;
        if config.r == 0 || config.rank_pattern.values().any(|rank| *rank == 0) {
            return Err(Error::file(&path, "the rank `r` or one of `rank_pattern` is 0, expected at least 1"));
        }
        let compile = |key: &str, expression: String| {
            let problem = |error| Error::file(&path, format!("`{key}` has no valid expression: {error}"));
            Regex::new(&expression).map_err(problem)
        };
        // PEFT takes the first pattern that fits the end of a name, in the order of the file, which it sorts.
        let end = |pattern: &str| format!(r"^(?:.*\.)?(?:{pattern})$");
        let mut expressions = Expressions::default();
        if let Some(Targets::Expression(expression)) = &config.target_modules {
            expressions.target = Some(compile("target_modules", format!("^(?:{expression})$"))?);
        }
        for (pattern, rank) in &config.rank_pattern {
            expressions.ranks.push((compile("rank_pattern", end(pattern))?, *rank));
        }
        for (pattern, alpha) in &config.alpha_pattern {
            expressions.alphas.push((compile("alpha_pattern", end(pattern))?, *alpha));
        }
        config.expressions = expressions;
        Ok(config)
    }

    /// The end of transformers' name for the model that it was trained as.
    pub fn task(&self) -> Option<&'static str> {
        let name = self.task_type.as_deref()?;
        TASKS.iter().find(|(task, _)| *task == name).map(|(_, model)| *model)
    }

    /// Whether a module is to be changed.
    pub fn targets(&self, module: &str) -> bool {
        match (&self.target_modules, &self.expressions.target) {
            (Some(Targets::Names(names)), _) => names
                .iter()
                .any(|name| module.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))),
            (_, Some(expression)) => fits(expression, module),
            _ => false,
        }
    }

    /// The rank of a module's pair.
    pub fn rank(&self, module: &str) -> usize {
        first(&self.expressions.ranks, module).unwrap_or(self.r)
    }

    /// The factor of its product.
    pub fn scale(&self, module: &str) -> f32 {
        let (alpha, rank) =
            (first(&self.expressions.alphas, module).unwrap_or(self.lora_alpha), self.rank(module) as f64);
        (alpha / if self.use_rslora { rank.sqrt() } else { rank }) as f32
    }

    /// Whether a tensor belongs to a module that was trained as a whole (`modules_to_save`): PEFT compares the ends of
    /// names.
    pub fn saves(&self, key: &str) -> bool {
        let modules = key.match_indices('.').map(|(dot, _)| &key[..dot]);
        let saved = self.modules_to_save.as_deref().unwrap_or_default();
        modules.into_iter().any(|module| saved.iter().any(|name| module.ends_with(name.as_str())))
    }

    /// Whether biases were trained.
    pub fn trains_biases(&self) -> bool {
        self.bias != Bias::None
    }
}

/// The value of the first pattern that fits.
fn first<T: Copy>(patterns: &[(Regex, T)], module: &str) -> Option<T> {
    patterns.iter().find(|(pattern, _)| fits(pattern, module)).map(|(_, value)| *value)
}

/// Whether an expression fits. One that takes too long does not.
fn fits(expression: &Regex, module: &str) -> bool {
    expression.is_match(module).unwrap_or(false)
}

/// Refuses what is no plain LoRA, by its name.
fn refuse_other_kinds(file: &Map<String, Value>, path: &Path) -> Result<()> {
    let fail = |problem: String| Err(Error::unsupported(path.display().to_string(), problem));
    let merge = "merge the adapter into its base model with PEFT (merge_and_unload), and open the result";
    let kind = file.get("peft_type").and_then(Value::as_str).unwrap_or("missing");
    if kind != "LORA" {
        return fail(format!("`peft_type` is {kind}, and only LORA is supported; {merge}"));
    }
    let is_on = |key: &&&str| file.get(**key).is_some_and(|value| !is_off(value));
    if let Some(key) = UNSUPPORTED.iter().find(is_on) {
        return fail(format!("it sets `{key}`, and only plain LoRA and rsLoRA are supported; {merge}"));
    }
    match file.get("init_lora_weights").and_then(Value::as_str) {
        Some(name) if !INITIALISATIONS.contains(&name) => fail(format!(
            "`init_lora_weights` is `{name}`, which changes the weights of the base model; {merge}, or save it with \
             path_initial_model_for_weight_conversion"
        )),
        _ => Ok(()),
    }
}

/// Whether a value turns nothing on.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}
