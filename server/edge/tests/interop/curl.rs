//! `curl`: the honest way in, and requests for one hostname over the connection of another.

use muster_edge::Event;

use crate::Bench;

impl Bench {
    /// A request to a hostname, over a connection to the edge.
    pub(crate) fn curl(&self, url: &str, args: &[&str]) -> (bool, String) {
        let to = format!("::127.0.0.1:{}", self.rig.https.port());
        let fixed = ["-sS", "-i", "--cacert", "ca.pem", "--connect-to", &to, url];
        self.run("curl", &[&fixed[..], args].concat(), "")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_is_served_with_a_certificate_over_either_version() {
    let bench = Bench::start().await;
    bench.pair("device", &bench.rig.ca.device("meter-1", 7));
    for (flag, version) in [("--http1.1", "HTTP/1.1 200"), ("--http2", "HTTP/2 200")] {
        let (content, text) =
            bench.curl("https://api.example.com/path?query", &["--cert", "device.pem", flag]);
        assert!(content && text.starts_with(version), "{text}");
        assert!(text.contains("GET /path?query") && text.contains("cf-cert-verified: true"), "{text}");
    }
    let (content, text) = bench.curl("https://api.example.com/", &[]);
    assert!(!content && text.contains("certificate required"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_body_streams_both_ways() {
    let bench = Bench::start().await;
    let body = vec![b'x'; 8 * 1024 * 1024];
    std::fs::write(bench.folder.path().join("body"), &body).expect("written");
    for flag in ["--http1.1", "--http2"] {
        let (content, text) = bench.curl(
            "https://off.example.com/",
            &["--data-binary", "@body", "-H", "Expect: 100-continue", flag],
        );
        assert!(content && text.contains(&format!("body-bytes: {}", body.len())), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_must_be_the_one_of_the_handshake() {
    let bench = Bench::start().await;
    for flag in ["--http1.1", "--http2"] {
        for other in ["api.example.com", "API.example.com.", "unknown.example.com"] {
            let host = format!("Host: {other}");
            let (_, text) = bench.curl("https://off.example.com/", &["-H", &host, flag]);
            let status = text.lines().next().unwrap_or_default();
            assert!(status.contains(" 421"), "{flag} {other}: {text}");
            assert!(text.contains("muster-reason: host_misdirected"), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_headers_do_not_pass_curl_either() {
    let bench = Bench::start().await;
    let forged =
        ["-H", "Client-Cert: :forged:", "-H", "CF_CERT_VERIFIED: forged", "-H", "X-Forwarded-For: forged"];
    for flag in ["--http1.1", "--http2"] {
        let (content, text) = bench.curl("https://off.example.com/", &[&forged[..], &[flag]].concat());
        assert!(content && !text.contains("forged"), "{text}");
        assert!(
            text.contains("cf-cert-verified: false") && text.contains("x-forwarded-for: 127.0.0.1"),
            "{text}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_reads_a_page_and_a_program_json() {
    let bench = Bench::start().await;
    bench.pair("device", &bench.rig.ca.device("meter-1", 7));
    bench.rig.suspend("meter-1");
    let (_, text) =
        bench.curl("https://api.example.com/", &["--cert", "device.pem", "-H", "Accept: text/html"]);
    assert!(text.contains(" 403") && text.contains("<p>The device is suspended.</p>"), "{text}");
    let (_, text) = bench.curl("https://api.example.com/", &["--cert", "device.pem"]);
    assert!(text.contains("{\"reason\":\"device_suspended\","), "{text}");
    bench.rig.tell(vec![Event::Revoked(bench.rig.ca.key(7))]);
    let (content, text) = bench.curl("https://api.example.com/", &["--cert", "device.pem"]);
    assert!(!content && text.contains("certificate revoked"), "{text}");
}
