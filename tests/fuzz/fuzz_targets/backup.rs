//! A backup is unpacked or refused, and nothing is ever written outside of the folder for it. The input is taken as
//! the archive itself, and as a list of members, of which a sound archive with their digests is made: the way to what is
//! behind gzip, tar and the manifest.
#![no_main]

use std::path::Path;

use sha2::{Digest, Sha256};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = unpacked(data);
    let _ = unpacked(&packed(data));
});

/// Unpacks into a folder with a neighbour, which must stay alone.
fn unpacked(archive: &[u8]) -> anyhow::Result<()> {
    let around = tempfile::tempdir()?;
    let target = around.path().join("target");
    std::fs::create_dir(&target)?;
    muster::backup::lay_out(&target)?;
    let outcome = muster::backup::unpack(archive, &target);
    let names = |folder: &Path| -> Vec<_> {
        let entries = std::fs::read_dir(folder).expect("a folder");
        entries
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("a plain name"))
            .collect()
    };
    assert_eq!(names(around.path()), ["target"]);
    let known = ["hosts", "keys", "ledger.redb", "muster.toml", "tls"];
    assert!(names(&target).iter().all(|name| known.contains(&name.as_str())), "{:?}", names(&target));
    outcome
}

/// Members are a length octet and a name, and a length octet and a content.
fn packed(mut data: &[u8]) -> Vec<u8> {
    let mut members = Vec::new();
    while let (Some(name), Some(content)) = (part(&mut data), part(&mut data)) {
        members.push((name, content));
    }
    let digests = members.iter().map(|(name, content)| {
        let digest: String = Sha256::digest(content).iter().map(|octet| format!("{octet:02x}")).collect();
        (String::from_utf8_lossy(name).into_owned(), serde_json::Value::from(digest))
    });
    let digests: serde_json::Map<_, _> = digests.collect();
    let manifest = serde_json::json!({ "format": 1, "sha256": digests }).to_string();
    let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut archive = tar::Builder::new(gzip);
    let mut append = |name: &[u8], content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        // As it is: the library's own way refuses names that lead out.
        let place = &mut header.as_old_mut().name;
        let len = name.len().min(place.len());
        place[..len].copy_from_slice(&name[..len]);
        header.set_cksum();
        archive.append(&header, content).expect("written to memory");
    };
    append(b"manifest.json", manifest.as_bytes());
    members.iter().for_each(|(name, content)| append(name, content));
    archive.into_inner().and_then(flate2::write::GzEncoder::finish).expect("written to memory")
}

fn part<'d>(data: &mut &'d [u8]) -> Option<&'d [u8]> {
    let (len, rest) = data.split_first()?;
    let (part, rest) = rest.split_at_checked(usize::from(*len))?;
    *data = rest;
    Some(part)
}
