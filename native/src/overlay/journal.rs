//! The log of a workspace: records one after the other in files that were given their space before.
//!
//! A record is acknowledged once it is in the map: a process that dies loses nothing of it. What a power cut leaves is
//! decided by the last durable mark (mark.rs). Each record is sealed by the stream and the position it stands at, so
//! that what is left of older files can't pass for one.

use super::arena::Mapped;
use rustix::fd::OwnedFd;
use rustix::fs::{self, AtFlags};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::sync::Arc;

pub const SEGMENT: u64 = 4 << 20;
const HEADER: usize = 16;
const SKIP: u32 = u32::MAX;

pub struct Journal {
    folder: OwnedFd,
    stream: u64,
    /// Where the next record goes.
    position: u64,
    segments: BTreeMap<u64, Mapped>,
    unsynced: Vec<u64>,
    new_files: bool,
    buffer: Vec<u8>,
}

fn name_of(stream: u64, index: u64) -> String {
    format!("j-{stream}-{index}")
}

/// `sealed`: stream, position and body.
fn seal(sealed: &[u8]) -> [u8; 8] {
    blake3::hash(sealed).as_bytes()[..8].try_into().expect("8 of 32 bytes")
}

fn to_be_sealed(buffer: &mut Vec<u8>, stream: u64, position: u64, body: &[u8]) {
    buffer.clear();
    buffer.extend_from_slice(&stream.to_le_bytes());
    buffer.extend_from_slice(&position.to_le_bytes());
    buffer.extend_from_slice(body);
}

fn padded(length: usize) -> u64 {
    ((HEADER + length).div_ceil(8) * 8) as u64
}

impl Journal {
    /// A new, empty stream.
    pub fn begin(folder: OwnedFd, stream: u64) -> Journal {
        Journal {
            folder,
            stream,
            position: 0,
            segments: BTreeMap::new(),
            unsynced: Vec::new(),
            new_files: false,
            buffer: Vec::new(),
        }
    }

    pub fn stream(&self) -> u64 {
        self.stream
    }

    pub fn position(&self) -> u64 {
        self.position
    }

    /// See to it that records of these lengths fit, or fail before anything has changed.
    pub fn reserve(&mut self, lengths: impl Iterator<Item = usize>) -> Result<(), Errno> {
        let mut position = self.position;
        for length in lengths {
            if padded(length) > SEGMENT {
                return Err(Errno::TOOBIG);
            }
            position = self.place(position, length) + padded(length);
            for index in [self.position / SEGMENT, (position - 1) / SEGMENT] {
                if !self.segments.contains_key(&index) {
                    let mapped = Mapped::create(&self.folder, &name_of(self.stream, index), SEGMENT as usize)?;
                    self.segments.insert(index, mapped);
                    self.new_files = true;
                }
            }
        }
        Ok(())
    }

    /// Where a record of this length goes that comes at this position: never across two files.
    fn place(&self, position: u64, length: usize) -> u64 {
        let left = SEGMENT - position % SEGMENT;
        if padded(length) > left {
            position + left
        } else {
            position
        }
    }

    /// Append a record for which there is room.
    pub fn append(&mut self, body: &[u8]) {
        let place = self.place(self.position, body.len());
        if place != self.position {
            self.put(self.position, &SKIP.to_le_bytes());
        }
        let mut record = std::mem::take(&mut self.buffer);
        to_be_sealed(&mut record, self.stream, place, body);
        let check = seal(&record);
        record[..4].copy_from_slice(&(body.len() as u32).to_le_bytes());
        record[4..8].fill(0);
        record[8..HEADER].copy_from_slice(&check);
        self.put(place, &record);
        self.buffer = record;
        self.position = place + padded(body.len());
    }

    fn put(&mut self, position: u64, bytes: &[u8]) {
        let index = position / SEGMENT;
        let segment = self.segments.get_mut(&index).expect("room was reserved");
        segment.bytes_mut((position % SEGMENT) as usize, bytes.len()).copy_from_slice(bytes);
        if self.unsynced.last() != Some(&index) {
            self.unsynced.push(index);
        }
    }

    /// The files that must be synced before a mark, and whether their folder must be, too.
    pub fn take_unsynced(&mut self) -> (Vec<Arc<OwnedFd>>, bool) {
        let indices = std::mem::take(&mut self.unsynced);
        let files = indices.iter().filter_map(|index| self.segments.get(index));
        (files.map(|mapped| mapped.file.clone()).collect(), std::mem::take(&mut self.new_files))
    }

    /// Records before this position are needed no more.
    pub fn forget_before(&mut self, position: u64) {
        let gone: Vec<u64> = self.segments.range(..position / SEGMENT).map(|(index, _)| *index).collect();
        for index in gone {
            self.segments.remove(&index);
            let _ = fs::unlinkat(&self.folder, name_of(self.stream, index), AtFlags::empty());
            // or when it is opened
        }
    }
}

/// Sync what lies between two positions, whether it looks changed or not.
pub fn sync(folder: &OwnedFd, stream: u64, from: u64, to: u64) -> Result<(), Errno> {
    let mut at = from;
    while at < to {
        let index = at / SEGMENT;
        let end = to.min((index + 1) * SEGMENT);
        match Mapped::open(folder, &name_of(stream, index)) {
            Ok(mut mapped) => {
                mapped.touch((at % SEGMENT) as usize, (end - at) as usize);
                fs::fdatasync(&mapped.file)?;
            }
            Err(Errno::NOENT) => {} // skipped to, and then nothing was written any more
            Err(errno) => return Err(errno),
        }
        at = end;
    }
    Ok(())
}

/// The records of a stream from one position up to another, or to the last whole one.
pub struct Records {
    folder: OwnedFd,
    stream: u64,
    position: u64,
    to: Option<u64>,
    segment: Option<(u64, Mapped)>,
    buffer: Vec<u8>,
}

impl Records {
    pub fn new(folder: OwnedFd, stream: u64, from: u64, to: Option<u64>) -> Records {
        Records { folder, stream, position: from, to, segment: None, buffer: Vec::new() }
    }

    /// Where they end, after the last one.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next one, with the position that it begins at.
    pub fn take(&mut self) -> Result<Option<(u64, &[u8])>, Errno> {
        while self.to.is_none_or(|to| self.position < to) {
            let index = self.position / SEGMENT;
            if self.segment.as_ref().is_none_or(|(at, _)| *at != index) {
                self.segment = match Mapped::open(&self.folder, &name_of(self.stream, index)) {
                    Ok(mapped) if mapped.length as u64 == SEGMENT => Some((index, mapped)),
                    Ok(_) | Err(Errno::NOENT) | Err(Errno::INVAL) => return Ok(None),
                    Err(errno) => return Err(errno),
                };
            }
            let (_, mapped) = self.segment.as_ref().expect("just opened");
            let at = (self.position % SEGMENT) as usize;
            let left = mapped.length - at;
            if left < HEADER {
                self.position += left as u64;
                continue;
            }
            let header = mapped.bytes(at, HEADER);
            let length = u32::from_le_bytes(header[..4].try_into().expect("4 bytes"));
            if length == SKIP {
                self.position += left as u64;
                continue;
            }
            if length as usize > left - HEADER {
                return Ok(None);
            }
            let body = mapped.bytes(at + HEADER, length as usize);
            to_be_sealed(&mut self.buffer, self.stream, self.position, body);
            if seal(&self.buffer) != header[8..] {
                return Ok(None);
            }
            let begin = self.position;
            self.position += padded(length as usize);
            return Ok(Some((begin, &self.buffer[HEADER..])));
        }
        Ok(None)
    }
}
