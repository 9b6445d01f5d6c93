//! Memory for the bytes of a batch: large pieces that are used again, because fresh pages cost more than the copy.

use std::sync::Mutex;

const SLAB: usize = 1 << 20;
const SMALLEST: usize = 16 << 10;
/// What is kept for the next batches: 32 MiB at most.
const KEPT: usize = 32;

static POOL: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// Where a run of bytes lies.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    slab: u32,
    start: u32,
    length: u32,
}

impl Span {
    pub fn length(&self) -> usize {
        self.length as usize
    }
}

/// Grows, and never moves what it holds.
#[derive(Default)]
pub struct Slabs {
    list: Vec<Vec<u8>>,
}

impl Slabs {
    /// Copy bytes in (less than 4 GiB: the longest object is 64 MiB).
    pub fn add(&mut self, data: &[u8]) -> Span {
        let fits = self.list.last().is_some_and(|slab| slab.capacity() - slab.len() >= data.len());
        if !fits {
            let slab = self.new_slab(data.len());
            self.list.push(slab);
        }
        let index = self.list.len() - 1;
        let slab = &mut self.list[index];
        let start = slab.len();
        slab.extend_from_slice(data);
        let to_u32 = |number: usize| u32::try_from(number).expect("an object is under 4 GiB");
        Span { slab: to_u32(index), start: to_u32(start), length: to_u32(data.len()) }
    }

    /// A batch of one small node should not cost a megabyte; a long one should not cost a thousand allocations.
    fn new_slab(&self, least: usize) -> Vec<u8> {
        let wanted = self.list.last().map_or(SMALLEST, |slab| slab.capacity() * 4).min(SLAB);
        if wanted == SLAB && least <= SLAB {
            if let Some(slab) = POOL.lock().ok().and_then(|mut pool| pool.pop()) {
                return slab;
            }
        }
        Vec::with_capacity(wanted.max(least))
    }

    pub fn get(&self, span: Span) -> &[u8] {
        let start = span.start as usize;
        &self.list[span.slab as usize][start..start + span.length()]
    }
}

impl Drop for Slabs {
    fn drop(&mut self) {
        let Ok(mut pool) = POOL.lock() else { return };
        for mut slab in self.list.drain(..) {
            if slab.capacity() == SLAB && pool.len() < KEPT {
                slab.clear();
                pool.push(slab);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_stay_where_they_are_and_slabs_are_used_again() {
        for round in 0..3u8 {
            let mut slabs = Slabs::default();
            let lengths = [0, 1, 20_000, 70_000, 3 << 20, 5, 1 << 20, 262_144];
            let spans: Vec<Span> = lengths.iter().map(|length| slabs.add(&vec![round; *length])).collect();
            for (span, length) in spans.iter().zip(lengths) {
                assert_eq!(slabs.get(*span), vec![round; length]);
            }
        }
    }
}
