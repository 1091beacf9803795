//! Puts the memory map of the board's FPGA image where the linker looks for it.

use std::io;
use std::path::Path;

fn main() -> io::Result<()> {
    let map = if cfg!(feature = "an505") { "memory/an505.x" } else { "memory/mps2.x" };
    let out = std::env::var_os("OUT_DIR").unwrap_or_default();
    std::fs::copy(map, Path::new(&out).join("memory.x"))?;
    println!("cargo:rustc-link-search={}", Path::new(&out).display());
    println!("cargo:rustc-link-search={}", env!("CARGO_MANIFEST_DIR"));
    println!("cargo:rerun-if-changed=device.x");
    println!("cargo:rerun-if-changed=memory");
    Ok(())
}
