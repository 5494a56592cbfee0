//! The cluster's certificate authority, certificates and kubeconfigs, made by the `openssl`
//! command on elliptic curves (milliseconds, where RSA takes a second each).

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, anyhow};
use serde_json::json;

use super::layout::{API_PORT, API_SERVICE, CONTROL_PLANE, Layout, NodeId};
use crate::progress::output_of;

const CURVE: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
const DAYS: &str = "365";

/// Someone who has a certificate.
struct Holder {
    /// Names the files.
    name: String,
    subject: String,
    /// As openssl writes them; empty for those who serve nothing.
    alternative_names: String,
    /// Where its kubeconfig points, for those who have one.
    server: Option<Ipv4Addr>,
}

/// Makes everything for a control plane and these nodes.
pub(super) fn create(layout: &Layout, nodes: &[NodeId]) -> Result<()> {
    let pki = layout.pki();
    fs::create_dir_all(&pki).with_context(|| format!("create {}", pki.display()))?;
    create_authority(&pki)?;
    thread::scope(|scope| {
        let workers: Vec<_> = holders(nodes)
            .into_iter()
            .map(|holder| scope.spawn(move || create_holder(layout, &holder)))
            .collect();
        workers.into_iter().try_for_each(|worker| {
            worker
                .join()
                .map_err(|_| anyhow!("making a certificate panicked"))?
        })
    })
}

fn holders(nodes: &[NodeId]) -> Vec<Holder> {
    let local = Some(Ipv4Addr::LOCALHOST);
    let client = |name: &str, subject: &str, server| Holder {
        name: name.into(),
        subject: subject.into(),
        alternative_names: String::new(),
        server,
    };
    let mut holders = vec![
        client("admin", "/O=system:masters/CN=admin", local),
        client(
            "controller-manager",
            "/CN=system:kube-controller-manager",
            local,
        ),
        client("scheduler", "/CN=system:kube-scheduler", local),
        client("proxy", "/CN=system:kube-proxy", Some(CONTROL_PLANE)),
        Holder {
            alternative_names: format!(
                "IP:127.0.0.1,IP:{CONTROL_PLANE},IP:{API_SERVICE},DNS:localhost,DNS:kubernetes,\
                 DNS:kubernetes.default,DNS:kubernetes.default.svc,\
                 DNS:kubernetes.default.svc.cluster.local"
            ),
            ..client("apiserver", "/CN=kube-apiserver", None)
        },
    ];
    holders.extend(nodes.iter().map(|node| Holder {
        alternative_names: format!("DNS:{node},IP:{}", node.address()),
        ..client(
            &node.to_string(),
            &format!("/O=system:nodes/CN=system:node:{node}"),
            Some(CONTROL_PLANE),
        )
    }));
    holders
}

fn create_authority(pki: &Path) -> Result<()> {
    write_settings(
        pki,
        "ca",
        "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n",
    )?;
    output_of(
        openssl(pki)
            .args(["req", "-x509"])
            .args(CURVE)
            .args(request("ca", "/CN=pbx-ha-local")),
    )
    .context("make the certificate authority")?;
    output_of(openssl(pki).args([
        "ecparam",
        "-name",
        "prime256v1",
        "-genkey",
        "-noout",
        "-out",
        "sa.key",
    ]))
    .context("make the key of service accounts")
    .map(drop)
}

fn create_holder(layout: &Layout, holder: &Holder) -> Result<()> {
    let pki = layout.pki();
    let name = holder.name.as_str();
    // Extensions make it X.509 v3, and rustls refuses v1.
    let mut extensions =
        "basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth,serverAuth\n".to_owned();
    if !holder.alternative_names.is_empty() {
        extensions = format!("{extensions}subjectAltName={}\n", holder.alternative_names);
    }
    write_settings(&pki, name, &extensions)?;
    let signed = ["req", "-x509", "-CA", "ca.crt", "-CAkey", "ca.key"];
    output_of(
        openssl(&pki)
            .args(signed)
            .args(CURVE)
            .args(request(name, &holder.subject)),
    )
    .with_context(|| format!("make the certificate of {name}"))?;
    match holder.server {
        Some(server) => write_kubeconfig(layout, name, server),
        None => Ok(()),
    }
}

fn request(name: &str, subject: &str) -> Vec<String> {
    let words = format!(
        "-noenc -days {DAYS} -config {name}.cnf -extensions extensions -keyout {name}.key -out {name}.crt -subj"
    );
    words
        .split(' ')
        .chain([subject])
        .map(str::to_owned)
        .collect()
}

fn write_settings(pki: &Path, name: &str, extensions: &str) -> Result<()> {
    let text = format!("[req]\ndistinguished_name=name\n[name]\n[extensions]\n{extensions}");
    let path = pki.join(format!("{name}.cnf"));
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}

fn openssl(pki: &Path) -> Command {
    let mut command = Command::new("openssl");
    command.current_dir(pki);
    command
}

fn write_kubeconfig(layout: &Layout, name: &str, server: Ipv4Addr) -> Result<()> {
    let file = |suffix: &str| layout.pki().join(format!("{name}.{suffix}"));
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "pbx-ha", "cluster": {
            "server": format!("https://{server}:{API_PORT}"),
            "certificate-authority": layout.pki().join("ca.crt"),
        }}],
        "users": [{ "name": name, "user": {
            "client-certificate": file("crt"),
            "client-key": file("key"),
        }}],
        "contexts": [{ "name": "pbx-ha", "context": { "cluster": "pbx-ha", "user": name } }],
        "current-context": "pbx-ha",
    });
    let path = layout.run().join(format!("{name}.kubeconfig"));
    fs::write(&path, format!("{config:#}\n")).with_context(|| format!("write {}", path.display()))
}
