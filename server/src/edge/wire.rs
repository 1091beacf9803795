//! What an edge in another process is told, as octets: an update with its length before it, and the number of the
//! change that the edge then goes by, in answer. And what it is asked, and answers, over a socket beside that one:
//! JSON with its length before it.
//!
//! Both ends are of one owner, over sockets in a folder that is its owner's alone. They may be of different versions of
//! this program while updates have the same form; an update of another one is refused.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use muster_edge::Update;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use zeroize::Zeroizing;

/// A million revoked certificates are 50 MB.
const UPDATE_MAX_BYTES: u32 = 1 << 30;

/// Sends an update.
///
/// # Errors
/// When it can't be written, or the other side is gone.
pub(super) async fn send_update(
    stream: &mut (impl AsyncWrite + Unpin),
    update: &Update,
) -> anyhow::Result<()> {
    let octets = update.to_octets().context("an update can't be written")?;
    write_octets(stream, &octets, UPDATE_MAX_BYTES).await
}

/// Reads the next update.
///
/// # Errors
/// When the other side is gone, or says something else.
pub(super) async fn read_update(stream: &mut (impl AsyncRead + Unpin)) -> anyhow::Result<Update> {
    let octets = read_octets(stream, UPDATE_MAX_BYTES).await?;
    Update::from_octets(&octets).context("an update can't be read")
}

/// The socket of questions, beside the one of updates.
pub(super) fn questions_at(updates: &Path) -> PathBuf {
    let mut path = OsString::from(updates);
    path.push(".asks");
    PathBuf::from(path)
}

/// Says something: a question, an answer, a name.
///
/// # Errors
/// When it is larger than that, or the other side is gone.
pub(super) async fn say(
    stream: &mut (impl AsyncWrite + Unpin),
    said: &impl Serialize,
    max_bytes: u32,
) -> anyhow::Result<()> {
    write_octets(stream, &serde_json::to_vec(said)?, max_bytes).await
}

/// Hears what the other side says.
///
/// # Errors
/// When it is gone, says something larger, or something else.
pub(super) async fn hear<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
    max_bytes: u32,
) -> anyhow::Result<T> {
    Ok(serde_json::from_slice(&read_octets(stream, max_bytes).await?)?)
}

async fn write_octets(
    stream: &mut (impl AsyncWrite + Unpin),
    octets: &[u8],
    max_bytes: u32,
) -> anyhow::Result<()> {
    let length = u32::try_from(octets.len()).ok().filter(|length| *length <= max_bytes);
    stream.write_u32(length.context("it is too large")?).await?;
    stream.write_all(octets).await?;
    Ok(stream.flush().await?)
}

async fn read_octets(
    stream: &mut (impl AsyncRead + Unpin),
    max_bytes: u32,
) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let length = stream.read_u32().await?;
    anyhow::ensure!(length <= max_bytes, "{length} octets are too many");
    // It grows with what comes, not with what is announced. Keys may be in it.
    let mut octets = Zeroizing::new(Vec::new());
    stream.take(u64::from(length)).read_to_end(&mut octets).await?;
    anyhow::ensure!(octets.len() == usize::try_from(length)?, "it breaks off");
    Ok(octets)
}

/// Says, or hears, that an edge goes by a change.
///
/// # Errors
/// When the other side is gone.
pub(super) async fn send_change(stream: &mut (impl AsyncWrite + Unpin), change: u64) -> anyhow::Result<()> {
    stream.write_u64(change).await?;
    Ok(stream.flush().await?)
}

/// The change that the edge goes by.
///
/// # Errors
/// When the other side is gone.
pub(super) async fn read_change(stream: &mut (impl AsyncRead + Unpin)) -> anyhow::Result<u64> {
    Ok(stream.read_u64().await?)
}

#[cfg(test)]
mod tests {
    use muster_edge::Delta;
    use muster_policy::time::UnixTime;

    use super::*;

    #[tokio::test]
    async fn an_update_comes_whole_or_not_at_all() {
        let made_at = UnixTime::from_secs(1_800_000_000);
        let update = Update::Delta(Delta { from: 3, change: 4, made_at, events: Vec::new() });
        let mut octets = Vec::new();
        send_update(&mut octets, &update).await.expect("written");
        let read = read_update(&mut octets.as_slice()).await.expect("read");
        assert!(matches!(read, Update::Delta(Delta { from: 3, change: 4, .. })));
        for cut in 0..octets.len() {
            assert!(read_update(&mut &octets[..cut]).await.is_err(), "cut at {cut}");
        }
        octets[4] += 1;
        let newer = read_update(&mut octets.as_slice()).await.expect_err("of another form");
        assert!(format!("{newer:#}").contains("versions of the same form"), "{newer:#}");
        for wrong in [&[0xff; 64][..], &[0, 0, 0, 1, 0xc1], &[0, 0, 0, 0]] {
            assert!(read_update(&mut &*wrong).await.is_err(), "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn what_is_said_is_heard_up_to_its_bound() {
        let mut octets = Vec::new();
        say(&mut octets, &["a", "b"], 9).await.expect("written");
        assert_eq!(hear::<Vec<String>>(&mut octets.as_slice(), 9).await.expect("read"), ["a", "b"]);
        assert!(hear::<Vec<String>>(&mut octets.as_slice(), 8).await.is_err(), "too large");
        assert!(hear::<u64>(&mut octets.as_slice(), 9).await.is_err(), "something else");
        assert!(say(&mut Vec::new(), &["a", "b"], 8).await.is_err(), "too large");
    }
}
