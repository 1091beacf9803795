//! Tells the linker where image and memory are, and where the image must end: before the data.

use std::path::Path;

#[expect(dead_code, reason = "the firmware and its tools use the rest")]
#[path = "../layout.rs"]
mod layout;

fn main() -> std::io::Result<()> {
    let board = layout::NRF52840_DK;
    let flash = format!(
        "MEMORY {{ FLASH : ORIGIN = {:#x}, LENGTH = {:#x} }}\n\n",
        board.flash_address,
        board.data_offset()
    );
    let out = std::env::var_os("OUT_DIR").unwrap_or_default();
    std::fs::write(Path::new(&out).join("memory.x"), flash + include_str!("memory.x"))?;
    println!("cargo:rustc-link-search={}", Path::new(&out).display());
    println!("cargo:rerun-if-changed=memory.x");
    println!("cargo:rerun-if-changed=../layout.rs");
    Ok(())
}
