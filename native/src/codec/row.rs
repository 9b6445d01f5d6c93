//! Rows of the index and runs of varints (unsigned LEB128, shortest form).

use super::{refuse, Result};

pub fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

pub fn take_varint(data: &[u8], at: &mut usize) -> Result<u64> {
    let (mut number, mut shift) = (0u64, 0);
    loop {
        let Some(byte) = data.get(*at).copied() else { return refuse("a varint cut short") };
        *at += 1;
        let bits = u64::from(byte & 0x7f);
        if shift > 63 || (shift == 63 && bits > 1) || (byte == 0 && shift > 0) {
            return refuse("a varint beyond 64 bits or not in its shortest form");
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
        shift += 7;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    pub kind: u8,
    pub codec: u8,
    pub n: u64,
    pub pack: u64,
    pub offset: u64,
    pub stored: u64,
    pub size: u64,
    pub created: u64,
}

pub fn pack_row(row: &Row) -> Vec<u8> {
    let mut out = Vec::with_capacity(32);
    out.extend_from_slice(&[row.kind, row.codec]);
    for number in [row.n, row.pack, row.offset, row.stored, row.size, row.created] {
        put_varint(&mut out, number);
    }
    out
}

pub fn unpack_row(data: &[u8]) -> Result<Row> {
    if data.len() < 2 {
        return refuse("a row cut short");
    }
    let mut at = 2;
    let mut next = || take_varint(data, &mut at);
    let row = Row {
        kind: data[0],
        codec: data[1],
        n: next()?,
        pack: next()?,
        offset: next()?,
        stored: next()?,
        size: next()?,
        created: next()?,
    };
    if at != data.len() {
        return refuse("bytes after the end of a row");
    }
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_and_over_long_ones_are_refused() {
        for number in [0, 1, 127, 128, 300, 1 << 35, u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, number);
            assert_eq!(take_varint(&out, &mut 0), Ok(number));
        }
        assert!(take_varint(&[0x80, 0], &mut 0).is_err());
        assert!(take_varint(&[0xff; 11], &mut 0).is_err());
        assert!(take_varint(&[0x80], &mut 0).is_err());
    }
}
