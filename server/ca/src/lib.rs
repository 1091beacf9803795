//! The account CA: CSR parsing, certificates built from a grant and linted before signing, CRLs, CMS bundles, key files.
