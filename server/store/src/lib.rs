//! The ledger: domain operations as named transactions, change log, audit chain.
