//! Where EST is found, and what its bodies are called.

/// The folder of an EST server (RFC 7030 section 3.2.2).
pub const ROOT: &str = "/.well-known/est/";

/// The content type of a request, RFC 5967.
pub const PKCS10: &str = "application/pkcs10";

/// The content type of an answer, RFC 5751 section 3.2.
pub const CERTS_ONLY: &str = "application/pkcs7-mime; smime-type=certs-only";

/// The content type of a refusal, RFC 9457.
pub const PROBLEM: &str = "application/problem+json";
