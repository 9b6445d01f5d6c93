//! POSIX access control lists as the kernel hands them over: version 2, then (tag, permissions, id) entries.

use super::{refuse, Result};
use rustix::io::Errno;

const VERSION: u32 = 2;
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

#[derive(Clone, Copy)]
struct Entry {
    tag: u16,
    permissions: u16,
    id: u32,
}

fn parse(data: &[u8]) -> Result<Vec<Entry>> {
    let Some((version, rest)) = data.split_at_checked(4) else { return refuse(Errno::INVAL) };
    if version != VERSION.to_le_bytes() || rest.len() % 8 != 0 {
        return refuse(Errno::INVAL);
    }
    let entries: Vec<Entry> = rest
        .chunks_exact(8)
        .map(|entry| Entry {
            tag: u16::from_le_bytes([entry[0], entry[1]]),
            permissions: u16::from_le_bytes([entry[2], entry[3]]),
            id: u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]),
        })
        .collect();
    let count = |tag: u16| entries.iter().filter(|entry| entry.tag == tag).count();
    let named = count(USER) + count(GROUP) > 0;
    let is_known = |entry: &Entry| {
        matches!(entry.tag, USER_OBJ | USER | GROUP_OBJ | GROUP | MASK | OTHER) && entry.permissions <= 7
    };
    let is_whole = count(USER_OBJ) == 1 && count(GROUP_OBJ) == 1 && count(OTHER) == 1;
    if !entries.iter().all(is_known) || !is_whole || count(MASK) > 1 || (named && count(MASK) == 0) {
        return refuse(Errno::INVAL);
    }
    Ok(entries)
}

fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut out = VERSION.to_le_bytes().to_vec();
    for entry in entries {
        out.extend_from_slice(&entry.tag.to_le_bytes());
        out.extend_from_slice(&entry.permissions.to_le_bytes());
        out.extend_from_slice(&entry.id.to_le_bytes());
    }
    out
}

fn permissions(entries: &[Entry], tag: u16) -> u16 {
    entries.iter().find(|entry| entry.tag == tag).map_or(0, |entry| entry.permissions)
}

fn mode_bits(entries: &[Entry], mode: u16) -> u16 {
    let group = if entries.iter().any(|entry| entry.tag == MASK) { MASK } else { GROUP_OBJ };
    let bits = permissions(entries, USER_OBJ) << 6 | permissions(entries, group) << 3 | permissions(entries, OTHER);
    mode & 0o7000 | bits
}

/// The mode that goes with an access list, and whether the mode alone says the same.
pub fn mode_of(data: &[u8], mode: u16) -> Result<(u16, bool)> {
    let entries = parse(data)?;
    Ok((mode_bits(&entries, mode), entries.len() == 3))
}

/// An access list after a chmod: its owner, mask (or group) and others follow the mode.
pub fn with_mode(data: &[u8], mode: u16) -> Result<Vec<u8>> {
    let mut entries = parse(data)?;
    let masked = entries.iter().any(|entry| entry.tag == MASK);
    for entry in &mut entries {
        match entry.tag {
            USER_OBJ => entry.permissions = mode >> 6 & 7,
            MASK => entry.permissions = mode >> 3 & 7,
            GROUP_OBJ if !masked => entry.permissions = mode >> 3 & 7,
            OTHER => entry.permissions = mode & 7,
            _ => {}
        }
    }
    Ok(encode(&entries))
}

/// What a new inode gets from its directory's default list: its own list, if it needs one, and its mode.
pub fn inherit(default: &[u8], mode: u16) -> Result<(Option<Vec<u8>>, u16)> {
    let mut entries = parse(default)?;
    let masked = entries.iter().any(|entry| entry.tag == MASK);
    for entry in &mut entries {
        match entry.tag {
            USER_OBJ => entry.permissions &= mode >> 6 & 7,
            MASK => entry.permissions &= mode >> 3 & 7,
            GROUP_OBJ if !masked => entry.permissions &= mode >> 3 & 7,
            OTHER => entry.permissions &= mode & 7,
            _ => {}
        }
    }
    let access = if entries.len() > 3 { Some(encode(&entries)) } else { None };
    Ok((access, mode_bits(&entries, mode)))
}
