//! The deep check of a file: before it is restored, and when something seems wrong.
