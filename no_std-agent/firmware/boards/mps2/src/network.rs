//! What goes on while the device waits: the network stack, and the end of a row of crashes.

use core::convert::Infallible;
use core::pin::{Pin, pin};
use core::task::{Context, Poll};

use embassy_net::Runner;
use muster_firmware_boot::Row;

use crate::lan9118::Lan9118;

/// A future with a name, so that it can lie in a static.
pub(crate) struct Network {
    pub(crate) runner: Runner<'static, Lan9118>,
    pub(crate) row: Row,
}

impl Future for Network {
    type Output = Infallible;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Infallible> {
        self.row.look();
        // The stack's future has no state of its own between two turns: all of it is in the runner.
        match pin!(self.runner.run()).poll(context) {
            Poll::Pending => Poll::Pending,
        }
    }
}
