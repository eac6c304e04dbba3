//! What was issued, as files: PEM, PKCS#12 or JSON. Writes nothing that is not on record.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Serialize;
use zeroize::Zeroizing;

use crate::cert::{FileError, KeyUri, PrivateKey, load_chain, pem, write_atomic};
use crate::clock::UnixTime;
use crate::registry::Store;
use crate::secret::Secret;

use super::issue::{IssueError, Issued, revoke_unwritten};
use super::pkcs12;

/// How a certificate is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// `<base>.crt`, `<base>.key` and `ca.pem`.
    #[default]
    Pem,
    /// `<base>.p12`: PKCS#12, under a passphrase.
    P12,
    /// `<base>.json`: all of it in one object, the parts in PEM.
    Json,
}

/// Not a word that names a form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a format: pem, p12 or json")]
pub struct FormError(String);

impl FromStr for Form {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "pem" => Ok(Self::Pem),
            "p12" => Ok(Self::P12),
            "json" => Ok(Self::Json),
            other => Err(FormError(other.to_owned())),
        }
    }
}

/// Where a certificate and its key go: `<dir>/<base>.crt`, `<dir>/<base>.key`, `<dir>/ca.pem`, or
/// one file of another form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    dir: PathBuf,
    base: String,
    form: Form,
}

/// Whether a key is written beside the certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPart {
    /// Made here, or its URI.
    Written,
    /// Whoever asked has it already, perhaps in the very place where it would be written.
    Theirs,
}

/// What is written besides the certificates.
#[derive(Clone, Copy, Debug)]
pub enum Holding<'a> {
    /// Whoever asked has the key already.
    NoKey,
    /// It is in a token, and its URI goes where a key would.
    Token(&'a KeyUri),
    /// The key, as it is (PEM, JSON).
    Key(&'a PrivateKey),
    /// The key under a passphrase (PKCS#12).
    Sealed(&'a PrivateKey, &'a Secret),
}

/// Files that were written, in the form with three of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The chain.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
    /// The root.
    pub ca: PathBuf,
}

impl Output {
    fn at(&self, ending: &str) -> PathBuf {
        self.dir.join(format!("{}.{ending}", self.base))
    }

    fn files(&self) -> Written {
        Written {
            certificate: self.at("crt"),
            key: self.at("key"),
            ca: self.dir.join("ca.pem"),
        }
    }
}

/// Makes the folder and looks for what would be in the way, before anything is recorded.
///
/// # Errors
/// Files of this name are there and `replace` was not said, or the folder cannot be made.
pub fn prepare_output(
    dir: &Path,
    base: &str,
    root: &[u8],
    replace: bool,
) -> Result<Output, IssueError> {
    prepare_output_in(Form::Pem, KeyPart::Written, dir, base, root, replace)
}

/// As [`prepare_output`], in any form.
///
/// # Errors
/// As [`prepare_output`].
pub fn prepare_output_in(
    form: Form,
    key: KeyPart,
    dir: &Path,
    base: &str,
    root: &[u8],
    replace: bool,
) -> Result<Output, IssueError> {
    let error = |cause| IssueError::Folder {
        path: dir.to_owned(),
        cause,
    };
    std::fs::create_dir_all(dir).map_err(error)?;
    let output = Output {
        dir: dir.to_owned(),
        base: base.to_owned(),
        form,
    };
    if replace {
        return Ok(output);
    }
    let files = output.files();
    let new = match form {
        Form::Pem if key == KeyPart::Theirs => vec![files.certificate],
        Form::Pem => vec![files.key, files.certificate],
        Form::P12 => vec![output.at("p12")],
        Form::Json => vec![output.at("json")],
    };
    if let Some(path) = new.into_iter().find(|path| path.exists()) {
        return Err(IssueError::InTheWay(path));
    }
    let other_root = || load_chain(&files.ca).is_ok_and(|chain| !chain.iter().any(|c| c == root));
    if form == Form::Pem && files.ca.exists() && other_root() {
        return Err(IssueError::OtherRoot(files.ca));
    }
    Ok(output)
}

/// Writes what was issued and its key, PEM. Nobody has a certificate that could not be written, so
/// it is revoked then, as good as the registry allows.
///
/// # Errors
/// A file could not be written.
pub async fn write_out(
    store: &dyn Store,
    output: &Output,
    issued: &Issued,
    key: &PrivateKey,
    now: UnixTime,
) -> Result<Written, IssueError> {
    let output = Output {
        form: Form::Pem,
        ..output.clone()
    };
    write_in_form(store, &output, issued, Holding::Key(key), now).await?;
    Ok(output.files())
}

/// Writes what was issued in the output's form; the answer is the files. What could not be written
/// is revoked, as with [`write_out`].
///
/// # Errors
/// A file could not be written, or the PKCS#12 file not be made.
pub async fn write_in_form(
    store: &dyn Store,
    output: &Output,
    issued: &Issued,
    holding: Holding<'_>,
    now: UnixTime,
) -> Result<Vec<PathBuf>, IssueError> {
    let failed = match write_files(output, issued, holding) {
        Ok(files) => return Ok(files),
        Err(failed) => failed,
    };
    revoke_unwritten(store, issued, now).await?;
    Err(failed)
}

/// As [`write_in_form`], of what no registry knows.
///
/// # Errors
/// A file could not be written, or the PKCS#12 file not be made.
pub fn write_offline(
    output: &Output,
    issued: &Issued,
    holding: Holding<'_>,
) -> Result<Vec<PathBuf>, IssueError> {
    write_files(output, issued, holding)
}

fn write_files(
    output: &Output,
    issued: &Issued,
    holding: Holding<'_>,
) -> Result<Vec<PathBuf>, IssueError> {
    let unwritten = |error: FileError| IssueError::Write {
        serial: issued.enrolment.serial.clone(),
        error,
    };
    match (output.form, holding) {
        (Form::P12, Holding::Sealed(key, passphrase)) => {
            let der = pkcs12::encode(issued, key, &output.base, passphrase)?;
            let path = output.at("p12");
            write_atomic(&path, &der, 0o600).map_err(unwritten)?;
            Ok(vec![path])
        }
        (Form::P12, _) => {
            Err(pkcs12::Pkcs12Error::Encoder(String::from("it needs the key")).into())
        }
        (Form::Json, holding) => {
            let path = output.at("json");
            let text = json(issued, holding);
            write_atomic(&path, &text, 0o600).map_err(unwritten)?;
            Ok(vec![path])
        }
        (Form::Pem, holding) => write_pem(&output.files(), issued, holding).map_err(unwritten),
    }
}

fn write_pem(
    files: &Written,
    issued: &Issued,
    holding: Holding<'_>,
) -> Result<Vec<PathBuf>, FileError> {
    let mut written = vec![files.certificate.clone()];
    if let Holding::Key(key) | Holding::Sealed(key, _) = holding {
        let key = pem::block("PRIVATE KEY", key.0.expose());
        write_atomic(&files.key, key.as_bytes(), 0o600)?;
        written.push(files.key.clone());
    }
    if let Holding::Token(uri) = holding {
        write_atomic(&files.key, format!("{uri}\n").as_bytes(), 0o600)?;
        written.push(files.key.clone());
    }
    write_atomic(&files.certificate, issued.chain_pem().as_bytes(), 0o644)?;
    write_atomic(&files.ca, issued.root_pem().as_bytes(), 0o644)?;
    written.push(files.ca.clone());
    Ok(written)
}

/// The JSON form. Times are RFC 3339; the chain is the certificate and the CAs below the root.
#[derive(Serialize)]
struct Whole<'a> {
    name: &'a str,
    fingerprint: String,
    serial: &'a str,
    profile: &'a str,
    not_before: String,
    not_after: String,
    grants: Vec<String>,
    chain: String,
    ca: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
}

fn json(issued: &Issued, holding: Holding<'_>) -> Zeroizing<Vec<u8>> {
    let key = match holding {
        Holding::NoKey | Holding::Token(_) => None,
        Holding::Key(key) | Holding::Sealed(key, _) => {
            Some(pem::block("PRIVATE KEY", key.0.expose()))
        }
    };
    let grants = issued.parsed.permissions.as_ref();
    let grants = grants.map(|grants| grants.entries().iter().map(ToString::to_string).collect());
    let whole = Whole {
        name: issued.enrolment.name.as_str(),
        fingerprint: issued.enrolment.fingerprint.to_string(),
        serial: &issued.enrolment.serial,
        profile: &issued.enrolment.profile,
        not_before: issued.enrolment.not_before.to_string(),
        not_after: issued.enrolment.not_after.to_string(),
        grants: grants.unwrap_or_default(),
        chain: issued.chain_pem(),
        ca: issued.root_pem(),
        key: key.as_ref().map(|key| key.as_str()),
    };
    // Strings and arrays of strings always serialize.
    let pem = whole.chain.len() + whole.ca.len() + whole.key.map_or(0, str::len);
    // Room for all of it at once: a buffer that grows leaves copies of the key behind.
    let mut text = Zeroizing::new(Vec::with_capacity(2 * pem + 64 * 1024));
    let _ = serde_json::to_writer_pretty(&mut *text, &whole);
    text.push(b'\n');
    text
}
