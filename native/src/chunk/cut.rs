//! Where content is cut: holes first, then FastCDC within the segments between them.
//!
//! The cuts are a function of the bytes alone, however they arrive: `Segmenter` may be fed any lengths.

use std::sync::OnceLock;

pub const PAGE: usize = 4096;
pub const SMALL: usize = 65_536;
pub const SHORTEST_HOLE: u64 = 65_536;
pub const MIN: usize = 16_384;
pub const NORMAL: usize = 49_152;
pub const MAX: usize = 262_144;
const STRICT: u64 = !0 << (64 - 18);
const LOOSE: u64 = !0 << (64 - 14);
/// So many bytes decide a gear hash: older ones have been shifted out.
const WINDOW: usize = 64;
/// The two halves of a block are hashed side by side: the steps of one hash wait for each other.
const HALF: usize = 2048;

type Gear = [u64; 256];

fn gear() -> &'static Gear {
    static GEAR: OnceLock<Gear> = OnceLock::new();
    GEAR.get_or_init(|| {
        std::array::from_fn(|byte| {
            let hash = blake3::hash(&[byte as u8]);
            u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("8 of 32 bytes"))
        })
    })
}

fn step(gear: &Gear, hash: u64, byte: u8) -> u64 {
    (hash << 1).wrapping_add(gear[usize::from(byte)])
}

/// Go on hashing: how many bytes up to the first hash without a bit of `mask` (None: there is none), and that hash.
fn find(gear: &Gear, mut hash: u64, data: &[u8], mask: u64) -> (Option<usize>, u64) {
    for (at, byte) in data.iter().enumerate() {
        hash = step(gear, hash, *byte);
        if hash & mask == 0 {
            return (Some(at + 1), hash);
        }
    }
    (None, hash)
}

/// The same, faster: a block's second half is hashed together with the first, from the window before it.
fn find_fast(gear: &Gear, mut hash: u64, data: &[u8], mask: u64) -> (Option<usize>, u64) {
    let blocks = data.chunks_exact(2 * HALF);
    let rest = blocks.remainder();
    for (index, block) in blocks.enumerate() {
        let (one, two) = block.split_at(HALF);
        let mut second = one[HALF - WINDOW..].iter().fold(0, |hash, byte| step(gear, hash, *byte));
        for (at, (left, right)) in one.iter().zip(two).enumerate() {
            hash = step(gear, hash, *left);
            second = step(gear, second, *right);
            if hash & mask == 0 {
                return (Some(index * 2 * HALF + at + 1), hash);
            }
            if second & mask == 0 {
                // The first in the second half, unless there is one in the rest of the first half.
                return match find(gear, hash, &one[at + 1..], mask) {
                    (Some(more), hash) => (Some(index * 2 * HALF + at + 1 + more), hash),
                    (None, _) => (Some(index * 2 * HALF + HALF + at + 1), second),
                };
            }
        }
        hash = second;
    }
    let (found, hash) = find(gear, hash, rest, mask);
    (found.map(|at| data.len() - rest.len() + at), hash)
}

/// FastCDC on one chunk whose bytes may still be arriving.
#[derive(Default)]
struct Cutter {
    /// How many bytes of the chunk have been looked at, and the gear hash there.
    seen: usize,
    hash: u64,
}

impl Cutter {
    /// The chunk's length, if it ends within `data`: all that has come of it.
    fn advance(&mut self, data: &[u8]) -> Option<usize> {
        let gear = gear();
        self.seen = self.seen.max(MIN.min(data.len()));
        for (limit, mask) in [(NORMAL, STRICT), (MAX, LOOSE)] {
            let stop = limit.min(data.len());
            if self.seen >= MIN && self.seen < stop {
                let (found, hash) = find_fast(gear, self.hash, &data[self.seen..stop], mask);
                if let Some(length) = found {
                    return Some(self.seen + length);
                }
                (self.seen, self.hash) = (stop, hash);
            }
        }
        (self.seen == MAX).then_some(MAX)
    }
}

fn is_page_start(offset: u64) -> bool {
    offset & (PAGE as u64 - 1) == 0
}

/// Whether all bytes are zero. Nearly free where they are not: the first one tells.
pub fn is_zero(data: &[u8]) -> bool {
    if data.first().is_some_and(|first| *first != 0) {
        return false;
    }
    let mut blocks = data.chunks_exact(64);
    blocks.all(|block| block.iter().fold(0, |bits, byte| bits | byte) == 0)
        && blocks.remainder().iter().all(|byte| *byte == 0)
}

/// A piece of content, in the order of the content.
pub enum Piece<'a> {
    Chunk(&'a [u8]),
    Hole(u64),
}

/// Cuts a stream. Holds back less than a chunk and a hole's beginning: under 330 KB.
#[derive(Default)]
pub struct Segmenter {
    /// Bytes that are in no chunk or hole yet: `held[front..]`, the first of them at offset `start`.
    held: Vec<u8>,
    front: usize,
    place: Place,
    /// More has come than may be one chunk whatever it holds, or we began in the middle.
    large: bool,
}

/// Where in the content the cutting has got to.
#[derive(Default)]
struct Place {
    /// The offset behind the last piece that was emitted, or in a hole behind what is surely in it.
    start: u64,
    cutter: Cutter,
    /// Up to where pages have been looked at.
    scanned: u64,
    /// How many bytes before `scanned` are zero pages (in a segment).
    zeros: u64,
    /// Where the hole began that we are in.
    hole: Option<u64>,
}

impl Segmenter {
    /// From the middle of a content of more than `SMALL` bytes, where a chunk or a hole starts.
    pub fn resume(offset: u64) -> Self {
        let place = Place { start: offset, scanned: offset, ..Place::default() };
        Segmenter { place, large: true, ..Segmenter::default() }
    }

    /// Whether all that was fed is cut, and what comes next may belong to the hole that is open.
    pub fn is_in_hole(&self) -> bool {
        self.place.hole.is_some()
    }

    pub fn feed(&mut self, mut data: &[u8], emit: &mut impl FnMut(Piece)) {
        if !self.large {
            if self.held.len() + data.len() <= SMALL {
                self.held.extend_from_slice(data);
                return;
            }
            self.large = true;
        }
        // What is held is completed with a little of the data until a cut lies within the data: the rest stays there.
        while self.front < self.held.len() && !data.is_empty() {
            let before = self.held.len();
            let (more, rest) = data.split_at(data.len().min(SMALL));
            self.held.extend_from_slice(more);
            self.front += self.place.advance(&self.held[self.front..], false, emit);
            if self.front >= before {
                data = &data[self.front - before..];
                self.held.clear();
                self.front = 0;
            } else {
                data = rest;
                self.compact();
            }
        }
        if !data.is_empty() {
            let used = self.place.advance(data, false, emit);
            self.held.clear();
            self.front = 0;
            self.held.extend_from_slice(&data[used..]);
        }
    }

    /// Moving the rest to the front only when that frees more than it moves keeps small feeds linear.
    fn compact(&mut self) {
        if self.front > self.held.len() / 2 {
            self.held.drain(..self.front);
            self.front = 0;
        }
    }

    /// Like feeding `length` zero bytes, without looking at them where that is not needed.
    pub fn feed_zeros(&mut self, mut length: u64, emit: &mut impl FnMut(Piece)) {
        const ZEROS: [u8; PAGE] = [0; PAGE];
        while length > 0 {
            let page = PAGE as u64;
            if self.place.hole.is_some() && self.front == self.held.len() && is_page_start(self.place.scanned) {
                let pages = length - length % page;
                self.place.start += pages;
                self.place.scanned += pages;
                length -= pages;
            }
            let end = self.place.start + (self.held.len() - self.front) as u64;
            let step = length.min(page - end % page);
            self.feed(&ZEROS[..step as usize], emit);
            length -= step;
        }
    }

    pub fn finish(mut self, emit: &mut impl FnMut(Piece)) {
        if self.large {
            self.place.advance(&self.held[self.front..], true, emit);
            if let Some(began) = self.place.hole {
                emit(Piece::Hole(self.place.start - began));
            }
        } else if !self.held.is_empty() {
            emit(Piece::Chunk(&self.held));
        }
    }
}

impl Place {
    /// Emit what is decided by `data`, the content's bytes from `start` on: how many of them need not come again.
    fn advance(&mut self, data: &[u8], finished: bool, emit: &mut impl FnMut(Piece)) -> usize {
        let base = self.start;
        let end = base + data.len() as u64;
        let page = PAGE as u64;
        while self.scanned < end {
            let page_end = (self.scanned / page + 1) * page;
            if page_end > end && !finished {
                break;
            }
            let stop = page_end.min(end);
            let bytes = &data[(self.scanned - base) as usize..(stop - base) as usize];
            if is_page_start(self.scanned) && is_zero(bytes) {
                self.take_zero_page(data, base, stop, emit);
            } else {
                if let Some(began) = self.hole.take() {
                    emit(Piece::Hole(self.scanned - began));
                }
                self.zeros = 0;
            }
            self.scanned = stop;
        }
        if self.hole.is_none() {
            self.cut(data, base, self.scanned - self.zeros, emit);
            if finished {
                self.end_segment(data, base, end, emit);
            }
        }
        (self.start - base) as usize
    }

    fn take_zero_page(&mut self, data: &[u8], base: u64, stop: u64, emit: &mut impl FnMut(Piece)) {
        self.zeros += stop - self.scanned;
        if self.hole.is_none() && self.zeros >= SHORTEST_HOLE {
            let began = stop - self.zeros;
            self.cut(data, base, began, emit);
            self.end_segment(data, base, began, emit);
            self.hole = Some(began);
        }
        if self.hole.is_some() {
            self.start = stop;
            self.zeros = 0;
        }
    }

    /// Emit the chunks that end before `limit`, up to where the segment surely goes.
    fn cut(&mut self, data: &[u8], base: u64, limit: u64, emit: &mut impl FnMut(Piece)) {
        while self.start < limit {
            let rest = &data[(self.start - base) as usize..(limit - base) as usize];
            let Some(length) = self.cutter.advance(rest) else { return };
            self.emit_chunk(&rest[..length], emit);
        }
    }

    /// What is left of a segment that ends at `limit` is its last chunk.
    fn end_segment(&mut self, data: &[u8], base: u64, limit: u64, emit: &mut impl FnMut(Piece)) {
        self.cut(data, base, limit, emit);
        if self.start < limit {
            self.emit_chunk(&data[(self.start - base) as usize..(limit - base) as usize], emit);
        }
    }

    fn emit_chunk(&mut self, bytes: &[u8], emit: &mut impl FnMut(Piece)) {
        emit(Piece::Chunk(bytes));
        self.start += bytes.len() as u64;
        self.cutter = Cutter::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(length: usize, seed: u8) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
        bytes
    }

    fn pieces(data: &[u8], step: usize) -> Vec<(bool, u64)> {
        let mut found = Vec::new();
        let mut emit = |piece: Piece| match piece {
            Piece::Chunk(bytes) => found.push((true, bytes.len() as u64)),
            Piece::Hole(length) => found.push((false, length)),
        };
        let mut segmenter = Segmenter::default();
        data.chunks(step).for_each(|part| segmenter.feed(part, &mut emit));
        segmenter.finish(&mut emit);
        found
    }

    /// The page's rule, word for word: slow, and of the whole content.
    fn by_the_book(data: &[u8]) -> Vec<(bool, u64)> {
        if data.len() <= SMALL {
            return if data.is_empty() { vec![] } else { vec![(true, data.len() as u64)] };
        }
        let (mut found, mut segment, mut at) = (Vec::new(), 0, 0);
        while at < data.len() {
            let stop = data[at..].chunks(PAGE).take_while(|page| page.iter().all(|byte| *byte == 0)).map(<[u8]>::len);
            let zeros: usize = stop.sum();
            if zeros >= 65_536 {
                cut_by_the_book(&data[segment..at], &mut found);
                found.push((false, zeros as u64));
                segment = at + zeros;
            }
            at += zeros.max(PAGE);
        }
        cut_by_the_book(&data[segment.min(data.len())..], &mut found);
        found
    }

    fn cut_by_the_book(mut segment: &[u8], found: &mut Vec<(bool, u64)>) {
        while !segment.is_empty() {
            let (mut hash, mut length) = (0u64, segment.len().min(262_144));
            for (at, byte) in segment.iter().enumerate().take(length).skip(16_384) {
                hash = (hash << 1).wrapping_add(gear()[usize::from(*byte)]);
                let bits = if at < 49_152 { 18 } else { 14 };
                if hash >> (64 - bits) == 0 {
                    length = at + 1;
                    break;
                }
            }
            found.push((true, length as u64));
            segment = &segment[length..];
        }
    }

    #[test]
    fn cuts_are_those_of_the_book() {
        for round in 0..60u64 {
            let seed = round as u8;
            let random =
                noise(64, seed).chunks(4).map(|four| u32::from_le_bytes(four.try_into().unwrap())).collect::<Vec<_>>();
            let mut data = noise(random[0] as usize % 2_000_000, seed);
            for pair in random[1..9].chunks(2) {
                let start = pair[0] as usize % (data.len() + 1);
                let start = if pair[0] & 1 << 31 == 0 { start } else { start / PAGE * PAGE };
                let length = (pair[1] as usize % 150_000).min(data.len() - start);
                data[start..start + length].fill(0);
            }
            let expected = by_the_book(&data);
            assert_eq!(pieces(&data, data.len().max(1)), expected, "round {round}");
            assert_eq!(pieces(&data, 1 + random[10] as usize % 200_000), expected, "round {round}");
            assert_eq!(pieces(&data, 1 + random[11] as usize % 9_000), expected, "round {round}");
        }
    }

    #[test]
    fn little_is_held_back() {
        let data = noise(4 << 20, 9);
        for step in [1000, 70_000, 1 << 20] {
            let mut segmenter = Segmenter::default();
            for part in data.chunks(step) {
                segmenter.feed(part, &mut |_| ());
                assert!(segmenter.held.len() - segmenter.front < MAX + SMALL);
                assert!(segmenter.held.capacity() <= 2 * (MAX + 2 * SMALL), "{}", segmenter.held.capacity());
            }
        }
    }

    fn sample() -> Vec<u8> {
        let mut data = noise(1_500_000, 1);
        data.extend(vec![0; 70_000]);
        data.extend(noise(5_000, 2));
        data.extend(vec![0; 300_001]);
        data.extend(noise(400_000, 3));
        data.extend(vec![0; 100_000]);
        data
    }

    #[test]
    fn cuts_do_not_depend_on_how_the_bytes_arrive() {
        let data = sample();
        let whole = pieces(&data, data.len());
        assert_eq!(whole.iter().map(|piece| piece.1).sum::<u64>(), data.len() as u64);
        assert!(whole.iter().filter(|piece| !piece.0).count() >= 2);
        for step in [1000, 4096, 5001, 65_536, 262_144, 1 << 20] {
            assert_eq!(pieces(&data, step), whole, "{step}");
        }
    }

    #[test]
    fn small_content_is_one_chunk_even_of_zeros() {
        assert_eq!(pieces(&[0; SMALL], 100), [(true, SMALL as u64)]);
        assert_eq!(pieces(&[0; SMALL + 1], 100), [(false, SMALL as u64 + 1)]);
        assert_eq!(pieces(&noise(SMALL, 1), 7), [(true, SMALL as u64)]);
        assert_eq!(pieces(&[], 1), []);
    }

    #[test]
    fn fed_zeros_are_zeros() {
        let mut data = noise(100_001, 4);
        data.extend(vec![0; 500_000]);
        data.extend(noise(100_000, 5));
        let mut found = Vec::new();
        let mut emit = |piece: Piece| match piece {
            Piece::Chunk(bytes) => found.push((true, bytes.len() as u64)),
            Piece::Hole(length) => found.push((false, length)),
        };
        let mut segmenter = Segmenter::default();
        segmenter.feed(&data[..100_001], &mut emit);
        segmenter.feed_zeros(500_000, &mut emit);
        segmenter.feed(&data[600_001..], &mut emit);
        segmenter.finish(&mut emit);
        assert_eq!(found, pieces(&data, 4096));
    }

    #[test]
    fn chunks_are_near_the_size_that_the_format_aims_at() {
        let found = pieces(&noise(32 << 20, 6), 1 << 20);
        let mean = (32 << 20) / found.len();
        assert!((50_000..72_000).contains(&mean), "{mean}");
    }
}
