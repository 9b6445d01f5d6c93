//! The items of a content before it changed: a sequence whose parts are only loaded where one must look into them.

use super::recipe::Item;
use crate::codec::ids::Id;
use crate::codec::{refuse, FormatError};
use std::collections::VecDeque;

/// Gives the items of an old part.
pub trait OldItems<E>: FnMut(&Id) -> Result<Vec<Item>, E> {}
impl<E, T: FnMut(&Id) -> Result<Vec<Item>, E>> OldItems<E> for T {}

/// A place between two items. It only moves forward.
pub struct Cursor<'a> {
    rest: &'a [Item],
    /// What is still to come of the part that we are in.
    opened: VecDeque<Item>,
    at: u64,
}

impl<'a> Cursor<'a> {
    pub fn new(items: &'a [Item]) -> Self {
        Cursor { rest: items, opened: VecDeque::new(), at: 0 }
    }

    /// The offset of the next item.
    pub fn at(&self) -> u64 {
        self.at
    }

    pub fn next(&self) -> Option<Item> {
        self.opened.front().or(self.rest.first()).copied()
    }

    /// Pass all that ends at `limit` or before: parts as a whole where that is possible.
    pub fn pass<E: From<FormatError>>(
        &mut self,
        limit: u64,
        load: &mut impl OldItems<E>,
        mut passed: impl FnMut(Item),
    ) -> Result<(), E> {
        while let Some(item) = self.next() {
            if self.at + item.length() <= limit {
                self.drop_next();
                self.at += item.length();
                passed(item);
            } else if let Item::Part(id, length) = item {
                let items = open_part(&id, length, load)?;
                self.drop_next();
                self.opened = items.into();
            } else {
                break;
            }
        }
        Ok(())
    }

    fn drop_next(&mut self) {
        if self.opened.pop_front().is_none() {
            self.rest = &self.rest[1..];
        }
    }
}

/// How long these items are together, if that is a number.
pub fn total_length(items: &[Item]) -> Option<u64> {
    items.iter().try_fold(0u64, |sum, item| sum.checked_add(item.length()))
}

pub fn open_part<E: From<FormatError>>(id: &Id, length: u64, load: &mut impl OldItems<E>) -> Result<Vec<Item>, E> {
    let items = load(id)?;
    if total_length(&items) != Some(length) {
        refuse("a part of another length than its recipe says")?;
    }
    Ok(items)
}
