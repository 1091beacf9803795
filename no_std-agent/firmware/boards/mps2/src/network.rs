//! What goes on while the device waits: the network stack, and the end of a row of crashes.

use core::convert::Infallible;
use core::pin::Pin;
use core::task::{Context, Poll};

use muster_firmware::net::Stack;
use muster_firmware_boot::Row;

use crate::lan9118::Lan9118;

/// A future with a name, so that it can lie in a static.
pub(crate) struct Network {
    pub(crate) stack: &'static Stack<'static>,
    pub(crate) controller: Lan9118,
    pub(crate) row: Row,
}

impl Future for Network {
    type Output = Infallible;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Infallible> {
        self.row.look();
        let stack = self.stack;
        stack.poll(&mut self.controller, context);
        Poll::Pending
    }
}
