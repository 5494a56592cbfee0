//! TLS of the doors' ports: certificate and key from files that are read again when they change; connections that are there go
//! on with what they began with.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pbx_crds::sidecar_doors::TlsFiles;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::token::REREAD;

/// What a handshake may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why TLS cannot be served.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file has no certificate, or no key.
    #[error("cannot read {path}: write a PEM file with {what}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What should be there.
        what: &'static str,
        /// Why not.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// They do not go together.
    #[error("certificate and key do not go together")]
    Pair(#[source] rustls::Error),
    /// A client's handshake failed.
    #[error("a client's TLS handshake failed")]
    Handshake(#[source] std::io::Error),
    /// A client's handshake took too long.
    #[error("a client's TLS handshake took too long")]
    Deadline,
}

impl TlsError {
    /// Stable, for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Read { .. } => "TlsFileUnreadable",
            Self::Pair(_) => "TlsPairWrong",
            Self::Handshake(_) => "TlsHandshake",
            Self::Deadline => "TlsDeadline",
        }
    }
}

/// Accepts TLS with the newest certificate. Cheap to clone.
#[derive(Clone)]
pub struct Tls {
    config: watch::Receiver<Arc<ServerConfig>>,
}

impl Tls {
    /// From `files`, and the task that reads them again; `protocols` are offered by ALPN.
    pub fn follow(
        files: TlsFiles,
        protocols: &[&[u8]],
    ) -> Result<(Self, impl Future<Output = ()> + use<>), TlsError> {
        let protocols: Vec<Vec<u8>> = protocols.iter().map(|name| name.to_vec()).collect();
        let mut pair = Pair::read(&files)?;
        let (config, config_rx) = watch::channel(pair.config(&protocols)?);
        let task = async move {
            while !config.is_closed() {
                tokio::time::sleep(REREAD).await;
                match Pair::read(&files).and_then(|now| Ok((now.config(&protocols)?, now))) {
                    Ok((_, now)) if now == pair => {}
                    Ok((new, now)) => {
                        tracing::info!("the doors' certificate was read again");
                        pair = now;
                        config.send_replace(new);
                    }
                    // Certificate and key are written one after the other: the next look finds both.
                    Err(error) => tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the doors' new certificate cannot be used: the one before stays"
                    ),
                }
            }
        };
        Ok((Self { config: config_rx }, task))
    }

    /// Shakes hands with a client.
    pub async fn accept(&self, socket: TcpStream) -> Result<TlsStream<TcpStream>, TlsError> {
        let acceptor = TlsAcceptor::from(self.config.borrow().clone());
        let accepted = tokio::time::timeout(PATIENCE, acceptor.accept(socket)).await;
        accepted
            .map_err(|_| TlsError::Deadline)?
            .map_err(TlsError::Handshake)
    }
}

#[derive(PartialEq, Eq)]
struct Pair {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Pair {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let failed = |path: &PathBuf, what| {
            let path = path.clone();
            move |source| TlsError::Read { path, what, source }
        };
        let certificates = CertificateDer::pem_file_iter(&files.certificate);
        let chain = certificates.and_then(Iterator::collect);
        let chain = chain.map_err(failed(&files.certificate, "certificates"))?;
        let key = PrivateKeyDer::from_pem_file(&files.key);
        let key = key.map_err(failed(&files.key, "a private key"))?;
        Ok(Self { chain, key })
    }

    fn config(&self, protocols: &[Vec<u8>]) -> Result<Arc<ServerConfig>, TlsError> {
        let built = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key());
        let mut config = built.map_err(TlsError::Pair)?;
        config.alpn_protocols = protocols.to_vec();
        Ok(Arc::new(config))
    }
}
