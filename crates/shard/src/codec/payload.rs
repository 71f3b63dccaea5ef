use sagitta_model::{Object, PayloadSelection};

use super::{DecodeError, Encode, Projection, Reader};

/// An encoded payload that is decoded when, and as far as, it is needed.
#[derive(Clone, Copy, Debug)]
pub struct PayloadRef<'a>(&'a [u8]);

const NAME: &str = "payload";

impl<'a> PayloadRef<'a> {
    /// Of the encoding of an [`Object`], which is believed for now.
    pub fn new(encoded: &'a [u8]) -> Self {
        Self(encoded)
    }

    /// The encoding.
    pub fn encoded(&self) -> &'a [u8] {
        self.0
    }

    /// The whole payload.
    ///
    /// # Errors
    /// If the bytes are not the encoding of one object.
    pub fn decode(&self) -> Result<Object, DecodeError> {
        self.read(Object::decode)
    }

    /// The selected part of the payload; the rest is passed over without being built.
    ///
    /// # Errors
    /// As [`PayloadRef::decode`], except that a damaged text in what is passed over may go unseen.
    pub fn select(&self, projection: &Projection) -> Result<Object, DecodeError> {
        match projection {
            Projection::Nothing => Ok(Object::new()),
            Projection::Everything => self.decode(),
            Projection::Only(tree) => self.read(|reader| tree.decode_only(reader)),
            Projection::Without(tree) => self.read(|reader| tree.decode_without(reader)),
        }
    }

    fn read<T>(&self, read: impl FnOnce(&mut Reader<'a>) -> Result<T, DecodeError>) -> Result<T, DecodeError> {
        let mut reader = Reader::new(self.0, NAME);
        let value = read(&mut reader)?;
        reader.end()?;
        Ok(value)
    }
}

impl From<&PayloadSelection> for Projection {
    fn from(selection: &PayloadSelection) -> Self {
        match selection {
            PayloadSelection::None => Self::Nothing,
            PayloadSelection::All => Self::Everything,
            PayloadSelection::Include(paths) => Self::only(paths),
            PayloadSelection::Exclude(paths) => Self::without(paths),
        }
    }
}
