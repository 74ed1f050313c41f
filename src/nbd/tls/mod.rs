//! TLS: who a certificate belongs to, and the small authority that makes certificates.

pub mod authority;
pub mod certificate;
