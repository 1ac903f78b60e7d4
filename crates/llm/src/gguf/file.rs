//! The directory of a GGUF file: metadata, and where each tensor lies. No number in it is trusted.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;

use super::block::GgmlType;
use super::cursor::Cursor;
use super::error::GgufError;
use super::metadata::{Array, Value, read_typed, refuse};

const MAGIC: &[u8; 4] = b"GGUF";
/// Where data begins at a multiple of, unless the file says otherwise.
pub(super) const ALIGNMENT: usize = 32;
/// Bytes of the shortest metadata entry: an empty key, a type and one byte.
const LEAST_ENTRY: u64 = 8 + 4 + 1;
/// Bytes of the shortest tensor description: an empty name and one dimension.
const LEAST_TENSOR: u64 = 8 + 4 + 8 + 4 + 8;
const LONGEST_KEY: usize = 65_535;
const MOST_DIMENSIONS: u32 = 4;
const LARGEST_ALIGNMENT: usize = 1 << 20;

/// A tensor of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// How its values are stored.
    pub kind: GgmlType,
    /// Rows first, unlike in the file.
    pub shape: Vec<usize>,
    /// Its bytes in the file.
    pub range: Range<usize>,
    /// Where its description lies.
    described_at: usize,
}

/// A parsed file over its bytes; nothing is copied until a tensor is asked for.
#[derive(Clone, Debug)]
pub struct GgufFile<'a> {
    bytes: &'a [u8],
    metadata: BTreeMap<&'a str, (usize, Value<'a>)>,
    tensors: BTreeMap<&'a str, TensorInfo>,
}

impl<'a> GgufFile<'a> {
    /// Checks the whole directory: every length and count against the file, every tensor inside the
    /// data, aligned, no two on the same bytes, nothing behind the last.
    ///
    /// # Errors
    /// What is wrong, with the key or tensor and the offset.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, GgufError> {
        if !bytes.starts_with(MAGIC) {
            let found = bytes[..bytes.len().min(MAGIC.len())].to_vec();
            return Err(GgufError::Magic { found });
        }
        let mut cursor = Cursor::new(bytes);
        cursor.take(MAGIC.len() as u64, "the magic number")?;
        let version = cursor.u32("the version")?;
        if version != 2 && version != 3 {
            return Err(GgufError::Version { version });
        }
        let tensor_count = cursor.u64("the number of tensors")?;
        let entry_count = cursor.u64("the number of metadata entries")?;
        let need = tensor_count
            .saturating_mul(LEAST_TENSOR)
            .saturating_add(entry_count.saturating_mul(LEAST_ENTRY));
        if need > cursor.remaining() as u64 {
            return Err(GgufError::Truncated {
                what: format!("a directory of {entry_count} entries and {tensor_count} tensors"),
                offset: cursor.offset(),
                need,
                have: cursor.remaining(),
            });
        }
        let metadata = read_metadata(&mut cursor, entry_count)?;
        let mut file = Self { bytes, metadata, tensors: BTreeMap::new() };
        let alignment = file.alignment()?;
        file.tensors = read_tensors(&mut cursor, tensor_count, alignment, bytes.len())?;
        Ok(file)
    }

    /// A metadata value.
    pub fn value(&self, key: &str) -> Option<Value<'a>> {
        self.metadata.get(key).map(|(_, value)| *value)
    }

    /// All keys, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &'a str> + '_ {
        self.metadata.keys().copied()
    }

    /// A tensor's description.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    /// Names and descriptions of all tensors, sorted by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&'a str, &TensorInfo)> {
        self.tensors.iter().map(|(name, info)| (*name, info))
    }

    /// The stored bytes of a tensor of this file.
    pub fn data(&self, info: &TensorInfo) -> &'a [u8] {
        self.bytes.get(info.range.clone()).unwrap_or_default()
    }

    /// A text, where the key is there.
    ///
    /// # Errors
    /// A value of another type.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>, GgufError> {
        self.typed(key, "text", |v| match v {
            Value::Text(text) => Some(text),
            _ => None,
        })
    }

    /// A truth value, where the key is there.
    ///
    /// # Errors
    /// A value of another type.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.typed(key, "a truth value", |v| match v {
            Value::Bool(flag) => Some(flag),
            _ => None,
        })
    }

    /// A number, where the key is there.
    ///
    /// # Errors
    /// A value of another type, or one that is NaN or infinite.
    pub fn float(&self, key: &str) -> Result<Option<f64>, GgufError> {
        self.typed(key, "a finite number", |v| match v {
            Value::Float(value) => value.is_finite().then_some(value),
            Value::Integer(value) => Some(value as f64),
            _ => None,
        })
    }

    /// A count, where the key is there.
    ///
    /// # Errors
    /// A value of another type, or one that does not fit.
    pub fn count(&self, key: &str) -> Result<Option<usize>, GgufError> {
        self.typed(key, "a count", |v| match v {
            Value::Integer(n) => usize::try_from(n).ok(),
            _ => None,
        })
    }

    /// An array, where the key is there.
    ///
    /// # Errors
    /// A value of another type.
    pub fn array(&self, key: &str) -> Result<Option<Array<'a>>, GgufError> {
        self.typed(key, "an array", |v| match v {
            Value::Array(array) => Some(array),
            _ => None,
        })
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl Fn(Value<'a>) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        let Some((offset, value)) = self.metadata.get(key) else { return Ok(None) };
        match read(*value) {
            Some(value) => Ok(Some(value)),
            None => Err(refuse(key, *offset, format!("{} is not {expected}", brief(value)))),
        }
    }

    fn alignment(&self) -> Result<usize, GgufError> {
        const KEY: &str = "general.alignment";
        let Some(alignment) = self.count(KEY)? else { return Ok(ALIGNMENT) };
        if alignment.is_power_of_two() && alignment <= LARGEST_ALIGNMENT {
            return Ok(alignment);
        }
        let offset = self.metadata.get(KEY).map_or(0, |(offset, _)| *offset);
        let reason = format!("{alignment} is not a power of two up to {LARGEST_ALIGNMENT}");
        Err(refuse(KEY, offset, reason))
    }
}

/// A value for an error message: never a whole vocabulary.
fn brief(value: &Value<'_>) -> String {
    match value {
        Value::Array(array) => format!("an array of {} values", array.len()),
        Value::Text(text) => format!("{:?}", text.chars().take(40).collect::<String>()),
        Value::Integer(n) => n.to_string(),
        Value::Float(x) => x.to_string(),
        Value::Bool(flag) => flag.to_string(),
    }
}

fn read_metadata<'a>(
    cursor: &mut Cursor<'a>,
    count: u64,
) -> Result<BTreeMap<&'a str, (usize, Value<'a>)>, GgufError> {
    let mut metadata = BTreeMap::new();
    for index in 0..count {
        let offset = cursor.offset();
        let number = format!("entry {index}");
        let key = name(cursor.counted(&number)?, LONGEST_KEY)
            .map_err(|reason| refuse(&number, offset, reason))?;
        let offset = cursor.offset();
        let value = read_typed(cursor, key)?;
        match metadata.entry(key) {
            Entry::Vacant(place) => place.insert((offset, value)),
            Entry::Occupied(_) => return Err(refuse(key, offset, "the key is repeated".into())),
        };
    }
    Ok(metadata)
}

fn name(bytes: &[u8], longest: usize) -> Result<&str, String> {
    if bytes.is_empty() || bytes.len() > longest {
        return Err(format!("a name of {} bytes; 1 to {longest} are accepted", bytes.len()));
    }
    std::str::from_utf8(bytes).map_err(|e| format!("a name that is not UTF-8: {e}"))
}

/// A description as the file gives it, before the data's place is known.
struct Described<'a> {
    name: &'a str,
    kind: GgmlType,
    shape: Vec<usize>,
    bytes: u64,
    start: u64,
    at: usize,
}

fn read_tensors<'a>(
    cursor: &mut Cursor<'a>,
    count: u64,
    alignment: usize,
    length: usize,
) -> Result<BTreeMap<&'a str, TensorInfo>, GgufError> {
    let mut described = Vec::new();
    for index in 0..count {
        described.push(read_description(cursor, index, alignment)?);
    }
    let data = cursor.offset().next_multiple_of(alignment) as u64;
    let mut tensors: BTreeMap<&str, TensorInfo> = BTreeMap::new();
    for d in &described {
        let start = data.saturating_add(d.start);
        if start.checked_add(d.bytes).is_none_or(|end| end > length as u64) {
            return Err(GgufError::OutOfFile {
                tensor: d.name.to_owned(),
                start,
                bytes: d.bytes,
                length,
            });
        }
        let range = start as usize..(start + d.bytes) as usize;
        let info = TensorInfo { kind: d.kind, shape: d.shape.clone(), range, described_at: d.at };
        match tensors.entry(d.name) {
            Entry::Vacant(place) => place.insert(info),
            Entry::Occupied(_) => {
                return Err(refuse_tensor(d.name, d.at, "the name is repeated".into()));
            }
        };
    }
    let mut order: Vec<(&str, &TensorInfo)> = tensors.iter().map(|(n, i)| (*n, i)).collect();
    order.sort_by_key(|(_, info)| (info.range.start, info.described_at));
    for pair in order.windows(2) {
        let [(other, before), (tensor, info)] = pair else { continue };
        if info.range.start < before.range.end {
            return Err(GgufError::Overlap {
                tensor: (*tensor).to_owned(),
                start: info.range.start,
                other: (*other).to_owned(),
                end: before.range.end,
            });
        }
    }
    // A file that was downloaded twice over, or another's bytes at the end of this one's.
    let end = order.last().map_or(data as usize, |(_, info)| info.range.end);
    let padded = end.next_multiple_of(alignment);
    if length > padded {
        return Err(GgufError::Trailing { extra: length - padded, end });
    }
    Ok(tensors)
}

fn read_description<'a>(
    cursor: &mut Cursor<'a>,
    index: u64,
    alignment: usize,
) -> Result<Described<'a>, GgufError> {
    let at = cursor.offset();
    let number = format!("tensor {index}");
    let name = name(cursor.counted(&number)?, LONGEST_KEY)
        .map_err(|reason| refuse_tensor(&number, at, reason))?;
    let fail = |reason: String| Err(refuse_tensor(name, at, reason));
    let dimensions = cursor.u32(name)?;
    if dimensions == 0 || dimensions > MOST_DIMENSIONS {
        return fail(format!("{dimensions} dimensions; 1 to {MOST_DIMENSIONS} are accepted"));
    }
    let mut shape = Vec::new();
    let mut values = 1_u64;
    for _ in 0..dimensions {
        let size = cursor.u64(name)?;
        // Sizes are signed in the format's own reader, so an upper half is a negative one.
        let product = values.checked_mul(size).filter(|&n| n > 0 && i64::try_from(n).is_ok());
        match (product, usize::try_from(size)) {
            (Some(product), Ok(size)) => {
                values = product;
                shape.push(size);
            }
            _ => return fail(format!("a dimension of {size} after {values} values")),
        }
    }
    let number = cursor.u32(name)?;
    let start = cursor.u64(name)?;
    let Some(kind) = GgmlType::from_number(number) else {
        return fail(format!(
            "element type {number} is not supported (F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, \
             Q8_0, Q4_K, Q5_K and Q6_K are)"
        ));
    };
    let block = kind.block_values();
    if !shape[0].is_multiple_of(block) {
        return fail(format!("rows of {} values in {kind:?} blocks of {block}", shape[0]));
    }
    if !start.is_multiple_of(alignment as u64) {
        return fail(format!("data offset {start} is not a multiple of {alignment}"));
    }
    let Some(bytes) = (values / block as u64).checked_mul(kind.block_bytes() as u64) else {
        return fail(format!("{values} values of {kind:?} have no byte count"));
    };
    shape.reverse();
    Ok(Described { name, kind, shape, bytes, start, at })
}

fn refuse_tensor(tensor: &str, offset: usize, reason: String) -> GgufError {
    GgufError::Tensor { tensor: tensor.to_owned(), offset, reason }
}
