//! Changing: what a record does to the inode table, live and when the journal is done again.

use super::arena::Run;
use super::base::Name;
use super::node::{Attr, Body, Node, Places, Time};
use super::record::Record;
use super::state::{Event, State, Told, MOST_EVENTS};
use super::{Ino, Result, Stop, ROOT};
use std::collections::HashMap;
use std::sync::Arc;

impl State {
    /// What it takes to change an inode: records that say where it and all above it hang, unless this generation has them.
    pub fn anchors(&mut self, inos: &[Ino], records: &mut Vec<Record>) -> Result<()> {
        let mut listed: Vec<Ino> = records
            .iter()
            .filter_map(|record| match record {
                Record::At { ino, .. } => Some(*ino),
                _ => None,
            })
            .collect();
        for ino in inos {
            self.anchor(*ino, records, &mut listed)?;
        }
        Ok(())
    }

    pub fn anchor(&mut self, ino: Ino, records: &mut Vec<Record>, listed: &mut Vec<Ino>) -> Result<()> {
        // Ancestors first: from the inode up to what is there, then down again.
        let mut waiting = vec![(ino, false)];
        while let Some((ino, above_is_there)) = waiting.pop() {
            if self.open.contains_key(&ino) || self.orphans.contains_key(&ino) || listed.contains(&ino) {
                continue;
            }
            let places = self.node(ino)?.places.clone();
            if above_is_there || ino == ROOT {
                listed.push(ino);
                if ino == ROOT {
                    records.push(Record::At { ino, parent: ROOT, name: Vec::new() });
                }
                for (parent, name) in &places {
                    records.push(Record::At { ino, parent: *parent, name: name.to_vec() });
                }
                continue;
            }
            waiting.push((ino, true));
            waiting.extend(places.iter().map(|(parent, _)| (*parent, false)));
        }
        Ok(())
    }

    /// Log and do what was decided. Nothing can fail any more but the room for it, which comes first.
    pub fn commit(&mut self, records: Vec<Record>) -> Result<()> {
        self.prepare(&records)?;
        let encoded: Vec<Vec<u8>> = records.iter().map(Record::encode).collect();
        self.journal.reserve(encoded.iter().map(Vec::len))?;
        for (record, body) in records.into_iter().zip(encoded) {
            self.journal.append(&body);
            self.apply(record)?;
        }
        Ok(())
    }

    /// Load what doing these records will have to ask the base for.
    pub fn prepare(&mut self, records: &[Record]) -> Result<()> {
        for record in records {
            match record {
                Record::Unlink { parent, name, .. } => {
                    self.known_below(*parent, name)?;
                }
                Record::Rename { from, name, to, new_name, .. } => {
                    self.known_below(*from, name)?;
                    self.known_below(*to, new_name)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub fn known_below(&mut self, parent: Ino, name: &[u8]) -> Result<()> {
        // A directory that is only now to be anchored has its base already.
        self.child(parent, name)?;
        self.below_has(parent, name).map(|_| ())
    }

    /// The open generation's own copy of an inode.
    pub fn own(&mut self, ino: Ino) -> &mut Node {
        if self.orphans.contains_key(&ino) {
            return self.orphans.get_mut(&ino).expect("just found");
        }
        self.open.get_mut(&ino).expect("anchored before it is changed")
    }

    pub fn take_up(&mut self, ino: Ino) -> Result<()> {
        if self.open.contains_key(&ino) {
            return Ok(());
        }
        let copy = self.node(ino)?.touched();
        self.open.insert(ino, copy);
        if let Some(held) = self.held.get_mut(&ino) {
            let clean = held.clean.take();
            for above in self.unpin(clean.as_deref()) {
                self.let_go(above);
            }
        }
        Ok(())
    }

    /// `more_dirs`: how many directories more the parent has by this.
    pub fn hang(&mut self, parent: Ino, name: &[u8], what: Option<Ino>, more_dirs: i64) -> Result<()> {
        let remember = what.is_some() || self.below_has(parent, name)?;
        let key = Name::from(name);
        let dir = self.own(parent).dir_mut().expect("a directory");
        if remember {
            dir.names.insert(key.clone(), what);
        } else {
            dir.names.remove(&key);
        }
        dir.more_dirs += more_dirs;
        self.tell(parent, key);
        Ok(())
    }

    pub fn tell(&mut self, parent: Ino, name: Name) {
        self.event += 1;
        if self.replaying {
            return; // nobody who could ask for it has heard of a number before it
        }
        if self.events.len() == MOST_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(Event { number: self.event, parent, name });
        self.bells.ring();
    }

    /// The names that changed after a number, at most so many, and the number up to which these are all; None if that
    /// is too long ago to be known, or was never given out.
    pub fn events_after(&self, since: u64, most: usize) -> (u64, Option<Told>) {
        let first = self.events.front().map_or(self.event + 1, |event| event.number);
        if since > self.event || since + 1 < first {
            return (self.event, None);
        }
        let from = (since + 1 - first) as usize;
        let last = self.event.min(since.saturating_add(most as u64));
        let told = self.events.range(from..(last + 1 - first) as usize).filter_map(|event| {
            let mut path = self.path_of(event.parent)?;
            if !path.is_empty() && !event.name.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(&event.name);
            Some((event.number, path))
        });
        (last, Some(told.collect()))
    }

    pub fn tell_of(&mut self, ino: Ino) {
        let places = self.node(ino).map(|node| node.places.clone()).unwrap_or_default();
        for (parent, name) in &places {
            self.tell(*parent, name.clone());
        }
        if ino == ROOT {
            self.tell(ROOT, Name::from(&b""[..]));
        }
    }

    pub fn stamp(&mut self, ino: Ino, time: Time) {
        let attr = &mut self.own(ino).attr;
        attr.mtime = time;
        attr.ctime = time;
    }

    pub fn content_changed(&mut self, ino: Ino, size: u64, time: Time) {
        let node = self.own(ino);
        node.attr.size = size;
        (node.attr.mtime, node.attr.ctime) = (time, time);
        node.file_mut().expect("a file").changed = true;
        self.tell_of(ino);
    }

    /// Do what a record says: live, and when the journal is replayed.
    pub fn apply(&mut self, record: Record) -> Result<()> {
        match record {
            Record::At { ino, .. } => self.take_up(ino),
            Record::New { parent, name, ino, kind, mode, uid, gid, device, target, xattrs, time } => {
                let node = new_node(parent, &name, kind, mode, uid, gid, device, target, xattrs, time);
                self.next = self.next.max(ino + 1);
                let more_dirs = i64::from(node.is_dir());
                self.open.insert(ino, node);
                self.hang(parent, &name, Some(ino), more_dirs)?;
                self.stamp(parent, time);
                Ok(())
            }
            Record::Link { parent, name, ino, time } => {
                let node = self.own(ino);
                node.places.push((parent, Name::from(&*name)));
                node.attr.nlink = node.places.len() as u32;
                node.attr.ctime = time;
                self.hang(parent, &name, Some(ino), 0)?;
                self.stamp(parent, time);
                Ok(())
            }
            Record::Unlink { parent, name, time } => {
                let ino = self.child(parent, &name)?;
                let was = self.count_as_dir(ino)?;
                self.hang(parent, &name, None, -was)?;
                self.stamp(parent, time);
                match ino {
                    Some(ino) => self.lost_a_name(ino, parent, &name, time),
                    None => Ok(()),
                }
            }
            Record::Rename { from, name, to, new_name, exchange, time } => {
                self.apply_rename(from, &name, to, &new_name, exchange, time)
            }
            Record::Write { ino, size, time, pieces } => {
                for piece in pieces {
                    self.put_piece(ino, piece);
                }
                self.content_changed(ino, size, time);
                Ok(())
            }
            Record::Cut { ino, size, time, tail } => {
                self.cut(ino, size);
                if let Some(piece) = tail {
                    self.put_piece(ino, piece);
                }
                self.content_changed(ino, size, time);
                Ok(())
            }
            Record::Set { ino, changes, time } => {
                let attr = &mut self.own(ino).attr;
                attr.mode = changes.mode.unwrap_or(attr.mode);
                attr.uid = changes.uid.unwrap_or(attr.uid);
                attr.gid = changes.gid.unwrap_or(attr.gid);
                attr.atime = changes.atime.map(Box::new).or(attr.atime.take());
                attr.mtime = changes.mtime.unwrap_or(attr.mtime);
                attr.ctime = time;
                self.tell_of(ino);
                Ok(())
            }
            Record::Xattr { ino, name, value, mode, time } => {
                let node = self.own(ino);
                let mut all = node.xattrs.take().map(|all| (*all).clone()).unwrap_or_default();
                match value {
                    Some(value) => {
                        all.insert(name, super::node::XattrValue::Here(value.into()));
                    }
                    None => {
                        all.remove(&name);
                    }
                }
                node.xattrs = if all.is_empty() { None } else { Some(Arc::new(all)) };
                node.attr.mode = mode.unwrap_or(node.attr.mode);
                node.attr.ctime = time;
                self.tell_of(ino);
                Ok(())
            }
        }
    }

    /// What an inode, if there is one, counts for in its directory.
    pub fn count_as_dir(&self, ino: Option<Ino>) -> Result<i64> {
        ino.map_or(Ok(0), |ino| Ok(i64::from(self.node(ino)?.is_dir())))
    }

    pub fn apply_rename(
        &mut self,
        from: Ino,
        name: &[u8],
        to: Ino,
        new_name: &[u8],
        exchange: bool,
        time: Time,
    ) -> Result<()> {
        let Some(moved) = self.child(from, name)? else {
            return Err(Stop::Damaged("a record that renames what is not there".into()));
        };
        let there = self.child(to, new_name)?;
        let (moves, goes) = (self.count_as_dir(Some(moved))?, self.count_as_dir(there)?);
        let (stays, comes) = if exchange { (there, goes) } else { (None, 0) };
        self.hang(from, name, stays, comes - moves)?;
        self.hang(to, new_name, Some(moved), moves - goes)?;
        self.move_place(moved, (from, name), (to, new_name), time);
        if let Some(there) = there {
            if exchange {
                self.move_place(there, (to, new_name), (from, name), time);
            } else {
                self.lost_a_name(there, to, new_name, time)?;
            }
        }
        self.stamp(from, time);
        self.stamp(to, time);
        Ok(())
    }

    pub fn move_place(&mut self, ino: Ino, old: (Ino, &[u8]), new: (Ino, &[u8]), time: Time) {
        let node = self.own(ino);
        let at = node.places.iter().position(|(parent, name)| (*parent, &**name) == old);
        let place = (new.0, Name::from(new.1));
        match at {
            Some(at) => node.places[at] = place,
            None => node.places.push(place),
        }
        node.attr.ctime = time;
    }

    /// A name of an inode is gone; with the last one it becomes an orphan, or is no more.
    pub fn lost_a_name(&mut self, ino: Ino, parent: Ino, name: &[u8], time: Time) -> Result<()> {
        let is_last = self.node(ino)?.places.iter().all(|place| (place.0, &*place.1) == (parent, name));
        if !is_last {
            let node = self.own(ino);
            node.places.retain(|place| (place.0, &*place.1) != (parent, name));
            node.attr.nlink = node.places.len() as u32;
            node.attr.ctime = time;
            return Ok(());
        }
        let mut node = match self.open.remove(&ino) {
            Some(node) => node,
            None => self.node(ino)?.touched(),
        };
        if let Some(held) = self.held.get_mut(&ino) {
            let clean = held.clean.take();
            for above in self.unpin(clean.as_deref()) {
                self.let_go(above);
            }
        }
        node.places.clear();
        node.attr.nlink = 0;
        node.attr.ctime = time;
        self.emptied.retain(|(gone, _), _| *gone != ino);
        if self.is_held(ino) {
            self.orphans.insert(ino, node);
        } else {
            self.free_blocks(&node);
            self.held.remove(&ino);
        }
        Ok(())
    }

    /// An inode of the base that the next base has not: an orphan, if somebody still holds it. Whether it is open: who
    /// has only looked it up finds it nowhere any more.
    pub fn lose_all_names(&mut self, ino: Ino) -> bool {
        let Some(mut node) = self.held.get_mut(&ino).and_then(|held| held.clean.take()) else { return false };
        let lighter = self.unpin(Some(&node));
        if self.is_held(ino) {
            node.places.clear();
            node.attr.nlink = 0;
            self.orphans.insert(ino, *node);
        }
        let is_open = self.held.get(&ino).is_some_and(|held| held.opens > 0);
        self.let_go(ino);
        lighter.into_iter().for_each(|above| self.let_go(above));
        is_open
    }

    /// How long the journal is that a start would have to do again.
    pub fn log_bytes(&self) -> u64 {
        self.log_before + self.journal.position() - self.log_start
    }

    /// The held inodes of the base that are these, or hang below one of them.
    pub fn clean_at_or_below(&self, tops: &[Ino]) -> Vec<&Node> {
        let mut is_below: HashMap<Ino, bool> = tops.iter().map(|top| (*top, true)).collect();
        let leads_down = |ino: &Ino| self.held.get(ino).is_some_and(|held| held.children > 0);
        if !tops.iter().any(leads_down) {
            return tops.iter().filter_map(|ino| self.held.get(ino)?.clean.as_deref()).collect();
        }
        let mut found = Vec::new();
        for (ino, held) in &self.held {
            let Some(node) = held.clean.as_deref() else { continue };
            let mut way = Vec::new();
            let mut at = *ino;
            let below = loop {
                if let Some(known) = is_below.get(&at) {
                    break *known;
                }
                way.push(at);
                let clean = self.held.get(&at).and_then(|held| held.clean.as_deref());
                match clean.and_then(|node| node.places.first()) {
                    Some((parent, _)) if at != ROOT => at = *parent,
                    _ => break false,
                }
            };
            is_below.extend(way.into_iter().map(|ino| (ino, below)));
            if below {
                found.push(node);
            }
        }
        found
    }

    // blocks

    /// Nobody will read these blocks any more, unless an older generation does.
    pub fn free_run(&mut self, run: Run) {
        if self.replaying || run.generation != self.generation {
            return; // not claimed yet, or a frozen generation's: freed when that is stored
        }
        if run.epoch == self.epoch {
            self.arena.release(run.span());
        } else {
            self.arena.release_after(self.epoch, run.span());
        }
    }

    pub fn free_blocks(&mut self, node: &Node) {
        if let Body::File(file) = &node.body {
            let runs: Vec<Run> = file.runs.iter().map(|(_, run)| run).collect();
            runs.into_iter().for_each(|run| self.free_run(run));
        }
    }

    pub fn put_piece(&mut self, ino: Ino, piece: super::record::Piece) {
        let (epoch, generation) = (self.epoch, self.generation);
        let file = self.own(ino).file_mut().expect("a file");
        let gone = file.runs.remove(piece.at, piece.at + u64::from(piece.length));
        let run = Run { segment: piece.segment, block: piece.block, length: piece.length, epoch, generation };
        file.runs.insert(piece.at, run);
        gone.into_iter().for_each(|run| self.free_run(run));
    }

    pub fn cut(&mut self, ino: Ino, size: u64) {
        let file = self.own(ino).file_mut().expect("a file");
        file.keep = file.keep.min(size);
        file.inherits = file.inherits.min(size);
        if file.keep == 0 {
            file.base = None;
        }
        let gone = file.runs.remove(size.div_ceil(super::arena::BLOCK as u64), u64::MAX);
        gone.into_iter().for_each(|run| self.free_run(run));
    }
}

#[allow(clippy::too_many_arguments)] // one for each field of the record
fn new_node(
    parent: Ino,
    name: &[u8],
    kind: u8,
    mode: u16,
    uid: u32,
    gid: u32,
    device: (u32, u32),
    target: Vec<u8>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    time: Time,
) -> Node {
    use super::node::{DirBody, FileBody, XattrValue};
    use crate::codec::node::entry_kind;
    let body = match kind {
        entry_kind::FILE => {
            Body::File(FileBody { base: None, keep: 0, runs: Default::default(), inherits: 0, changed: true })
        }
        entry_kind::DIRECTORY => Body::Dir(Box::new(DirBody::of(Default::default(), None))),
        entry_kind::SYMLINK => Body::Link(target.as_slice().into()),
        _ => Body::Other,
    };
    let xattrs: super::node::Xattrs =
        xattrs.into_iter().map(|(name, value)| (name, XattrValue::Here(value.into()))).collect();
    Node {
        attr: Attr {
            kind,
            mode,
            nlink: 1,
            uid,
            gid,
            device,
            size: target.len() as u64,
            mtime: time,
            ctime: time,
            atime: None,
        },
        xattrs: if xattrs.is_empty() { None } else { Some(Arc::new(xattrs)) },
        ext: None,
        places: Places::One((parent, Name::from(name))),
        body,
    }
}
