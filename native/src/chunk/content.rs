//! A content on its way into objects: hashed, cut, and written down as chunks, parts and a recipe.

use super::cut::{Piece, Segmenter};
use super::groups::GroupHasher;
use super::recipe::{self, Item};
use crate::codec::ids::{content_id, Id, CHUNK, RECIPE};

/// Takes the objects of a content as they are found: kind, id, bytes.
pub trait Sink: FnMut(u8, Id, &[u8]) {}
impl<T: FnMut(u8, Id, &[u8])> Sink for T {}

/// Hashed, then cut, while it is still in the processor's cache.
const STEP: usize = 256 << 10;

/// Content that arrives in pieces of any length.
#[derive(Default)]
pub struct ContentWriter {
    hasher: GroupHasher,
    segmenter: Segmenter,
    items: Vec<Item>,
}

/// Emits a chunk's bytes, and notes the item.
fn keep<'a>(items: &'a mut Vec<Item>, sink: &'a mut impl Sink) -> impl FnMut(Piece) + 'a {
    move |piece| match piece {
        Piece::Chunk(bytes) => {
            let id = content_id(bytes);
            items.push(Item::Chunk(id, bytes.len() as u64));
            sink(CHUNK, id, bytes);
        }
        Piece::Hole(length) => items.push(Item::Hole(length)),
    }
}

impl ContentWriter {
    pub fn feed(&mut self, data: &[u8], sink: &mut impl Sink) {
        let mut emit = keep(&mut self.items, sink);
        for step in data.chunks(STEP) {
            self.hasher.update(step);
            self.segmenter.feed(step, &mut emit);
        }
    }

    pub fn feed_zeros(&mut self, length: u64, sink: &mut impl Sink) {
        self.hasher.update_zeros(length);
        self.segmenter.feed_zeros(length, &mut keep(&mut self.items, sink));
    }

    pub fn total(&self) -> u64 {
        self.hasher.total()
    }

    /// The content's id and size; nothing is emitted for an empty content.
    pub fn finish(self, sink: &mut impl Sink) -> (Id, u64) {
        let ContentWriter { hasher, segmenter, mut items } = self;
        let size = hasher.total();
        segmenter.finish(&mut keep(&mut items, sink));
        let (id, groups) = hasher.finish();
        write_down(&id, size, &items, groups.as_deref(), sink);
        (id, size)
    }
}

/// Emit the parts and the recipe of a content, if it needs one.
pub fn write_down(id: &Id, size: u64, items: &[Item], groups: Option<&[Id]>, sink: &mut impl Sink) {
    if size == 0 || matches!(items, [Item::Chunk(..)]) {
        return;
    }
    let data = recipe::encode(id, size, items, groups, sink);
    sink(RECIPE, *id, &data);
}

/// A content that is all there. One of at most 64 KiB is hashed once.
pub fn cut_bytes(data: &[u8], sink: &mut impl Sink) -> (Id, u64) {
    if data.len() <= super::cut::SMALL {
        let id = content_id(data);
        if !data.is_empty() {
            sink(CHUNK, id, data);
        }
        return (id, data.len() as u64);
    }
    let mut writer = ContentWriter::default();
    writer.feed(data, sink);
    writer.finish(sink)
}
