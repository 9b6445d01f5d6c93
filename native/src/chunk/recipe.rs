//! Recipes: how a content of several chunks is put together, and how that is written down.

use super::content::Sink;
use super::cut::{MAX, SHORTEST_HOLE, SMALL};
use super::groups::GROUP;
use crate::codec::cbor::{put_array, put_bytes, put_ref, put_unsigned, Reader, NULL};
use crate::codec::ids::{node_id, recipe_checksum, Id, PART};
use crate::codec::{refuse, Result};

pub const INLINE_ITEMS: usize = 256;
pub const PART_ITEMS: usize = 1024;
pub const LARGEST_CONTENT: u64 = 1 << 40;
pub const CHECKSUM: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item {
    Chunk(Id, u64),
    Hole(u64),
    Part(Id, u64),
}

impl Item {
    pub fn length(&self) -> u64 {
        match self {
            Item::Chunk(_, length) | Item::Hole(length) | Item::Part(_, length) => *length,
        }
    }
}

pub struct Recipe {
    pub size: u64,
    pub items: Vec<Item>,
    pub groups: Option<Vec<u8>>,
}

fn put_items(out: &mut Vec<u8>, items: &[Item]) {
    put_array(out, items.len());
    for item in items {
        match item {
            Item::Hole(length) => put_unsigned(out, *length),
            Item::Chunk(id, length) => {
                put_array(out, 2);
                put_ref(out, id);
                put_unsigned(out, *length);
            }
            Item::Part(id, length) => {
                put_array(out, 3);
                put_ref(out, id);
                put_unsigned(out, *length);
                put_unsigned(out, 1);
            }
        }
    }
}

/// Write a content's items down: tell `emit` of each part, then return the recipe's bytes.
pub fn encode(content: &Id, size: u64, items: &[Item], groups: Option<&[Id]>, emit: &mut impl Sink) -> Vec<u8> {
    if items.len() > INLINE_ITEMS {
        let parts: Vec<Item> = split(items).map(|part| encode_part(part, emit)).collect();
        encode_list(content, size, &parts, groups)
    } else {
        encode_list(content, size, items, groups)
    }
}

/// A recipe of these items as they are: a few, or all of them parts.
pub fn encode_list(content: &Id, size: u64, items: &[Item], groups: Option<&[Id]>) -> Vec<u8> {
    let mut data = Vec::new();
    put_array(&mut data, 3);
    put_unsigned(&mut data, size);
    put_items(&mut data, items);
    match groups {
        Some(groups) => put_bytes(&mut data, groups.as_flattened()),
        None => data.push(NULL),
    }
    data.extend_from_slice(&recipe_checksum(content, &data));
    data
}

pub fn encode_part(items: &[Item], emit: &mut impl Sink) -> Item {
    let mut data = Vec::with_capacity(items.len() * 42 + 4);
    put_items(&mut data, items);
    let id = node_id(PART, &data);
    emit(PART, id, &data);
    Item::Part(id, items.iter().map(Item::length).sum())
}

/// A part ends after a chunk whose id begins with a zero byte, or after 1 024 items.
pub fn ends_part(length: usize, last: &Item) -> bool {
    length == PART_ITEMS || matches!(last, Item::Chunk(id, _) if id[0] == 0)
}

fn split(items: &[Item]) -> impl Iterator<Item = &[Item]> {
    let mut rest = items;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = (1..rest.len()).find(|length| ends_part(*length, &rest[length - 1])).unwrap_or(rest.len());
        let (part, after) = rest.split_at(end);
        rest = after;
        Some(part)
    })
}

/// Read a recipe and check all that it can tell: its checksum, its lengths, its groups.
pub fn decode(content: &Id, data: &[u8]) -> Result<Recipe> {
    let Some(at) = data.len().checked_sub(CHECKSUM) else { return refuse("a recipe cut short") };
    let (body, checksum) = data.split_at(at);
    if recipe_checksum(content, body) != checksum {
        return refuse("a recipe whose checksum is wrong");
    }
    let mut reader = Reader::new(body)?;
    if reader.array()? != 3 {
        return refuse("a recipe is [size, items, groups]");
    }
    let size = reader.unsigned()?;
    if size > LARGEST_CONTENT {
        return refuse("content over 1 TiB");
    }
    let items = read_items(&mut reader, true)?;
    let groups = if reader.null()? { None } else { Some(reader.bytes()?.to_vec()) };
    reader.finish()?;
    check_recipe(size, &items)?;
    let wanted = if size > GROUP as u64 { size.div_ceil(GROUP as u64) * 32 } else { 0 };
    if groups.as_ref().map_or(0, Vec::len) as u64 != wanted || groups.is_some() != (wanted > 0) {
        return refuse("a recipe whose groups do not fit its size");
    }
    Ok(Recipe { size, items, groups })
}

fn check_recipe(size: u64, items: &[Item]) -> Result<()> {
    let parts = items.iter().filter(|item| matches!(item, Item::Part(..))).count();
    if size <= SMALL as u64 || matches!(items, [] | [Item::Chunk(..)]) {
        return refuse("a recipe for what is one chunk");
    }
    if parts != items.len() && (parts > 0 || items.len() > INLINE_ITEMS) {
        return refuse("a recipe of up to 256 chunks and holes, or of parts only");
    }
    check_items(items)?;
    if items.iter().try_fold(0u64, |sum, item| sum.checked_add(item.length())) != Some(size) {
        return refuse("a recipe whose items do not add up to its size");
    }
    Ok(())
}

/// What every list of items keeps to.
fn check_items(items: &[Item]) -> Result<()> {
    for item in items {
        let possible = match item {
            Item::Chunk(..) => 1..=MAX as u64,
            Item::Hole(_) => SHORTEST_HOLE..=LARGEST_CONTENT,
            Item::Part(..) => 1..=LARGEST_CONTENT,
        };
        if !possible.contains(&item.length()) {
            return refuse("a recipe's item of an impossible length");
        }
    }
    if items.windows(2).any(|pair| matches!(pair, [Item::Hole(_), Item::Hole(_)])) {
        return refuse("a hole after a hole");
    }
    Ok(())
}

pub fn decode_part(data: &[u8]) -> Result<Vec<Item>> {
    let mut reader = Reader::new(data)?;
    let items = read_items(&mut reader, false)?;
    reader.finish()?;
    if items.is_empty() || (1..items.len()).any(|length| ends_part(length, &items[length - 1])) {
        return refuse("a part that is cut elsewhere than the rule says");
    }
    check_items(&items)?;
    Ok(items)
}

fn read_items(reader: &mut Reader, parts: bool) -> Result<Vec<Item>> {
    let length = reader.array()?;
    let mut items = Vec::with_capacity(length.min(PART_ITEMS));
    for _ in 0..length {
        if reader.peek()? >> 5 == 0 {
            if items.len() == PART_ITEMS {
                return refuse("too many holes"); // a byte each would become 48 in memory
            }
            items.push(Item::Hole(reader.unsigned()?));
            continue;
        }
        let fields = reader.array()?;
        let id = *reader.reference()?;
        let size = reader.unsigned()?;
        items.push(match fields {
            2 => Item::Chunk(id, size),
            3 if parts && reader.unsigned()? == 1 => Item::Part(id, size),
            _ => return refuse("a recipe's item of another shape"),
        });
    }
    Ok(items)
}
