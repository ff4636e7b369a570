//! The cache file of a corpus: tokens and the ends of sequences, read through a memory map.
//!
//! All numbers are little-endian:
//!
//! | bytes | content |
//! |---|---|
//! | 8 | `DeBCorp` and a zero |
//! | 8 | version of the format |
//! | 8 | number of tokens |
//! | 8 | number of sequences |
//! | 32 | digest of what the corpus was made from |
//! | 32 | SHA-256 of the rest of the file |
//! | 4 each | tokens: the id, and in the highest bit whether a word starts there |
//! | 8 each | the end of each sequence, counted in tokens |

use std::{
    fs::File,
    io::{self, Seek, SeekFrom, Write},
    path::Path,
};

use memmap2::Mmap;
use sha2::{Digest as _, Sha256};

use super::Sequence;

/// A SHA-256 digest.
pub(super) type Digest = [u8; 32];

/// Raise it when the format changes, or when the same text gives other tokens.
pub(super) const VERSION: u64 = 1;

const MAGIC: [u8; 8] = *b"DeBCorp\0";
const HEADER: usize = 96;
const WORD_START: u32 = 1 << 31;

/// The beginning of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    tokens: u64,
    sequences: u64,
    digest: Digest,
    checksum: Digest,
}

impl Header {
    fn to_bytes(self) -> Vec<u8> {
        let numbers = [VERSION, self.tokens, self.sequences].map(u64::to_le_bytes);
        [&MAGIC[..], numbers.as_flattened(), &self.digest, &self.checksum].concat()
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let header = bytes.get(..HEADER).ok_or("it ends within its header")?;
        let number_at = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
        let digest_at = |at: usize| header[at..at + 32].try_into().expect("32 bytes");
        if header[..8] != MAGIC {
            return Err("it is no corpus".into());
        }
        if number_at(8) != VERSION {
            return Err(format!("its format has the version {}, expected {VERSION}", number_at(8)));
        }
        Ok(Self { tokens: number_at(16), sequences: number_at(24), digest: digest_at(32), checksum: digest_at(64) })
    }

    /// Size in bytes of a file with this header; none if no file can be that large.
    fn file_size(&self) -> Option<u64> {
        let tokens = self.tokens.checked_mul(4)?;
        self.sequences.checked_mul(8)?.checked_add(tokens)?.checked_add(HEADER as u64)
    }
}

/// Writes a cache file, one sequence after the other.
pub(super) struct Writer<W> {
    file: W,
    checksum: Sha256,
    tokens: u64,
    ends: Vec<u64>,
}

impl<W: Write + Seek> Writer<W> {
    /// Starts at the beginning of an empty file.
    pub(super) fn new(mut file: W) -> io::Result<Self> {
        file.write_all(&[0; HEADER])?;
        Ok(Self { file, checksum: Sha256::new(), tokens: 0, ends: Vec::new() })
    }

    /// Adds a sequence: each id, and whether a word starts there.
    pub(super) fn push(&mut self, tokens: impl IntoIterator<Item = (u32, bool)>) -> io::Result<()> {
        let words = tokens.into_iter().map(|(id, start)| id | if start { WORD_START } else { 0 });
        let bytes: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
        self.tokens += bytes.len() as u64 / 4;
        self.ends.push(self.tokens);
        self.body(&bytes)
    }

    /// Number of sequences so far.
    pub(super) fn sequences(&self) -> usize {
        self.ends.len()
    }

    /// Completes the file.
    pub(super) fn finish(mut self, digest: Digest) -> io::Result<()> {
        let ends: Vec<u8> = self.ends.iter().flat_map(|end| end.to_le_bytes()).collect();
        self.body(&ends)?;
        let sequences = self.ends.len() as u64;
        let header = Header { tokens: self.tokens, sequences, digest, checksum: self.checksum.finalize().into() };
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&header.to_bytes())
    }

    fn body(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.checksum.update(bytes);
        self.file.write_all(bytes)
    }
}

/// An opened cache file.
#[derive(Debug)]
pub(super) struct Cache {
    map: Mmap,
    header: Header,
}

impl Cache {
    /// Opens a file and checks all of it; the error says what is wrong.
    pub(super) fn open(path: &Path, digest: Digest) -> Result<Self, String> {
        let file = File::open(path).map_err(|error| error.to_string())?;
        // SAFETY: the map is only read, and sound as long as nobody changes the file in place. The crate never does: it
        // replaces a cache file by another one.
        let map = unsafe { Mmap::map(&file) }.map_err(|error| error.to_string())?;
        let header = Header::parse(&map)?;
        if header.digest != digest {
            return Err("it was made from other text, another tokenizer or with other options".into());
        }
        if header.file_size() != Some(map.len() as u64) {
            let (found, tokens, sequences) = (map.len(), header.tokens, header.sequences);
            return Err(format!("it has {found} bytes, which do not fit its {tokens} tokens in {sequences} sequences"));
        }
        let checksum: Digest = Sha256::digest(&map[HEADER..]).into();
        if header.checksum != checksum {
            return Err("its checksum is wrong".into());
        }
        Ok(Self { map, header })
    }

    /// Number of tokens.
    pub(super) fn tokens(&self) -> usize {
        self.header.tokens as usize
    }

    /// Number of sequences.
    pub(super) fn sequences(&self) -> usize {
        self.header.sequences as usize
    }

    /// Reads a sequence; panics if there is none of this index.
    pub(super) fn sequence(&self, index: usize) -> Sequence {
        let sequences = self.sequences();
        assert!(index < sequences, "the corpus has {sequences} sequences, there is no sequence {index}");
        let (tokens, ends) = self.map[HEADER..].split_at(self.tokens() * 4);
        let end = |index: usize| {
            let end = &ends[index * 8..][..8];
            u64::from_le_bytes(end.try_into().expect("eight bytes")) as usize
        };
        let start = if index == 0 { 0 } else { end(index - 1) };
        let (tokens, _) = tokens[start * 4..end(index) * 4].as_chunks();
        let (ids, word_starts) = tokens
            .iter()
            .map(|&token| u32::from_le_bytes(token))
            .map(|token| (token & !WORD_START, token & WORD_START != 0))
            .unzip();
        Sequence { ids, word_starts }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;

    const DIGEST: Digest = [7; 32];

    fn written() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("corpus");
        let mut writer = Writer::new(File::create(&path).unwrap()).unwrap();
        writer.push([(5, true), (WORD_START - 1, false)]).unwrap();
        writer.push([(0, true)]).unwrap();
        assert_eq!(writer.sequences(), 2);
        writer.finish(DIGEST).unwrap();
        (folder, path)
    }

    #[test]
    fn what_was_written_is_read() {
        let (_folder, path) = written();
        let cache = Cache::open(&path, DIGEST).unwrap();
        assert_eq!((cache.sequences(), cache.tokens()), (2, 3));
        assert_eq!(cache.sequence(0), Sequence { ids: vec![5, WORD_START - 1], word_starts: vec![true, false] });
        assert_eq!(cache.sequence(1), Sequence { ids: vec![0], word_starts: vec![true] });
    }

    #[test]
    fn every_damage_is_seen() {
        let (_folder, path) = written();
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            Cache::open(&path, DIGEST).unwrap_err();
        }
        for damaged in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[damaged] ^= 1;
            fs::write(&path, bytes).unwrap();
            Cache::open(&path, DIGEST).unwrap_err();
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let (_folder, path) = written();
        let whole = fs::read(&path).unwrap();
        assert!(Cache::open(&path, [8; 32]).unwrap_err().contains("made from other text"));
        let problem = |at: usize| {
            let mut bytes = whole.clone();
            bytes[at] ^= 2;
            fs::write(&path, bytes).unwrap();
            Cache::open(&path, DIGEST).unwrap_err()
        };
        assert_eq!(problem(0), "it is no corpus");
        assert_eq!(problem(8), "its format has the version 3, expected 1");
        assert_eq!(problem(16), "it has 124 bytes, which do not fit its 1 tokens in 2 sequences");
        assert_eq!(problem(HEADER), "its checksum is wrong");
    }
}
