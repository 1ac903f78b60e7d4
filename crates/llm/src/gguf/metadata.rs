//! Metadata of a GGUF file: typed values under keys, read in place.

use super::cursor::Cursor;
use super::error::GgufError;

/// Arrays inside arrays are read this deep.
const DEEPEST: usize = 4;

/// A metadata value; text and arrays are views of the file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Any integer type, signed or not.
    Integer(i128),
    /// Single or double precision.
    Float(f64),
    /// One byte, 0 or 1.
    Bool(bool),
    /// UTF-8.
    Text(&'a str),
    /// Values of one type.
    Array(Array<'a>),
}

/// Types of values by the number that the file gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    Array,
    U64,
    I64,
    F64,
}

impl Kind {
    fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::U8,
            1 => Self::I8,
            2 => Self::U16,
            3 => Self::I16,
            4 => Self::U32,
            5 => Self::I32,
            6 => Self::F32,
            7 => Self::Bool,
            8 => Self::Text,
            9 => Self::Array,
            10 => Self::U64,
            11 => Self::I64,
            12 => Self::F64,
            _ => return None,
        })
    }

    /// Bytes of the shortest value.
    fn least(self) -> u64 {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::Text => 8,
            Self::Array => 12,
        }
    }
}

/// Values of one type, one after the other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Array<'a> {
    kind: Kind,
    len: usize,
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// No values.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The values in order.
    pub fn values(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let kind = self.kind;
        let mut cursor = Cursor::new(self.bytes);
        // Everything was checked when the file was opened, so the iterator ends by its length.
        (0..self.len).map_while(move |_| read_value(&mut cursor, kind, "", 0).ok())
    }

    /// The values if they are text.
    pub fn texts(&self) -> Option<impl Iterator<Item = &'a str> + use<'a>> {
        (self.kind == Kind::Text).then(|| {
            self.values().filter_map(|v| match v {
                Value::Text(text) => Some(text),
                _ => None,
            })
        })
    }

    /// The values if they are integers.
    pub fn integers(&self) -> Option<impl Iterator<Item = i128> + use<'a>> {
        let integral =
            !matches!(self.kind, Kind::F32 | Kind::F64 | Kind::Bool | Kind::Text | Kind::Array);
        integral.then(|| {
            self.values().filter_map(|v| match v {
                Value::Integer(n) => Some(n),
                _ => None,
            })
        })
    }
}

/// A value with its type's number in front of it.
pub(super) fn read_typed<'a>(cursor: &mut Cursor<'a>, key: &str) -> Result<Value<'a>, GgufError> {
    let kind = read_kind(cursor, key)?;
    read_value(cursor, kind, key, 0)
}

fn read_kind(cursor: &mut Cursor<'_>, key: &str) -> Result<Kind, GgufError> {
    let offset = cursor.offset();
    let number = cursor.u32(key)?;
    Kind::from_number(number)
        .ok_or_else(|| refuse(key, offset, format!("{number} is the number of no value type")))
}

fn read_value<'a>(
    cursor: &mut Cursor<'a>,
    kind: Kind,
    key: &str,
    depth: usize,
) -> Result<Value<'a>, GgufError> {
    Ok(match kind {
        Kind::U8 => Value::Integer(u8::from_le_bytes(cursor.array(key)?).into()),
        Kind::I8 => Value::Integer(i8::from_le_bytes(cursor.array(key)?).into()),
        Kind::U16 => Value::Integer(u16::from_le_bytes(cursor.array(key)?).into()),
        Kind::I16 => Value::Integer(i16::from_le_bytes(cursor.array(key)?).into()),
        Kind::U32 => Value::Integer(u32::from_le_bytes(cursor.array(key)?).into()),
        Kind::I32 => Value::Integer(i32::from_le_bytes(cursor.array(key)?).into()),
        Kind::U64 => Value::Integer(u64::from_le_bytes(cursor.array(key)?).into()),
        Kind::I64 => Value::Integer(i64::from_le_bytes(cursor.array(key)?).into()),
        Kind::F32 => Value::Float(f32::from_le_bytes(cursor.array(key)?).into()),
        Kind::F64 => Value::Float(f64::from_le_bytes(cursor.array(key)?)),
        Kind::Bool => {
            let offset = cursor.offset();
            match cursor.array::<1>(key)? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                [other] => {
                    return Err(refuse(key, offset, format!("{other} is not a truth value")));
                }
            }
        }
        Kind::Text => {
            let offset = cursor.offset();
            let bytes = cursor.counted(key)?;
            let text = std::str::from_utf8(bytes)
                .map_err(|e| refuse(key, offset, format!("text is not UTF-8: {e}")))?;
            Value::Text(text)
        }
        Kind::Array => Value::Array(read_array(cursor, key, depth + 1)?),
    })
}

fn read_array<'a>(
    cursor: &mut Cursor<'a>,
    key: &str,
    depth: usize,
) -> Result<Array<'a>, GgufError> {
    let offset = cursor.offset();
    if depth > DEEPEST {
        return Err(refuse(key, offset, format!("arrays are nested more than {DEEPEST} deep")));
    }
    let kind = read_kind(cursor, key)?;
    let len = cursor.u64(key)?;
    let need = len.saturating_mul(kind.least());
    if need > cursor.remaining() as u64 {
        return Err(GgufError::Truncated {
            what: format!("metadata {key:?}, an array of {len} values"),
            offset,
            need,
            have: cursor.remaining(),
        });
    }
    let before = cursor.rest();
    if matches!(kind, Kind::Text | Kind::Array | Kind::Bool) {
        for _ in 0..len {
            read_value(cursor, kind, key, depth)?;
        }
    } else {
        cursor.take(need, key)?;
    }
    let bytes = &before[..before.len() - cursor.remaining()];
    Ok(Array { kind, len: len as usize, bytes })
}

pub(super) fn refuse(key: &str, offset: usize, reason: String) -> GgufError {
    GgufError::Metadata { key: key.to_owned(), offset, reason }
}
