//! System and interop tests of all parts together, vectors, benches.
