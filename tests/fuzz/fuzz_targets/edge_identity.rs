//! A client certificate names one device or is refused; what it names is in normal form.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let domain = "fleet.example".parse().expect("a trust domain");
    if let Ok(leaf) = muster_edge::read_leaf(data, &domain) {
        assert_eq!(leaf.device.as_str().parse(), Ok(leaf.device.clone()));
        assert_eq!(muster_edge::read_leaf(data, &domain), Ok(leaf));
    }
});
