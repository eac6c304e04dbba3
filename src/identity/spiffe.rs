//! SPIFFE IDs, by the SPIFFE-ID specification: `spiffe://<trust-domain>/<path>`.

use std::fmt;
use std::str::FromStr;

/// A checked SPIFFE ID of a workload: a trust domain and a path that is not empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SpiffeId {
    text: String,
    domain_len: usize,
}

/// Why a text is not the SPIFFE ID of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeError {
    /// Not `spiffe://` (the scheme is lower case here: certificates carry the canonical form).
    #[error("a SPIFFE ID starts with `spiffe://`")]
    Scheme,
    /// More than 2048 bytes.
    #[error("a SPIFFE ID is longer than 2048 bytes")]
    TooLong,
    /// The trust domain is empty, longer than 255 bytes, or has a character outside `a-z0-9.-_`.
    #[error("the trust domain of a SPIFFE ID is 1 to 255 of `a-z 0-9 . - _`")]
    TrustDomain,
    /// No path: the ID of a trust domain, not of a workload.
    #[error("the SPIFFE ID of a workload has a path")]
    NoPath,
    /// An empty segment, `.`, `..`, or a character outside `A-Za-z0-9.-_`.
    #[error(
        "a path segment of a SPIFFE ID is one or more of `A-Z a-z 0-9 . - _`, and not `.` or `..`"
    )]
    Segment,
}

impl SpiffeId {
    /// Builds `spiffe://<domain>/<path>` and checks it.
    ///
    /// # Errors
    /// As [`SpiffeError`] says.
    pub fn new(domain: &str, path: &str) -> Result<Self, SpiffeError> {
        format!("spiffe://{domain}/{path}").parse()
    }

    /// Checks a trust domain on its own, as `ca init --trust-domain` takes it.
    ///
    /// # Errors
    /// [`SpiffeError::TrustDomain`].
    pub fn check_trust_domain(domain: &str) -> Result<(), SpiffeError> {
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_".contains(&b);
        if domain.is_empty() || domain.len() > 255 || !domain.bytes().all(fits) {
            return Err(SpiffeError::TrustDomain);
        }
        Ok(())
    }

    /// The whole ID.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.text["spiffe://".len()..][..self.domain_len]
    }

    /// The path without its leading slash.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.text["spiffe://".len() + self.domain_len + 1..]
    }

    /// The path's last segment, which is also the CN of the certificate.
    #[must_use]
    pub fn last_segment(&self) -> &str {
        self.path().rsplit('/').next().unwrap_or_default()
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > 2048 {
            return Err(SpiffeError::TooLong);
        }
        let rest = text.strip_prefix("spiffe://").ok_or(SpiffeError::Scheme)?;
        let (domain, path) = rest.split_once('/').ok_or(SpiffeError::NoPath)?;
        Self::check_trust_domain(domain)?;
        let fits = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
        for segment in path.split('/') {
            if segment.is_empty() || segment == "." || segment == ".." || !segment.bytes().all(fits)
            {
                return Err(SpiffeError::Segment);
            }
        }
        Ok(Self {
            text: text.to_owned(),
            domain_len: domain.len(),
        })
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_id_is_taken_apart() {
        let id = SpiffeId::new("countersign.internal", "team/agent-7").unwrap();
        assert_eq!(id.trust_domain(), "countersign.internal");
        assert_eq!(id.path(), "team/agent-7");
        assert_eq!(id.last_segment(), "agent-7");
    }

    #[test]
    fn what_the_specification_forbids_is_refused() {
        let refused =
            |text: &str, error| assert_eq!(text.parse::<SpiffeId>(), Err(error), "{text}");
        refused("https://a/b", SpiffeError::Scheme);
        refused("spiffe://Example.org/a", SpiffeError::TrustDomain);
        refused("spiffe:///a", SpiffeError::TrustDomain);
        refused("spiffe://a:80/b", SpiffeError::TrustDomain);
        refused("spiffe://a", SpiffeError::NoPath);
        refused("spiffe://a/", SpiffeError::Segment);
        refused("spiffe://a/b//c", SpiffeError::Segment);
        refused("spiffe://a/b/../c", SpiffeError::Segment);
        refused("spiffe://a/b?c", SpiffeError::Segment);
        refused("spiffe://a/%41", SpiffeError::Segment);
        refused(
            &format!("spiffe://a/{}", "b".repeat(2048)),
            SpiffeError::TooLong,
        );
    }
}
