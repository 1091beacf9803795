//! The packets of MQTT 5 that a device sends and gets, without IO (OASIS MQTT 5.0, sections 2 and 3).
//!
//! A device needs little of MQTT: one will, one subscription, one publication under way. What a peer sends is
//! either one of the packets below or [`Malformed`]; nothing is allocated, and properties but one are passed over.

/// A packet from the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'p> {
    /// The answer to CONNECT.
    Connack {
        /// Zero for yes.
        reason: u8,
        /// The Server Keep Alive, in seconds, if there is one.
        keep_alive_s: Option<u16>,
    },
    /// The broker ends the connection.
    Disconnect(u8),
    /// The answer to a ping.
    Pingresp,
    /// What was published was taken, or not.
    Puback,
    /// Something that was subscribed.
    Publish {
        /// Its topic.
        topic: &'p str,
        /// What it says.
        payload: &'p [u8],
        /// What to acknowledge, at QoS 1.
        id: Option<u16>,
        /// It was published before the subscription.
        retain: bool,
    },
    /// The answer to SUBSCRIBE, with its reason.
    Suback(u8),
}

/// Not a packet that a broker may send here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Takes the first packet off `bytes`, and says how many bytes it was. `None`: there is more to come.
///
/// # Errors
/// [`Malformed`]; the connection must then be closed.
pub fn parse(bytes: &[u8]) -> Result<Option<(Packet<'_>, usize)>, Malformed> {
    let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
    let Some((len, len_bytes)) = variable_int(rest)? else { return Ok(None) };
    let begin = 1 + len_bytes;
    let Some(body) = bytes.get(begin..begin + len) else { return Ok(None) };
    let mut body = Body(body);
    let packet = match first {
        0x20 => {
            body.byte()?;
            let reason = body.byte()?;
            // Brokers of MQTT 3 refuse without properties.
            let keep_alive_s = if body.0.is_empty() { None } else { server_keep_alive(body.properties()?)? };
            Packet::Connack { reason, keep_alive_s }
        }
        0x30..=0x3f => publish(first, body)?,
        0x40 => Packet::Puback,
        0x90 => {
            body.u16()?;
            body.properties()?;
            Packet::Suback(body.byte()?)
        }
        0xd0 => Packet::Pingresp,
        // Without a reason it is a normal disconnection (section 3.14.2.1).
        0xe0 => Packet::Disconnect(body.byte().unwrap_or(0)),
        _ => return Err(Malformed),
    };
    Ok(Some((packet, begin + len)))
}

fn publish(first: u8, mut body: Body<'_>) -> Result<Packet<'_>, Malformed> {
    let len = usize::from(body.u16()?);
    let topic = core::str::from_utf8(body.take(len)?).map_err(|_| Malformed)?;
    let id = match first >> 1 & 3 {
        0 => None,
        1 => Some(body.u16()?),
        // Nothing was subscribed at a higher quality.
        _ => return Err(Malformed),
    };
    body.properties()?;
    Ok(Packet::Publish { topic, payload: body.0, id, retain: first & 1 == 1 })
}

/// The rest of a packet. Each way to read on is once in the image.
struct Body<'p>(&'p [u8]);

impl<'p> Body<'p> {
    #[inline(never)]
    fn take(&mut self, len: usize) -> Result<&'p [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    #[inline(never)]
    fn byte(&mut self) -> Result<u8, Malformed> {
        let (&byte, rest) = self.0.split_first().ok_or(Malformed)?;
        self.0 = rest;
        Ok(byte)
    }

    #[inline(never)]
    fn u16(&mut self) -> Result<u16, Malformed> {
        let (&bytes, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(u16::from_be_bytes(bytes))
    }

    #[inline(never)]
    fn properties(&mut self) -> Result<Self, Malformed> {
        let (len, len_bytes) = variable_int(self.0)?.ok_or(Malformed)?;
        self.take(len_bytes)?;
        self.take(len).map(Self)
    }
}

/// Finds the Server Keep Alive among the properties of CONNACK (sections 2.2.2.2 and 3.2.2.3).
fn server_keep_alive(mut properties: Body<'_>) -> Result<Option<u16>, Malformed> {
    let mut found = None;
    while !properties.0.is_empty() {
        let len = match properties.byte()? {
            0x13 => {
                found = Some(properties.u16()?);
                0
            }
            // Quality, retain, and what kinds of subscriptions there are.
            0x24 | 0x25 | 0x28 | 0x29 | 0x2a => 1,
            // Receive Maximum and Topic Alias Maximum.
            0x21 | 0x22 => 2,
            // Session Expiry Interval and Maximum Packet Size.
            0x11 | 0x27 => 4,
            // Texts and authentication data.
            0x12 | 0x15 | 0x16 | 0x1a | 0x1c | 0x1f => usize::from(properties.u16()?),
            // A user's property is two texts.
            0x26 => {
                let len = usize::from(properties.u16()?);
                properties.take(len)?;
                usize::from(properties.u16()?)
            }
            _ => return Err(Malformed),
        };
        properties.take(len)?;
    }
    Ok(found)
}

/// A variable byte integer and its length (section 1.5.5). `None`: it is cut.
fn variable_int(bytes: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    let mut value = 0;
    for (place, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok(Some((value, place + 1)));
        }
    }
    if bytes.len() < 4 { Ok(None) } else { Err(Malformed) }
}

/// A topic of the device: what all of them begin with, and one word.
#[derive(Clone, Copy, Debug)]
pub(super) struct Topic<'t> {
    pub(super) prefix: &'t str,
    pub(super) word: &'t str,
}

/// CONNECT: a clean start, a will that is retained, and the largest packet that is taken.
pub(super) fn connect<'b>(
    buffer: &'b mut [u8],
    client: &str,
    keep_alive_s: u16,
    max_packet: u32,
    will_topic: Topic<'_>,
    will: &[u8],
) -> Result<&'b [u8], TooLong> {
    /// Clean start, will, at QoS 1, retained.
    const FLAGS: u8 = 0x02 | 0x04 | 0x08 | 0x20;
    let [m0, m1, m2, m3] = max_packet.to_be_bytes();
    let mut out = Writer::new(buffer);
    out.put(&[0, 4, b'M', b'Q', b'T', b'T', 5, FLAGS]);
    out.put(&keep_alive_s.to_be_bytes());
    // Receive Maximum 1 and Maximum Packet Size.
    out.put(&[8, 0x21, 0, 1, 0x27, m0, m1, m2, m3]);
    out.text(&[client.as_bytes()]);
    out.put(&[0]);
    out.topic(will_topic);
    out.text(&[will]);
    out.finish(0x10)
}

/// PUBLISH at QoS 1.
pub(super) fn publication<'b>(
    buffer: &'b mut [u8],
    topic: Topic<'_>,
    payload: &[u8],
    id: u16,
    retain: bool,
) -> Result<&'b [u8], TooLong> {
    let mut out = Writer::new(buffer);
    out.topic(topic);
    out.put(&id.to_be_bytes());
    out.put(&[0]);
    out.put(payload);
    out.finish(0x32 | u8::from(retain))
}

/// SUBSCRIBE to one filter at QoS 1.
pub(super) fn subscription<'b>(
    buffer: &'b mut [u8],
    filter: Topic<'_>,
    id: u16,
) -> Result<&'b [u8], TooLong> {
    let mut out = Writer::new(buffer);
    out.put(&id.to_be_bytes());
    out.put(&[0]);
    out.topic(filter);
    out.put(&[1]);
    out.finish(0x82)
}

/// PUBACK.
pub(super) fn acknowledgement(id: u16) -> [u8; 4] {
    let [high, low] = id.to_be_bytes();
    [0x40, 2, high, low]
}

/// PINGREQ.
pub(super) const PING: &[u8] = &[0xc0, 0];
/// DISCONNECT, in order.
pub(super) const DISCONNECTION: &[u8] = &[0xe0, 0];

/// The packet does not fit its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// Type and a length of at most 16,383.
const HEADER_BYTES: usize = 3;

/// Writes a body, and its header in front once the length is known. Whether all of it fitted is asked then.
struct Writer<'b> {
    buffer: &'b mut [u8],
    len: usize,
    is_short: bool,
}

impl<'b> Writer<'b> {
    const fn new(buffer: &'b mut [u8]) -> Self {
        Self { buffer, len: HEADER_BYTES, is_short: false }
    }

    // Once in the image.
    #[inline(never)]
    fn put(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        match self.buffer.get_mut(self.len..end) {
            Some(place) => {
                place.copy_from_slice(bytes);
                self.len = end;
            }
            None => self.is_short = true,
        }
    }

    /// A text, in its parts.
    #[inline(never)]
    fn text(&mut self, parts: &[&[u8]]) {
        match u16::try_from(parts.iter().map(|part| part.len()).sum::<usize>()) {
            Ok(len) => self.put(&len.to_be_bytes()),
            Err(_) => self.is_short = true,
        }
        for part in parts {
            self.put(part);
        }
    }

    #[inline(never)]
    fn topic(&mut self, topic: Topic<'_>) {
        self.text(&[topic.prefix.as_bytes(), topic.word.as_bytes()]);
    }

    #[inline(never)]
    fn finish(self, first: u8) -> Result<&'b [u8], TooLong> {
        if self.is_short {
            return Err(TooLong);
        }
        let len = self.len - HEADER_BYTES;
        let low = u8::try_from(len & 0x7f).map_err(|_| TooLong)?;
        let high = u8::try_from(len >> 7).ok().filter(|high| *high < 0x80).ok_or(TooLong)?;
        let [zeroth, one, two, ..] = self.buffer else { return Err(TooLong) };
        // Two bytes of length also for a short one would be malformed.
        let begin = usize::from(high == 0);
        (*zeroth, *one, *two) = if high == 0 { (0, first, low) } else { (first, low | 0x80, high) };
        self.buffer.get(begin..self.len).ok_or(TooLong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packets_of_a_broker_are_read() {
        let connack = |reason, keep_alive_s| Packet::Connack { reason, keep_alive_s };
        assert_eq!(parse(&[0x20, 3, 0, 0x87, 0]), Ok(Some((connack(0x87, None), 5))));
        assert_eq!(parse(&[0x20, 2, 0, 5]), Ok(Some((connack(5, None), 4))));
        let told = [0x20, 18, 0, 0, 15, 0x24, 1, 0x26, 0, 1, b'a', 0, 1, b'b', 0x13, 0, 10, 0x21, 0, 9];
        assert_eq!(parse(&told), Ok(Some((connack(0, Some(10)), 20))));
        assert_eq!(parse(&[0xd0, 0, 9]), Ok(Some((Packet::Pingresp, 2))));
        assert_eq!(parse(&[0x40, 2, 0, 1]), Ok(Some((Packet::Puback, 4))));
        assert_eq!(parse(&[0x90, 4, 0, 2, 0, 1]), Ok(Some((Packet::Suback(1), 6))));
        assert_eq!(parse(&[0xe0, 0]), Ok(Some((Packet::Disconnect(0), 2))));
        assert_eq!(parse(&[0xe0, 2, 0x98, 0]), Ok(Some((Packet::Disconnect(0x98), 4))));
        let bytes = [0x33, 11, 0, 3, b'a', b'/', b'b', 0, 7, 2, 1, 1, b'x'];
        let publish = Packet::Publish { topic: "a/b", payload: b"x", id: Some(7), retain: true };
        assert_eq!(parse(&bytes), Ok(Some((publish, 13))));
        for cut in 0..bytes.len() {
            assert_eq!(parse(&bytes[..cut]), Ok(None), "{cut}");
        }
    }

    #[test]
    fn the_corpus_of_the_fuzzer_is_read_or_refused() {
        extern crate std;
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../tests/fuzz/corpus/firmware_mqtt");
        let (mut good, mut refused) = (0, 0);
        for file in std::fs::read_dir(corpus).expect("there") {
            let path = file.expect("there").path();
            let bytes = std::fs::read(&path).expect("readable");
            let mut rest = bytes.as_slice();
            while let Ok(Some((_, used))) = parse(rest) {
                rest = &rest[used..];
            }
            let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
            assert!(rest.is_empty() == name.starts_with("good-") || name.starts_with("find-"), "{name}");
            *(if rest.is_empty() { &mut good } else { &mut refused }) += 1;
        }
        assert!(good > 0 && refused > 0, "{good} good, {refused} refused");
    }

    #[test]
    fn nothing_else_is_taken() {
        for bytes in [
            &[0x10, 0][..],
            &[0x20, 1, 0],
            &[0x20, 5, 0, 0, 2, 0x13, 9],
            &[0x20, 5, 0, 0, 2, 0x7f, 9],
            &[0xd0, 0x80, 0x80, 0x80, 0x80],
            &[0x34, 7, 0, 1, b'a', 0, 1, 0, b'x'],
            &[0x30, 3, 0, 9, b'a'],
            &[0x30, 3, 0, 1, 0xff],
            &[0x30, 4, 0, 1, b'a', 9],
            &[0x90, 2, 0, 1],
            &[0x00, 0],
        ] {
            assert_eq!(parse(bytes), Err(Malformed), "{bytes:?}");
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut state = 7_u32;
        for _ in 0..200_000 {
            let mut bytes = [0; 24];
            for byte in &mut bytes {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *byte = state.to_be_bytes()[0] & if state & 0x100 == 0 { 0x0f } else { 0xff };
            }
            let _ = parse(&bytes);
        }
    }

    #[test]
    fn what_a_device_sends_has_the_form_of_the_standard() {
        let mut buffer = [0; 256];
        let topic = Topic { prefix: "t/", word: "s" };
        let sent = connect(&mut buffer, "d", 30, 640, topic, b"off").expect("fits");
        let expected = [
            &[0x10, 33, 0, 4, b'M', b'Q', b'T', b'T', 5, 0x2e, 0, 30][..],
            &[8, 0x21, 0, 1, 0x27, 0, 0, 2, 0x80, 0, 1, b'd'],
            &[0, 0, 3, b't', b'/', b's', 0, 3, b'o', b'f', b'f', 0][..11],
        ];
        let mut rest = sent;
        for part in expected {
            assert_eq!(rest.get(..part.len()), Some(part));
            rest = &rest[part.len()..];
        }
        assert!(rest.is_empty(), "{rest:?}");
        let topic = Topic { prefix: "", word: "a" };
        assert_eq!(
            publication(&mut buffer, topic, b"x", 1, true),
            Ok(&[0x33, 7, 0, 1, b'a', 0, 1, 0, b'x'][..])
        );
        assert_eq!(subscription(&mut buffer, topic, 2), Ok(&[0x82, 7, 0, 2, 0, 0, 1, b'a', 1][..]));
        let long = publication(&mut buffer, topic, &[b'x'; 200], 1, false).expect("fits");
        assert_eq!((long.len(), &long[..3]), (209, &[0x32, 0xce, 1][..]));
        assert_eq!(publication(&mut buffer, topic, &[0; 250], 1, false), Err(TooLong));
        assert_eq!(acknowledgement(0x102), [0x40, 2, 1, 2]);
    }
}
