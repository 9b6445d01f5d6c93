//! What git's index says, without what it remembers of files to find out quickly whether they have changed.
//!
//! Any `git status` writes those memories anew. The digest is over the entries' paths, modes, objects and flags, and over
//! extensions that say something; caches are passed over.

use blake3::Hasher;

const HEADER: usize = 12;
const STAT_BEFORE_MODE: usize = 24;
const STAT_AFTER_MODE: usize = 12;
const HASHES: [usize; 2] = [20, 32];
const EXTENDED: u16 = 0x4000;
const FLAGS: u16 = 0xf000;
const CACHES: [&[u8]; 5] = [b"TREE", b"UNTR", b"FSMN", b"EOIE", b"IEOT"];
const SPARSE: &[u8] = b"sdir";

/// None for what is no index that stands by itself (a split one is in two files).
pub fn digest(data: &[u8]) -> Option<[u8; 32]> {
    HASHES.iter().find_map(|&hash| Index { left: data, hash }.digest())
}

struct Index<'a> {
    left: &'a [u8],
    hash: usize,
}

impl<'a> Index<'a> {
    fn digest(&mut self) -> Option<[u8; 32]> {
        let header = self.take(HEADER)?;
        let version = u32::from_be_bytes(header[4..8].try_into().ok()?);
        let count = u32::from_be_bytes(header[8..12].try_into().ok()?);
        if &header[..4] != b"DIRC" || !(2..=4).contains(&version) {
            return None;
        }
        let mut hasher = Hasher::new();
        hasher.update(&[self.hash as u8]);
        let mut path = Vec::new();
        for _ in 0..count {
            self.entry(version, &mut path, &mut hasher)?;
        }
        while self.left.len() > self.hash {
            self.extension(&mut hasher)?;
        }
        (self.left.len() == self.hash).then(|| *hasher.finalize().as_bytes())
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, left) = self.left.split_at_checked(length)?;
        self.left = left;
        Some(taken)
    }

    fn entry(&mut self, version: u32, path: &mut Vec<u8>, hasher: &mut Hasher) -> Option<()> {
        let before = self.left.len();
        self.take(STAT_BEFORE_MODE)?;
        let mode = self.take(4)?;
        self.take(STAT_AFTER_MODE)?;
        let object = self.take(self.hash)?;
        let flags = self.take(2)?;
        let flags = u16::from_be_bytes(flags.try_into().ok()?);
        let extended = if version >= 3 && flags & EXTENDED != 0 { self.take(2)? } else { &[0, 0] };
        if version == 4 {
            let dropped = self.varint()?;
            path.truncate(path.len().checked_sub(dropped)?);
        } else {
            path.clear();
        }
        let end = self.left.iter().position(|&byte| byte == 0)?;
        path.extend_from_slice(self.take(end)?);
        self.take(1)?;
        if version < 4 {
            let length = before - self.left.len();
            self.take(length.next_multiple_of(8) - length)?;
        }
        hasher.update(mode).update(object).update(&(flags & FLAGS).to_be_bytes()).update(extended);
        hasher.update(&(path.len() as u64).to_be_bytes()).update(path);
        Some(())
    }

    /// As git has offsets: each further byte adds one before it shifts.
    fn varint(&mut self) -> Option<usize> {
        let mut byte = self.take(1)?[0];
        let mut value = usize::from(byte & 0x7f);
        while byte & 0x80 != 0 {
            byte = self.take(1)?[0];
            value = value.checked_add(1)?.checked_mul(128)? + usize::from(byte & 0x7f);
        }
        Some(value)
    }

    fn extension(&mut self, hasher: &mut Hasher) -> Option<()> {
        let name = self.take(4)?;
        let length = u32::from_be_bytes(self.take(4)?.try_into().ok()?);
        let data = self.take(length as usize)?;
        if CACHES.contains(&name) {
            return Some(());
        }
        if !name[0].is_ascii_uppercase() && name != SPARSE {
            return None; // must be understood, and is not
        }
        hasher.update(name).update(&length.to_be_bytes()).update(data);
        Some(())
    }
}
