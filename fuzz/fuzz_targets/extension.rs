//! The permission extension: what decodes is canonical, and nothing makes the parser panic.
#![no_main]
#![allow(
    dead_code,
    unused_imports,
    reason = "a whole module is included for a part of it"
)]

use libfuzzer_sys::fuzz_target;

#[path = "../../src/grant/mod.rs"]
mod grant;

fuzz_target!(|der: &[u8]| {
    let Ok(grants) = grant::decode_extension(der) else {
        return;
    };
    // DER has one encoding for a value. The text of a grant may be written in more than one way
    // (an escaped backslash, say), so the bytes are compared after one pass through the encoder.
    let once = grant::encode_extension(&grants);
    let again = grant::decode_extension(&once).expect("what the encoder wrote, the decoder reads");
    assert_eq!(grants, again, "decode, encode and decode again agree");
    assert_eq!(
        once,
        grant::encode_extension(&again),
        "the encoder is deterministic"
    );
    assert_eq!(
        once, der,
        "strict DER: a second encoding of the same grants was accepted"
    );
    assert!(
        grants.entries().len() <= 256,
        "more than 256 entries were accepted"
    );
    // Trailing bytes and a missing last byte are refused.
    let mut longer = der.to_vec();
    longer.push(0);
    assert!(
        grant::decode_extension(&longer).is_err(),
        "a trailing byte was accepted"
    );
    assert!(
        grant::decode_extension(&der[..der.len() - 1]).is_err(),
        "a cut encoding was accepted"
    );
});
