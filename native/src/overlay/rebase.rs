//! Another state is put below the workspace: a checkout (docs/dev/checkout.md).
//!
//! Whoever asks for it has closed the gate and sealed: nothing is uncommitted. What the new state says of the inodes
//! that are held is loaded first, one by one; then all of them change at once.

use super::base::{Base, BaseDir, Name};
use super::node::Node;
use super::state::State;
use super::{Ino, Result, Stop, ROOT};
use std::collections::{HashMap, HashSet};

/// A name at which the two states differ: the inodes before and after; the same one if only what it says of itself
/// differs, or what is in it. `shows`: whether the name itself has changed, not only something below it.
#[derive(Debug, Clone)]
pub struct Change {
    pub parent: Ino,
    pub name: Name,
    pub old: Option<Ino>,
    pub new: Option<Ino>,
    pub shows: bool,
}

impl Change {
    fn stays(&self) -> bool {
        self.old == self.new
    }
}

/// What the kernel may have in its caches and must drop: names; and inodes, with their pages and listings or without.
#[derive(Debug, Default)]
pub struct Stale {
    pub names: Vec<(Ino, Name)>,
    pub inodes: Vec<(Ino, bool)>,
}

/// Where to go, and what was found out on the way there.
pub struct Rebase {
    pub base: Base,
    pub owner: (u32, u32),
    pub root: Node,
    /// The directories of the new state that hold changes.
    pub dirs: HashMap<Ino, BaseDir>,
    pub changes: Vec<Change>,
    /// Hard-linked inodes of the old state whose groups the new one has not, or has otherwise.
    pub lost: Vec<Ino>,
    /// Held inodes that stay, as the new state has them.
    renewed: HashMap<Ino, Node>,
    /// Held inodes below directories that go.
    below: HashMap<Ino, Vec<Ino>>,
    /// Directories among them that lead to more.
    unlisted: Vec<Ino>,
}

/// What must be looked at next, before the change can happen.
pub enum Next {
    Renew(usize),
    Below(usize, Ino),
    Ready,
}

impl Rebase {
    pub fn new(base: Base, owner: (u32, u32), root: Node, dirs: HashMap<Ino, BaseDir>) -> Rebase {
        Rebase {
            base,
            owner,
            root,
            dirs,
            changes: Vec::new(),
            lost: Vec::new(),
            renewed: HashMap::new(),
            below: HashMap::new(),
            unlisted: Vec::new(),
        }
    }

    /// What is still unknown, from one change on, of what is held now.
    pub fn next(&mut self, state: &State, from: usize) -> Next {
        while let Some(dir) = self.unlisted.pop() {
            if leads_down(state, dir) && !self.below.contains_key(&dir) {
                return Next::Below(from, dir);
            }
        }
        for (at, change) in self.changes.iter().enumerate().skip(from) {
            let Some(old) = change.old.filter(|old| state.held.contains_key(old)) else { continue };
            if change.stays() {
                if !self.renewed.contains_key(&old) && state.held[&old].clean.is_some() {
                    return Next::Renew(at);
                }
            } else if leads_down(state, old) && !self.below.contains_key(&old) {
                return Next::Below(at, old);
            }
        }
        Next::Ready
    }

    /// The same from the beginning: others look things up at any time, also where it was passed already.
    pub fn missed(&mut self, state: &State) -> Next {
        let lost: HashSet<Ino> = self.lost.iter().copied().collect();
        let mut pins: HashMap<Ino, usize> = HashMap::new();
        let places = |ino: &Ino| state.held.get(ino).and_then(|held| held.clean.as_deref()).map(|node| &node.places);
        for (parent, _) in lost.iter().filter_map(places).flat_map(|places| places.iter()) {
            *pins.entry(*parent).or_default() += 1;
        }
        let tops = self.changes.iter().filter(|change| !change.stays()).filter_map(|change| change.old);
        let mut waiting: Vec<Ino> = tops.collect();
        while let Some(dir) = waiting.pop() {
            let Some(held) = state.held.get(&dir).filter(|held| held.children > 0) else { continue };
            let known = self.below.get(&dir).map(Vec::as_slice).unwrap_or_default();
            let of_known = known.iter().filter(|ino| !lost.contains(ino)).filter_map(places);
            let found: usize = of_known.map(|places| places.iter().filter(|(parent, _)| *parent == dir).count()).sum();
            if found + pins.get(&dir).copied().unwrap_or(0) < held.children as usize {
                return Next::Below(0, dir);
            }
            waiting.extend(known);
        }
        self.next(state, 0)
    }

    pub fn renew(&mut self, state: &mut State, at: usize) -> Result<()> {
        let Change { parent, name, old, .. } = &self.changes[at];
        let Some(ino) = *old else { return Ok(()) };
        let Some(places) = state.held.get(&ino).and_then(|held| held.clean.as_ref()).map(|node| node.places.clone())
        else {
            return Ok(()); // forgotten meanwhile
        };
        let child = match self.dirs.get(parent) {
            Some(dir) => self.base.child(&mut state.cache, dir, name)?,
            None => None,
        };
        let Some(child) = child else {
            return Err(Stop::Damaged("a checkout that keeps a name which its state has not".into()));
        };
        self.renewed.insert(ino, Node::of_base(&child, self.owner, places)?);
        Ok(())
    }

    pub fn list_below(&mut self, state: &State, dir: Ino, names: Vec<(Name, Ino)>) {
        let held: Vec<Ino> = names.into_iter().map(|(_, ino)| ino).filter(|ino| state.held.contains_key(ino)).collect();
        self.unlisted.extend(held.iter().filter(|ino| leads_down(state, **ino)));
        self.below.insert(dir, held);
    }

    fn all_below(&self, top: Ino, gone: &mut Vec<Ino>) {
        let mut waiting = vec![top];
        while let Some(ino) = waiting.pop() {
            gone.push(ino);
            waiting.extend(self.below.get(&ino).into_iter().flatten());
        }
    }

    /// All at once; nothing is loaded any more.
    pub fn apply(mut self, state: &mut State) -> Stale {
        let mut stale = Stale::default();
        let mut gone = std::mem::take(&mut self.lost);
        let mut listings: HashSet<Ino> = HashSet::new();
        for change in &self.changes {
            if change.stays() {
                let Some(ino) = change.old else { continue };
                if let (Some(held), Some(node)) = (state.held.get_mut(&ino), self.renewed.remove(&ino)) {
                    held.clean = Some(Box::new(node));
                    if change.shows {
                        stale.inodes.push((ino, false));
                    }
                }
            } else {
                if let Some(old) = change.old {
                    let first = gone.len();
                    self.all_below(old, &mut gone);
                    // Who stands in one of these is to find that it is no more: it must be told of each.
                    let dirs = gone[first..].iter().skip(1).rev().filter_map(|ino| state.held.get(ino)?.clean.as_ref());
                    stale.names.extend(dirs.filter(|node| node.is_dir()).flat_map(|node| node.places.to_vec()));
                }
                if state.held.contains_key(&change.parent) {
                    stale.names.push((change.parent, change.name.clone()));
                    listings.insert(change.parent);
                }
            }
            if change.shows {
                state.tell(change.parent, change.name.clone());
            }
        }
        gone.sort_unstable();
        gone.dedup();
        for ino in gone {
            if state.lose_all_names(ino) {
                stale.inodes.push((ino, false));
            }
        }
        stale.inodes.retain(|(ino, _)| !listings.contains(ino));
        stale.inodes.extend(listings.into_iter().map(|ino| (ino, true)));
        if state.owner != self.owner {
            self.change_owner(state, &mut stale);
        }
        let root = state.held.get_mut(&ROOT).expect("the root is always held");
        root.clean = Some(Box::new(self.root));
        stale.inodes.retain(|(ino, _)| *ino != ROOT);
        stale.inodes.push((ROOT, true));
        state.base = self.base;
        state.owner = self.owner;
        state.groups = None;
        state.emptied.clear();
        let position = state.journal.position();
        state.journal.forget_before(position);
        (state.log_before, state.log_start) = (0, position);
        stale
    }

    /// Who owns what has no owner recorded is another one from now on.
    fn change_owner(&self, state: &mut State, stale: &mut Stale) {
        let (before, after) = (state.owner, self.owner);
        for (ino, held) in &mut state.held {
            let Some(attr) = held.clean.as_mut().map(|node| &mut node.attr) else { continue };
            if attr.uid == before.0 || attr.gid == before.1 {
                attr.uid = if attr.uid == before.0 { after.0 } else { attr.uid };
                attr.gid = if attr.gid == before.1 { after.1 } else { attr.gid };
                stale.inodes.push((*ino, false));
            }
        }
    }
}

fn leads_down(state: &State, ino: Ino) -> bool {
    state.held.get(&ino).is_some_and(|held| held.children > 0)
}
