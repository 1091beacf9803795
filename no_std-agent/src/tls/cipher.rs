//! AES-128-GCM that looks at what it has decrypted before embedded-tls does.
//!
//! After the handshake embedded-tls panics on every handshake message but a NewSessionTicket, and such a message lies
//! behind the encryption, where no look at a record's header finds it. The cipher of a suite is a type that is lent to
//! embedded-tls, so here it is one that refuses such a record as if it were forged. It is made anew for each record
//! and knows no connection: that the handshake is over it learns from the header, where [`screen`](super::screen) puts
//! [`AFTER_HANDSHAKE`] in place of the version. After the handshake no handshake message reaches embedded-tls at all:
//! tickets, which it would parse and drop, are taken out too (RFC 8446 §4.6, §5.2, §5.4).

use aes_gcm::Aes128Gcm;
use aes_gcm::aead::consts::{U0, U12, U16, U54};
use aes_gcm::aead::{AeadCore, AeadInPlace, Error, Key, KeyInit, KeySizeUser, Nonce, Result, Tag};
use embedded_tls::{Sha256, TlsCipherSuite};

use super::screen::{AFTER_HANDSHAKE, APPLICATION_DATA, HANDSHAKE};

/// `TLS_AES_128_GCM_SHA256`, of which what was decrypted is looked at.
pub(super) struct GuardedSuite;

impl TlsCipherSuite for GuardedSuite {
    /// RFC 8446 §B.4.
    const CODE_POINT: u16 = 0x1301;
    type Cipher = GuardedCipher;
    type KeyLen = U16;
    type IvLen = U12;
    type Hash = Sha256;
    /// A hash, and 22 bytes around the longest label.
    type LabelBufferSize = U54;
}

/// The cipher of [`GuardedSuite`].
pub(super) struct GuardedCipher(Aes128Gcm);

impl KeySizeUser for GuardedCipher {
    type KeySize = U16;
}

impl KeyInit for GuardedCipher {
    fn new(key: &Key<Self>) -> Self {
        Self(Aes128Gcm::new(key))
    }
}

impl AeadCore for GuardedCipher {
    type NonceSize = U12;
    type TagSize = U16;
    type CiphertextOverhead = U0;
}

impl AeadInPlace for GuardedCipher {
    fn encrypt_in_place_detached(
        &self,
        nonce: &Nonce<Self>,
        associated_data: &[u8],
        buffer: &mut [u8],
    ) -> Result<Tag<Self>> {
        self.0.encrypt_in_place_detached(nonce, associated_data, buffer)
    }

    fn decrypt_in_place_detached(
        &self,
        nonce: &Nonce<Self>,
        associated_data: &[u8],
        buffer: &mut [u8],
        tag: &Tag<Self>,
    ) -> Result<()> {
        let [content_type, version @ .., high, low] = associated_data else { return Err(Error) };
        let is_after_handshake = *version == AFTER_HANDSHAKE;
        let sent = [*content_type, RECORD_VERSION[0], RECORD_VERSION[1], *high, *low];
        let associated_data = if is_after_handshake { &sent } else { associated_data };
        self.0.decrypt_in_place_detached(nonce, associated_data, buffer, tag)?;
        // Content, its type, and zeros as padding.
        let end = buffer.iter().rposition(|byte| *byte != 0).ok_or(Error)?;
        let (content, rest) = buffer.split_at_mut(end);
        match rest.first() {
            Some(&HANDSHAKE) if is_after_handshake => {
                if !are_tickets(content) {
                    return Err(Error);
                }
                empty(buffer)
            }
            _ => Ok(()),
        }
    }
}

/// Leaves application data without content, which may be sent at any time and means nothing.
fn empty(plaintext: &mut [u8]) -> Result<()> {
    plaintext.fill(0);
    *plaintext.first_mut().ok_or(Error)? = APPLICATION_DATA;
    Ok(())
}

/// Whether these are whole NewSessionTicket messages and nothing else.
fn are_tickets(mut messages: &[u8]) -> bool {
    if messages.is_empty() {
        return false;
    }
    while let Some(([message_type, high, middle, low], rest)) = messages.split_first_chunk() {
        let length = u32::from_be_bytes([0, *high, *middle, *low]);
        let rest = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
        match rest {
            Some((_, rest)) if *message_type == NEW_SESSION_TICKET => messages = rest,
            _ => return false,
        }
    }
    messages.is_empty()
}

/// `legacy_record_version` of every encrypted record (RFC 8446 §5.2).
const RECORD_VERSION: [u8; 2] = [3, 3];

/// RFC 8446 §4.
const NEW_SESSION_TICKET: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of a plaintext when it comes in a record with this version.
    fn opened<'p>(plaintext: &[u8], version: [u8; 2], place: &'p mut [u8; 64]) -> Result<&'p [u8]> {
        let cipher = GuardedCipher::new(&Key::<GuardedCipher>::default());
        let nonce = Nonce::<GuardedCipher>::default();
        let buffer = &mut place[..plaintext.len()];
        buffer.copy_from_slice(plaintext);
        let tag = cipher.encrypt_in_place_detached(&nonce, &[23, 3, 3, 0, 40], buffer)?;
        let header = [23, version[0], version[1], 0, 40];
        cipher.decrypt_in_place_detached(&nonce, &header, buffer, &tag)?;
        Ok(buffer)
    }

    const TICKETS: [u8; 15] = [4, 0, 0, 2, 8, 0, 4, 0, 0, 0, 4, 0, 0, 0, HANDSHAKE];

    #[test]
    fn in_the_handshake_its_messages_pass_as_they_are() {
        let message = [8, 0, 0, 2, 0, 0, HANDSHAKE, 0];
        assert_eq!(opened(&message, RECORD_VERSION, &mut [0; 64]), Ok(&message[..]));
    }

    #[test]
    fn after_it_tickets_vanish_and_other_messages_are_no_records() {
        let mut place = [0; 64];
        let left = opened(&TICKETS, AFTER_HANDSHAKE, &mut place).expect("tickets are fine");
        assert_eq!((left[0], left[1..].iter().all(|byte| *byte == 0)), (APPLICATION_DATA, true));
        for kind in (0..=u8::MAX).filter(|kind| *kind != NEW_SESSION_TICKET) {
            let message = [kind, 0, 0, 1, 0, HANDSHAKE];
            assert_eq!(opened(&message, AFTER_HANDSHAKE, &mut [0; 64]), Err(Error), "{kind}");
            // Hidden behind a ticket.
            let behind = [4, 0, 0, 1, 0, kind, 0, 0, 0, HANDSHAKE];
            assert_eq!(opened(&behind, AFTER_HANDSHAKE, &mut [0; 64]), Err(Error), "{kind}");
        }
    }

    #[test]
    fn a_ticket_that_is_cut_off_or_not_there_is_no_record() {
        for message in [&[HANDSHAKE][..], &[4, HANDSHAKE], &[4, 0, 0, HANDSHAKE], &[4, 0, 0, 1, HANDSHAKE]] {
            assert_eq!(opened(message, AFTER_HANDSHAKE, &mut [0; 64]), Err(Error), "{message:?}");
        }
    }

    #[test]
    fn application_data_and_alerts_pass_and_padding_alone_does_not() {
        for version in [RECORD_VERSION, AFTER_HANDSHAKE] {
            for plaintext in [&[1, 2, 3, APPLICATION_DATA, 0, 0][..], &[1, 0, 21], &[APPLICATION_DATA]] {
                assert_eq!(opened(plaintext, version, &mut [0; 64]), Ok(plaintext));
            }
            assert_eq!(opened(&[0; 20], version, &mut [0; 64]), Err(Error));
        }
    }
}
