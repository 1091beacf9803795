//! A board's driver as smoltcp sees it.
//!
//! Drivers are written to embassy-net's trait; each of its tokens is one of smoltcp's.

use core::task::Context;

use embassy_net_driver::{Checksum, Driver, RxToken, TxToken};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::time::Instant;

/// The driver for the time of one poll.
pub(super) struct Adapter<'d, 'c, D> {
    driver: &'d mut D,
    context: &'d mut Context<'c>,
    is_full: bool,
}

impl<'d, 'c, D: Driver> Adapter<'d, 'c, D> {
    pub(super) const fn new(driver: &'d mut D, context: &'d mut Context<'c>) -> Self {
        Self { driver, context, is_full: false }
    }

    /// Whether it had no room for something to send.
    pub(super) const fn is_full(&self) -> bool {
        self.is_full
    }
}

impl<D: Driver> phy::Device for Adapter<'_, '_, D> {
    type RxToken<'a>
        = Received<D::RxToken<'a>>
    where
        Self: 'a;
    type TxToken<'a>
        = Sending<D::TxToken<'a>>
    where
        Self: 'a;

    fn receive(&mut self, _: Instant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        self.driver.receive(self.context).map(|(received, sending)| (Received(received), Sending(sending)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Self::TxToken<'_>> {
        let token = self.driver.transmit(self.context).map(Sending);
        self.is_full = token.is_none();
        token
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let of_driver = self.driver.capabilities();
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = of_driver.max_transmission_unit;
        capabilities.max_burst_size = of_driver.max_burst_size;
        capabilities.checksum.ipv4 = checksum(of_driver.checksum.ipv4);
        capabilities.checksum.udp = checksum(of_driver.checksum.udp);
        capabilities.checksum.tcp = checksum(of_driver.checksum.tcp);
        capabilities.checksum.icmpv4 = checksum(of_driver.checksum.icmpv4);
        capabilities
    }
}

const fn checksum(by_software: Checksum) -> phy::Checksum {
    match by_software {
        Checksum::Both => phy::Checksum::Both,
        Checksum::Rx => phy::Checksum::Rx,
        Checksum::Tx => phy::Checksum::Tx,
        Checksum::None => phy::Checksum::None,
    }
}

/// A frame that arrived.
pub(super) struct Received<T>(T);

impl<T: RxToken> phy::RxToken for Received<T> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        self.0.consume(|frame| read(frame))
    }
}

/// Room for a frame to send.
pub(super) struct Sending<T>(T);

impl<T: TxToken> phy::TxToken for Sending<T> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        self.0.consume(len, write)
    }
}
