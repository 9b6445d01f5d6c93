//! The writable top of a workspace: an inode table over base trees, a journal and an arena (docs/dev/overlay.md).
//!
//! Every decision about an inode is made here; whoever serves a file system on top of it only translates.

pub mod acl;
pub mod apply;
pub mod arena;
pub mod base;
pub mod bell;
pub mod core;
pub mod journal;
pub mod mark;
pub mod node;
pub mod ops;
pub mod python;
pub mod rebase;
pub mod record;
pub mod replay;
pub mod seal;
pub mod sought;
pub mod state;

use crate::codec::ids::Id;
use rustix::io::Errno;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// An inode's number in its workspace; 0 is the root.
pub type Ino = u64;

pub const ROOT: Ino = 0;

/// By inode. Nobody but us gives out their numbers, so that a plain hash of them does.
pub type InoMap<T> = HashMap<Ino, T, BuildHasherDefault<InoHasher>>;

#[derive(Default)]
pub struct InoHasher(u64);

impl Hasher for InoHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0.rotate_left(26) // a table takes the lowest bits, where a product has the least of its factors
    }
}

/// The allocator keeps what was freed between what is in use, unless it is told otherwise: for when much has gone.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    {
        extern "C" {
            fn malloc_trim(pad: usize) -> std::ffi::c_int;
        }
        // SAFETY: glibc's, and safe to call at any time from any thread.
        unsafe { malloc_trim(0) };
    }
}

/// Why an operation did not happen. Nothing has changed.
#[derive(Debug)]
pub enum Stop {
    Errno(Errno),
    /// A node of a base tree must be loaded first (kind, id).
    Node(u8, Id),
    /// Bytes of a stored content are needed first (content, offset, length).
    Bytes(Id, u64, u64),
    /// Stored bytes that are not what they must be.
    Damaged(String),
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Stop {
        Stop::Errno(errno)
    }
}

impl From<crate::codec::FormatError> for Stop {
    fn from(error: crate::codec::FormatError) -> Stop {
        Stop::Damaged(error.0)
    }
}

pub type Result<T> = std::result::Result<T, Stop>;

pub fn refuse<T>(errno: Errno) -> Result<T> {
    Err(Stop::Errno(errno))
}
