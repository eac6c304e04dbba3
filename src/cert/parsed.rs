//! What one certificate says.
use crate::clock::UnixTime;
use crate::grant::WrittenGrants;
use crate::identity::Fingerprint;

/// `1.3.6.1.4.1.32473.8.1`: IANA's documentation number; an organisation sets its own.
pub const DEFAULT_PERMISSION_OID: &str = "1.3.6.1.4.1.32473.8.1";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("not an X.509 certificate: {0}")] Der(String),
    #[error("the certificate carries the extension {0} twice")] Duplicate(String),
    #[error(transparent)] Permissions(#[from] crate::grant::ExtensionError),
}

/// The fields that identity and permissions are read from; nothing is judged yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    pub fingerprint: Fingerprint,
    /// Lower-case hex without leading zeros' loss: the DER integer's content bytes.
    pub serial: String,
    /// Every CN of the subject.
    pub common_names: Vec<String>,
    /// The subject in RFC 4514 form, for people.
    pub subject: String,
    pub issuer: String,
    /// URI SANs, in order.
    pub uris: Vec<String>,
    /// DNS SANs, in order.
    pub dns: Vec<String>,
    pub not_before: UnixTime,
    pub not_after: UnixTime,
    pub is_ca: bool,
    /// The permission extension, where it is there.
    pub permissions: Option<WrittenGrants>,
}

impl Parsed {
    /// `permission_oid`: dotted decimal.
    /// # Errors
    /// Malformed, a duplicate extension of any kind, or a permission extension that does not parse: fail closed.
    pub fn from_der(der: &[u8], permission_oid: &str) -> Result<Self, ParseError> { todo!("{}{permission_oid}", der.len()) }
    /// How people call it: the SPIFFE URI, else the CN, else the subject.
    #[must_use] pub fn display_name(&self) -> String { todo!() }
}
