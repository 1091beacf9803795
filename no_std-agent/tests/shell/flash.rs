//! A NOR flash in memory whose power fails at a chosen step, with words of any size.
//!
//! Programming only clears bits, and a word may be programmed once between erases, as flash with ECC demands.
//! After the cut every access fails until [`Flash::power_on`].

use embedded_storage::nor_flash::{ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash};

/// What the power cut leaves of the step under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Whole bytes, also inside a word; an erase got as far as that byte.
    Byte,
    /// Whole words.
    Word,
    /// A word of which only some bits were programmed, or erased.
    TornWord,
    /// As `Byte`, but an erase begins at the page's end. sequential-storage does not promise to survive this.
    ByteErasingBackwards,
}

#[derive(Clone)]
pub(crate) struct Flash<const WORD: usize, const PAGE: usize> {
    pub(crate) bytes: Vec<u8>,
    programmed: Vec<bool>,
    cut: Cut,
    /// Steps until the power fails.
    steps_left: Option<usize>,
    off: bool,
    /// Steps so far.
    pub(crate) steps: usize,
    pub(crate) erases: usize,
}

impl<const WORD: usize, const PAGE: usize> Flash<WORD, PAGE> {
    pub(crate) fn new(pages: usize) -> Self {
        Self {
            bytes: vec![0xff; pages * PAGE],
            programmed: vec![false; pages * PAGE / WORD],
            cut: Cut::Byte,
            steps_left: None,
            off: false,
            steps: 0,
            erases: 0,
        }
    }

    pub(crate) fn cut_after(&mut self, steps: usize, cut: Cut) {
        self.steps_left = Some(steps);
        self.cut = cut;
    }

    pub(crate) fn power_on(&mut self) {
        self.steps_left = None;
        self.off = false;
    }

    /// The bytes of one step.
    const fn stride(&self) -> usize {
        match self.cut {
            Cut::Byte | Cut::ByteErasingBackwards => 1,
            Cut::Word | Cut::TornWord => WORD,
        }
    }

    /// Counts one step; `false` when the power fails before it.
    fn step(&mut self) -> bool {
        self.steps += 1;
        if let Some(left) = &mut self.steps_left {
            if *left == 0 {
                self.off = true;
                return false;
            }
            *left -= 1;
        }
        true
    }

    /// A mask that differs from place to place, the same on each run.
    fn torn(&self, at: usize) -> u8 {
        let mixed = (at as u64 + self.steps as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        mixed.to_be_bytes()[0]
    }
}

/// No power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Off;

impl NorFlashError for Off {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::Other
    }
}

impl<const WORD: usize, const PAGE: usize> ErrorType for Flash<WORD, PAGE> {
    type Error = Off;
}

impl<const WORD: usize, const PAGE: usize> ReadNorFlash for Flash<WORD, PAGE> {
    const READ_SIZE: usize = WORD;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Off> {
        if self.off {
            return Err(Off);
        }
        let offset = offset as usize;
        assert!(offset.is_multiple_of(WORD) && bytes.len().is_multiple_of(WORD));
        bytes.copy_from_slice(&self.bytes[offset..offset + bytes.len()]);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.bytes.len()
    }
}

impl<const WORD: usize, const PAGE: usize> NorFlash for Flash<WORD, PAGE> {
    const WRITE_SIZE: usize = WORD;
    const ERASE_SIZE: usize = PAGE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Off> {
        if self.off {
            return Err(Off);
        }
        let (from, to) = (from as usize, to as usize);
        assert!(from.is_multiple_of(PAGE) && to.is_multiple_of(PAGE) && from <= to);
        self.erases += 1;
        let stride = self.stride();
        for page in (from..to).step_by(PAGE) {
            for done in (0..PAGE).step_by(stride) {
                let at = match self.cut {
                    Cut::ByteErasingBackwards => page + PAGE - done - stride,
                    _ => page + done,
                };
                let on = self.step();
                for place in at..at + stride {
                    if on {
                        self.bytes[place] = 0xff;
                        self.programmed[place / WORD] = false;
                    } else if self.cut == Cut::TornWord {
                        self.bytes[place] |= self.torn(place);
                    }
                }
                if !on {
                    return Err(Off);
                }
            }
        }
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Off> {
        if self.off {
            return Err(Off);
        }
        let offset = offset as usize;
        assert!(offset.is_multiple_of(WORD) && bytes.len().is_multiple_of(WORD));
        let stride = self.stride();
        for (index, piece) in bytes.chunks(stride).enumerate() {
            let at = offset + index * stride;
            // Zeros may go over anything: so it is with ECC, and page marks rely on it.
            if at.is_multiple_of(WORD) && piece.iter().any(|byte| *byte != 0) {
                assert!(!self.programmed[at / WORD], "the word at {at} is programmed twice");
            }
            let on = self.step();
            let before = self.bytes[at..at + piece.len()].to_vec();
            for (place, byte) in (at..).zip(piece) {
                if on {
                    self.bytes[place] &= byte;
                } else if self.cut == Cut::TornWord {
                    self.bytes[place] &= byte | self.torn(place);
                }
            }
            // A word of one byte of which no bit was programmed is as it was.
            self.programmed[at / WORD] |= on || self.bytes[at..at + piece.len()] != before[..];
            if !on {
                return Err(Off);
            }
        }
        Ok(())
    }
}
