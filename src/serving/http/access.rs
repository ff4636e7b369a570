//! API keys.

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// The keys that open the API; without any, it is open to all.
#[derive(Clone, Debug, Default)]
pub struct Keys(Vec<[u8; 32]>);

impl Keys {
    /// Takes keys; white space around them does not count, nor do empty ones.
    pub fn new(keys: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let keys = keys.into_iter().map(|key| key.as_ref().trim().to_owned()).filter(|key| !key.is_empty());
        Self(keys.map(|key| Sha256::digest(key).into()).collect())
    }

    /// Whether a header `Authorization` has one of the keys. The time that it takes says nothing about them.
    pub fn admit(&self, authorization: Option<&[u8]>) -> bool {
        let given = authorization.and_then(|value| value.strip_prefix(b"Bearer ")).unwrap_or_default();
        let digest: [u8; 32] = Sha256::digest(given).into();
        let known = self.0.iter().fold(Choice::from(0), |known, key| known | key.ct_eq(&digest));
        self.0.is_empty() || known.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_several_keys_is_enough_and_none_is_not() {
        let keys = Keys::new(["first ", "", "second"]);
        assert!(keys.admit(Some(b"Bearer first")) && keys.admit(Some(b"Bearer second")));
        for wrong in [None, Some(&b"Bearer "[..]), Some(b"Bearer firs"), Some(b"first"), Some(b"Bearer first ")] {
            assert!(!keys.admit(wrong), "{wrong:?}");
        }
        assert!(Keys::new(["", " "]).admit(None));
    }
}
