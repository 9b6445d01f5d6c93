//! The inode table of one workspace: what is open, what is frozen, what the kernel holds (docs/dev/overlay.md).

use super::arena::{Arena, Lent};
use super::base::{Base, Cache, Child, Name};
use super::bell::Bells;
use super::journal::Journal;
use super::node::{Ext, Node, Place};
use super::{give_memory_back, refuse, Ino, InoMap, Result, Stop, ROOT};
use crate::codec::ids::Id;
use rustix::io::Errno;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

pub const MOST_EVENTS: usize = 1 << 16;
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
    /// Where it ends in the journal: the stream, and the position there.
    pub end: (u64, u64),
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
    /// Of a fork: the frozen generation is the source's, and so are its blocks.
    pub lent: Option<Lent>,
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
    pub groups: Option<Groups>,
    /// Of directories that are being removed: up to where none of their base's names is there any more.
    pub emptied: HashMap<(Ino, Id), Box<[u8]>>,
    /// Held only by the operation that is running.
    pub fresh: Vec<Ino>,
    /// How many have been let go since memory was last given back.
    forgotten: usize,
}

/// The hard links of a base: the paths of each group, and its inode once somebody has asked for it.
#[derive(Default)]
pub struct Groups {
    members: HashMap<Arc<[u8]>, Vec<Box<[u8]>>>,
    numbers: HashMap<Arc<[u8]>, Ino>,
}

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
            lent: None,
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

    pub fn base_child(&mut self, parent: Ino, name: &[u8]) -> Result<Option<Child>> {
        let Some(dir) = self.node(parent)?.dir().map(|dir| dir.base) else { return refuse(Errno::NOTDIR) };
        self.base.child(&mut self.cache, &dir, name)
    }

    /// Whether a name is there below the open generation: then its removal must be remembered.
    pub fn below_has(&mut self, parent: Ino, name: &[u8]) -> Result<bool> {
        let frozen = self.frozen.as_ref().and_then(|frozen| frozen.nodes.get(&parent)).and_then(Node::dir);
        if let Some(changed) = frozen.and_then(|dir| dir.names.get(name)) {
            return Ok(changed.is_some());
        }
        Ok(self.base_child(parent, name)?.is_some())
    }

    /// An inode of the base comes into the table, if it is not there.
    pub fn meet(&mut self, parent: Ino, name: &[u8], found: &Child) -> Result<Ino> {
        let linked = Ext::read(found.known.ext.as_deref())?.linked;
        let group = if linked { Some(self.group_of(parent, name)?) } else { None };
        let ino = match &group {
            Some(group) => self.number_of(group)?,
            None => found.ino,
        };
        if self.node(ino).is_err() {
            let places = match &group {
                Some(group) => self.places_of(group)?,
                None => vec![(parent, Name::from(name))],
            };
            let node = Node::of_base(found, self.owner, places)?;
            self.hold_clean(ino, node);
        }
        Ok(ino)
    }

    pub fn hold_clean(&mut self, ino: Ino, node: Node) {
        for (parent, _) in &node.places {
            self.held.entry(*parent).or_default().children += 1;
        }
        self.held.entry(ino).or_default().clean = Some(Box::new(node));
        self.fresh.push(ino);
    }

    /// The group of a hard-linked file of the base, all of which are known then.
    fn group_of(&mut self, parent: Ino, name: &[u8]) -> Result<Arc<[u8]>> {
        let path = self.base_path(parent, name)?;
        let Some(group) = self.base.group(&mut self.cache, &path)? else {
            return Err(Stop::Damaged("a linked file without a group".into()));
        };
        if self.groups.is_none() {
            let mut groups = Groups::default();
            for (path, group) in self.base.all_links(&mut self.cache)? {
                groups.members.entry(group).or_default().push(path);
            }
            self.groups = Some(groups);
        }
        Ok(group)
    }

    fn members_of(&self, group: &Arc<[u8]>) -> Arc<[Box<[u8]>]> {
        let members = self.groups.as_ref().and_then(|groups| groups.members.get(group));
        members.map(|members| members.as_slice().into()).unwrap_or_default()
    }

    /// The smallest of what its names have by themselves: it stays when a directory moves and another path is first.
    fn number_of(&mut self, group: &Arc<[u8]>) -> Result<Ino> {
        if let Some(known) = self.groups.as_ref().and_then(|groups| groups.numbers.get(group)) {
            return Ok(*known);
        }
        let mut smallest: Option<Ino> = None;
        for member in self.members_of(group).iter() {
            let Some(found) = self.base.at_path(&mut self.cache, member)? else {
                return Err(Stop::Damaged("a path of hard links that is not there".into()));
            };
            smallest = Some(smallest.map_or(found.ino, |ino| ino.min(found.ino)));
        }
        let Some(ino) = smallest else { return Err(Stop::Damaged("a group of hard links without a path".into())) };
        if let Some(groups) = &mut self.groups {
            groups.numbers.insert(group.clone(), ino);
        }
        Ok(ino)
    }

    /// All places where it hangs in the base.
    fn places_of(&mut self, group: &Arc<[u8]>) -> Result<Vec<Place>> {
        self.members_of(group).iter().map(|member| self.base_place(member)).collect()
    }

    /// The directory (known to the table) and the name of a path of the base.
    pub fn base_place(&mut self, path: &[u8]) -> Result<(Ino, Name)> {
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
    pub fn base_path(&mut self, parent: Ino, name: &[u8]) -> Result<Vec<u8>> {
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
    pub fn let_go(&mut self, ino: Ino) {
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
    pub fn unpin(&mut self, clean: Option<&Node>) -> Vec<Ino> {
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
