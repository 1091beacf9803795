//! How many handshakes go on at once, and how long each may take.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::fair::FairSlots;

/// One source has this part of all handshakes at most, and fewer when others come: a site that comes back from a
/// power cut with all its devices is through in seconds, and one that dawdles leaves room for the others.
const SHARE: usize = 4;
/// How often a handshake that is slow looks whether others wait for its slot.
const CROWD_LOOK: Duration = Duration::from_millis(200);

/// How long the parts of a handshake may take.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// How long a finished ClientHello may wait for a slot; longer than handshakes may take while others
    /// wait, so that who comes honestly outlasts who stalls.
    pub slot: Duration,
    /// How long a handshake may take.
    pub handshake: Duration,
    /// How long it may take while others wait for its slot. Small devices sign for a second.
    pub crowded: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            slot: Duration::from_secs(5),
            handshake: Duration::from_secs(10),
            crowded: Duration::from_secs(3),
        }
    }
}

/// The handshakes of a listener, or of several.
pub struct Handshakes {
    slots: Arc<FairSlots>,
    times: Times,
}

/// Why a handshake has no end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfinished {
    /// No slot became free in time.
    NoSlot,
    /// It took too long, or a source with fewer needed its slot.
    TooSlow,
}

impl Handshakes {
    /// So many at once, in all.
    pub fn new(most: usize, times: Times) -> Self {
        Self { slots: Arc::new(FairSlots::new(most, most / SHARE)), times }
    }

    /// Waits for the source's turn, then carries a handshake out. It is not begun before: the first answer to
    /// a hello is the dear part.
    ///
    /// # Errors
    /// [`Unfinished`].
    pub async fn carry_out<F: Future>(
        &self,
        source: IpAddr,
        begin: impl FnOnce() -> F,
    ) -> Result<F::Output, Unfinished> {
        let slot = timeout(self.times.slot, self.slots.slot(source)).await;
        let Ok(Some(mut slot)) = slot else { return Err(Unfinished::NoSlot) };
        tokio::select! {
            ended = begin() => Ok(ended),
            () = self.patience(source) => Err(Unfinished::TooSlow),
            () = slot.taken() => Err(Unfinished::TooSlow),
        }
    }

    /// Waits for as long as a handshake may take: longer while there is room for all.
    async fn patience(&self, source: IpAddr) {
        let Times { handshake: most, crowded, .. } = self.times;
        let begun = Instant::now();
        sleep(crowded.min(most)).await;
        while self.slots.has_room_for(source) && begun.elapsed() < most {
            sleep(CROWD_LOOK).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use core::future::pending;
    use std::net::Ipv4Addr;

    use super::*;

    const TIMES: Times = Times {
        slot: Duration::from_secs(5),
        handshake: Duration::from_secs(10),
        crowded: Duration::from_secs(3),
    };

    const fn source(last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, last))
    }

    #[tokio::test(start_paused = true)]
    async fn who_stalls_has_long_when_alone_and_short_in_a_crowd() {
        let all = Handshakes::new(8, TIMES);
        let begun = Instant::now();
        assert_eq!(all.carry_out(source(1), pending::<()>).await, Err(Unfinished::TooSlow));
        assert!(begun.elapsed() >= TIMES.handshake);
        let begun = Instant::now();
        let stalls = || all.carry_out(source(1), pending::<()>);
        // Its share is two: the third waits for one of the first.
        let ended = tokio::join!(stalls(), stalls(), all.carry_out(source(1), || async { Instant::now() }));
        assert_eq!((ended.0, ended.1), (Err(Unfinished::TooSlow), Err(Unfinished::TooSlow)));
        let third = ended.2.expect("its turn comes");
        assert!(third - begun >= TIMES.crowded && third - begun < TIMES.slot);
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_from_one_source_does_not_make_another_wait() {
        let all = Handshakes::new(8, TIMES);
        let begun = Instant::now();
        let honest = async {
            sleep(Duration::from_millis(10)).await;
            all.carry_out(source(9), || async { Instant::now() }).await
        };
        let stalls = |last| all.carry_out(source(last), pending::<()>);
        let crowd = async {
            // Four sources, two each: every slot is taken.
            tokio::join!(
                stalls(1),
                stalls(1),
                stalls(2),
                stalls(2),
                stalls(3),
                stalls(3),
                stalls(4),
                stalls(4)
            )
        };
        let (honest, _) = tokio::join!(honest, crowd);
        assert_eq!(honest.expect("let in") - begun, Duration::from_millis(10));
    }

    #[tokio::test(start_paused = true)]
    async fn who_gets_no_slot_in_time_is_told_so() {
        let all = Handshakes::new(1, Times { crowded: Duration::from_secs(8), ..TIMES });
        let (first, second) =
            tokio::join!(all.carry_out(source(1), pending::<()>), all.carry_out(source(1), pending::<()>));
        assert_eq!((first, second), (Err(Unfinished::TooSlow), Err(Unfinished::NoSlot)));
    }
}
