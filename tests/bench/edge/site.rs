//! What the benches of the edge have in common: an account with devices, hostnames, and a server
//! certificate that all servers of a run show.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use rustls::RootCertStore;
use tokio::process::Command;

use super::caller::Caller;
use crate::client::roots;
use crate::fleet::{self, Device};
use crate::processors::on_the_servers;
use crate::server::{Server, program};

/// Answers HTTPS itself: it has no origin.
pub(crate) const DOOR: &str = "door.example.com";
/// Answers HTTPS from the origin.
pub(crate) const PROXY: &str = "proxy.example.com";
/// Answers MQTT.
pub(crate) const MQTT: &str = "mqtt.example.com";

/// All clients come from one address, so its bounds are out of the way.
const CONFIG: &str = "[edge]\nconnections_per_source = 1000000\nnew_per_source_per_s = 1000000\n\
                      new_per_source_burst = 1000000\n";

/// An account in a folder, with the files that other servers need beside it.
pub(crate) struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    /// Makes an account with this many devices, each with a certificate.
    pub(crate) async fn found(devices: usize) -> anyhow::Result<(Self, Vec<Device>)> {
        raise_file_limit()?;
        let site = Self { folder: tempfile::tempdir()? };
        fleet::found(&site.dir()).await?;
        std::fs::write(site.dir().join("muster.toml"), CONFIG)?;
        let registrar = fleet::open(&site.dir())?;
        let devices = fleet::devices(&registrar, devices).await?;
        drop(registrar);
        let issuing = devices.first().and_then(|device| device.chain.get(1)).context("an issuing CA")?;
        std::fs::write(site.file("devices.der"), issuing)?;
        let issuing = pem::encode(&pem::Pem::new("CERTIFICATE", issuing.clone()));
        let root = std::fs::read_to_string(site.dir().join("ca.pem"))?;
        std::fs::write(site.file("devices.pem"), issuing + &root)?;
        site.write_server_certificate()?;
        Ok((site, devices))
    }

    /// The data directory.
    pub(crate) fn dir(&self) -> PathBuf {
        self.folder.path().join("muster")
    }

    /// The folder of everything else.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// `devices.pem`, `devices.der`: the CAs of the devices; `server.pem`, `server.key`: what servers
    /// show; `server-ca.pem`, `server-ca.key`: who vouches for it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write_server_certificate(&self) -> anyhow::Result<()> {
        let issuer = CertifiedIssuer::self_signed(server_ca(), new_key()?)?;
        std::fs::write(self.file("server-ca.pem"), issuer.pem())?;
        std::fs::write(self.file("server-ca.key"), issuer.key().serialize_der())?;
        let key = new_key()?;
        let names = [DOOR, PROXY, MQTT].map(str::to_owned);
        let certificate = CertificateParams::new(names)?.signed_by(&key, &issuer)?.pem();
        std::fs::write(self.file("server.pem"), &certificate)?;
        std::fs::write(self.file("server.key"), key.serialize_pem())?;
        let hosts = self.dir().join("tls").join("hosts");
        std::fs::create_dir_all(&hosts)?;
        for host in [DOOR, PROXY, MQTT] {
            std::fs::write(hosts.join(format!("{host}.crt")), &certificate)?;
            std::fs::write(hosts.join(format!("{host}.key")), key.serialize_pem())?;
        }
        Ok(())
    }

    /// Starts `muster serve` and sets its hostnames.
    pub(crate) async fn serve(&self, origin: SocketAddr) -> anyhow::Result<Server> {
        self.serve_by(Command::new(program()?), origin).await
    }

    /// The same on the server's processor.
    pub(crate) async fn serve_apart(&self, origin: SocketAddr) -> anyhow::Result<Server> {
        self.serve_by(on_the_servers(program()?), origin).await
    }

    async fn serve_by(&self, muster: Command, origin: SocketAddr) -> anyhow::Result<Server> {
        let server = Server::edge(muster, &self.dir()).await?;
        self.muster(&["host", "set", DOOR]).await?;
        self.muster(&["host", "set", PROXY, "--origin", &format!("http://{origin}")]).await?;
        self.muster(&["host", "set", MQTT, "--protocol", "mqtt"]).await?;
        Ok(server)
    }

    /// Runs a `muster` command.
    pub(crate) async fn muster(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let output = Command::new(program()?).arg("-C").arg(self.dir()).args(arguments).output().await?;
        let error = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "muster {arguments:?}: {error}");
        Ok(())
    }

    /// The devices as clients of the servers of this run.
    pub(crate) fn callers(&self, devices: &[Device]) -> anyhow::Result<Vec<Caller>> {
        let roots = self.roots()?;
        devices.iter().map(|device| Caller::of(device, &roots)).collect()
    }

    /// Who vouches for the servers.
    pub(crate) fn roots(&self) -> anyhow::Result<Arc<RootCertStore>> {
        Ok(Arc::new(roots(&self.file("server-ca.pem"))?))
    }
}

/// The CA above all server certificates; with its key it is the same each time it is made.
pub(crate) fn server_ca() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "bench servers");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

pub(crate) fn new_key() -> anyhow::Result<KeyPair> {
    Ok(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)
}

/// For this process and the servers that it starts.
pub(crate) fn raise_file_limit() -> anyhow::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}
