use sagitta_model::{Object, PointId, Value};

use super::{DecodeError, Encode, Reader, Writer};

const NULL: u8 = 0;
const FALSE: u8 = 1;
const TRUE: u8 = 2;
const INT: u8 = 3;
const FLOAT: u8 = 4;
const STRING: u8 = 5;
const ARRAY: u8 = 6;
const OBJECT: u8 = 7;

impl Encode for Value {
    fn encode(&self, writer: &mut Writer) {
        match self {
            Self::Null => writer.u8(NULL),
            Self::Bool(false) => writer.u8(FALSE),
            Self::Bool(true) => writer.u8(TRUE),
            Self::Int(n) => {
                writer.u8(INT);
                writer.i64(*n);
            }
            Self::Float(x) => {
                writer.u8(FLOAT);
                writer.f64(*x);
            }
            Self::String(text) => {
                writer.u8(STRING);
                writer.str(text);
            }
            Self::Array(items) => {
                writer.u8(ARRAY);
                writer.list(items);
            }
            Self::Object(fields) => {
                writer.u8(OBJECT);
                fields.encode(writer);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match Token::read(reader)? {
            Token::Null => Self::Null,
            Token::Bool(b) => Self::Bool(b),
            Token::Int(n) => Self::Int(n),
            Token::Float(x) => Self::Float(x),
            Token::String(text) => Self::String(text.to_owned()),
            Token::Array => Self::Array(reader.nested(Reader::list)?),
            Token::Object => Self::Object(reader.nested(Object::decode)?),
        })
    }
}

impl Encode for Object {
    fn encode(&self, writer: &mut Writer) {
        writer.count(self.len());
        for (name, value) in self {
            writer.str(name);
            value.encode(writer);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut fields = Self::new();
        read_fields(reader, |name, reader| {
            let value = Value::decode(reader)?;
            fields.insert(name.to_owned(), value);
            Ok(())
        })?;
        Ok(fields)
    }
}

impl Encode for PointId {
    fn encode(&self, writer: &mut Writer) {
        writer.id(*self);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.id()
    }
}

impl Encode for String {
    fn encode(&self, writer: &mut Writer) {
        writer.str(self);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.str().map(str::to_owned)
    }
}

/// The beginning of an encoded value: all of a scalar; of an array or object that its items or fields follow.
pub(super) enum Token<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    String(&'a str),
    Array,
    Object,
}

impl<'a> Token<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            NULL => Self::Null,
            FALSE => Self::Bool(false),
            TRUE => Self::Bool(true),
            INT => Self::Int(reader.i64()?),
            FLOAT => Self::Float(reader.f64()?),
            STRING => Self::String(reader.str()?),
            ARRAY => Self::Array,
            OBJECT => Self::Object,
            _ => return Err(reader.fail("a value is of an unknown type")),
        })
    }
}

/// Calls `read` for each field of an encoded object, which must read exactly the field's value.
pub(super) fn read_fields<'a>(
    reader: &mut Reader<'a>,
    mut read: impl FnMut(&'a str, &mut Reader<'a>) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let mut last = None;
    // A field is at least the length of its name and the type of its value.
    for _ in 0..reader.count(2)? {
        let name = reader.str()?;
        if last.is_some_and(|last| last >= name) {
            return Err(reader.fail("names of fields do not ascend"));
        }
        last = Some(name);
        read(name, reader)?;
    }
    Ok(())
}

/// Passes over one encoded value without building it. Checks its shape, but not that its texts are UTF-8.
pub(super) fn skip(reader: &mut Reader<'_>) -> Result<(), DecodeError> {
    match reader.u8()? {
        NULL | FALSE | TRUE => Ok(()),
        INT => reader.i64().map(|_| ()),
        FLOAT => reader.f64().map(|_| ()),
        STRING => reader.bytes().map(|_| ()),
        ARRAY => reader.nested(|reader| {
            let count = reader.count(1)?;
            (0..count).try_for_each(|_| skip(reader))
        }),
        OBJECT => reader.nested(|reader| {
            let count = reader.count(2)?;
            (0..count).try_for_each(|_| {
                reader.bytes()?;
                skip(reader)
            })
        }),
        _ => Err(reader.fail("a value is of an unknown type")),
    }
}
