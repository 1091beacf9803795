//! What the emulator does for the board: files, a console, arguments, and the end.

use core::fmt;

use cortex_m_semihosting::nr;

/// An open file of the host.
#[derive(Debug)]
pub(crate) struct File(usize);

impl File {
    /// Opens a file; the name must end with a zero byte.
    pub(crate) fn open(name: &[u8], mode: usize) -> Option<Self> {
        let length = name.strip_suffix(&[0])?.len();
        let handle = call(nr::OPEN, &[name.as_ptr().expose_provenance(), mode, length]);
        (handle != usize::MAX).then_some(Self(handle))
    }

    /// Fills the buffer; `false` if the file ends before that.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> bool {
        buffer.is_empty()
            || call(nr::READ, &[self.0, buffer.as_mut_ptr().expose_provenance(), buffer.len()]) == 0
    }

    pub(crate) fn write(&self, bytes: &[u8]) -> bool {
        bytes.is_empty() || call(nr::WRITE, &[self.0, bytes.as_ptr().expose_provenance(), bytes.len()]) == 0
    }

    pub(crate) fn seek(&self, at: usize) -> bool {
        call(nr::SEEK, &[self.0, at]) == 0
    }

    pub(crate) fn len(&self) -> usize {
        call(nr::FLEN, &[self.0])
    }
}

impl fmt::Write for File {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.write(text.as_bytes()) { Ok(()) } else { Err(fmt::Error) }
    }
}

/// The console.
pub(crate) fn console() -> Option<File> {
    File::open(b":tt\0", nr::open::W_TRUNC)
}

/// What the emulator was told with `-semihosting-config arg=...`, joined by blanks.
pub(crate) fn arguments(buffer: &mut [u8]) -> &str {
    let refused = call(nr::GET_CMDLINE, &[buffer.as_mut_ptr().expose_provenance(), buffer.len()]) != 0;
    let end = buffer.iter().position(|byte| *byte == 0).unwrap_or_default();
    let line = buffer.get(..end).filter(|_| !refused).unwrap_or_default();
    core::str::from_utf8(line).unwrap_or_default()
}

/// Ends the emulator with this exit code.
pub(crate) fn exit(code: usize) -> ! {
    const EXIT_EXTENDED: usize = 0x20;
    const APPLICATION_EXIT: usize = 0x2_0026;
    loop {
        call(EXIT_EXTENDED, &[APPLICATION_EXIT, code]);
    }
}

fn call<const N: usize>(number: usize, arguments: &[usize; N]) -> usize {
    // SAFETY: the calls above pass the words that Arm's specification of semihosting asks for, and the memory that
    // they point to is borrowed for as long as the call takes.
    #[expect(unsafe_code, reason = "a breakpoint instruction that the emulator serves")]
    unsafe {
        cortex_m_semihosting::syscall(number, arguments)
    }
}
