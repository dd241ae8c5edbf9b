//! Certificates, and clients that tell which one they were shown.

use std::net::SocketAddr;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use reqwest::{
    Client,
    tls::{TlsInfo, Version},
};

use time::OffsetDateTime;

use super::files::TempDir;

/// What certificates are for.
pub const HOST: &str = "switchboard.test";

/// Issues certificates that its clients believe.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key.
#[derive(Clone)]
pub struct Pair {
    pub chain: String,
    pub key: String,
    /// As a client is shown it.
    pub der: Vec<u8>,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate that is good from 2020 until the first day of a year.
    pub fn issue(&self, until: i32) -> Pair {
        self.issue_for(&[HOST.to_owned()], date_time_ymd(until, 1, 1))
    }

    /// A certificate for these names or addresses, good until then.
    pub fn issue_for(&self, names: &[String], until: OffsetDateTime) -> Pair {
        let mut params = CertificateParams::new(names).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), until);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Pair { chain: certificate.pem(), key: key.serialize_pem(), der: certificate.der().to_vec() }
    }

    /// What its clients must believe (PEM).
    pub fn certificate(&self) -> String {
        self.0.pem()
    }

    /// A new client, whose first request is a new connection.
    pub fn client(&self, server: SocketAddr, version: Version) -> Client {
        let root = reqwest::Certificate::from_der(self.0.der()).unwrap();
        let builder = Client::builder().tls_certs_only([root]).tls_info(true).https_only(true).resolve(HOST, server);
        builder.tls_version_min(version).tls_version_max(version).build().unwrap()
    }
}

/// Where a server reads its certificate and key.
pub struct Files {
    pub dir: TempDir,
    pub cert_file: String,
    pub key_file: String,
}

impl Files {
    pub fn new(pair: &Pair) -> Self {
        let dir = TempDir::create();
        let (cert_file, key_file) = (dir.file("tls.crt", &pair.chain), dir.file("tls.key", &pair.key));
        Self { dir, cert_file, key_file }
    }

    pub fn write(&self, pair: &Pair) {
        std::fs::write(&self.key_file, &pair.key).unwrap();
        std::fs::write(&self.cert_file, &pair.chain).unwrap();
    }
}

/// The URL of a path of that server.
pub fn url(server: SocketAddr, path: &str) -> String {
    format!("https://{HOST}:{}{path}", server.port())
}

/// The certificate that was shown for an answer.
pub fn shown(answer: &reqwest::Response) -> Vec<u8> {
    answer.extensions().get::<TlsInfo>().unwrap().peer_certificate().unwrap().to_vec()
}
