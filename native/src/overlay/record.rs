//! Journal records: what one operation did, in the order in which replay does it again (docs/dev/overlay.md).

use super::node::Time;
use super::{Ino, Result, Stop};

/// Blocks that a write put into a file: from this block of the file on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    pub at: u64,
    pub segment: u32,
    pub block: u32,
    pub length: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    pub mode: Option<u16>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub atime: Option<Time>,
    pub mtime: Option<Time>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// Where an inode of a lower generation hangs; comes before the first record that changes it.
    At {
        ino: Ino,
        parent: Ino,
        name: Vec<u8>,
    },
    New {
        parent: Ino,
        name: Vec<u8>,
        ino: Ino,
        kind: u8,
        mode: u16,
        uid: u32,
        gid: u32,
        device: (u32, u32),
        target: Vec<u8>,
        xattrs: Vec<(Vec<u8>, Vec<u8>)>,
        time: Time,
    },
    Link {
        parent: Ino,
        name: Vec<u8>,
        ino: Ino,
        time: Time,
    },
    Unlink {
        parent: Ino,
        name: Vec<u8>,
        time: Time,
    },
    Rename {
        from: Ino,
        name: Vec<u8>,
        to: Ino,
        new_name: Vec<u8>,
        exchange: bool,
        time: Time,
    },
    Write {
        ino: Ino,
        size: u64,
        time: Time,
        pieces: Vec<Piece>,
    },
    /// A new size; `tail` holds the last block's bytes, zeros behind the end.
    Cut {
        ino: Ino,
        size: u64,
        time: Time,
        tail: Option<Piece>,
    },
    Set {
        ino: Ino,
        changes: Changes,
        time: Time,
    },
    Xattr {
        ino: Ino,
        name: Vec<u8>,
        value: Option<Vec<u8>>,
        mode: Option<u16>,
        time: Time,
    },
}

struct Writer(Vec<u8>);

impl Writer {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn number(&mut self, value: u64) {
        crate::codec::row::put_varint(&mut self.0, value);
    }

    fn time(&mut self, time: Time) {
        self.0.extend_from_slice(&time.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn option<T>(&mut self, value: Option<T>, put: impl FnOnce(&mut Writer, T)) {
        self.u8(u8::from(value.is_some()));
        if let Some(value) = value {
            put(self, value);
        }
    }

    fn piece(&mut self, piece: &Piece) {
        for number in [piece.at, u64::from(piece.segment), u64::from(piece.block), u64::from(piece.length)] {
            self.number(number);
        }
    }
}

struct Reader<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.data.len());
        let Some(end) = end else { return Err(Stop::Damaged("a journal record cut short".into())) };
        let bytes = &self.data[self.at..end];
        self.at = end;
        Ok(bytes)
    }

    fn u8(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn number(&mut self) -> Result<u64> {
        Ok(crate::codec::row::take_varint(self.data, &mut self.at)?)
    }

    fn small(&mut self) -> Result<u32> {
        u32::try_from(self.number()?).map_err(|_| Stop::Damaged("a journal record with a number out of range".into()))
    }

    fn mode(&mut self) -> Result<u16> {
        Ok((self.number()? & 0o7777) as u16)
    }

    fn time(&mut self) -> Result<Time> {
        Ok(Time::from_le_bytes(self.take(16)?.try_into().expect("16 bytes")))
    }

    fn bytes(&mut self) -> Result<Vec<u8>> {
        let length = self.number()? as usize;
        Ok(self.take(length)?.to_vec())
    }

    fn option<T>(&mut self, take: impl FnOnce(&mut Self) -> Result<T>) -> Result<Option<T>> {
        Ok(if self.u8()? == 0 { None } else { Some(take(self)?) })
    }

    fn piece(&mut self) -> Result<Piece> {
        Ok(Piece { at: self.number()?, segment: self.small()?, block: self.small()?, length: self.small()? })
    }
}

impl Record {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer(Vec::with_capacity(96));
        match self {
            Record::At { ino, parent, name } => {
                out.u8(1);
                out.number(*ino);
                out.number(*parent);
                out.bytes(name);
            }
            Record::New { parent, name, ino, kind, mode, uid, gid, device, target, xattrs, time } => {
                out.u8(2);
                out.number(*parent);
                out.bytes(name);
                out.number(*ino);
                out.u8(*kind);
                for number in [u32::from(*mode), *uid, *gid, device.0, device.1] {
                    out.number(u64::from(number));
                }
                out.bytes(target);
                out.number(xattrs.len() as u64);
                for (name, value) in xattrs {
                    out.bytes(name);
                    out.bytes(value);
                }
                out.time(*time);
            }
            Record::Link { parent, name, ino, time } => {
                out.u8(3);
                out.number(*parent);
                out.bytes(name);
                out.number(*ino);
                out.time(*time);
            }
            Record::Unlink { parent, name, time } => {
                out.u8(4);
                out.number(*parent);
                out.bytes(name);
                out.time(*time);
            }
            Record::Rename { from, name, to, new_name, exchange, time } => {
                out.u8(5);
                out.number(*from);
                out.bytes(name);
                out.number(*to);
                out.bytes(new_name);
                out.u8(u8::from(*exchange));
                out.time(*time);
            }
            Record::Write { ino, size, time, pieces } => {
                out.u8(6);
                out.number(*ino);
                out.number(*size);
                out.time(*time);
                out.number(pieces.len() as u64);
                pieces.iter().for_each(|piece| out.piece(piece));
            }
            Record::Cut { ino, size, time, tail } => {
                out.u8(7);
                out.number(*ino);
                out.number(*size);
                out.time(*time);
                out.option(tail.as_ref(), |out, piece| out.piece(piece));
            }
            Record::Set { ino, changes, time } => {
                out.u8(8);
                out.number(*ino);
                out.option(changes.mode, |out, mode| out.number(u64::from(mode)));
                out.option(changes.uid, |out, id| out.number(u64::from(id)));
                out.option(changes.gid, |out, id| out.number(u64::from(id)));
                out.option(changes.atime, Writer::time);
                out.option(changes.mtime, Writer::time);
                out.time(*time);
            }
            Record::Xattr { ino, name, value, mode, time } => {
                out.u8(9);
                out.number(*ino);
                out.bytes(name);
                out.option(value.as_ref(), |out, value| out.bytes(value));
                out.option(*mode, |out, mode| out.number(u64::from(mode)));
                out.time(*time);
            }
        }
        out.0
    }

    pub fn decode(data: &[u8]) -> Result<Record> {
        let mut from = Reader { data, at: 0 };
        let record = match from.u8()? {
            1 => Record::At { ino: from.number()?, parent: from.number()?, name: from.bytes()? },
            2 => Record::New {
                parent: from.number()?,
                name: from.bytes()?,
                ino: from.number()?,
                kind: from.u8()?,
                mode: from.mode()?,
                uid: from.small()?,
                gid: from.small()?,
                device: (from.small()?, from.small()?),
                target: from.bytes()?,
                xattrs: {
                    let count = from.number()?;
                    (0..count).map(|_| Ok((from.bytes()?, from.bytes()?))).collect::<Result<_>>()?
                },
                time: from.time()?,
            },
            3 => Record::Link { parent: from.number()?, name: from.bytes()?, ino: from.number()?, time: from.time()? },
            4 => Record::Unlink { parent: from.number()?, name: from.bytes()?, time: from.time()? },
            5 => Record::Rename {
                from: from.number()?,
                name: from.bytes()?,
                to: from.number()?,
                new_name: from.bytes()?,
                exchange: from.u8()? != 0,
                time: from.time()?,
            },
            6 => Record::Write {
                ino: from.number()?,
                size: from.number()?,
                time: from.time()?,
                pieces: {
                    let count = from.number()?;
                    (0..count).map(|_| from.piece()).collect::<Result<_>>()?
                },
            },
            7 => Record::Cut {
                ino: from.number()?,
                size: from.number()?,
                time: from.time()?,
                tail: from.option(Reader::piece)?,
            },
            8 => Record::Set {
                ino: from.number()?,
                changes: Changes {
                    mode: from.option(Reader::mode)?,
                    uid: from.option(Reader::small)?,
                    gid: from.option(Reader::small)?,
                    atime: from.option(Reader::time)?,
                    mtime: from.option(Reader::time)?,
                },
                time: from.time()?,
            },
            9 => Record::Xattr {
                ino: from.number()?,
                name: from.bytes()?,
                value: from.option(Reader::bytes)?,
                mode: from.option(Reader::mode)?,
                time: from.time()?,
            },
            kind => return Err(Stop::Damaged(format!("a journal record of kind {kind}"))),
        };
        if from.at != data.len() {
            return Err(Stop::Damaged("a journal record with bytes after its end".into()));
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back() {
        let piece = Piece { at: 7, segment: 1, block: 900, length: 3 };
        let all = [
            Record::At { ino: 5, parent: 0, name: b"a".to_vec() },
            Record::New {
                parent: 0,
                name: vec![255; 255],
                ino: 1 << 35,
                kind: 1,
                mode: 0o4755,
                uid: u32::MAX - 1,
                gid: 7,
                device: (1, 2),
                target: b"t".to_vec(),
                xattrs: vec![(b"user.x".to_vec(), vec![0; 70_000])],
                time: -5,
            },
            Record::Link { parent: 1, name: b"b".to_vec(), ino: 2, time: 1 << 70 },
            Record::Unlink { parent: 1, name: b"b".to_vec(), time: 3 },
            Record::Rename { from: 1, name: b"x".to_vec(), to: 2, new_name: b"y".to_vec(), exchange: true, time: 4 },
            Record::Write { ino: 1, size: 1 << 40, time: 5, pieces: vec![piece, piece] },
            Record::Cut { ino: 1, size: 0, time: 5, tail: Some(piece) },
            Record::Set { ino: 1, changes: Changes { mode: Some(0), mtime: Some(9), ..Changes::default() }, time: 6 },
            Record::Xattr { ino: 1, name: b"user.y".to_vec(), value: None, mode: Some(0o640), time: 7 },
        ];
        for record in all {
            let data = record.encode();
            assert_eq!(Record::decode(&data).unwrap(), record);
            for cut in 0..data.len() {
                assert!(Record::decode(&data[..cut]).is_err());
            }
        }
    }
}
