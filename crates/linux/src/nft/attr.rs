//! Netlink attributes: a writer that appends to a buffer and a reader that trusts nothing.
//!
//! Pure. An attribute is a 16-bit length (header included), a 16-bit type and a value, padded to
//! four bytes (`include/uapi/linux/netlink.h`). nf_tables puts numbers in network byte order.

use super::error::DecodeError;

/// Marks an attribute that holds attributes.
const NESTED: u16 = 0x8000;
/// The type without its flag bits.
const TYPE_MASK: u16 = 0x3fff;
const HEADER: usize = 4;

const fn padded(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// Appends attributes to a buffer.
#[derive(Debug)]
pub struct Attrs<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Attrs<'a> {
    /// A writer at the end of `out`.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Bytes in the buffer so far.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Nothing written yet.
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// Appends `value`.
    ///
    /// # Panics
    /// Never in practice: every caller's value is far below 64 KiB.
    pub fn bytes(&mut self, kind: u16, value: &[u8]) {
        let length = HEADER + value.len();
        debug_assert!(length <= usize::from(u16::MAX), "attribute too long");
        self.out.extend_from_slice(&(length as u16).to_ne_bytes());
        self.out.extend_from_slice(&kind.to_ne_bytes());
        self.out.extend_from_slice(value);
        self.out.resize(padded(self.out.len()), 0);
    }

    /// Appends attributes that are encoded already.
    pub fn raw(&mut self, attributes: &[u8]) {
        self.out.extend_from_slice(attributes);
        self.out.resize(padded(self.out.len()), 0);
    }

    /// Appends a number in network byte order.
    pub fn u32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// Appends a number in network byte order.
    pub fn u64(&mut self, kind: u16, value: u64) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// Appends a string with its terminating zero.
    pub fn string(&mut self, kind: u16, value: &str) {
        let start = self.out.len();
        self.bytes(kind, value.as_bytes());
        // Where the padding already holds the zero, only the length grows.
        let length = HEADER + value.len() + 1;
        self.out.resize(start + padded(length), 0);
        self.patch(start, length);
    }

    /// Appends an attribute made of those that `body` writes.
    pub fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        let start = self.out.len();
        self.out.extend_from_slice(&[0, 0]);
        self.out.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        body(self);
        let length = self.out.len() - start;
        self.patch(start, length);
    }

    fn patch(&mut self, start: usize, length: usize) {
        debug_assert!(length <= usize::from(u16::MAX), "attribute too long");
        if let Some(field) = self.out.get_mut(start..start + 2) {
            field.copy_from_slice(&(length as u16).to_ne_bytes());
        }
    }
}

/// One attribute read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr<'a> {
    /// Its type, flag bits removed.
    pub kind: u16,
    /// Its value without padding.
    pub value: &'a [u8],
    /// Where its header starts in the bytes read.
    pub offset: usize,
}

impl<'a> Attr<'a> {
    /// The value as a number in network byte order.
    pub fn u32(&self) -> Result<u32, DecodeError> {
        self.value
            .try_into()
            .map(u32::from_be_bytes)
            .map_err(|_| self.bad("four bytes"))
    }

    /// The value as a number in network byte order.
    pub fn u64(&self) -> Result<u64, DecodeError> {
        self.value
            .try_into()
            .map(u64::from_be_bytes)
            .map_err(|_| self.bad("eight bytes"))
    }

    /// The value as text, with or without a terminating zero.
    pub fn string(&self) -> Result<&'a str, DecodeError> {
        let text = self.value.strip_suffix(&[0]).unwrap_or(self.value);
        std::str::from_utf8(text).map_err(|_| self.bad("UTF-8 text"))
    }

    /// The attributes inside.
    pub fn nested(&self) -> Reader<'a> {
        Reader {
            bytes: self.value,
            offset: 0,
        }
    }

    fn bad(&self, expected: &'static str) -> DecodeError {
        DecodeError::Value {
            kind: self.kind,
            offset: self.offset,
            expected,
        }
    }
}

/// Iterates over attributes; ends after the first error.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    /// The attributes in `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    /// The first attribute of type `kind`.
    pub fn find(self, kind: u16) -> Result<Option<Attr<'a>>, DecodeError> {
        for attr in self {
            let attr = attr?;
            if attr.kind == kind {
                return Ok(Some(attr));
            }
        }
        Ok(None)
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<Attr<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.bytes.is_empty() {
            return None;
        }
        let offset = self.offset;
        let truncated = DecodeError::Truncated {
            offset,
            left: self.bytes.len(),
        };
        let (Some([l0, l1, k0, k1]), Some(rest)) =
            (self.bytes.first_chunk::<HEADER>(), self.bytes.get(HEADER..))
        else {
            self.bytes = &[];
            return Some(Err(truncated));
        };
        let length = usize::from(u16::from_ne_bytes([*l0, *l1]));
        let kind = u16::from_ne_bytes([*k0, *k1]) & TYPE_MASK;
        let Some(value) = length.checked_sub(HEADER).and_then(|n| rest.get(..n)) else {
            self.bytes = &[];
            return Some(Err(truncated));
        };
        // The last attribute may come without its padding.
        self.bytes = self.bytes.get(padded(length)..).unwrap_or(&[]);
        self.offset += padded(length);
        Some(Ok(Attr {
            kind,
            value,
            offset,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut out = Vec::new();
        let mut attrs = Attrs::new(&mut out);
        attrs.u32(1, 7);
        for text in ["", "a", "abc", "abcd", "abcde"] {
            attrs.string(2, text);
        }
        attrs.nest(3, |inner| inner.u64(4, 9));
        assert_eq!(out.len() % 4, 0);
        let read: Vec<_> = Reader::new(&out).map(Result::unwrap).collect();
        assert_eq!(read[0].u32().unwrap(), 7);
        let texts: Vec<_> = read[1..6].iter().map(|a| a.string().unwrap()).collect();
        assert_eq!(texts, ["", "a", "abc", "abcd", "abcde"]);
        assert_eq!(read[3].value, b"abc\0");
        assert_eq!(read[4].value, b"abcd\0");
        let inner = read[6].nested().find(4).unwrap().unwrap();
        assert_eq!(inner.u64().unwrap(), 9);
    }

    #[test]
    fn broken_attributes_are_refused_with_their_offset() {
        for bytes in [&[1u8, 0][..], &[3, 0, 1, 0], &[9, 0, 1, 0, 1, 2, 3, 4]] {
            let error = Reader::new(bytes).next().unwrap().unwrap_err();
            assert!(matches!(error, DecodeError::Truncated { offset: 0, .. }));
        }
        let mut out = Vec::new();
        Attrs::new(&mut out).u32(1, 7);
        out.extend_from_slice(&[8, 0, 1]);
        let mut reader = Reader::new(&out);
        assert!(reader.next().unwrap().is_ok());
        let error = reader.next().unwrap().unwrap_err();
        assert!(matches!(
            error,
            DecodeError::Truncated { offset: 8, left: 3 }
        ));
        assert!(reader.next().is_none());
    }
}
