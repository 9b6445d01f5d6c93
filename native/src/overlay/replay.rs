//! Opening a workspace: its base, and what the journal says was done since (docs/dev/overlay.md).

use super::arena::{Arena, Span, BLOCK};
use super::base::Base;
use super::journal::{self, Journal};
use super::mark::Marks;
use super::node::{Body, Node};
use super::record::Record;
use super::state::State;
use super::{Ino, Result, Stop};
use rustix::fd::OwnedFd;
use rustix::fs::{self, AtFlags};
use rustix::io::{fcntl_dupfd_cloexec, Errno};
use std::mem::MaybeUninit;

/// The epoch of what was logged after the last mark, while it is done again.
const UNMARKED: u64 = 2;

/// A stretch of a stream that a workspace's row names; without an end: to the last whole record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub stream: u64,
    pub start: u64,
    pub end: Option<u64>,
}

pub struct Opening {
    pub base: Base,
    pub owner: (u32, u32),
    pub root: Node,
    pub next: Ino,
    pub ranges: Vec<Range>,
    /// Nothing has been lost since the ranges were written but processes: the machine has not started again.
    pub same_boot: bool,
}

/// A workspace's files, and the records to be done again before it is used.
pub struct Opened {
    pub state: State,
    pub marks: Marks,
    pub records: Vec<Record>,
    /// How many of them a mark covers: what the others name may not have reached the disk yet.
    pub marked: usize,
    /// The ranges as they were found, each with its end.
    pub ranges: Vec<Range>,
}

pub fn files_of(folder: &OwnedFd) -> std::result::Result<Vec<String>, Errno> {
    let mut names = Vec::new();
    let again =
        fs::openat(folder, c".", fs::OFlags::RDONLY | fs::OFlags::DIRECTORY | fs::OFlags::CLOEXEC, fs::Mode::empty())?;
    let mut buffer = [MaybeUninit::uninit(); 16 << 10];
    let mut raw = fs::RawDir::new(&again, &mut buffer);
    while let Some(entry) = raw.next() {
        names.push(String::from_utf8_lossy(entry?.file_name().to_bytes()).into_owned());
    }
    Ok(names)
}

pub fn open(folder: &OwnedFd, opening: Opening) -> Result<Opened> {
    let files = files_of(folder)?;
    let segments: Vec<u32> = files.iter().filter_map(|name| name.strip_prefix("a-")?.parse().ok()).collect();
    let logs: Vec<(&String, u64)> = files
        .iter()
        .filter_map(|name| Some((name, name.strip_prefix("j-")?.split('-').next()?.parse().ok()?)))
        .collect();
    let marks = Marks::open(folder)?;
    let mut ranges = Vec::new();
    let mut records = Vec::new();
    let mut marked = 0;
    let mut log_bytes = 0;
    for range in &opening.ranges {
        let mut end = range.end;
        let mark = marks.of_stream(range.stream).max(range.start);
        if end.is_none() && !opening.same_boot {
            // After a power cut the log ends where the last mark says: what follows may be torn.
            end = Some(mark);
        }
        let (found, stop) = journal::read(folder, range.stream, range.start, end)?;
        if end.is_some_and(|wanted| stop != wanted) {
            return Err(Stop::Damaged(format!("the journal lacks records: stream {} ends at {stop}", range.stream)));
        }
        for (at, body) in found {
            records.push(Record::decode(&body)?);
            marked += usize::from(range.end.is_some() || at < mark);
        }
        if range.end.is_none() {
            journal::sync(folder, range.stream, mark, stop)?;
        }
        if stop > range.start {
            log_bytes += (stop - range.start).next_multiple_of(journal::SEGMENT);
        }
        ranges.push(Range { end: Some(stop), ..*range });
    }
    ranges.retain(|range| range.end != Some(range.start));
    let stream = logs.iter().map(|(_, stream)| *stream).chain(opening.ranges.iter().map(|range| range.stream)).max();
    for (name, stream) in &logs {
        if !ranges.iter().any(|range| range.stream == *stream) {
            fs::unlinkat(folder, name.as_str(), AtFlags::empty())?;
        }
    }
    let journal = Journal::begin(fcntl_dupfd_cloexec(folder, 0)?, stream.unwrap_or(0) + 1);
    let arena = Arena::open(fcntl_dupfd_cloexec(folder, 0)?, &segments)?;
    let mut state = State::new(opening.base, opening.owner, opening.root, opening.next, journal, arena);
    state.replaying = true;
    state.log_before = log_bytes;
    Ok(Opened { state, marks, records, marked, ranges })
}

impl State {
    /// Do one record again. Whatever it needs of the base may have to be loaded first: then nothing has been done.
    pub fn replay(&mut self, record: &Record) -> Result<()> {
        match record {
            Record::At { ino, parent, name } if *ino != super::ROOT && self.child(*parent, name)? != Some(*ino) => {
                return Err(Stop::Damaged(format!("the journal: inode {ino} is not where it should be")));
            }
            _ => {}
        }
        self.prepare(std::slice::from_ref(record))?;
        self.apply(record.clone())
    }

    /// What follows is covered by no mark.
    pub fn replay_unmarked(&mut self) {
        self.epoch = UNMARKED;
    }

    /// After the last record: the blocks that files show are theirs, all others are free. A segment that only removed
    /// files had may be gone.
    pub fn claim_blocks(&mut self) -> Result<()> {
        self.replaying = false;
        self.epoch = UNMARKED + 1;
        let mut spans: Vec<(Span, bool)> = Vec::new();
        let mut tails: Vec<(Span, usize)> = Vec::new();
        for node in self.open.values() {
            let Body::File(file) = &node.body else { continue };
            spans.extend(file.runs.iter().map(|(_, run)| (run.span(), run.epoch == UNMARKED)));
            if let Ok(run) = file.runs.at(node.attr.size / BLOCK as u64) {
                if run.epoch == UNMARKED {
                    tails.push((Span { length: 1, ..run.span() }, (node.attr.size % BLOCK as u64) as usize));
                }
            }
        }
        for (span, is_unmarked) in spans {
            if !self.arena.has(span) {
                return Err(Stop::Damaged("the journal names blocks that are not there".into()));
            }
            if !self.arena.claim(span) {
                return Err(Stop::Damaged("two files of the journal share a block".into()));
            }
            if is_unmarked {
                self.arena.touch(span);
            }
        }
        // A write that was killed before its record may have left bytes behind a file's end: they must never show.
        for (span, end) in tails {
            self.arena.block_mut(span.segment, span.block, 1)[end..].fill(0);
        }
        Ok(())
    }
}
