//! Who may use the API: API keys, and the origins of web pages.

use axum::http::HeaderValue;
use regex::Regex;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};
use tower_http::cors::{AllowHeaders, AllowOrigin, Any, CorsLayer};

use crate::{Error, Result};

/// The keys that open the API; without any, it is open to all.
#[derive(Clone, Debug, Default)]
pub struct Keys(Vec<[u8; 32]>);

impl Keys {
    /// Takes keys; white space around them does not count, nor do empty ones.
    pub fn new(keys: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let keys = keys.into_iter().map(|key| key.as_ref().trim().to_owned()).filter(|key| !key.is_empty());
        Self(keys.map(|key| Sha256::digest(key).into()).collect())
    }

    /// Whether there are none, so that the API is open to all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a header `Authorization` has one of the keys. The time that it takes says nothing about them.
    pub fn admit(&self, authorization: Option<&[u8]>) -> bool {
        let given = authorization.and_then(|value| value.strip_prefix(b"Bearer ")).unwrap_or_default();
        let digest: [u8; 32] = Sha256::digest(given).into();
        let known = self.0.iter().fold(Choice::from(0), |known, key| known | key.ct_eq(&digest));
        self.is_empty() || known.into()
    }
}

/// The origins whose web pages may use the API; by default, there are none.
#[derive(Clone, Debug, Default)]
pub struct Origins(Option<AllowOrigin>);

impl Origins {
    /// Takes origins as browsers send them, `scheme://host` with the port that is not the scheme's own; `*` among them stands for
    /// all.
    ///
    /// # Errors
    /// What is no origin, and so would never be met.
    pub fn new(origins: &[String]) -> Result<Self> {
        let origins: Vec<&str> = origins.iter().map(|origin| origin.trim()).collect();
        if origins.is_empty() {
            return Ok(Self(None));
        }
        if origins.contains(&"*") {
            return Ok(Self(Some(AllowOrigin::any())));
        }
        let pattern = Regex::new(r"^[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]+)?$");
        let pattern = pattern.expect("a valid pattern");
        let expected = "scheme://host or scheme://host:port, in lower case and without a path, or * for all";
        let value = |origin: &str| match pattern.is_match(origin) {
            true => Ok(HeaderValue::from_str(origin).expect("a header may have all characters of the pattern")),
            false => Err(Error::value("--cors-allow-origin", format!("`{origin}`"), expected)),
        };
        let values = origins.into_iter().map(value).collect::<Result<Vec<_>>>()?;
        Ok(Self(Some(AllowOrigin::list(values))))
    }

    /// What tells browsers of them; nothing, if there are none. The headers of a request are allowed by their names, since `*` does
    /// not stand for `Authorization`.
    pub(super) fn layer(&self) -> Option<CorsLayer> {
        let layer = |origins: &AllowOrigin| {
            let layer = CorsLayer::new().allow_methods(Any).allow_headers(AllowHeaders::mirror_request());
            layer.expose_headers(Any).allow_origin(origins.clone())
        };
        self.0.as_ref().map(layer)
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
        let none = Keys::new(["", " "]);
        assert!(none.is_empty() && none.admit(None) && !keys.is_empty());
    }

    fn origins(origins: &[&str]) -> Result<Origins> {
        Origins::new(&origins.iter().map(|origin| origin.to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn origins_are_as_browsers_send_them() {
        assert!(origins(&[]).unwrap().layer().is_none());
        let fine = ["https://a.example", " http://localhost:8080", "http://[::1]:3000", "chrome-extension://abc"];
        assert!(origins(&fine).unwrap().layer().is_some());
        // `*` may stand anywhere.
        assert!(origins(&["https://a.example", "*"]).unwrap().layer().is_some());
        for wrong in
            ["", "a.example", "https://", "https://a.example/", "https://A.example", "https://*.example", "null"]
        {
            let problem = origins(&["https://a.example", wrong]).unwrap_err().to_string();
            assert!(problem.starts_with(&format!("--cors-allow-origin: it is `{wrong}`, expected ")), "{problem}");
        }
    }
}
