//! A request is read whole, with its proof of possession, or refused.
#![no_main]

use muster_ca::csr::{CSR_MAX_BYTES, Csr};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(csr) = Csr::parse(data) {
        assert!(data.len() <= CSR_MAX_BYTES && csr.subject_key().is_strong());
    }
});
