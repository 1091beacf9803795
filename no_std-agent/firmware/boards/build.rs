//! The build script of real boards: tells the linker where image and memory are, and where the image must end: before
//! the data.

use std::io;
use std::path::Path;

#[expect(dead_code, reason = "the firmware and its tools use the rest")]
#[path = "layout.rs"]
mod layout;

fn main() -> io::Result<()> {
    let board = match env!("CARGO_PKG_NAME") {
        "muster-board-nrf52840" => layout::NRF52840_DK,
        "muster-board-pico2" => layout::W5500_EVB_PICO2,
        other => return Err(io::Error::other(format!("{other} has no layout"))),
    };
    let flash = format!(
        "MEMORY {{ FLASH : ORIGIN = {:#x}, LENGTH = {:#x} }}\n\n",
        board.flash_address,
        board.data_offset()
    );
    let out = std::env::var_os("OUT_DIR").unwrap_or_default();
    std::fs::write(Path::new(&out).join("memory.x"), flash + &std::fs::read_to_string("memory.x")?)?;
    println!("cargo:rustc-link-search={}", Path::new(&out).display());
    println!("cargo:rerun-if-changed=memory.x");
    println!("cargo:rerun-if-changed=../build.rs");
    println!("cargo:rerun-if-changed=../layout.rs");
    Ok(())
}
