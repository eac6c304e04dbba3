//! Amounts as people write them: spans of time and sizes in bytes.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The formats' names in the JSON Schema, by which a validator that knows them can check them.
pub(super) const PERIOD: &str = "period";
pub(super) const SIZE: &str = "size";

/// The longest period; a longer one is a slip of the unit.
const LONGEST: Duration = Duration::from_hours(24 * 366);

/// A span of time: `500ms`, `10s`, `12h`, `1h 30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

/// A number of bytes: an integer, or `512B`, `64KiB`, `4MiB`, `1GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A text that is no amount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// No span of time.
    #[error("`{0}` is not a span of time")]
    Period(String),
    /// More than 366 days.
    #[error("`{0}` is longer than 366 days")]
    TooLong(String),
    /// No size.
    #[error("`{0}` is not a size")]
    Size(String),
}

impl AmountError {
    /// How an amount of this format is written.
    pub(super) fn hint(format: &str) -> &'static str {
        if format == PERIOD {
            "a span of time is written like `500ms`, `10s`, `12h` or `1h 30m`, at most 366 days"
        } else {
            "a size is a number of bytes, or written like `64KiB`, `4MiB` or `1GiB`"
        }
    }
}

impl FromStr for Period {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        match humantime::parse_duration(text) {
            Ok(span) if span > LONGEST => Err(AmountError::TooLong(text.to_owned())),
            Ok(span) => Ok(Self(span)),
            Err(_) => Err(AmountError::Period(text.to_owned())),
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

const UNITS: [(&str, u64); 4] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

impl FromStr for Size {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        let wrong = || AmountError::Size(text.to_owned());
        let unit = UNITS
            .iter()
            .find_map(|(unit, by)| Some((text.strip_suffix(unit)?, *by)));
        let (digits, by) = unit.unwrap_or((text, 1));
        let digits = digits.trim_end();
        if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(wrong());
        }
        digits
            .parse::<u64>()
            .ok()
            .and_then(|n| n.checked_mul(by))
            .map(Self)
            .ok_or_else(wrong)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, by): &&(&str, u64)| self.0 >= *by && self.0.is_multiple_of(*by);
        match UNITS.iter().find(fits) {
            Some((unit, by)) => write!(f, "{}{unit}", self.0 / by),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<str>::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Bytes(u64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Bytes(bytes) => Ok(Self(bytes)),
            Written::Text(text) => text.parse().map_err(D::Error::custom),
        }
    }
}

impl JsonSchema for Period {
    fn schema_name() -> Cow<'static, str> {
        "Period".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": PERIOD })
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["integer", "string"], "format": SIZE, "minimum": 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_read_and_written() {
        for (text, seconds) in [("10s", 10), ("12h", 43_200), ("1h 30m", 5_400), ("0s", 0)] {
            let period: Period = text.parse().unwrap();
            assert_eq!(period, Period(Duration::from_secs(seconds)));
            assert_eq!(period.to_string().parse(), Ok(period));
        }
        for text in ["", "10", "soon", "-1s"] {
            assert_eq!(
                text.parse::<Period>(),
                Err(AmountError::Period(text.into()))
            );
        }
        assert_eq!(
            "9999h".parse::<Period>(),
            Err(AmountError::TooLong("9999h".into()))
        );
    }

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes) in [
            ("0", 0),
            ("512B", 512),
            ("64KiB", 65_536),
            ("4 MiB", 4 << 20),
        ] {
            let size: Size = text.parse().unwrap();
            assert_eq!(size, Size(bytes));
            assert_eq!(size.to_string().parse(), Ok(size));
        }
        for text in [
            "",
            "4MB",
            "4 mib",
            "-1",
            "+1",
            "1.5MiB",
            "99999999999999GiB",
            "MiB",
        ] {
            assert_eq!(
                text.parse::<Size>(),
                Err(AmountError::Size(text.into())),
                "{text}"
            );
        }
        assert_eq!(Size(4 << 20).to_string(), "4MiB");
        assert_eq!(Size(1_000).to_string(), "1000B");
    }
}
