//! A first enrollment and a renewal with answers from memory, on an emulated Cortex-M4: the whole machine runs,
//! and nothing else does. Signature checks say yes, since their arithmetic is the shell's.
//!
//! Before the run the free memory below the stack is painted; what was painted over afterwards is what the run
//! needed. Prints `stack BYTES machine BYTES` and ends the emulator with 0, or with 1 when the enrollment failed.
#![no_std]
#![no_main]

use cortex_m_rt::entry;
use cortex_m_semihosting::{debug, hprintln};
use panic_halt as _;

#[cfg(feature = "without")]
#[entry]
fn main() -> ! {
    let (painted, used) = paint::around(|| true);
    hprintln!("stack {} machine 0 {}", used, painted);
    debug::exit(debug::EXIT_SUCCESS);
    loop {}
}

#[cfg(not(feature = "without"))]
#[entry]
fn main() -> ! {
    let (done, used) = paint::around(run::enrolls_and_renews);
    hprintln!("stack {} machine {}", used, run::MACHINE_BYTES);
    debug::exit(if done { debug::EXIT_SUCCESS } else { debug::EXIT_FAILURE });
    loop {}
}

mod paint {
    //! The stack's high-water mark.

    const COLOUR: u32 = 0xC0DE_5AFE;

    unsafe extern "C" {
        /// The end of the static memory, from cortex-m-rt's linker script. The stack grows down towards it.
        static mut __sheap: u32;
    }

    /// Runs `work` and says how many bytes of stack it took.
    #[inline(never)]
    pub fn around(work: fn() -> bool) -> (bool, usize) {
        let here = 0_u32;
        let top = &raw const here as usize & !3;
        let bottom = &raw const __sheap as usize;
        let words = || (bottom..top - GAP).step_by(4).map(|at| at as *mut u32);
        // SAFETY: between the statics and this frame, less a gap for what this function itself calls, is free RAM
        // that nothing else uses: there is no heap, no interrupt and no second task.
        unsafe { words().for_each(|word| word.write_volatile(COLOUR)) };
        let done = work();
        // SAFETY: as above.
        let untouched = unsafe { words().take_while(|word| word.read_volatile() == COLOUR).count() };
        (done, top - bottom - 4 * untouched)
    }

    /// For the frames of painting itself.
    const GAP: usize = 128;
}

#[cfg(not(feature = "without"))]
mod run {
    //! The scenario.

    use core::ptr::addr_of_mut;

    use muster_proto::csr::P256Point;
    use muster_proto::enrollment::*;
    use muster_proto::est::{Credential, Server};
    use muster_proto::time::{Instant, UnixTime};
    use muster_proto::x509::{PublicKey, SignatureAlgorithm, Verify, VerifyError};

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

    pub const MACHINE_BYTES: usize = size_of::<Enrollment<'static, Credulous>>();

    const ROOT: &[u8] = include_bytes!("../fixture/root.der");
    const POINT: &[u8] = include_bytes!("../fixture/point.bin");
    const CACERTS: &[u8] = include_bytes!("../fixture/cacerts.http");
    const CSRATTRS: &[u8] = include_bytes!("../fixture/csrattrs.http");
    const ENROLLED: &[u8] = include_bytes!("../fixture/enrolled.http");

    static mut INBOX: [u8; Memory::INBOX_BYTES] = [0; Memory::INBOX_BYTES];
    static mut AUTHORITIES: [u8; Memory::AUTHORITIES_BYTES] = [0; Memory::AUTHORITIES_BYTES];
    static mut REQUEST: [u8; Memory::REQUEST_BYTES] = [0; Memory::REQUEST_BYTES];
    static mut CURRENT: [u8; Memory::CHAIN_BYTES] = [0; Memory::CHAIN_BYTES];
    static mut CANDIDATE: [u8; Memory::CHAIN_BYTES] = [0; Memory::CHAIN_BYTES];

    #[inline(never)]
    pub fn enrolls_and_renews() -> bool {
        // SAFETY: this function runs once, so each is lent once.
        let memory = unsafe {
            Memory {
                authorities: &mut *addr_of_mut!(AUTHORITIES),
                request: &mut *addr_of_mut!(REQUEST),
                current: &mut *addr_of_mut!(CURRENT),
                candidate: &mut *addr_of_mut!(CANDIDATE),
            }
        };
        let anchors = [ROOT];
        let Some(config) = config(&anchors) else { return false };
        let mut now = Instant::from_millis(0);
        let mut machine = Enrollment::new(config, memory, &Restored::default(), Credulous, now);
        // As after a power cut in the middle of a renewal: a chain in memory, and one to come.
        if !until_issued(&mut machine, &mut now) || machine.handle(Input::Accepted(Slot::A), now).is_err() {
            return false;
        }
        machine.renew_now(now);
        until_issued(&mut machine, &mut now) && machine.handle(Input::Accepted(Slot::B), now).is_ok()
    }

    fn config<'a>(anchors: &'a [&'a [u8]]) -> Option<Config<'a>> {
        Some(Config {
            server: Server::new("est.example.com", 443, None).ok()?,
            identity: Identity::new("dev-0", None).ok()?,
            credential: Some(Credential::basic("dev-0", "token").ok()?),
            trust: Trust::Certificates(anchors),
            wishes: AskWishes::Ask,
            binding: Binding::Never,
            presents: Presents::Chain,
            pace: Pace::default(),
            built_at: UnixTime::from_secs(1_790_000_000),
            seed: 1,
        })
    }

    /// Does what the machine asks for until it holds a new certificate.
    fn until_issued(machine: &mut Enrollment<'_, Credulous>, now: &mut Instant) -> bool {
        let mut piece = [0; 256];
        // SAFETY: used by this function alone, which does not call itself.
        let inbox = unsafe { &mut *addr_of_mut!(INBOX) };
        let mut asked: &[u8] = &[];
        for _ in 0..200 {
            let Ok(output) = machine.poll(&mut piece) else { return false };
            let input = match output {
                Output::Connect(_) => Input::Connected(Session::default()),
                Output::Event(Event::Issued(..)) => return true,
                Output::MakeKey(_) => match P256Point::new(POINT) {
                    Some(point) => Input::KeyReady(point),
                    None => return false,
                },
                Output::Send(bytes) => {
                    let has = |path: &[u8]| bytes.windows(path.len()).any(|window| window == path);
                    if has(b"/cacerts ") {
                        asked = CACERTS;
                    } else if has(b"/csrattrs ") {
                        asked = CSRATTRS;
                    } else if has(b"/simple") {
                        asked = ENROLLED;
                    }
                    continue;
                }
                Output::Sign { .. } => Input::Signed(&[0x30, 6, 2, 1, 1, 2, 1, 1]),
                Output::Store(_) => Input::Stored,
                Output::WaitUntil(_) if !asked.is_empty() => {
                    if machine.receive(core::mem::take(&mut asked), inbox, *now).is_err() {
                        return false;
                    }
                    continue;
                }
                Output::WaitUntil(at) => {
                    *now = at;
                    Input::TimerFired
                }
                _ => continue,
            };
            if machine.handle(input, *now).is_err() {
                return false;
            }
        }
        false
    }
}
