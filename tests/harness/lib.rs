//! What system tests, interop tests and benches share: a server in a folder of its own.
