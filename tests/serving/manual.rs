//! The commands of docs/serving.md.

use std::{fs, process::Command};

use deberta_burn::{
    Backbone,
    heads::{QuestionAnswering, TokenClassification},
};

use crate::{
    endpoints::classifier,
    server::Server,
    support::{
        config, folder,
        repository::{fixture, repository},
    },
};

#[test]
fn each_curl_command_is_answered_by_the_server_of_one_task() {
    let models = [
        (classifier(&["entailment", "contradiction"]), "classify"),
        (folder(config(&["O", "PER"]), TokenClassification::new), "ner"),
        (folder(config(&[]), QuestionAnswering::new), "answer"),
        (folder(config(&[]), Backbone::new), "embed"),
    ];
    let mut servers: Vec<Server> =
        models.iter().map(|(model, task)| Server::start(model.path(), &["--task", task])).collect();
    servers.push(Server::start(&repository("models/deberta-tiny"), &[]));
    servers.push(Server::start(&fixture("gliner/span"), &[]));
    let text = fs::read_to_string(repository("docs/serving.md")).expect("the manual");
    let commands: Vec<&str> = text.lines().filter(|line| line.starts_with("curl ")).collect();
    assert!(commands.len() > 20, "{commands:?}");
    for command in commands {
        let answered = servers.iter().any(|server| {
            let command = command.replace("127.0.0.1:3000", &server.address.to_string());
            let command = command.replacen("curl", "curl --silent --fail", 1);
            Command::new("sh").args(["-c", &command]).output().expect("a shell").status.success()
        });
        assert!(answered, "{command}");
    }
}
