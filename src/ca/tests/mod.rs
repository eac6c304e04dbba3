//! The CA as a whole, judged by programs that are not the CA: webpki, x509-parser, and OpenSSL as a
//! process of its own.

mod bench;
mod creating;
mod crls;
mod dev;
mod faults;
mod full;
mod issuing;
mod judges;
mod narrowing;
mod pinning;
mod requests;
mod revoking;
mod rotating;
mod wiping;
