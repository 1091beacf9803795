//! Futures that keep their stack to themselves.

use core::pin::Pin;
use core::task::{Context, Poll};

/// A future whose turns have a stack frame of their own. Without it a compiler may put them into the frame of what polls
/// them, and then it lies under the turns of all its neighbours.
#[derive(Debug)]
pub struct Apart<'f, F>(pub Pin<&'f mut F>);

impl<F: Future> Future for Apart<'_, F> {
    type Output = F::Output;

    #[inline(never)]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.0.as_mut().poll(context)
    }
}
