//! Text for pretraining: tokenised once, packed into sequences, and read from a cache file on disk.

mod cache;
mod pack;
mod paragraphs;

use std::{
    fs,
    path::{Path, PathBuf},
};

use rayon::prelude::*;
use sha2::{Digest as _, Sha256};

use self::{
    cache::{Cache, Digest},
    pack::Packer,
    paragraphs::Format,
};
use super::file_digest;
use crate::{Error, Result, replacement::Replacement, tokenizer::Tokenizer};

pub use self::paragraphs::{Paragraph, Paragraphs};

/// How a text is cut into sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CorpusOptions {
    /// Tokens of a sequence, `[CLS]` and `[SEP]` included. Only the last sequence of a document is shorter; if
    /// documents are mixed, only the last sequence of all.
    pub length: usize,
    /// Whether a sequence goes on, after a `[SEP]`, with the next document when one ends.
    pub mix_documents: bool,
}

impl Default for CorpusOptions {
    /// 512 tokens, documents not mixed.
    fn default() -> Self {
        Self { length: 512, mix_documents: false }
    }
}

/// One sequence of a [`Corpus`]; both lists have one entry for each token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// Token ids: `[CLS]`, text, `[SEP]`.
    pub ids: Vec<u32>,
    /// Whether a word starts at the token. Spaces separate words. A single punctuation mark is a word too, and so is a
    /// special token; the text after `[CLS]` starts a word.
    pub word_starts: Vec<bool>,
}

/// Token sequences for pretraining, in the order of the text.
///
/// They are in a memory-mapped cache file, so that a corpus takes no memory of its own and opens at once. The file may
/// be removed at any time (it is built again when needed). It must not be changed in place.
#[derive(Debug)]
pub struct Corpus {
    cache: Cache,
}

impl Corpus {
    /// Opens the corpus of these text files (see [`Paragraphs`] for their formats). If it is not in the folder `cache`
    /// yet, it is built first.
    ///
    /// The name and the content of the cache file contain a digest of the texts, the tokenizer and the options: if one
    /// of them changes, another file is built. A damaged file is built anew, with a warning to `tracing`. The file has
    /// 4 bytes for each token, about as much as the text.
    ///
    /// While the corpus is built, `progress` is called with the bytes read so far and the bytes of all files.
    ///
    /// # Errors
    /// A length without room for text; text files that cannot be read or contain no text; a cache folder that cannot be
    /// written.
    pub fn open_or_build(
        files: &[PathBuf],
        tokenizer: &Tokenizer,
        options: &CorpusOptions,
        cache: &Path,
        progress: impl FnMut(u64, u64),
    ) -> Result<Self> {
        if options.length < 3 {
            return Err(Error::value("length", options.length, "at least 3: [CLS], a token of text, [SEP]"));
        }
        let digest = digest(files, tokenizer, options)?;
        let name = u64::from_be_bytes(std::array::from_fn(|byte| digest[byte]));
        let path = cache.join(format!("corpus-{name:016x}.bin"));
        if path.is_file() {
            match Cache::open(&path, digest) {
                Ok(cache) => return Ok(Self { cache }),
                Err(problem) => tracing::warn!("{}: {problem}; it is built again", path.display()),
            }
        }
        fs::create_dir_all(cache).map_err(Error::io("create", cache))?;
        let file = Replacement::new(path.clone(), |file| {
            let mut packer = Packer::new(file, &path, tokenizer, options)?;
            packer.pack(Paragraphs::open(files)?, progress)?;
            packer.finish(files, digest)
        })?;
        file.commit()?;
        let cache = Cache::open(&path, digest).map_err(|problem| Error::file(path, problem))?;
        Ok(Self { cache })
    }

    /// Number of sequences.
    pub fn len(&self) -> usize {
        self.cache.sequences()
    }

    /// Whether there is no sequence. A corpus that could be opened has at least one.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of tokens of all sequences, special tokens included.
    pub fn tokens(&self) -> usize {
        self.cache.tokens()
    }

    /// Reads a sequence.
    ///
    /// # Panics
    /// If `index` is not below [`Corpus::len`].
    pub fn sequence(&self, index: usize) -> Sequence {
        self.cache.sequence(index)
    }
}

/// The digest of everything that determines the content of a corpus.
fn digest(files: &[PathBuf], tokenizer: &Tokenizer, options: &CorpusOptions) -> Result<Digest> {
    let tokenizer_json = tokenizer.to_json()?;
    let mut sha = Sha256::new();
    let numbers = [
        cache::VERSION,
        options.length as u64,
        options.mix_documents.into(),
        tokenizer.cls_id().into(),
        tokenizer.sep_id().into(),
        tokenizer_json.len() as u64,
    ];
    sha.update(numbers.map(u64::to_le_bytes).as_flattened());
    sha.update(tokenizer_json);
    let texts: Vec<(Format, String)> =
        files.par_iter().map(|path| Ok((Format::of(path)?, file_digest(path)?))).collect::<Result<_>>()?;
    for (format, digest) in texts {
        sha.update([u8::from(format.json), u8::from(format.compressed)]);
        sha.update(digest);
    }
    Ok(sha.finalize().into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{repository::fixture, tokenizer::EncodeOptions};

    const BYTE_LEVEL: &str = "tokenizers/deberta";

    fn tokenizer() -> Tokenizer {
        Tokenizer::from_folder(fixture("small_tokenizer")).unwrap()
    }

    /// A folder with a text file and room for the cache.
    struct Setting {
        folder: tempfile::TempDir,
        files: Vec<PathBuf>,
        tokenizer: Tokenizer,
    }

    impl Setting {
        fn new(text: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let files = vec![folder.path().join("text.txt")];
            fs::write(&files[0], text).unwrap();
            Self { folder, files, tokenizer: tokenizer() }
        }

        fn cache(&self) -> PathBuf {
            self.folder.path().join("cache")
        }

        /// Opens the corpus; also says whether it had to be built.
        fn open(&self, options: CorpusOptions) -> Result<(Corpus, bool)> {
            let mut built = false;
            let progress = |done, total| {
                assert!(done <= total);
                built = true;
            };
            let corpus = Corpus::open_or_build(&self.files, &self.tokenizer, &options, &self.cache(), progress)?;
            Ok((corpus, built))
        }

        fn sequences(&self, length: usize, mix_documents: bool) -> Vec<Sequence> {
            let (corpus, _) = self.open(CorpusOptions { length, mix_documents }).unwrap();
            let sequences: Vec<_> = (0..corpus.len()).map(|index| corpus.sequence(index)).collect();
            assert_eq!(corpus.tokens(), sequences.iter().map(|sequence| sequence.ids.len()).sum::<usize>());
            sequences
        }

        fn cached(&self) -> Vec<PathBuf> {
            fs::read_dir(self.cache()).unwrap().map(|entry| entry.unwrap().path()).collect()
        }

        /// The ids of a text alone.
        fn ids(&self, text: &str) -> Vec<u32> {
            let options = EncodeOptions { add_special_tokens: false, ..EncodeOptions::default() };
            self.tokenizer.encode(&[text.into()], &options).unwrap()[0].ids.clone()
        }

        fn with_ends(&self, ids: &[u32]) -> Vec<u32> {
            [&[self.tokenizer.cls_id()], ids, &[self.tokenizer.sep_id()]].concat()
        }
    }

    #[test]
    fn paragraphs_of_a_document_follow_each_other() {
        let setting = Setting::new("It was the best of times,\nit was the worst of times.\n\nA new document.");
        let first = [setting.ids("It was the best of times,"), setting.ids("it was the worst of times.")].concat();
        let second = setting.ids("A new document.");
        let ids: Vec<_> = setting.sequences(64, false).into_iter().map(|sequence| sequence.ids).collect();
        assert_eq!(ids, [setting.with_ends(&first), setting.with_ends(&second)]);

        let both = [&first[..], &[setting.tokenizer.sep_id()], &second].concat();
        let ids: Vec<_> = setting.sequences(64, true).into_iter().map(|sequence| sequence.ids).collect();
        assert_eq!(ids, [setting.with_ends(&both)]);
    }

    #[test]
    fn documents_are_cut_to_the_length() {
        let setting = Setting::new("one two three four five six seven\n\neight nine");
        let text = setting.ids("one two three four five six seven");
        let mut expected: Vec<_> = text.chunks(4).map(|chunk| setting.with_ends(chunk)).collect();
        expected.extend(setting.ids("eight nine").chunks(4).map(|chunk| setting.with_ends(chunk)));
        let ids: Vec<_> = setting.sequences(6, false).into_iter().map(|sequence| sequence.ids).collect();
        assert_eq!(ids, expected);
    }

    #[test]
    fn words_start_after_spaces_and_at_punctuation() {
        let byte_level = Tokenizer::from_folder(fixture(BYTE_LEVEL)).unwrap();
        for (tokenizer, expected) in [
            (tokenizer(), ["[CLS]", "▁unbelievably", ",", "▁don", "'t", "[SEP]"]),
            (byte_level, ["[CLS]", "unbelievably", ",", "Ġdon", "'t", "[SEP]"]),
        ] {
            let setting = Setting { tokenizer, ..Setting::new("unbelievably, don't") };
            let [sequence] = &setting.sequences(64, false)[..] else { panic!("one sequence") };
            let mut words: Vec<String> = Vec::new();
            for (&id, &start) in sequence.ids.iter().zip(&sequence.word_starts) {
                let token = setting.tokenizer.token(id).unwrap();
                match start {
                    true => words.push(token),
                    false => words.last_mut().unwrap().push_str(&token),
                }
            }
            assert_eq!(words, expected);
        }
    }

    #[test]
    fn a_corpus_is_built_once() {
        let options = CorpusOptions { length: 8, mix_documents: false };
        let mut setting = Setting::new("a text that is longer than eight tokens");
        let (first, built) = setting.open(options).unwrap();
        assert!(built);
        let (second, built) = setting.open(options).unwrap();
        assert!(!built);
        let all = |corpus: &Corpus| (0..corpus.len()).map(|index| corpus.sequence(index)).collect::<Vec<_>>();
        assert_eq!(all(&first), all(&second));

        // Another name of the same text changes nothing; other options, another tokenizer or another text do.
        let renamed = setting.folder.path().join("renamed.txt");
        fs::rename(&setting.files[0], &renamed).unwrap();
        setting.files[0] = renamed;
        assert!(!setting.open(options).unwrap().1);
        assert!(setting.open(CorpusOptions { length: 9, ..options }).unwrap().1);
        assert!(setting.open(CorpusOptions { mix_documents: true, ..options }).unwrap().1);
        fs::write(&setting.files[0], "another text").unwrap();
        assert!(setting.open(options).unwrap().1);
        setting.tokenizer = Tokenizer::from_folder(fixture(BYTE_LEVEL)).unwrap();
        assert!(setting.open(options).unwrap().1);
        assert_eq!(setting.cached().len(), 5);
    }

    #[test]
    fn a_damaged_cache_is_built_again() {
        let options = CorpusOptions::default();
        let setting = Setting::new("a text");
        let sequence = setting.open(options).unwrap().0.sequence(0);
        let [path] = &setting.cached()[..] else { panic!("one cache file") };
        let bytes = fs::read(path).unwrap();
        for damaged in [&bytes[..bytes.len() - 1], b"", &[&bytes[..97], &[1], &bytes[98..]].concat()] {
            fs::remove_file(path).unwrap();
            fs::write(path, damaged).unwrap();
            let (corpus, built) = setting.open(options).unwrap();
            assert!(built);
            assert_eq!(corpus.sequence(0), sequence);
        }
    }

    #[test]
    fn nothing_is_left_behind_by_a_failure() {
        let setting = Setting::new(" \n\n");
        let error = setting.open(CorpusOptions::default()).unwrap_err().to_string();
        assert!(error.ends_with("text.txt: no text found, expected at least one line of it"), "{error}");
        fs::write(&setting.files[0], b"text\n\xff").unwrap();
        let error = setting.open(CorpusOptions::default()).unwrap_err().to_string();
        assert!(error.contains("text.txt, line 2"), "{error}");
        assert!(setting.cached().is_empty());

        let error = setting.open(CorpusOptions { length: 2, mix_documents: false }).unwrap_err().to_string();
        assert!(error.contains("length: it is 2, expected at least 3"), "{error}");
    }

    #[test]
    #[should_panic(expected = "the corpus has 1 sequences, there is no sequence 1")]
    fn there_is_no_sequence_beyond_the_last() {
        Setting::new("a text").open(CorpusOptions::default()).unwrap().0.sequence(1);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

        #[test]
        fn no_token_is_lost(
            documents in proptest::collection::vec(proptest::collection::vec("[a-z ,]{0,30}[a-z]", 1..4), 1..5),
            length in 3usize..40,
        ) {
            let text: Vec<String> = documents.iter().map(|document| document.join("\n")).collect();
            let setting = Setting::new(&text.join("\n\n"));
            let expected: Vec<u32> = documents.iter().flatten().flat_map(|paragraph| setting.ids(paragraph)).collect();
            let sequences = setting.sequences(length, false);
            prop_assert!(sequences.iter().all(|sequence| sequence.ids.len() <= length && sequence.word_starts[1]));
            let ids: Vec<u32> =
                sequences.iter().flat_map(|sequence| &sequence.ids[1..sequence.ids.len() - 1]).copied().collect();
            prop_assert_eq!(ids, expected);
        }
    }
}
