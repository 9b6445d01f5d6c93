//! The writable top of a workspace: an inode table over base trees, a journal and an arena (docs/dev/overlay.md).
//!
//! Every decision about an inode is made here; whoever serves a file system on top of it only translates.

pub mod acl;
pub mod arena;
pub mod base;
pub mod bell;
pub mod journal;
pub mod mark;
pub mod node;
pub mod ops;
pub mod python;
pub mod rebase;
pub mod record;
pub mod replay;
pub mod seal;
pub mod state;

use crate::codec::ids::Id;
use rustix::io::Errno;

/// An inode's number in its workspace; 0 is the root.
pub type Ino = u64;

pub const ROOT: Ino = 0;

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
