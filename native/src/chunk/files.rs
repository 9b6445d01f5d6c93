//! Files of the outside world: directories listed, files read and written, by descriptors and never through links.

use super::batch::{decompress, in_parallel};
use super::content::{cut_bytes, ContentWriter, Sink};
use crate::codec::ids::{content_id, Id};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, RawMode, SeekFrom, Stat, Timespec, Timestamps};
use rustix::io::Errno;
use std::ffi::CString;
use std::mem::MaybeUninit;

pub type Bytes = Vec<u8>;

pub struct Listed {
    pub name: Bytes,
    pub stat: Stat,
    pub link_target: Option<Bytes>,
    pub xattrs: Vec<(Bytes, Bytes)>,
}

pub struct Listing {
    pub entries: Vec<Listed>,
    pub failed: Vec<(Bytes, Errno)>,
}

pub fn kept_xattr(name: &[u8], trusted: bool) -> bool {
    name.starts_with(b"user.")
        || name == b"security.capability"
        || name == b"system.posix_acl_access"
        || name == b"system.posix_acl_default"
        || (trusted && name.starts_with(b"trusted."))
}

/// The names in one directory, in order.
pub fn list_names(directory: BorrowedFd<'_>) -> Result<Vec<Bytes>, Errno> {
    let mut names = Vec::new();
    // A descriptor of its own: reading moves the position, which belongs to whoever opened the directory.
    let again = fs::openat(directory, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut buffer = [MaybeUninit::uninit(); 64 << 10];
    let mut raw = fs::RawDir::new(&again, &mut buffer);
    while let Some(entry) = raw.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// What these names are, those left out that could not be looked at.
pub fn look_at_all(directory: BorrowedFd<'_>, names: Vec<Bytes>, trusted: bool) -> Listing {
    let mut listing = Listing { entries: Vec::with_capacity(names.len()), failed: Vec::new() };
    for name in names {
        match look_at(directory, &name, trusted) {
            Ok(entry) => listing.entries.push(entry),
            Err(errno) => listing.failed.push((name, errno)),
        }
    }
    listing
}

/// What a name is, its target and attributes of the same moment: looked at again if it changed meanwhile.
fn look_at(directory: BorrowedFd<'_>, name: &[u8], trusted: bool) -> Result<Listed, Errno> {
    let path = to_path(name)?;
    let look = || fs::statat(directory, &path, AtFlags::SYMLINK_NOFOLLOW);
    let mut stat = look()?;
    let mut tries = 0;
    loop {
        let is_link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
        let link_target = if is_link { fs::readlinkat(directory, &path, Vec::new()).map(Some) } else { Ok(None) };
        let xattrs = read_xattrs(directory, name, trusted);
        let after = look()?;
        tries += 1;
        if tries >= TRIES || (stat.st_dev, stat.st_ino) == (after.st_dev, after.st_ino) && same_stamp(&stat, &after) {
            let link_target = link_target?.map(CString::into_bytes);
            return Ok(Listed { name: name.to_vec(), stat, link_target, xattrs: xattrs? });
        }
        stat = after;
    }
}

fn to_path(name: &[u8]) -> Result<CString, Errno> {
    CString::new(name).map_err(|_| Errno::INVAL)
}

/// The xattr calls know paths only; this one leads through our descriptor and does not follow the last step.
fn through(directory: BorrowedFd<'_>, name: &[u8]) -> Result<CString, Errno> {
    use std::os::fd::AsRawFd;
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    to_path(&path)
}

pub fn read_xattrs(directory: BorrowedFd<'_>, name: &[u8], trusted: bool) -> Result<Vec<(Bytes, Bytes)>, Errno> {
    let path = through(directory, name)?;
    let mut small = [0u8; 1024];
    let names = match fs::llistxattr(&path, &mut small) {
        Ok(length) => small[..length].to_vec(),
        Err(Errno::RANGE) => {
            let mut large = vec![0u8; 64 << 10];
            let length = fs::llistxattr(&path, &mut large[..])?;
            large.truncate(length);
            large
        }
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        Err(errno) => return Err(errno),
    };
    let mut found = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty() && kept_xattr(name, trusted)) {
        let mut value = vec![0u8; 64 << 10];
        match fs::lgetxattr(&path, to_path(name)?.as_c_str(), &mut value[..]) {
            Ok(length) => {
                value.truncate(length);
                value.shrink_to_fit();
                found.push((name.to_vec(), value));
            }
            Err(Errno::NODATA) => {}
            Err(errno) => return Err(errno),
        }
    }
    found.sort();
    Ok(found)
}

// ---- reading

/// What a file was when it was listed: it must still be that.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub name: Bytes,
    pub device: u64,
    pub inode: u64,
    /// ctime: its mode, owner and attributes were read then, and must belong to the bytes.
    pub changed: (i64, i64),
}

pub enum Read {
    Content { id: Id, size: u64, mtime: (i64, i64) },
    Changed,
    Failed(Errno),
}

/// The objects that some files gave.
#[derive(Default)]
pub struct Emitted {
    list: Vec<(u8, Id, usize)>,
    bytes: Bytes,
}

impl Emitted {
    fn add(&mut self, kind: u8, id: Id, data: &[u8]) {
        self.list.push((kind, id, data.len()));
        self.bytes.extend_from_slice(data);
    }

    pub fn into(self, sink: &mut impl Sink) {
        let mut rest: &[u8] = &self.bytes;
        for (kind, id, length) in self.list {
            let (data, after) = rest.split_at(length);
            sink(kind, id, data);
            rest = after;
        }
    }
}

const TRIES: usize = 3;
/// A file that has grown beyond this since it was listed as small is to be streamed.
const MOST_AT_ONCE: i64 = 4 << 20;

/// Read whole files on several threads: a result for each, and their objects in the same order.
pub fn read_files(directory: BorrowedFd<'_>, files: &[Wanted], threads: usize) -> Vec<(Vec<Read>, Emitted)> {
    const STEP: usize = 16;
    in_parallel(files.len().div_ceil(STEP), threads, |step| {
        let stop = files.len().min((step + 1) * STEP);
        let mut buffer = Vec::new();
        let mut emitted = Emitted::default();
        let mut read = |file| read_file(directory, file, &mut buffer, &mut emitted);
        (files[step * STEP..stop].iter().map(&mut read).collect(), emitted)
    })
}

fn read_file(directory: BorrowedFd<'_>, file: &Wanted, buffer: &mut Bytes, emitted: &mut Emitted) -> Read {
    for _ in 0..TRIES {
        match read_once(directory, file, buffer) {
            Ok(Some(stat)) => {
                let (id, size) = cut_bytes(buffer, &mut |kind, id, data: &[u8]| emitted.add(kind, id, data));
                return Read::Content { id, size, mtime: mtime_of(&stat) };
            }
            Ok(None) => {}
            Err(errno) => return Read::Failed(errno),
        }
    }
    Read::Changed
}

fn open_regular(directory: BorrowedFd<'_>, name: &[u8]) -> Result<(OwnedFd, Stat), Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let path = to_path(name)?;
    let file = match fs::openat(directory, &path, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => fs::openat(directory, &path, flags, Mode::empty()),
        other => other,
    }?;
    let stat = fs::fstat(&file)?;
    Ok((file, stat))
}

/// The file's bytes, if it was the same file and did not change while they were read.
fn read_once(directory: BorrowedFd<'_>, file: &Wanted, buffer: &mut Bytes) -> Result<Option<Stat>, Errno> {
    let (descriptor, before) = open_regular(directory, &file.name)?;
    let is_same = before.st_dev == file.device
        && before.st_ino == file.inode
        && (before.st_ctime, before.st_ctime_nsec) == file.changed
        && before.st_size <= MOST_AT_ONCE;
    if !is_same || FileType::from_raw_mode(before.st_mode) != FileType::RegularFile {
        return Err(Errno::STALE);
    }
    buffer.clear();
    buffer.reserve(before.st_size as usize + 1);
    loop {
        if buffer.capacity() == buffer.len() {
            buffer.reserve(64 << 10);
        }
        match rustix::io::read(&descriptor, rustix::buffer::spare_capacity(buffer)) {
            Ok(0) => break,
            Ok(_) if buffer.len() as i64 > before.st_size => return Ok(None),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    let after = fs::fstat(&descriptor)?;
    Ok((same_stamp(&before, &after) && buffer.len() as i64 == after.st_size).then_some(after))
}

fn same_stamp(one: &Stat, other: &Stat) -> bool {
    let stamp = |stat: &Stat| (stat.st_size, stat.st_mtime, stat.st_mtime_nsec, stat.st_ctime, stat.st_ctime_nsec);
    stamp(one) == stamp(other)
}

fn mtime_of(stat: &Stat) -> (i64, i64) {
    (stat.st_mtime, stat.st_mtime_nsec)
}

/// Feed up to about `budget` bytes of data from the descriptor's position; holes cost nothing. 0 at the end.
pub fn feed_from(writer: &mut ContentWriter, file: impl AsFd, budget: u64, sink: &mut impl Sink) -> Result<u64, Errno> {
    const MOST_ZEROS: u64 = 1 << 30; // a hole is hashed too: that must not take too long
    let start = fs::tell(&file)?;
    let mut at = start;
    let mut buffer = vec![0u8; 256 << 10];
    let mut data_read = 0;
    while data_read < budget && at - start < MOST_ZEROS.max(budget) {
        let data = match fs::seek(&file, SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(Errno::NXIO) => {
                let end = fs::seek(&file, SeekFrom::End(0))?;
                if end <= at {
                    break;
                }
                end
            }
            Err(Errno::INVAL) => at, // no such thing here: it is all data
            Err(errno) => return Err(errno),
        };
        if data > at {
            let zeros = (data - at).min(MOST_ZEROS);
            writer.feed_zeros(zeros, sink);
            at += zeros;
            continue;
        }
        let hole = match fs::seek(&file, SeekFrom::Hole(data)) {
            Ok(hole) => hole,
            Err(Errno::INVAL) => u64::MAX,
            Err(Errno::NXIO) => break, // it has become shorter since: its caller sees that
            Err(errno) => return Err(errno),
        };
        at = fs::seek(&file, SeekFrom::Start(data))?;
        while at < hole && data_read < budget {
            let most = buffer.len().min((hole - at).min(budget - data_read) as usize);
            match rustix::io::read(&file, &mut buffer[..most]) {
                Ok(0) => return Ok(at - start),
                Ok(length) => {
                    writer.feed(&buffer[..length], sink);
                    at += length as u64;
                    data_read += length as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    fs::seek(&file, SeekFrom::Start(at))?;
    Ok(at - start)
}

// ---- writing

/// A chunk as it is stored, and where it belongs in a file.
pub struct StoredPiece<'a> {
    pub offset: u64,
    pub codec: u8,
    pub size: usize,
    pub stored: &'a [u8],
    pub id: Id,
}

pub struct NewFile<'a> {
    pub name: Bytes,
    pub mode: u32,
    pub pieces: Vec<StoredPiece<'a>>,
    pub size: u64,
    pub mtime: Option<(i64, i64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    Done,
    Corrupted,
    Failed(Errno),
}

impl From<Errno> for Written {
    fn from(errno: Errno) -> Self {
        Written::Failed(errno)
    }
}

/// Make new files on several threads, each piece verified. A file that fails is removed again.
pub fn write_files(directory: BorrowedFd<'_>, files: &[NewFile], threads: usize) -> Vec<Written> {
    in_parallel(files.len(), threads, |at| write_file(directory, &files[at]).err().unwrap_or(Written::Done))
}

fn write_file(directory: BorrowedFd<'_>, file: &NewFile) -> Result<(), Written> {
    let path = to_path(&file.name)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let descriptor = fs::openat(directory, &path, flags, Mode::from_raw_mode(0o600))?;
    let filled = fill(&descriptor, file);
    if filled.is_err() {
        // What is half written must not pass for the file; the first error is the one to tell.
        let _ = fs::unlinkat(directory, &path, AtFlags::empty());
    }
    filled
}

fn fill(descriptor: &OwnedFd, file: &NewFile) -> Result<(), Written> {
    let mut end = 0;
    for piece in &file.pieces {
        end = end.max(write_piece(descriptor, piece)?);
    }
    if end < file.size {
        fs::ftruncate(descriptor, file.size)?;
    }
    fs::fchmod(descriptor, Mode::from_raw_mode(file.mode as RawMode))?;
    if let Some(mtime) = file.mtime {
        set_mtime(descriptor, mtime)?;
    }
    Ok(())
}

fn set_mtime(descriptor: &OwnedFd, mtime: (i64, i64)) -> Result<(), Errno> {
    let omit = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT as _ };
    let stamp = Timespec { tv_sec: mtime.0, tv_nsec: mtime.1 as _ };
    fs::futimens(descriptor, &Timestamps { last_access: omit, last_modification: stamp })
}

/// Unpack, verify and write pieces of an open file at their offsets, on several threads. The size is the caller's care.
pub fn write_pieces(file: BorrowedFd<'_>, pieces: &[StoredPiece], threads: usize) -> Result<(), Written> {
    in_parallel(pieces.len(), threads, |at| write_piece(file, &pieces[at]))
        .into_iter()
        .try_for_each(|written| written.map(|_| ()))
}

/// Where the last byte written lies, plus one.
fn write_piece(file: impl AsFd, piece: &StoredPiece) -> Result<u64, Written> {
    let data = decompress(piece.stored, piece.codec, piece.size).ok_or(Written::Corrupted)?;
    if content_id(&data) != piece.id {
        return Err(Written::Corrupted);
    }
    let mut end = 0;
    for (start, stop) in data_runs(piece.offset, &data) {
        write_exactly(&file, &data[start..stop], piece.offset + start as u64)?;
        end = piece.offset + stop as u64;
    }
    Ok(end)
}

/// The stretches of `data` that are not whole pages of zeros in the file: the file is new, so what is not written is
/// zero, and holes that are too short for the format stay holes.
fn data_runs(offset: u64, data: &[u8]) -> Vec<(usize, usize)> {
    const PAGE: usize = 4096;
    static ZEROS: [u8; PAGE] = [0; PAGE];
    let mut runs: Vec<(usize, usize)> = Vec::new();
    let mut start = 0;
    while start < data.len() {
        let stop = data.len().min(start + PAGE - (offset + start as u64) as usize % PAGE);
        if data[start..stop] != ZEROS[..stop - start] {
            match runs.last_mut() {
                Some(last) if last.1 == start => last.1 = stop,
                _ => runs.push((start, stop)),
            }
        }
        start = stop;
    }
    runs
}

fn write_exactly(file: impl AsFd, mut rest: &[u8], mut at: u64) -> Result<(), Written> {
    while !rest.is_empty() {
        match rustix::io::pwrite(&file, rest, at) {
            Ok(0) => return Err(Written::Failed(Errno::IO)),
            Ok(length) => {
                rest = &rest[length..];
                at += length as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_zeros_are_left_out_where_the_file_has_its_pages() {
        let mut data = vec![0u8; 5 * 4096];
        assert_eq!(data_runs(0, &data), []);
        data[4096] = 1;
        assert_eq!(data_runs(0, &data), [(4096, 8192)]);
        assert_eq!(data_runs(96, &data), [(4000, 8096)]);
        data[9000] = 1;
        assert_eq!(data_runs(0, &data), [(4096, 12288)]);
        data[5 * 4096 - 1] = 1;
        assert_eq!(data_runs(0, &data[..]), [(4096, 12288), (4 * 4096, 5 * 4096)]);
    }
}
