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
    let encoder = LabelEncoder::from_rows(MultiLabelClassification, &notation, &rows(&["a,b|c", "c"]), PATH).unwrap();
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
        assert!(error.starts_with(&format!("a.csv, line 3: its label is `{wrong}`, expected 2 numbers")), "{error}");
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
