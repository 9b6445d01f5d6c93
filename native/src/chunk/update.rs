//! A content that changed in places: its new id and recipe from the old ones and what is around the changes.
//!
//! The result equals cutting it anew. Why re-cutting may start and stop where it does: docs/dev/chunking.md.

use super::content::{write_down, ContentWriter, Sink};
use super::cut::{Piece, Segmenter, PAGE, SHORTEST_HOLE, SMALL};
use super::groups::{self, GROUP};
use super::old::{open_part, total_length, Cursor, OldItems};
use super::recipe::{encode_list, encode_part, ends_part, Item, INLINE_ITEMS};
use crate::codec::ids::{content_id, Id, CHUNK, RECIPE};
use crate::codec::{refuse, FormatError};

/// Reads the content as it is now, at an offset, exactly that many bytes.
pub trait Source<E>: FnMut(u64, &mut [u8]) -> Result<(), E> {}
impl<E, T: FnMut(u64, &mut [u8]) -> Result<(), E>> Source<E> for T {}

/// What is known of the content before it changed.
pub struct Old<'a> {
    pub size: u64,
    pub items: &'a [Item],
    pub groups: &'a [Id],
}

/// A zero run that reaches a change from before is shorter than a hole, or it is one: so far back cuts may move.
const MARGIN: u64 = SHORTEST_HOLE + 2 * PAGE as u64;

/// Where something may have changed: from, up to.
type Range = (u64, u64);

/// The new id of a content of `size` bytes; `dirty` are (offset, length) of what may have changed.
///
/// What was added or cut off need not be named. `load` gives the items of an old part. What is new goes to the sink.
pub fn update<E: From<FormatError>>(
    old: &Old,
    size: u64,
    dirty: &[(u64, u64)],
    load: &mut impl OldItems<E>,
    source: &mut impl Source<E>,
    sink: &mut impl Sink,
) -> Result<Id, E> {
    if total_length(old.items) != Some(old.size) {
        refuse("old items that do not add up to their content")?;
    }
    let groups = if old.size > GROUP as u64 { old.size.div_ceil(GROUP as u64) } else { 0 };
    if old.groups.len() as u64 != groups {
        refuse("old groups that do not fit their content")?;
    }
    if old.size <= SMALL as u64 || size <= SMALL as u64 {
        return anew(size, source, sink);
    }
    let dirty = merged(old.size, size, dirty);
    let values = rehash(old, size, &dirty, source)?;
    let mut cursor = Cursor::new(old.items);
    let items = recut(&mut cursor, size, &dirty, load, source, sink)?;
    let id = match &values {
        Some(values) => groups::root(values),
        None => {
            let mut data = vec![0; size as usize];
            source(0, &mut data)?;
            content_id(&data)
        }
    };
    put_together(&id, size, items, values.as_deref(), load, sink)?;
    Ok(id)
}

fn anew<E>(size: u64, source: &mut impl Source<E>, sink: &mut impl Sink) -> Result<Id, E> {
    let mut writer = ContentWriter::default();
    let mut buffer = vec![0; GROUP];
    let mut at = 0;
    while at < size {
        let step = (size - at).min(GROUP as u64) as usize;
        source(at, &mut buffer[..step])?;
        writer.feed(&buffer[..step], sink);
        at += step as u64;
    }
    Ok(writer.finish(sink).0)
}

/// Sorted, joined where they touch, within the new size; what was added or cut off counts as dirty.
fn merged(old_size: u64, size: u64, dirty: &[(u64, u64)]) -> Vec<Range> {
    let mut ranges: Vec<Range> =
        dirty.iter().map(|(start, length)| (*start, start.saturating_add(*length).min(size))).collect();
    if old_size != size {
        // The last byte that both have may have ended a page or a chunk.
        ranges.push((old_size.min(size).saturating_sub(1), size));
    }
    ranges.retain(|(start, stop)| start < stop);
    ranges.sort_unstable();
    let mut joined: Vec<Range> = Vec::new();
    for (start, stop) in ranges {
        match joined.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(stop),
            _ => joined.push((start, stop)),
        }
    }
    joined
}

/// The chaining values of the new content's groups; none for a content of one group.
fn rehash<E>(old: &Old, size: u64, dirty: &[Range], source: &mut impl Source<E>) -> Result<Option<Vec<Id>>, E> {
    let group = GROUP as u64;
    if size <= group {
        return Ok(None);
    }
    let count = size.div_ceil(group);
    let mut values = old.groups.to_vec();
    let mut stale: Vec<u64> = (values.len() as u64..count).collect();
    for (start, stop) in dirty {
        stale.extend(start / group..=(stop - 1) / group);
    }
    stale.sort_unstable();
    stale.dedup();
    values.resize(count as usize, [0; 32]);
    let mut buffer = vec![0; GROUP];
    for index in stale {
        let start = index * group;
        let length = (size - start).min(group) as usize;
        source(start, &mut buffer[..length])?;
        values[index as usize] = groups::chaining_value(index, &buffer[..length]);
    }
    Ok(Some(values))
}

/// The new items: the old ones, but around the changes, where they are cut again until the cuts meet the old ones.
fn recut<E: From<FormatError>>(
    cursor: &mut Cursor,
    size: u64,
    dirty: &[Range],
    load: &mut impl OldItems<E>,
    source: &mut impl Source<E>,
    sink: &mut impl Sink,
) -> Result<Vec<Item>, E> {
    let mut items = Vec::new();
    let mut rest = dirty;
    while let Some((start, _)) = rest.first() {
        cursor.pass(start.saturating_sub(MARGIN), load, |item| items.push(item))?;
        let mut run = Run { cut: cursor.at(), size, dirty: rest, near: 0 };
        let met = run.go(cursor, load, source, &mut items, sink)?;
        rest = &rest[run.near..];
        if !met {
            return Ok(items);
        }
    }
    cursor.pass(u64::MAX, load, |item| items.push(item))?;
    Ok(items)
}

/// Cutting again from one place on.
struct Run<'a> {
    /// Up to where it is cut.
    cut: u64,
    size: u64,
    dirty: &'a [Range],
    /// How many of the changes begin before `cut` or too little behind it.
    near: usize,
}

impl Run<'_> {
    /// Cut until behind a change, and well before the next, a cut meets an old one; false at the content's end.
    fn go<E: From<FormatError>>(
        &mut self,
        cursor: &mut Cursor,
        load: &mut impl OldItems<E>,
        source: &mut impl Source<E>,
        items: &mut Vec<Item>,
        sink: &mut impl Sink,
    ) -> Result<bool, E> {
        const STEP: u64 = 64 << 10;
        let mut segmenter = Segmenter::resume(self.cut);
        let mut buffer = [0; STEP as usize];
        let mut fresh = Vec::new();
        let mut fed = self.cut;
        while fed < self.size {
            let mut emit = |piece: Piece| fresh.push(take(piece, sink));
            if let Some(stop) = self.zeros_from(fed, cursor) {
                segmenter.feed_zeros(stop - fed, &mut emit);
                fed = stop;
            } else {
                let step = (self.size - fed).min(STEP);
                source(fed, &mut buffer[..step as usize])?;
                segmenter.feed(&buffer[..step as usize], &mut emit);
                fed += step;
            }
            for item in fresh.drain(..) {
                self.cut += item.length();
                items.push(item);
                if self.is_quiet() {
                    cursor.pass(self.cut, load, |_| ())?;
                    if cursor.at() == self.cut {
                        return Ok(true);
                    }
                }
            }
            if segmenter.is_in_hole() {
                cursor.pass(fed, load, |_| ())?; // the next cut is the hole's end: not before the last page of these
            }
        }
        segmenter.finish(&mut |piece| items.push(take(piece, sink)));
        self.near = self.dirty.len();
        Ok(false)
    }

    /// Up to where the content is known to be zeros without reading it: an old hole, untouched.
    fn zeros_from(&self, fed: u64, cursor: &Cursor) -> Option<u64> {
        let Some(Item::Hole(length)) = cursor.next() else { return None };
        let after = &self.dirty[self.dirty.partition_point(|(_, stop)| *stop <= fed)..];
        let untouched = after.first().map_or(self.size, |(start, _)| *start);
        let stop = untouched.min(cursor.at() + length);
        (cursor.at() <= fed && fed < stop).then_some(stop)
    }

    /// Whether a cut here that is also an old one means that from here on all cuts are.
    fn is_quiet(&mut self) -> bool {
        while self.dirty.get(self.near).is_some_and(|(start, _)| *start < self.cut + MARGIN) {
            self.near += 1;
        }
        self.near > 0 && self.dirty[self.near - 1].1 + MARGIN <= self.cut
    }
}

fn take(piece: Piece, sink: &mut impl Sink) -> Item {
    match piece {
        Piece::Chunk(bytes) => {
            let id = content_id(bytes);
            sink(CHUNK, id, bytes);
            Item::Chunk(id, bytes.len() as u64)
        }
        Piece::Hole(length) => Item::Hole(length),
    }
}

/// Emit the recipe and the parts that are new: an old part stays one where one may begin.
fn put_together<E: From<FormatError>>(
    id: &Id,
    size: u64,
    items: Vec<Item>,
    groups: Option<&[Id]>,
    load: &mut impl OldItems<E>,
    sink: &mut impl Sink,
) -> Result<(), E> {
    let items = without_parts_if_few(items, load)?;
    if !items.iter().any(|item| matches!(item, Item::Part(..))) {
        write_down(id, size, &items, groups, sink);
        return Ok(());
    }
    let (mut parts, mut open) = (Vec::new(), Vec::new());
    for item in items {
        let leaves = match item {
            Item::Part(..) if open.is_empty() => {
                parts.push(item);
                continue;
            }
            Item::Part(part, length) => open_part(&part, length, load)?,
            leaf => vec![leaf],
        };
        for leaf in leaves {
            open.push(leaf);
            if ends_part(open.len(), &leaf) {
                parts.push(encode_part(&open, sink));
                open.clear();
            }
        }
    }
    if !open.is_empty() {
        parts.push(encode_part(&open, sink));
    }
    sink(RECIPE, *id, &encode_list(id, size, &parts, groups));
    Ok(())
}

/// A content that has become so short that its recipe lists its chunks itself.
fn without_parts_if_few<E: From<FormatError>>(items: Vec<Item>, load: &mut impl OldItems<E>) -> Result<Vec<Item>, E> {
    let mut leaves = Vec::new();
    for (done, item) in items.iter().enumerate() {
        match item {
            Item::Part(part, length) => leaves.extend(open_part(part, *length, load)?),
            leaf => leaves.push(*leaf),
        }
        if leaves.len() + items.len() - done - 1 > INLINE_ITEMS {
            return Ok(items);
        }
    }
    Ok(leaves)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::recipe;
    use crate::codec::ids::PART;
    use std::collections::HashMap;

    fn noise(length: usize, seed: u64) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    /// A content as it is stored.
    struct Cut {
        id: Id,
        size: u64,
        items: Vec<Item>,
        groups: Vec<Id>,
        objects: HashMap<(u8, Id), Vec<u8>>,
    }

    fn cut(data: &[u8]) -> Cut {
        let mut objects = HashMap::new();
        let (id, size) = super::super::content::cut_bytes(data, &mut |kind, id, bytes: &[u8]| {
            objects.insert((kind, id), bytes.to_vec());
        });
        let (mut items, mut groups) = (vec![Item::Chunk(id, size)], Vec::new());
        if let Some(bytes) = objects.get(&(RECIPE, id)) {
            let decoded = recipe::decode(&id, bytes).unwrap();
            items = decoded.items;
            groups = decoded.groups.unwrap_or_default().chunks(32).map(|id| id.try_into().unwrap()).collect();
        }
        Cut { id, size, items, groups, objects }
    }

    /// What an update did.
    struct Updated {
        objects: HashMap<(u8, Id), Vec<u8>>,
        read: usize,
        loaded: usize,
    }

    /// Update, and compare with a full cut.
    fn check(before: &Cut, data: &[u8], dirty: &[(u64, u64)], about: &str) -> Updated {
        let mut done = Updated { objects: HashMap::new(), read: 0, loaded: 0 };
        let mut load = |id: &Id| {
            done.loaded += 1;
            recipe::decode_part(&before.objects[&(PART, *id)])
        };
        let mut source = |at: u64, out: &mut [u8]| {
            done.read += out.len();
            out.copy_from_slice(&data[at as usize..at as usize + out.len()]);
            Ok(())
        };
        let mut sink = |kind: u8, id: Id, bytes: &[u8]| {
            done.objects.insert((kind, id), bytes.to_vec());
        };
        let old = Old { size: before.size, items: &before.items, groups: &before.groups };
        let id = update(&old, data.len() as u64, dirty, &mut load, &mut source, &mut sink).unwrap();
        let after = cut(data);
        assert_eq!(id, after.id, "{about}");
        for (key, bytes) in &after.objects {
            let found = done.objects.get(key).or_else(|| before.objects.get(key));
            assert_eq!(found, Some(bytes), "{about}: kind {}", key.0);
        }
        for key in done.objects.keys() {
            assert!(after.objects.contains_key(key) || key.0 == CHUNK, "{about}: kind {} is of no use", key.0);
        }
        done
    }

    #[test]
    fn an_update_equals_a_full_cut() {
        let mut random = noise(4096 * 64, 99).into_iter();
        let mut next = move |below: usize| {
            let bytes: Vec<u8> = random.by_ref().take(8).collect();
            (u64::from_le_bytes(bytes.try_into().unwrap()) % below as u64) as usize
        };
        for round in 0..400u64 {
            let mut data = noise(50_000 + next(3_000_000), round);
            for _ in 0..next(4) {
                let start = next(data.len());
                let length = next(300_000).min(data.len() - start);
                data[start..start + length].fill(0);
            }
            let before = cut(&data);
            let mut dirty = Vec::new();
            for _ in 0..1 + next(4) {
                let start = next(data.len());
                let most = if next(3) == 0 { 200_000 } else { 20 };
                let length = (1 + next(most)).min(data.len() - start);
                let fresh = if next(2) == 0 { vec![0; length] } else { noise(length, round + 1000) };
                data[start..start + length].copy_from_slice(&fresh);
                dirty.push((start as u64, length as u64));
            }
            match next(4) {
                0 => data.truncate(1 + next(data.len())),
                1 => data.extend(noise(next(500_000), round + 5)),
                2 => data.extend(vec![0; next(500_000)]),
                _ => {}
            }
            check(&before, &data, &dirty, &format!("round {round}"));
        }
    }

    #[test]
    fn a_content_in_parts_is_updated_part_by_part() {
        let original = noise(40 << 20, 7);
        let before = cut(&original);
        assert!(before.items.len() > 1 && matches!(before.items[0], Item::Part(..)));
        let mut random = noise(8 * 200, 3).into_iter();
        let mut next = move |below: usize| {
            let bytes: Vec<u8> = random.by_ref().take(8).collect();
            (u64::from_le_bytes(bytes.try_into().unwrap()) % below as u64) as usize
        };
        for round in 0..24 {
            let mut data = original.clone();
            let start = next(data.len() - 300_000);
            let length = 1 + next(300_000);
            let fresh = if round % 2 == 0 { vec![0; length] } else { noise(length, round) };
            data[start..start + length].copy_from_slice(&fresh);
            match round % 4 {
                0 => data.truncate(1 + next(data.len())),
                1 => data.extend(noise(next(2_000_000), round)),
                _ => {}
            }
            let dirty = (start as u64, length.min(data.len().saturating_sub(start)) as u64);
            check(&before, &data, &[dirty], &format!("round {round}"));
        }
    }

    #[test]
    fn only_what_is_around_the_change_is_read() {
        let mut data = noise(64 << 20, 5);
        let before = cut(&data);
        data[40_000_000] ^= 1;
        let done = check(&before, &data, &[(40_000_000, 1)], "one byte");
        assert!(done.read < 2 << 20, "{}", done.read);
        assert!(done.loaded <= 3, "{}", done.loaded);
        let chunks = done.objects.keys().filter(|key| key.0 == CHUNK).count();
        assert!(chunks < 20, "{chunks}");
    }

    #[test]
    fn an_old_hole_is_not_read() {
        let mut data = noise(100_000, 1);
        data.resize(30 << 20, 0);
        data.extend(noise(100_000, 2));
        let before = cut(&data);
        data[20_000_000] = 7;
        let done = check(&before, &data, &[(20_000_000, 1)], "a byte in a hole");
        assert!(done.read < GROUP + (1 << 18), "{}", done.read);
    }

    #[test]
    fn many_changes_are_not_compared_with_each_other() {
        let mut data = noise(8 << 20, 11);
        let before = cut(&data);
        let dirty: Vec<(u64, u64)> = (0..data.len() as u64 - 8).step_by(50).map(|at| (at, 1)).collect();
        dirty.iter().for_each(|(at, _)| data[*at as usize] ^= 255);
        check(&before, &data, &dirty, "everywhere");
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let data = noise(3 << 20, 1);
        let before = cut(&data);
        let attempt = |size: u64, items: &[Item], groups: &[Id]| {
            let old = Old { size, items, groups };
            let mut load = |_: &Id| Ok(vec![Item::Hole(65_536)]);
            let mut source = |_: u64, out: &mut [u8]| {
                out.fill(1);
                Ok::<(), FormatError>(())
            };
            update(&old, data.len() as u64, &[(0, 1)], &mut load, &mut source, &mut |_, _, _: &[u8]| ()).is_ok()
        };
        assert!(attempt(before.size, &before.items, &before.groups));
        assert!(!attempt(before.size + 1, &before.items, &before.groups));
        assert!(!attempt(before.size, &before.items[1..], &before.groups));
        assert!(!attempt(before.size, &before.items, &before.groups[1..]));
        assert!(!attempt(before.size, &[Item::Part([0; 32], before.size)], &before.groups));
    }
}
