//! The page in a real browser, if there is one.

use std::process::Command;

use deberta_burn::heads::{QuestionAnswering, TokenClassification};

use crate::{
    endpoints::classifier,
    server::Server,
    support::{
        config, folder,
        repository::{fixture, repository},
    },
};

/// The page after its scripts have run; none without a browser.
fn page(server: &Server, query: &str) -> Option<String> {
    let profile = tempfile::tempdir().expect("a temporary folder");
    let mut command = Command::new("chromium");
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000", "--dump-dom"]);
    command.arg(format!("--user-data-dir={}", profile.path().display()));
    command.arg(format!("http://{}/ui?{query}", server.address));
    match command.output() {
        Ok(output) => Some(String::from_utf8_lossy(&output.stdout).into_owned()),
        Err(error) => {
            eprintln!("not tested, because chromium does not start: {error}");
            None
        }
    }
}

#[test]
fn the_page_shows_what_each_task_answers() {
    let (labels, ranking) = (classifier(&["red", "blue", "green"]), classifier(&["relevance"]));
    let entities = folder(config(&["PER", "LOC"]), TokenClassification::new);
    let answers = folder(config(&[]), QuestionAnswering::new);
    let tiny = repository("models/deberta-tiny");
    for (model, task, query, shown) in [
        (labels.path(), "classify", "text=war", "<span class=\"name\">green</span>"),
        (ranking.path(), "classify", "query=law&texts=war%0Apeace", "<span class=\"name\">peace</span>"),
        // With an emoji before it, which is two units in a browser's strings.
        (entities.path(), "ner", "text=%F0%9F%8F%94+the+law", "<mark>"),
        (answers.path(), "answer", "question=who&context=war", "<mark>war<small>"),
        (&fixture("gliner/span"), "gliner", "text=Ada+was+in+Rome&labels=person%0Alocation%0Adate", "<mark>"),
        (
            &fixture("gliclass/first"),
            "zero-shot",
            "text=Rome&labels=person%0Alocation",
            "<span class=\"name\">person</span>",
        ),
        (&tiny, "fill-mask", "text=The+old+[MASK]+shook+his+head.", "<span class=\"name\">man</span>"),
        (&tiny, "embed", "texts=a+cat%0Aa+kitten", "<span class=\"name\">a kitten</span>"),
    ] {
        let server = Server::start(model, &["--task", task]);
        let Some(page) = page(&server, query) else { return };
        assert!(page.contains(shown), "{task}: {shown} is not in\n{page}");
        assert!(page.contains("curl http://") && page.contains(&format!("{task}, f32")), "{task}:\n{page}");
    }
}
