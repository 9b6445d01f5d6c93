//! A batch: objects on their way to the store. Compression on several threads.

use super::slabs::{Slabs, Span};
use crate::codec::ids::Id;
use std::cell::RefCell;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use zstd_safe::{CCtx, CParameter, DCtx};

pub const RAW: u8 = 0;
pub const ZSTD: u8 = 1;
const WORTH_TRYING: usize = 64;

/// An object of a batch; its bytes are in the batch's slabs.
struct Object {
    kind: u8,
    id: Id,
    bytes: Span,
}

/// Objects in the order in which they were added, each id once.
#[derive(Default)]
pub struct Objects {
    list: Vec<Object>,
    known: HashSet<Id>,
    slabs: Slabs,
    size: usize,
}

impl Objects {
    pub fn add(&mut self, kind: u8, id: Id, data: &[u8]) {
        if self.known.insert(id) {
            self.size += data.len();
            let bytes = self.slabs.add(data);
            self.list.push(Object { kind, id, bytes });
        }
    }

    pub fn holds(&self, id: &Id) -> bool {
        self.known.contains(id)
    }

    pub fn count(&self) -> usize {
        self.list.len()
    }

    /// How many bytes it holds.
    pub fn size(&self) -> usize {
        self.size
    }

    pub fn ids(&self) -> impl Iterator<Item = &Id> {
        self.list.iter().map(|object| &object.id)
    }

    pub fn kinds(&self) -> impl Iterator<Item = u8> + '_ {
        self.list.iter().map(|object| object.kind)
    }

    pub fn sizes(&self) -> impl Iterator<Item = usize> + '_ {
        self.list.iter().map(|object| object.bytes.length())
    }

    /// The kind and the bytes of one.
    pub fn get(&self, at: usize) -> Option<(u8, &[u8])> {
        self.list.get(at).map(|object| (object.kind, self.slabs.get(object.bytes)))
    }

    fn data(&self, at: usize) -> &[u8] {
        self.slabs.get(self.list[at].bytes)
    }
}

/// One object as it will be stored: its place in the batch, how, and where in the packed bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackedRow {
    pub index: usize,
    pub codec: u8,
    pub offset: usize,
    pub stored: usize,
    pub size: usize,
}

const MOST_THREADS: usize = 64;

/// Runs `work` for 0..count on `threads` threads; each takes the next number until there is none. In order.
pub fn in_parallel<T: Send>(count: usize, threads: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let run = || {
        let take = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|at| *at < count);
        std::iter::from_fn(take).map(|at| (at, work(at))).collect::<Vec<_>>()
    };
    let threads = threads.clamp(1, count.clamp(1, MOST_THREADS));
    let mut all = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(run)).collect();
        let mut all = run();
        all.extend(others.into_iter().flat_map(|other| other.join().expect("a worker panicked")));
        all
    });
    all.sort_unstable_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, result)| result).collect()
}

/// What one worker made of a few objects that follow each other.
struct Stretch {
    /// codec and stored length of each
    rows: Vec<(u8, usize)>,
    stored: Vec<u8>,
}

/// Objects as they will be stored: a row for each, and their bytes, to be joined.
pub struct Compressed {
    pub rows: Vec<PackedRow>,
    pub stored: Vec<Vec<u8>>,
}

/// Compress some objects of a batch; `which` must be places in it.
pub fn compress(objects: &Objects, which: &[usize], level: i32, threads: usize) -> Compressed {
    let stretches = stretches(objects, which);
    let done =
        in_parallel(stretches.len(), threads, |at| compress_stretch(objects, &which[stretches[at].clone()], level));
    let mut rows = Vec::with_capacity(which.len());
    let mut offset = 0;
    for (index, (codec, stored)) in which.iter().zip(done.iter().flat_map(|stretch| &stretch.rows)) {
        let size = objects.list[*index].bytes.length();
        rows.push(PackedRow { index: *index, codec: *codec, offset, stored: *stored, size });
        offset += stored;
    }
    Compressed { rows, stored: done.into_iter().map(|stretch| stretch.stored).collect() }
}

/// Enough for a worker to be busy for a millisecond, little enough that all end at about the same time.
fn stretches(objects: &Objects, which: &[usize]) -> Vec<Range<usize>> {
    const ENOUGH: usize = 192 << 10;
    let (mut found, mut start, mut size) = (Vec::new(), 0, 0);
    for (at, index) in which.iter().enumerate() {
        size += objects.list[*index].bytes.length();
        if size >= ENOUGH || at + 1 == which.len() {
            found.push(start..at + 1);
            (start, size) = (at + 1, 0);
        }
    }
    found
}

/// One level more is worth its time on large chunks only: small ones get another, slower search there.
const LARGE: usize = 32 << 10;

fn compress_stretch(objects: &Objects, which: &[usize], level: i32) -> Stretch {
    thread_local! {
        static CONTEXT: RefCell<CCtx<'static>> = RefCell::new(CCtx::create());
    }
    CONTEXT.with_borrow_mut(|context| {
        // Neither can fail but for a level out of range, which zstd then clamps; the size is in the object's row.
        let _ = context.set_parameter(CParameter::ContentSizeFlag(false));
        let size: usize = which.iter().map(|at| objects.list[*at].bytes.length()).sum();
        let mut stretch = Stretch { rows: Vec::with_capacity(which.len()), stored: Vec::with_capacity(size) };
        for at in which {
            let more = i32::from(objects.list[*at].bytes.length() > LARGE);
            let _ = context.set_parameter(CParameter::CompressionLevel(level + more));
            let row = compress_one(context, objects.data(*at), &mut stretch.stored);
            stretch.rows.push(row);
        }
        stretch
    })
}

/// Append an object as it is to be stored: its codec and length.
fn compress_one(context: &mut CCtx, data: &[u8], out: &mut Vec<u8>) -> (u8, usize) {
    if data.len() >= WORTH_TRYING {
        // No more room than it may take: what does not pay ends there.
        let most = data.len() - data.len() / 64;
        let start = out.len();
        out.resize(start + most, 0);
        let length = context.compress2(&mut out[start..], data).unwrap_or(most);
        out.truncate(start + length);
        if length < most {
            return (ZSTD, length);
        }
        out.truncate(start);
    }
    out.extend_from_slice(data);
    (RAW, data.len())
}

/// Stored bytes as they were put. None unless they give exactly `size` bytes.
pub fn decompress(data: &[u8], codec: u8, size: usize) -> Option<Vec<u8>> {
    match codec {
        RAW => (data.len() == size).then(|| data.to_vec()),
        ZSTD if size <= crate::codec::cbor::LONGEST => {
            thread_local! {
                static CONTEXT: RefCell<DCtx<'static>> = RefCell::new(DCtx::create());
            }
            let mut out = Vec::with_capacity(size);
            let length = CONTEXT.with_borrow_mut(|context| context.decompress(&mut out, data)).ok()?;
            (length == size).then_some(out)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::ids::content_id;

    fn filled(all: impl Iterator<Item = Vec<u8>>) -> Objects {
        let mut objects = Objects::default();
        all.for_each(|data| objects.add(0, content_id(&data), &data));
        objects
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn what_is_compressed_comes_back_and_damage_is_noticed() {
        let objects = filled((0..100u8).map(|i| vec![i; 1000 * (usize::from(i) + 1)]));
        let which: Vec<usize> = (0..100).rev().collect();
        let packed = compress(&objects, &which, 3, 3);
        let stored = packed.stored.concat();
        assert_eq!(packed.rows.iter().map(|row| row.index).collect::<Vec<_>>(), which);
        for row in &packed.rows {
            let data = &stored[row.offset..row.offset + row.stored];
            assert_eq!(row.codec, ZSTD);
            assert_eq!(decompress(data, row.codec, row.size).as_deref(), Some(objects.data(row.index)));
            assert_eq!(decompress(data, row.codec, row.size - 1), None);
            assert_eq!(decompress(data, row.codec, row.size + 1), None);
        }
        assert_eq!(decompress(b"not a frame", ZSTD, 10), None);
        assert_eq!(decompress(b"", 2, 0), None);
    }

    #[test]
    fn what_does_not_get_smaller_is_stored_as_it_is() {
        let mut almost = noise(64_000);
        almost.extend([0; 1000]); // saves less than a 64th
        let objects = filled([noise(63), vec![7; 63], noise(262_144), almost, vec![7; 64], vec![]].into_iter());
        let packed = compress(&objects, &[0, 1, 2, 3, 4, 5], 3, 1);
        assert_eq!(packed.rows.iter().map(|row| row.codec).collect::<Vec<_>>(), [RAW, RAW, RAW, RAW, ZSTD, RAW]);
        let stored = packed.stored.concat();
        for row in packed.rows.iter().filter(|row| row.codec == RAW) {
            assert_eq!(&stored[row.offset..row.offset + row.stored], objects.data(row.index));
        }
    }

    #[test]
    fn an_id_is_kept_once() {
        let objects = filled([vec![1], vec![2], vec![1]].into_iter());
        assert_eq!((objects.count(), objects.size()), (2, 2));
    }

    #[test]
    fn hostile_frames_are_refused_within_their_size() {
        let data = vec![9u8; 100_000];
        let mut frame = Vec::with_capacity(200_000);
        zstd_safe::compress(&mut frame, &data, 3).unwrap();
        for at in 0..frame.len() {
            for bit in 0..8 {
                let mut changed = frame.clone();
                changed[at] ^= 1 << bit;
                if let Some(out) = decompress(&changed, ZSTD, data.len()) {
                    assert_eq!(out.len(), data.len());
                }
            }
            assert_eq!(decompress(&frame[..at], ZSTD, data.len()), None);
        }
        assert_eq!(decompress(&frame, ZSTD, usize::MAX), None);
    }
}
