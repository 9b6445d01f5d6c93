//! The immutable trees below an overlay: asked name by name, through a cache of decoded nodes.
//!
//! Nothing here loads: what is not in the cache is asked for by `Stop::Node`, and the whole operation runs again.

use super::{Ino, Result, Stop};
use crate::codec::ids::Id;
use crate::codec::node::{decode_node, entry_kind, Entry};
use std::collections::HashMap;
use std::sync::Arc;

pub const TREE: u8 = 1;
pub const LINKS: u8 = 3;
pub const TIMES: u8 = 4;
pub const INODES: u8 = 5;
/// As many entries as the younger half of the cache holds, a few megabytes.
const CACHED: usize = 1 << 15;
const COUNTED_TREES: usize = 1 << 16;
const COUNTED_LEVELS: u8 = 1;

pub type Name = Arc<[u8]>;

/// A directory of a base: its tree, and the side trees that lie beside it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BaseDir {
    pub tree: Option<Id>,
    pub times: Option<Id>,
    pub inodes: Option<Id>,
    /// Without `inodes`: the number of the first thing below; the others follow in the order of a walk.
    pub first: Ino,
}

/// A tree's entry, owned.
#[derive(Debug, Clone)]
pub struct Known {
    pub kind: u8,
    pub mode: u16,
    pub target: Option<Arc<[u8]>>,
    pub size: u64,
    pub count: u64,
    pub ext: Option<Arc<[u8]>>,
}

impl Known {
    fn is_dir(&self) -> bool {
        self.kind == entry_kind::DIRECTORY
    }
}

#[derive(Debug, Clone)]
enum What {
    Inner { child: Id },
    Tree(Known),
    Time { mtime: i128, child: Option<Id> },
    Inode { number: Ino, ctime: i128, child: Option<Id> },
    Group(Arc<[u8]>),
}

/// A leaf entry: its key, what it is, and what those before it count for.
type Leaf = (Box<[u8]>, What, u64);
type Side = std::iter::Peekable<std::vec::IntoIter<Leaf>>;
/// A path and its hard-link group.
pub type Link = (Box<[u8]>, Arc<[u8]>);

#[derive(Debug)]
struct Slot {
    key: Box<[u8]>,
    /// What the entries before it in this node count for.
    before: u64,
    what: What,
}

#[derive(Debug)]
pub struct Decoded {
    level: u8,
    slots: Vec<Slot>,
}

fn to_id(bytes: &[u8]) -> Id {
    bytes.try_into().expect("the decoder has checked its length")
}

fn decode(kind: u8, data: &[u8]) -> Result<Decoded> {
    let node = decode_node(kind, data)?;
    let mut slots = Vec::with_capacity(node.entries.len());
    let mut before = 0;
    for entry in &node.entries {
        let (weight, _) = entry.weight()?;
        let what = match entry {
            Entry::Inner { child, .. } => What::Inner { child: to_id(child) },
            Entry::Tree(entry) => What::Tree(Known {
                kind: entry.kind,
                mode: entry.mode as u16,
                target: entry.target.map(Arc::from),
                size: entry.size,
                count: entry.count,
                ext: entry.ext.as_deref().map(Arc::from),
            }),
            Entry::Times { mtime, child, .. } => What::Time { mtime: *mtime, child: child.map(to_id) },
            Entry::Inodes { number, ctime, child, .. } => {
                What::Inode { number: *number, ctime: *ctime, child: child.map(to_id) }
            }
            Entry::Links { group, .. } => What::Group(Arc::from(*group)),
            _ => return Err(Stop::Damaged(format!("a node of kind {kind} in a state"))),
        };
        slots.push(Slot { key: entry.key().into(), before, what });
        before += weight;
    }
    Ok(Decoded { level: node.level, slots })
}

/// A look at all names of a tree, which goes on where it had to stop for a node.
#[derive(Default)]
pub struct Scan {
    after: Option<Box<[u8]>>,
    dirs: u64,
    done: bool,
}

/// Decoded nodes, the ones last used: two halves, of which the older one goes when the younger one is full.
#[derive(Default)]
pub struct Cache {
    young: HashMap<(u8, Id), Arc<Decoded>>,
    /// How many entries there are in the younger half.
    entries: usize,
    old: HashMap<(u8, Id), Arc<Decoded>>,
    /// How many directories the trees have that somebody asked about.
    counted: HashMap<Id, Scan>,
}

impl Cache {
    pub fn insert(&mut self, kind: u8, id: Id, data: &[u8]) -> Result<()> {
        let decoded = decode(kind, data)?;
        self.keep((kind, id), Arc::new(decoded));
        Ok(())
    }

    fn keep(&mut self, key: (u8, Id), node: Arc<Decoded>) {
        if self.entries >= CACHED {
            self.old = std::mem::take(&mut self.young);
            self.entries = 0;
        }
        self.entries += node.slots.len();
        self.young.insert(key, node);
    }

    fn get(&mut self, kind: u8, id: &Id) -> Result<Arc<Decoded>> {
        let key = (kind, *id);
        if let Some(found) = self.young.get(&key) {
            return Ok(found.clone());
        }
        let Some(found) = self.old.remove(&key) else { return Err(Stop::Node(kind, *id)) };
        self.keep(key, found.clone());
        Ok(found)
    }

    /// The leaf entry of a key, and what all entries before it count for.
    fn find(&mut self, kind: u8, root: Option<Id>, key: &[u8]) -> Result<Option<(What, u64)>> {
        let Some(mut id) = root else { return Ok(None) };
        let mut before = 0;
        loop {
            let node = self.get(kind, &id)?;
            let at = node.slots.partition_point(|slot| &*slot.key < key);
            let Some(slot) = node.slots.get(at) else { return Ok(None) };
            before += slot.before;
            match &slot.what {
                What::Inner { child, .. } if node.level > 0 => id = *child,
                what if &*slot.key == key => return Ok(Some((what.clone(), before))),
                _ => return Ok(None),
            }
        }
    }

    /// Up to about `most` leaf entries after a key (from the start for None), each with what comes before it.
    fn after(&mut self, kind: u8, root: Option<Id>, key: Option<&[u8]>, most: usize) -> Result<Vec<Leaf>> {
        let mut found = Vec::new();
        if let Some(id) = root {
            self.collect(kind, &id, key, most, 0, &mut found)?;
        }
        Ok(found)
    }

    /// How many directories a tree has, looked at once, a node at a time. None for a tree so large that a lookup must
    /// not wait for that, unless it is known from before.
    pub fn dirs_of(&mut self, tree: Option<Id>) -> Result<Option<u64>> {
        let Some(tree) = tree else { return Ok(Some(0)) };
        if !self.counted.contains_key(&tree) && self.counted.len() >= COUNTED_TREES {
            self.counted.clear();
        }
        loop {
            let scan = self.counted.entry(tree).or_default();
            if scan.done {
                return Ok(Some(scan.dirs));
            }
            let after = scan.after.clone();
            if after.is_none() && self.get(TREE, &tree)?.level > COUNTED_LEVELS {
                return Ok(None);
            }
            let leaf = self.leaf_after(TREE, &tree, after.as_deref())?;
            let scan = self.counted.get_mut(&tree).expect("just put there");
            match leaf {
                Some((node, first)) => {
                    let slots = &node.slots[first..];
                    let is_dir = |slot: &&Slot| matches!(&slot.what, What::Tree(known) if known.is_dir());
                    scan.dirs += slots.iter().filter(is_dir).count() as u64;
                    scan.after = slots.last().map(|slot| slot.key.clone());
                }
                None => (scan.after, scan.done) = (None, true),
            }
        }
    }

    /// A tree has become another one, with so many directories more.
    pub fn tree_changed(&mut self, before: Option<Id>, after: Option<Id>, more: i64) {
        let known = match before {
            Some(before) => self.counted.get(&before).filter(|scan| scan.done).map(|scan| scan.dirs),
            None => Some(0),
        };
        if let (Some(dirs), Some(after)) = (known, after) {
            self.counted.insert(after, Scan { after: None, dirs: dirs.saturating_add_signed(more), done: true });
        }
    }

    /// The leaf with the first name after one, and where that is in it.
    fn leaf_after(&mut self, kind: u8, root: &Id, key: Option<&[u8]>) -> Result<Option<(Arc<Decoded>, usize)>> {
        let mut id = *root;
        loop {
            let node = self.get(kind, &id)?;
            let first = key.map_or(0, |key| node.slots.partition_point(|slot| &*slot.key <= key));
            match node.slots.get(first).map(|slot| &slot.what) {
                None => return Ok(None),
                Some(What::Inner { child, .. }) if node.level > 0 => id = *child,
                Some(_) => return Ok(Some((node, first))),
            }
        }
    }

    /// The first names after one, as many as one node has.
    pub fn some_names(&mut self, tree: &Id, after: Option<&[u8]>) -> Result<Vec<Box<[u8]>>> {
        let found = self.leaf_after(TREE, tree, after)?;
        Ok(found.map_or_else(Vec::new, |(node, at)| node.slots[at..].iter().map(|slot| slot.key.clone()).collect()))
    }

    fn collect(
        &mut self,
        kind: u8,
        id: &Id,
        key: Option<&[u8]>,
        most: usize,
        before: u64,
        found: &mut Vec<Leaf>,
    ) -> Result<()> {
        let node = self.get(kind, id)?;
        let first = key.map_or(0, |key| node.slots.partition_point(|slot| &*slot.key <= key));
        for slot in &node.slots[first..] {
            if found.len() >= most {
                return Ok(());
            }
            match &slot.what {
                What::Inner { child, .. } if node.level > 0 => {
                    self.collect(kind, child, key, most, before + slot.before, found)?;
                }
                what => found.push((slot.key.clone(), what.clone(), before + slot.before)),
            }
        }
        Ok(())
    }
}

/// What a base says of one name in a directory.
#[derive(Debug, Clone)]
pub struct Child {
    pub ino: Ino,
    pub known: Known,
    pub mtime: i128,
    pub ctime: i128,
    /// Of a directory: what is in it.
    pub dir: BaseDir,
}

/// A base as a whole: where paths and hard links are found.
#[derive(Debug, Clone, Default)]
pub struct Base {
    pub root: BaseDir,
    pub links: Option<Id>,
    /// The time of what has none.
    pub time: i128,
}

impl Base {
    /// What is at a name; hard links are numbered by their group, whose path the caller finds.
    pub fn child(&self, cache: &mut Cache, dir: &BaseDir, name: &[u8]) -> Result<Option<Child>> {
        let Some((what, before)) = cache.find(TREE, dir.tree, name)? else { return Ok(None) };
        let What::Tree(known) = what else { return Err(Stop::Damaged("a tree's leaf that is no entry".into())) };
        let time = cache.find(TIMES, dir.times, name)?;
        let inode = cache.find(INODES, dir.inodes, name)?;
        Ok(Some(self.assemble(dir, known, before, time.map(|(what, _)| what), inode.map(|(what, _)| what))))
    }

    fn assemble(&self, dir: &BaseDir, known: Known, before: u64, time: Option<What>, inode: Option<What>) -> Child {
        let (mtime, times) = match time {
            Some(What::Time { mtime, child }) => (mtime, child),
            _ => (self.time, None),
        };
        let (ino, ctime, inodes) = match inode {
            Some(What::Inode { number, ctime, child }) => (number, ctime, child),
            _ => (dir.first + before, mtime, None), // always the same, whenever it is asked
        };
        let tree = if known.is_dir() { known.target.as_deref().map(to_id) } else { None };
        Child { ino, mtime, ctime, dir: BaseDir { tree, times, inodes, first: ino + 1 }, known }
    }

    /// The children whose names come after one, about so many; with the last of them, or none if that was all.
    pub fn children(
        &self,
        cache: &mut Cache,
        dir: &BaseDir,
        after: Option<&[u8]>,
        most: usize,
    ) -> Result<Vec<(Name, Child)>> {
        let entries = cache.after(TREE, dir.tree, after, most)?;
        let times = cache.after(TIMES, dir.times, after, most)?;
        let inodes = cache.after(INODES, dir.inodes, after, most)?;
        let (mut times, mut inodes) = (times.into_iter().peekable(), inodes.into_iter().peekable());
        let mut found = Vec::with_capacity(entries.len());
        for (name, what, before) in entries {
            let What::Tree(known) = what else { return Err(Stop::Damaged("a tree's leaf that is no entry".into())) };
            let beside = |side: &mut Side| {
                while side.peek().is_some_and(|(key, ..)| **key < *name) {
                    side.next();
                }
                side.next_if(|(key, ..)| **key == *name).map(|(_, what, _)| what)
            };
            let (time, inode) = (beside(&mut times), beside(&mut inodes));
            found.push((Name::from(&*name), self.assemble(dir, known, before, time, inode)));
        }
        Ok(found)
    }

    /// The hard-link group of a path: its smallest path.
    pub fn group(&self, cache: &mut Cache, path: &[u8]) -> Result<Option<Arc<[u8]>>> {
        Ok(match cache.find(LINKS, self.links, path)? {
            Some((What::Group(group), _)) => Some(group),
            _ => None,
        })
    }

    /// All hard links of the base: (path, group). O(links): for who changes one.
    pub fn all_links(&self, cache: &mut Cache) -> Result<Vec<Link>> {
        let all = cache.after(LINKS, self.links, None, usize::MAX)?;
        Ok(all
            .into_iter()
            .filter_map(|(path, what, _)| match what {
                What::Group(group) => Some((path, group)),
                _ => None,
            })
            .collect())
    }

    /// What is at a path from the root.
    pub fn at_path(&self, cache: &mut Cache, path: &[u8]) -> Result<Option<Child>> {
        let mut dir = self.root;
        let mut found = None;
        for name in path.split(|byte| *byte == b'/') {
            found = self.child(cache, &dir, name)?;
            let Some(child) = &found else { return Ok(None) };
            dir = child.dir;
        }
        Ok(found)
    }
}
