//! From the labels of rows to what a model is trained on.

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
};

use super::{
    TextRow,
    lines::at_line,
    notation::{LabelList, LabelNotation, canonical, number},
};
use crate::{Error, Result, config::ProblemType};

/// A set of labels, each with its index: the model's outputs in order. A whole number may be spelled in several ways (`1`,
/// `1.0`) and is the same label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelSet {
    names: Vec<String>,
    indices: HashMap<String, usize>,
}

impl LabelSet {
    /// Labels in the given order, such as a checkpoint's `id2label`.
    ///
    /// # Errors
    /// No label, a blank one, or one that is there twice, be it as the same number in another spelling.
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

    /// The distinct labels among these: by number if all are integers, else by their characters.
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

    /// `count` labels without names of their own, called as transformers does.
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
            Error::input(at_line(path.display(), line), problem)
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
pub enum LabelEncoder {
    /// A row's label is one of these; white space around it does not count.
    Single(LabelSet),
    /// A row has any number of these, written with a separator between them or as a list in JSON or Python. An empty field
    /// means that none applies.
    Multi {
        /// All labels.
        labels: LabelSet,
        /// What stands between the labels of a row, such as a comma.
        separator: char,
    },
    /// A row has a 0 or a 1 for each of these.
    Indicators {
        /// All labels.
        labels: LabelSet,
        /// What stands between the numbers of a row that is not written as a list.
        separator: char,
    },
    /// A row's label is a number.
    Regression,
}

impl LabelEncoder {
    /// The encoder whose labels are those of these rows, [sorted](LabelSet::sorted): the training file's. Rows of several
    /// labels that hold nothing but 0 and 1, and equally many, are [indicators](Self::Indicators) of
    /// [numbered](LabelSet::numbered) labels. Rows without a label by the notation do not count.
    ///
    /// # Errors
    /// A row without a label, with a list for a single label, with one that cannot be read, or with `-` or `-1` if the
    /// notation does not say what they are; no label in any row; `path` is the rows' file.
    pub fn from_rows(
        problem: ProblemType,
        notation: &LabelNotation,
        rows: &[TextRow],
        path: impl AsRef<Path>,
    ) -> Result<Self> {
        let path = path.as_ref();
        let in_file = |error| Error::input(path.display().to_string(), format!("{error}: check the label column"));
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
        if let Some(count) = indicators(&lists).map_err(|problem| Error::input(path.display().to_string(), problem))? {
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

    /// The same with the labels of a checkpoint, if they are the same ones: in the checkpoint's order, and indicators by its
    /// names.
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
    /// A row without a label, with an unknown one, with a list for a single label, or with something else than a finite
    /// number for regression.
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
                    found.labels.iter().map(|label| labels.find(label, path, row.line)).collect();
                Ok(Target::Classes(indices?.into_iter().collect()))
            }
            Self::Indicators { labels, separator } => {
                let found = several(row, path, *separator)?.labels;
                let count = labels.names().len();
                if found.len() != count || !found.iter().all(|item| is_indicator(item)) {
                    let label = row.label.as_deref().unwrap_or_default();
                    let problem = format!("its label is `{label}`, expected {count} numbers that are 0 or 1, as above");
                    return Err(Error::input(at_line(path.display(), row.line), problem));
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
                    Error::input(at_line(path.display(), row.line), problem)
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
        return Err(Error::input(at_line(path.display(), row.line), problem));
    }
    if LabelList::parse(label).is_some() {
        let problem = format!("its label is the list {label}, expected one label: train for several labels instead");
        return Err(Error::input(at_line(path.display(), row.line), problem));
    }
    Ok(label)
}

fn several(row: &TextRow, path: &Path, separator: char) -> Result<LabelList> {
    let label = label(row, path)?;
    LabelList::of_field(label, separator).map_err(|problem| {
        Error::input(at_line(path.display(), row.line), format!("its label is `{label}`: {problem}"))
    })
}

fn is_indicator(item: &str) -> bool {
    matches!(item, "0" | "1" | "true" | "false")
}

/// How many labels rows tell by a 0 or a 1 for each; none if they name their labels.
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
        let encoder = LabelEncoder::from_rows(problem, &LabelNotation::default(), &rows, PATH)?;
        let names = encoder.labels().map(|labels| labels.names().to_vec()).unwrap_or_default();
        Ok((names, encoder.training_targets(&rows, PATH)?))
    }

    fn message<T: std::fmt::Debug>(result: Result<T>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn integers_sort_by_number_and_names_by_character() {
        let (names, targets) = learn(SingleLabelClassification, &["10", "9", " -2", "9"]).unwrap();
        assert_eq!(names, ["-2", "9", "10"]);
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

        let notation = LabelNotation { separator: '|', ..LabelNotation::default() };
        let encoder =
            LabelEncoder::from_rows(MultiLabelClassification, &notation, &rows(&["a,b|c", "c"]), PATH).unwrap();
        assert_eq!(encoder.labels().unwrap().names(), ["a,b", "c"]);
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
        let labels = LabelSet::new(vec!["no".into(), "yes".into()]).unwrap();
        let expected = "a.csv, line 3: label `maybe` is unknown, expected one of `no`, `yes`: correct the row";
        let single = LabelEncoder::Single(labels.clone());
        assert_eq!(message(single.targets(&rows(&["yes", "maybe"]), PATH)), expected);
        let multi = LabelEncoder::Multi { labels, separator: ',' };
        assert_eq!(message(multi.targets(&rows(&["yes,no", "no,maybe"]), PATH)), expected);

        let many = LabelSet::new((0..30).map(|label| label.to_string()).collect()).unwrap();
        let error = message(LabelEncoder::Single(many).targets(&rows(&["30"]), PATH));
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
            let encoder = LabelEncoder::from_rows(problem, &LabelNotation::default(), &rows(&labels), PATH).unwrap();
            assert!(encoder.targets(&rows(&labels), PATH).is_ok());
        }
    }

    #[test]
    fn rows_without_a_usable_label_are_errors() {
        for (problem, label, expected) in [
            (SingleLabelClassification, " ", "a.csv, line 3: it has no label"),
            (SingleLabelClassification, "[\"a\"]", "a.csv, line 3: its label is the list [\"a\"], expected one label"),
            (MultiLabelClassification, "a,,b", "a.csv, line 3: its label is `a,,b`: one of the labels is empty"),
            (MultiLabelClassification, "[null]", "a.csv, line 3: its label is `[null]`: null is no label"),
        ] {
            let error = message(learn(problem, &["a", label]));
            assert!(error.starts_with(expected), "{error}");
        }
        let error = message(learn(MultiLabelClassification, &["", "[]"]));
        assert!(error.starts_with("a.csv: label set: it is empty"), "{error}");
        let unread = [TextRow { label: None, ..rows(&["a"]).remove(0) }];
        let error = message(LabelEncoder::Regression.targets(&unread, PATH));
        assert!(error.starts_with("a.csv: it was read without a label column"), "{error}");
    }

    #[test]
    fn a_list_of_labels_holds_each_once() {
        for (names, expected) in
            [(vec![], "it is empty"), (vec!["a", " "], "label 1 is blank"), (vec!["a", "a"], "`a` is there twice")]
        {
            let error = message(LabelSet::new(names.into_iter().map(str::to_owned).collect()));
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_whole_number_is_one_label_however_it_is_written() {
        let (names, targets) = learn(SingleLabelClassification, &["1", "1.0", "0", " 1.00 ", "0.0"]).unwrap();
        assert_eq!((names, targets), (vec!["0".into(), "1".into()], [1, 1, 0, 1, 0].map(Target::Class).to_vec()));
        let (names, targets) = learn(MultiLabelClassification, &["1, 2", "[2.0]", "[1.0, 3]"]).unwrap();
        assert_eq!(names, ["1", "2", "3"]);
        assert_eq!(targets, [vec![0, 1], vec![1], vec![0, 2]].map(Target::Classes));
        // A checkpoint may spell its labels otherwise.
        let labels = LabelSet::new(vec!["0.0".into(), "1.0".into()]).unwrap();
        assert_eq!((labels.index("1"), labels.index("1.00"), labels.index("2")), (Some(1), Some(1), None));

        for (labels, expected) in [
            (["1.1", "1.10"], "`1.1` and `1.10` are one number, expected one way to write it"),
            (["1.5", "15e-1"], "are one number"),
        ] {
            let error = message(learn(SingleLabelClassification, &labels));
            assert!(error.starts_with("a.csv: label set: ") && error.contains(expected), "{error}");
        }
    }

    #[test]
    fn what_means_no_label_is_named_or_refused() {
        for label in ["-", "-1", "-1.0"] {
            for problem in [SingleLabelClassification, MultiLabelClassification] {
                let error = message(learn(problem, &["0", label, "1"]));
                assert!(error.starts_with(&format!("a.csv, line 3: its label is `{label}`, by which many")), "{error}");
                assert!(error.contains(&format!("--no-label={label}")), "{error}");
            }
        }
        assert!(learn(Regression, &["-1", "1"]).is_ok());

        let read = |no_label: &str, labels: &[&str]| {
            let notation = LabelNotation { no_label: Some(no_label.into()), ..LabelNotation::default() };
            let encoder = LabelEncoder::from_rows(SingleLabelClassification, &notation, &rows(labels), PATH).unwrap();
            let rows = notation.labelled(rows(labels), PATH).unwrap();
            (encoder.labels().unwrap().names().to_vec(), encoder.targets(&rows, PATH).unwrap())
        };
        let expected = (vec!["neutral".to_owned(), "yes".to_owned()], [1, 0].map(Target::Class).to_vec());
        assert_eq!(read("-", &["yes", "-", "neutral", " - "]), expected);
        assert_eq!(read("", &["yes", "", "neutral"]), expected);
        let notation = LabelNotation { no_label: Some("-1.0".into()), ..LabelNotation::default() };
        let error = message(notation.labelled(rows(&["-1", "-1"]), PATH));
        assert!(error.starts_with("a.csv: every row has the label `-1.0`, which means none"), "{error}");
        // Another mark lets -1 be a label.
        assert_eq!(read("none", &["-1", "none", "1"]).0, ["-1", "1"]);
    }

    #[test]
    fn indicators_are_no_names() {
        for labels in [
            ["[1, 0, 1]", "[0, 0, 0]", "[0, 1, 0]"],
            ["[1.0,0.0,1.0]", "[0.0,0.0,0.0]", "[0.0,1.0,0.0]"],
            ["[true, false, true]", "[false, false, false]", "[False, True, False]"],
            ["1,0,1", "0,0,0", "0,1,0"],
            ["[1 0 1]", "[0 0 0]", "[0. 1. 0.]"],
        ] {
            let (names, targets) = learn(MultiLabelClassification, &labels).unwrap();
            assert_eq!(names, ["LABEL_0", "LABEL_1", "LABEL_2"], "{labels:?}");
            assert_eq!(targets, [vec![0, 2], vec![], vec![1]].map(Target::Classes), "{labels:?}");
        }
        // Numbers of labels, not one for each.
        let (names, _) = learn(MultiLabelClassification, &["[0]", "[0, 1]"]).unwrap();
        assert_eq!(names, ["0", "1"]);
        let error = message(learn(MultiLabelClassification, &["[1, 0, 1]", "[1, 0]"]));
        assert!(error.starts_with("a.csv: its labels are lists of 0 and 1 of different lengths"), "{error}");
        assert!(message(learn(MultiLabelClassification, &["[1]", "[0]"])).contains("a list of one 0 or 1"));
        let encoder = LabelEncoder::Indicators { labels: LabelSet::numbered(2).unwrap(), separator: ',' };
        for wrong in ["[1]", "[1, 2]", ""] {
            let error = message(encoder.targets(&rows(&["[1, 0]", wrong]), PATH));
            assert!(
                error.starts_with(&format!("a.csv, line 3: its label is `{wrong}`, expected 2 numbers")),
                "{error}"
            );
        }
    }

    #[test]
    fn a_checkpoints_labels_keep_their_order() {
        let known = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let encoder = |problem, labels: &[&str]| {
            LabelEncoder::from_rows(problem, &LabelNotation::default(), &rows(labels), PATH).unwrap()
        };
        let single = encoder(SingleLabelClassification, &["a", "b"]);
        assert_eq!(single.with_order_of(&known(&["b", "a"])).unwrap().labels().unwrap().names(), ["b", "a"]);
        assert_eq!(single.with_order_of(&known(&["b", "c"])), None);
        assert_eq!(single.with_order_of(&known(&["b", "a", "c"])), None);
        let indicators = encoder(MultiLabelClassification, &["[1, 0]", "[1, 1]"]);
        assert_eq!(indicators.with_order_of(&known(&["b", "a"])).unwrap().labels().unwrap().names(), ["b", "a"]);
        assert_eq!(LabelEncoder::Regression.with_order_of(&known(&["b"])), None);
    }

    proptest! {
        #[test]
        fn sorted_labels_are_distinct_and_found_again(labels in proptest::collection::vec("[ab0-3-]{1,3}", 1..20)) {
            let set = LabelSet::sorted(labels.iter().map(String::as_str)).unwrap();
            prop_assert!(labels.iter().all(|label| set.names()[set.index(label).unwrap()] == canonical(label)));
            prop_assert_eq!(set.names().len(), labels.iter().map(|label| canonical(label)).collect::<BTreeSet<_>>().len());
        }
    }
}
