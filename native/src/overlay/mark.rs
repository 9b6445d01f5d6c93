//! Durable marks: up to which position of a stream everything has reached the disk.

use rustix::fd::OwnedFd;
use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;

const SLOT: usize = 64;
/// Far enough apart for no write to tear both.
const APART: usize = 4096;
const SIZE: u64 = 2 * APART as u64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub count: u64,
    pub stream: u64,
    pub position: u64,
}

/// The file of marks: two slots, written in turn, so that one of them is always whole.
pub struct Marks {
    file: OwnedFd,
    slots: [Option<Mark>; 2],
}

fn encode(mark: Mark) -> [u8; SLOT] {
    let mut slot = [0; SLOT];
    slot[..8].copy_from_slice(&mark.count.to_le_bytes());
    slot[8..16].copy_from_slice(&mark.stream.to_le_bytes());
    slot[16..24].copy_from_slice(&mark.position.to_le_bytes());
    let check = blake3::hash(&slot[..24]);
    slot[32..].copy_from_slice(check.as_bytes());
    slot
}

fn decode(slot: &[u8]) -> Option<Mark> {
    let number = |at: usize| u64::from_le_bytes(slot[at..at + 8].try_into().expect("8 bytes"));
    let is_whole = blake3::hash(&slot[..24]).as_bytes() == &slot[32..SLOT];
    is_whole.then(|| Mark { count: number(0), stream: number(8), position: number(16) })
}

impl Marks {
    pub fn open(folder: &OwnedFd) -> Result<Marks, Errno> {
        let file =
            fs::openat(folder, "marks", OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC, Mode::from_raw_mode(0o600))?;
        if fs::fstat(&file)?.st_size < SIZE as i64 {
            fs::fallocate(&file, fs::FallocateFlags::empty(), 0, SIZE)?;
            fs::fsync(&file)?;
            fs::fsync(folder)?;
        }
        let mut bytes = [0u8; SIZE as usize];
        let mut read = 0;
        while read < bytes.len() {
            match rustix::io::pread(&file, &mut bytes[read..], read as u64)? {
                0 => break,
                length => read += length,
            }
        }
        Ok(Marks { file, slots: [decode(&bytes[..SLOT]), decode(&bytes[APART..APART + SLOT])] })
    }

    /// Up to where this stream has reached the disk, as far as a mark says so.
    pub fn of_stream(&self, stream: u64) -> u64 {
        let marks = self.slots.iter().flatten().filter(|mark| mark.stream == stream);
        marks.map(|mark| mark.position).max().unwrap_or(0)
    }

    /// Write a mark and sync it: what it covers must have been synced before.
    pub fn write(&mut self, stream: u64, position: u64) -> Result<(), Errno> {
        let last = self.slots.iter().flatten().map(|mark| mark.count).max().unwrap_or(0);
        let mark = Mark { count: last + 1, stream, position };
        let slot = encode(mark);
        let at = (mark.count % 2) * APART as u64;
        let mut written = 0;
        while written < SLOT {
            written += rustix::io::pwrite(&self.file, &slot[written..], at + written as u64)?;
        }
        fs::fdatasync(&self.file)?;
        self.slots[(mark.count % 2) as usize] = Some(mark);
        Ok(())
    }
}
