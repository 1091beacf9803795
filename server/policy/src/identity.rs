//! What certificates and stored objects are known by.
//!
//! A serial alone names nothing: two CAs can use the same one. Bindings are always to a
//! fingerprint (SHA-256 of the certificate) or to a CA together with a serial.

use core::fmt;
use core::str::FromStr;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::time::UnixTime;

/// Text that is not the identifier it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct IdentifierError(pub &'static str);

/// A certificate serial number: 1 to 20 octets, positive (RFC 5280 §4.1.2.2), without leading zero octets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial {
    // Octets beyond `length` are always zero, so that derived comparison holds.
    length: u8,
    octets: [u8; Self::MAX_BYTES],
}

impl Serial {
    /// RFC 5280 §4.1.2.2: "conforming CAs MUST NOT use serialNumber values longer than 20 octets".
    pub const MAX_BYTES: usize = 20;
    /// How many random octets a serial is made of: 128 bits, twice what CA/Browser BR §7.1 asks.
    pub const RANDOM_BYTES: usize = 16;

    /// A fresh serial: four octets of time before 16 random ones.
    ///
    /// The time says no more than notBefore does. It makes serials of one hour neighbours, so that an
    /// index of a million of them is written at its end and not everywhere.
    pub fn new(at: UnixTime, random: [u8; Self::RANDOM_BYTES]) -> Self {
        // Steps of two seconds keep the top bit clear, so the INTEGER is positive, until 2106; the one
        // before it set keeps the serial at 20 octets, whatever the clock says.
        let steps = (u32::try_from(at.as_secs() / 2).unwrap_or(u32::MAX) & 0x3fff_ffff) | 0x4000_0000;
        let mut octets = [0; Self::MAX_BYTES];
        let (time, rest) = octets.split_at_mut(4);
        time.copy_from_slice(&steps.to_be_bytes());
        rest.copy_from_slice(&random);
        Self { length: 20, octets }
    }

    /// A serial from big-endian octets as found in a certificate; leading zeros are dropped.
    ///
    /// # Errors
    /// When nothing but zeros is given, or more than 20 octets stay.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, IdentifierError> {
        let start =
            bytes.iter().position(|octet| *octet != 0).ok_or(IdentifierError("a serial is not zero"))?;
        let trimmed = bytes.get(start..).unwrap_or_default();
        let mut octets = [0; Self::MAX_BYTES];
        octets
            .get_mut(..trimmed.len())
            .ok_or(IdentifierError("a serial has at most 20 octets"))?
            .copy_from_slice(trimmed);
        Ok(Self { length: u8::try_from(trimmed.len()).unwrap_or(20), octets })
    }

    /// Big-endian octets without leading zeros.
    pub fn as_bytes(&self) -> &[u8] {
        self.octets.get(..usize::from(self.length)).unwrap_or_default()
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.as_bytes()))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Serial({self})")
    }
}

impl FromStr for Serial {
    type Err = IdentifierError;

    /// Reads hex in either case; colons between octets, as openssl prints them, are allowed.
    fn from_str(text: &str) -> Result<Self, IdentifierError> {
        const WRONG: IdentifierError = IdentifierError("a serial is 1 to 20 octets in hex");
        if text.len() > 3 * (Self::MAX_BYTES + 1) {
            return Err(WRONG);
        }
        let mut digits: String = text.chars().filter(|c| *c != ':').collect();
        if digits.len() % 2 == 1 {
            digits.insert(0, '0');
        }
        Self::from_bytes(&hex::decode(digits).map_err(|_| WRONG)?)
    }
}

impl Serialize for Serial {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize(self, self.as_bytes(), serializer)
    }
}

impl<'de> Deserialize<'de> for Serial {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize(Self::from_bytes, deserializer)
    }
}

/// Octets in binary formats, where text would double the size and the work; text in those for people.
fn serialize<S: Serializer>(id: &impl fmt::Display, octets: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() {
        serializer.collect_str(id)
    } else {
        serializer.serialize_bytes(octets)
    }
}

fn deserialize<'de, T, D>(
    from_octets: fn(&[u8]) -> Result<T, IdentifierError>,
    deserializer: D,
) -> Result<T, D::Error>
where
    T: FromStr<Err = IdentifierError>,
    D: Deserializer<'de>,
{
    let octets = Octets(from_octets);
    if deserializer.is_human_readable() {
        deserializer.deserialize_str(octets)
    } else {
        deserializer.deserialize_bytes(octets)
    }
}

/// Reads either form, whatever the format calls itself: serde's buffers forget which kind it is.
struct Octets<T>(fn(&[u8]) -> Result<T, IdentifierError>);

impl<T: FromStr<Err = IdentifierError>> Visitor<'_> for Octets<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("octets, or hex text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_bytes<E: Error>(self, octets: &[u8]) -> Result<T, E> {
        (self.0)(octets).map_err(E::custom)
    }
}

// A table of alike types: fixed octets shown as lower-case hex.
macro_rules! hex_octets {
    ($($(#[$doc:meta])* $name:ident, $bytes:literal, $wrong:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// Wraps octets that come from a digest or a random source.
            pub const fn from_bytes(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }

            /// The octets.
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = IdentifierError;

            /// Reads hex in either case; colons between octets are allowed.
            fn from_str(text: &str) -> Result<Self, IdentifierError> {
                if text.len() > 3 * $bytes {
                    return Err(IdentifierError($wrong));
                }
                let digits: String = text.chars().filter(|c| *c != ':').collect();
                let mut bytes = [0; $bytes];
                hex::decode_to_slice(digits, &mut bytes).map_err(|_| IdentifierError($wrong))?;
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serialize(self, &self.0, serializer)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let from_octets =
                    |octets: &[u8]| octets.try_into().map(Self).map_err(|_| IdentifierError($wrong));
                deserialize(from_octets, deserializer)
            }
        }
    )*};
}

hex_octets! {
    /// SHA-256 of a whole DER certificate.
    Fingerprint, 32, "a fingerprint is 64 hex digits";
    /// SHA-256 of a DER SubjectPublicKeyInfo: the same key has the same one in every certificate.
    KeyFingerprint, 32, "a key fingerprint is 64 hex digits";
    /// SHA-256 of a secret: what is stored in its place.
    SecretHash, 32, "a secret's hash is 64 hex digits";
    /// Names one request: SHA-256 over caller, profile and CSR. The same request has the same key.
    RequestKey, 32, "a request key is 64 hex digits";
    /// The owner of zones, CAs and devices.
    AccountId, 16, "an account id is 32 hex digits";
    /// A DNS domain of an account.
    ZoneId, 16, "a zone id is 32 hex digits";
}

// A table of alike types: UUIDs of stored objects.
macro_rules! uuids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// An id made of the time (RFC 9562 version 7, so that ids sort by age) and random octets.
            pub fn new(unix_millis: u64, random: [u8; 10]) -> Self {
                Self(uuid::Builder::from_unix_timestamp_millis(unix_millis, &random).into_uuid())
            }

            /// Wraps octets read back from storage.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// The octets; they sort like the ids.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdentifierError;

            fn from_str(text: &str) -> Result<Self, IdentifierError> {
                Uuid::try_parse(text).map(Self).map_err(|_| IdentifierError("an id is a UUID"))
            }
        }
    )*};
}

uuids! {
    /// A CA of an account.
    CaId;
    /// An issued certificate.
    CertificateId;
    /// An enrollment token or an admin token.
    TokenId;
    /// A webhook.
    WebhookId;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fresh_serials_are_positive_and_twenty_octets_at_any_time() {
        for at in [UnixTime::EPOCH, UnixTime::from_secs(1_800_000_000), UnixTime::MAX] {
            for random in [[0; 16], [0xff; 16]] {
                let serial = Serial::new(at, random);
                assert_eq!(serial.as_bytes().len(), 20);
                assert!(serial.as_bytes()[0] & 0xc0 == 0x40);
            }
        }
    }

    #[test]
    fn fresh_serials_sort_by_time() {
        let older = Serial::new(UnixTime::from_secs(1_800_000_000), [0xff; 16]);
        let newer = Serial::new(UnixTime::from_secs(1_800_000_002), [0; 16]);
        assert!(older < newer);
    }

    #[test]
    fn serials_read_hex_as_others_print_it() {
        let serial: Serial = "0A:bc".parse().expect("openssl's form");
        assert_eq!(serial.to_string(), "0abc");
        assert_eq!("abc".parse::<Serial>().expect("odd digits").to_string(), "0abc");
        assert_eq!(Serial::from_bytes(&[0, 0, 7]).expect("leading zeros").as_bytes(), [7]);
        for wrong in ["", "00", "xyz", &"11".repeat(21)] {
            assert!(wrong.parse::<Serial>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn ids_sort_by_age() {
        let older = CertificateId::new(1_000, [0xff; 10]);
        let newer = CertificateId::new(1_001, [0; 10]);
        assert!(older < newer && older.as_bytes() < newer.as_bytes());
    }

    #[test]
    fn fingerprints_take_colons_and_no_other_length() {
        let colons = vec!["ab"; 32].join(":");
        assert_eq!(colons.parse::<Fingerprint>().expect("colons").to_string(), "ab".repeat(32));
        assert!("ab".parse::<Fingerprint>().is_err());
    }
}
