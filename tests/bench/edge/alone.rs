//! An edge from the library in a process of its own, as large as it is asked to be.
//!
//! A million revocations, or ten thousand hostnames, through the ledger would take minutes of commits
//! that say nothing about a handshake. What the edge is told here is what `muster serve` would tell it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::Context as _;
use clap::Args;
use muster_edge::{
    AccountEntry, CaEntry, CertificateKey, Edge, EdgeConfig, HostEntry, ListenerKind, ListenerLimits,
    NoBroker, OriginTls, SecretKey, Snapshot, TlsIdentity, Update,
};
use muster_enroll::{Clock, random};
use muster_policy::host::{DefaultCas, HostRule, MinTls, Protocol};
use muster_policy::identity::{AccountId, CaId, Serial, ZoneId};
use prometheus_client::registry::Registry;
use rcgen::{CertificateParams, Issuer, KeyPair};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::site::{Site, new_key, raise_file_limit, server_ca};
use crate::processors::on_the_servers;
use crate::server::{Server, first_line};

const ACCOUNT: AccountId = AccountId::from_bytes([1; 16]);
const CA: CaId = CaId::from_bytes([2; 16]);

/// Arguments of `alone`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// The devices' issuing CA, DER.
    #[arg(long)]
    devices: PathBuf,
    /// The key of the CA of all server certificates, PKCS#8 DER.
    #[arg(long)]
    server_ca_key: PathBuf,
    /// How many hostnames, each with its own key and certificate.
    #[arg(long)]
    hosts: usize,
    /// How many revoked certificates.
    #[arg(long)]
    revoked: usize,
}

/// Hostname number `number`.
pub(crate) fn host(number: usize) -> String {
    format!("h{number}.example.com")
}

/// Starts one.
pub(crate) async fn start(site: &Site, hosts: usize, revoked: usize) -> anyhow::Result<Server> {
    let mut command = on_the_servers(std::env::current_exe()?);
    command.arg("alone").arg("--devices").arg(site.file("devices.der"));
    command.arg("--server-ca-key").arg(site.file("server-ca.key"));
    command.args(["--hosts", &hosts.to_string(), "--revoked", &revoked.to_string()]);
    command.stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let address: SocketAddr = first_line(&mut child).await?.parse()?;
    Server::watch(child, address, None)
}

/// Serves until it is killed.
#[expect(clippy::print_stdout, reason = "how it says where it is")]
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    raise_file_limit()?;
    let limits = ListenerLimits {
        connections_per_source: 1_000_000,
        new_per_source_per_s: 1_000_000,
        new_per_source_burst: 1_000_000,
        ..ListenerLimits::default()
    };
    let config = EdgeConfig { limits, ..EdgeConfig::default() };
    let edge = Edge::start(config, std::sync::Arc::new(NoBroker), &mut Registry::default())?;
    let applied = edge.apply(Update::Snapshot(Box::new(snapshot(&arguments)?)))?;
    anyhow::ensure!(applied.faults.is_empty(), "{:?}", applied.faults);
    let socket = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", socket.local_addr()?);
    edge.serve(socket, ListenerKind::Https, CancellationToken::new()).await;
    Ok(())
}

fn snapshot(arguments: &Arguments) -> anyhow::Result<Snapshot> {
    let key = KeyPair::try_from(std::fs::read(&arguments.server_ca_key)?)?;
    let issuer = Issuer::new(server_ca(), key);
    let revoked = |_| {
        let serial = Serial::from_bytes(&random::<16>().context("random numbers")?).context("a serial")?;
        Ok(CertificateKey { ca: CA, serial })
    };
    Ok(Snapshot {
        change: 1,
        made_at: Clock::system().now(),
        accounts: vec![AccountEntry {
            id: ACCOUNT,
            trust_domain: "example.com".parse()?,
            outbound: None,
            gate: Default::default(),
        }],
        cas: vec![CaEntry {
            id: CA,
            account: ACCOUNT,
            certificates: vec![std::fs::read(&arguments.devices)?.into()],
            is_default: true,
            vouches: true,
        }],
        hosts: (0..arguments.hosts).map(|number| host_entry(&issuer, number)).collect::<Result<_, _>>()?,
        revoked: (0..arguments.revoked).map(revoked).collect::<anyhow::Result<_>>()?,
        devices: Vec::new(),
        elsewhere: Default::default(),
    })
}

fn host_entry(issuer: &Issuer<'_, KeyPair>, number: usize) -> anyhow::Result<HostEntry> {
    let (name, key) = (host(number), new_key()?);
    let certificate = CertificateParams::new([name.clone()])?.signed_by(&key, issuer)?;
    Ok(HostEntry {
        rule: HostRule {
            host: name.parse()?,
            account: ACCOUNT,
            zone: ZoneId::from_bytes([3; 16]),
            mode: Default::default(),
            protocols: [Protocol::Https].into(),
            cas: Default::default(),
            default_cas: DefaultCas::default(),
            min_tls: MinTls::default(),
            origins: Vec::new(),
            when_stale: Default::default(),
            forward_certificate: true,
            origin_timeout_s: 60,
        },
        certificate: Some(TlsIdentity {
            chain: vec![certificate.der().to_vec().into()],
            key: SecretKey::new(key.serialize_der()),
        }),
        origin_tls: OriginTls::default(),
    })
}
