//! What the firmware costs: flash, memory, and instructions of each phase, held against a committed baseline.
//!
//! Sizes come from the image, instructions from the emulator's count (`-icount shift=0`: waiting is not counted),
//! the stack from painting it. What grows by more than its tolerance fails; what shrank is worth a new baseline.
//! Run with `--nocapture` to see the table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;

use muster_tests::Server;
use muster_tests::board::Board;

/// Each line: what, how much, and how many per cent it may grow.
const BASELINE: &str = include_str!("firmware_cost.txt");

/// The thousands of instructions and the stack that a line begins with: `[123 k, stack 456] ...`.
fn meter(line: &str) -> (u64, u64) {
    let (kilo, rest) = line.trim_start_matches('[').split_once(" k, stack ").expect("a metered line");
    let (stack, _) = rest.split_once(']').expect("a metered line");
    (kilo.parse().expect("a number"), stack.parse().expect("a number"))
}

/// Bytes of the sections whose names begin so.
fn section_bytes(sizes: &str, names: &[&str]) -> u64 {
    let lines = sizes.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let name = words.next()?;
        names.contains(&name).then(|| words.next()?.parse::<u64>().ok())?
    });
    lines.sum()
}

fn measured(machine: &'static str) -> BTreeMap<String, u64> {
    let server = Server::start();
    server.muster(&["host", "set", "door.example.test", "--protocol", "mqtt"]);
    let board = Board::new(machine, "meter-1");
    let mqtt = format!("mqtts://door.example.test:{}", server.mqtt_address().port());
    board.provision(
        &server,
        server.est_address(),
        &["--mqtt", &mqtt, "--host", "door.example.test=10.0.2.2"],
    );

    let mut boot = board.boot_counted(&["meter"]);
    let (making, _) = meter(&boot.wait_for("key: making"));
    let (made, _) = meter(&boot.wait_for("key: made"));
    let (signing, _) = meter(&boot.wait_for("key: signing"));
    let (signed, _) = meter(&boot.wait_for("key: signed"));
    let (connecting, _) = meter(&boot.wait_for("mqtt: connecting"));
    let (up, _) = meter(&boot.wait_for("mqtt: TLS is up"));
    let (connected, stack) = meter(&boot.wait_for("mqtt: connected"));

    let sizes = Command::new("arm-none-eabi-size").arg("-A").arg(board.firmware()).output().expect("runs");
    let sizes = String::from_utf8(sizes.stdout).expect("text");
    let statics = section_bytes(&sizes, &[".data", ".bss", ".uninit"]);
    let flash = section_bytes(&sizes, &[".vector_table", ".text", ".rodata", ".data"]);
    let values = [
        ("flash_bytes", flash),
        ("static_bytes", statics),
        ("stack_bytes", stack),
        ("ram_bytes", statics + stack),
        ("keygen_kilo_instructions", made - making),
        ("csr_signature_kilo_instructions", signed - signing),
        ("handshake_kilo_instructions", up - connecting),
        ("first_boot_to_connack_kilo_instructions", connected),
    ];
    values.into_iter().map(|(name, value)| (format!("{machine} {name}"), value)).collect()
}

#[test]
fn the_firmware_costs_what_the_baseline_says() {
    let mut measured_now = measured("mps2-an386");
    measured_now.extend(measured("mps2-an385"));
    measured_now.extend(measured("mps2-an505"));
    let (mut table, mut grown) = (String::new(), Vec::new());
    for line in BASELINE.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [machine, name, before, per_cent] = words[..] else {
            panic!("not a line of the baseline: {line}")
        };
        let (before, per_cent): (u64, u64) = (before.parse().expect(line), per_cent.parse().expect(line));
        let now = measured_now.remove(&format!("{machine} {name}")).expect(line);
        writeln!(table, "{machine} {name:40} {now:>9} (baseline {before}, +{per_cent} %)").expect("fits");
        if now * 100 > before * (100 + per_cent) {
            grown.push(format!("{machine} {name}: {now}, and the baseline is {before}"));
        }
    }
    println!("{table}");
    assert!(measured_now.is_empty(), "not in the baseline: {measured_now:?}");
    assert!(grown.is_empty(), "{}", grown.join("\n"));
}
