//! Canonical CBOR: RFC 8949 §4.2.1 narrowed as docs/format.md says. A decoder refuses what the encoder would not write.

use super::ids::Id;
use super::{refuse, Result};

pub const REFERENCE_TAG: u64 = 202;
pub const DEEPEST: usize = 64;
pub const LONGEST: usize = 64 << 20;
/// Values in one document: in memory each takes far more than the byte that it may take here.
pub const MOST_VALUES: usize = 1 << 20;

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Bytes(Vec<u8>),
    Text(String),
    Array(Vec<Value>),
    Map(Vec<(String, Value)>),
    Ref(Id),
}

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;
const SIMPLE: u8 = 7;

pub const NULL: u8 = 0xf6;

// ---- writing

pub fn put_head(out: &mut Vec<u8>, major: u8, argument: u64) {
    let major = major << 5;
    match argument {
        0..=23 => out.push(major | argument as u8),
        24..=0xff => out.extend_from_slice(&[major | 24, argument as u8]),
        0x100..=0xffff => {
            out.push(major | 25);
            out.extend_from_slice(&(argument as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(major | 26);
            out.extend_from_slice(&(argument as u32).to_be_bytes());
        }
        _ => {
            out.push(major | 27);
            out.extend_from_slice(&argument.to_be_bytes());
        }
    }
}

pub fn put_unsigned(out: &mut Vec<u8>, number: u64) {
    put_head(out, UNSIGNED, number);
}

pub fn put_int(out: &mut Vec<u8>, number: i128) -> Result<()> {
    if let Ok(number) = u64::try_from(number) {
        put_head(out, UNSIGNED, number);
    } else if let Ok(argument) = u64::try_from(-1 - number) {
        put_head(out, NEGATIVE, argument);
    } else {
        return refuse("an integer beyond 64 bits");
    }
    Ok(())
}

pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_head(out, BYTES, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub fn put_array(out: &mut Vec<u8>, length: usize) {
    put_head(out, ARRAY, length as u64);
}

pub fn put_ref(out: &mut Vec<u8>, id: &[u8]) {
    put_head(out, TAG, REFERENCE_TAG);
    put_bytes(out, id);
}

pub fn put_ref_or_null(out: &mut Vec<u8>, id: Option<&[u8]>) {
    match id {
        Some(id) => put_ref(out, id),
        None => out.push(NULL),
    }
}

fn put_float(out: &mut Vec<u8>, number: f64) {
    if number.is_nan() {
        out.extend_from_slice(&[0xf9, 0x7e, 0x00]);
        return;
    }
    if number.fract() == 0.0 && number.abs() <= 18_446_744_073_709_551_616.0 {
        let whole = number as i128;
        if put_int(out, whole).is_ok() {
            return;
        }
    }
    if let Some(half) = to_half(number) {
        out.push(0xf9);
        out.extend_from_slice(&half.to_be_bytes());
    } else if f64::from(number as f32) == number {
        out.push(0xfa);
        out.extend_from_slice(&(number as f32).to_be_bytes());
    } else {
        out.push(0xfb);
        out.extend_from_slice(&number.to_be_bytes());
    }
}

fn from_half(half: u16) -> f64 {
    let sign = if half & 0x8000 == 0 { 1.0 } else { -1.0 };
    let exponent = i32::from(half >> 10 & 0x1f);
    let mantissa = f64::from(half & 0x3ff);
    sign * match exponent {
        0 => mantissa * 2f64.powi(-24),
        31 if mantissa == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + mantissa) * 2f64.powi(exponent - 25),
    }
}

/// The half-precision float of the same value, if there is one.
fn to_half(number: f64) -> Option<u16> {
    let sign = if number.is_sign_negative() { 0x8000u16 } else { 0 };
    let size = number.abs();
    if size.is_infinite() {
        return Some(sign | 0x7c00);
    }
    let bits = if size < 2f64.powi(-14) {
        (size * 2f64.powi(24)) as u16
    } else if size < 65536.0 {
        let exponent = (size.to_bits() >> 52) as i32 - 1023;
        let mantissa = (size / 2f64.powi(exponent) * 1024.0) as u16 - 1024;
        ((exponent + 15) as u16) << 10 | mantissa
    } else {
        return None;
    };
    (from_half(bits) == size).then_some(sign | bits)
}

pub fn encode(value: &Value) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(64);
    put_value(&mut out, value, 0)?;
    if out.len() > LONGEST {
        return refuse("longer than 64 MiB");
    }
    if out.len() > MOST_VALUES {
        Reader::new(&out)?.skip(0, &mut |_| ())?; // what can't be read again must not be written
    }
    Ok(out)
}

pub fn put_value(out: &mut Vec<u8>, value: &Value, depth: usize) -> Result<()> {
    if depth >= DEEPEST {
        return refuse("more than 64 levels deep");
    }
    match value {
        Value::Null => out.push(NULL),
        Value::Bool(yes) => out.push(if *yes { 0xf5 } else { 0xf4 }),
        Value::Int(number) => put_int(out, *number)?,
        Value::Float(number) => put_float(out, *number),
        Value::Bytes(bytes) => put_bytes(out, bytes),
        Value::Text(text) => {
            put_head(out, TEXT, text.len() as u64);
            out.extend_from_slice(text.as_bytes());
        }
        Value::Ref(id) => put_ref(out, id),
        Value::Array(items) => {
            put_array(out, items.len());
            for item in items {
                put_value(out, item, depth + 1)?;
            }
        }
        Value::Map(pairs) => {
            let mut order: Vec<&(String, Value)> = pairs.iter().collect();
            // The encoded key begins with its length: shorter keys first, then by their bytes.
            order.sort_by(|a, b| (a.0.len(), a.0.as_bytes()).cmp(&(b.0.len(), b.0.as_bytes())));
            if order.windows(2).any(|pair| pair[0].0 == pair[1].0) {
                return refuse("a key twice in a map");
            }
            put_head(out, MAP, order.len() as u64);
            for (key, item) in order {
                put_head(out, TEXT, key.len() as u64);
                out.extend_from_slice(key.as_bytes());
                put_value(out, item, depth + 1)?;
            }
        }
    }
    Ok(())
}

// ---- reading

/// Reads canonical CBOR from the front, item by item.
pub struct Reader<'a> {
    data: &'a [u8],
    at: usize,
    values: usize,
}

impl<'a> Reader<'a> {
    pub fn new(data: &'a [u8]) -> Result<Self> {
        if data.len() > LONGEST {
            return refuse("longer than 64 MiB");
        }
        Ok(Reader { data, at: 0, values: 0 })
    }

    pub fn finish(&self) -> Result<()> {
        if self.at == self.data.len() {
            Ok(())
        } else {
            refuse("bytes after the end")
        }
    }

    pub fn position(&self) -> usize {
        self.at
    }

    /// The bytes between two positions.
    pub fn between(&self, start: usize, stop: usize) -> &'a [u8] {
        &self.data[start..stop]
    }

    fn left(&self) -> usize {
        self.data.len() - self.at
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8]> {
        if length > self.left() as u64 {
            return refuse("cut short");
        }
        let start = self.at;
        self.at += length as usize;
        Ok(&self.data[start..self.at])
    }

    pub fn peek(&self) -> Result<u8> {
        self.data.get(self.at).copied().ok_or_else(|| super::FormatError("cut short".into()))
    }

    fn head(&mut self) -> Result<(u8, u64)> {
        self.values += 1;
        if self.values > MOST_VALUES {
            return refuse("more than 1 048 576 values");
        }
        let first = self.take(1)?[0];
        let (major, info) = (first >> 5, first & 31);
        let argument = match info {
            0..=23 => u64::from(info),
            24 => u64::from(self.take(1)?[0]),
            25 => u64::from(u16::from_be_bytes(self.take(2)?.try_into().unwrap())),
            26 => u64::from(u32::from_be_bytes(self.take(4)?.try_into().unwrap())),
            27 => u64::from_be_bytes(self.take(8)?.try_into().unwrap()),
            _ => return refuse("an indefinite or reserved length"),
        };
        let shortest = match info {
            24 => argument > 23,
            25 => argument > 0xff,
            26 => argument > 0xffff,
            27 => argument > 0xffff_ffff,
            _ => true,
        };
        if major != SIMPLE && !shortest {
            return refuse("an integer or length that is not in its shortest form");
        }
        Ok((major, argument))
    }

    fn expect(&mut self, major: u8, what: &str) -> Result<u64> {
        let (found, argument) = self.head()?;
        if found != major {
            return refuse(format!("{what} is needed"));
        }
        Ok(argument)
    }

    pub fn array(&mut self) -> Result<usize> {
        let length = self.expect(ARRAY, "an array")?;
        if length > self.left() as u64 {
            return refuse("cut short");
        }
        Ok(length as usize)
    }

    pub fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.expect(BYTES, "a byte string")?;
        self.take(length)
    }

    pub fn unsigned(&mut self) -> Result<u64> {
        self.expect(UNSIGNED, "an unsigned integer")
    }

    pub fn int(&mut self) -> Result<i128> {
        match self.head()? {
            (UNSIGNED, argument) => Ok(i128::from(argument)),
            (NEGATIVE, argument) => Ok(-1 - i128::from(argument)),
            _ => refuse("an integer is needed"),
        }
    }

    pub fn null(&mut self) -> Result<bool> {
        if self.peek()? == NULL {
            self.at += 1;
            return Ok(true);
        }
        Ok(false)
    }

    pub fn reference(&mut self) -> Result<&'a Id> {
        if self.expect(TAG, "a reference")? != REFERENCE_TAG {
            return refuse("a tag other than 202");
        }
        let bytes = self.bytes()?;
        bytes.try_into().or_else(|_| refuse("a reference that is not 32 bytes"))
    }

    pub fn reference_or_null(&mut self) -> Result<Option<&'a Id>> {
        if self.null()? {
            return Ok(None);
        }
        self.reference().map(Some)
    }

    fn text(&mut self, length: u64) -> Result<&'a str> {
        std::str::from_utf8(self.take(length)?).or_else(|_| refuse("text that is not UTF-8"))
    }

    fn float(&mut self, start: usize, argument: u64, info: u8) -> Result<f64> {
        let number = match info {
            25 => from_half(argument as u16),
            26 => f64::from(f32::from_bits(argument as u32)),
            _ => f64::from_bits(argument),
        };
        let mut again = Vec::with_capacity(9);
        put_float(&mut again, number);
        if again != self.data[start..self.at] {
            return refuse("a float that is integral or not in its shortest form");
        }
        Ok(number)
    }

    pub fn value(&mut self, depth: usize) -> Result<Value> {
        if depth >= DEEPEST {
            return refuse("more than 64 levels deep");
        }
        let start = self.at;
        let (major, argument) = self.head()?;
        Ok(match major {
            UNSIGNED => Value::Int(i128::from(argument)),
            NEGATIVE => Value::Int(-1 - i128::from(argument)),
            BYTES => Value::Bytes(self.take(argument)?.to_vec()),
            TEXT => Value::Text(self.text(argument)?.to_owned()),
            ARRAY => {
                if argument > self.left() as u64 {
                    return refuse("cut short");
                }
                let mut items = Vec::with_capacity((argument as usize).min(4096));
                for _ in 0..argument {
                    items.push(self.value(depth + 1)?);
                }
                Value::Array(items)
            }
            MAP => {
                if argument > self.left() as u64 / 2 {
                    return refuse("cut short");
                }
                let mut pairs: Vec<(String, Value)> = Vec::with_capacity((argument as usize).min(4096));
                for _ in 0..argument {
                    let key = self.key(pairs.last().map(|pair| pair.0.as_str()))?;
                    pairs.push((key.to_owned(), self.value(depth + 1)?));
                }
                Value::Map(pairs)
            }
            TAG => {
                if argument != REFERENCE_TAG {
                    return refuse("a tag other than 202");
                }
                let bytes = self.bytes()?;
                Value::Ref(bytes.try_into().or_else(|_| refuse("a reference that is not 32 bytes"))?)
            }
            _ => match self.data[start] & 31 {
                20 => Value::Bool(false),
                21 => Value::Bool(true),
                22 => Value::Null,
                info @ 25..=27 => Value::Float(self.float(start, argument, info)?),
                _ => return refuse("a simple value that is none of false, true, null"),
            },
        })
    }

    fn key(&mut self, before: Option<&str>) -> Result<&'a str> {
        let length = self.expect(TEXT, "a text as the key of a map")?;
        let key = self.text(length)?;
        if let Some(before) = before {
            if (before.len(), before.as_bytes()) >= (key.len(), key.as_bytes()) {
                return refuse("the keys of a map out of order or twice");
            }
        }
        Ok(key)
    }

    /// Pass over one item, checked as if it were read, and tell `found` of each reference in it.
    pub fn skip(&mut self, depth: usize, found: &mut impl FnMut(&'a Id)) -> Result<()> {
        if depth >= DEEPEST {
            return refuse("more than 64 levels deep");
        }
        let start = self.at;
        let (major, argument) = self.head()?;
        match major {
            UNSIGNED | NEGATIVE => {}
            BYTES => {
                self.take(argument)?;
            }
            TEXT => {
                self.text(argument)?;
            }
            ARRAY => {
                for _ in 0..argument {
                    self.skip(depth + 1, found)?;
                }
            }
            MAP => {
                let mut before = None;
                for _ in 0..argument {
                    let key = self.key(before)?;
                    before = Some(key);
                    self.skip(depth + 1, found)?;
                }
            }
            TAG => {
                if argument != REFERENCE_TAG {
                    return refuse("a tag other than 202");
                }
                let bytes = self.bytes()?;
                found(bytes.try_into().or_else(|_| refuse("a reference that is not 32 bytes"))?);
            }
            _ => match self.data[start] & 31 {
                20..=22 => {}
                info @ 25..=27 => {
                    self.float(start, argument, info)?;
                }
                _ => return refuse("a simple value that is none of false, true, null"),
            },
        }
        Ok(())
    }
}

pub fn decode(data: &[u8]) -> Result<Value> {
    let mut reader = Reader::new(data)?;
    let value = reader.value(0)?;
    reader.finish()?;
    Ok(value)
}

/// The ids that a node refers to, each once, in order.
pub fn refs(data: &[u8]) -> Result<Vec<Id>> {
    let mut reader = Reader::new(data)?;
    let mut seen = std::collections::HashSet::new();
    let mut order = Vec::new();
    reader.skip(0, &mut |id| {
        if seen.insert(id) {
            order.push(*id);
        }
    })?;
    reader.finish()?;
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_take_their_shortest_form_or_become_integers() {
        let hex = |number: f64| encode(&Value::Float(number)).unwrap();
        assert_eq!(hex(1.5), [0xf9, 0x3e, 0x00]);
        assert_eq!(hex(2.0), [2]);
        assert_eq!(hex(-0.0), [0]);
        assert_eq!(hex(0.1).len(), 9);
        assert_eq!(hex(f64::NAN), [0xf9, 0x7e, 0]);
        assert_eq!(hex(f64::INFINITY), [0xf9, 0x7c, 0]);
        assert_eq!(hex(5.960464477539063e-8), [0xf9, 0, 1]);
        assert_eq!(hex(1e300).len(), 9);
        assert_eq!(hex(18_446_744_073_709_551_616.0), [0xfa, 0x5f, 0x80, 0, 0]);
    }

    #[test]
    fn what_the_encoder_would_not_write_is_refused() {
        for bad in [
            &[0x18, 0x17][..],
            &[0x1b, 0, 0, 0, 0, 0, 0, 0, 1],
            &[0x9f, 0xff],
            &[0xa2, 0x61, 0x61, 1, 0x61, 0x61, 2],
            &[0xa2, 0x61, 0x62, 1, 0x61, 0x61, 2],
            &[0xf9, 0x3c, 0x00],
            &[0xfa, 0x3f, 0xc0, 0, 0],
            &[0xc1, 0],
            &[0xf7],
            &[0xf8, 0x20],
            &[0x61, 0xff],
            &[1, 1],
            &[0x82, 1],
            &[0xa1, 1, 1],
        ] {
            assert!(decode(bad).is_err(), "{bad:x?}");
            assert!(refs(bad).is_err(), "{bad:x?}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let mut deep = vec![0x81u8; 63];
        deep.push(0);
        assert!(decode(&deep).is_ok());
        deep.insert(0, 0x81);
        assert!(decode(&deep).is_err());
    }

    #[test]
    fn a_huge_length_allocates_nothing() {
        assert!(decode(&[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).is_err());
        assert!(decode(&[0xbb, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).is_err());
        assert!(decode(&[0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).is_err());
    }
}
