//! A generation is frozen, stored by others, and then forgotten: or taken back, if it could not be stored.

use super::arena::{Idle, Lent, Run};
use super::base::BaseDir;
use super::node::{Body, DirBody, Node};
use super::state::{Generation, Held, State, MANY};
use super::{give_memory_back, refuse, Ino, InoMap, Result, ROOT};
use crate::codec::ids::Id;
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// What an inode of a frozen generation has become in the store.
pub enum Stored {
    File(Option<Id>),
    Dir(BaseDir),
}

impl State {
    pub fn is_clean(&self) -> bool {
        self.open.is_empty() && self.frozen.is_none()
    }

    /// End the open generation: what comes goes to a new one. False if there is nothing to be stored.
    pub fn freeze(&mut self) -> Result<bool> {
        if self.frozen.is_some() {
            return refuse(Errno::BUSY);
        }
        if self.open.is_empty() {
            return Ok(false);
        }
        self.freeze_at((self.journal.stream(), self.journal.position()));
        Ok(true)
    }

    /// What a fork is to stand on: the frozen generation, frozen now if need be; None if nothing is uncommitted. BUSY if
    /// there are changes above one that is frozen already.
    pub fn share(&mut self) -> Result<Option<(u64, u64)>> {
        if !self.open.is_empty() {
            self.freeze()?;
        }
        Ok(self.frozen_end())
    }

    pub fn frozen_end(&self) -> Option<(u64, u64)> {
        self.frozen.as_ref().map(|frozen| frozen.end)
    }

    /// While the journal is done again: what was frozen at this place is frozen again, once.
    pub fn freeze_again(&mut self, end: (u64, u64)) {
        if self.frozen.is_none() {
            self.freeze_at(end);
        }
    }

    /// What was logged up to there is the frozen generation from now on.
    pub fn freeze_at(&mut self, end: (u64, u64)) {
        let nodes = std::mem::take(&mut self.open);
        self.frozen = Some(Arc::new(Generation { nodes, end, number: self.generation }));
        self.generation += 1;
        // Who has no name is in no generation: its blocks are freed when it goes.
        for orphan in self.orphans.values_mut() {
            if let Body::File(file) = &mut orphan.body {
                file.runs.adopt(self.generation);
            }
        }
    }

    /// Stand on what another workspace has frozen, and read its blocks until that is stored.
    pub fn stand_on_frozen(&mut self, source: &State) -> bool {
        let Some(frozen) = &source.frozen else { return false };
        self.generation = frozen.number + 1;
        self.lent = Some(source.lent.as_ref().map_or_else(|| source.arena.lend(frozen.number), Lent::clone));
        self.frozen = Some(frozen.clone());
        if let (Some(root), true) = (self.held.get_mut(&ROOT), frozen.nodes.contains_key(&ROOT)) {
            root.clean = None;
        }
        true
    }

    /// The frozen generation is in the store, and the workspace's row says so: forget it. What is left over is to be
    /// given back to the disk.
    pub fn retire(&mut self, stored: &HashMap<Ino, Stored>, links: Option<Id>) -> Result<Vec<Idle>> {
        let Some(frozen) = self.frozen.take() else { return refuse(Errno::INVAL) };
        let clean_of = |ino: Ino, node: &Node| -> Node {
            let mut clean = node.clone();
            match (&mut clean.body, stored.get(&ino)) {
                (Body::File(file), Some(Stored::File(content))) => {
                    file.base = *content;
                    file.keep = node.attr.size;
                    file.inherits = node.attr.size;
                    file.runs = Default::default();
                    file.changed = false;
                }
                (Body::Dir(dir), Some(Stored::Dir(base))) => {
                    **dir = DirBody::of(*base, node.places.first().cloned());
                }
                _ => {}
            }
            clean
        };
        for (ino, node) in &frozen.nodes {
            if let (Some(dir), Some(Stored::Dir(base))) = (node.dir(), stored.get(ino)) {
                self.cache.tree_changed(dir.base.tree, base.tree, dir.more_dirs);
            }
            let later = match self.orphans.get_mut(ino) {
                Some(orphan) => Some(orphan),
                None => self.open.get_mut(ino),
            };
            if let Some(later) = later {
                stand_on(later, &clean_of(*ino, node), frozen.number);
            }
        }
        // Who is held, and what leads to them, is known without the generation from now on.
        let mut wanted: Vec<Ino> = frozen.nodes.keys().filter(|ino| self.held.contains_key(ino)).copied().collect();
        wanted.push(ROOT);
        let mut clean: HashSet<Ino> = HashSet::new();
        while let Some(ino) = wanted.pop() {
            let Some(node) = frozen.nodes.get(&ino) else { continue };
            let is_later = self.open.contains_key(&ino) || self.orphans.contains_key(&ino);
            if is_later || self.is_gone(&frozen, ino, node) || !clean.insert(ino) {
                continue;
            }
            for (parent, _) in &node.places {
                self.held.entry(*parent).or_default().children += 1;
                wanted.push(*parent);
            }
            let held: &mut Held = self.held.entry(ino).or_default();
            held.clean = Some(Box::new(clean_of(ino, node)));
        }
        if let Some(Stored::Dir(root)) = stored.get(&ROOT) {
            self.base.root = *root;
        }
        self.base.links = links;
        self.groups = None;
        self.emptied.clear();
        if self.lent.take().is_none() {
            self.free_generation(&frozen);
            self.forget_journal(frozen.end);
        }
        let was_large = frozen.nodes.len() > MANY;
        drop(frozen);
        if was_large {
            give_memory_back();
        }
        Ok(self.arena.trim())
    }

    /// Whether the open generation has removed what the frozen one has: then nothing leads to it any more.
    fn is_gone(&self, frozen: &Generation, ino: Ino, node: &Node) -> bool {
        ino != ROOT
            && node.places.iter().all(|(parent, name)| {
                let names = |nodes: &InoMap<Node>| {
                    nodes.get(parent).and_then(Node::dir).and_then(|dir| dir.names.get(name).copied())
                };
                names(&self.open).or_else(|| names(&frozen.nodes)).is_some_and(|what| what != Some(ino))
            })
    }

    /// What was logged before is in the store. An end in a stream that was done again: so is only part of that.
    fn forget_journal(&mut self, (stream, position): (u64, u64)) {
        if stream == self.journal.stream() {
            self.journal.forget_before(position);
            (self.log_before, self.log_start) = (0, position);
        }
    }

    fn free_generation(&mut self, frozen: &Generation) {
        for node in frozen.nodes.values() {
            let Body::File(file) = &node.body else { continue };
            let own: Vec<Run> =
                file.runs.iter().map(|(_, run)| run).filter(|run| run.generation == frozen.number).collect();
            own.into_iter().for_each(|run| self.arena.release(run.span()));
        }
    }

    /// The frozen generation could not be stored: it is part of the open one again.
    pub fn thaw(&mut self) {
        let Some(frozen) = self.frozen.take() else { return };
        self.emptied.clear();
        let generation = self.generation;
        let frozen = Arc::try_unwrap(frozen).unwrap_or_else(|shared| Generation {
            nodes: shared.nodes.clone(),
            end: shared.end,
            number: shared.number,
        });
        let gone: HashSet<Ino> =
            frozen.nodes.iter().filter(|(ino, node)| self.is_gone(&frozen, **ino, node)).map(|(ino, _)| *ino).collect();
        // Blocks that were written over or removed since: the generation would have freed them.
        let mut unused: Vec<Run> = Vec::new();
        for (ino, mut node) in frozen.nodes {
            if let Body::File(file) = &mut node.body {
                file.runs.adopt(generation);
            }
            match self.open.get_mut(&ino) {
                Some(later) => match (&mut later.body, node.body) {
                    (Body::Dir(later), Body::Dir(earlier)) => {
                        let mut names = earlier.names;
                        names.extend(later.names.drain());
                        later.names = names;
                        later.more_dirs += earlier.more_dirs;
                    }
                    (Body::File(later), Body::File(earlier)) => {
                        later.changed |= earlier.changed;
                        later.runs.adopt(generation);
                        unused.extend(earlier.runs.without(&later.runs));
                    }
                    _ => {}
                },
                None if gone.contains(&ino) => {
                    let Body::File(earlier) = node.body else { continue };
                    match self.orphans.get_mut(&ino).map(|orphan| &mut orphan.body) {
                        Some(Body::File(orphan)) => {
                            orphan.runs.adopt(generation);
                            unused.extend(earlier.runs.without(&orphan.runs));
                        }
                        _ => unused.extend(earlier.runs.iter().map(|(_, run)| run)),
                    }
                }
                None => {
                    self.open.insert(ino, node);
                }
            }
        }
        unused.into_iter().for_each(|run| self.free_run(run));
    }
}

/// What changed after the freeze stands on what was stored of the frozen generation.
fn stand_on(later: &mut Node, clean: &Node, frozen: u64) {
    match (&mut later.body, &clean.body) {
        (Body::File(later), Body::File(clean)) => {
            later.runs.retain(|run| run.generation > frozen);
            later.keep = later.inherits;
            later.base = if later.keep > 0 { clean.base } else { None };
        }
        (Body::Dir(later), Body::Dir(clean)) => {
            later.base = clean.base;
            later.below = clean.below.clone();
        }
        _ => {}
    }
}
