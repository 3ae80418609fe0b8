//! Reading numbers, strings and documents off the front of a slice, with every bound checked.

use bson::RawDocument;

use super::error::WireError;

/// A slice that is eaten from the front; `part` names what it is in errors.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    part: &'static str,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], part: &'static str) -> Self {
        Self { rest: bytes, part }
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn malformed(&self, problem: &'static str) -> WireError {
        WireError::Malformed { part: self.part, problem }
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) =
            self.rest.split_at_checked(count).ok_or_else(|| self.malformed("it ends too early"))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let bytes = self.take(N)?;
        Ok(bytes.try_into().expect("take returns as many bytes as were asked for"))
    }

    pub(super) fn u8(&mut self) -> Result<u8, WireError> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn i32(&mut self) -> Result<i32, WireError> {
        Ok(i32::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// A string that ends with a zero byte.
    pub(super) fn cstring(&mut self) -> Result<&'a str, WireError> {
        let end = self.rest.iter().position(|byte| *byte == 0);
        let end = end.ok_or_else(|| self.malformed("a string does not end"))?;
        let text = self.take(end)?;
        self.take(1)?;
        std::str::from_utf8(text).map_err(|_| self.malformed("a string is not UTF-8"))
    }

    /// One document: its frame is checked (length, last byte), its elements are not.
    pub(super) fn document(&mut self) -> Result<&'a RawDocument, WireError> {
        let length = self.clone().i32()?;
        let length = usize::try_from(length)
            .map_err(|_| self.malformed("a document's length is negative"))?;
        let part = self.part;
        RawDocument::from_bytes(self.take(length)?).map_err(WireError::bson(part))
    }
}
