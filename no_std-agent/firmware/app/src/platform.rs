//! What a board does beside network, flash and keys.

use core::fmt;

/// The rest of a board.
pub trait Platform {
    /// Writes one line for whoever watches the console.
    fn log(&self, line: fmt::Arguments<'_>);

    /// Restarts the board. Everything that must survive is in flash already.
    fn restart(&self) -> !;
}
