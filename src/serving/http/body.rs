//! What bodies are made of. Types refuse what the OpenAPI document excludes, before any model is asked.

use std::{fmt, marker::PhantomData, time::Duration};

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::{StatusCode, header},
};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::Value;

use super::App;
use crate::serving::Problem;

/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(30);

/// A JSON body, whatever its declared type.
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<App> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let limit = app.settings.payload_limit;
        let too_large = || Problem::TooLarge(format!("the body has more than {limit} bytes"));
        let announced =
            request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        if announced.is_some_and(|length: usize| length > limit) {
            return Err(too_large());
        }
        let late = |_| Problem::Timeout(format!("the body did not arrive within {} s", BODY_TIME.as_secs()));
        let bytes = tokio::time::timeout(BODY_TIME, Bytes::from_request(request, app)).await.map_err(late)?;
        let bytes = bytes.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => too_large(),
            _ => Problem::Validation(format!("the body cannot be read: {rejection}")),
        })?;
        let mut deserializer = serde_json::Deserializer::from_slice(&bytes);
        let Object(body) = serde_path_to_error::deserialize(&mut deserializer).map_err(unexpected)?;
        deserializer.end().map_err(|error| Problem::Validation(format!("the body goes on after its end: {error}")))?;
        Ok(Self(body))
    }
}

/// Reads a body whose form depends on the model.
pub fn parse<T: DeserializeOwned>(value: Value) -> Result<T, Problem> {
    serde_path_to_error::deserialize(value).map(|Object(body)| body).map_err(unexpected)
}

fn unexpected(error: serde_path_to_error::Error<serde_json::Error>) -> Problem {
    Problem::Validation(format!("the body is not what is expected: {error}"))
}

/// A struct with the names of its fields. Derived readers alone also take a list of their values.
#[derive(Default)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(fields)).map(Object)
            }
        }

        deserializer.deserialize_map(Fields(PhantomData))
    }
}

/// One input, or a list of them.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected one, or a list of at least one")]
pub enum Inputs<T> {
    /// One, not in a list.
    One(T),
    /// A list.
    Many(List<T>),
}

impl<T> Inputs<T> {
    /// How many there are.
    pub fn count(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(List(many)) => many.len(),
        }
    }

    /// All, and whether it was one.
    pub fn into_list(self) -> (Vec<T>, bool) {
        match self {
            Self::One(one) => (vec![one], true),
            Self::Many(List(many)) => (many, false),
        }
    }
}

/// A list of at least one.
#[derive(Deserialize)]
#[serde(try_from = "Vec<T>")]
pub struct List<T>(pub Vec<T>);

impl<T> TryFrom<Vec<T>> for List<T> {
    type Error = &'static str;

    fn try_from(list: Vec<T>) -> Result<Self, Self::Error> {
        match list.is_empty() {
            true => Err("the list is empty, expected at least one"),
            false => Ok(Self(list)),
        }
    }
}

/// A whole number from `LEAST` to 2^32 - 1. `58.0` is one, as in JSON Schema.
#[derive(Clone, Copy)]
pub struct Count<const LEAST: u32 = 0>(pub u32);

impl<const LEAST: u32> Count<LEAST> {
    /// The number.
    pub fn get(self) -> usize {
        self.0 as usize
    }
}

impl<'de, const LEAST: u32> Deserialize<'de> for Count<LEAST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // An f64 holds all of these numbers as they are.
        let number = f64::deserialize(deserializer)?;
        let fits = number.fract() == 0.0 && (f64::from(LEAST)..=f64::from(u32::MAX)).contains(&number);
        match fits {
            true => Ok(Self(number as u32)),
            false => Err(D::Error::custom(format!("{number} is not a whole number from {LEAST} to {}", u32::MAX))),
        }
    }
}

/// A number from 0 to 1. What rounds to one as f32 does not count.
#[derive(Clone, Copy)]
pub struct Probability(pub f32);

impl<'de> Deserialize<'de> for Probability {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = f64::deserialize(deserializer)?;
        match (0.0..=1.0).contains(&number) {
            true => Ok(Self(number as f32)),
            false => Err(D::Error::custom(format!("{number} is not a probability from 0 to 1"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_in_their_range_are_counts() {
        let count = |text: &str| serde_json::from_str::<Count<1>>(text).map(Count::get).map_err(|e| e.to_string());
        assert_eq!(count("58"), Ok(58));
        assert_eq!(count("58.0"), Ok(58));
        assert_eq!(count("4294967295"), Ok(4294967295));
        for wrong in ["0", "-1", "1.5", "4294967296", "1e300"] {
            assert!(count(wrong).unwrap_err().contains("is not a whole number from 1 to 4294967295"), "{wrong}");
        }
        assert!(count("\"5\"").is_err() && count("null").is_err() && count("true").is_err());
    }

    #[test]
    fn probabilities_end_at_0_and_1() {
        let read = |text: &str| serde_json::from_str::<Probability>(text).map(|Probability(number)| number).ok();
        assert_eq!(["0", "0.5", "1"].map(read), [Some(0.0), Some(0.5), Some(1.0)]);
        assert_eq!(["-1e-323", "1.0000000000000002", "2"].map(read), [None; 3]);
    }

    #[test]
    fn objects_are_no_lists() {
        #[derive(Debug, Deserialize)]
        struct Fields {
            first: u32,
        }
        let read = |text: &str| serde_json::from_str::<Object<Fields>>(text);
        assert_eq!(read(r#"{"first": 5}"#).map(|Object(fields)| fields.first).unwrap(), 5);
        assert!(read("[5]").err().unwrap().to_string().contains("expected an object"));
    }

    #[test]
    fn inputs_are_one_or_some() {
        let inputs = |text: &str| serde_json::from_str::<Inputs<Count>>(text).map(Inputs::into_list);
        let values = |text: &str| inputs(text).map(|(list, one)| (list.iter().map(|n| n.0).collect::<Vec<_>>(), one));
        assert_eq!(values("5").unwrap(), (vec![5], true));
        assert_eq!(values("[5, 6]").unwrap(), (vec![5, 6], false));
        assert!(inputs("[]").err().unwrap().to_string().contains("a list of at least one"));
    }
}
