//! Where a registry is: a file, or a database by its URL. No secret is ever part of it.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use sqlx::postgres::{PgConnectOptions, PgSslMode};

const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];
/// What may stand behind the question mark. libpq knows more; what is not understood is a mistake
/// here, because it may have been meant to protect something.
const PARAMETERS: [&str; 11] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "host",
    "hostaddr",
    "port",
    "user",
    "dbname",
    "application_name",
    "options",
];

/// What PostgreSQL knows beside `disable` and `verify-full`: each lets in somebody who was not meant.
const WEAK: [&str; 4] = ["allow", "prefer", "require", "verify-ca"];

/// Where a registry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryPlace {
    /// A SQLite file.
    File(PathBuf),
    /// A PostgreSQL database.
    Database {
        /// `postgres://user@host/database`, without a password.
        url: String,
        /// A file whose first line is the password. Without one, the environment says it as it does
        /// for every client of PostgreSQL (`PGPASSWORD`, `PGPASSFILE`).
        password_file: Option<PathBuf>,
    },
}

/// Why a text is not the URL of a registry. The text itself is not told: it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// Another scheme than `postgres`.
    #[error("a registry's URL begins with `postgres://`")]
    Scheme,
    /// Not a URL, or a value that PostgreSQL does not know.
    #[error("this is not the URL of a PostgreSQL database: {0}")]
    Url(String),
    /// Files of configuration and lists of processes are read by too many.
    #[error("a password does not belong in the URL of a registry")]
    Password,
    /// A parameter that would have been overlooked.
    #[error("`{0}` is not a parameter of a registry's URL")]
    Parameter(String),
    /// It is refused rather than to trust anybody, or any host of the CA.
    #[error(
        "`sslmode={0}` does not say whom to trust: write `verify-full`, or `disable` where the way to the database is safe"
    )]
    SslMode(String),
    /// There is no list of CAs that are trusted unasked.
    #[error(
        "`sslrootcert` is missing: it names the file of the CA that signed the database's certificate"
    )]
    Roots,
}

impl RegistryPlace {
    /// A database by its URL. Not connected to.
    ///
    /// # Errors
    /// It is no such URL, or says more than it should.
    pub fn database(url: &str, password_file: Option<PathBuf>) -> Result<Self, PlaceError> {
        check(url)?;
        Ok(Self::Database {
            url: url.to_owned(),
            password_file,
        })
    }

    /// Whether a text is meant as a URL and not as a path.
    #[must_use]
    pub fn is_url(text: &str) -> bool {
        text.contains("://")
    }

    /// The file, where it is one.
    #[must_use]
    pub fn file(&self) -> Option<&std::path::Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Database { .. } => None,
        }
    }
}

impl fmt::Display for RegistryPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Database { url, .. } => f.write_str(url),
        }
    }
}

impl FromStr for RegistryPlace {
    type Err = PlaceError;

    /// A URL or else a path, as `--registry` takes it.
    fn from_str(text: &str) -> Result<Self, PlaceError> {
        if Self::is_url(text) {
            Self::database(text, None)
        } else {
            Ok(Self::File(text.into()))
        }
    }
}

impl From<PathBuf> for RegistryPlace {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

fn check(url: &str) -> Result<(), PlaceError> {
    let rest = SCHEMES.iter().find_map(|scheme| url.strip_prefix(scheme));
    let rest = rest.ok_or(PlaceError::Scheme)?;
    let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = before.split('/').next().unwrap_or_default();
    let (user, _) = authority.rsplit_once('@').unwrap_or_default();
    if user.contains(':') {
        return Err(PlaceError::Password);
    }
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        if ["password", "passfile", "sslpassword"].contains(&name) {
            return Err(PlaceError::Password);
        }
        if !PARAMETERS.contains(&name) && !name.starts_with("options[") {
            return Err(PlaceError::Parameter(name.escape_debug().to_string()));
        }
        if name == "sslmode" && WEAK.contains(&value) {
            return Err(PlaceError::SslMode(value.to_owned()));
        }
    }
    let options = connect_options(url)?;
    let verified = matches!(options.get_ssl_mode(), PgSslMode::VerifyFull);
    let named = |parameter: &str| parameter.starts_with("sslrootcert=");
    if verified && !query.split('&').any(named) {
        return Err(PlaceError::Roots);
    }
    Ok(())
}

/// How to connect. Where the URL does not say how the connection is protected, one that leaves this
/// machine is by TLS with the server's certificate and name verified.
pub(super) fn connect_options(url: &str) -> Result<PgConnectOptions, PlaceError> {
    let options: PgConnectOptions = url
        .parse()
        .map_err(|error: sqlx::Error| PlaceError::Url(error.to_string()))?;
    if url.contains("sslmode=") || stays_here(&options) {
        return Ok(options);
    }
    Ok(options.ssl_mode(PgSslMode::VerifyFull))
}

fn stays_here(options: &PgConnectOptions) -> bool {
    let host = options.get_host().trim_matches(['[', ']']);
    let loopback = host
        .parse::<IpAddr>()
        .is_ok_and(|address| address.is_loopback());
    options.get_socket().is_some() || host.starts_with('/') || host == "localhost" || loopback
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_a_path_or_a_url() {
        let path: RegistryPlace = "pki/registry.db".parse().unwrap();
        assert_eq!(path.file(), Some(std::path::Path::new("pki/registry.db")));
        for url in [
            "postgres://ca@db.example.org/registry?sslrootcert=/etc/db.pem",
            "postgresql://ca@[::1]:6543/registry?sslmode=verify-full&sslrootcert=/etc/db.pem",
            "postgres:///registry?host=/run/postgresql",
        ] {
            let place: RegistryPlace = url.parse().unwrap();
            assert_eq!((place.to_string().as_str(), place.file()), (url, None));
        }
        let refused = |url: &str| url.parse::<RegistryPlace>().unwrap_err();
        assert_eq!(refused("mysql://db/registry"), PlaceError::Scheme);
        assert!(matches!(
            refused("postgres://ca@db:port/registry"),
            PlaceError::Url(_)
        ));
        assert!(matches!(
            refused("postgres://db/r?sslmode=maybe"),
            PlaceError::Url(_)
        ));
        for (url, name) in [
            ("postgres://db/r?sslmod=disable", "sslmod"),
            ("postgres://db/r?a", "a"),
        ] {
            assert_eq!(refused(url), PlaceError::Parameter(name.into()));
        }
        for mode in ["allow", "prefer", "require", "verify-ca"] {
            let url = format!("postgres://db/r?sslrootcert=/etc/db.pem&sslmode={mode}");
            assert_eq!(refused(&url), PlaceError::SslMode(mode.into()));
        }
    }

    /// sqlx adds this list to the CA that is configured.
    #[test]
    fn nobody_is_trusted_unasked() {
        assert!(webpki_roots::TLS_SERVER_ROOTS.is_empty());
        let place = |url: &str| url.parse::<RegistryPlace>();
        assert!(place("postgres://db/r?sslrootcert=/etc/db.pem").is_ok());
        for url in [
            "postgres://db/r",
            "postgres://db/r?sslmode=verify-full",
            "postgres://127.0.0.1/r?sslmode=verify-full",
        ] {
            assert_eq!(place(url), Err(PlaceError::Roots), "{url}");
        }
    }

    #[test]
    fn a_password_in_the_url_is_refused_and_not_told() {
        assert!(
            "postgres://ca@localhost/registry"
                .parse::<RegistryPlace>()
                .is_ok()
        );
        for url in [
            "postgres://ca:s3cret@db/registry",
            "postgres://ca:s3c@ret@db/registry",
            "postgres://ca@db/registry?password=s3cret",
            "postgres://ca@db/registry?sslmode=disable&password=s3cret",
        ] {
            let error = url.parse::<RegistryPlace>().unwrap_err();
            assert_eq!(error, PlaceError::Password, "{url}");
            assert!(!format!("{error:?} {error}").contains("s3c"));
        }
    }

    #[test]
    fn what_leaves_the_machine_is_verified_unless_the_url_says_otherwise() {
        let mode = |url: &str| format!("{:?}", connect_options(url).unwrap().get_ssl_mode());
        for url in [
            "postgres://ca@127.0.0.1/r",
            "postgres://ca@[::1]/r",
            "postgres://ca@localhost/r",
            "postgres:///r?host=/run/postgresql",
        ] {
            assert_eq!(mode(url), "Prefer", "{url}");
        }
        assert_eq!(mode("postgres://ca@db.example.org/r"), "VerifyFull");
        assert_eq!(mode("postgres://ca@10.0.0.7/r"), "VerifyFull");
        assert_eq!(mode("postgres://ca@10.0.0.7/r?sslmode=disable"), "Disable");
    }
}
