//! What is left in memory of a key that was written down.

use super::bench::{Ask, Bench, NOW};
use crate::ca::{Form, Holding, KeyPart, issue, prepare_output_in, write_in_form};
use crate::cert::{KeyKind, MemoryKey};
use crate::secret::residue::Sought;
use crate::secret::{Secret, on_wiped_stack};

#[tokio::test]
async fn nothing_of_a_key_is_left_of_a_pkcs12_file() {
    let bench = Bench::new().await;
    let ask = Ask::agent("bob", &["tools:*"]);
    let (signed, key) = ask.sign_with_key(bench.issuing()).unwrap();
    let issued = issue(&bench.store, signed, "me@here", NOW).await.unwrap();
    let root = bench.issuing().root_der();
    let place = prepare_output_in(
        Form::P12,
        KeyPart::Written,
        bench.dir.path(),
        "bob",
        root,
        false,
    )
    .unwrap();
    let (word, sought_words) = on_wiped_stack(|| {
        let word = MemoryKey::generate(KeyKind::P256).unwrap().public_key();
        let word = hex::encode(&word[32..]);
        // The format has it in UTF-16.
        let wide: Vec<u8> = word.encode_utf16().flat_map(u16::to_be_bytes).collect();
        let sought = [Sought::new(word.as_bytes()), Sought::new(&wide)];
        (Secret::from(word), sought)
    });
    let sought_key = Sought::forms_of(key.0.expose()).remove(0);
    assert_eq!(sought_key.copies(), 1, "the one that goes in");
    let holding = Holding::Sealed(&key, &word);
    write_in_form(&bench.store, &place, &issued, holding, NOW)
        .await
        .unwrap();
    assert_eq!(sought_key.copies(), 1);
    assert_eq!(sought_words.map(|word| word.copies()), [1, 0]);
    drop(key);
    assert_eq!(sought_key.copies(), 0);
}
