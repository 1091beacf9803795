//! What an edge in another process is told, as octets: an update with its length before it, and the number of the
//! change that the edge then goes by, in answer.
//!
//! Both ends are of one owner and one version of this program, over a socket in a folder that is its owner's alone.

use anyhow::Context as _;
use muster_edge::Update;
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
    let length = u32::try_from(octets.len()).ok().filter(|length| *length <= UPDATE_MAX_BYTES);
    stream.write_u32(length.context("an update is too large")?).await?;
    stream.write_all(&octets).await?;
    Ok(stream.flush().await?)
}

/// Reads the next update.
///
/// # Errors
/// When the other side is gone, or says something else.
pub(super) async fn read_update(stream: &mut (impl AsyncRead + Unpin)) -> anyhow::Result<Update> {
    let length = stream.read_u32().await?;
    anyhow::ensure!(length <= UPDATE_MAX_BYTES, "an update of {length} octets is too large");
    // It grows with what comes, not with what is announced. Keys are in it.
    let mut octets = Zeroizing::new(Vec::new());
    stream.take(u64::from(length)).read_to_end(&mut octets).await?;
    anyhow::ensure!(octets.len() == usize::try_from(length)?, "an update breaks off");
    Update::from_octets(&octets).context("an update can't be read")
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
        for wrong in [&[0xff; 64][..], &[0, 0, 0, 1, 0xc1], &[0, 0, 0, 0]] {
            assert!(read_update(&mut &*wrong).await.is_err(), "{wrong:?}");
        }
    }
}
