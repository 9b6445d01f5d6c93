//! A content that changed in places: its new id and recipe from the old ones and what is around the changes.
//!
//! The result equals cutting it anew. Why re-cutting may start and stop where it does: docs/dev/chunking.md.

use super::content::{write_down, ContentWriter, Sink};
use super::cut::{Piece, Segmenter, PAGE, SHORTEST_HOLE, SMALL};
use super::groups::{self, GROUP};
use super::recipe::Item;
use crate::codec::ids::{content_id, Id, CHUNK};
use std::io;

/// Reads the content as it is now, at an offset, exactly that many bytes.
pub trait Source: FnMut(u64, &mut [u8]) -> io::Result<()> {}
impl<T: FnMut(u64, &mut [u8]) -> io::Result<()>> Source for T {}

/// What is known of the content before it changed. No items: nothing, cut it anew.
pub struct Old<'a> {
    pub size: u64,
    pub items: &'a [Item],
    pub groups: &'a [Id],
}

/// A zero run that reaches a change from before is shorter than a hole, or it is one: so far back cuts may move.
const MARGIN: u64 = SHORTEST_HOLE + 2 * PAGE as u64;

/// The new id of a content of `size` bytes; `dirty` are (offset, length) of what may have changed, growth included.
pub fn update(
    old: &Old,
    size: u64,
    dirty: &[(u64, u64)],
    source: &mut impl Source,
    sink: &mut impl Sink,
) -> io::Result<Id> {
    if old.size <= SMALL as u64 || size <= SMALL as u64 || old.items.is_empty() {
        return anew(size, source, sink);
    }
    let dirty = merged(old.size, size, dirty);
    let values = rehash(old, size, &dirty, source)?;
    let items = recut(old, size, &dirty, source, sink)?;
    let id = match &values {
        Some(values) => groups::root(values),
        None => {
            let mut data = vec![0; size as usize];
            source(0, &mut data)?;
            content_id(&data)
        }
    };
    write_down(&id, size, &items, values.as_deref(), sink);
    Ok(id)
}

fn anew(size: u64, source: &mut impl Source, sink: &mut impl Sink) -> io::Result<Id> {
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
fn merged(old_size: u64, size: u64, dirty: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> =
        dirty.iter().map(|(start, length)| (*start, start.saturating_add(*length).min(size))).collect();
    if old_size != size {
        // The last byte that both have may have ended a page or a chunk.
        ranges.push((old_size.min(size).saturating_sub(1), size));
    }
    ranges.retain(|(start, stop)| start < stop);
    ranges.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (start, stop) in ranges {
        match joined.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(stop),
            _ => joined.push((start, stop)),
        }
    }
    joined
}

/// The chaining values of the new content's groups; none for a content of one group.
fn rehash(old: &Old, size: u64, dirty: &[(u64, u64)], source: &mut impl Source) -> io::Result<Option<Vec<Id>>> {
    let group = GROUP as u64;
    if size <= group {
        return Ok(None);
    }
    let count = size.div_ceil(group);
    let mut values = old.groups.to_vec();
    let known = values.len() as u64;
    values.resize(count as usize, [0; 32]);
    let mut stale: Vec<u64> = (known..count).collect();
    if known == 0 {
        stale = (0..count).collect();
    }
    for (start, stop) in dirty {
        stale.extend(start / group..=(stop - 1) / group);
    }
    stale.sort_unstable();
    stale.dedup();
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
fn recut(
    old: &Old,
    size: u64,
    dirty: &[(u64, u64)],
    source: &mut impl Source,
    sink: &mut impl Sink,
) -> io::Result<Vec<Item>> {
    let ends: Vec<u64> = old
        .items
        .iter()
        .scan(0, |end, item| {
            *end += item.length();
            Some(*end)
        })
        .collect();
    let mut items: Vec<Item> = Vec::with_capacity(old.items.len() + 16);
    let mut next = 0; // the first old item that has not been dealt with
    let mut at = 0; // the offset at which it starts, and up to which `items` are right
    for (index, (start, stop)) in dirty.iter().enumerate() {
        if at >= *stop + MARGIN {
            continue;
        }
        let back = start.saturating_sub(MARGIN);
        while next < ends.len() && ends[next] <= back {
            items.push(old.items[next]);
            at = ends[next];
            next += 1;
        }
        (next, at) = recut_run(old, &ends, at, size, &dirty[index..], source, &mut items, sink)?;
    }
    items.extend_from_slice(&old.items[next.min(old.items.len())..]);
    Ok(items)
}

/// Cut from `at` on until beyond the changes a new cut meets an old one: (the old item that goes on there, where).
#[allow(clippy::too_many_arguments)]
fn recut_run(
    old: &Old,
    ends: &[u64],
    at: u64,
    size: u64,
    dirty: &[(u64, u64)],
    source: &mut impl Source,
    items: &mut Vec<Item>,
    sink: &mut impl Sink,
) -> io::Result<(usize, u64)> {
    const STEP: usize = 64 << 10;
    let mut segmenter = Segmenter::resume(at);
    let mut buffer = vec![0; STEP];
    let (mut fed, mut cut) = (at, at);
    let mut met = None;
    while fed < size && met.is_none() {
        let step = (size - fed).min(STEP as u64) as usize;
        source(fed, &mut buffer[..step])?;
        fed += step as u64;
        let mut emit = |piece: Piece| {
            if met.is_some() {
                return;
            }
            cut += take(piece, items, sink);
            // Far enough behind one change, and before the next begins to matter.
            let quiet = dirty.iter().all(|(start, stop)| cut >= stop + MARGIN || cut + MARGIN <= *start)
                && dirty.first().is_some_and(|(_, stop)| cut >= stop + MARGIN);
            if quiet && cut < old.size.min(size) {
                if let Ok(found) = ends.binary_search(&cut) {
                    met = Some((found + 1, cut));
                }
            }
        };
        segmenter.feed(&buffer[..step], &mut emit);
    }
    if let Some(met) = met {
        return Ok(met);
    }
    segmenter.finish(&mut |piece| cut += take(piece, items, sink));
    Ok((old.items.len(), size))
}

fn take(piece: Piece, items: &mut Vec<Item>, sink: &mut impl Sink) -> u64 {
    match piece {
        Piece::Chunk(bytes) => {
            let id = content_id(bytes);
            items.push(Item::Chunk(id, bytes.len() as u64));
            sink(CHUNK, id, bytes.to_vec());
            bytes.len() as u64
        }
        Piece::Hole(length) => {
            items.push(Item::Hole(length));
            length
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::recipe;
    use crate::codec::ids::{PART, RECIPE};
    use std::collections::HashMap;

    fn noise(length: usize, seed: u64) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    struct Cut {
        id: Id,
        items: Vec<Item>,
        groups: Vec<Id>,
        recipe: Option<Vec<u8>>,
    }

    fn cut(data: &[u8]) -> Cut {
        let mut parts = HashMap::new();
        let mut recipe = None;
        let mut writer = ContentWriter::default();
        let mut sink = |kind: u8, id: Id, bytes: Vec<u8>| {
            if kind == PART {
                parts.insert(id, bytes);
            } else if kind == RECIPE {
                recipe = Some(bytes);
            }
        };
        writer.feed(data, &mut sink);
        let (id, _) = writer.finish(&mut sink);
        let (mut items, mut groups) = (Vec::new(), Vec::new());
        if let Some(bytes) = &recipe {
            let decoded = recipe::decode(&id, bytes).unwrap();
            for item in decoded.items {
                match item {
                    Item::Part(part, _) => items.extend(recipe::decode_part(&parts[&part]).unwrap()),
                    other => items.push(other),
                }
            }
            groups = decoded.groups.unwrap_or_default().chunks(32).map(|id| id.try_into().unwrap()).collect();
        }
        Cut { id, items, groups, recipe }
    }

    #[test]
    fn an_update_equals_a_full_cut() {
        let mut random = noise(4096 * 16, 99).into_iter();
        let mut next = move |below: usize| {
            let bytes: Vec<u8> = random.by_ref().take(8).collect();
            let number = u64::from_le_bytes(bytes.try_into().unwrap_or([7; 8]));
            (number % below as u64) as usize
        };
        for round in 0..300u64 {
            let mut data = noise(200_000 + next(3_000_000), round);
            for _ in 0..next(4) {
                let start = next(data.len());
                let length = next(300_000).min(data.len() - start);
                data[start..start + length].fill(0);
            }
            let before = cut(&data);
            let old_size = data.len() as u64;
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
            let after = cut(&data);
            let mut recipe = None;
            let old = Old { size: old_size, items: &before.items, groups: &before.groups };
            let mut source = |at: u64, out: &mut [u8]| {
                out.copy_from_slice(&data[at as usize..at as usize + out.len()]);
                Ok(())
            };
            let id = update(&old, data.len() as u64, &dirty, &mut source, &mut |kind, _, bytes| {
                if kind == RECIPE {
                    recipe = Some(bytes);
                }
            })
            .unwrap();
            assert_eq!(id, after.id, "round {round}");
            assert_eq!(recipe, after.recipe, "round {round}");
        }
    }

    #[test]
    fn only_what_is_around_the_change_is_read() {
        let mut data = noise(64 << 20, 5);
        let before = cut(&data);
        data[40_000_000] ^= 1;
        let mut read = 0;
        let old = Old { size: data.len() as u64, items: &before.items, groups: &before.groups };
        let mut source = |at: u64, out: &mut [u8]| {
            read += out.len();
            out.copy_from_slice(&data[at as usize..at as usize + out.len()]);
            Ok(())
        };
        let id = update(&old, data.len() as u64, &[(40_000_000, 1)], &mut source, &mut |_, _, _| ()).unwrap();
        assert_eq!(id, content_id(&data));
        assert!(read < 3 << 20, "{read}");
    }
}
