//! Opening a workspace: its base, and what the journal says was done since (docs/dev/overlay.md).

use super::arena::{Arena, Span, BLOCK};
use super::base::Base;
use super::journal::{self, Journal, Records};
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

/// A workspace's files, and the logs to be done again before it is used.
pub struct Opened {
    pub state: State,
    pub marks: Marks,
    pub logs: Vec<Log>,
}

/// What a range of the row has in its stream, record by record.
pub struct Log {
    range: Range,
    /// Where it must end: as the row says, or, after a power cut, where its last mark says.
    end: Option<u64>,
    mark: u64,
    records: Records,
}

impl Log {
    /// Whether the next record, if any, comes at this place or after it, in the same stream.
    pub fn is_at(&self, (stream, position): (u64, u64)) -> bool {
        self.range.stream == stream && self.records.position() >= position
    }

    /// The next record, and whether a mark covers it: what others name may not have reached the disk yet.
    pub fn take(&mut self) -> Result<Option<(Record, bool)>> {
        let Some((at, body)) = self.records.take()? else { return Ok(None) };
        Ok(Some((Record::decode(body)?, self.range.end.is_some() || at < self.mark)))
    }

    /// After the last record: the range with its end, all of it durable; or none if it had nothing.
    pub fn done(&self, folder: &OwnedFd) -> Result<Option<Range>> {
        let Range { stream, start, .. } = self.range;
        let stop = self.records.position();
        if self.end.is_some_and(|wanted| stop != wanted) {
            return Err(Stop::Damaged(format!("the journal lacks records: stream {stream} ends at {stop}")));
        }
        if self.range.end.is_none() {
            journal::sync(folder, stream, self.mark, stop)?;
        }
        Ok((stop != start).then_some(Range { stream, start, end: Some(stop) }))
    }
}

/// Streams that no range names are needed no more.
pub fn remove_others(folder: &OwnedFd, ranges: &[Range]) -> std::result::Result<(), Errno> {
    for name in files_of(folder)? {
        let stream = stream_of(&name);
        if stream.is_some_and(|stream| !ranges.iter().any(|range| range.stream == stream)) {
            fs::unlinkat(folder, name.as_str(), AtFlags::empty())?;
        }
    }
    Ok(())
}

fn stream_of(name: &str) -> Option<u64> {
    name.strip_prefix("j-")?.split('-').next()?.parse().ok()
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
    let marks = Marks::open(folder)?;
    let mut logs = Vec::new();
    for range in &opening.ranges {
        let mut end = range.end;
        let mark = marks.of_stream(range.stream).max(range.start);
        if end.is_none() && !opening.same_boot {
            // After a power cut the log ends where the last mark says: what follows may be torn.
            end = Some(mark);
        }
        let records = Records::new(fcntl_dupfd_cloexec(folder, 0)?, range.stream, range.start, end);
        logs.push(Log { range: *range, end, mark, records });
    }
    let stream =
        files.iter().filter_map(|name| stream_of(name)).chain(opening.ranges.iter().map(|range| range.stream)).max();
    let journal = Journal::begin(fcntl_dupfd_cloexec(folder, 0)?, stream.unwrap_or(0) + 1);
    let arena = Arena::open(fcntl_dupfd_cloexec(folder, 0)?, &segments)?;
    let mut state = State::new(opening.base, opening.owner, opening.root, opening.next, journal, arena);
    state.replaying = true;
    Ok(Opened { state, marks, logs })
}

impl State {
    /// Do one record again, and take it. Whatever it needs of the base may have to be loaded first: then nothing has
    /// been done, and it is still there.
    pub fn replay(&mut self, waiting: &mut Option<Record>) -> Result<()> {
        let Some(record) = waiting.as_ref() else { return Ok(()) };
        match record {
            Record::At { ino, parent, name } if *ino != super::ROOT && self.child(*parent, name)? != Some(*ino) => {
                return Err(Stop::Damaged(format!("the journal: inode {ino} is not where it should be")));
            }
            _ => {}
        }
        self.prepare(std::slice::from_ref(record))?;
        waiting.take().map_or(Ok(()), |record| self.apply(record))
    }

    /// What follows is covered by no mark.
    pub fn replay_unmarked(&mut self) {
        self.epoch = UNMARKED;
    }

    /// After the last record: the blocks that files show are theirs, all others are free. A segment that only removed
    /// files had may be gone.
    pub fn claim_blocks(&mut self, done: &[Range]) -> Result<()> {
        let lengths = done.iter().filter_map(|range| Some(range.end? - range.start));
        self.log_before = lengths.map(|length| length.next_multiple_of(journal::SEGMENT)).sum();
        self.replaying = false;
        self.epoch = UNMARKED + 1;
        let mut spans: Vec<(Span, bool)> = Vec::new();
        let mut tails: Vec<(Span, usize)> = Vec::new();
        let frozen = self.frozen.iter().filter(|_| self.lent.is_none()).map(|frozen| (frozen.number, &frozen.nodes));
        let generations = frozen.chain([(self.generation, &self.open)]);
        for (generation, node) in generations.flat_map(|(number, nodes)| nodes.values().map(move |node| (number, node)))
        {
            let Body::File(file) = &node.body else { continue };
            let own = file.runs.iter().map(|(_, run)| run).filter(|run| run.generation == generation);
            spans.extend(own.map(|run| (run.span(), run.epoch == UNMARKED)));
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
