//! The certificate of AMI over TLS. Its files are read again when a client comes and the last look is some time ago: a hub that nobody
//! comes to is not woken for it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::TlsConfig;

/// Clients that come within this are shown the same one.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// A certificate with its key, as its files had them last.
#[derive(Clone, Debug)]
pub struct Certificate {
    files: TlsConfig,
    config: Arc<ServerConfig>,
    looked_at: Instant,
}

impl Certificate {
    /// Reads it. The error says which file is wrong, and why.
    pub fn read(files: &TlsConfig) -> Result<Self, String> {
        Ok(Self {
            config: server_config(files)?,
            files: files.clone(),
            looked_at: Instant::now(),
        })
    }

    /// The newest that can be used, for a client that comes `now`.
    pub fn newest(&mut self, now: Instant) -> Arc<ServerConfig> {
        if now.saturating_duration_since(self.looked_at) >= LOOK_AGAIN {
            self.looked_at = now;
            match server_config(&self.files) {
                Ok(config) => self.config = config,
                // Certificate and key are written one after the other: a later look finds both.
                Err(problem) => tracing::warn!(
                    problem,
                    "AMI's new certificate cannot be used: the one before stays"
                ),
            }
        }
        self.config.clone()
    }
}

fn server_config(tls: &TlsConfig) -> Result<Arc<ServerConfig>, String> {
    let at = |field: &str, path: &Path, error: &dyn std::fmt::Display| {
        format!("tls.{field}: {}: {error}", path.display())
    };
    let chain = CertificateDer::pem_file_iter(&tls.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| at("certificate", &tls.certificate, &error))?;
    let key =
        PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| at("key", &tls.key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map(Arc::new)
        .map_err(|error| at("certificate", &tls.certificate, &error))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::{IpAddr, Ipv4Addr};

    use pbx_tests::certificate::self_signed;

    use super::*;

    #[test]
    fn a_new_certificate_is_shown_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let made = self_signed(folder.path(), address).unwrap();
        let files = TlsConfig {
            listen: Vec::new(),
            certificate: made.certificate.clone(),
            key: made.key,
        };
        let mut certificate = Certificate::read(&files).unwrap();
        let began = certificate.looked_at;
        let first = certificate.newest(began);
        let later = |looks: u32| began + LOOK_AGAIN * looks;

        fs::write(&made.certificate, "half of one").unwrap();
        assert!(Arc::ptr_eq(&certificate.newest(later(1)), &first));
        self_signed(folder.path(), address).unwrap();
        let soon = later(1) + LOOK_AGAIN / 2;
        assert!(Arc::ptr_eq(&certificate.newest(soon), &first));
        let second = certificate.newest(later(2));
        assert!(!Arc::ptr_eq(&second, &first));
    }
}
