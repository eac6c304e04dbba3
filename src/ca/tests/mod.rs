//! The CA as a whole, judged by programs that are not the CA: webpki, x509-parser, and OpenSSL as a
//! process of its own.

mod bench;
mod creating;
mod crls;
mod dev;
mod full;
mod issuing;
mod pinning;
mod requests;
mod revoking;
