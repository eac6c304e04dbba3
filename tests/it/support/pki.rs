//! A tiny CA on rcgen directly, so that `crate::ca` is never its own judge. Certificates are made by
//! role, with every field open to be made wrong.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use countersign::clock::UnixTime;
use countersign::grant::{WrittenGrants, encode_extension};
use countersign::identity::Fingerprint;
use countersign::secret::Secret;
use countersign::tls::Identity;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;

pub const DOMAIN: &str = "example.org";
pub const PERMISSIONS: &[u64] = &[1, 3, 6, 1, 4, 1, 32473, 8, 1];
pub const HOUR: i64 = 3600;

/// Seconds from now; negative in the past.
pub fn at(seconds: i64) -> OffsetDateTime {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    OffsetDateTime::from_unix_timestamp(i64::try_from(now).unwrap() + seconds).unwrap()
}

pub fn unix(time: OffsetDateTime) -> UnixTime {
    UnixTime(time.unix_timestamp())
}

/// The SPIFFE ID of this test's trust domain.
pub fn spiffe(name: &str) -> String {
    format!("spiffe://{DOMAIN}/{name}")
}

/// The permission extension with these grants.
pub fn permissions(grants: &[&str]) -> CustomExtension {
    let content = encode_extension(&WrittenGrants::parse(grants).unwrap());
    CustomExtension::from_oid_content(PERMISSIONS, content)
}

/// A certificate and its key, and the chain that its holder presents.
pub struct Certified {
    pub der: CertificateDer<'static>,
    pub key: KeyPair,
    pub params: CertificateParams,
    /// The certificates between this one and the anchor, nearest first.
    pub above: Vec<CertificateDer<'static>>,
}

impl Certified {
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of_der(&self.der)
    }

    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        std::iter::once(self.der.clone())
            .chain(self.above.clone())
            .collect()
    }

    pub fn serial(&self) -> SerialNumber {
        self.params.serial_number.clone().unwrap()
    }

    pub fn not_after(&self) -> UnixTime {
        unix(self.params.not_after)
    }

    /// Signs what `params` say; the issuer is above it, an anchor is not presented.
    pub fn sign(&self, params: CertificateParams) -> Certified {
        self.sign_key(params, KeyPair::generate().unwrap())
    }

    pub fn sign_key(&self, mut params: CertificateParams, key: KeyPair) -> Certified {
        params.serial_number.get_or_insert_with(random_serial);
        let issuer = Issuer::from_params(&self.params, &self.key);
        let der = params.signed_by(&key, &issuer).unwrap().der().clone();
        let above = if self.is_root() {
            Vec::new()
        } else {
            self.chain()
        };
        Certified {
            der,
            key,
            params,
            above,
        }
    }

    fn is_root(&self) -> bool {
        self.above.is_empty() && self.params.is_ca != IsCa::NoCa && self.self_issued()
    }

    fn self_issued(&self) -> bool {
        let (_, parsed) = x509_parser::parse_x509_certificate(&self.der).unwrap();
        parsed.subject().as_raw() == parsed.issuer().as_raw()
    }

    /// A CRL of this CA, PEM.
    pub fn crl(&self, revoked: &[&Certified], this_update: i64, next_update: i64) -> String {
        let revoked_certs = revoked.iter().map(|certified| RevokedCertParams {
            serial_number: certified.serial(),
            revocation_time: at(this_update),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: at(this_update),
            next_update: at(next_update),
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params
            .signed_by(&Issuer::from_params(&self.params, &self.key))
            .unwrap()
            .pem()
            .unwrap()
    }

    /// As files, loaded again the way the program loads its own.
    pub fn identity(&self, folder: &Path, stem: &str) -> Identity {
        let (cert, key) = self.write(folder, stem);
        Identity::load(&cert, &key, None::<&Secret>).unwrap()
    }

    /// Writes `<stem>.pem` and `<stem>.key`.
    pub fn write(&self, folder: &Path, stem: &str) -> (PathBuf, PathBuf) {
        let (cert, key) = (
            folder.join(format!("{stem}.pem")),
            folder.join(format!("{stem}.key")),
        );
        std::fs::write(&cert, pem(&self.chain())).unwrap();
        let mut options = std::fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&key)
            .unwrap();
        std::io::Write::write_all(&mut file, self.key.serialize_pem().as_bytes()).unwrap();
        (cert, key)
    }
}

fn random_serial() -> SerialNumber {
    let mut bytes = [0; 16];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes).unwrap();
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

/// PEM text of a list of certificates.
pub fn pem(chain: &[CertificateDer<'_>]) -> String {
    use base64::Engine;
    let section = |der: &CertificateDer<'_>| {
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        let lines: Vec<&str> = text
            .as_bytes()
            .chunks(64)
            .map(|line| std::str::from_utf8(line).unwrap())
            .collect();
        format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            lines.join("\n")
        )
    };
    chain.iter().map(section).collect()
}

fn params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.not_before = at(-HOUR);
    params.not_after = at(24 * HOUR);
    params.use_authority_key_identifier_extension = true;
    params
}

/// A CA of this name; `path_len`: how many CAs may stand below it.
pub fn ca(common_name: &str, path_len: u8) -> CertificateParams {
    let mut params = params(common_name);
    // Longer than a leaf, so that the leaf's end is the chain's, whatever second each was made in.
    params.not_after = at(48 * HOUR);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_len));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// A self-signed root.
pub fn root(common_name: &str) -> Certified {
    root_of(ca(common_name, 2))
}

pub fn root_of(mut params: CertificateParams) -> Certified {
    params.serial_number = Some(random_serial());
    let key = KeyPair::generate().unwrap();
    let der = params.self_signed(&key).unwrap().der().clone();
    Certified {
        der,
        key,
        params,
        above: Vec::new(),
    }
}

/// A client of this short name, good in every way, without the permission extension.
pub fn client(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.subject_alt_names = vec![SanType::URI(spiffe(name).try_into().unwrap())];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

/// A server for `localhost`.
pub fn server() -> CertificateParams {
    let mut params = params("server");
    params.subject_alt_names = vec![
        SanType::DnsName("localhost".try_into().unwrap()),
        SanType::IpAddress([127, 0, 0, 1].into()),
    ];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

/// Waits that are far longer than anything under test, so that a hang fails instead of hanging.
pub const PATIENCE: Duration = Duration::from_secs(20);
