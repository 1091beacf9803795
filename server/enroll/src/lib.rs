//! The issue pipeline, the only caller of a signer, and the EST front.
