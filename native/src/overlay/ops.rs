//! What a file system does, with the errno that POSIX asks for. Each either happens as a whole or changes nothing.

use super::arena::{Span, BLOCK};
use super::base::Name;
use super::node::{Body, Node, Time, XattrValue, Xattrs};
use super::record::{Changes, Piece, Record};
use super::state::State;
use super::{refuse, Ino, Result, Stop, ROOT};
use crate::codec::node::entry_kind;
use rustix::io::Errno;
use std::sync::Arc;

pub const LONGEST_NAME: usize = 255;
/// What a directory too large to be counted says, as on other file systems.
const NOT_COUNTED: u32 = 1;
pub const LARGEST_FILE: u64 = 1 << 40;
pub const MOST_LINKS: usize = 65_000;
const LARGEST_XATTR: usize = 64 << 10;
const LONGEST_TARGET: usize = 4095;
const SET_GROUP: u16 = 0o2000;
const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";
const ACCESS_ACL: &[u8] = b"system.posix_acl_access";
const RESERVED: &[u8] = b".fusecas";

/// What is to be made.
pub struct Making {
    pub kind: u8,
    pub mode: u16,
    pub umask: u16,
    pub uid: u32,
    pub gid: u32,
    pub device: (u32, u32),
    pub target: Vec<u8>,
}

pub fn now() -> Time {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    Time::from(time.tv_sec) * 1_000_000_000 + Time::from(time.tv_nsec)
}

fn check_name(parent: Ino, name: &[u8]) -> Result<()> {
    if name.len() > LONGEST_NAME {
        return refuse(Errno::NAMETOOLONG);
    }
    if name.is_empty() || name.contains(&0) || name.contains(&b'/') {
        return refuse(Errno::INVAL);
    }
    if name == b"." || name == b".." {
        return refuse(Errno::EXIST);
    }
    if parent == ROOT && name == RESERVED {
        return refuse(Errno::PERM);
    }
    Ok(())
}

fn is_acl(name: &[u8]) -> bool {
    name == ACCESS_ACL || name == DEFAULT_ACL
}

/// As Linux has them: in one of its namespaces, and not empty behind its prefix.
fn check_xattr_name(name: &[u8]) -> Result<()> {
    let below = [&b"user."[..], b"trusted.", b"security."].iter().find_map(|prefix| name.strip_prefix(*prefix));
    match below {
        Some(b"") => refuse(Errno::INVAL),
        None if !is_acl(name) => refuse(Errno::OPNOTSUPP),
        _ => Ok(()),
    }
}

impl State {
    fn check_writable(&self) -> Result<()> {
        if self.failed || self.read_only {
            return refuse(Errno::ROFS);
        }
        if self.ended {
            return refuse(Errno::NOENT);
        }
        if self.gated {
            return refuse(Errno::AGAIN);
        }
        Ok(())
    }

    /// The inode of a name; the caller holds it from now on.
    pub fn lookup(&mut self, parent: Ino, name: &[u8]) -> Result<Option<Ino>> {
        let found = self.look(parent, name)?;
        if let Some(ino) = found {
            self.links(ino)?; // known before anything is counted: this may have to run again
            self.looked_up(ino);
        }
        Ok(found)
    }

    /// The inode of a name, for the operation that is running.
    pub fn look(&mut self, parent: Ino, name: &[u8]) -> Result<Option<Ino>> {
        if name.len() > LONGEST_NAME {
            return refuse(Errno::NAMETOOLONG);
        }
        if !self.node(parent)?.is_dir() {
            return refuse(Errno::NOTDIR);
        }
        if self.is_orphan(parent) {
            return Ok(None);
        }
        self.child(parent, name)
    }

    /// How many links an inode has: a directory one from above, its own, and one from each directory in it.
    pub fn links(&mut self, ino: Ino) -> Result<u32> {
        let node = self.node(ino)?;
        let Some(dir) = node.dir().filter(|_| !self.is_orphan(ino)) else { return Ok(node.attr.nlink) };
        let generation = |node: Option<&Node>| node.and_then(Node::dir).map_or(0, |dir| dir.more_dirs);
        let frozen = self.frozen.as_ref().and_then(|frozen| frozen.nodes.get(&ino));
        let more = generation(frozen) + generation(self.open.get(&ino));
        let tree = dir.base.tree;
        let Some(dirs) = self.cache.dirs_of(tree)? else { return Ok(NOT_COUNTED) };
        Ok(u32::try_from(dirs.saturating_add_signed(more)).unwrap_or(u32::MAX).saturating_add(2))
    }

    fn needed(&mut self, parent: Ino, name: &[u8]) -> Result<Ino> {
        if name.len() > LONGEST_NAME {
            return refuse(Errno::NAMETOOLONG);
        }
        self.living_dir(parent)?;
        self.child(parent, name)?.ok_or(Stop::Errno(Errno::NOENT))
    }

    // making

    pub fn make(&mut self, parent: Ino, name: &[u8], making: Making) -> Result<Ino> {
        self.check_writable()?;
        check_name(parent, name)?;
        let above = self.living_dir(parent)?;
        let inherits = above.attr.mode & SET_GROUP != 0;
        let group = if inherits { above.attr.gid } else { making.gid };
        let acl = above.xattr(DEFAULT_ACL).cloned();
        if self.child(parent, name)?.is_some() {
            return refuse(Errno::EXIST);
        }
        let is_link = making.kind == entry_kind::SYMLINK;
        if is_link && making.target.len() > LONGEST_TARGET {
            return refuse(Errno::NAMETOOLONG);
        }
        if is_link && (making.target.is_empty() || making.target.contains(&0)) {
            return refuse(if making.target.is_empty() { Errno::NOENT } else { Errno::INVAL });
        }
        let is_dir = making.kind == entry_kind::DIRECTORY;
        let mut mode = making.mode & 0o7777;
        let mut xattrs = Vec::new();
        match acl {
            Some(XattrValue::Here(acl)) if !is_link => {
                let (access, new_mode) = super::acl::inherit(&acl, mode)?;
                mode = new_mode;
                if let Some(access) = access {
                    xattrs.push((ACCESS_ACL.to_vec(), access));
                }
                if is_dir {
                    xattrs.push((DEFAULT_ACL.to_vec(), acl.to_vec()));
                }
            }
            _ => mode &= !making.umask,
        }
        if is_link {
            mode = 0o777;
        }
        if is_dir && inherits {
            mode |= SET_GROUP;
        }
        let mut records = Vec::new();
        self.anchors(&[parent], &mut records)?;
        let ino = self.next;
        records.push(Record::New {
            parent,
            name: name.to_vec(),
            ino,
            kind: making.kind,
            mode,
            uid: making.uid,
            gid: group,
            device: making.device,
            target: making.target,
            xattrs,
            time: now(),
        });
        self.commit(records)?;
        self.looked_up(ino);
        Ok(ino)
    }

    pub fn link(&mut self, ino: Ino, parent: Ino, name: &[u8]) -> Result<()> {
        self.check_writable()?;
        check_name(parent, name)?;
        self.living_dir(parent)?;
        let node = self.node(ino)?;
        if node.is_dir() {
            return refuse(Errno::PERM);
        }
        if self.is_orphan(ino) {
            return refuse(Errno::NOENT);
        }
        if node.places.len() >= MOST_LINKS {
            return refuse(Errno::MLINK);
        }
        if self.child(parent, name)?.is_some() {
            return refuse(Errno::EXIST);
        }
        let mut records = Vec::new();
        self.anchors(&[ino, parent], &mut records)?;
        records.push(Record::Link { parent, name: name.to_vec(), ino, time: now() });
        self.commit(records)?;
        self.looked_up(ino);
        Ok(())
    }

    // removing and moving

    pub fn unlink(&mut self, parent: Ino, name: &[u8]) -> Result<()> {
        self.check_writable()?;
        let ino = self.needed(parent, name)?;
        if self.node(ino)?.is_dir() {
            return refuse(Errno::ISDIR);
        }
        self.remove(parent, name, ino)
    }

    pub fn rmdir(&mut self, parent: Ino, name: &[u8]) -> Result<()> {
        self.check_writable()?;
        let ino = self.needed(parent, name)?;
        if !self.node(ino)?.is_dir() {
            return refuse(Errno::NOTDIR);
        }
        if !self.is_empty(ino)? {
            return refuse(Errno::NOTEMPTY);
        }
        self.remove(parent, name, ino)
    }

    fn remove(&mut self, parent: Ino, name: &[u8], ino: Ino) -> Result<()> {
        let mut records = Vec::new();
        let mut touched = vec![parent];
        if self.node(ino)?.places.len() > 1 {
            touched.push(ino);
        }
        self.anchors(&touched, &mut records)?;
        records.push(Record::Unlink { parent, name: name.to_vec(), time: now() });
        self.commit(records)
    }

    /// However large a directory the base has, it is looked through a node at a time, and not again if this operation
    /// has to run again: a name of the base that was removed stays so, or is one that a generation put there.
    fn is_empty(&mut self, ino: Ino) -> Result<bool> {
        let tree = self.node(ino)?.dir().and_then(|dir| dir.base.tree);
        while let Some(id) = tree {
            let after = self.emptied.get(&(ino, id)).cloned();
            let names = self.cache.some_names(&id, after.as_deref())?;
            let Some(last) = names.last() else { break };
            if names.iter().any(|name| self.changed_name(ino, name).is_none()) {
                return Ok(false);
            }
            self.emptied.insert((ino, id), last.clone());
        }
        let frozen = self.frozen.as_ref().and_then(|frozen| frozen.nodes.get(&ino));
        let generations = [frozen, self.open.get(&ino)].into_iter().flatten();
        let mut names = generations.filter_map(Node::dir).flat_map(|dir| dir.names.keys());
        Ok(names.all(|name| self.changed_name(ino, name).flatten().is_none()))
    }

    pub fn rename(
        &mut self,
        from: Ino,
        name: &[u8],
        to: Ino,
        new_name: &[u8],
        exchange: bool,
        replace: bool,
    ) -> Result<()> {
        self.check_writable()?;
        if from == ROOT && name == RESERVED {
            return refuse(Errno::PERM);
        }
        check_name(to, new_name)?;
        let moved = self.needed(from, name)?;
        self.living_dir(to)?;
        let there = self.child(to, new_name)?;
        match there {
            None if exchange => return refuse(Errno::NOENT),
            Some(_) if !replace && !exchange => return refuse(Errno::EXIST),
            Some(there) if there == moved => return Ok(()),
            _ => {}
        }
        let is_dir = self.node(moved)?.is_dir();
        if is_dir && self.is_within(to, moved)? {
            return refuse(Errno::INVAL);
        }
        if let Some(there) = there {
            let there_is_dir = self.node(there)?.is_dir();
            if exchange {
                if there_is_dir && self.is_within(from, there)? {
                    return refuse(Errno::INVAL);
                }
            } else if is_dir && !there_is_dir {
                return refuse(Errno::NOTDIR);
            } else if !is_dir && there_is_dir {
                return refuse(Errno::ISDIR);
            } else if there_is_dir && !self.is_empty(there)? {
                return refuse(Errno::NOTEMPTY);
            }
        }
        let mut records = Vec::new();
        let mut touched = vec![from, to, moved];
        if let Some(there) = there {
            if exchange || self.node(there)?.places.len() > 1 {
                touched.push(there);
            }
        }
        self.anchors(&touched, &mut records)?;
        records.push(Record::Rename {
            from,
            name: name.to_vec(),
            to,
            new_name: new_name.to_vec(),
            exchange,
            time: now(),
        });
        self.commit(records)
    }

    /// Whether a directory is another one or below it.
    fn is_within(&self, mut ino: Ino, above: Ino) -> Result<bool> {
        loop {
            if ino == above {
                return Ok(true);
            }
            if ino == ROOT {
                return Ok(false);
            }
            let Some((parent, _)) = self.node(ino)?.places.first() else { return Ok(false) };
            ino = *parent;
        }
    }

    // attributes

    pub fn set(&mut self, ino: Ino, changes: Changes, size: Option<u64>) -> Result<()> {
        self.check_writable()?;
        if let Some(size) = size {
            self.truncate(ino, size)?;
        }
        if size.is_some() && changes == Changes::default() {
            return Ok(()); // else it is a chown that changes nothing, which moves the ctime all the same
        }
        let mut records = Vec::new();
        self.anchors(&[ino], &mut records)?;
        if let Some(mode) = changes.mode {
            if let Some(XattrValue::Here(acl)) = self.node(ino)?.xattr(ACCESS_ACL).cloned() {
                let value = Some(super::acl::with_mode(&acl, mode)?);
                records.push(Record::Xattr { ino, name: ACCESS_ACL.to_vec(), value, mode: Some(mode), time: now() });
            }
        }
        records.push(Record::Set { ino, changes, time: now() });
        self.log_or_apply(ino, records)
    }

    /// An inode without a name has no place in the journal.
    fn log_or_apply(&mut self, ino: Ino, records: Vec<Record>) -> Result<()> {
        if !self.is_orphan(ino) {
            return self.commit(records);
        }
        for record in records {
            self.apply(record)?;
        }
        Ok(())
    }

    pub fn get_xattr(&mut self, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        check_xattr_name(name)?;
        match self.node(ino)?.xattr(name) {
            None => refuse(Errno::NODATA),
            Some(XattrValue::Here(value)) => Ok(value.to_vec()),
            Some(XattrValue::Stored(id)) => {
                let key = (*id, 0, u64::MAX);
                self.supplied.get(&key).cloned().ok_or(Stop::Bytes(key.0, key.1, key.2))
            }
        }
    }

    pub fn list_xattrs(&self, ino: Ino) -> Result<Vec<Vec<u8>>> {
        Ok(self.node(ino)?.xattrs.as_deref().map(|all: &Xattrs| all.keys().cloned().collect()).unwrap_or_default())
    }

    /// `create`, `replace`: as setxattr has them. What a state would not keep is refused.
    pub fn set_xattr(&mut self, ino: Ino, name: &[u8], value: &[u8], create: bool, replace: bool) -> Result<()> {
        self.check_writable()?;
        check_xattr_name(name)?;
        let is_acl = is_acl(name);
        if !(name.starts_with(b"user.") || name == b"security.capability" || is_acl) {
            return refuse(Errno::OPNOTSUPP);
        }
        if name.len() > LONGEST_NAME || value.len() > LARGEST_XATTR {
            return refuse(if name.len() > LONGEST_NAME { Errno::RANGE } else { Errno::TOOBIG });
        }
        let node = self.node(ino)?;
        if name.starts_with(b"user.") && !matches!(node.body, Body::File(_) | Body::Dir(_)) {
            return refuse(Errno::PERM);
        }
        match node.xattr(name) {
            Some(_) if create => return refuse(Errno::EXIST),
            None if replace => return refuse(Errno::NODATA),
            _ => {}
        }
        let mut mode = None;
        let mut value = Some(value.to_vec());
        if is_acl {
            if name == DEFAULT_ACL && !node.is_dir() {
                return refuse(Errno::ACCESS);
            }
            let (new_mode, is_minimal) = super::acl::mode_of(value.as_deref().unwrap_or_default(), node.attr.mode)?;
            if name == ACCESS_ACL {
                mode = Some(new_mode);
                if is_minimal {
                    value = None; // the permission bits say it all
                }
            }
        }
        self.put_xattr(ino, name, value, mode)
    }

    fn put_xattr(&mut self, ino: Ino, name: &[u8], value: Option<Vec<u8>>, mode: Option<u16>) -> Result<()> {
        let mut records = Vec::new();
        self.anchors(&[ino], &mut records)?;
        records.push(Record::Xattr { ino, name: name.to_vec(), value, mode, time: now() });
        self.log_or_apply(ino, records)
    }

    pub fn remove_xattr(&mut self, ino: Ino, name: &[u8]) -> Result<()> {
        self.check_writable()?;
        check_xattr_name(name)?;
        if self.node(ino)?.xattr(name).is_none() {
            return if is_acl(name) { Ok(()) } else { refuse(Errno::NODATA) }; // no list is what an empty one means
        }
        self.put_xattr(ino, name, None, None)
    }

    // contents

    pub fn read(&mut self, ino: Ino, offset: u64, length: usize) -> Result<Vec<u8>> {
        let node = self.node(ino)?;
        if node.is_dir() {
            return refuse(Errno::ISDIR);
        }
        let end = offset.saturating_add(length as u64).min(node.attr.size);
        let mut out = vec![0; end.saturating_sub(offset) as usize];
        self.read_into(node, offset, &mut out)?;
        Ok(out)
    }

    /// Bytes of a file: those in the arena, zeros, or what the base must give first.
    pub fn read_into(&self, node: &Node, offset: u64, out: &mut [u8]) -> Result<()> {
        let Body::File(file) = &node.body else { return refuse(Errno::INVAL) };
        let end = offset + out.len() as u64;
        let mut at = offset;
        while at < end {
            let block = at / BLOCK as u64;
            let into = (at % BLOCK as u64) as usize;
            let target = (at - offset) as usize;
            match file.runs.at(block) {
                Ok(run) => {
                    let most = (u64::from(run.length) * BLOCK as u64 - into as u64).min(end - at) as usize;
                    let lent = self.lent.as_ref().and_then(|lent| lent.blocks(&run));
                    let bytes = lent.unwrap_or_else(|| self.arena.block(run.segment, run.block, run.length));
                    out[target..target + most].copy_from_slice(&bytes[into..into + most]);
                    at += most as u64;
                }
                Err(gap) => {
                    let gap_end =
                        gap.checked_add(block).and_then(|to| to.checked_mul(BLOCK as u64)).unwrap_or(u64::MAX);
                    let stop = end.min(gap_end);
                    let stored = file.keep.min(stop);
                    if at < stored {
                        let Some(base) = file.base else {
                            return Err(Stop::Damaged("a file that keeps a content which it has not".into()));
                        };
                        let key = (base, at, stored - at);
                        let Some(bytes) = self.supplied.get(&key) else {
                            return Err(Stop::Bytes(key.0, key.1, key.2));
                        };
                        out[target..target + bytes.len()].copy_from_slice(bytes);
                        at = stored;
                    }
                    out[(at - offset) as usize..(stop - offset) as usize].fill(0);
                    at = stop;
                }
            }
        }
        Ok(())
    }

    pub fn write(&mut self, ino: Ino, offset: u64, data: &[u8]) -> Result<()> {
        self.check_writable()?;
        let node = self.node(ino)?;
        let Body::File(_) = &node.body else {
            return refuse(if node.is_dir() { Errno::ISDIR } else { Errno::INVAL });
        };
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= LARGEST_FILE);
        let Some(end) = end else { return refuse(Errno::FBIG) };
        if data.is_empty() {
            return Ok(());
        }
        let size = node.attr.size;
        let first = offset / BLOCK as u64;
        let last = (end - 1) / BLOCK as u64;
        // Blocks that are only partly written keep the rest of what they show now.
        let head = if !offset.is_multiple_of(BLOCK as u64) { Some(self.whole_block(ino, first)?) } else { None };
        let tail = if !end.is_multiple_of(BLOCK as u64) && (last != first || head.is_none()) && end < size {
            Some(self.whole_block(ino, last)?)
        } else {
            None
        };
        let mut records = Vec::new();
        self.anchors(&[ino], &mut records)?;
        let (fresh, all) = self.room_for(ino, first, last)?;
        records.push(Record::Write { ino, size: size.max(end), time: now(), pieces: fresh.clone() });
        let encoded: Vec<usize> = records.iter().map(|record| record.encode().len()).collect();
        if !self.is_orphan(ino) {
            if let Err(errno) = self.prepare(&records).and_then(|()| Ok(self.journal.reserve(encoded.into_iter())?)) {
                fresh.iter().for_each(|piece| self.arena.release(span_of(piece)));
                return Err(errno);
            }
        }
        let start = first * BLOCK as u64;
        for piece in &all {
            let from = piece.at * BLOCK as u64;
            let is_new = fresh.contains(piece);
            let target = self.arena.block_mut(piece.segment, piece.block, piece.length);
            if is_new {
                // What is not written over: the rest of the first and of the last block.
                let bytes = target.len();
                target[..BLOCK].fill(0);
                target[bytes - BLOCK..].fill(0);
                if let (Some(head), true) = (&head, from == start) {
                    target[..head.len()].copy_from_slice(head);
                }
                if let (Some(tail), true) = (&tail, from + bytes as u64 == (last + 1) * BLOCK as u64) {
                    target[bytes - BLOCK..bytes - BLOCK + tail.len()].copy_from_slice(tail);
                }
            }
            let low = offset.max(from);
            let high = end.min(from + target.len() as u64);
            target[(low - from) as usize..(high - from) as usize]
                .copy_from_slice(&data[(low - offset) as usize..(high - offset) as usize]);
        }
        self.log_or_apply(ino, records)
    }

    /// Where the blocks of a write go: (those that are new, all of them in order).
    fn room_for(&mut self, ino: Ino, first: u64, last: u64) -> Result<(Vec<Piece>, Vec<Piece>)> {
        let (epoch, generation) = (self.epoch, self.generation);
        let file = self.node(ino)?.file().expect("checked by the caller");
        // In place only what this generation, in this epoch, has put there: nobody else sees it, and no mark covers it.
        let mut in_place: Vec<Piece> = Vec::new();
        let mut missing: Vec<(u64, u32)> = Vec::new();
        let mut at = first;
        while at <= last {
            let left = last + 1 - at;
            let (length, run) = match file.runs.at(at) {
                Ok(run) => (u64::from(run.length).min(left), Some(run)),
                Err(gap) => (gap.min(left), None),
            };
            match run {
                Some(run) if run.epoch == epoch && run.generation == generation => {
                    in_place.push(Piece { at, segment: run.segment, block: run.block, length: length as u32 });
                }
                _ => match missing.last_mut() {
                    Some((from, count)) if *from + u64::from(*count) == at => *count += length as u32,
                    _ => missing.push((at, length as u32)),
                },
            }
            at += length;
        }
        let mut fresh: Vec<Piece> = Vec::new();
        for (from, count) in missing {
            let spans = match self.arena.allocate(count) {
                Ok(spans) => spans,
                Err(errno) => {
                    fresh.iter().for_each(|piece| self.arena.release(span_of(piece)));
                    return Err(errno.into());
                }
            };
            let mut at = from;
            for Span { segment, block, length } in spans {
                fresh.push(Piece { at, segment, block, length });
                at += u64::from(length);
            }
        }
        let all = in_place.iter().chain(&fresh).copied().collect();
        Ok((fresh, all))
    }

    /// A block of a file as it is read now, up to the file's end.
    fn whole_block(&mut self, ino: Ino, block: u64) -> Result<Vec<u8>> {
        self.read(ino, block * BLOCK as u64, BLOCK)
    }

    pub fn truncate(&mut self, ino: Ino, size: u64) -> Result<()> {
        let node = self.node(ino)?;
        let Body::File(_) = &node.body else {
            return refuse(if node.is_dir() { Errno::ISDIR } else { Errno::INVAL });
        };
        if size > LARGEST_FILE {
            return refuse(Errno::FBIG);
        }
        let mut records = Vec::new();
        self.anchors(&[ino], &mut records)?;
        // The last block's rest must read as zeros once the file grows again. Below a stored content `keep` sees to it.
        let block = size / BLOCK as u64;
        let node = self.node(ino)?;
        let cuts_a_run = !size.is_multiple_of(BLOCK as u64)
            && size < node.attr.size
            && node.file().is_some_and(|f| f.runs.at(block).is_ok());
        let mut tail = None;
        if cuts_a_run {
            let mut bytes = self.whole_block(ino, block)?;
            bytes.truncate((size % BLOCK as u64) as usize);
            bytes.resize(BLOCK, 0);
            let span = self.arena.allocate(1)?[0];
            self.arena.block_mut(span.segment, span.block, 1).copy_from_slice(&bytes);
            tail = Some(Piece { at: block, segment: span.segment, block: span.block, length: 1 });
        }
        records.push(Record::Cut { ino, size, time: now(), tail });
        let done = self.log_or_apply(ino, records);
        if let (Err(_), Some(piece)) = (&done, tail) {
            self.arena.release(span_of(&piece));
        }
        done
    }

    // listing

    /// Names of a directory after one, about so many; and where to go on, if there may be more.
    #[allow(clippy::type_complexity)] // names with their inodes, and the next start
    pub fn names(&mut self, ino: Ino, after: Option<&[u8]>, most: usize) -> Result<(Vec<(Name, Ino)>, Option<Name>)> {
        let node = self.node(ino)?;
        let Some(dir) = node.dir() else { return refuse(Errno::NOTDIR) };
        let below = dir.base;
        let stored =
            if self.is_orphan(ino) { Vec::new() } else { self.base.children(&mut self.cache, &below, after, most)? };
        let more = if stored.len() >= most { stored.last().map(|(name, _)| name.clone()) } else { None };
        let mut merged: std::collections::BTreeMap<Name, Option<Ino>> = std::collections::BTreeMap::new();
        for (name, child) in stored {
            merged.insert(name, Some(child.ino));
        }
        let within =
            |name: &Name| after.is_none_or(|after| &**name > after) && more.as_ref().is_none_or(|last| name <= last);
        let generations = [
            self.frozen.as_ref().and_then(|frozen| frozen.nodes.get(&ino)).and_then(Node::dir),
            self.open.get(&ino).and_then(Node::dir),
        ];
        for dir in generations.into_iter().flatten() {
            for (name, what) in dir.names.iter().filter(|(name, _)| within(name)) {
                merged.insert(name.clone(), *what);
            }
        }
        Ok((merged.into_iter().filter_map(|(name, ino)| ino.map(|ino| (name, ino))).collect(), more))
    }

    pub fn read_link(&self, ino: Ino) -> Result<Arc<[u8]>> {
        match &self.node(ino)?.body {
            Body::Link(target) => Ok(target.clone()),
            _ => refuse(Errno::INVAL),
        }
    }
}

fn span_of(piece: &Piece) -> Span {
    Span { segment: piece.segment, block: piece.block, length: piece.length }
}
