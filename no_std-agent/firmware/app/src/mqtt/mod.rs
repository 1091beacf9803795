//! One MQTT 5 session over a connection that has the device's identity: telemetry out, commands in.
//!
//! A CONNACK is what shows that the identity was taken. A new one is only tried: the session ends in order, so that
//! the one before can be put away, and begins again with it. One publication is under way at a time, which every
//! broker must allow. A wait that is given up in the middle of a TLS record costs the connection, which is made again.

pub mod packet;

use core::time::Duration;

use embedded_io::{Error, ErrorKind, Read, Write};
use muster_nostd_agent::clock::Clock;
use muster_nostd_agent::tls::Connection;
use muster_proto::time::Instant;

use self::packet::{Packet, Topic, parse};
use crate::clock::BoardClock;
use crate::platform::Platform;
use crate::report::{Asked, OFFLINE, Report};

/// What a session is about.
pub(crate) struct Session<'s, P> {
    pub(crate) platform: &'s P,
    /// The client id too.
    pub(crate) report: Report<'s>,
    pub(crate) prefix: &'s str,
    pub(crate) trial: Trial,
    pub(crate) report_every: Duration,
    /// It has to end then, because something else is due.
    pub(crate) until: Instant,
}

/// Whether the identity has been used before.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trial {
    Candidate,
    InUse,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Before CONNACK: the broker or the edge does not take the identity.
    Refused,
    /// Before CONNACK, for any other reason.
    Unanswered,
    /// After CONNACK: it broke.
    Broken,
    /// After CONNACK: something else is due, or was asked for.
    Done(Next),
}

/// What to do after a session that ended in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Anything,
    Renew,
}

/// What is still to be published.
#[derive(Default)]
struct Due {
    certificate: bool,
    status: bool,
    response: Option<Option<Asked>>,
    /// A publication waits for its acknowledgement since then.
    under_way_since: Option<Instant>,
}

/// The connection and what has been read of it.
struct Line<'l, 'm, T: Read + Write> {
    transport: &'l mut Connection<'m, T>,
    received: &'l mut [u8],
    filled: usize,
    send: &'l mut [u8],
}

impl<P: Platform> Session<'_, P> {
    /// Runs until it ends.
    // Apart: off the stack while the connection is made.
    #[inline(never)]
    pub(crate) fn run<T: Read + Write>(&self, transport: &mut Connection<'_, T>) -> End {
        let (mut send, mut received) = ([0; SEND_BYTES], [0; RECEIVE_BYTES]);
        let mut line = Line { transport, received: &mut received, filled: 0, send: &mut send };
        let ping_after = match self.connect(&mut line) {
            Ok(ping_after) => ping_after,
            Err(end) => return end,
        };
        self.platform.log(format_args!("mqtt: connected"));
        let next = match self.trial {
            Trial::Candidate => Next::Anything,
            Trial::InUse => match self.serve(&mut line, ping_after) {
                Ok(next) => next,
                Err(Broken) => return End::Broken,
            },
        };
        // Best effort: without it the broker publishes the will, and the next connection corrects it.
        let _ = line.write(packet::DISCONNECTION);
        End::Done(next)
    }

    /// Connects. Returns how long the line may be silent before a ping.
    fn connect<T: Read + Write>(&self, line: &mut Line<'_, '_, T>) -> Result<Duration, End> {
        let bytes = packet::connect(
            line.send,
            self.report.device,
            KEEP_ALIVE_S,
            PACKET_MAX_BYTES,
            self.topic("status"),
            OFFLINE,
        )
        .map_err(|_| End::Unanswered)?;
        let until = BoardClock.now().plus(CONNACK_TIMEOUT);
        write(line.transport, bytes).map_err(|error| self.unanswered(error))?;
        loop {
            match parse(line.received.get(..line.filled).unwrap_or_default()) {
                Ok(Some((Packet::Connack { reason: 0, keep_alive_s }, used))) => {
                    line.drop(used);
                    return Ok(ping_after(keep_alive_s));
                }
                Ok(Some((Packet::Connack { reason, .. }, _))) => {
                    self.platform.log(format_args!("mqtt: refused with {reason:#04x}"));
                    return Err(if is_about_us(reason) { End::Refused } else { End::Unanswered });
                }
                Ok(None) => {}
                Ok(Some(_)) | Err(_) => return Err(End::Unanswered),
            }
            match line.read(until) {
                Ok(()) => {}
                Err(error) => return Err(self.unanswered(error)),
            }
        }
    }

    fn unanswered(&self, error: ErrorKind) -> End {
        if error == ErrorKind::PermissionDenied {
            self.platform.log(format_args!("mqtt: the edge refused the certificate"));
            return End::Refused;
        }
        self.platform.log(format_args!("mqtt: no answer"));
        End::Unanswered
    }

    fn serve<T: Read + Write>(
        &self,
        line: &mut Line<'_, '_, T>,
        ping_after: Duration,
    ) -> Result<Next, Broken> {
        let clock = BoardClock;
        let bytes =
            packet::subscription(line.send, self.topic(COMMAND), SUBSCRIPTION_ID).map_err(|_| Broken)?;
        write(line.transport, bytes).map_err(|_| Broken)?;
        let mut due = Due { certificate: true, ..Due::default() };
        let mut heard_at = clock.now();
        let mut report_at = heard_at;
        let mut ping_at = heard_at.plus(ping_after);
        let mut leave_as = None;
        loop {
            let now = clock.now();
            if now.since(heard_at) > SILENCE_TIMEOUT
                || due.under_way_since.is_some_and(|since| now.since(since) > SILENCE_TIMEOUT)
            {
                self.platform.log(format_args!("mqtt: the broker is silent"));
                return Err(Broken);
            }
            if now >= report_at {
                due.status = true;
                report_at = now.plus(self.report_every);
            }
            if now >= ping_at {
                line.write(packet::PING).map_err(|_| Broken)?;
                ping_at = now.plus(ping_after);
            }
            if due.under_way_since.is_none() {
                match leave_as {
                    // What was asked for was answered, and the answer has arrived.
                    Some(next) if due.response.is_none() => return Ok(next),
                    _ => self.publish_next(line, &mut due)?,
                }
            }
            if now >= self.until {
                return Ok(leave_as.unwrap_or(Next::Anything));
            }
            match line.read(self.until.min(report_at).min(ping_at)) {
                Ok(()) => heard_at = clock.now(),
                Err(ErrorKind::TimedOut) => continue,
                Err(_) => {
                    self.platform.log(format_args!("mqtt: the connection broke"));
                    return Err(Broken);
                }
            }
            while let Some(asked) = self.take(line, &mut due)? {
                let Some(asked) = asked else { continue };
                let word = asked.map_or("unknown", Asked::word);
                self.platform.log(format_args!("mqtt: command {word}"));
                due.response = Some(asked);
                match asked {
                    Some(Asked::Reconnect) => leave_as = Some(Next::Anything),
                    Some(Asked::Renew) => leave_as = Some(Next::Renew),
                    Some(Asked::Status) => due.status = true,
                    None => {}
                }
            }
        }
    }

    /// Takes one packet that has been read. `None`: there is none. `Some(Some(_))`: it was a command.
    fn take<T: Read + Write>(
        &self,
        line: &mut Line<'_, '_, T>,
        due: &mut Due,
    ) -> Result<Option<Option<Option<Asked>>>, Broken> {
        let parsed = parse(line.received.get(..line.filled).unwrap_or_default()).map_err(|_| Broken)?;
        let Some((packet, used)) = parsed else {
            // A packet longer than the memory was announced as too long in CONNECT.
            return if line.filled == line.received.len() { Err(Broken) } else { Ok(None) };
        };
        let mut asked = None;
        let mut acknowledge = None;
        match packet {
            Packet::Disconnect(reason) => {
                self.platform.log(format_args!("mqtt: sent away with {reason:#04x}"));
                return Err(Broken);
            }
            Packet::Suback(reason) if reason >= 0x80 => {
                self.platform.log(format_args!("mqtt: commands are not allowed: {reason:#04x}"));
            }
            Packet::Puback => due.under_way_since = None,
            Packet::Publish { topic, payload, id, retain } => {
                // A retained command would be carried out again at each connect.
                let is_command = topic.strip_prefix(self.prefix) == Some(COMMAND);
                asked = (is_command && !retain).then(|| Asked::parse(payload));
                acknowledge = id;
            }
            Packet::Connack { .. } => return Err(Broken),
            Packet::Pingresp | Packet::Suback(_) => {}
        }
        line.drop(used);
        if let Some(id) = acknowledge {
            line.write(&packet::acknowledgement(id)).map_err(|_| Broken)?;
        }
        Ok(Some(asked))
    }

    fn publish_next<T: Read + Write>(&self, line: &mut Line<'_, '_, T>, due: &mut Due) -> Result<(), Broken> {
        let report = Report { uptime_s: BoardClock.now().as_millis() / 1000, ..self.report };
        if core::mem::take(&mut due.certificate) {
            let text = report.certificate().map_err(|_| Broken)?;
            self.publish(line, "certificate", text.as_bytes(), true)?;
        } else if let Some(asked) = due.response.take() {
            self.publish(line, "response", Asked::answer(asked), false)?;
        } else if core::mem::take(&mut due.status) {
            let text = report.status().map_err(|_| Broken)?;
            self.publish(line, "status", text.as_bytes(), true)?;
        } else {
            return Ok(());
        }
        due.under_way_since = Some(BoardClock.now());
        Ok(())
    }

    fn publish<T: Read + Write>(
        &self,
        line: &mut Line<'_, '_, T>,
        word: &str,
        payload: &[u8],
        retain: bool,
    ) -> Result<(), Broken> {
        let bytes = packet::publication(line.send, self.topic(word), payload, PUBLICATION_ID, retain);
        write(line.transport, bytes.map_err(|_| Broken)?).map_err(|_| Broken)
    }

    const fn topic<'t>(&'t self, word: &'t str) -> Topic<'t> {
        Topic { prefix: self.prefix, word }
    }
}

impl<T: Read + Write> Line<'_, '_, T> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), ErrorKind> {
        write(self.transport, bytes)
    }

    /// Reads what there is, or waits for it; [`ErrorKind::TimedOut`] at `until`.
    fn read(&mut self, until: Instant) -> Result<(), ErrorKind> {
        let room = self.received.get_mut(self.filled..).unwrap_or_default();
        self.transport.set_deadline(until);
        match self.transport.read(room) {
            Ok(0) => Err(ErrorKind::ConnectionReset),
            Ok(read) => {
                self.filled += read;
                Ok(())
            }
            Err(error) => Err(error.kind()),
        }
    }

    /// Forgets a packet that was dealt with.
    fn drop(&mut self, used: usize) {
        self.received.copy_within(used.min(self.filled)..self.filled, 0);
        self.filled = self.filled.saturating_sub(used);
    }
}

fn write<T: Read + Write>(transport: &mut Connection<'_, T>, bytes: &[u8]) -> Result<(), ErrorKind> {
    transport.set_deadline(BoardClock.now().plus(SEND_TIMEOUT));
    let written = transport.write_all(bytes).and_then(|()| transport.flush());
    written.map_err(|error| error.kind())
}

/// Whether a reason of CONNACK is about the identity, and not about the broker's day (section 3.2.2.2).
const fn is_about_us(reason: u8) -> bool {
    const CLIENT_ID_NOT_VALID: u8 = 0x85;
    const BAD_USER_NAME_OR_PASSWORD: u8 = 0x86;
    const NOT_AUTHORIZED: u8 = 0x87;
    const BANNED: u8 = 0x8a;
    matches!(reason, CLIENT_ID_NOT_VALID | BAD_USER_NAME_OR_PASSWORD | NOT_AUTHORIZED | BANNED)
}

/// How long to be silent: half of the Keep Alive, so that one lost ping is no reason to be sent away. The server's
/// counts instead of ours (section 3.2.2.3.14); one that is longer, or zero for none, allows ours.
fn ping_after(server_keep_alive_s: Option<u16>) -> Duration {
    let keep_alive_s = server_keep_alive_s.filter(|seconds| *seconds > 0).unwrap_or(KEEP_ALIVE_S);
    Duration::from_secs(keep_alive_s.min(KEEP_ALIVE_S).into()) / 2
}

/// The connection is of no use any more.
struct Broken;

/// For the broker's CONNACK, behind which may be an edge that asks its control plane.
const CONNACK_TIMEOUT: Duration = Duration::from_secs(20);
/// For one packet to be taken by TLS and TCP.
const SEND_TIMEOUT: Duration = Duration::from_secs(20);
/// As the agent on Linux has it.
const KEEP_ALIVE_S: u16 = 30;
/// A broker that answers no ping is gone.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(45);
/// There is one of each.
const PUBLICATION_ID: u16 = 1;
const SUBSCRIPTION_ID: u16 = 2;
/// What is subscribed.
const COMMAND: &str = "command";
/// A command, its topic, and the properties that a broker adds.
const PACKET_MAX_BYTES: u32 = 576;
/// The same for memory.
const RECEIVE_BYTES: usize = 576;
/// The longest publication: a topic, a report, and 10 bytes of framing.
const SEND_BYTES: usize = TOPIC_BYTES + crate::report::TEXT_MAX_BYTES + 16;
/// A prefix and the longest word.
const TOPIC_BYTES: usize = 112;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_s_keep_alive_is_obeyed() {
        let millis = |server| ping_after(server).as_millis();
        assert_eq!(
            [None, Some(10), Some(1), Some(0), Some(600)].map(millis),
            [15_000, 5_000, 500, 15_000, 15_000]
        );
    }
}
