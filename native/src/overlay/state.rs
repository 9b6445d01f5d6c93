//! The inode table of one workspace: what is open, what is frozen, what the kernel holds (docs/dev/overlay.md).

use super::arena::{Arena, Run};
use super::base::{Base, Cache, Child, Name};
use super::bell::Bells;
use super::journal::Journal;
use super::node::{Attr, Body, Ext, Node, Place, Places, Time};
use super::record::Record;
use super::{give_memory_back, refuse, Ino, InoMap, Result, Stop, ROOT};
use crate::codec::ids::Id;
use rustix::io::Errno;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

const MOST_EVENTS: usize = 1 << 16;
/// After so many inodes have gone, and more than there are, their memory goes back to the system.
pub const MANY: usize = 1 << 14;

/// Numbers of changes, and the paths that changed.
pub type Told = Vec<(u64, Vec<u8>)>;

/// Numbers of changes begin at the time, in microseconds: what an earlier process gave out is known to be old.
fn first_event() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_micros() as u64
}

/// What one generation changed. While it is frozen nobody writes to it: it is shared without a lock.
#[derive(Default)]
pub struct Generation {
    pub nodes: InoMap<Node>,
    /// Where it ends in the journal.
    pub end: u64,
    pub number: u64,
}

/// An inode that somebody outside refers to, or that leads to one.
#[derive(Default)]
pub struct Held {
    pub lookups: u64,
    pub opens: u32,
    /// How many others hang from it and are clean.
    pub children: u32,
    /// The inode as the base has it; None while a generation has its own.
    pub clean: Option<Box<Node>>,
}

/// A name that changed: its number in the sequence, the directory, the name.
pub struct Event {
    pub number: u64,
    pub parent: Ino,
    pub name: Name,
}

pub struct State {
    pub cache: Cache,
    pub base: Base,
    pub owner: (u32, u32),
    pub open: InoMap<Node>,
    pub frozen: Option<Arc<Generation>>,
    pub held: InoMap<Held>,
    /// Without a name, but still referred to.
    pub orphans: InoMap<Node>,
    pub next: Ino,
    pub journal: Journal,
    /// How much of the disk the streams take that were done again and are not in the store yet.
    pub log_before: u64,
    /// Where in the journal that begins which is not in the store.
    pub log_start: u64,
    pub arena: Arena,
    pub epoch: u64,
    pub generation: u64,
    pub events: VecDeque<Event>,
    pub event: u64,
    pub bells: Bells,
    /// The journal is being done again: blocks are claimed when that is done.
    pub replaying: bool,
    /// A failed sync: nothing more is written until the workspace is opened again.
    pub failed: bool,
    /// A layer that is only looked at.
    pub read_only: bool,
    /// Nobody may change anything for a moment: another state is being put in place.
    pub gated: bool,
    /// The workspace is no more: nothing can be changed in it.
    pub ended: bool,
    /// Stored bytes that were loaded for the operation that is running.
    pub supplied: HashMap<(Id, u64, u64), Vec<u8>>,
    /// Hard links of the base by group, once somebody needed them.
    pub groups: Option<Arc<Groups>>,
    /// Of directories that are being removed: up to where none of their base's names is there any more.
    pub emptied: HashMap<(Ino, Id), Box<[u8]>>,
    /// Held only by the operation that is running.
    fresh: Vec<Ino>,
    /// How many have been let go since memory was last given back.
    forgotten: usize,
}

pub type Groups = HashMap<Arc<[u8]>, Vec<Box<[u8]>>>;

impl State {
    pub fn new(base: Base, owner: (u32, u32), root: Node, next: Ino, journal: Journal, arena: Arena) -> State {
        let mut held = InoMap::default();
        held.insert(ROOT, Held { lookups: 1, clean: Some(Box::new(root)), ..Held::default() });
        State {
            cache: Cache::default(),
            base,
            owner,
            open: InoMap::default(),
            frozen: None,
            held,
            orphans: InoMap::default(),
            next,
            journal,
            log_before: 0,
            log_start: 0,
            arena,
            epoch: 1,
            generation: 1,
            events: VecDeque::new(),
            event: first_event(),
            bells: Bells::default(),
            replaying: false,
            failed: false,
            read_only: false,
            gated: false,
            ended: false,
            supplied: HashMap::new(),
            groups: None,
            emptied: HashMap::new(),
            fresh: Vec::new(),
            forgotten: 0,
        }
    }

    // looking

    /// An inode as it is now.
    pub fn node(&self, ino: Ino) -> Result<&Node> {
        if let Some(node) = self.open.get(&ino) {
            return Ok(node);
        }
        if let Some(node) = self.orphans.get(&ino) {
            return Ok(node);
        }
        if let Some(node) = self.frozen.as_ref().and_then(|frozen| frozen.nodes.get(&ino)) {
            return Ok(node);
        }
        self.held.get(&ino).and_then(|held| held.clean.as_deref()).ok_or(Stop::Errno(Errno::STALE))
    }

    pub fn is_orphan(&self, ino: Ino) -> bool {
        self.orphans.contains_key(&ino)
    }

    /// A directory that has a name; ENOENT for one that was removed.
    pub fn living_dir(&self, ino: Ino) -> Result<&Node> {
        let node = self.node(ino)?;
        if !node.is_dir() {
            return refuse(Errno::NOTDIR);
        }
        if self.is_orphan(ino) {
            return refuse(Errno::NOENT);
        }
        Ok(node)
    }

    /// What the generations say of a name: nothing, or an inode or its absence.
    pub fn changed_name(&self, parent: Ino, name: &[u8]) -> Option<Option<Ino>> {
        let in_open = self.open.get(&parent).and_then(Node::dir).and_then(|dir| dir.names.get(name));
        let in_frozen = || {
            let frozen = self.frozen.as_ref()?;
            frozen.nodes.get(&parent).and_then(Node::dir).and_then(|dir| dir.names.get(name))
        };
        in_open.or_else(in_frozen).copied()
    }

    /// The inode of a name, made known to the table if it is the base's.
    pub fn child(&mut self, parent: Ino, name: &[u8]) -> Result<Option<Ino>> {
        if let Some(changed) = self.changed_name(parent, name) {
            return Ok(changed);
        }
        let Some(found) = self.base_child(parent, name)? else { return Ok(None) };
        self.meet(parent, name, &found).map(Some)
    }

    fn base_child(&mut self, parent: Ino, name: &[u8]) -> Result<Option<Child>> {
        let Some(dir) = self.node(parent)?.dir().map(|dir| dir.base) else { return refuse(Errno::NOTDIR) };
        self.base.child(&mut self.cache, &dir, name)
    }

    /// Whether a name is there below the open generation: then its removal must be remembered.
    fn below_has(&mut self, parent: Ino, name: &[u8]) -> Result<bool> {
        let frozen = self.frozen.as_ref().and_then(|frozen| frozen.nodes.get(&parent)).and_then(Node::dir);
        if let Some(changed) = frozen.and_then(|dir| dir.names.get(name)) {
            return Ok(changed.is_some());
        }
        Ok(self.base_child(parent, name)?.is_some())
    }

    /// An inode of the base comes into the table, if it is not there.
    pub fn meet(&mut self, parent: Ino, name: &[u8], found: &Child) -> Result<Ino> {
        let linked = Ext::read(found.known.ext.as_deref())?.linked;
        let (ino, places) =
            if linked { self.places_of_link(parent, name)? } else { (found.ino, vec![(parent, Name::from(name))]) };
        if self.node(ino).is_err() {
            let node = Node::of_base(found, self.owner, places)?;
            self.hold_clean(ino, node);
        }
        Ok(ino)
    }

    fn hold_clean(&mut self, ino: Ino, node: Node) {
        for (parent, _) in &node.places {
            self.held.entry(*parent).or_default().children += 1;
        }
        self.held.entry(ino).or_default().clean = Some(Box::new(node));
        self.fresh.push(ino);
    }

    /// The number of a hard-linked file of the base, and all places where it hangs there.
    fn places_of_link(&mut self, parent: Ino, name: &[u8]) -> Result<(Ino, Vec<Place>)> {
        let path = self.base_path(parent, name)?;
        let Some(group) = self.base.group(&mut self.cache, &path)? else {
            return Err(Stop::Damaged("a linked file without a group".into()));
        };
        if self.groups.is_none() {
            let mut groups: Groups = HashMap::new();
            for (path, group) in self.base.all_links(&mut self.cache)? {
                groups.entry(group).or_default().push(path);
            }
            self.groups = Some(Arc::new(groups));
        }
        let groups = self.groups.clone().expect("just made");
        // The smallest of what the names have by themselves: it stays when a directory moves and another path is first.
        let mut ino: Option<Ino> = None;
        let mut places = Vec::new();
        for member in groups.get(&group).map(Vec::as_slice).unwrap_or_default() {
            let Some(found) = self.base.at_path(&mut self.cache, member)? else {
                return Err(Stop::Damaged("a path of hard links that is not there".into()));
            };
            ino = Some(ino.map_or(found.ino, |ino| ino.min(found.ino)));
            places.push(self.base_place(member)?);
        }
        let Some(ino) = ino else { return Err(Stop::Damaged("a group of hard links without a path".into())) };
        Ok((ino, places))
    }

    /// The directory (known to the table) and the name of a path of the base.
    fn base_place(&mut self, path: &[u8]) -> Result<(Ino, Name)> {
        let (above, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (Some(&path[..at]), &path[at + 1..]),
            None => (None, path),
        };
        let mut parent = ROOT;
        let mut dir = self.base.root;
        for step in above.map(|above| above.split(|byte| *byte == b'/')).into_iter().flatten() {
            let Some(found) = self.base.child(&mut self.cache, &dir, step)? else {
                return Err(Stop::Damaged("a path of hard links that is not there".into()));
            };
            if self.node(found.ino).is_err() {
                let node = Node::of_base(&found, self.owner, vec![(parent, Name::from(step))])?;
                self.hold_clean(found.ino, node);
            }
            (parent, dir) = (found.ino, found.dir);
        }
        Ok((parent, Name::from(name)))
    }

    /// The path that a name has in the base: directories are found by what they are there, wherever they hang now.
    fn base_path(&mut self, parent: Ino, name: &[u8]) -> Result<Vec<u8>> {
        let mut steps: Vec<Vec<u8>> = vec![name.to_vec()];
        let mut at = parent;
        while at != ROOT {
            let below = self.node(at)?.dir().and_then(|dir| dir.below.clone());
            let Some((above, step)) = below else {
                return Err(Stop::Damaged("a directory that the base does not know".into()));
            };
            steps.push(step.to_vec());
            at = above;
        }
        steps.reverse();
        Ok(steps.join(&b'/'))
    }

    /// Where an inode is, from the root; None if it has no name.
    pub fn path_of(&self, ino: Ino) -> Option<Vec<u8>> {
        let mut steps: Vec<Name> = Vec::new();
        let mut at = ino;
        while at != ROOT {
            let (parent, name) = self.node(at).ok()?.places.first()?.clone();
            steps.push(name);
            at = parent;
        }
        steps.reverse();
        Some(steps.iter().map(|step| step.to_vec()).collect::<Vec<_>>().join(&b'/'))
    }
}

// ---- holding

impl State {
    pub fn looked_up(&mut self, ino: Ino) {
        self.held.entry(ino).or_default().lookups += 1;
    }

    pub fn forget(&mut self, ino: Ino, count: u64) {
        if let Some(held) = self.held.get_mut(&ino) {
            held.lookups = held.lookups.saturating_sub(count);
            self.let_go(ino);
        }
    }

    pub fn opened(&mut self, ino: Ino) {
        self.held.entry(ino).or_default().opens += 1;
    }

    pub fn closed(&mut self, ino: Ino) {
        if let Some(held) = self.held.get_mut(&ino) {
            held.opens = held.opens.saturating_sub(1);
            self.let_go(ino);
        }
    }

    /// Whether somebody outside refers to it.
    pub fn is_held(&self, ino: Ino) -> bool {
        self.held.get(&ino).is_some_and(|held| held.lookups > 0 || held.opens > 0)
    }

    /// Forget an inode that nobody refers to any more, and what only led to it.
    fn let_go(&mut self, ino: Ino) {
        let mut at = vec![ino];
        while let Some(ino) = at.pop() {
            let free =
                self.held.get(&ino).is_some_and(|held| held.lookups == 0 && held.opens == 0 && held.children == 0);
            if !free || ino == ROOT {
                continue;
            }
            let held = self.held.remove(&ino).expect("just found");
            self.forgotten += 1;
            at.extend(self.unpin(held.clean.as_deref()));
            if let Some(orphan) = self.orphans.remove(&ino) {
                self.free_blocks(&orphan);
            }
        }
        if self.forgotten > MANY.max(self.held.len()) {
            self.forgotten = 0;
            self.held.shrink_to_fit();
            give_memory_back();
        }
    }

    /// A clean inode goes: its directories have a child less. Which of them may go, too.
    fn unpin(&mut self, clean: Option<&Node>) -> Vec<Ino> {
        let mut lighter = Vec::new();
        for (parent, _) in clean.map(|node| &*node.places).unwrap_or_default() {
            if let Some(above) = self.held.get_mut(parent) {
                above.children -= 1;
                lighter.push(*parent);
            }
        }
        lighter
    }

    /// After an operation: what only it needed goes.
    pub fn settle(&mut self) {
        self.supplied.clear();
        for ino in std::mem::take(&mut self.fresh) {
            self.let_go(ino);
        }
    }
}

// ---- changing

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

    fn anchor(&mut self, ino: Ino, records: &mut Vec<Record>, listed: &mut Vec<Ino>) -> Result<()> {
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

    fn known_below(&mut self, parent: Ino, name: &[u8]) -> Result<()> {
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

    fn take_up(&mut self, ino: Ino) -> Result<()> {
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
    fn hang(&mut self, parent: Ino, name: &[u8], what: Option<Ino>, more_dirs: i64) -> Result<()> {
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

    fn tell_of(&mut self, ino: Ino) {
        let places = self.node(ino).map(|node| node.places.clone()).unwrap_or_default();
        for (parent, name) in &places {
            self.tell(*parent, name.clone());
        }
        if ino == ROOT {
            self.tell(ROOT, Name::from(&b""[..]));
        }
    }

    fn stamp(&mut self, ino: Ino, time: Time) {
        let attr = &mut self.own(ino).attr;
        attr.mtime = time;
        attr.ctime = time;
    }

    fn content_changed(&mut self, ino: Ino, size: u64, time: Time) {
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
    fn count_as_dir(&self, ino: Option<Ino>) -> Result<i64> {
        ino.map_or(Ok(0), |ino| Ok(i64::from(self.node(ino)?.is_dir())))
    }

    fn apply_rename(
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

    fn move_place(&mut self, ino: Ino, old: (Ino, &[u8]), new: (Ino, &[u8]), time: Time) {
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
    fn lost_a_name(&mut self, ino: Ino, parent: Ino, name: &[u8], time: Time) -> Result<()> {
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

    /// An inode of the base that the next base has not. Whether somebody still holds it: then it is an orphan.
    pub fn lose_all_names(&mut self, ino: Ino) -> bool {
        let Some(mut node) = self.held.get_mut(&ino).and_then(|held| held.clean.take()) else { return false };
        let lighter = self.unpin(Some(&node));
        let is_held = self.is_held(ino);
        if is_held {
            node.places.clear();
            node.attr.nlink = 0;
            self.orphans.insert(ino, *node);
        }
        self.let_go(ino);
        lighter.into_iter().for_each(|above| self.let_go(above));
        is_held
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

    fn free_blocks(&mut self, node: &Node) {
        if let Body::File(file) = &node.body {
            let runs: Vec<Run> = file.runs.iter().map(|(_, run)| run).collect();
            runs.into_iter().for_each(|run| self.free_run(run));
        }
    }

    fn put_piece(&mut self, ino: Ino, piece: super::record::Piece) {
        let (epoch, generation) = (self.epoch, self.generation);
        let file = self.own(ino).file_mut().expect("a file");
        let gone = file.runs.remove(piece.at, piece.at + u64::from(piece.length));
        let run = Run { segment: piece.segment, block: piece.block, length: piece.length, epoch, generation };
        file.runs.insert(piece.at, run);
        gone.into_iter().for_each(|run| self.free_run(run));
    }

    fn cut(&mut self, ino: Ino, size: u64) {
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
