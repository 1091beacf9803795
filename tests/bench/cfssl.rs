//! The baseline: Debian's cfssl as an HTTPS signing service with mTLS.
//!
//! It gets what favours it: P-256 everywhere, its least logging, no database, so nothing it signs is
//! stored, and the processor that Muster has too. Its client certificates are the devices' own.

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;

use anyhow::Context as _;
use bytes::Bytes;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};

use crate::client::Exchange;
use crate::fleet::Device;
use crate::processors::on_the_servers;
use crate::server::{Server, accepts};

const POLICY: &str =
    r#"{"signing":{"default":{"expiry":"2160h","usages":["digital signature","client auth"]}}}"#;

/// Starts cfssl with its files in `dir`; `clients` is the PEM file of the devices' root. Its own root
/// is written to `dir/ca.pem`.
pub(crate) async fn start(dir: &Path, clients: &Path) -> anyhow::Result<Server> {
    write_files(dir)?;
    // cfssl can't say which port it took; the one just given back is free.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut command = on_the_servers("cfssl");
    command.current_dir(dir).args(["serve", "-address", "127.0.0.1", "-loglevel", "5"]);
    command.args(["-port", &address.port().to_string(), "-ca", "ca.pem", "-ca-key", "ca.key"]);
    command.args(["-config", "policy.json", "-tls-cert", "server.pem", "-tls-key", "server.key"]);
    command.arg("-mutual-tls-ca").arg(clients);
    command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let child = command.spawn().context("taskset")?;
    accepts(address).await.context("cfssl; is Debian's golang-cfssl installed?")?;
    Server::watch(child, address, None)
}

fn write_files(dir: &Path) -> anyhow::Result<()> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "cfssl bench");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    std::fs::write(dir.join("ca.key"), key.serialize_pem())?;
    let issuer = CertifiedIssuer::self_signed(params, key)?;
    std::fs::write(dir.join("ca.pem"), issuer.pem())?;
    let server_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let server = CertificateParams::new(["localhost".to_owned()])?.signed_by(&server_key, &issuer)?;
    std::fs::write(dir.join("server.pem"), server.pem())?;
    std::fs::write(dir.join("server.key"), server_key.serialize_pem())?;
    std::fs::write(dir.join("policy.json"), POLICY)?;
    Ok(())
}

/// A request to sign for a device.
pub(crate) fn exchange(device: &Device) -> anyhow::Result<Exchange> {
    let request = pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", device.request()?));
    let body = serde_json::json!({ "certificate_request": request, "hosts": [] }).to_string();
    Ok(Exchange { path: "/api/v1/cfssl/sign", media_type: "application/json", body: Bytes::from(body) })
}
