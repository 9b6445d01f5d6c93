//! Blocks for the bytes of changed files: in segments that were given their space before they are mapped.
//!
//! A store through a mapping without space below it is a signal on a full disk; into space that is there it can't fail.

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{self, AtFlags, FallocateFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::mm::{mmap, munmap, MapFlags, ProtFlags};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub const BLOCK: usize = 4096;
const SMALLEST: u32 = 256;
const LARGEST: u32 = 16_384;

/// A run of blocks in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    pub segment: u32,
    pub block: u32,
    pub length: u32,
}

/// A file, mapped whole and shared.
pub struct Mapped {
    pub file: Arc<OwnedFd>,
    start: *mut u8,
    pub length: usize,
}

// SAFETY: the mapping belongs to this value alone and lives as long; who may write to it is decided by its owner's lock.
unsafe impl Send for Mapped {}
// SAFETY: as above; shared references only hand out what `bytes` and `bytes_mut` guard.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Make a file of this length, its space reserved, and map it.
    pub fn create(folder: impl AsFd, name: &str, length: usize) -> Result<Mapped, Errno> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = fs::openat(&folder, name, flags, Mode::from_raw_mode(0o600))?;
        let made =
            fs::fallocate(&file, FallocateFlags::empty(), 0, length as u64).and_then(|()| Mapped::map(file, length));
        if made.is_err() {
            let _ = fs::unlinkat(&folder, name, AtFlags::empty()); // it never was of any use; the first error counts
        }
        made
    }

    pub fn open(folder: impl AsFd, name: &str) -> Result<Mapped, Errno> {
        let file = fs::openat(folder, name, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        let length = fs::fstat(&file)?.st_size as usize;
        if length == 0 {
            return Err(Errno::INVAL);
        }
        // A file that lost its space (a copy, say) gets it back: else a store could be a signal.
        fs::fallocate(&file, FallocateFlags::empty(), 0, length as u64)?;
        Mapped::map(file, length)
    }

    fn map(file: OwnedFd, length: usize) -> Result<Mapped, Errno> {
        // SAFETY: a fresh mapping of a file that we opened, at an address that the kernel chooses.
        let start = unsafe {
            mmap(std::ptr::null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &file, 0)?
        };
        Ok(Mapped { file: Arc::new(file), start: start.cast(), length })
    }

    pub fn bytes(&self, at: usize, length: usize) -> &[u8] {
        assert!(at.checked_add(length).is_some_and(|end| end <= self.length));
        // SAFETY: within the mapping (checked), which lives as long as `self`; nobody else has the file open, and who
        // writes to it holds the overlay's lock exclusively.
        unsafe { std::slice::from_raw_parts(self.start.add(at), length) }
    }

    pub fn bytes_mut(&mut self, at: usize, length: usize) -> &mut [u8] {
        // SAFETY: `self` is borrowed exclusively.
        unsafe { self.bytes_of_one(at, length) }
    }

    /// # Safety
    /// Nobody else reads or writes these bytes meanwhile.
    #[allow(clippy::mut_from_ref)] // what is shared is the mapping, not these bytes of it
    unsafe fn bytes_of_one(&self, at: usize, length: usize) -> &mut [u8] {
        assert!(at.checked_add(length).is_some_and(|end| end <= self.length));
        // SAFETY: within the mapping (checked), which lives as long as `self`; exclusive, as the caller promises.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(at), length) }
    }

    pub fn touch(&mut self, at: usize, length: usize) {
        touch(self.bytes_mut(at, length));
    }
}

/// Make pages look changed, so that the next sync writes them: one that failed leaves them clean.
fn touch(bytes: &mut [u8]) {
    for page in bytes.chunks_mut(BLOCK) {
        let byte: *mut u8 = &mut page[0];
        // SAFETY: a valid byte that we borrow exclusively; volatile, as a store of what is there is no store else.
        unsafe { byte.write_volatile(byte.read_volatile()) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping that `map` made; no reference into it outlives `self`.
        let _ = unsafe { munmap(self.start.cast(), self.length) };
    }
}

struct Segment {
    mapped: Arc<Mapped>,
    blocks: u32,
}

impl Segment {
    fn blocks_mut(&mut self, block: u32, count: u32) -> &mut [u8] {
        // SAFETY: forks that share the mapping read the blocks of a frozen generation only, and those are not written to
        // (overlay.md, invariant 4); all others are this arena's alone, which is borrowed exclusively.
        unsafe { self.mapped.bytes_of_one(block as usize * BLOCK, count as usize * BLOCK) }
    }
}

/// Blocks of another workspace, to be read: a fork's, as long as the generation that it shares is not stored.
#[derive(Clone)]
pub struct Lent {
    generation: u64,
    segments: BTreeMap<u32, Arc<Mapped>>,
}

impl Lent {
    /// The blocks of a run; None if they are the borrower's own.
    pub fn blocks(&self, run: &Run) -> Option<&[u8]> {
        (run.generation <= self.generation)
            .then(|| self.segments[&run.segment].bytes(run.block as usize * BLOCK, run.length as usize * BLOCK))
    }
}

/// All segments of a workspace, and which of their blocks are free.
pub struct Arena {
    folder: OwnedFd,
    segments: BTreeMap<u32, Segment>,
    free: BTreeMap<(u32, u32), u32>,
    /// Freed, but an fsynced file might show their bytes after a power cut until a later mark: (epoch, blocks).
    waiting: Vec<(u64, Span)>,
    /// Written to since they were last synced.
    unsynced: BTreeSet<u32>,
    /// About how much has been written to them since.
    unsynced_bytes: u64,
    new_files: bool,
    next: u32,
    next_size: u32,
}

/// A segment that holds nothing, on its way back to the disk: to be removed with nothing locked.
pub struct Idle {
    number: u32,
    _mapped: Arc<Mapped>,
}

impl Idle {
    pub fn remove(self, folder: impl AsFd) {
        let _ = fs::unlinkat(folder, name_of(self.number), AtFlags::empty()); // else after the next start
    }
}

fn name_of(segment: u32) -> String {
    format!("a-{segment}")
}

impl Arena {
    /// The arena of a folder; all its blocks are free until `claim` says otherwise.
    pub fn open(folder: OwnedFd, present: &[u32]) -> Result<Arena, Errno> {
        let mut arena = Arena {
            folder,
            segments: BTreeMap::new(),
            free: BTreeMap::new(),
            waiting: Vec::new(),
            unsynced: present.iter().copied().collect(),
            unsynced_bytes: 0,
            new_files: true,
            next: 0,
            next_size: SMALLEST,
        };
        for number in present {
            match Mapped::open(&arena.folder, &name_of(*number)) {
                Ok(mapped) if mapped.length >= BLOCK => arena.add(*number, mapped),
                // Made, and then the machine stopped before it had its space.
                Ok(_) | Err(Errno::INVAL) => fs::unlinkat(&arena.folder, name_of(*number), AtFlags::empty())?,
                Err(errno) => return Err(errno),
            }
        }
        Ok(arena)
    }

    fn add(&mut self, number: u32, mapped: Mapped) {
        let blocks = (mapped.length / BLOCK) as u32;
        self.next = self.next.max(number + 1);
        self.free.insert((number, 0), blocks);
        self.segments.insert(number, Segment { mapped: Arc::new(mapped), blocks });
    }

    /// For another arena's owner to read what a generation and those before it have put here.
    pub fn lend(&self, generation: u64) -> Lent {
        let segments = self.segments.iter().map(|(number, segment)| (*number, segment.mapped.clone()));
        Lent { generation, segments: segments.collect() }
    }

    /// Room for so many blocks, in as few runs as there are; all of them, or none and ENOSPC.
    pub fn allocate(&mut self, wanted: u32) -> Result<Vec<Span>, Errno> {
        let mut found = Vec::new();
        let mut left = wanted;
        while left > 0 {
            let place = self
                .free
                .iter()
                .find(|(_, length)| **length >= left)
                .or_else(|| self.free.iter().max_by_key(|(_, length)| **length))
                .map(|(place, length)| (*place, *length));
            let Some(((segment, block), length)) = place else {
                if let Err(errno) = self.grow(left) {
                    found.iter().for_each(|span| self.release(*span));
                    return Err(errno);
                }
                continue;
            };
            let taken = length.min(left);
            self.free.remove(&(segment, block));
            if taken < length {
                self.free.insert((segment, block + taken), length - taken);
            }
            found.push(Span { segment, block, length: taken });
            left -= taken;
        }
        Ok(found)
    }

    fn grow(&mut self, wanted: u32) -> Result<(), Errno> {
        // Of a disk that is nearly full, not much more than is needed: a commit wants some of it, too.
        let disk = fs::fstatvfs(&self.folder)?;
        let share = disk.f_bavail * disk.f_frsize / BLOCK as u64 / 8;
        let generous = u64::from(self.next_size).min(share.max(u64::from(SMALLEST))) as u32;
        let mut blocks = generous.max(wanted.min(LARGEST));
        loop {
            match Mapped::create(&self.folder, &name_of(self.next), blocks as usize * BLOCK) {
                Ok(mapped) => {
                    self.next_size = (self.next_size * 2).min(LARGEST);
                    self.new_files = true;
                    self.add(self.next, mapped);
                    return Ok(());
                }
                Err(Errno::NOSPC | Errno::DQUOT) if blocks > SMALLEST => blocks = SMALLEST.max(blocks / 4),
                Err(errno) => return Err(errno),
            }
        }
    }

    /// These blocks are somebody's: found in the journal when a workspace is opened.
    pub fn claim(&mut self, span: Span) -> bool {
        let place = self.free.range(..=(span.segment, span.block)).next_back().map(|(place, length)| (*place, *length));
        let Some(((segment, block), length)) = place else { return false };
        let end = block + length;
        if segment != span.segment || span.block + span.length > end {
            return false;
        }
        self.free.remove(&(segment, block));
        if block < span.block {
            self.free.insert((segment, block), span.block - block);
        }
        if span.block + span.length < end {
            self.free.insert((segment, span.block + span.length), end - span.block - span.length);
        }
        true
    }

    /// Give blocks back that nothing durable refers to.
    pub fn release(&mut self, span: Span) {
        let (segment, mut block, mut length) = (span.segment, span.block, span.length);
        let before = self.free.range(..(segment, block)).next_back().map(|(place, length)| (*place, *length));
        if let Some(((s, b), l)) = before {
            if s == segment && b + l == block {
                self.free.remove(&(s, b));
                block = b;
                length += l;
            }
        }
        if let Some(l) = self.free.remove(&(segment, block + length)) {
            length += l;
        }
        self.free.insert((segment, block), length);
    }

    /// Give blocks back once a mark that begins after this epoch is durable.
    pub fn release_after(&mut self, epoch: u64, span: Span) {
        self.waiting.push((epoch, span));
    }

    /// A mark that began this epoch is durable.
    pub fn marked(&mut self, epoch: u64) {
        let (ready, waiting) = std::mem::take(&mut self.waiting).into_iter().partition(|(freed, _)| *freed < epoch);
        self.waiting = waiting;
        let ready: Vec<(u64, Span)> = ready;
        ready.into_iter().for_each(|(_, span)| self.release(span));
    }

    pub fn block(&self, segment: u32, block: u32, count: u32) -> &[u8] {
        self.segments[&segment].mapped.bytes(block as usize * BLOCK, count as usize * BLOCK)
    }

    pub fn block_mut(&mut self, segment: u32, block: u32, count: u32) -> &mut [u8] {
        self.unsynced.insert(segment);
        self.unsynced_bytes += u64::from(count) * BLOCK as u64;
        let found = self.segments.get_mut(&segment).expect("a block of a segment that is there");
        found.blocks_mut(block, count)
    }

    pub fn has(&self, span: Span) -> bool {
        self.segments.get(&span.segment).is_some_and(|segment| span.block + span.length <= segment.blocks)
    }

    pub fn unsynced_bytes(&self) -> u64 {
        self.unsynced_bytes
    }

    /// These blocks are written by the next sync, whether they look changed or not.
    pub fn touch(&mut self, span: Span) {
        self.unsynced.insert(span.segment);
        let found = self.segments.get_mut(&span.segment).expect("a block of a segment that is there");
        touch(found.blocks_mut(span.block, span.length));
    }

    /// The files that must be synced before a mark, and whether their folder must be, too.
    pub fn take_unsynced(&mut self) -> (Vec<Arc<OwnedFd>>, bool) {
        self.unsynced_bytes = 0;
        let numbers = std::mem::take(&mut self.unsynced);
        let files = numbers.iter().filter_map(|number| self.segments.get(number));
        (files.map(|segment| segment.mapped.file.clone()).collect(), std::mem::take(&mut self.new_files))
    }

    /// Take out the segments that hold nothing, for the disk to have them back; one small one stays.
    #[must_use]
    pub fn trim(&mut self) -> Vec<Idle> {
        let mut idle = Vec::new();
        let held: BTreeSet<u32> = self.waiting.iter().map(|(_, span)| span.segment).collect();
        let mut kept = false;
        let all: Vec<(u32, u32)> = self.segments.iter().map(|(number, segment)| (*number, segment.blocks)).collect();
        for (number, blocks) in all {
            if self.free.get(&(number, 0)) != Some(&blocks) || held.contains(&number) {
                continue;
            }
            if !kept && blocks <= 2048 {
                kept = true;
                continue;
            }
            self.free.remove(&(number, 0));
            self.unsynced.remove(&number);
            idle.extend(self.segments.remove(&number).map(|segment| Idle { number, _mapped: segment.mapped }));
        }
        self.next_size =
            SMALLEST.max(self.segments.values().map(|segment| segment.blocks).max().unwrap_or(0)).min(LARGEST);
        idle
    }

    pub fn used_blocks(&self) -> u64 {
        let all: u64 = self.segments.values().map(|segment| u64::from(segment.blocks)).sum();
        all - self.free.values().map(|length| u64::from(*length)).sum::<u64>()
    }
}

/// Where part of a file lies: `length` blocks from block `file_block` of the file on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    pub segment: u32,
    pub block: u32,
    pub length: u32,
    /// The epoch (between two marks) in which they were allocated.
    pub epoch: u64,
    /// The generation (between two freezes) in which they were.
    pub generation: u64,
}

/// The changed blocks of a file, by their number in it.
#[derive(Debug, Clone, Default)]
pub struct Runs(BTreeMap<u64, Run>);

impl Runs {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (u64, Run)> + '_ {
        self.0.iter().map(|(at, run)| (*at, *run))
    }

    /// The run that holds this block of the file, cut to begin there; or how many blocks follow without one.
    pub fn at(&self, block: u64) -> std::result::Result<Run, u64> {
        if let Some((start, run)) = self.0.range(..=block).next_back() {
            let into = block - start;
            if into < u64::from(run.length) {
                let into = into as u32;
                return Ok(Run { block: run.block + into, length: run.length - into, ..*run });
            }
        }
        Err(self.0.range(block..).next().map_or(u64::MAX, |(next, _)| next - block))
    }

    /// Take blocks out; they are returned.
    pub fn remove(&mut self, start: u64, end: u64) -> Vec<Run> {
        let mut gone = Vec::new();
        let first = self.0.range(..start).next_back().map(|(at, _)| *at).unwrap_or(start);
        let touched: Vec<u64> = self.0.range(first..end).map(|(at, _)| *at).collect();
        for at in touched {
            let run = self.0[&at];
            let run_end = at + u64::from(run.length);
            if run_end <= start {
                continue;
            }
            self.0.remove(&at);
            if at < start {
                self.0.insert(at, Run { length: (start - at) as u32, ..run });
            }
            if run_end > end {
                let into = (end - at) as u32;
                self.0.insert(end, Run { block: run.block + into, length: run.length - into, ..run });
            }
            let (low, high) = (start.max(at), end.min(run_end));
            gone.push(Run { block: run.block + (low - at) as u32, length: (high - low) as u32, ..run });
        }
        gone
    }

    /// Put blocks where there are none; joined with the ones before if they follow each other.
    pub fn insert(&mut self, at: u64, run: Run) {
        if let Some((start, before)) = self.0.range_mut(..at).next_back() {
            let joins = *start + u64::from(before.length) == at
                && before.segment == run.segment
                && before.block + before.length == run.block
                && (before.epoch, before.generation) == (run.epoch, run.generation);
            if joins {
                before.length += run.length;
                return;
            }
        }
        self.0.insert(at, run);
    }

    /// The runs of these that `other` does not have at the same place.
    pub fn without(&self, other: &Runs) -> Vec<Run> {
        let mut gone = Vec::new();
        for (start, run) in self.iter() {
            let mut into = 0;
            while into < run.length {
                let here = Run { block: run.block + into, length: run.length - into, ..run };
                let length = match other.at(start + u64::from(into)) {
                    Ok(there) => {
                        let length = there.length.min(here.length);
                        if (there.segment, there.block) != (here.segment, here.block) {
                            gone.push(Run { length, ..here });
                        }
                        length
                    }
                    Err(gap) => {
                        let length = gap.min(u64::from(here.length)) as u32;
                        gone.push(Run { length, ..here });
                        length
                    }
                };
                into += length;
            }
        }
        gone
    }

    pub fn retain(&mut self, keep: impl Fn(&Run) -> bool) {
        self.0.retain(|_, run| keep(run));
    }

    /// From now on they belong to this generation.
    pub fn adopt(&mut self, generation: u64) {
        self.0.values_mut().for_each(|run| run.generation = generation);
    }
}

impl Run {
    pub fn span(&self) -> Span {
        Span { segment: self.segment, block: self.block, length: self.length }
    }
}
