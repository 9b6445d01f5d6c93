//! Ids: BLAKE3, with a context of its own for each kind of node.

use std::sync::OnceLock;

pub type Id = [u8; 32];

pub const CHUNK: u8 = 0;
pub const RECIPE: u8 = 16;
pub const PART: u8 = 17;

pub fn content_id(data: &[u8]) -> Id {
    *blake3::hash(data).as_bytes()
}

/// The id of a node: its kind and its canonical CBOR.
pub fn node_id(kind: u8, data: &[u8]) -> Id {
    static HASHERS: OnceLock<Vec<blake3::Hasher>> = OnceLock::new();
    let hashers = HASHERS.get_or_init(|| {
        (0..=255u8)
            .map(|kind| {
                let mut hasher = blake3::Hasher::new_derive_key(&format!("fusecas 2026-11-24 node {kind}"));
                hasher.update(&u16::from(kind).to_be_bytes());
                hasher
            })
            .collect()
    });
    let mut hasher = hashers[usize::from(kind)].clone();
    hasher.update(data);
    *hasher.finalize().as_bytes()
}

/// The checksum of a recipe: its key is the id of the content, so it needs one of its own.
pub fn recipe_checksum(content: &Id, data: &[u8]) -> Id {
    static HASHER: OnceLock<blake3::Hasher> = OnceLock::new();
    let mut hasher = HASHER.get_or_init(|| blake3::Hasher::new_derive_key("fusecas 2026-11-24 recipe")).clone();
    hasher.update(content);
    hasher.update(data);
    *hasher.finalize().as_bytes()
}

/// One link of a log's chain.
pub fn log_chain(previous: &[u8], key: &[u8], value: &[u8]) -> Id {
    let mut hasher = blake3::Hasher::new_derive_key("fusecas 2026-11-24 log");
    hasher.update(previous);
    hasher.update(key);
    hasher.update(value);
    *hasher.finalize().as_bytes()
}

/// Whether the split rule ends a node after this key.
pub fn is_cut(level: u8, key: &[u8]) -> bool {
    static KEY: OnceLock<Id> = OnceLock::new();
    let secret = KEY.get_or_init(|| blake3::derive_key("fusecas 2026-11-24 split", b""));
    let mut message = [0u8; 256];
    message[0] = level;
    let first = if key.len() < message.len() {
        message[1..=key.len()].copy_from_slice(key);
        blake3::keyed_hash(secret, &message[..=key.len()]).as_bytes()[0]
    } else {
        let mut hasher = blake3::Hasher::new_keyed(secret);
        hasher.update(&[level]);
        hasher.update(key);
        hasher.finalize().as_bytes()[0]
    };
    first & 63 == 0
}
