//! A configuration is checked or refused.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(written) = muster::config::ConfigWritten::parse(text) {
        let _ = written.check(std::path::Path::new("/data"));
    }
});
