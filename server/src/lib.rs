//! Muster: wiring, configuration, command line and telemetry.
