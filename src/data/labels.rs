//! From the labels of rows to what a model is trained on.

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
};

use super::{
    TextRow,
    notation::{LabelList, LabelNotation, canonical, number},
};
use crate::{Error, Result, config::ProblemType};

/// A set of labels in the order of the model's outputs. Two spellings of one whole number (`1`, `1.0`) are one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelSet {
    names: Vec<String>,
    indices: HashMap<String, usize>,
}

impl LabelSet {
    /// LabelSet in the given order, such as a checkpoint's `id2label`.
    ///
    /// # Errors
    /// No label, a blank one, or one that is there twice; two spellings of one number count as twice.
    pub fn new(names: Vec<String>) -> Result<Self> {
        let problem = |problem: String| Err(Error::input("label set", problem));
        if names.is_empty() {
            return problem("it is empty, expected at least one label".into());
        }
        let mut indices = HashMap::new();
        let mut numbers = HashMap::new();
        for (index, name) in names.iter().enumerate() {
            if name.trim().is_empty() {
                return problem(format!("label {index} is blank, expected a name"));
            }
            if indices.insert(canonical(name).into_owned(), index).is_some() {
                return problem(format!("`{name}` is there twice, expected every label once"));
            }
            if let Some(other) = number(name).and_then(|number| numbers.insert(number.to_bits(), name)) {
                return problem(format!("`{other}` and `{name}` are one number, expected one way to write it"));
            }
        }
        Ok(Self { names, indices })
    }

    /// The distinct labels among these, in numeric order if all are integers, otherwise in the order of their
    /// characters.
    ///
    /// # Errors
    /// As [`LabelSet::new`].
    pub fn sorted<'a>(labels: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut names: Vec<String> = labels
            .into_iter()
            .map(|label| canonical(label).into_owned())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        if names.iter().all(|name| name.parse::<i64>().is_ok()) {
            names.sort_by_key(|name| name.parse::<i64>().ok());
        }
        Self::new(names)
    }

    /// `count` labels without names of their own: `LABEL_0`, `LABEL_1` and so on, as in transformers.
    ///
    /// # Errors
    /// As [`LabelSet::new`].
    pub fn numbered(count: usize) -> Result<Self> {
        Self::new((0..count).map(|index| format!("LABEL_{index}")).collect())
    }

    /// The labels in order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The label's index; none if it is unknown.
    pub fn index(&self, label: &str) -> Option<usize> {
        self.indices.get(canonical(label).as_ref()).copied()
    }

    /// The label's index.
    ///
    /// # Errors
    /// The label is unknown; `path` and `line` are where it was read.
    pub(super) fn find(&self, label: &str, path: &Path, line: usize) -> Result<usize> {
        self.index(label).ok_or_else(|| {
            let problem = format!("label `{label}` is unknown, expected one of {}: correct the row", self.listed());
            Error::line(path, line, problem)
        })
    }

    /// The labels for an error message; only the first ones if there are many.
    fn listed(&self) -> String {
        const MOST: usize = 20;
        let mut listed: Vec<String> = self.names.iter().take(MOST).map(|name| format!("`{name}`")).collect();
        if self.names.len() > MOST {
            listed.push(format!("… ({} in all)", self.names.len()));
        }
        listed.join(", ")
    }
}

/// What a model is to answer for a row.
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
pub enum LabelEncoder {
    /// A row has one of these labels; white space around it is ignored.
    Single(LabelSet),
    /// A row has any number of these labels, written with a separator between them or as a JSON or Python list. An
    /// empty field means that it has none.
    Multi {
        /// All labels.
        labels: LabelSet,
        /// The character between the labels of a row, such as a comma.
        separator: char,
    },
    /// A row has a 0 or a 1 for each of these labels.
    Indicators {
        /// All labels.
        labels: LabelSet,
        /// The character between the numbers of a row, if they are not written as a list.
        separator: char,
    },
    /// A row's label is a number.
    Regression,
}

impl LabelEncoder {
    /// The encoder for the rows of a training file: its labels are those of the rows, [sorted](LabelSet::sorted). If a
    /// row may have several labels, and all rows hold only 0 and 1 and equally many of them, they are
    /// [indicators](Self::Indicators) of [numbered](LabelSet::numbered) labels. Rows that the notation marks as
    /// unlabelled are left out.
    ///
    /// # Errors
    /// A row without a label; a list where one label is expected; a list that cannot be read; `-` or `-1` if the
    /// notation does not say what they mean; no label in any row. `path` is the rows' file.
    pub fn from_rows(
        problem: ProblemType,
        notation: &LabelNotation,
        rows: &[TextRow],
        path: impl AsRef<Path>,
    ) -> Result<Self> {
        let path = path.as_ref();
        let in_file = |error| Error::file(path, format!("{error}: check the label column"));
        let separator = notation.separator;
        let rows = rows.iter().filter(|row| !notation.is_unlabelled(row));
        match problem {
            ProblemType::Regression => return Ok(Self::Regression),
            _ => rows.clone().try_for_each(|row| notation.check(row, path))?,
        }
        if problem == ProblemType::SingleLabelClassification {
            let labels = rows.map(|row| single(row, path)).collect::<Result<Vec<_>>>()?;
            return Ok(Self::Single(LabelSet::sorted(labels).map_err(in_file)?));
        }
        let lists = rows.map(|row| several(row, path, separator)).collect::<Result<Vec<_>>>()?;
        if let Some(count) = indicators(&lists).map_err(|problem| Error::file(path, problem))? {
            return Ok(Self::Indicators { labels: LabelSet::numbered(count)?, separator });
        }
        let labels = lists.iter().flat_map(|list| &list.labels).map(String::as_str);
        Ok(Self::Multi { labels: LabelSet::sorted(labels).map_err(in_file)?, separator })
    }

    /// The labels, in the order of the model's outputs; none for regression.
    pub fn labels(&self) -> Option<&LabelSet> {
        match self {
            Self::Single(labels) | Self::Multi { labels, .. } | Self::Indicators { labels, .. } => Some(labels),
            Self::Regression => None,
        }
    }

    /// The same encoder in the order of a checkpoint's labels; none if the labels differ. Indicators have no names of
    /// their own: they take the checkpoint's if there are equally many.
    pub fn with_order_of(&self, known: &[String]) -> Option<Self> {
        let labels = self.labels().filter(|labels| labels.names().len() == known.len())?;
        let same = matches!(self, Self::Indicators { .. }) || known.iter().all(|name| labels.index(name).is_some());
        let labels = LabelSet::new(known.to_vec()).ok().filter(|_| same)?;
        Some(match self {
            Self::Multi { separator, .. } => Self::Multi { labels, separator: *separator },
            Self::Indicators { separator, .. } => Self::Indicators { labels, separator: *separator },
            _ => Self::Single(labels),
        })
    }

    /// The target of each row; `path` is the rows' file.
    ///
    /// # Errors
    /// A row without a label or with an unknown one; a list where one label is expected; for regression, anything but a
    /// finite number.
    pub fn targets(&self, rows: &[TextRow], path: impl AsRef<Path>) -> Result<Vec<Target>> {
        rows.iter().map(|row| self.target(row, path.as_ref())).collect()
    }

    /// As [`LabelEncoder::targets`], for the file that is learnt from.
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
            return Err(Error::file(path, problem));
        }
        Ok(targets)
    }

    fn target(&self, row: &TextRow, path: &Path) -> Result<Target> {
        match self {
            Self::Single(labels) => Ok(Target::Class(labels.find(single(row, path)?, path, row.line)?)),
            Self::Multi { labels, separator } => {
                let found = several(row, path, *separator)?;
                let indices: Result<BTreeSet<_>> =
                    found.labels.iter().map(|label| labels.find(label, path, row.line)).collect();
                Ok(Target::Classes(indices?.into_iter().collect()))
            }
            Self::Indicators { labels, separator } => {
                let found = several(row, path, *separator)?.labels;
                let count = labels.names().len();
                if found.len() != count || !found.iter().all(|item| is_indicator(item)) {
                    let label = row.label.as_deref().unwrap_or_default();
                    let problem = format!("its label is `{label}`, expected {count} numbers that are 0 or 1, as above");
                    return Err(Error::line(path, row.line, problem));
                }
                let is_on = |item: &String| matches!(item.as_str(), "1" | "true");
                let on = found.iter().enumerate().filter(|(_, item)| is_on(item));
                Ok(Target::Classes(on.map(|(index, _)| index).collect()))
            }
            Self::Regression => {
                let label = label(row, path)?;
                let score = label.parse::<f32>().ok().filter(|score| score.is_finite());
                Ok(Target::Score(score.ok_or_else(|| {
                    let problem =
                        format!("label `{label}` is not a finite number, as regression expects: correct the row");
                    Error::line(path, row.line, problem)
                })?))
            }
        }
    }
}

/// The text of the row's label field, which may be empty.
fn label<'a>(row: &'a TextRow, path: &Path) -> Result<&'a str> {
    row.label.as_deref().map(str::trim).ok_or_else(|| {
        let problem = "it was read without a label column, expected one: name the column that holds the labels";
        Error::file(path, problem)
    })
}

fn single<'a>(row: &'a TextRow, path: &Path) -> Result<&'a str> {
    let label = label(row, path)?;
    if label.is_empty() {
        let problem = "it has no label, expected one: fill it in or remove the row";
        return Err(Error::line(path, row.line, problem));
    }
    if LabelList::parse(label).is_some() {
        let problem = format!("its label is the list {label}, expected one label: train for several labels instead");
        return Err(Error::line(path, row.line, problem));
    }
    Ok(label)
}

fn several(row: &TextRow, path: &Path, separator: char) -> Result<LabelList> {
    let label = label(row, path)?;
    LabelList::of_field(label, separator)
        .map_err(|problem| Error::line(path, row.line, format!("its label is `{label}`: {problem}")))
}

fn is_indicator(item: &str) -> bool {
    matches!(item, "0" | "1" | "true" | "false")
}

/// The number of labels, if every row gives a 0 or a 1 for each; none if rows name their labels.
fn indicators(lists: &[LabelList]) -> Result<Option<usize>, String> {
    let all = || lists.iter().flat_map(|list| &list.labels);
    if all().next().is_none() || !all().all(|item| is_indicator(item)) {
        return Ok(None);
    }
    let count = lists.iter().map(|list| list.labels.len()).max().unwrap_or_default();
    let equal = lists.iter().all(|list| list.labels.len() == count);
    let repeats = |list: &LabelList| list.labels.iter().collect::<BTreeSet<_>>().len() < list.labels.len();
    if count == 1 && lists.iter().all(|list| list.bracketed) {
        return Err(
            "each of its labels is a list of one 0 or 1, which may be a label or say whether there is one: write \
                    names, or train for a single label"
                .into(),
        );
    }
    match (equal, lists.iter().any(repeats)) {
        (true, _) if count > 1 => Ok(Some(count)),
        (false, true) => Err("its labels are lists of 0 and 1 of different lengths, expected equally many numbers in \
                              each, or the names of labels"
            .into()),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests;
