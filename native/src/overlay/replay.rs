//! Opening a workspace: its base, and what the journal says was done since (docs/dev/overlay.md).

use super::arena::{Arena, Span};
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
    for range in &opening.ranges {
        let mut end = range.end;
        if end.is_none() && !opening.same_boot {
            // After a power cut the log ends where the last mark says: what follows may be torn.
            let mark = marks.last();
            end = Some(if mark.stream == range.stream { mark.position.max(range.start) } else { range.start });
        }
        let (found, stop) = journal::read(folder, range.stream, range.start, end)?;
        if range.end.is_some_and(|wanted| stop != wanted) {
            return Err(Stop::Damaged(format!("the journal lacks records: stream {} ends at {stop}", range.stream)));
        }
        for body in found {
            records.push(Record::decode(&body)?);
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
    Ok(Opened { state, marks, records, ranges })
}

impl State {
    /// Do one record again. Whatever it needs of the base may have to be loaded first: then nothing has been done.
    pub fn replay(&mut self, record: &Record) -> Result<()> {
        match record {
            Record::At { ino, parent, name } if *ino != super::ROOT && self.child(*parent, name)? != Some(*ino) => {
                return Err(Stop::Damaged(format!("the journal: inode {ino} is not where it should be")));
            }
            Record::Write { pieces, .. } => self.check_pieces(pieces)?,
            Record::Cut { tail: Some(piece), .. } => self.check_pieces(std::slice::from_ref(piece))?,
            _ => {}
        }
        self.prepare(std::slice::from_ref(record))?;
        self.apply(record.clone())
    }

    fn check_pieces(&self, pieces: &[super::record::Piece]) -> Result<()> {
        for piece in pieces {
            let span = Span { segment: piece.segment, block: piece.block, length: piece.length };
            if !self.arena.has(span) {
                return Err(Stop::Damaged("the journal names blocks that are not there".into()));
            }
        }
        Ok(())
    }

    /// After the last record: the blocks that files show are theirs, all others are free.
    pub fn claim_blocks(&mut self) -> Result<()> {
        self.replaying = false;
        self.epoch += 1;
        let mut spans: Vec<Span> = Vec::new();
        for node in self.open.values() {
            if let Body::File(file) = &node.body {
                spans.extend(file.runs.iter().map(|(_, run)| run.span()));
            }
        }
        for span in spans {
            if !self.arena.claim(span) {
                return Err(Stop::Damaged("two files of the journal share a block".into()));
            }
        }
        Ok(())
    }
}
