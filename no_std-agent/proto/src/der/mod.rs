//! DER (X.690): a strict reader and a writer, both without copies and without heap.
//!
//! Only what PKIX needs: definite lengths up to 65,535 bytes, low tag numbers, minimal encodings. There is one
//! encoding for a value; everything else is an error. The reader never recurses by itself: nesting is as deep as the
//! calling parser's own code, so hostile depth costs nothing.

mod oid;
mod reader;
mod writer;

pub use oid::Oid;
pub use reader::{DerError, Element, Reader};
pub use writer::Writer;

/// The identifier octet of an element: class, constructed bit and a number below 31.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(pub u8);

impl Tag {
    /// BOOLEAN.
    pub const BOOLEAN: Self = Self(0x01);
    /// INTEGER.
    pub const INTEGER: Self = Self(0x02);
    /// BIT STRING.
    pub const BIT_STRING: Self = Self(0x03);
    /// OCTET STRING.
    pub const OCTET_STRING: Self = Self(0x04);
    /// NULL.
    pub const NULL: Self = Self(0x05);
    /// OBJECT IDENTIFIER.
    pub const OID: Self = Self(0x06);
    /// UTF8String.
    pub const UTF8_STRING: Self = Self(0x0c);
    /// PrintableString.
    pub const PRINTABLE_STRING: Self = Self(0x13);
    /// IA5String.
    pub const IA5_STRING: Self = Self(0x16);
    /// UTCTime.
    pub const UTC_TIME: Self = Self(0x17);
    /// GeneralizedTime.
    pub const GENERALIZED_TIME: Self = Self(0x18);
    /// SEQUENCE and SEQUENCE OF.
    pub const SEQUENCE: Self = Self(0x30);
    /// SET and SET OF.
    pub const SET: Self = Self(0x31);

    /// A context-specific tag that replaces a primitive type's own; `number` is below 31.
    #[must_use]
    pub const fn context(number: u8) -> Self {
        Self(0x80 | number)
    }

    /// A context-specific tag around, or in place of, a constructed type; `number` is below 31.
    #[must_use]
    pub const fn context_constructed(number: u8) -> Self {
        Self(0xa0 | number)
    }
}
