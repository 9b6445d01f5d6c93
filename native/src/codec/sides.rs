//! What was implied of a directory's entries, written down: the side trees of their times and of their inodes.

use super::ids::{is_cut, Id};
use super::node::{decode_node, encode_level, Encoded, Entry, Node, MOST_ENTRIES};
use super::{refuse, FormatError, Result as Checked};
use std::collections::BTreeMap;

pub const TREE: u8 = 1;
pub const TIMES: u8 = 4;
pub const INODES: u8 = 5;

/// Where nodes come from and go to, children before parents.
pub trait Nodes<E: From<FormatError>> {
    fn load(&self, kind: u8, id: &Id) -> Result<Vec<u8>, E>;
    fn save(&self, kind: u8, data: &[u8]) -> Result<(), E>;
    /// Cuts a level's entries into nodes: where that takes long, others may go on meanwhile.
    fn encode(&self, kind: u8, level: u8, entries: &[Entry]) -> Checked<Vec<Encoded>> {
        encode_level(kind, level, entries)
    }
}

/// A name, and what all that it names counts for.
struct Named {
    name: Box<[u8]>,
    weight: u64,
}

struct Timed {
    name: Box<[u8]>,
    mtime: i128,
}

/// The same time for each entry of a tree.
pub fn write_times<E: From<FormatError>>(
    tree: Option<&Id>,
    time: i128,
    nodes: &impl Nodes<E>,
) -> Result<Option<Id>, E> {
    let names = names_of(tree, nodes)?;
    let entries: Vec<Entry> =
        names.iter().map(|each| Entry::Times { name: &each.name, mtime: time, child: None }).collect();
    build(TIMES, &entries, nodes)
}

/// A directory in a tree of times: its name, its time, and the times of what is in it.
pub struct TimedDirectory {
    pub name: Box<[u8]>,
    pub mtime: i128,
    pub child: Id,
}

/// A stretch of time that takes the place of another one: `to` is not longer, and all stays in its order.
pub struct Shift {
    pub from: (i128, i128),
    pub to: (i128, i128),
}

impl Shift {
    fn of(&self, time: i128) -> i128 {
        let ((start, end), (first, last)) = (self.from, self.to);
        match end - start {
            _ if time < start || time > end => time,
            length if length <= last - first => time + last - end,
            length => first + (time - start) * (last - first) / length,
        }
    }
}

/// The times of a directory, shifted. What is in directories below it stays as it is: they are named.
pub fn shift_times<E: From<FormatError>>(
    times: &Id,
    shift: &Shift,
    nodes: &impl Nodes<E>,
) -> Result<(Option<Id>, Vec<TimedDirectory>), E> {
    let mut found = Vec::new();
    let mut directories = Vec::new();
    each_leaf_entry(TIMES, Some(times), nodes, &mut |entry| {
        let Entry::Times { name, mtime, child } = entry else { return refuse("no entry of times") };
        let mtime = shift.of(*mtime);
        let name = Box::from(*name);
        match child {
            None => found.push(Timed { name, mtime }),
            Some(child) => {
                let child = (*child).try_into().expect("the decoder has checked its length");
                directories.push(TimedDirectory { name: name.clone(), mtime, child });
                found.push(Timed { name, mtime });
            }
        }
        Ok(())
    })?;
    let entries: Vec<Entry> =
        found.iter().map(|each| Entry::Times { name: &each.name, mtime: each.mtime, child: None }).collect();
    Ok((build(TIMES, &entries, nodes)?, directories))
}

/// What names have now: an entry, or nothing.
pub type Changes<'a> = BTreeMap<&'a [u8], Option<Entry<'a>>>;

/// Numbers from `first` on in the order of a walk, and the time of each entry, or `time` for one that has none; but for
/// what has changed.
pub fn write_inodes<E: From<FormatError>>(
    tree: Option<&Id>,
    times: Option<&Id>,
    first: u64,
    time: i128,
    changes: &Changes,
    nodes: &impl Nodes<E>,
) -> Result<Option<Id>, E> {
    let names = names_of(tree, nodes)?;
    let mut mtimes = times_of(times, nodes)?.into_iter().peekable();
    let mut number = first;
    let mut entries = Vec::with_capacity(names.len() + changes.len());
    let mut changed = changes.iter().peekable();
    for Named { name, weight } in &names {
        while mtimes.next_if(|each| each.name < *name).is_some() {}
        let ctime = mtimes.next_if(|each| each.name == *name).map_or(time, |each| each.mtime);
        while let Some((_, entry)) = changed.next_if(|(other, _)| ***other < **name) {
            entries.extend(entry.clone());
        }
        match changed.next_if(|(other, _)| ***other == **name) {
            Some((_, entry)) => entries.extend(entry.clone()),
            None => entries.push(Entry::Inodes { name, number, ctime, child: None }),
        }
        number = number.checked_add(*weight).ok_or_else(|| FormatError("more inodes than there are numbers".into()))?;
    }
    entries.extend(changed.filter_map(|(_, entry)| entry.clone()));
    build(INODES, &entries, nodes)
}

fn names_of<E: From<FormatError>>(tree: Option<&Id>, nodes: &impl Nodes<E>) -> Result<Vec<Named>, E> {
    let mut names = Vec::new();
    each_leaf_entry(TREE, tree, nodes, &mut |entry| {
        names.push(Named { name: entry.key().into(), weight: entry.weight()?.0 });
        Ok(())
    })?;
    Ok(names)
}

fn times_of<E: From<FormatError>>(times: Option<&Id>, nodes: &impl Nodes<E>) -> Result<Vec<Timed>, E> {
    let mut found = Vec::new();
    each_leaf_entry(TIMES, times, nodes, &mut |entry| {
        if let Entry::Times { name, mtime, .. } = entry {
            found.push(Timed { name: Box::from(*name), mtime: *mtime });
        }
        Ok(())
    })?;
    Ok(found)
}

// ---- trees

type Visit<'a> = &'a mut dyn FnMut(&Entry) -> Checked<()>;

fn each_leaf_entry<E: From<FormatError>>(
    kind: u8,
    root: Option<&Id>,
    nodes: &impl Nodes<E>,
    visit: Visit<'_>,
) -> Result<(), E> {
    let Some(root) = root else { return Ok(()) };
    let data = nodes.load(kind, root)?;
    walk(kind, &decode_node(kind, &data)?, nodes, visit)
}

fn walk<E: From<FormatError>>(kind: u8, node: &Node, nodes: &impl Nodes<E>, visit: Visit<'_>) -> Result<(), E> {
    for (at, entry) in node.entries.iter().enumerate() {
        let Entry::Inner { child, .. } = entry else {
            visit(entry)?;
            continue;
        };
        let data = nodes.load(kind, &(*child).try_into().expect("the decoder has checked its length"))?;
        let below = decode_node(kind, &data)?;
        check_child(node, at, &below)?;
        walk(kind, &below, nodes, visit)?;
    }
    Ok(())
}

/// A child must be what its inner entry says, and lie between those beside it.
fn check_child(node: &Node, at: usize, child: &Node) -> Checked<()> {
    let Entry::Inner { last, n, bytes, .. } = node.entries[at] else {
        return refuse("an inner node with leaf entries");
    };
    if child.level + 1 != node.level {
        return refuse("a child of another level than one below");
    }
    let (Some(begin), Some(end)) = (child.entries.first(), child.entries.last()) else {
        return refuse("an empty node");
    };
    if end.key() != last || child.totals()? != (n, bytes) {
        return refuse("a child that is not what the entry above says of it");
    }
    if at > 0 && begin.key() <= node.entries[at - 1].key() {
        return refuse("a child that overlaps the one before it");
    }
    let is_last = at + 1 == node.entries.len();
    if !is_last && child.entries.len() < MOST_ENTRIES && !is_cut(child.level, last) {
        return refuse("a node that ends where the rule would not have ended it");
    }
    Ok(())
}

/// The root of these entries, which come in ascending order.
fn build<E: From<FormatError>>(kind: u8, entries: &[Entry], nodes: &impl Nodes<E>) -> Result<Option<Id>, E> {
    if entries.is_empty() {
        return Ok(None);
    }
    let mut made = nodes.encode(kind, 0, entries)?;
    let mut level = 0;
    loop {
        for each in &made {
            nodes.save(kind, &each.data)?;
        }
        if let [root] = made.as_slice() {
            return Ok(Some(root.id));
        }
        level += 1;
        let inner = made.iter().map(inner_of).collect::<Vec<_>>();
        let above = nodes.encode(kind, level, &inner)?;
        made = above;
    }
}

fn inner_of(node: &Encoded) -> Entry<'_> {
    Entry::Inner { last: &node.last, child: &node.id, n: node.n, bytes: node.bytes }
}
