//! A hostile minority in virtual time: each tries its one trick every hour, and none may ever work.

use std::rc::Rc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rcgen::{CertificateParams, DnType};

use super::crypto::ModelKey;
use super::file::Scenario;
use super::server::{Answer, SERVER_NAME, START_S, foreign_leaf, token_of};
use super::world::World;
use crate::chance::Chance;

/// A trick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Comes to the edge with a certificate of another CA that has the same name.
    ForeignCertificate,
    /// Opens a connection and says nothing.
    HalfOpen,
    /// Has a good token, and sends what is no request.
    MalformedCsr,
    /// Uses one device's token for another device.
    WrongId,
}

/// How many there are.
pub(super) fn count(scenario: &Scenario) -> u32 {
    u32::try_from(kinds(scenario).count()).unwrap_or(u32::MAX)
}

/// One for each of them.
pub(super) fn kinds(scenario: &Scenario) -> impl Iterator<Item = Kind> + use<> {
    let hostile = scenario.hostile;
    let devices = f64::from(scenario.devices);
    [
        (Kind::ForeignCertificate, hostile.foreign_certificate),
        (Kind::HalfOpen, hostile.half_open),
        (Kind::MalformedCsr, hostile.malformed_csr),
        (Kind::WrongId, hostile.wrong_id),
    ]
    .into_iter()
    .flat_map(move |(kind, share)| std::iter::repeat_n(kind, (devices * share).ceil() as usize))
}

/// The life of one of them.
pub(super) async fn live(world: Rc<World>, number: u32, kind: Kind) {
    let mut chance = Chance::new(world.scenario.seed, u64::from(number));
    loop {
        let wait_ms = (chance.unit() * 2.0 * TRY_EVERY_MS) as u64;
        world.wait(number, world.now_ms() + wait_ms).await;
        while world.take_post(number).is_some() {}
        let worked = attempt(&world, number, kind, &mut chance);
        if worked {
            world.server.borrow_mut().book.hostile_accepted += 1;
        } else {
            world.failed("hostile", format!("{kind:?} refused"));
        }
    }
}

fn attempt(world: &World, number: u32, kind: Kind, chance: &mut Chance) -> bool {
    let now_ms = world.now_ms();
    let mut server = world.server.borrow_mut();
    if !server.is_up(now_ms) {
        return false;
    }
    let (me, victim) =
        (format!("bad-{number}"), format!("dev-{:07}", chance.number() % u64::from(world.scenario.devices)));
    let request = match kind {
        Kind::HalfOpen => return false,
        Kind::ForeignCertificate => {
            let key = ModelKey::new(chance.number(), 0);
            let leaf = foreign_leaf(&key, &victim, START_S + now_ms / 1000);
            return leaf.is_ok_and(|leaf| server.lets_in(&leaf, START_S + now_ms / 1000));
        }
        Kind::MalformedCsr => {
            let garbage: Vec<u8> = (0..64).flat_map(|_| chance.number().to_be_bytes()).collect();
            enroll(&me, &token_of(&me), &garbage)
        }
        // The request is sound, so that nothing but the token stands in its way.
        Kind::WrongId => match request(&ModelKey::new(chance.number(), 1), &victim) {
            Ok(der) => enroll(&victim, &token_of(&me), &der),
            Err(_) => return false,
        },
    };
    match server.answer(&request, None, now_ms) {
        Answer::Bytes(bytes) => bytes.starts_with(b"HTTP/1.1 200"),
        Answer::Lost => false,
    }
}

fn request(key: &ModelKey, device: &str) -> anyhow::Result<Vec<u8>> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, device);
    Ok(params.serialize_request(key)?.der().to_vec())
}

fn enroll(device: &str, token: &str, der: &[u8]) -> Vec<u8> {
    let body = BASE64_STANDARD.encode(der);
    let basic = BASE64_STANDARD.encode(format!("{device}:{token}"));
    format!(
        "POST /.well-known/est/simpleenroll HTTP/1.1\r\nHost: {SERVER_NAME}\r\nAuthorization: Basic {basic}\r\n\
         Content-Type: application/pkcs10\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// On average.
const TRY_EVERY_MS: f64 = 3_600_000.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::ScenarioWritten;
    use crate::scenario::server::ModelServer;

    #[test]
    fn only_the_token_stands_between_a_stolen_name_and_a_certificate() {
        let scenario = ScenarioWritten::parse("name = 'x'\ndevices = 1\nfor = '1d'")
            .and_then(ScenarioWritten::check)
            .expect("a scenario");
        let mut server = ModelServer::new(&scenario).expect("a server");
        let der = request(&ModelKey::new(1, 1), "dev-0000000").expect("a request");
        let mut status = |token: &str| match server.answer(&enroll("dev-0000000", token, &der), None, 0) {
            Answer::Bytes(bytes) => String::from_utf8_lossy(&bytes[..12]).into_owned(),
            Answer::Lost => String::new(),
        };
        assert_eq!(status(&token_of("bad-1")), "HTTP/1.1 401");
        assert_eq!(status(&token_of("dev-0000000")), "HTTP/1.1 200");
    }
}
