//! Any answers of a server leave the machine at rest or at a failure, never in an endless loop.
#![no_main]

use muster_proto::enrollment::*;
use muster_proto::est::{Credential, Server};
use muster_proto::time::{Instant, UnixTime};
use muster_proto::x509::{PublicKey, SignatureAlgorithm, Verify, VerifyError};

/// Believes everything, so that the parsers behind the signatures are reached.
struct Credulous;

impl Verify for Credulous {
    fn verify(
        &self,
        _: &PublicKey<'_>,
        _: SignatureAlgorithm,
        _: &[u8],
        _: &[u8],
    ) -> Result<(), VerifyError> {
        Ok(())
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let config = Config {
        server: Server::new("est.example.com", 443, None).unwrap(),
        identity: Identity::new("dev-0", None).unwrap(),
        credential: Some(Credential::basic("dev-0", "token").unwrap()),
        trust: Trust::Certificates(&[]),
        wishes: AskWishes::Ask,
        binding: Binding::Never,
        presents: Presents::Chain,
        pace: Pace::default(),
        built_at: UnixTime::default(),
        seed: 1,
    };
    let (mut a, mut b, mut c, mut d, mut e) = ([0; 1024], [0; 1024], [0; 768], [0; 1024], [0; 1024]);
    let memory = Memory { authorities: &mut b, request: &mut c, current: &mut d, candidate: &mut e };
    let mut machine =
        Enrollment::new(config, memory, &Restored::default(), Credulous, Instant::from_millis(0));
    let point = muster_proto::csr::P256Point::new(&[4; 65]).unwrap();
    let mut now = Instant::from_millis(0);
    // Answers are cut at NUL bytes, one for each request.
    let mut answers = data.split(|byte| *byte == 0);
    let mut since_rest = 0;
    loop {
        since_rest += 1;
        assert!(since_rest < 50, "the machine never comes to rest");
        let mut buffer = [0; 256];
        let input = match machine.poll(&mut buffer).unwrap() {
            Output::Connect(_) => Input::Connected(Session::default()),
            Output::MakeKey(_) => Input::KeyReady(point),
            Output::Sign { .. } => Input::Signed(&[0x30, 6, 2, 1, 1, 2, 1, 1]),
            Output::Store(_) => Input::Stored,
            Output::WaitUntil(at) => match answers.next() {
                Some(answer) => {
                    since_rest = 0;
                    let _ = machine.receive(answer, &mut a, now);
                    now = at;
                    Input::TimerFired
                }
                None => return,
            },
            _ => continue,
        };
        machine.handle(input, now).unwrap();
    }
});
