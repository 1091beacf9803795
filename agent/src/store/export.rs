//! The identity in use as PEM files for other programs: `DIR/current/{cert,key,ca}.pem`.
//!
//! `current` is a link to a folder that is complete before the link points to it, and the link is swapped
//! by a rename: whoever opens the files sees a certificate with its own key. A program that opens them one
//! after the other resolves the link once and opens all files there.

use std::io;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use zeroize::Zeroizing;

use super::files::{Durability, Folder};
use crate::identity::Identity;

/// The link to the files of the identity in use.
pub const CURRENT: &str = "current";

/// The folder of the linked folders.
const IDENTITIES: &str = "identities";

/// A folder in it that is not complete yet.
const UNNAMED: &str = ".new";

/// Makes `DIR/current` show this identity; nothing is done when it does already.
///
/// # Errors
/// When the file system refuses; the link then shows what it showed before.
pub(super) fn show(dir: &Folder, identity: &Identity) -> io::Result<()> {
    let name = name_of(identity);
    let target = Path::new(IDENTITIES).join(&name);
    if dir.linked(CURRENT).is_some_and(|shown| shown == target) && dir.within(&target).is_ok() {
        return Ok(());
    }
    let identities = dir.make_within(Path::new(IDENTITIES))?;
    identities.remove_within(Path::new(UNNAMED))?;
    let unnamed = identities.make_within(Path::new(UNNAMED))?;
    let certificates = |ders: &[rustls_pki_types::CertificateDer<'_>]| {
        ders.iter().map(|der| armoured("CERTIFICATE", der)).collect::<String>()
    };
    let key = Zeroizing::new(armoured("PRIVATE KEY", identity.key.secret_der()));
    unnamed.replace("cert.pem", certificates(&identity.chain).as_bytes(), Durability::Durable)?;
    unnamed.replace("key.pem", key.as_bytes(), Durability::Durable)?;
    unnamed.replace("ca.pem", certificates(&identity.anchors).as_bytes(), Durability::Durable)?;
    identities.remove_within(Path::new(&name))?;
    identities.rename(UNNAMED, &name)?;
    dir.link(CURRENT, &target)?;
    remove_others(&identities, &name)
}

/// The keys of identities that are no longer in use are not kept.
fn remove_others(identities: &Folder, kept: &str) -> io::Result<()> {
    for name in identities.names()?.iter().filter(|name| *name != kept) {
        identities.remove_within(Path::new(name))?;
    }
    Ok(())
}

/// Generations can repeat when a device is enrolled anew; a leaf can't.
fn name_of(identity: &Identity) -> String {
    let leaf = identity.chain.first().map(|leaf| digest(&SHA256, leaf));
    let octets = leaf.as_ref().map(AsRef::as_ref).unwrap_or_default();
    let short: String = octets.iter().take(4).map(|octet| format!("{octet:02x}")).collect();
    format!("{}-{short}", identity.generation)
}

/// PEM of one item.
pub(crate) fn armoured(label: &str, der: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new(label, der), config)
}
