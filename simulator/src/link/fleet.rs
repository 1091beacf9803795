//! The links of a fleet on sockets: which are slow at present, and the chance of each connection.

use std::io;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use super::{BROKEN_AFTER, LinkQuality, SYN_BYTES, transit};
use crate::chance::Chance;

/// The links of a fleet.
#[derive(Debug)]
pub(crate) struct Links {
    seed: u64,
    /// Of all links that are not slow; `None`: nothing is added to the machine's own.
    usual: Option<LinkQuality>,
    devices: Mutex<Vec<Device>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Device {
    slow: Option<(Instant, LinkQuality)>,
    connections: u64,
}

/// The link of one connection.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(super) quality: LinkQuality,
    pub(super) chance: Chance,
}

impl Links {
    /// Links of so many devices.
    pub(crate) fn new(devices: u32, usual: Option<LinkQuality>, seed: u64) -> Self {
        Self { seed, usual, devices: Mutex::new(vec![Device::default(); devices as usize]) }
    }

    /// Makes the link of a device this bad for a while. Connections that are open keep what they have.
    pub(crate) fn slow(&self, number: u32, until: Instant, quality: LinkQuality) {
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(device) = devices.get_mut(number as usize) {
            device.slow = Some((until, quality));
        }
    }

    /// The link of a device's next connection; `None` when it is the machine's own.
    pub(crate) fn of_connection(&self, number: u32) -> Option<Link> {
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(device) = devices.get_mut(number as usize) else {
            return self.link(self.usual?, number, 0);
        };
        device.connections += 1;
        let slow = device.slow.filter(|(until, _)| Instant::now() < *until).map(|(_, quality)| quality);
        self.link(slow.or(self.usual)?, number, device.connections)
    }

    fn link(&self, quality: LinkQuality, number: u32, connection: u64) -> Option<Link> {
        let stream = LINK_STREAMS | connection << 32 | u64::from(number);
        Some(Link { quality, chance: Chance::new(self.seed, stream) })
    }
}

impl Link {
    /// Takes as long as TCP takes to connect: there and back.
    ///
    /// # Errors
    /// When the link lost all of it.
    pub(crate) async fn connect(&mut self) -> io::Result<()> {
        let mut way = || transit(&self.quality, SYN_BYTES, &mut self.chance);
        let Some(time) = way().and_then(|there| Some(there + way()?)) else {
            tokio::time::sleep(BROKEN_AFTER).await;
            return Err(io::ErrorKind::TimedOut.into());
        };
        tokio::time::sleep(time).await;
        Ok(())
    }
}

/// The first of the seed's sequences that links use, one for each connection.
const LINK_STREAMS: u64 = 1 << 63;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const BAD: LinkQuality =
        LinkQuality { delay: Duration::from_millis(300), loss: 0.1, ..LinkQuality::USUAL };

    fn qualities(links: &Links) -> Vec<Option<LinkQuality>> {
        (0..3).map(|number| links.of_connection(number).map(|link| link.quality)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_is_slow_for_its_time_and_only_of_its_device() {
        let links = Links::new(2, None, 1);
        assert_eq!(qualities(&links), [None; 3]);
        links.slow(1, Instant::now() + Duration::from_secs(5), BAD);
        // Whoever comes beside the fleet has no link of its own.
        links.slow(2, Instant::now() + Duration::from_secs(5), BAD);
        assert_eq!(qualities(&links), [None, Some(BAD), None]);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(qualities(&links), [None; 3]);
        let usual = Links::new(2, Some(LinkQuality::USUAL), 1);
        assert_eq!(qualities(&usual), [Some(LinkQuality::USUAL); 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn connecting_takes_a_round_trip_and_the_same_in_every_run() {
        let took = async |seed, number| {
            let links = Links::new(2, Some(LinkQuality { jitter: Duration::from_secs(1), ..BAD }), seed);
            let began = Instant::now();
            for _ in 0..3 {
                links.of_connection(number).expect("a link").connect().await.expect("it connects");
            }
            began.elapsed()
        };
        let first = took(1, 1).await;
        assert!(first >= Duration::from_millis(1800), "{first:?}");
        assert_eq!(took(1, 1).await, first);
        assert_ne!(took(1, 0).await, first);
        assert_ne!(took(2, 1).await, first);
    }
}
