//! The SMSC LAN9118 Ethernet controller, polled.
//!
//! Frames go through its FIFOs word by word. The network stack asks at each of its turns whether one has arrived,
//! which it has every millisecond while the device waits; so there is no interrupt.

use core::task::Context;

use embassy_net_driver::{Capabilities, Driver, HardwareAddress, LinkState, RxToken, TxToken};

use muster_firmware_boot::TCP_WINDOW_BYTES;

use crate::map::LAN9118;
use crate::registers::Registers;

/// The controller. It keeps what arrived until the stack has memory for it.
pub(crate) struct Lan9118(Registers);

impl Lan9118 {
    /// Resets the controller and switches it on.
    pub(crate) fn start() -> Self {
        let registers = Registers::new(LAN9118);
        registers.write(HW_CFG, HW_CFG_RESET);
        while registers.read(HW_CFG) & HW_CFG_RESET != 0 {}
        registers.write(HW_CFG, HW_CFG_MUST_BE_ONE | HW_CFG_TX_FIFO);
        registers.write(TX_CFG, TX_CFG_ON);
        write_mac(registers, MAC_CR, MAC_CR_TX | MAC_CR_RX);
        Self(registers)
    }

    /// The address that the controller has from its EEPROM.
    pub(crate) fn address(&self) -> [u8; 6] {
        let [a, b, c, d] = read_mac(self.0, ADDRESS_LOW).to_le_bytes();
        let [e, f, ..] = read_mac(self.0, ADDRESS_HIGH).to_le_bytes();
        [a, b, c, d, e, f]
    }

    /// The length of the next whole frame in the FIFO, with its checksum; broken ones are passed over.
    fn next_length(&mut self) -> Option<usize> {
        while self.0.read(RX_FIFO_INFO) & RX_STATUS_USED != 0 {
            let status = self.0.read(RX_STATUS_PEEK);
            let length = length(status);
            if status & RX_ERROR == 0 && (CHECKSUM_BYTES..=FRAME_BYTES).contains(&length) {
                return Some(length);
            }
            read_frame(self.0, &mut []);
        }
        None
    }
}

impl Driver for Lan9118 {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending;

    fn receive(&mut self, _: &mut Context<'_>) -> Option<(Received, Sending)> {
        let length = self.next_length()?;
        Some((Received { registers: self.0, length }, Sending(self.0)))
    }

    fn transmit(&mut self, _: &mut Context<'_>) -> Option<Sending> {
        // The emulated controller sends a frame as soon as its last word is written.
        let free = self.0.read(TX_FIFO_INFO) & 0xffff;
        (usize::try_from(free).is_ok_and(|free| free > FRAME_BYTES + 8)).then_some(Sending(self.0))
    }

    fn link_state(&mut self, _: &mut Context<'_>) -> LinkState {
        LinkState::Up
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.max_transmission_unit = MTU_BYTES;
        // One frame at a time: that is the memory there is.
        capabilities.max_burst_size = Some(1);
        capabilities
    }

    fn hardware_address(&self) -> HardwareAddress {
        HardwareAddress::Ethernet(self.address())
    }
}

/// A frame that arrived, in the FIFO until it is consumed.
pub(crate) struct Received {
    registers: Registers,
    length: usize,
}

impl RxToken for Received {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, read: F) -> R {
        let mut frame = [0; FRAME_BYTES];
        let frame = frame.get_mut(..self.length).unwrap_or_default();
        read_frame(self.registers, frame);
        let (content, _checksum) = frame.split_at_mut(frame.len().saturating_sub(CHECKSUM_BYTES));
        read(content)
    }
}

/// Takes the next frame out of the FIFO, as much of it as there is room for.
fn read_frame(registers: Registers, frame: &mut [u8]) {
    let length = length(registers.read(RX_STATUS));
    for at in (0..length).step_by(4) {
        let word = registers.read(RX_DATA).to_le_bytes();
        let part = frame.get_mut(at..).unwrap_or_default();
        part.iter_mut().zip(word).for_each(|(place, byte)| *place = byte);
    }
}

fn length(status: u32) -> usize {
    usize::try_from(status >> 16 & 0x3fff).unwrap_or_default()
}

/// Room for a frame to send.
pub(crate) struct Sending(Registers);

impl TxToken for Sending {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut frame = [0; FRAME_BYTES];
        let frame = frame.get_mut(..len).unwrap_or_default();
        let result = write(frame);
        let length = u32::try_from(frame.len()).unwrap_or_default();
        self.0.write(TX_DATA, TX_FIRST | TX_LAST | length);
        self.0.write(TX_DATA, length);
        for word in frame.chunks(4) {
            let mut padded = [0; 4];
            padded.iter_mut().zip(word).for_each(|(place, byte)| *place = *byte);
            self.0.write(TX_DATA, u32::from_le_bytes(padded));
        }
        while self.0.read(TX_FIFO_INFO) & TX_STATUS_USED != 0 {
            self.0.read(TX_STATUS);
        }
        result
    }
}

fn read_mac(registers: Registers, index: u32) -> u32 {
    registers.write(MAC_COMMAND, MAC_BUSY | MAC_READ | index);
    while registers.read(MAC_COMMAND) & MAC_BUSY != 0 {}
    registers.read(MAC_DATA)
}

fn write_mac(registers: Registers, index: u32, value: u32) {
    registers.write(MAC_DATA, value);
    registers.write(MAC_COMMAND, MAC_BUSY | index);
    while registers.read(MAC_COMMAND) & MAC_BUSY != 0 {}
}

/// The longest frame: Ethernet, IPv4 and TCP headers, and a segment as long as the window of the TCP socket. Peers know by
/// the maximum segment size (RFC 9293 §3.7.1); longer frames are passed over. At least 576 bytes of IPv4 must be taken
/// (RFC 791 §3.1), and DHCP servers are told the limit (RFC 2132 §9.10).
const MTU_BYTES: usize = 14 + 20 + 20 + TCP_WINDOW_BYTES;
const _: () = assert!(MTU_BYTES >= 14 + 576, "what any host must take");
/// And with its checksum, which is received too.
const FRAME_BYTES: usize = MTU_BYTES + CHECKSUM_BYTES;
const CHECKSUM_BYTES: usize = 4;

// Registers and bits by the LAN9118 data sheet, revision 1.5, sections 5.3 and 5.4.
const RX_DATA: usize = 0x00;
const TX_DATA: usize = 0x20;
const RX_STATUS: usize = 0x40;
const RX_STATUS_PEEK: usize = 0x44;
const TX_STATUS: usize = 0x48;
const TX_CFG: usize = 0x70;
const HW_CFG: usize = 0x74;
const RX_FIFO_INFO: usize = 0x7c;
const TX_FIFO_INFO: usize = 0x80;
const MAC_COMMAND: usize = 0xa4;
const MAC_DATA: usize = 0xa8;
const HW_CFG_RESET: u32 = 1;
const HW_CFG_MUST_BE_ONE: u32 = 1 << 20;
const HW_CFG_TX_FIFO: u32 = 5 << 16;
const TX_CFG_ON: u32 = 1 << 1;
const TX_FIRST: u32 = 1 << 13;
const TX_LAST: u32 = 1 << 12;
const TX_STATUS_USED: u32 = 0xff << 16;
const RX_STATUS_USED: u32 = 0xff << 16;
const RX_ERROR: u32 = 1 << 15;
const MAC_BUSY: u32 = 1 << 31;
const MAC_READ: u32 = 1 << 30;
const MAC_CR: u32 = 1;
const MAC_CR_TX: u32 = 1 << 3;
const MAC_CR_RX: u32 = 1 << 2;
const ADDRESS_HIGH: u32 = 2;
const ADDRESS_LOW: u32 = 3;
