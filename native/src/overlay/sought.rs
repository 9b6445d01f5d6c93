//! Looks for a path in what passes by: whether it stands there as a path, not as the beginning of a longer name.

use memchr::memmem::Finder;

pub struct Sought {
    finder: Finder<'static>,
    /// The end of what has passed: as long as the path, which may go on in the next piece.
    tail: Vec<u8>,
    pub found: bool,
}

impl Sought {
    pub fn new(path: &[u8]) -> Self {
        Sought { finder: Finder::new(path).into_owned(), tail: Vec::new(), found: false }
    }

    pub fn feed(&mut self, data: &[u8]) {
        let length = self.finder.needle().len();
        if self.found || length == 0 {
            return;
        }
        let border = data.len().min(length);
        self.tail.extend_from_slice(&data[..border]);
        self.found = self.is_in(&self.tail) || self.is_in(data);
        if data.len() >= length {
            self.tail.clear();
            self.tail.extend_from_slice(&data[data.len() - length..]);
        } else {
            let kept = self.tail.len().saturating_sub(length);
            self.tail.drain(..kept);
        }
    }

    /// Whether it was anywhere; no more comes.
    pub fn finish(&self) -> bool {
        self.found || (!self.tail.is_empty() && self.tail == self.finder.needle())
    }

    /// But for one at the very end: what follows it is not known yet.
    fn is_in(&self, data: &[u8]) -> bool {
        let length = self.finder.needle().len();
        self.finder.find_iter(data).any(|at| data.get(at + length).is_some_and(ends_a_path))
    }
}

/// In doubt it does (`/w/x.` ends a sentence, or is another name): a hit that is wrong is worse than one that is lost.
fn ends_a_path(byte: &u8) -> bool {
    !(byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-') || !byte.is_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &[u8], pieces: &[&[u8]]) -> bool {
        let mut sought = Sought::new(path);
        pieces.iter().for_each(|piece| sought.feed(piece));
        sought.finish()
    }

    #[test]
    fn a_path_is_found_wherever_pieces_are_cut() {
        let text = b"#!/w/x/bin/python\n";
        for first in 0..text.len() {
            for second in first..text.len() {
                assert!(found(b"/w/x", &[&text[..first], &text[first..second], &text[second..]]));
            }
        }
    }

    #[test]
    fn only_where_it_ends_there() {
        for (text, wanted) in [
            (&b"/w/xy"[..], false),
            (b"/w/x-1/y /w/x", true),
            (b"/w/x:", true),
            (b"'/w/x'", true),
            (b"/w/x\0", true),
            (b"/w/x.", true),
            (b"/w/x;y", true),
            (b"/w/x)", true),
            (b"/w/x_", false),
            (b"/w/x\xc3\xa4", false),
            (b"/w/", false),
            (b"", false),
        ] {
            for at in 0..=text.len() {
                assert_eq!(found(b"/w/x", &[&text[..at], &text[at..]]), wanted, "{text:?} at {at}");
            }
        }
    }
}
