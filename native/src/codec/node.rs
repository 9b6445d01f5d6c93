//! The nodes of prolly trees: their entries, the split rule, and what a decoder refuses.

use super::cbor::{put_array, put_bytes, put_int, put_ref, put_ref_or_null, put_unsigned, Reader, NULL};
use super::ids::{is_cut, node_id, Id};
use super::{refuse, Result};
use std::borrow::Cow;

pub const MOST_ENTRIES: usize = 256;
pub const HIGHEST_LEVEL: u64 = 31;
pub const INLINE: usize = 256;
/// What the kernel's device numbers hold: 12 and 20 bits.
pub const LARGEST_MAJOR: u64 = 0xfff;
pub const LARGEST_MINOR: u64 = 0xf_ffff;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Tree,
    Links,
    Times,
    Inodes,
    Map,
    Log,
}

impl Shape {
    pub fn of(kind: u8) -> Result<Shape> {
        Ok(match kind {
            1 => Shape::Tree,
            3 => Shape::Links,
            4 => Shape::Times,
            5 => Shape::Inodes,
            6 => Shape::Map,
            7 => Shape::Log,
            _ => return refuse(format!("kind {kind} has no prolly nodes")),
        })
    }
}

pub mod entry_kind {
    pub const FILE: u8 = 1;
    pub const DIRECTORY: u8 = 2;
    pub const SYMLINK: u8 = 3;
    pub const FIFO: u8 = 4;
    pub const SOCKET: u8 = 5;
    pub const CHARACTER: u8 = 6;
    pub const BLOCK: u8 = 7;
}

/// One entry of a tree. `target`: the id of a file's content or a directory's tree (none: empty), a link's text.
/// `size`, `count`: a file's size; a directory's bytes and entries; a device's major and minor number.
#[derive(Debug, Clone, PartialEq)]
pub struct TreeEntry<'a> {
    pub name: &'a [u8],
    pub kind: u8,
    pub mode: u64,
    pub target: Option<&'a [u8]>,
    pub size: u64,
    pub count: u64,
    /// Canonical CBOR of a map that is not empty.
    pub ext: Option<Cow<'a, [u8]>>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Entry<'a> {
    Inner { last: &'a [u8], child: &'a [u8], n: u64, bytes: u64 },
    Tree(TreeEntry<'a>),
    Links { path: &'a [u8], group: &'a [u8] },
    Times { name: &'a [u8], mtime: i128, child: Option<&'a [u8]> },
    Inodes { name: &'a [u8], number: u64, ctime: i128, child: Option<&'a [u8]> },
    Map { key: &'a [u8], value: Cow<'a, [u8]> },
    Log { key: &'a [u8], value: Cow<'a, [u8]>, chain: &'a [u8] },
}

impl<'a> Entry<'a> {
    pub fn key(&self) -> &'a [u8] {
        match self {
            Entry::Inner { last, .. } => last,
            Entry::Tree(entry) => entry.name,
            Entry::Links { path, .. } => path,
            Entry::Times { name, .. } | Entry::Inodes { name, .. } => name,
            Entry::Map { key, .. } | Entry::Log { key, .. } => key,
        }
    }

    /// What it counts for in the inner entry above: (entries, bytes).
    pub fn weight(&self) -> Result<(u64, u64)> {
        Ok(match self {
            Entry::Inner { n, bytes, .. } => (*n, *bytes),
            Entry::Tree(entry) => match entry.kind {
                entry_kind::DIRECTORY => (add(entry.count, 1)?, entry.size),
                entry_kind::FILE => (1, entry.size),
                _ => (1, 0),
            },
            _ => (1, 0),
        })
    }
}

fn add(a: u64, b: u64) -> Result<u64> {
    a.checked_add(b).ok_or_else(|| super::FormatError("a count beyond 64 bits".into()))
}

pub struct Node<'a> {
    pub level: u8,
    pub entries: Vec<Entry<'a>>,
}

impl Node<'_> {
    /// What all entries count for in the inner entry above: (entries, bytes).
    pub fn totals(&self) -> Result<(u64, u64)> {
        self.entries.iter().try_fold((0, 0), |(n, bytes), entry| {
            let weight = entry.weight()?;
            Ok((add(n, weight.0)?, add(bytes, weight.1)?))
        })
    }
}

pub struct Encoded {
    pub id: Id,
    pub data: Vec<u8>,
    pub last: Vec<u8>,
    pub n: u64,
    pub bytes: u64,
}

// ---- checks

pub fn check_name(name: &[u8]) -> Result<()> {
    if name.is_empty() || name.len() > 255 {
        return refuse("a name that is not 1 to 255 bytes long");
    }
    if name.iter().any(|byte| *byte == 0 || *byte == b'/') || name == b"." || name == b".." {
        return refuse("a name that no directory can hold");
    }
    Ok(())
}

fn check_path(path: &[u8]) -> Result<()> {
    path.split(|byte| *byte == b'/').try_for_each(check_name)
}

fn check_side_name(name: &[u8]) -> Result<()> {
    if name.is_empty() {
        return Ok(());
    }
    check_name(name)
}

fn check_time(time: i128) -> Result<()> {
    if time < i128::from(i64::MIN) || time > i128::from(u64::MAX) {
        return refuse("a time out of range");
    }
    Ok(())
}

fn check_id(id: &[u8]) -> Result<()> {
    if id.len() != 32 {
        return refuse("an id that is not 32 bytes");
    }
    Ok(())
}

fn check_tree_entry(entry: &TreeEntry) -> Result<()> {
    check_name(entry.name)?;
    if entry.mode > 0o7777 {
        return refuse("a mode beyond the permission bits");
    }
    match entry.kind {
        entry_kind::FILE => {
            if entry.count != 0 || entry.target.is_some() != (entry.size > 0) || entry.size > 1 << 40 {
                return refuse("a file whose size does not fit its content");
            }
        }
        entry_kind::DIRECTORY => {
            if entry.target.is_some() != (entry.count > 0) || (entry.count == 0 && entry.size > 0) {
                return refuse("a directory whose counts do not fit its tree");
            }
        }
        entry_kind::SYMLINK => {
            let text = entry.target.unwrap_or_default();
            if text.is_empty() || text.len() > 4095 || text.contains(&0) {
                return refuse("a symbolic link whose target is not 1 to 4095 bytes without NUL");
            }
            if entry.mode != 0o777 || entry.size != 0 || entry.count != 0 {
                return refuse("a symbolic link with a mode or a size");
            }
        }
        entry_kind::FIFO | entry_kind::SOCKET => {
            if entry.target.is_some() || entry.size != 0 || entry.count != 0 {
                return refuse("a fifo or socket with content");
            }
        }
        entry_kind::CHARACTER | entry_kind::BLOCK => {
            if entry.target.is_some() || entry.size > LARGEST_MAJOR || entry.count > LARGEST_MINOR {
                return refuse("a device with impossible numbers");
            }
        }
        _ => return refuse(format!("an entry of kind {}, which is not known", entry.kind)),
    }
    if matches!(entry.kind, entry_kind::FILE | entry_kind::DIRECTORY) {
        entry.target.map_or(Ok(()), check_id)?;
    }
    let Some(ext) = entry.ext.as_deref() else { return Ok(()) };
    let known = check_ext(ext)?;
    if known.linked && entry.kind == entry_kind::DIRECTORY {
        return refuse("a directory among hard links");
    }
    Ok(())
}

/// What an extension map was found to hold.
pub struct Known {
    pub linked: bool,
}

/// Check an extension map: not empty, every critical key known, every known key well-formed.
pub fn check_ext(ext: &[u8]) -> Result<Known> {
    use super::cbor::{decode, Value};
    let Value::Map(pairs) = decode(ext)? else { return refuse("an extension that is not a map") };
    if pairs.is_empty() {
        return refuse("an empty extension map");
    }
    let mut known = Known { linked: false };
    for (key, value) in &pairs {
        match (key.as_str(), value) {
            ("L", Value::Bool(true)) => known.linked = true,
            ("O", Value::Array(owner)) => check_owner(owner)?,
            ("X", Value::Array(xattrs)) => check_xattrs(xattrs)?,
            _ if key.starts_with(|first: char| first.is_ascii_uppercase()) => {
                return refuse(format!("the critical extension {key:?}, unknown or malformed"));
            }
            _ => {}
        }
    }
    Ok(known)
}

fn check_owner(owner: &[super::cbor::Value]) -> Result<()> {
    use super::cbor::Value;
    let fits = |value: &Value| match value {
        Value::Null => true,
        Value::Int(id) => (0..i128::from(u32::MAX)).contains(id), // the last one means «leave it»
        _ => false,
    };
    if owner.len() != 2 || !owner.iter().all(fits) || owner.iter().all(|each| *each == Value::Null) {
        return refuse("an owner that is not [uid, gid]");
    }
    Ok(())
}

fn check_xattrs(xattrs: &[super::cbor::Value]) -> Result<()> {
    use super::cbor::Value;
    let mut before: Option<&[u8]> = None;
    if xattrs.is_empty() {
        return refuse("an empty list of extended attributes");
    }
    for each in xattrs {
        let Value::Array(pair) = each else { return refuse("an extended attribute that is not [name, value]") };
        let (name, fits) = match pair.as_slice() {
            [Value::Bytes(name), Value::Bytes(value)] => (name, value.len() <= INLINE),
            [Value::Bytes(name), Value::Ref(_)] => (name, true),
            _ => return refuse("an extended attribute that is not [name, value]"),
        };
        if !fits || name.is_empty() || name.len() > 255 || name.contains(&0) {
            return refuse("an extended attribute whose name or value is out of bounds");
        }
        if before.is_some_and(|before| before >= name.as_slice()) {
            return refuse("extended attributes out of order or twice");
        }
        before = Some(name);
    }
    Ok(())
}

fn check_entry(entry: &Entry) -> Result<()> {
    match entry {
        Entry::Inner { child, n, .. } => {
            check_id(child)?;
            if *n == 0 {
                return refuse("an inner entry that counts nothing");
            }
            Ok(())
        }
        Entry::Tree(entry) => check_tree_entry(entry),
        Entry::Links { path, group } => {
            check_path(path)?;
            check_path(group)?;
            if group > path {
                return refuse("a link group that is not its smallest path");
            }
            Ok(())
        }
        Entry::Times { name, mtime, child } => {
            check_side_name(name)?;
            child.map_or(Ok(()), check_id)?;
            check_time(*mtime)
        }
        Entry::Inodes { name, ctime, child, .. } => {
            check_side_name(name)?;
            child.map_or(Ok(()), check_id)?;
            check_time(*ctime)
        }
        Entry::Map { value, .. } => check_value(value),
        Entry::Log { key, value, chain } => {
            if key.len() != 8 {
                return refuse("the key of a log is 8 bytes");
            }
            check_id(chain)?;
            check_value(value)
        }
    }
}

fn check_value(value: &[u8]) -> Result<()> {
    if value.len() > INLINE {
        return refuse("a value over 256 bytes: it belongs in an object of its own");
    }
    Ok(())
}

// ---- writing

fn put_entry(out: &mut Vec<u8>, entry: &Entry, shape: Shape) -> Result<()> {
    match entry {
        Entry::Inner { last, child, n, bytes } => {
            put_array(out, if shape == Shape::Tree { 4 } else { 3 });
            put_bytes(out, last);
            put_ref(out, child);
            put_unsigned(out, *n);
            if shape == Shape::Tree {
                put_unsigned(out, *bytes);
            }
        }
        Entry::Tree(entry) => put_tree_entry(out, entry),
        Entry::Links { path, group } => {
            put_array(out, 2);
            put_bytes(out, path);
            put_bytes(out, group);
        }
        Entry::Times { name, mtime, child } => {
            put_array(out, 3);
            put_bytes(out, name);
            put_int(out, *mtime)?;
            put_ref_or_null(out, *child);
        }
        Entry::Inodes { name, number, ctime, child } => {
            put_array(out, 4);
            put_bytes(out, name);
            put_unsigned(out, *number);
            put_int(out, *ctime)?;
            put_ref_or_null(out, *child);
        }
        Entry::Map { key, value } => {
            put_array(out, 2);
            put_bytes(out, key);
            out.extend_from_slice(value);
        }
        Entry::Log { key, value, chain } => {
            put_array(out, 3);
            put_bytes(out, key);
            out.extend_from_slice(value);
            put_bytes(out, chain);
        }
    }
    Ok(())
}

fn put_tree_entry(out: &mut Vec<u8>, entry: &TreeEntry) {
    put_array(out, if entry.ext.is_some() { 5 } else { 4 });
    put_bytes(out, entry.name);
    put_unsigned(out, u64::from(entry.kind));
    put_unsigned(out, entry.mode);
    match (entry.kind, entry.target) {
        (entry_kind::FILE, Some(content)) => {
            put_array(out, 2);
            put_ref(out, content);
            put_unsigned(out, entry.size);
        }
        (entry_kind::DIRECTORY, Some(tree)) => {
            put_array(out, 3);
            put_ref(out, tree);
            put_unsigned(out, entry.count);
            put_unsigned(out, entry.size);
        }
        (entry_kind::SYMLINK, Some(text)) => put_bytes(out, text),
        (entry_kind::CHARACTER | entry_kind::BLOCK, _) => {
            put_array(out, 2);
            put_unsigned(out, entry.size);
            put_unsigned(out, entry.count);
        }
        _ => out.push(NULL),
    }
    if let Some(ext) = &entry.ext {
        out.extend_from_slice(ext);
    }
}

/// Cut one level's entries into nodes by the rule. They must be all that come between two cuts (or the ends).
pub fn encode_level(kind: u8, level: u8, entries: &[Entry]) -> Result<Vec<Encoded>> {
    let shape = Shape::of(kind)?;
    if u64::from(level) > HIGHEST_LEVEL {
        return refuse("more than 32 levels");
    }
    let mut nodes = Vec::with_capacity(entries.len() / 48 + 1);
    let mut start = 0;
    for (at, entry) in entries.iter().enumerate() {
        check_entry(entry)?;
        if at > 0 && entries[at - 1].key() >= entry.key() {
            return refuse("entries out of order or twice");
        }
        if at + 1 - start == MOST_ENTRIES || is_cut(level, entry.key()) || at + 1 == entries.len() {
            nodes.push(encode_node(kind, shape, level, &entries[start..=at])?);
            start = at + 1;
        }
    }
    Ok(nodes)
}

fn encode_node(kind: u8, shape: Shape, level: u8, entries: &[Entry]) -> Result<Encoded> {
    let mut data = Vec::with_capacity(entries.len() * 72 + 8);
    put_array(&mut data, 2);
    put_unsigned(&mut data, u64::from(level));
    put_array(&mut data, entries.len());
    let (mut n, mut bytes) = (0, 0);
    for entry in entries {
        put_entry(&mut data, entry, shape)?;
        let weight = entry.weight()?;
        n = add(n, weight.0)?;
        bytes = add(bytes, weight.1)?;
    }
    if data.len() > super::cbor::LONGEST {
        return refuse("a node over 64 MiB");
    }
    let last = entries[entries.len() - 1].key().to_vec();
    Ok(Encoded { id: node_id(kind, &data), data, last, n, bytes })
}

// ---- reading

/// Decode one node and check all that one node can tell: shape, order, names, counts, no cut inside.
pub fn decode_node(kind: u8, data: &[u8]) -> Result<Node<'_>> {
    let shape = Shape::of(kind)?;
    let mut reader = Reader::new(data)?;
    if reader.array()? != 2 {
        return refuse("a node is [level, entries]");
    }
    let level = reader.unsigned()?;
    if level > HIGHEST_LEVEL {
        return refuse("more than 32 levels");
    }
    let level = level as u8;
    let length = reader.array()?;
    if length == 0 || length > MOST_ENTRIES {
        return refuse("a node without entries, or with more than 256");
    }
    let mut entries: Vec<Entry> = Vec::with_capacity(length);
    for at in 0..length {
        let entry = if level > 0 { read_inner(&mut reader, shape)? } else { read_leaf(&mut reader, shape)? };
        check_entry(&entry)?;
        if entries.last().is_some_and(|before| before.key() >= entry.key()) {
            return refuse("entries out of order or twice");
        }
        if at + 1 < length && is_cut(level, entry.key()) {
            return refuse("a node that the rule would have cut");
        }
        entries.push(entry);
    }
    reader.finish()?;
    Ok(Node { level, entries })
}

fn read_inner<'a>(reader: &mut Reader<'a>, shape: Shape) -> Result<Entry<'a>> {
    let is_tree = shape == Shape::Tree;
    if reader.array()? != if is_tree { 4 } else { 3 } {
        return refuse("an inner entry of another length");
    }
    let last = reader.bytes()?;
    let child = reader.reference()?;
    let n = reader.unsigned()?;
    let bytes = if is_tree { reader.unsigned()? } else { 0 };
    Ok(Entry::Inner { last, child, n, bytes })
}

fn read_leaf<'a>(reader: &mut Reader<'a>, shape: Shape) -> Result<Entry<'a>> {
    let length = reader.array()?;
    let wanted = match shape {
        Shape::Tree => {
            return match length {
                4 | 5 => read_tree_entry(reader, length == 5),
                _ => refuse("a tree entry of another length"),
            }
        }
        Shape::Links | Shape::Map => 2,
        Shape::Times | Shape::Log => 3,
        Shape::Inodes => 4,
    };
    if length != wanted {
        return refuse("an entry of another length");
    }
    let key = reader.bytes()?;
    Ok(match shape {
        Shape::Links => Entry::Links { path: key, group: reader.bytes()? },
        Shape::Times => Entry::Times { name: key, mtime: reader.int()?, child: read_child(reader)? },
        Shape::Inodes => {
            Entry::Inodes { name: key, number: reader.unsigned()?, ctime: reader.int()?, child: read_child(reader)? }
        }
        Shape::Map => Entry::Map { key, value: read_raw(reader)? },
        Shape::Log => Entry::Log { key, value: read_raw(reader)?, chain: reader.bytes()? },
        Shape::Tree => unreachable!("returned above"),
    })
}

fn read_child<'a>(reader: &mut Reader<'a>) -> Result<Option<&'a [u8]>> {
    Ok(reader.reference_or_null()?.map(|id| id.as_slice()))
}

fn read_raw<'a>(reader: &mut Reader<'a>) -> Result<Cow<'a, [u8]>> {
    let start = reader.position();
    reader.skip(0, &mut |_| ())?;
    Ok(Cow::Borrowed(reader.between(start, reader.position())))
}

fn read_tree_entry<'a>(reader: &mut Reader<'a>, has_ext: bool) -> Result<Entry<'a>> {
    let name = reader.bytes()?;
    let kind = reader.unsigned()?;
    let mode = reader.unsigned()?;
    let kind = u8::try_from(kind).or_else(|_| refuse(format!("an entry of kind {kind}, which is not known")))?;
    let (mut target, mut size, mut count) = (None, 0, 0);
    match kind {
        entry_kind::FILE if !reader.null()? => {
            expect_array(reader, 2)?;
            target = Some(reader.reference()?.as_slice());
            size = reader.unsigned()?;
        }
        entry_kind::DIRECTORY if !reader.null()? => {
            expect_array(reader, 3)?;
            target = Some(reader.reference()?.as_slice());
            count = reader.unsigned()?;
            size = reader.unsigned()?;
        }
        entry_kind::FILE | entry_kind::DIRECTORY => {}
        entry_kind::SYMLINK => target = Some(reader.bytes()?),
        entry_kind::FIFO | entry_kind::SOCKET => {
            if !reader.null()? {
                return refuse("a fifo or socket with content");
            }
        }
        entry_kind::CHARACTER | entry_kind::BLOCK => {
            expect_array(reader, 2)?;
            size = reader.unsigned()?;
            count = reader.unsigned()?;
        }
        _ => return refuse(format!("an entry of kind {kind}, which is not known")),
    }
    let ext = if has_ext { Some(read_raw(reader)?) } else { None };
    Ok(Entry::Tree(TreeEntry { name, kind, mode, target, size, count, ext }))
}

fn expect_array(reader: &mut Reader, length: usize) -> Result<()> {
    if reader.array()? != length {
        return refuse("an array of another length");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &[u8]) -> Entry<'_> {
        Entry::Tree(TreeEntry {
            name,
            kind: entry_kind::FILE,
            mode: 0o644,
            target: Some(&[7; 32]),
            size: 3,
            count: 0,
            ext: None,
        })
    }

    #[test]
    fn what_is_encoded_decodes_to_the_same() {
        let names: Vec<Vec<u8>> = (0..1000).map(|i| format!("file{i:05}").into_bytes()).collect();
        let entries: Vec<Entry> = names.iter().map(|name| file(name)).collect();
        let nodes = encode_level(1, 0, &entries).unwrap();
        assert!(nodes.len() > 5);
        let mut back = Vec::new();
        for node in &nodes {
            back.extend(decode_node(1, &node.data).unwrap().entries);
        }
        assert_eq!(entries, back);
        assert_eq!(nodes.iter().map(|node| node.n).sum::<u64>(), 1000);
    }

    #[test]
    fn order_and_names_are_checked() {
        for names in [[&b"b"[..], b"a"], [b"a", b"a"], [b"a", b"b/c"], [b"", b"a"], [b".", b"a"], [b"..", b"a"]] {
            let entries: Vec<Entry> = names.iter().map(|name| file(name)).collect();
            assert!(encode_level(1, 0, &entries).is_err(), "{names:?}");
        }
    }

    #[test]
    fn flipped_bits_never_panic() {
        let names: Vec<Vec<u8>> = (0..40).map(|i| format!("f{i}").into_bytes()).collect();
        let mut sorted = names.clone();
        sorted.sort();
        let entries: Vec<Entry> = sorted.iter().map(|name| file(name)).collect();
        for node in encode_level(1, 0, &entries).unwrap() {
            for at in 0..node.data.len() {
                for bit in 0..8 {
                    let mut bad = node.data.clone();
                    bad[at] ^= 1 << bit;
                    let _ = decode_node(1, &bad);
                }
            }
        }
    }
}
