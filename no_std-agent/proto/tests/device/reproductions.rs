//! Lists of operations that once failed, each with what was wrong.
