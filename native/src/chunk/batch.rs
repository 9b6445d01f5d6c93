//! A batch: objects on their way to the store. Compression on several threads.

use crate::codec::ids::Id;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

pub const RAW: u8 = 0;
pub const ZSTD: u8 = 1;
const WORTH_TRYING: usize = 64;

pub struct Object {
    pub kind: u8,
    pub id: Id,
    pub data: Vec<u8>,
}

/// Objects in the order in which they were added, each id once.
#[derive(Default)]
pub struct Objects {
    pub list: Vec<Object>,
    places: HashMap<Id, ()>,
    pub bytes: usize,
}

impl Objects {
    pub fn add(&mut self, kind: u8, id: Id, data: Vec<u8>) {
        if self.places.insert(id, ()).is_none() {
            self.bytes += data.len();
            self.list.push(Object { kind, id, data });
        }
    }

    pub fn holds(&self, id: &Id) -> bool {
        self.places.contains_key(id)
    }
}

/// One object as it will be stored: its place in the batch, how, and where in the packed bytes.
#[derive(Debug, Clone, Copy)]
pub struct PackedRow {
    pub index: usize,
    pub codec: u8,
    pub offset: usize,
    pub stored: usize,
    pub size: usize,
}

struct Compressed {
    codec: u8,
    data: Vec<u8>,
}

/// Runs `work` for 0..count on `threads` threads; each takes the next number until there is none.
pub fn in_parallel<T: Send>(count: usize, threads: usize, work: impl Fn(usize, &mut Vec<(usize, T)>) + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let run = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                return done;
            }
            work(at, &mut done);
        }
    };
    let threads = threads.clamp(1, count.max(1));
    let mut all: Vec<(usize, T)> = if threads == 1 {
        run()
    } else {
        std::thread::scope(|scope| {
            let handles: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
            handles.into_iter().flat_map(|handle| handle.join().expect("a worker panicked")).collect()
        })
    };
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, item)| item).collect()
}

/// Compress some objects of a batch: rows, and the stored bytes back to back.
pub fn compress(objects: &[Object], which: &[usize], level: i32, threads: usize) -> (Vec<PackedRow>, Vec<Vec<u8>>) {
    const STEP: usize = 16; // small objects are taken several at a time
    let steps = which.len().div_ceil(STEP);
    let groups: Vec<Vec<Compressed>> = in_parallel(steps, threads, |step, done| {
        thread_local! {
            static CONTEXT: std::cell::RefCell<zstd_safe::CCtx<'static>> =
                std::cell::RefCell::new(zstd_safe::CCtx::create());
        }
        let stop = which.len().min((step + 1) * STEP);
        let mine = &which[step * STEP..stop];
        CONTEXT.with(|context| {
            let mut context = context.borrow_mut();
            done.push((step, mine.iter().map(|at| compress_one(&mut context, &objects[*at].data, level)).collect()));
        });
    });
    let (mut rows, mut stored, mut offset) = (Vec::with_capacity(which.len()), Vec::with_capacity(which.len()), 0);
    for (index, each) in which.iter().zip(groups.into_iter().flatten()) {
        let size = objects[*index].data.len();
        rows.push(PackedRow { index: *index, codec: each.codec, offset, stored: each.data.len(), size });
        offset += each.data.len();
        stored.push(each.data);
    }
    (rows, stored)
}

fn compress_one(context: &mut zstd_safe::CCtx, data: &[u8], level: i32) -> Compressed {
    if data.len() >= WORTH_TRYING {
        let mut out = Vec::with_capacity(zstd_safe::compress_bound(data.len()));
        let _ = context.set_parameter(zstd_safe::CParameter::ContentSizeFlag(false));
        let _ = context.set_parameter(zstd_safe::CParameter::CompressionLevel(level));
        if context.compress2(&mut out, data).is_ok() && out.len() < data.len() - data.len() / 64 {
            out.shrink_to_fit();
            return Compressed { codec: ZSTD, data: out };
        }
    }
    Compressed { codec: RAW, data: data.to_vec() }
}

/// Stored bytes as they were put. None unless they give exactly `size` bytes.
pub fn decompress(data: &[u8], codec: u8, size: usize) -> Option<Vec<u8>> {
    match codec {
        RAW => (data.len() == size).then(|| data.to_vec()),
        ZSTD if size <= crate::codec::cbor::LONGEST => {
            thread_local! {
                static CONTEXT: std::cell::RefCell<zstd_safe::DCtx<'static>> =
                    std::cell::RefCell::new(zstd_safe::DCtx::create());
            }
            let mut out = Vec::with_capacity(size);
            let length = CONTEXT.with(|context| context.borrow_mut().decompress(&mut out, data)).ok()?;
            (length == size).then_some(out)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compressed_comes_back_and_damage_is_noticed() {
        let mut objects = Objects::default();
        for i in 0..100u8 {
            let data = vec![i; 1000 * (usize::from(i) + 1)];
            objects.add(0, crate::codec::ids::content_id(&data), data);
        }
        let which: Vec<usize> = (0..100).collect();
        let (rows, stored) = compress(&objects.list, &which, 3, 2);
        for (row, data) in rows.iter().zip(&stored) {
            assert_eq!(decompress(data, row.codec, row.size).as_deref(), Some(&objects.list[row.index].data[..]));
            assert_eq!(decompress(data, row.codec, row.size - 1), None);
            assert_eq!(decompress(data, row.codec, row.size + 1), None);
        }
        assert_eq!(decompress(b"not a frame", ZSTD, 10), None);
    }
}
