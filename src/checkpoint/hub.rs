//! Checkpoints by repository id: downloaded into the cache that all of Hugging Face's libraries share.

use std::{
    collections::BTreeSet,
    env,
    path::{Path, PathBuf},
};

use hf_hub::{
    Cache, Repo, RepoType,
    api::sync::{Api, ApiBuilder, ApiError},
};

use super::{content::Index, read};
use crate::{
    Error, Result,
    foreign::{self, Part},
};

/// Files that are downloaded beside the weights, if the repository has them.
const COMPANIONS: [&str; 16] = [
    "config.json",
    "gliner_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "spm.model",
    "vocab.json",
    "merges.txt",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
    "2_Dense/config.json",
    "2_Dense/model.safetensors",
    "2_Dense/pytorch_model.bin",
];

/// The configuration of a model, one of which every repository has: as transformers knows it, or GLiNER's.
const CONFIGURATIONS: [&str; 2] = ["config.json", "gliner_config.json"];

/// Downloads a model with the [settings of the environment](Hub::from_env); see [`Hub::fetch`].
pub fn fetch(repository: &str, revision: Option<&str>) -> Result<PathBuf> {
    Hub::from_env().fetch(repository, revision)
}

/// Where models come from and where they are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hub {
    /// The folder of the cache.
    pub cache: PathBuf,
    /// The address of the server, without a slash at its end.
    pub endpoint: String,
    /// Whether to look in the cache only.
    pub offline: bool,
    /// The token that opens private repositories.
    pub token: Option<String>,
}

impl Hub {
    /// The settings that Hugging Face's libraries take from the environment: the cache is `$HF_HUB_CACHE`, else `$HF_HOME/hub`
    /// or `~/.cache/huggingface/hub`, the server is `$HF_ENDPOINT` or the public one, `HF_HUB_OFFLINE` set to `1`, `true`, `yes`
    /// or `on` keeps off the network, and the token is `$HF_TOKEN` or what the login command left in `$HF_HOME` or
    /// `~/.cache/huggingface`.
    pub fn from_env() -> Self {
        Self::from_variables(|name| env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        // The token stays there if the cache is elsewhere.
        let home = variable("HF_HOME").map_or_else(Cache::default, |home| Cache::new(Path::new(&home).join("hub")));
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        let offline = variable("HF_HUB_OFFLINE")
            .is_some_and(|value| ["1", "true", "yes", "on"].contains(&value.to_lowercase().as_str()));
        Self {
            token: variable("HF_TOKEN").or_else(|| home.token()),
            cache: variable("HF_HUB_CACHE").map_or_else(|| home.path().clone(), PathBuf::from),
            endpoint: endpoint.trim_end_matches('/').into(),
            offline,
        }
    }

    /// Downloads a model: its configuration, its weights (safetensors if there are any) and the files of its tokenizer.
    /// Files that are in the cache are not downloaded again. `repository` is its id, such as
    /// `microsoft/deberta-v3-base`, and `revision` a branch, a tag or a commit, `main` if none is given. Returns the
    /// folder in the cache that holds the files. Progress is shown on a terminal. Offline, or if the server cannot be
    /// reached, a copy in the cache is used as it is.
    ///
    /// # Errors
    /// [`Error::Hub`] if the server does not have the repository or revision, or denies it, if the repository has no weights
    /// in a format that is read here, or if the server cannot be used and there is no complete copy in the cache.
    pub fn fetch(&self, repository: &str, revision: Option<&str>) -> Result<PathBuf> {
        let fail = |problem: String| Error::Hub { repository: repository.into(), problem };
        let revision = revision.unwrap_or("main");
        let repo = |revision: &str| Repo::with_revision(repository.into(), RepoType::Model, revision.into());
        if self.offline {
            return self.snapshot(&repo(revision)).ok_or_else(|| {
                fail(format!(
                    "revision `{revision}` is not in the cache {}, and HF_HUB_OFFLINE forbids to download it",
                    self.cache.display()
                ))
            });
        }

        let api = self.api().map_err(|error| fail(error.to_string()))?;
        let info = match api.repo(repo(revision)).info() {
            Ok(info) => info,
            Err(error) => {
                let (problem, answered) = self.explained(error, revision);
                return self.snapshot(&repo(revision)).filter(|_| !answered).ok_or_else(|| fail(problem));
            }
        };
        let offered: BTreeSet<&str> = info.siblings.iter().map(|file| file.rfilename.as_str()).collect();
        let weights = *read::FILES.iter().find(|file| offered.contains(*file)).ok_or_else(|| {
            let names: Vec<_> = offered.iter().map(|&name| name.to_owned()).collect();
            let reason = foreign::explain_names(&names, Part::Weights).map_or(read::NO_WEIGHTS, |sign| sign.meaning);
            fail(format!("{reason}; looked for {}", read::FILES.join(", ")))
        })?;
        // All files come from one commit, even if others are pushed meanwhile.
        let commit = api.repo(repo(&info.sha));
        let folder = self.folder(&repo(revision), &info.sha);
        let get = |file: &str| -> Result<()> {
            if !folder.join(file).exists() {
                commit
                    .download(file)
                    .map_err(|error| fail(format!("{file}: {}", self.explained(error, revision).0)))?;
            }
            Ok(())
        };
        for file in COMPANIONS.iter().filter(|file| offered.contains(**file)) {
            get(file)?;
        }
        get(weights)?;
        if weights.ends_with(".json") {
            for shard in Index::open(&folder.join(weights))?.files() {
                get(shard)?;
            }
        }
        // Offline, only the name of the branch is known.
        let cached = Cache::new(self.cache.clone()).repo(repo(revision));
        cached.create_ref(&info.sha).map_err(Error::io("write", &self.cache))?;
        Ok(folder)
    }

    fn api(&self) -> std::result::Result<Api, ApiError> {
        ApiBuilder::from_cache(Cache::new(self.cache.clone()))
            .with_endpoint(self.endpoint.clone())
            .with_token(self.token.clone())
            .with_retries(3)
            .build()
    }

    /// The folder of a commit in the cache.
    fn folder(&self, repo: &Repo, commit: &str) -> PathBuf {
        self.cache.join(repo.folder_name()).join("snapshots").join(commit)
    }

    /// The folder of a revision in the cache, if there is one that can be opened.
    fn snapshot(&self, repo: &Repo) -> Option<PathBuf> {
        let named = self.cache.join(repo.folder_name()).join("refs").join(repo.revision());
        let commit = std::fs::read_to_string(named).unwrap_or_else(|_| repo.revision().into());
        let folder = self.folder(repo, commit.trim());
        let has = |files: &[&str]| files.iter().any(|file| folder.join(file).exists());
        (has(&CONFIGURATIONS) && has(&read::FILES)).then_some(folder)
    }

    /// The meaning of an error, and whether the server answered at all.
    fn explained(&self, error: ApiError, revision: &str) -> (String, bool) {
        let endpoint = &self.endpoint;
        let text = error.to_string();
        let status = match error {
            ApiError::RequestError(error) => error.into_response().map(|response| response.status()),
            _ => None,
        };
        let problem = match status {
            Some(404) => format!("{endpoint} has no such repository or no revision `{revision}` of it"),
            Some(401 | 403) => {
                format!("{endpoint} denies access: check the name, accept the model's terms there, and set HF_TOKEN")
            }
            Some(code) => format!("{endpoint} answers with the status {code}; try again later"),
            None => format!("{endpoint} cannot be used ({text}), and the cache {} has no copy", self.cache.display()),
        };
        (problem, status.is_some())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn settings_come_from_the_environment() {
        let set = |name: &str| match name {
            "HF_HOME" => Some("/home".to_owned()),
            "HF_ENDPOINT" => Some("http://mirror/".to_owned()),
            "HF_HUB_OFFLINE" => Some("ON".to_owned()),
            "HF_TOKEN" => Some("secret".to_owned()),
            _ => None,
        };
        let expected = Hub {
            cache: "/home/hub".into(),
            endpoint: "http://mirror".into(),
            offline: true,
            token: Some("secret".into()),
        };
        assert_eq!(Hub::from_variables(set), expected);
        let cache = |name: &str| if name == "HF_HUB_CACHE" { Some("/cache".to_owned()) } else { set(name) };
        assert_eq!(Hub::from_variables(cache), Hub { cache: "/cache".into(), ..expected });

        // The login command's token is not beside a cache of its own.
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("token"), "secret\n").unwrap();
        let logged_in = |name: &str| match name {
            "HF_HOME" => Some(home.path().display().to_string()),
            "HF_HUB_CACHE" => Some("/cache/hub".to_owned()),
            _ => None,
        };
        assert_eq!(Hub::from_variables(logged_in).token.as_deref(), Some("secret"));

        let hub = Hub::from_variables(|name| (name == "HF_HUB_OFFLINE").then(|| "0".to_owned()));
        assert!(!hub.offline);
        assert!(hub.cache.ends_with(".cache/huggingface/hub"), "{}", hub.cache.display());
    }
}
