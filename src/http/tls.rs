//! TLS of the public listener: the certificate and its key are read at start, and read again while
//! serving. New ones are for new connections; those that cannot be used change nothing.

use std::{io, path::Path, sync::Arc, time::Duration};

use axum_server::tls_rustls::RustlsConfig;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    version::{TLS12, TLS13},
};
use sha2::{Digest, Sha256};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use crate::{
    app::App,
    config::{self, ConfigError},
    telemetry::labels::ReloadResult,
};

const CERT_FILE: &str = "SWITCHBOARD_TLS_CERT_FILE";
const KEY_FILE: &str = "SWITCHBOARD_TLS_KEY_FILE";

/// A certificate and its key in use.
#[derive(Debug)]
pub struct Tls {
    files: config::Tls,
    acceptor: RustlsConfig,
    in_use: Validity,
    /// What the files held when they were last looked at, usable or not.
    seen: Result<Fingerprint, ConfigError>,
}

/// Of what both files hold.
type Fingerprint = [u8; 32];

/// When a certificate is good, in unix time.
#[derive(Clone, Copy, Debug)]
struct Validity {
    from: i64,
    until: i64,
}

/// What the two files hold. No `Debug`: it would show the key.
struct Pair {
    chain: Vec<u8>,
    key: Vec<u8>,
}

impl Tls {
    /// Reads the pair that the settings name; `None` when they name none.
    ///
    /// # Errors
    /// Names the setting, the file, and why it cannot be used.
    pub fn load(files: &config::Tls) -> Result<Option<Self>, ConfigError> {
        if files.cert_file == Path::new("") {
            return Ok(None);
        }
        let pair = Pair::read(files)?;
        let (server, in_use) = pair.understand(files)?;
        let acceptor = RustlsConfig::from_config(server);
        Ok(Some(Self { files: files.clone(), acceptor, in_use, seen: Ok(pair.fingerprint()) }))
    }

    /// What connections are accepted with: it follows the files once they are [watched](Self::watch).
    #[must_use]
    pub fn acceptor(&self) -> RustlsConfig {
        self.acceptor.clone()
    }

    /// Starts waiting for SIGHUP, which would otherwise end the process at once, and looks at the files, if there
    /// are any, whenever it comes and every `tls.reload_interval_ms`.
    ///
    /// # Errors
    /// When the signal's handler cannot be installed.
    pub fn watch(tls: Option<Self>, app: &App) -> io::Result<()> {
        let hangups = signal(SignalKind::hangup())?;
        match tls {
            Some(tls) => tls.start(app, hangups),
            None => app.lifecycle.spawn(disregard(hangups, app.lifecycle.stopped())),
        }
        Ok(())
    }

    fn start(self, app: &App, hangups: Signal) {
        app.metrics.tls_certificate_not_after().set(self.in_use.until);
        if let Err(reason) = self.in_use.check(app.clock.now().timestamp()) {
            // It is what there is: clients who know it may still want to be served.
            tracing::error!(file = %self.files.cert_file.display(), "the certificate {reason}");
        }
        app.lifecycle.spawn(self.follow(app.clone(), hangups));
    }

    async fn follow(mut self, app: App, mut hangups: Signal) {
        let stopped = app.lifecycle.stopped();
        let interval = Duration::from_millis(self.files.reload_interval_ms);
        loop {
            let asked = tokio::select! {
                () = stopped.cancelled() => return,
                _ = hangups.recv() => true,
                () = sleep(interval) => false,
            };
            // Two small files, yet they may lie on a disk that hangs.
            let files = self.files.clone();
            let Ok(pair) = tokio::task::spawn_blocking(move || Pair::read(&files)).await else { continue };
            let seen = pair.as_ref().map(Pair::fingerprint).map_err(Clone::clone);
            if seen == self.seen && !asked {
                continue;
            }
            self.seen = seen;
            let result = match pair.and_then(|pair| self.take(&pair, app.clock.now().timestamp())) {
                Ok(()) => {
                    app.metrics.tls_certificate_not_after().set(self.in_use.until);
                    tracing::info!(not_after = self.in_use.until, "new connections get the certificate as it is now");
                    ReloadResult::Success
                }
                Err(error) => {
                    tracing::warn!(%error, "the new certificate cannot be used; the one before stays");
                    ReloadResult::Failure
                }
            };
            app.metrics.tls_certificate_reloads(result).inc();
        }
    }

    /// Uses the pair for new connections.
    fn take(&mut self, pair: &Pair, now: i64) -> Result<(), ConfigError> {
        let (server, validity) = pair.understand(&self.files)?;
        validity.check(now).map_err(|reason| blame(CERT_FILE, &self.files.cert_file, reason))?;
        self.acceptor.reload_from_config(server);
        self.in_use = validity;
        Ok(())
    }
}

async fn disregard(mut hangups: Signal, stopped: CancellationToken) {
    while let Some(Some(())) = stopped.run_until_cancelled(hangups.recv()).await {
        tracing::info!("SIGHUP: there is no certificate to reload");
    }
}

impl Validity {
    fn check(self, now: i64) -> Result<(), &'static str> {
        if now > self.until {
            return Err("has expired");
        }
        if now < self.from { Err("is not valid yet") } else { Ok(()) }
    }
}

impl Pair {
    fn read(files: &config::Tls) -> Result<Self, ConfigError> {
        let read = |setting, path: &Path| std::fs::read(path).map_err(|error| blame(setting, path, error));
        Ok(Self { chain: read(CERT_FILE, &files.cert_file)?, key: read(KEY_FILE, &files.key_file)? })
    }

    fn fingerprint(&self) -> Fingerprint {
        let mut digest = Sha256::new();
        for part in [&self.chain, &self.key] {
            digest.update(part.len().to_be_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }

    fn understand(&self, files: &config::Tls) -> Result<(Arc<ServerConfig>, Validity), ConfigError> {
        let no_chain = |reason: String| blame(CERT_FILE, &files.cert_file, reason);
        let no_key = |reason: &str| blame(KEY_FILE, &files.key_file, reason);
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&self.chain)
            .collect::<Result<_, _>>()
            .map_err(|_| no_chain("is no PEM file".to_owned()))?;
        let leaf = chain.first().ok_or_else(|| no_chain("holds no certificate (PEM)".to_owned()))?;
        let (_, leaf) = X509Certificate::from_der(leaf)
            .map_err(|error| no_chain(format!("holds a certificate that cannot be read: {error}")))?;
        let validity =
            Validity { from: leaf.validity().not_before.timestamp(), until: leaf.validity().not_after.timestamp() };
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| no_key("holds no private key (PEM; one with a passphrase cannot be used)"))?;
        let mut server = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| no_chain(error.to_string()))?
            .with_no_client_auth()
            .with_single_cert(chain.clone(), key)
            .map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => {
                    no_key(&format!("is not the key of the certificate in {}", files.cert_file.display()))
                }
                other => no_key(&format!("cannot be used: {other}")),
            })?;
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok((Arc::new(server), validity))
    }
}

fn blame(setting: &str, file: &Path, reason: impl std::fmt::Display) -> ConfigError {
    ConfigError::new(setting, format!("{}: {reason}", file.display()))
}
