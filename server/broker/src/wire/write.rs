//! Writing packets into a buffer that is sent as a whole.
//!
//! Bodies are written first and moved behind their fixed header, so that lengths are never guessed.

/// Appends a packet: its first octet, and the body that `fill` writes.
pub(crate) fn packet(out: &mut Vec<u8>, first: u8, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.push(first);
    let body = out.len();
    fill(out);
    let length = u32::try_from(out.len().saturating_sub(body)).unwrap_or(u32::MAX);
    let mut header = [0; 4];
    let used = variable_octets(length, &mut header);
    let header = header.get(..used).unwrap_or_default();
    out.splice(start.saturating_add(1)..start.saturating_add(1), header.iter().copied());
}

/// How many octets a packet with that much body has.
pub(crate) fn packet_size(body: usize) -> usize {
    let header = match body {
        0..=127 => 2,
        128..=16_383 => 3,
        16_384..=2_097_151 => 4,
        _ => 5,
    };
    body.saturating_add(header)
}

pub(crate) fn u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(crate) fn u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// A variable byte integer, MQTT 5 §1.5.5.
pub(crate) fn variable(out: &mut Vec<u8>, value: u32) {
    let mut octets = [0; 4];
    let used = variable_octets(value, &mut octets);
    out.extend_from_slice(octets.get(..used).unwrap_or_default());
}

/// Octets behind a two-octet length. What is longer was never accepted, and is cut.
pub(crate) fn binary(out: &mut Vec<u8>, octets: &[u8]) {
    let length = u16_of(octets.len());
    u16(out, length);
    out.extend_from_slice(octets.get(..usize::from(length)).unwrap_or_default());
}

/// Properties behind their length.
pub(crate) fn properties(out: &mut Vec<u8>, properties: &[u8]) {
    variable(out, u32::try_from(properties.len()).unwrap_or(u32::MAX));
    out.extend_from_slice(properties);
}

fn u16_of(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}

fn variable_octets(mut value: u32, octets: &mut [u8; 4]) -> usize {
    let mut used = 0;
    for octet in octets.iter_mut() {
        let low = u8::try_from(value & 0x7f).unwrap_or_default();
        value >>= 7;
        used += 1;
        if value == 0 {
            *octet = low;
            return used;
        }
        *octet = low | 0x80;
    }
    used
}
