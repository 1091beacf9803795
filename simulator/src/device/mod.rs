//! A device: the core that real ones run, with sockets, keys and a place in the directory around it.

mod enroll;
mod key;
mod verify;

pub(crate) use self::enroll::{Enroller, Want};
pub(crate) use self::key::{KeyPool, certified};
