//! Certificates for the runs, and the TLS settings that the floor, the server and the load share.
//!
//! Root, issuing CA (path length 0), one server, and clients whose chains repeat: leaf and issuing
//! CA. P-256 throughout, which is Countersign's default. The CRLs are small (ten entries): a larger
//! one would only make the stock verifier slower.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevocationReason, RevokedCertParams, SanType, SerialNumber,
};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ProducesTickets;
use rustls::{ClientConfig, RootCertStore};
use time::{Duration, OffsetDateTime};

#[cfg(feature = "post-quantum")]
use rustls::crypto::aws_lc_rs as chosen;
#[cfg(not(feature = "post-quantum"))]
use rustls::crypto::ring as chosen;

/// The provider that the server under test is built with.
pub(crate) fn provider() -> CryptoProvider {
    chosen::default_provider()
}

pub(crate) fn ticketer() -> Result<Arc<dyn ProducesTickets>, rustls::Error> {
    chosen::Ticketer::new()
}

pub(crate) fn roots(path: &Path) -> Result<RootCertStore, Box<dyn Error>> {
    let mut store = RootCertStore::empty();
    for cert in CertificateDer::pem_file_iter(path)? {
        store.add(cert?)?;
    }
    Ok(store)
}

pub(crate) fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Box<dyn Error>> {
    Ok(CertificateDer::pem_file_iter(path)?.collect::<Result<_, _>>()?)
}

pub(crate) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, Box<dyn Error>> {
    Ok(PrivateKeyDer::from_pem_file(path)?)
}

/// The files of one run.
#[derive(Debug, Clone)]
pub(crate) struct Pki {
    pub(crate) root: PathBuf,
    pub(crate) server_cert: PathBuf,
    pub(crate) server_key: PathBuf,
    pub(crate) crls: Vec<PathBuf>,
    /// Chain and key of each client.
    pub(crate) clients: Vec<(PathBuf, PathBuf)>,
}

impl Pki {
    /// Client settings for client `n` (modulo their number) on the raw stream.
    pub(crate) fn client(
        &self,
        n: usize,
        resumption: bool,
    ) -> Result<Arc<ClientConfig>, Box<dyn Error>> {
        self.client_of(n, resumption, b"mcp")
    }

    /// The same, offering this protocol.
    pub(crate) fn client_of(
        &self,
        n: usize,
        resumption: bool,
        alpn: &[u8],
    ) -> Result<Arc<ClientConfig>, Box<dyn Error>> {
        let (cert, private) = &self.clients[n % self.clients.len()];
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots(&self.root)?)
            .with_client_auth_cert(chain(cert)?, key(private)?)?;
        config.alpn_protocols = vec![alpn.to_vec()];
        config.resumption = if resumption {
            Resumption::in_memory_sessions(64)
        } else {
            Resumption::disabled()
        };
        Ok(Arc::new(config))
    }
}

/// `CountersignPermissions` with these grants, each shorter than 128 bytes.
fn permissions(grants: &[&str]) -> CustomExtension {
    fn tlv(tag: u8, body: &[u8]) -> Vec<u8> {
        let len = u8::try_from(body.len())
            .ok()
            .filter(|l| *l < 128)
            .expect("the bench's grants are short");
        let mut out = vec![tag, len];
        out.extend_from_slice(body);
        out
    }
    let list: Vec<u8> = grants
        .iter()
        .flat_map(|g| tlv(0x0c, g.as_bytes()))
        .collect();
    let mut body = tlv(0x02, &[1]);
    body.extend(tlv(0x30, &list));
    CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 32473, 8, 1], tlv(0x30, &body))
}

fn dated(name: &str, serial: u64, days: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    let now = OffsetDateTime::now_utc();
    params.not_before = now - Duration::hours(1);
    params.not_after = now + Duration::days(days);
    params.serial_number = Some(SerialNumber::from(serial));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    params
}

fn authority(name: &str, serial: u64, path: u8) -> CertificateParams {
    let mut params = dated(name, serial, 30);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf(name: &str, serial: u64, usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut params = dated(name, serial, 7);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params
}

fn crl(issuer: &Issuer<'_, KeyPair>) -> Result<String, rcgen::Error> {
    let now = OffsetDateTime::now_utc();
    let revoked = (0..10u64).map(|n| RevokedCertParams {
        serial_number: SerialNumber::from(900_000 + n),
        revocation_time: now - Duration::minutes(30),
        reason_code: Some(RevocationReason::KeyCompromise),
        invalidity_date: None,
    });
    let params = CertificateRevocationListParams {
        this_update: now - Duration::minutes(30),
        next_update: now + Duration::days(7),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(issuer)?.pem()
}

/// A file that only its owner may read.
pub(crate) fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?
        .write_all(text.as_bytes())
}

/// Makes everything in `dir`.
pub(crate) fn make(dir: &Path, clients: usize) -> Result<Pki, Box<dyn Error>> {
    let root_key = KeyPair::generate()?;
    let root_params = authority("bench root", 1, 2);
    let root_pem = root_params.self_signed(&root_key)?.pem();
    let root = Issuer::new(root_params, root_key);
    let issuing_key = KeyPair::generate()?;
    let issuing_params = authority("bench issuing", 2, 0);
    let issuing_pem = issuing_params.signed_by(&issuing_key, &root)?.pem();
    let issuing = Issuer::new(issuing_params, issuing_key);

    let path = |name: &str| dir.join(name);
    let mut made = Pki {
        root: path("root.pem"),
        server_cert: path("server.pem"),
        server_key: path("server.key"),
        crls: vec![path("root.crl"), path("issuing.crl")],
        clients: Vec::new(),
    };
    fs::write(&made.root, root_pem)?;
    fs::write(&made.crls[0], crl(&root)?)?;
    fs::write(&made.crls[1], crl(&issuing)?)?;

    let server_key = KeyPair::generate()?;
    let mut server = leaf("localhost", 3, ExtendedKeyUsagePurpose::ServerAuth);
    server.subject_alt_names = vec![
        SanType::DnsName(Ia5String::try_from("localhost")?),
        SanType::IpAddress([127, 0, 0, 1].into()),
    ];
    fs::write(
        &made.server_cert,
        server.signed_by(&server_key, &issuing)?.pem() + &issuing_pem,
    )?;
    write_private(&made.server_key, &server_key.serialize_pem())?;

    for n in 0..clients {
        let name = format!("bench-{n:02}");
        let key = KeyPair::generate()?;
        let mut params = leaf(&name, 1000 + n as u64, ExtendedKeyUsagePurpose::ClientAuth);
        let uri = format!("spiffe://countersign.internal/{name}");
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(uri)?)];
        params.custom_extensions = vec![permissions(&["*"])];
        let files = (path(&format!("{name}.pem")), path(&format!("{name}.key")));
        fs::write(
            &files.0,
            params.signed_by(&key, &issuing)?.pem() + &issuing_pem,
        )?;
        write_private(&files.1, &key.serialize_pem())?;
        made.clients.push(files);
    }
    Ok(made)
}
