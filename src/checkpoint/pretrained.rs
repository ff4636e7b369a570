//! Models, configurations and tokenizers straight from a folder, or from the Hugging Face Hub.

use std::path::{Path, PathBuf};

use burn::{module::Module, tensor::Device};

use super::{Checkpoint, LoadOptions, LoadReport};
use crate::{
    Error, ModelConfig, Result,
    foreign::{self, Part},
    heads::{
        MaskedLm, MultipleChoice, QuestionAnswering, ReplacedTokenDetection, SequenceClassification,
        TokenClassification,
    },
    model::Backbone,
    tokenizer::Tokenizer,
};

/// The folder of a checkpoint: `model` itself if there is such a folder, or if it does not look like the id of a repository
/// (`owner/name`). Otherwise the repository is downloaded, at `revision` (a branch, a tag or a commit), by default `main`.
///
/// # Errors
/// A repository that cannot be had; an id, where this crate was built without the feature `hub`.
pub fn locate(model: &str, revision: Option<&str>) -> Result<PathBuf> {
    let folder = Path::new(model);
    let is_id = model.split('/').count() == 2 && !model.starts_with(['.', '/', '~']);
    if folder.is_dir() || !is_id {
        return Ok(folder.to_owned());
    }
    #[cfg(feature = "hub")]
    return super::hub::fetch(model, revision);
    #[cfg(not(feature = "hub"))]
    {
        let _ = revision;
        let problem = "there is no such folder, and this program cannot download: build with the feature `hub`";
        Err(Error::Hub { repository: model.into(), problem: problem.into() })
    }
}

/// A model that can be made for a checkpoint.
pub(crate) trait Pretrained: Module {
    /// The end of transformers' name for such a model. None if the weights alone tell whether it fits.
    const TASK: Option<&'static str>;

    /// A fresh model with the parts that the checkpoint has.
    fn fresh(config: &ModelConfig, checkpoint: &Checkpoint, device: &Device) -> Result<Self>;
}

impl Checkpoint {
    /// The model of this checkpoint, whose configuration is given.
    ///
    /// # Errors
    /// A checkpoint of another task, and as [`load`](Self::load).
    pub(crate) fn model<M: Pretrained>(
        &self,
        config: &ModelConfig,
        options: &LoadOptions,
        device: &Device,
    ) -> Result<(M, LoadReport)> {
        if let Some(task) = M::TASK {
            self.expect_task(task, config)?;
        }
        self.load(M::fresh(config, self, device)?, options)
    }

    /// Refuses a checkpoint of another task.
    fn expect_task(&self, task: &str, config: &ModelConfig) -> Result<()> {
        let named = &config.task().architectures;
        if self.is_for(task, named) {
            return Ok(());
        }
        let other_task = || {
            let named = named.join(", ");
            let problem = format!("config.json says that this is a {named}; this task needs a …{task}");
            Error::checkpoint(self.folder(), problem)
        };
        Err(foreign::unsupported(self.folder(), Part::Head).unwrap_or_else(other_task))
    }

    /// Why this checkpoint has no masked language model.
    fn no_language_model(&self) -> Error {
        let what = match self.keys().any(|key| key.contains("mask_predictions.")) {
            true => {
                "these are the weights of a discriminator (replaced token detection), which tells replaced words but cannot \
                 guess any"
            }
            false => "there is no language model head (`lm_predictions.*`, `cls.predictions.*` or `lm_head.*`)",
        };
        Error::checkpoint(self.folder(), format!("{what}; use a masked language model, such as deberta-base"))
    }
}

macro_rules! pretrained {
    ($($model:ident, $task:expr, $fresh:expr;)*) => {$(
        impl Pretrained for $model {
            const TASK: Option<&'static str> = $task;

            fn fresh(config: &ModelConfig, checkpoint: &Checkpoint, device: &Device) -> Result<Self> {
                let fresh: fn(&ModelConfig, &Checkpoint, &Device) -> Result<Self> = $fresh;
                fresh(config, checkpoint, device)
            }
        }

        impl $model {
            /// The model of a checkpoint folder, in f32. [`Checkpoint::load`] has more options, and a report.
            ///
            /// # Errors
            /// A missing or damaged file, or a checkpoint without this head.
            pub fn from_folder(folder: impl AsRef<Path>, device: &Device) -> Result<Self> {
                let (folder, options) = (folder.as_ref(), LoadOptions::default());
                let config = ModelConfig::from_folder(folder)?;
                Ok(Checkpoint::open(folder)?.model(&config, &options, device)?.0)
            }

            /// The same for a folder or the id of a repository on the Hugging Face Hub, see [`locate`].
            ///
            /// # Errors
            /// As [`from_folder`](Self::from_folder) and [`locate`].
            pub fn from_pretrained(model: &str, device: &Device) -> Result<Self> {
                Self::from_folder(locate(model, None)?, device)
            }
        }
    )*};
}

pretrained! {
    Backbone, None, |config, _, device| Ok(Self::new(config, device));
    MaskedLm, None, |config, checkpoint, device| {
        let layout = checkpoint.masked_lm_layout().ok_or_else(|| checkpoint.no_language_model())?;
        Self::new(config, layout, device)
    };
    MultipleChoice, Some("ForMultipleChoice"), |config, _, device| Ok(Self::new(config, device));
    QuestionAnswering, Some("ForQuestionAnswering"), |config, _, device| Ok(Self::new(config, device));
    ReplacedTokenDetection, None, |config, _, device| Ok(Self::new(config, device));
    SequenceClassification, Some("ForSequenceClassification"), |config, _, device| Ok(Self::new(config, device));
    TokenClassification, Some("ForTokenClassification"), |config, _, device| Ok(Self::new(config, device));
}

impl ModelConfig {
    /// The configuration of a folder or of a repository on the Hugging Face Hub, see [`locate`].
    ///
    /// # Errors
    /// As [`from_folder`](Self::from_folder) and [`locate`].
    pub fn from_pretrained(model: &str) -> Result<Self> {
        Self::from_folder(locate(model, None)?)
    }
}

impl Tokenizer {
    /// The tokenizer of a folder or of a repository on the Hugging Face Hub, see [`locate`].
    ///
    /// # Errors
    /// As [`from_folder`](Self::from_folder) and [`locate`].
    pub fn from_pretrained(model: &str) -> Result<Self> {
        Self::from_folder(locate(model, None)?)
    }
}
