//! From the labels of rows to what a model is trained on.

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
};

use serde_json::Value;

use super::{TextRow, lines::at_line};
use crate::{Error, Result, config::ProblemType};

/// A set of labels, each with its index: the model's outputs in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    names: Vec<String>,
    indices: HashMap<String, usize>,
}

impl Labels {
    /// Labels in the given order, such as a checkpoint's `id2label`.
    ///
    /// # Errors
    /// No label, a blank one, or one that is there twice.
    pub fn new(names: Vec<String>) -> Result<Self> {
        let problem = |problem: String| Err(Error::input("label set", problem));
        if names.is_empty() {
            return problem("it is empty, expected at least one label".into());
        }
        let mut indices = HashMap::new();
        for (index, name) in names.iter().enumerate() {
            if name.trim().is_empty() {
                return problem(format!("label {index} is blank, expected a name"));
            }
            if indices.insert(name.clone(), index).is_some() {
                return problem(format!("`{name}` is there twice, expected every label once"));
            }
        }
        Ok(Self { names, indices })
    }

    /// The distinct labels among these: by number if all are integers, else by their characters.
    ///
    /// # Errors
    /// As [`Labels::new`].
    pub fn sorted<'a>(labels: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut names: Vec<&str> = BTreeSet::from_iter(labels).into_iter().collect();
        if names.iter().all(|name| name.parse::<i64>().is_ok()) {
            names.sort_by_key(|name| name.parse::<i64>().ok());
        }
        Self::new(names.into_iter().map(str::to_owned).collect())
    }

    /// The labels in order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The label's index; none if it is unknown.
    pub fn index(&self, label: &str) -> Option<usize> {
        self.indices.get(label).copied()
    }

    /// The label's index.
    ///
    /// # Errors
    /// The label is unknown; `path` and `line` are where it was read.
    pub(super) fn find(&self, label: &str, path: &Path, line: usize) -> Result<usize> {
        self.index(label).ok_or_else(|| {
            let problem = format!("label `{label}` is unknown, expected one of {}: correct the row", self.listed());
            Error::input(at_line(path, line), problem)
        })
    }

    /// The labels for an error message, the first of them if there are many.
    fn listed(&self) -> String {
        const MOST: usize = 20;
        let mut listed: Vec<String> = self.names.iter().take(MOST).map(|name| format!("`{name}`")).collect();
        if self.names.len() > MOST {
            listed.push(format!("… ({} in all)", self.names.len()));
        }
        listed.join(", ")
    }
}

/// What a model learns to say about a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// One label, by its index.
    Class(usize),
    /// Any number of labels, by their indices, ascending.
    Classes(Vec<usize>),
    /// A finite number.
    Score(f32),
}

/// How the labels of rows become targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Labelling {
    /// A row's label is one of these; white space around it does not count.
    Single(Labels),
    /// A row has any number of these, written with a separator between them or as a JSON list. An empty field means
    /// that none applies.
    Multi {
        /// All labels.
        labels: Labels,
        /// What stands between the labels of a row, such as a comma.
        separator: char,
    },
    /// A row's label is a number.
    Regression,
}

impl Labelling {
    /// The labelling whose labels are those of these rows, [sorted](Labels::sorted): the training file's.
    ///
    /// # Errors
    /// A row without a label, a list for a single label, or no label in any row; `path` is the rows' file.
    pub fn from_rows(problem: ProblemType, separator: char, rows: &[TextRow], path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let in_file = |error| Error::input(path.display().to_string(), format!("{error}: check the label column"));
        Ok(match problem {
            ProblemType::Regression => Self::Regression,
            ProblemType::SingleLabelClassification => {
                let labels = rows.iter().map(|row| single(row, path)).collect::<Result<Vec<_>>>()?;
                Self::Single(Labels::sorted(labels).map_err(in_file)?)
            }
            ProblemType::MultiLabelClassification => {
                let labels = rows.iter().map(|row| several(row, path, separator)).collect::<Result<Vec<_>>>()?;
                let labels = Labels::sorted(labels.iter().flatten().map(String::as_str)).map_err(in_file)?;
                Self::Multi { labels, separator }
            }
        })
    }

    /// The labels, in the order of the model's outputs; none for regression.
    pub fn labels(&self) -> Option<&Labels> {
        match self {
            Self::Single(labels) | Self::Multi { labels, .. } => Some(labels),
            Self::Regression => None,
        }
    }

    /// The target of each row; `path` is the rows' file.
    ///
    /// # Errors
    /// A row without a label, with an unknown one, with a list for a single label, or with something else than a finite
    /// number for regression.
    pub fn targets(&self, rows: &[TextRow], path: impl AsRef<Path>) -> Result<Vec<Target>> {
        rows.iter().map(|row| self.target(row, path.as_ref())).collect()
    }

    /// As [`Labelling::targets`], for the file that is learnt from.
    ///
    /// # Errors
    /// Also if all rows have the same target.
    pub fn training_targets(&self, rows: &[TextRow], path: impl AsRef<Path>) -> Result<Vec<Target>> {
        let path = path.as_ref();
        let targets = self.targets(rows, path)?;
        if targets.iter().all(|target| *target == targets[0]) {
            let label = rows.first().and_then(|row| row.label.as_deref()).unwrap_or_default();
            let problem = format!(
                "all its rows have the same label, `{label}`, expected at least two different ones to learn from: \
                 check the label column, or add rows of another label"
            );
            return Err(Error::input(path.display().to_string(), problem));
        }
        Ok(targets)
    }

    fn target(&self, row: &TextRow, path: &Path) -> Result<Target> {
        match self {
            Self::Single(labels) => Ok(Target::Class(labels.find(single(row, path)?, path, row.line)?)),
            Self::Multi { labels, separator } => {
                let found = several(row, path, *separator)?;
                let indices: Result<BTreeSet<_>> =
                    found.iter().map(|label| labels.find(label, path, row.line)).collect();
                Ok(Target::Classes(indices?.into_iter().collect()))
            }
            Self::Regression => {
                let label = label(row, path)?;
                let score = label.parse::<f32>().ok().filter(|score| score.is_finite());
                Ok(Target::Score(score.ok_or_else(|| {
                    let problem =
                        format!("label `{label}` is not a finite number, as regression expects: correct the row");
                    Error::input(at_line(path, row.line), problem)
                })?))
            }
        }
    }
}

/// What the row's label field holds, maybe nothing.
fn label<'a>(row: &'a TextRow, path: &Path) -> Result<&'a str> {
    row.label.as_deref().map(str::trim).ok_or_else(|| {
        let problem = "it was read without a label column, expected one: name the column that holds the labels";
        Error::input(path.display().to_string(), problem)
    })
}

fn single<'a>(row: &'a TextRow, path: &Path) -> Result<&'a str> {
    let label = label(row, path)?;
    if label.is_empty() {
        let problem = "it has no label, expected one: fill it in or remove the row";
        return Err(Error::input(at_line(path, row.line), problem));
    }
    if list(label).is_some() {
        let problem = format!("its label is the list {label}, expected one label: train for several labels instead");
        return Err(Error::input(at_line(path, row.line), problem));
    }
    Ok(label)
}

fn several(row: &TextRow, path: &Path, separator: char) -> Result<Vec<String>> {
    let label = label(row, path)?;
    let labels = match list(label) {
        Some(values) => values.iter().map(list_item).collect(),
        None if label.is_empty() => Vec::new(),
        None => label.split(separator).map(|label| label.trim().to_owned()).collect::<Vec<_>>(),
    };
    if labels.iter().any(String::is_empty) {
        let problem = format!(
            "one of the labels in `{label}` is empty, expected labels with a `{separator}` between them, or a JSON \
             list of strings, numbers or booleans: correct the row"
        );
        return Err(Error::input(at_line(path, row.line), problem));
    }
    Ok(labels)
}

/// A list's item as a label; empty if it cannot be one.
fn list_item(item: &Value) -> String {
    match item {
        Value::String(label) => label.trim().to_owned(),
        Value::Number(_) | Value::Bool(_) => item.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => String::new(),
    }
}

/// The values of a label that is written as a JSON list.
fn list(label: &str) -> Option<Vec<Value>> {
    label.starts_with('[').then(|| serde_json::from_str(label).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use ProblemType::{MultiLabelClassification, Regression, SingleLabelClassification};

    const PATH: &str = "a.csv";

    /// Rows with these labels, from line 2.
    fn rows(labels: &[&str]) -> Vec<TextRow> {
        let row = |(index, label): (usize, &&str)| TextRow {
            text: "t".into(),
            pair: None,
            label: Some(label.to_string()),
            line: index + 2,
        };
        labels.iter().enumerate().map(row).collect()
    }

    /// The labels in order and the targets that these training rows give.
    fn learn(problem: ProblemType, labels: &[&str]) -> Result<(Vec<String>, Vec<Target>)> {
        let rows = rows(labels);
        let labelling = Labelling::from_rows(problem, ',', &rows, PATH)?;
        let names = labelling.labels().map(|labels| labels.names().to_vec()).unwrap_or_default();
        Ok((names, labelling.training_targets(&rows, PATH)?))
    }

    fn message<T: std::fmt::Debug>(result: Result<T>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn integers_sort_by_number_and_names_by_character() {
        let (names, targets) = learn(SingleLabelClassification, &["10", "9", " -1", "9"]).unwrap();
        assert_eq!(names, ["-1", "9", "10"]);
        assert_eq!(targets, [2, 1, 0, 1].map(Target::Class));
        let (names, targets) = learn(SingleLabelClassification, &["pos", "neg", "10", "9"]).unwrap();
        assert_eq!(names, ["10", "9", "neg", "pos"]);
        assert_eq!(targets, [3, 2, 0, 1].map(Target::Class));
    }

    #[test]
    fn several_labels_with_a_separator_or_as_a_list() {
        let (names, targets) =
            learn(MultiLabelClassification, &["b, a", "", r#"["c", "a", "c"]"#, "[]", "c", "[1, true]"]).unwrap();
        assert_eq!(names, ["1", "a", "b", "c", "true"]);
        let expected = [vec![1, 2], vec![], vec![1, 3], vec![], vec![3], vec![0, 4]];
        assert_eq!(targets, expected.map(Target::Classes));

        let labelling = Labelling::from_rows(MultiLabelClassification, '|', &rows(&["a,b|c", "c"]), PATH).unwrap();
        assert_eq!(labelling.labels().unwrap().names(), ["a,b", "c"]);
    }

    #[test]
    fn scores_are_finite_numbers() {
        let (names, targets) = learn(Regression, &["1", " -2.5e1 "]).unwrap();
        assert_eq!((names, targets), (vec![], vec![Target::Score(1.0), Target::Score(-25.0)]));
        for bad in ["", "x", "nan", "inf", "1e39", "1,5"] {
            let error = message(learn(Regression, &["1", bad]));
            assert!(error.starts_with(&format!("a.csv, line 3: label `{bad}` is not a finite number")), "{error}");
        }
    }

    #[test]
    fn an_unknown_label_is_an_error_that_lists_the_known() {
        let labels = Labels::new(vec!["no".into(), "yes".into()]).unwrap();
        let expected = "a.csv, line 3: label `maybe` is unknown, expected one of `no`, `yes`: correct the row";
        let single = Labelling::Single(labels.clone());
        assert_eq!(message(single.targets(&rows(&["yes", "maybe"]), PATH)), expected);
        let multi = Labelling::Multi { labels, separator: ',' };
        assert_eq!(message(multi.targets(&rows(&["yes,no", "no,maybe"]), PATH)), expected);

        let many = Labels::new((0..30).map(|label| label.to_string()).collect()).unwrap();
        let error = message(Labelling::Single(many).targets(&rows(&["30"]), PATH));
        assert!(error.contains("`18`, `19`, … (30 in all)"), "{error}");
    }

    #[test]
    fn one_class_only_is_an_error_in_training() {
        for (problem, labels) in [
            (SingleLabelClassification, ["yes", "yes"]),
            (MultiLabelClassification, ["yes,no", "no,yes"]),
            (Regression, ["1", "1.0"]),
        ] {
            let error = message(learn(problem, &labels));
            assert!(error.starts_with("a.csv: all its rows have the same label, "), "{error}");
            assert!(
                Labelling::from_rows(problem, ',', &rows(&labels), PATH).unwrap().targets(&rows(&labels), PATH).is_ok()
            );
        }
    }

    #[test]
    fn rows_without_a_usable_label_are_errors() {
        for (problem, label, expected) in [
            (SingleLabelClassification, " ", "a.csv, line 3: it has no label"),
            (SingleLabelClassification, "[\"a\"]", "a.csv, line 3: its label is the list [\"a\"], expected one label"),
            (MultiLabelClassification, "a,,b", "a.csv, line 3: one of the labels in `a,,b` is empty"),
            (MultiLabelClassification, "[null]", "a.csv, line 3: one of the labels in `[null]` is empty"),
        ] {
            let error = message(learn(problem, &["a", label]));
            assert!(error.starts_with(expected), "{error}");
        }
        let error = message(learn(MultiLabelClassification, &["", "[]"]));
        assert!(error.starts_with("a.csv: label set: it is empty"), "{error}");
        let unread = [TextRow { label: None, ..rows(&["a"]).remove(0) }];
        let error = message(Labelling::Regression.targets(&unread, PATH));
        assert!(error.starts_with("a.csv: it was read without a label column"), "{error}");
    }

    #[test]
    fn a_list_of_labels_holds_each_once() {
        for (names, expected) in
            [(vec![], "it is empty"), (vec!["a", " "], "label 1 is blank"), (vec!["a", "a"], "`a` is there twice")]
        {
            let error = message(Labels::new(names.into_iter().map(str::to_owned).collect()));
            assert!(error.contains(expected), "{error}");
        }
    }

    proptest! {
        #[test]
        fn sorted_labels_are_distinct_and_found_again(labels in proptest::collection::vec("[ab0-3-]{1,3}", 1..20)) {
            let set = Labels::sorted(labels.iter().map(String::as_str)).unwrap();
            prop_assert!(labels.iter().all(|label| set.names()[set.index(label).unwrap()] == *label));
            prop_assert_eq!(set.names().len(), labels.iter().collect::<BTreeSet<_>>().len());
        }
    }
}
