use proptest::prelude::*;

use super::{super::lines::file, *};

fn read(name: &str, content: &str) -> Result<Vec<Sentence>> {
    let (_folder, path) = file(name, content);
    read_sentences(path, WordColumns::default())
}

/// The tags of one sentence, as they come out.
fn iob2(tags: &str) -> String {
    let lines: Vec<String> = tags.split(' ').map(|tag| format!("w {tag}")).collect();
    read("a.conll", &lines.join("\n")).unwrap().remove(0).tags.join(" ")
}

#[test]
fn columns_with_documents_and_comments() {
    let content = "-DOCSTART- -X- O O\n\nEU NNP I-NP B-ORG\n# SYM I-NP O\r\n \t \r\n\nno\u{a0}break NN I-NP O\n";
    let sentences = read("a.txt", content).unwrap();
    assert_eq!(
        sentences,
        [
            Sentence { words: vec!["EU".into(), "#".into()], tags: vec!["B-ORG".into(), "O".into()], line: 3 },
            Sentence { words: vec!["no\u{a0}break".into()], tags: vec!["O".into()], line: 7 },
        ]
    );
    let (_folder, path) = file("a.txt", content);
    let sentences = read_sentences(path, WordColumns { word: 1, tag: Some(2) }).unwrap();
    assert_eq!((sentences[0].words.join(" "), sentences[0].tags.join(" ")), ("NNP SYM".into(), "B-NP I-NP".into()));
}

#[test]
fn json_lines_give_the_same() {
    let json =
        "{\"tokens\": [\"EU\", \"law\"], \"tags\": [\"I-ORG\", \"O\"]}\n\n{\"tokens\": [\"a\"], \"tags\": [\"O\"]}";
    let lines: Vec<_> = read("a.jsonl", json).unwrap();
    let columns = read("a.conll", "EU I-ORG\nlaw O\n\na O").unwrap();
    assert_eq!(lines.iter().map(|sentence| sentence.line).collect::<Vec<_>>(), [1, 3]);
    let content = |sentences: Vec<Sentence>| -> Vec<_> {
        sentences.into_iter().map(|sentence| (sentence.words, sentence.tags)).collect()
    };
    assert_eq!(content(lines), content(columns));
}

#[test]
fn every_scheme_becomes_iob2() {
    for (scheme, tags, expected) in [
        ("IOB1", "I-A I-A B-A O I-A I-B", "B-A I-A B-A O B-A B-B"),
        ("IOB2", "B-A I-A B-A O B-A B-B", "B-A I-A B-A O B-A B-B"),
        ("BIOES", "B-A E-A S-A O S-A S-B B-A I-A E-A", "B-A I-A B-A O B-A B-B B-A I-A I-A"),
        ("BILOU", "B-A L-A U-A O U-A", "B-A I-A B-A O B-A"),
        ("a type with a dash", "I-a-b I-a-b I-a", "B-a-b I-a-b B-a"),
        ("continuations of nothing", "E-A I-A S-A E-A", "B-A B-A B-A B-A"),
    ] {
        assert_eq!(iob2(tags), expected, "{scheme}");
    }
}

#[test]
fn an_entity_does_not_continue_over_a_sentence_end() {
    let sentences = read("a.conll", "a B-A\n\nb I-A\n").unwrap();
    assert_eq!(sentences[1].tags, ["B-A"]);
}

#[test]
fn labels_hold_both_tags_of_each_type() {
    let sentences = read("a.conll", "a I-PER\nb O\n\nc B-LOC\n").unwrap();
    let labels = tag_labels(&sentences, &[], "a.conll").unwrap();
    assert_eq!(labels.names(), ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]);
    assert_eq!(tag_indices(&sentences, &labels, "a.conll").unwrap(), [vec![3, 0], vec![1]]);

    let other = read("b.conll", "a O\n\nb I-ORG").unwrap();
    let error = tag_indices(&other, &labels, "b.conll").unwrap_err().to_string();
    assert!(error.starts_with("b.conll, line 3: label `B-ORG` is unknown, expected one of `O`, "), "{error}");
    let error = tag_labels(&read("a.conll", "a O").unwrap(), &[], "a.conll").unwrap_err().to_string();
    assert!(error.starts_with("a.conll: every tag in it is `O`"), "{error}");
}

#[test]
fn a_checkpoints_labels_keep_their_order() {
    let sentences = read("a.conll", "a B-PER\nb O\n\nc B-LOC\n").unwrap();
    let names = |known: &[&str]| {
        let known: Vec<String> = known.iter().map(|&label| label.to_owned()).collect();
        tag_labels(&sentences, &known, "a.conll").unwrap().names().to_vec()
    };
    let own = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG"];
    assert_eq!(names(&own), own);
    let sorted = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"];
    // Those of BIOES could be answered, which entities are not counted by.
    let bioes = ["O", "B-PER", "I-PER", "E-PER", "S-PER", "B-LOC", "I-LOC", "E-LOC", "S-LOC"];
    for other in [&["O", "B-PER", "I-PER"][..], &["LABEL_0", "LABEL_1"], &["PER", "LOC", "O"], &bioes] {
        assert_eq!(names(other), sorted, "{other:?}");
    }
}

#[test]
fn words_between_tabs_may_hold_spaces() {
    let content = "\u{feff}# id 7\tdomain=en\r\nAda\tB-PER\r\npaid\tO\t\r\n10 000\tB-QTY\r\n#\tO\r\n\r\n\
                   # text = # euros\r\neuros\tO\r\n\r\n \r\n";
    let sentences = read("a.tsv", content).unwrap();
    assert_eq!(sentences.iter().map(|sentence| sentence.line).collect::<Vec<_>>(), [2, 8]);
    assert_eq!(sentences[0].words, ["Ada", "paid", "10 000", "#"]);
    assert_eq!(sentences[0].tags, ["B-PER", "O", "B-QTY", "O"]);
    // Tabs that line columns up, and tabs in some lines only.
    for content in ["Ada\tB-PER\nLovelace\t\tI-PER\n", "Ada\tB-PER\nLovelace I-PER\n"] {
        let columns = read("a.conll", content).unwrap();
        assert_eq!((&columns[0].words[1][..], &columns[0].tags[1][..]), ("Lovelace", "I-PER"));
    }
}

#[test]
fn comments_are_no_words() {
    let content =
        "# newdoc\n# sent_id = 1 O\n# text = EU law # 1\nEU B-ORG\n# O\nlaw O\n# a comment\n\n# SYM\n\n#tag O\n";
    let words: Vec<_> = read("a.conll", content).unwrap().into_iter().map(|sentence| sentence.words).collect();
    assert_eq!(words, [vec!["EU", "#", "law"], vec!["#tag"]]);
    // GermEval's, in a table of four columns.
    let content = "#\thttp://a.example\t[2009-10-17]\n1\tAda\tB-PER\tO\n2\t#\tO\tO\n";
    let (_folder, path) = file("a.tsv", content);
    let sentences = read_sentences(path, WordColumns { word: 1, tag: Some(2) }).unwrap();
    assert_eq!(sentences[0].words, ["Ada", "#"]);
}

#[test]
fn bad_files_are_errors_that_say_where() {
    for (name, content, expected) in [
        ("a.conll", "\n\n", "a.conll: it holds no rows"),
        ("a.conll", "-DOCSTART- O\n\n", "a.conll: it holds no rows, expected at least one sentence"),
        ("a.conll", "a O\nb\n", "a.conll, line 2: its number of columns is 1, expected columns for a word and its tag"),
        ("a.conll", "a NN O\nb O\n", "a.conll, line 2: its number of columns is 2, expected 3 as above"),
        ("a.conll", "a O\nb NN\n", "a.conll, line 2: tag `NN` is of no known scheme"),
        ("a.tsv", "a b\tO\nc\n", "a.tsv, line 2: its number of columns is 1, expected"),
        ("a.tsv", "a b\tO\nc d\te\tO\n", "a.tsv, line 2: its number of columns is 3, expected 2 as above"),
        ("a.tsv", "a b\tO\n \tO\n", "a.tsv, line 2: its word is blank"),
        ("a.tsv", "a b\tO\n#\tX\n", "a.tsv, line 2: tag `X` is of no known scheme"),
        ("a.conll", "# text\n", "a.conll: it holds no rows"),
        ("a.conll", "a B-\n", "a.conll, line 1: tag `B-` is of no known scheme"),
        ("a.jsonl", "{\"tokens\": [\"a\"], \"tags\": []}", "a.jsonl, line 1: it has 1 tokens and 0 tags"),
        ("a.jsonl", "{\"tokens\": [], \"tags\": []}", "a.jsonl, line 1: it has 0 tokens and 0 tags"),
        ("a.jsonl", "{\"tokens\": [\"a\"], \"tags\": [3]}", "a.jsonl, line 1 is not valid JSON"),
    ] {
        let error = read(name, content).unwrap_err().to_string();
        assert!(error.contains(expected), "{content:?}: {error}");
    }
}

/// Entities as (first, last, type), by the start and end rules of the CoNLL evaluation.
fn entities(tags: &[&str]) -> Vec<(usize, usize, String)> {
    let part = |index: usize| tags.get(index).and_then(|tag| tag.split_once('-'));
    let mut found = Vec::new();
    for index in 0..tags.len() {
        let Some((place, kind)) = part(index) else { continue };
        let before = index.checked_sub(1).and_then(part);
        match before {
            Some((last, same)) if same == kind && "BI".contains(last) && "IE".contains(place) => {
                let entity: &mut (usize, usize, String) = found.last_mut().unwrap();
                entity.1 = index;
            }
            _ => found.push((index, index, kind.to_owned())),
        }
    }
    found
}

proptest! {
    /// Whatever the scheme, mixed even, the entities stay, and IOB2 stays as it is.
    #[test]
    fn entities_survive(tags in proptest::collection::vec("O|[BIES]-[AB]", 1..12)) {
        let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
        let converted = iob2(&tags.join(" "));
        prop_assert_eq!(entities(&tags), entities(&converted.split(' ').collect::<Vec<_>>()));
        prop_assert_eq!(iob2(&converted), converted);
    }
}
