//! The baselines, as Debian ships them: nginx for HTTPS, mosquitto for MQTT, both with client
//! certificates demanded; and the origin that all proxies have behind them.
//!
//! Each gets what favours it: one worker, no log, no session cache and no tickets.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::site::{DOOR, PROXY, Site};
use crate::processors::on_the_servers;
use crate::server::{Server, accepts};

const ORIGIN_ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nok\n";

/// Starts nginx: `/` of DOOR is its own answer, that of PROXY the origin's. It tells the origin who
/// comes, as the edge does.
pub(crate) async fn nginx(site: &Site, origin: SocketAddr) -> anyhow::Result<Server> {
    let address = free_address()?;
    let dir = site.path().display();
    let tls = format!(
        "listen {address} ssl; ssl_certificate {dir}/server.pem; ssl_certificate_key {dir}/server.key;
         ssl_client_certificate {dir}/devices.pem; ssl_verify_client on; ssl_verify_depth 2;
         ssl_protocols TLSv1.3; ssl_ecdh_curve X25519; ssl_session_tickets off; ssl_session_cache off;
         keepalive_requests 1000000;"
    );
    let config = format!(
        "daemon off; master_process off; pid {dir}/nginx.pid; error_log {dir}/nginx.log crit;
         worker_rlimit_nofile 20000; events {{ worker_connections 8192; }}
         http {{
           access_log off; client_body_temp_path {dir}/nginx-body; proxy_temp_path {dir}/nginx-proxy;
           fastcgi_temp_path {dir}/nginx-f; uwsgi_temp_path {dir}/nginx-u; scgi_temp_path {dir}/nginx-s;
           upstream origin {{ server {origin}; keepalive 64; keepalive_requests 1000000; }}
           server {{ server_name {DOOR}; {tls} location / {{ return 200 \"ok\\n\"; }} }}
           server {{
             server_name {PROXY}; {tls}
             location / {{
               proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection \"\";
               proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr;
               proxy_set_header X-Forwarded-Proto https; proxy_set_header X-Client-Cert $ssl_client_escaped_cert;
               proxy_set_header X-Client-Verify $ssl_client_verify; proxy_set_header X-Client-Dn $ssl_client_s_dn;
               proxy_set_header X-Client-Issuer $ssl_client_i_dn; proxy_set_header X-Client-Serial $ssl_client_serial;
               proxy_set_header X-Client-Fingerprint $ssl_client_fingerprint;
             }}
           }}
         }}\n"
    );
    let file = site.file("nginx.conf");
    std::fs::write(&file, config)?;
    let mut command = on_the_servers("/usr/sbin/nginx");
    command.arg("-e").arg(site.file("nginx.log")).arg("-p").arg(site.path()).arg("-c").arg(file);
    started(command, address).await.context("nginx: install Debian's nginx-light")
}

/// Starts mosquitto; a client's user name is that of its certificate.
pub(crate) async fn mosquitto(site: &Site) -> anyhow::Result<Server> {
    let address = free_address()?;
    let dir = site.path().display();
    let config = format!(
        "listener {} {}\ncafile {dir}/devices.pem\ncertfile {dir}/server.pem\nkeyfile {dir}/server.key\n\
         require_certificate true\nuse_identity_as_username true\ntls_version tlsv1.3\n\
         allow_anonymous true\npersistence false\nlog_dest none\nuser root\n",
        address.port(),
        address.ip()
    );
    let file = site.file("mosquitto.conf");
    std::fs::write(&file, config)?;
    let mut command = on_the_servers("/usr/sbin/mosquitto");
    command.arg("-c").arg(file);
    started(command, address).await.context("mosquitto: install Debian's mosquitto")
}

async fn started(mut command: Command, address: SocketAddr) -> anyhow::Result<Server> {
    command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let child = command.spawn()?;
    accepts(address).await?;
    Server::watch(child, address, None)
}

/// These servers can't say which port they took; one just given back is free.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Answers every request with the same; in this process, so its CPU is in nobody's figures.
pub(crate) async fn origin() -> anyhow::Result<SocketAddr> {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = socket.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = socket.accept().await {
            let _ = stream.set_nodelay(true);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while stream.read_buf(&mut head).await? > 0 {
                    if head.ends_with(b"\r\n\r\n") {
                        head.clear();
                        stream.write_all(ORIGIN_ANSWER).await?;
                    }
                }
                anyhow::Ok(())
            });
        }
    });
    Ok(address)
}

/// The load average of the last minute, as the system says it.
pub(crate) fn load_average() -> String {
    let text = std::fs::read_to_string(Path::new("/proc/loadavg")).unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}
