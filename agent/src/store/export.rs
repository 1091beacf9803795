//! The identity in use as PEM files for other programs: `DIR/current/{cert,key,ca}.pem`.
//!
//! `current` is a link to a folder that is complete before the link points to it, and the link is swapped
//! by a rename: whoever opens the files sees a certificate with its own key. A program that opens them one
//! after the other resolves the link once and opens all files there.

use std::fs::File;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use zeroize::Zeroizing;

use super::files::{self, Durability};
use crate::identity::Identity;

/// The link to the files of the identity in use.
pub const CURRENT: &str = "current";

/// The folder of the linked folders.
const IDENTITIES: &str = "identities";

/// Makes `DIR/current` show this identity; nothing is done when it does already.
///
/// # Errors
/// When the file system refuses; the link then shows what it showed before.
pub(super) fn show(dir: &Path, identity: &Identity) -> io::Result<()> {
    let name = name_of(identity);
    let target = PathBuf::from(IDENTITIES).join(&name);
    let link = dir.join(CURRENT);
    let folder = dir.join(&target);
    if std::fs::read_link(&link).is_ok_and(|shown| shown == target) && folder.is_dir() {
        return Ok(());
    }
    let unnamed = dir.join(IDENTITIES).join(".new");
    remove_folder(&unnamed)?;
    files::make_folder(&unnamed)?;
    let certificates = |ders: &[rustls_pki_types::CertificateDer<'_>]| {
        ders.iter().map(|der| armoured("CERTIFICATE", der)).collect::<String>()
    };
    let key = Zeroizing::new(armoured("PRIVATE KEY", identity.key.secret_der()));
    files::replace(&unnamed.join("cert.pem"), certificates(&identity.chain).as_bytes(), Durability::Durable)?;
    files::replace(&unnamed.join("key.pem"), key.as_bytes(), Durability::Durable)?;
    files::replace(&unnamed.join("ca.pem"), certificates(&identity.anchors).as_bytes(), Durability::Durable)?;
    remove_folder(&folder)?;
    std::fs::rename(&unnamed, &folder)?;
    File::open(dir.join(IDENTITIES))?.sync_all()?;
    let new_link = files::temporary(&link)?;
    let _ = std::fs::remove_file(&new_link);
    symlink(&target, &new_link)?;
    std::fs::rename(&new_link, &link)?;
    files::sync_folder_of(&link)?;
    remove_others(&dir.join(IDENTITIES), &name)
}

/// The keys of identities that are no longer in use are not kept.
fn remove_others(identities: &Path, kept: &str) -> io::Result<()> {
    for entry in std::fs::read_dir(identities)? {
        let entry = entry?;
        if entry.file_name().to_str() != Some(kept) {
            remove_folder(&entry.path())?;
        }
    }
    Ok(())
}

fn remove_folder(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
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
