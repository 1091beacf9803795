//! A scenario file is checked or refused.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(written) = muster_simulator::scenario::ScenarioWritten::parse(text) {
        let _ = written.check();
    }
});
