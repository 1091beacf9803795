//! Putting firmware and image on a board: through the tool of its maker's choice, or into the emulator.
//!
//! A real board gets its factory partition first: firmware that starts without one has nothing to do.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use muster_policy::name::DeviceId;
use serde_json::json;

use super::block::check_settings_block;
use super::board::{EMULATED_FLASH_OCTETS, EMULATED_PAGE_OCTETS, Silicon};
use super::elf::check_image;
use crate::cli::args::{FlashArgs, FlashTool};
use crate::cli::print::Printer;
use crate::datadir::{Readers, write_file};

/// Puts firmware and image on a board.
pub(in crate::cli) fn flash(args: &FlashArgs, out: &mut Printer<'_>) -> anyhow::Result<()> {
    let device: DeviceId = args.device.parse().with_context(|| format!("`{}`", args.device))?;
    let image = args.images.join(format!("{device}.bin"));
    let octets = fs::read(&image)
        .with_context(|| format!("can't read {}; `muster factory` makes it", image.display()))?;
    check_settings_block(&octets)
        .with_context(|| format!("{} is not an image of this version", image.display()))?;
    let usual = || args.images.join(format!("{}.elf", args.board));
    let firmware = args.firmware.clone().unwrap_or_else(usual);
    ensure!(
        firmware.is_file(),
        "no firmware at {}; build.sh makes it, and --firmware says where it is",
        firmware.display()
    );
    let Some(silicon) = args.board.silicon() else {
        ensure!(args.tool.is_none() && args.probe.is_none(), "the emulator needs neither --tool nor --probe");
        return emulate(args, &firmware, &octets, &device, out);
    };
    let elf = fs::read(&firmware).with_context(|| format!("can't read {}", firmware.display()))?;
    check_image(&elf, silicon.layout)
        .with_context(|| format!("{} is not firmware for this board", firmware.display()))?;
    let tool = args.tool.unwrap_or(silicon.tool);
    let steps = match tool {
        FlashTool::Picotool => {
            ensure!(silicon.has_picoboot, "picotool can't reach {}; use probe-rs", silicon.layout.name);
            picotool(args, silicon, &image, &firmware)
        }
        FlashTool::ProbeRs => probe_rs(args, silicon, &image, &firmware),
    };
    if args.dry_run {
        return show(&steps, out);
    }
    steps.iter().try_for_each(|step| step.run(tool.advice()))?;
    let done = json!({ "device": device.to_string(), "board": args.board.to_string() });
    out.done(&done, &format!("Wrote firmware and factory data of {device} to the {}", args.board))
}

/// One call of a program.
struct Step {
    program: &'static str,
    arguments: Vec<OsString>,
}

impl Step {
    fn new<A: AsRef<OsStr>>(program: &'static str, arguments: impl IntoIterator<Item = A>) -> Self {
        let arguments = arguments.into_iter().map(|argument| argument.as_ref().to_owned()).collect();
        Self { program, arguments }
    }

    fn and<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    fn run(&self, advice: Advice) -> anyhow::Result<()> {
        let status = match Command::new(self.program).args(&self.arguments).status() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                bail!("{} is not installed; {}", self.program, advice.missing)
            }
            status => status.with_context(|| format!("can't run {}", self.program))?,
        };
        ensure!(status.success(), "{} failed: {status}; {}", self.program, advice.failed);
        Ok(())
    }

    /// As a shell takes it.
    fn line(&self) -> String {
        let words = self.arguments.iter().map(|argument| quoted(&argument.to_string_lossy()));
        [self.program.to_owned()].into_iter().chain(words).collect::<Vec<_>>().join(" ")
    }
}

fn quoted(word: &str) -> String {
    let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-_./=,:+@".contains(&octet);
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Prints the calls that would be made.
fn show(steps: &[Step], out: &mut Printer<'_>) -> anyhow::Result<()> {
    let lines: Vec<String> = steps.iter().map(Step::line).collect();
    out.done(&json!({ "commands": lines }), &lines.join("\n"))
}

/// What to do when a program is not there, or fails.
#[derive(Clone, Copy)]
struct Advice {
    missing: &'static str,
    failed: &'static str,
}

impl FlashTool {
    const fn advice(self) -> Advice {
        match self {
            Self::Picotool => Advice {
                missing: "it comes with the distribution (package picotool) or from Raspberry Pi",
                failed: "the board must be in BOOTSEL mode: hold BOOTSEL while it is plugged in",
            },
            Self::ProbeRs => Advice {
                missing: "`cargo install --locked probe-rs-tools` gets it",
                failed: "`probe-rs list` shows the probes that it can reach",
            },
        }
    }
}

fn picotool(args: &FlashArgs, silicon: Silicon, image: &Path, firmware: &Path) -> Vec<Step> {
    let at = format!("{:#x}", silicon.layout.factory_address());
    let which = args.probe.iter().flat_map(|serial| ["--ser", serial.as_str()]);
    let load = || Step::new("picotool", ["load", "-v"]);
    let run = if args.no_boot { None } else { Some("-x") };
    vec![
        load().and([image]).and(["-t", "bin", "-o", &at]).and(which.clone()),
        load().and(run).and([firmware]).and(["-t", "elf"]).and(which),
    ]
}

fn probe_rs(args: &FlashArgs, silicon: Silicon, image: &Path, firmware: &Path) -> Vec<Step> {
    let at = format!("{:#x}", silicon.layout.factory_address());
    let which: Vec<&str> = args.probe.iter().flat_map(|probe| ["--probe", probe.as_str()]).collect();
    let call = |command| Step::new("probe-rs", [command, "--chip", silicon.chip]).and(&which);
    let load = || call("download").and(["--verify"]);
    let mut steps = vec![
        load().and(["--binary-format", "bin", "--base-address", &at]).and([image]),
        load().and([firmware]),
    ];
    if !args.no_boot {
        steps.push(call("reset"));
    }
    steps
}

/// Writes the image into the file that is the emulated board's flash, and boots the board.
fn emulate(
    args: &FlashArgs,
    firmware: &Path,
    partition: &[u8],
    device: &DeviceId,
    out: &mut Printer<'_>,
) -> anyhow::Result<()> {
    let flash = args.images.join(format!("{device}.flash"));
    let mut content = match fs::read(&flash) {
        Ok(content) => {
            check_flash(&content)
                .with_context(|| format!("{} already exists; move it away first", flash.display()))?;
            content
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => vec![0xff; EMULATED_FLASH_OCTETS],
        Err(error) => return Err(error).with_context(|| format!("can't read {}", flash.display())),
    };
    if args.dry_run {
        let boot =
            emulator(args, firmware, &fs::canonicalize(&args.images)?.join(format!("{device}.flash")))?;
        return show(&[boot], out);
    }
    content.iter_mut().zip(partition).for_each(|(place, octet)| *place = *octet);
    write_file(&flash, &content, Readers::Owner)
        .with_context(|| format!("can't write {}", flash.display()))?;
    if args.no_boot {
        return Ok(());
    }
    let boot = emulator(args, firmware, &flash.canonicalize()?)?;
    boot.run(Advice {
        missing: "the distribution has it (package qemu-system-arm)",
        failed: "the board stopped",
    })
}

fn emulator(args: &FlashArgs, firmware: &Path, flash: &Path) -> anyhow::Result<Step> {
    let flash = flash.to_str().filter(|path| !path.contains([' ', ',']));
    let flash = flash.context("the path of the images must not contain spaces or commas")?;
    let machine = args.board.to_string();
    let boot = Step::new(
        "qemu-system-arm",
        ["-machine", &machine, "-nographic", "-monitor", "none", "-serial", "none"],
    )
    .and(["-nic", "user,model=lan9118", "-semihosting-config"])
    .and([format!("enable=on,target=native,arg=muster,arg=flash={flash}")])
    .and(["-kernel"])
    .and([firmware]);
    Ok(boot)
}

/// Whether a file is the flash of an emulated board, blank or with factory data of this version.
fn check_flash(content: &[u8]) -> anyhow::Result<()> {
    ensure!(content.len() == EMULATED_FLASH_OCTETS, "it is not as long as the flash of this board");
    let is_blank = content.iter().take(EMULATED_PAGE_OCTETS).all(|octet| *octet == 0xff);
    if is_blank { Ok(()) } else { check_settings_block(content) }
}
