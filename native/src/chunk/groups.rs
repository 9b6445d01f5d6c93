//! The id of a long content from the BLAKE3 chaining values of its aligned groups of 1 MiB.

use crate::codec::ids::Id;
use blake3::hazmat::{merge_subtrees_non_root, merge_subtrees_root, HasherExt, Mode};
use blake3::Hasher;

pub const GROUP: usize = 1 << 20;

/// The chaining value of one group (not of a content that is a single group).
pub fn chaining_value(index: u64, data: &[u8]) -> Id {
    let mut hasher = Hasher::new();
    hasher.set_input_offset(index * GROUP as u64);
    hasher.update(data);
    hasher.finalize_non_root()
}

/// The id of a content of two groups or more.
pub fn root(values: &[Id]) -> Id {
    let (left, right) = values.split_at(left_length(values.len()));
    *merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash).as_bytes()
}

fn subtree(values: &[Id]) -> Id {
    if values.len() == 1 {
        return values[0];
    }
    let (left, right) = values.split_at(left_length(values.len()));
    merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash)
}

/// BLAKE3's tree: the left half is the largest power of two that leaves something for the right.
fn left_length(length: usize) -> usize {
    1 << (usize::BITS - 1 - (length - 1).leading_zeros())
}

/// Hashes a stream, keeping the chaining value of each group.
pub struct GroupHasher {
    values: Vec<Id>,
    current: Hasher,
    filled: usize,
}

impl Default for GroupHasher {
    fn default() -> Self {
        GroupHasher { values: Vec::new(), current: Hasher::new(), filled: 0 }
    }
}

impl GroupHasher {
    pub fn total(&self) -> u64 {
        (self.values.len() * GROUP + self.filled) as u64
    }

    pub fn update(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if self.filled == GROUP {
                self.values.push(self.current.finalize_non_root());
                self.current = Hasher::new();
                self.current.set_input_offset((self.values.len() * GROUP) as u64);
                self.filled = 0;
            }
            let step = data.len().min(GROUP - self.filled);
            self.current.update(&data[..step]);
            self.filled += step;
            data = &data[step..];
        }
    }

    pub fn update_zeros(&mut self, mut length: u64) {
        let zeros = vec![0u8; GROUP.min(length as usize)];
        while length > 0 {
            let step = length.min(zeros.len() as u64);
            self.update(&zeros[..step as usize]);
            length -= step;
        }
    }

    /// The content's id and, for more than one group, their chaining values.
    pub fn finish(mut self) -> (Id, Option<Vec<Id>>) {
        if self.values.is_empty() {
            return (*self.current.finalize().as_bytes(), None);
        }
        self.values.push(self.current.finalize_non_root());
        (root(&self.values), Some(self.values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_give_the_plain_hash() {
        let mut data = vec![0u8; 5 * GROUP + 12345];
        blake3::Hasher::new().finalize_xof().fill(&mut data);
        for length in [0, 1, GROUP - 1, GROUP, GROUP + 1, 2 * GROUP, 3 * GROUP, 4 * GROUP + 7, data.len()] {
            let mut hasher = GroupHasher::default();
            data[..length].chunks(70_001).for_each(|part| hasher.update(part));
            let (id, groups) = hasher.finish();
            assert_eq!(id, *blake3::hash(&data[..length]).as_bytes(), "{length}");
            if let Some(groups) = groups {
                let last = groups.len() - 1;
                assert_eq!(groups[last], chaining_value(last as u64, &data[last * GROUP..length]));
            }
        }
    }
}
