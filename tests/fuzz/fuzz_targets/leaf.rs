//! A client certificate is read or refused; only one that could be read is ever good.
#![no_main]

use muster_ca::certificate::LeafFacts;
use muster_ca::chain::{ClientChain, TrustAnchors, verify_client_chain};

const ANCHOR: &[u8] = include_bytes!("../anchor.der");

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let at = muster_policy::time::UnixTime::from_secs(1_800_000_000);
    let anchors = TrustAnchors::new([ANCHOR]).expect("a certificate");
    let verdict = verify_client_chain(&data.into(), &[data.into()], &anchors, at);
    assert!(LeafFacts::parse(data).is_ok() || !matches!(verdict, ClientChain::Trusted { .. }));
});
