//! What a listener does about a peer before it knows who it is, and when it is done with it.
//!
//! Strangers reach this code, as many as like to, so everything here is bounded and no source can take what all
//! others need:
//!
//! * [`source`]: what counts as one source.
//! * [`fair`]: slots in fair shares, of which a lone client always gets one.
//! * [`hello`]: the ClientHello, read whole within bounds before any configuration is chosen.
//! * [`handshakes`]: how many handshakes go on at once, and how long each may take.
//! * [`accept`]: what accept can fail with.
//! * [`crypto`]: the order of the ciphers.
//! * [`turn`]: answering while a body is read.
//! * [`linger`]: the end of a connection whose peer is still sending.
//!
//! A package of its own, because the edge and enrollment have no arrow to each other and both stand at the same
//! door. It knows no hostname, no certificate and no metric.

pub mod accept;
pub mod crypto;
pub mod fair;
pub mod handshakes;
pub mod hello;
pub mod linger;
pub mod source;
pub mod turn;
