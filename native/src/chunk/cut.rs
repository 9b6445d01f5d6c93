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

fn gear() -> &'static [u64; 256] {
    static GEAR: OnceLock<[u64; 256]> = OnceLock::new();
    GEAR.get_or_init(|| {
        std::array::from_fn(|byte| {
            let hash = blake3::hash(&[byte as u8]);
            u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("8 of 32 bytes"))
        })
    })
}

/// The length of the first chunk of a segment's rest; `data` is all of it or at least `MAX` bytes.
pub fn first_cut(data: &[u8]) -> usize {
    let end = data.len().min(MAX);
    if end <= MIN {
        return end;
    }
    let gear = gear();
    let mut hash = 0u64;
    let normal = end.min(NORMAL);
    for (at, byte) in data[MIN..normal].iter().enumerate() {
        hash = (hash << 1).wrapping_add(gear[usize::from(*byte)]);
        if hash & STRICT == 0 {
            return MIN + at + 1;
        }
    }
    for (at, byte) in data[normal..end].iter().enumerate() {
        hash = (hash << 1).wrapping_add(gear[usize::from(*byte)]);
        if hash & LOOSE == 0 {
            return normal + at + 1;
        }
    }
    end
}

pub fn is_zero(data: &[u8]) -> bool {
    if data.first().is_some_and(|first| *first != 0) {
        return false;
    }
    // SAFETY: any bit pattern is a u64, and align_to keeps to the slice.
    let (head, words, tail) = unsafe { data.align_to::<u64>() };
    head.iter().all(|byte| *byte == 0) && words.iter().all(|word| *word == 0) && tail.iter().all(|byte| *byte == 0)
}

/// A piece of content, in the order of the content.
pub enum Piece<'a> {
    Chunk(&'a [u8]),
    Hole(u64),
}

/// Cuts a stream. Holds back what it was last fed, a hole's beginning and one chunk at most.
pub struct Segmenter {
    /// Bytes that are in no chunk or hole yet: `held[front..]`, the first of them at offset `start`.
    held: Vec<u8>,
    front: usize,
    start: u64,
    /// Up to where pages have been looked at.
    scanned: u64,
    /// How many bytes before `scanned` are zero pages (in a segment).
    zeros: u64,
    /// Where the hole began that we are in.
    hole: Option<u64>,
    /// So little has come that it may all be one chunk.
    small: bool,
}

impl Default for Segmenter {
    fn default() -> Self {
        Segmenter { small: true, ..Segmenter::resume(0) }
    }
}

impl Segmenter {
    /// From the middle of a content of more than `SMALL` bytes, where a chunk or a hole starts.
    pub fn resume(offset: u64) -> Self {
        Segmenter { held: Vec::new(), front: 0, start: offset, scanned: offset, zeros: 0, hole: None, small: false }
    }

    /// The offset behind all that was fed.
    fn end(&self) -> u64 {
        self.start + (self.held.len() - self.front) as u64
    }

    pub fn feed(&mut self, data: &[u8], emit: &mut impl FnMut(Piece)) {
        self.held.extend_from_slice(data);
        if self.small && self.held.len() <= SMALL {
            return;
        }
        self.small = false;
        self.scan(false, emit);
        self.cut(self.scanned - self.zeros, false, emit);
        self.held.drain(..self.front);
        self.front = 0;
    }

    /// Like feeding `length` zero bytes, without looking at them where that is not needed.
    pub fn feed_zeros(&mut self, mut length: u64, emit: &mut impl FnMut(Piece)) {
        let zeros = [0u8; PAGE];
        while length > 0 {
            if self.hole.is_some() && self.held.is_empty() && self.scanned % PAGE as u64 == 0 {
                let pages = length - length % PAGE as u64;
                self.start += pages;
                self.scanned += pages;
                length -= pages;
            }
            let step = length.min(PAGE as u64);
            self.feed(&zeros[..step as usize], emit);
            length -= step;
        }
    }

    pub fn finish(mut self, emit: &mut impl FnMut(Piece)) {
        if self.small {
            if !self.held.is_empty() {
                emit(Piece::Chunk(&self.held));
            }
            return;
        }
        self.scan(true, emit);
        match self.hole {
            Some(began) => emit(Piece::Hole(self.end() - began)),
            None => self.cut(self.end(), true, emit),
        }
    }

    /// Look at the pages that are whole (or the last), and end segments and holes where they end.
    fn scan(&mut self, finished: bool, emit: &mut impl FnMut(Piece)) {
        let page = PAGE as u64;
        let end = self.end();
        while self.scanned < end {
            let page_end = (self.scanned / page + 1) * page;
            let stop = if page_end <= end {
                page_end
            } else if finished {
                end
            } else {
                break;
            };
            let from = self.front + (self.scanned - self.start) as usize;
            let bytes = &self.held[from..from + (stop - self.scanned) as usize];
            if self.scanned % page == 0 && is_zero(bytes) {
                self.zero_page(stop, emit);
            } else {
                if let Some(began) = self.hole.take() {
                    emit(Piece::Hole(self.scanned - began));
                }
                self.zeros = 0;
            }
            self.scanned = stop;
        }
    }

    fn zero_page(&mut self, stop: u64, emit: &mut impl FnMut(Piece)) {
        self.zeros += stop - self.scanned;
        if self.hole.is_none() && self.zeros >= SHORTEST_HOLE {
            let began = stop - self.zeros;
            self.cut(began, true, emit);
            self.hole = Some(began);
        }
        if self.hole.is_some() {
            self.front += (stop - self.start) as usize;
            self.start = stop;
            self.zeros = 0;
        }
    }

    /// Cut what lies before `limit`; all of it if the segment ends there.
    fn cut(&mut self, limit: u64, segment_ends: bool, emit: &mut impl FnMut(Piece)) {
        if self.hole.is_some() {
            return;
        }
        while self.start < limit && (segment_ends || limit - self.start >= MAX as u64) {
            let rest = &self.held[self.front..self.front + (limit - self.start) as usize];
            let length = first_cut(rest);
            emit(Piece::Chunk(&rest[..length]));
            self.front += length;
            self.start += length as u64;
        }
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
