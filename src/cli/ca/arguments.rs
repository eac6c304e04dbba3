//! The arguments of `countersign ca`.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use crate::ca::Form;
use crate::cert::KeyKind;
use crate::registry::Reason;

use super::place::Place;

/// Make a CA, issue certificates, list and revoke them
#[derive(Debug, clap::Args)]
pub struct CaCommand {
    /// Where.
    #[command(flatten)]
    pub place: Place,
    /// File with the passphrase of the CA's key [default: the variable COUNTERSIGN_CA_PASSPHRASE,
    /// the systemd credential `countersign-ca`, a file `passphrase` beside the key, or the terminal]
    #[arg(long, value_name = "FILE", global = true)]
    pub passphrase_file: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub action: CaAction,
}

/// What `countersign ca` can do.
#[derive(Debug, clap::Subcommand)]
pub enum CaAction {
    /// Make a root and an issuing CA
    Init(InitArguments),
    /// Issue a certificate: recorded and pinned first, then written
    Issue(IssueArguments),
    /// Sign a certificate request: only its public key is taken
    Sign(SignArguments),
    /// Issue a certificate in place of another: same name, same grants or fewer
    Renew(RenewArguments),
    /// Make a delegate: a short-lived CA with a ceiling, which signs for its own agents offline
    Delegate(DelegateArguments),
    /// Replace the issuing CA or the root; certificates of the one before stay good
    Rotate(RotateArguments),
    /// List the certificates on record
    List(ListArguments),
    /// Show everything about one certificate
    Show(ShowArguments),
    /// Revoke a certificate and wait until every live server knows
    Revoke(RevokeArguments),
    /// Write a fresh CRL
    Crl(CrlArguments),
    /// Make a one-time token, with which `countersign join` enrols
    Invite(InviteArguments),
    /// Enrol by tokens and renew by certificates (EST, RFC 7030), and serve the CRLs
    Serve(ServeArguments),
}

/// `ca invite`
#[derive(Debug, clap::Args)]
pub struct InviteArguments {
    /// Name: the path of spiffe://<trust domain>/NAME, or such a URI as a whole
    pub name: String,
    /// What it may do, such as `tools:files__read_*`; may be given more than once
    #[arg(long, value_name = "GRANT")]
    pub grant: Vec<String>,
    /// A role of the configuration; may be given more than once
    #[arg(long, value_name = "ROLE")]
    pub role: Vec<String>,
    /// Kind of certificate: a file of the profiles' folder, or agent, service, operator, server
    #[arg(long, value_name = "PROFILE", default_value = "agent")]
    pub profile: String,
    /// Folder with profiles [default: pki/profiles where it exists]
    #[arg(long, value_name = "DIR")]
    pub profiles: Option<PathBuf>,
    /// How long the token can be used
    #[arg(long, value_name = "SPAN", default_value = "15m", value_parser = humantime::parse_duration)]
    pub ttl: Duration,
    /// Lifetime of the certificate, such as `12h` [default: the profile's]
    #[arg(long, value_name = "SPAN", value_parser = humantime::parse_duration)]
    pub lifetime: Option<Duration>,
    /// DNS name of a server; may be given more than once
    #[arg(long, value_name = "NAME")]
    pub dns: Vec<String>,
    /// Address of a server; may be given more than once
    #[arg(long, value_name = "ADDRESS")]
    pub ip: Vec<IpAddr>,
    /// Where `ca serve` is dialled [default: where it last ran with this CA]
    #[arg(long, value_name = "HOST:PORT")]
    pub server: Option<String>,
}

/// `ca serve`
#[derive(Debug, clap::Args)]
pub struct ServeArguments {
    /// Where to enrol, over TLS
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8444")]
    pub listen: SocketAddr,
    /// What clients dial it by, for its certificate; the first is what invitations say; may be given
    /// more than once [default: the address that it listens on]
    #[arg(long, value_name = "HOST")]
    pub host: Vec<String>,
    /// Where to serve the CRLs, over plain HTTP
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8445")]
    pub crl_listen: SocketAddr,
    /// Serve no CRLs
    #[arg(long, conflicts_with = "crl_listen")]
    pub no_crl: bool,
    /// How often to look whether a fresh CRL is due, beside after every revocation
    #[arg(long, value_name = "SPAN", default_value = "1h", value_parser = humantime::parse_duration)]
    pub crl_every: Duration,
    /// The audit log of this server [default: audit.jsonl in the CA's folder]
    #[arg(long, value_name = "FILE")]
    pub audit: Option<PathBuf>,
    /// Folder with profiles [default: pki/profiles where it exists]
    #[arg(long, value_name = "DIR")]
    pub profiles: Option<PathBuf>,
    /// Requests of one source address each second; twice as many may come at once
    #[arg(long, value_name = "NUMBER", default_value = "50")]
    pub per_source: NonZeroU32,
    /// Certificates of one name each minute
    #[arg(long, value_name = "NUMBER", default_value = "10")]
    pub per_name: NonZeroU32,
}

/// `ca init`
#[derive(Debug, clap::Args)]
pub struct InitArguments {
    /// Folder to make the CA in: the same as --ca
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Whose names the CA gives out: spiffe://<trust domain>/…
    #[arg(long, value_name = "DOMAIN", default_value = "countersign.internal")]
    pub trust_domain: String,
    /// Ceiling of the issuing CA: nothing that it signs can do more; may be given more than once
    #[arg(long, value_name = "GRANT")]
    pub ceiling: Vec<String>,
    /// Kind of both keys: p256, p384 or ed25519
    #[arg(long, value_name = "KIND", default_value = "p256")]
    pub key: KeyKind,
    /// File with the passphrase of the root's key, where it is to be another than the issuing CA's
    #[arg(long, value_name = "FILE")]
    pub root_passphrase_file: Option<PathBuf>,
    /// The issuing CA's key in a PKCS#11 token (RFC 7512), such as `pkcs11:token=ca;object=issuing`;
    /// made there if it is not there yet [default: in a file, under a passphrase]
    #[arg(long, value_name = "URI")]
    pub issuing_key: Option<String>,
    /// The root's key in a token [default: in a file, under a passphrase]
    #[arg(long, value_name = "URI")]
    pub root_key: Option<String>,
}

/// `ca issue`
#[derive(Debug, clap::Args)]
pub struct IssueArguments {
    /// Name: the path of spiffe://<trust domain>/NAME, or such a URI as a whole
    pub name: String,
    /// What it may do, such as `tools:files__read_*`; may be given more than once
    #[arg(long, value_name = "GRANT")]
    pub grant: Vec<String>,
    /// A role of the configuration; may be given more than once
    #[arg(long, value_name = "ROLE")]
    pub role: Vec<String>,
    /// Kind of certificate: a file of the profiles' folder, or agent, service, operator, server
    #[arg(long, value_name = "PROFILE", default_value = "agent")]
    pub profile: String,
    /// Folder with profiles [default: pki/profiles where it exists]
    #[arg(long, value_name = "DIR")]
    pub profiles: Option<PathBuf>,
    /// Lifetime, such as `12h` [default: the profile's]
    #[arg(long, value_name = "SPAN", value_parser = humantime::parse_duration)]
    pub ttl: Option<Duration>,
    /// DNS name of a server; may be given more than once
    #[arg(long, value_name = "NAME")]
    pub dns: Vec<String>,
    /// Address of a server; may be given more than once
    #[arg(long, value_name = "ADDRESS")]
    pub ip: Vec<IpAddr>,
    /// For a key that is in a PKCS#11 token, such as `pkcs11:token=gateway;object=server` (RFC 7512):
    /// only its certificate is made [default: a key is made too]
    #[arg(long, value_name = "URI")]
    pub key: Option<String>,
    /// Without the registry: only a delegate can, because its own pin covers what it signs
    #[arg(long)]
    pub offline: bool,
    /// Where the files go.
    #[command(flatten)]
    pub output: OutputArguments,
}

/// Where certificates go, and in which form.
#[derive(Clone, Debug, clap::Args)]
pub struct OutputArguments {
    /// Folder for NAME.crt, NAME.key and ca.pem, or NAME.p12, or NAME.json
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub out: PathBuf,
    /// pem (three files), p12 (PKCS#12 under a passphrase) or json (one file, not encrypted)
    #[arg(long, value_name = "FORM", default_value = "pem")]
    pub format: Form,
    /// File with the passphrase of the PKCS#12 file [default: the terminal]
    #[arg(long, value_name = "FILE")]
    pub p12_passphrase_file: Option<PathBuf>,
    /// Write over files of this name
    #[arg(long)]
    pub replace: bool,
}

/// `ca sign`
#[derive(Debug, clap::Args)]
pub struct SignArguments {
    /// The request, PKCS#10 in PEM or DER; `-` reads it from standard input
    pub request: PathBuf,
    /// Name: the path of spiffe://<trust domain>/NAME, or such a URI as a whole
    #[arg(long, value_name = "NAME")]
    pub name: String,
    /// What it may do, such as `tools:files__read_*`; may be given more than once
    #[arg(long, value_name = "GRANT")]
    pub grant: Vec<String>,
    /// A role of the configuration; may be given more than once
    #[arg(long, value_name = "ROLE")]
    pub role: Vec<String>,
    /// Kind of certificate: a file of the profiles' folder, or agent, service, operator, server
    #[arg(long, value_name = "PROFILE", default_value = "agent")]
    pub profile: String,
    /// Folder with profiles [default: pki/profiles where it exists]
    #[arg(long, value_name = "DIR")]
    pub profiles: Option<PathBuf>,
    /// Lifetime, such as `12h` [default: the profile's]
    #[arg(long, value_name = "SPAN", value_parser = humantime::parse_duration)]
    pub ttl: Option<Duration>,
    /// DNS name of a server; may be given more than once
    #[arg(long, value_name = "NAME")]
    pub dns: Vec<String>,
    /// Address of a server; may be given more than once
    #[arg(long, value_name = "ADDRESS")]
    pub ip: Vec<IpAddr>,
    /// Without the registry: only a delegate can, because its own pin covers what it signs
    #[arg(long)]
    pub offline: bool,
    /// Where the files go.
    #[command(flatten)]
    pub output: OutputArguments,
}

/// `ca delegate`
#[derive(Debug, clap::Args)]
pub struct DelegateArguments {
    /// Name: the path of spiffe://<trust domain>/NAME, or such a URI as a whole
    pub name: String,
    /// The ceiling: nothing that it signs can do more; may be given more than once
    #[arg(long, value_name = "GRANT")]
    pub grant: Vec<String>,
    /// A role of the configuration; may be given more than once
    #[arg(long, value_name = "ROLE")]
    pub role: Vec<String>,
    /// Lifetime, such as `12h`; at most 90 days
    #[arg(long, value_name = "SPAN", value_parser = humantime::parse_duration)]
    pub ttl: Duration,
    /// Folder to make, for `ca issue --ca DIR --offline`
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Kind of its key: p256, p384 or ed25519
    #[arg(long, value_name = "KIND", default_value = "p256")]
    pub key: KeyKind,
    /// Its key in a PKCS#11 token (RFC 7512), such as `pkcs11:token=farm;object=issuing`; made there
    /// if it is not there yet [default: in a file, under a passphrase]
    #[arg(long, value_name = "URI", conflicts_with = "csr")]
    pub issuing_key: Option<String>,
    /// File with the passphrase for its key [default: the terminal]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["csr", "issuing_key"])]
    pub key_passphrase_file: Option<PathBuf>,
    /// A request with its public key, PKCS#10 in PEM or DER [default: a key is made here]
    #[arg(long, value_name = "FILE")]
    pub csr: Option<PathBuf>,
}

/// `ca rotate`
#[derive(Debug, clap::Args)]
pub struct RotateArguments {
    /// What is replaced.
    pub what: RotateWhat,
    /// Ceiling of the issuing CA: nothing that it signs can do more; may be given more than once
    #[arg(long, value_name = "GRANT")]
    pub ceiling: Vec<String>,
    /// Kind of the new keys: p256, p384 or ed25519
    #[arg(long, value_name = "KIND", default_value = "p256")]
    pub key: KeyKind,
    /// File with the passphrase of the root's key, where it is another than the issuing CA's
    #[arg(long, value_name = "FILE")]
    pub root_passphrase_file: Option<PathBuf>,
    /// The issuing CA's key in a PKCS#11 token (RFC 7512), such as `pkcs11:token=ca;object=issuing`;
    /// made there if it is not there yet [default: in a file, under a passphrase]
    #[arg(long, value_name = "URI")]
    pub issuing_key: Option<String>,
    /// The root's key in a token [default: in a file, under a passphrase]
    #[arg(long, value_name = "URI")]
    pub root_key: Option<String>,
}

/// What `ca rotate` replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum RotateWhat {
    /// The issuing CA, below the same root
    Issuing,
    /// The root, which the one before signs, and the issuing CA with it
    Root,
}

/// `ca renew`
#[derive(Debug, clap::Args)]
pub struct RenewArguments {
    /// Name, fingerprint or serial number; of several live certificates of a name the newest
    pub key: String,
    /// Fewer grants than before [default: the same]; may be given more than once
    #[arg(long, value_name = "GRANT")]
    pub grant: Vec<String>,
    /// A role of the configuration; may be given more than once
    #[arg(long, value_name = "ROLE")]
    pub role: Vec<String>,
    /// A request with the new public key, PKCS#10 in PEM or DER [default: a key is made here]
    #[arg(long, value_name = "FILE")]
    pub csr: Option<PathBuf>,
    /// Folder with profiles [default: pki/profiles where it exists]
    #[arg(long, value_name = "DIR")]
    pub profiles: Option<PathBuf>,
    /// Lifetime, such as `12h` [default: the profile's]
    #[arg(long, value_name = "SPAN", value_parser = humantime::parse_duration)]
    pub ttl: Option<Duration>,
    /// When the old one ends: `now` (it is revoked) or a span such as `10m` [default: by itself]
    #[arg(long, value_name = "WHEN", value_parser = end_of_old)]
    pub end_old: Option<EndOld>,
    /// How long to wait for the live servers when the old one ends now
    #[arg(long, value_name = "SPAN", default_value = "2s", value_parser = humantime::parse_duration)]
    pub wait: Duration,
    /// Where the files go.
    #[command(flatten)]
    pub output: OutputArguments,
}

/// When the certificate that was renewed ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndOld {
    /// It is revoked as superseded.
    Now,
    /// Its pin ends after so long.
    After(Duration),
}

fn end_of_old(text: &str) -> Result<EndOld, humantime::DurationError> {
    match text {
        "now" => Ok(EndOld::Now),
        span => humantime::parse_duration(span).map(EndOld::After),
    }
}

impl CaAction {
    /// The folder with profiles, of the actions that need one.
    pub const fn profiles_mut(&mut self) -> Option<&mut Option<PathBuf>> {
        match self {
            Self::Issue(arguments) => Some(&mut arguments.profiles),
            Self::Sign(arguments) => Some(&mut arguments.profiles),
            Self::Renew(arguments) => Some(&mut arguments.profiles),
            Self::Invite(arguments) => Some(&mut arguments.profiles),
            Self::Serve(arguments) => Some(&mut arguments.profiles),
            _ => None,
        }
    }
}

/// `ca list`
#[derive(Debug, clap::Args)]
pub struct ListArguments {
    /// Also those that are expired or revoked
    #[arg(long)]
    pub all: bool,
    /// At most so many, newest first
    #[arg(long, value_name = "NUMBER", default_value_t = 500)]
    pub limit: usize,
}

/// `ca show`
#[derive(Debug, clap::Args)]
pub struct ShowArguments {
    /// Name, fingerprint or serial number
    pub key: String,
}

/// `ca revoke`
#[derive(Debug, clap::Args)]
pub struct RevokeArguments {
    /// Name, fingerprint or serial number
    pub key: String,
    /// Every live certificate of the name: while a renewal overlaps there are several
    #[arg(long)]
    pub all: bool,
    /// Why: unspecified, key-compromise, ca-compromise, affiliation-changed, superseded,
    /// cessation-of-operation or privilege-withdrawn
    #[arg(long, value_name = "REASON", default_value = "unspecified")]
    pub reason: Reason,
    /// How long to wait for the live servers
    #[arg(long, value_name = "SPAN", default_value = "2s", value_parser = humantime::parse_duration)]
    pub wait: Duration,
}

/// `ca crl`
#[derive(Debug, clap::Args)]
pub struct CrlArguments {
    /// The root's CRL (of issuing CAs) and not the issuing CA's
    #[arg(long)]
    pub root: bool,
    /// Where to write it [default: issuing.crl or root.crl in the CA's folder]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Address under which relying parties find it (issuing distribution point); kept from then on
    #[arg(long, value_name = "URL")]
    pub distribution_point: Option<String>,
    /// Go on: write the CRLs of all CAs of the folder whose keys open, whenever something changes
    #[arg(long, conflicts_with_all = ["root", "out", "distribution_point"])]
    pub watch: bool,
    /// With --watch: look at least so often
    #[arg(long, value_name = "SPAN", default_value = "1h", value_parser = humantime::parse_duration)]
    pub every: Duration,
}
