//! Waiting at a terminal until a device has what it was sent for.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use muster_proto::enrollment::{Pace, State};

use crate::enroll::{Device, News, Outlook, state_name};
use crate::identity::Identity;
use crate::span::rough;

/// Somebody watches: tries come soon after each other, and begin at once.
pub(super) const PACE: Pace = Pace {
    floor: Duration::from_secs(2),
    ceiling: Duration::from_secs(30),
    urgent_ceiling: Duration::from_secs(30),
    spread: Duration::ZERO,
};

/// Waits for a new certificate, and tells on standard error what happens meanwhile. One that was issued before,
/// and waited in the store to be tried, is no new one.
///
/// Gives up after `timeout`, and at once when waiting does not help.
pub(super) async fn until_adopted(
    device: &mut Device<'_>,
    timeout: Duration,
) -> anyhow::Result<Arc<Identity>> {
    let mut last = "no result".to_owned();
    let mut is_issued = false;
    let attending = async {
        loop {
            match device.next().await {
                News::Adopted(identity) if is_issued => return Ok(identity),
                News::Failed { words, outlook: Outlook::Lasting, .. } => bail!("{words}"),
                News::Failed { words, again_in, .. } => {
                    eprintln!("{words}; trying again in {}", rough(again_in));
                    last = words;
                }
                News::Moved(State::Pending) => {}
                News::Moved(state) => eprintln!("{}", state_name(state)),
                News::Postponed(again_in) => {
                    eprintln!("the server decides later; asking again in {}", rough(again_in));
                    last = "the request is waiting for approval; repeat this command once it is approved"
                        .to_owned();
                }
                News::Discarded(slot, why) => eprintln!("slot {slot:?} is not used: {why}"),
                News::Trouble(words) => eprintln!("{words}"),
                News::Issued(_) => is_issued = true,
                News::Adopted(_) | News::ClockSet(_) | News::Urgent => {}
            }
        }
    };
    match tokio::time::timeout(timeout, attending).await {
        Ok(adopted) => adopted,
        Err(_) => bail!("gave up after {}: {last}", rough(timeout)),
    }
}
