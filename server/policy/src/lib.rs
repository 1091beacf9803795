//! Who is it, may it.
