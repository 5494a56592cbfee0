//! A certificate that signs itself, as an administrator makes one with openssl.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::progress::output_of;

/// Certificate and key, PEM files.
#[derive(Clone, Debug)]
pub struct SelfSigned {
    /// It is its own authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Makes one in `folder` for a server at `address`.
pub fn self_signed(folder: &Path, address: IpAddr) -> Result<SelfSigned> {
    let made = SelfSigned {
        certificate: folder.join("certificate.pem"),
        key: folder.join("key.pem"),
    };
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt"]);
    openssl.args(["ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
    openssl.args(["-subj", "/CN=test", "-addext"]);
    openssl.arg(format!("subjectAltName=IP:{address}"));
    openssl.arg("-keyout").arg(&made.key);
    output_of(openssl.arg("-out").arg(&made.certificate))?;
    Ok(made)
}
