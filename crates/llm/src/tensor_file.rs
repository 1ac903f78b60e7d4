//! The safetensors format: named arrays in one file, written with fixed bytes for fixed content
//! and read without trusting any number in it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use half::{bf16, f16};
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

/// Element type of a stored array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Dtype {
    /// 4 bytes.
    F32,
    /// IEEE half, 2 bytes; holds values up to ±65,504.
    F16,
    /// The upper half of an f32, 2 bytes.
    BF16,
    /// 8 bytes, unsigned; counters. Read and written through bytes only.
    U64,
}

impl Dtype {
    /// Bytes per element.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::U64 => 8,
        }
    }
}

/// Why a tensor file is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TensorFileError {
    /// The file ends before its header does.
    #[error("the file has {have} bytes, but its header ends at byte {need}: truncated?")]
    Truncated {
        /// Length of the file.
        have: usize,
        /// Where the header would end.
        need: u64,
    },
    /// The header is not the JSON it must be.
    #[error("the header (bytes 8..{end}) is not valid: {reason}")]
    Header {
        /// Where the header ends.
        end: usize,
        /// What the parser says.
        reason: String,
    },
    /// A tensor whose bytes do not lie in the file.
    #[error(
        "tensor {tensor:?} occupies data bytes {start}..{end}, but the file has {available} data \
         bytes from offset {data_offset}: truncated?"
    )]
    OutOfFile {
        /// The tensor.
        tensor: String,
        /// First byte, within the data.
        start: usize,
        /// One past its last byte, within the data.
        end: usize,
        /// Data bytes in the file.
        available: usize,
        /// Where the data begins.
        data_offset: usize,
    },
    /// A tensor whose shape and byte count disagree.
    #[error(
        "tensor {tensor:?} at data offset {start}: shape {shape:?} of {dtype} does not fill {bytes} bytes"
    )]
    Size {
        /// The tensor.
        tensor: String,
        /// First byte, within the data.
        start: usize,
        /// Its shape.
        shape: Vec<usize>,
        /// Its element type.
        dtype: String,
        /// Bytes it occupies.
        bytes: usize,
    },
    /// An element type that is not read here.
    #[error("tensor {tensor:?} at data offset {start}: element type {dtype} is not supported")]
    Dtype {
        /// The tensor.
        tensor: String,
        /// First byte, within the data.
        start: usize,
        /// Its element type.
        dtype: String,
    },
    /// Two tensors share bytes, or bytes belong to none.
    #[error("tensor {tensor:?} begins at data offset {start}; the one before ends at {expected}")]
    Gap {
        /// The tensor.
        tensor: String,
        /// Where it begins.
        start: usize,
        /// Where it should.
        expected: usize,
    },
    /// Bytes behind the last tensor.
    #[error("{extra} bytes follow the last tensor, which ends at data offset {end}")]
    Trailing {
        /// How many.
        extra: usize,
        /// Where the last tensor ends.
        end: usize,
    },
    /// A tensor that must be there is not.
    #[error("tensor {tensor:?} is missing")]
    Missing {
        /// Its name.
        tensor: String,
    },
    /// A tensor of another shape than the one asked for.
    #[error("tensor {tensor:?} at data offset {start} has shape {found:?}, expected {expected:?}")]
    Shape {
        /// Its name.
        tensor: String,
        /// First byte, within the data.
        start: usize,
        /// Its shape.
        found: Vec<usize>,
        /// The expected shape.
        expected: Vec<usize>,
    },
    /// A value that is NaN or infinite.
    #[error("tensor {tensor:?}, element {element} (data offset {offset}) is not finite")]
    NotFinite {
        /// Its name.
        tensor: String,
        /// Index of the element.
        element: usize,
        /// Where it lies in the data.
        offset: usize,
    },
    /// Something to write whose data does not fill its shape.
    #[error("tensor {tensor:?}: {values} values do not fill shape {shape:?}")]
    Write {
        /// Its name.
        tensor: String,
        /// Values given.
        values: usize,
        /// The shape.
        shape: Vec<usize>,
    },
    /// Something to write that its element type cannot hold.
    #[error(
        "tensor {tensor:?}, element {element}: {dtype:?} cannot hold {value}; write another type"
    )]
    Range {
        /// Its name.
        tensor: String,
        /// Index of the element.
        element: usize,
        /// Its value, printed.
        value: String,
        /// The type asked for.
        dtype: Dtype,
    },
}

/// Every other reader refuses longer ones too; it bounds what parsing one can cost.
const LONGEST_HEADER: usize = 100_000_000;

/// No tensor of a model has more.
const MOST_DIMENSIONS: usize = 8;

/// The header as the file has it; keys that mean nothing here are passed over unkept.
#[derive(Default)]
struct RawHeader {
    metadata: BTreeMap<String, String>,
    entries: BTreeMap<String, RawEntry>,
}

#[derive(Deserialize)]
struct RawEntry {
    dtype: String,
    #[serde(deserialize_with = "shape")]
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = RawHeader;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
                let mut header = RawHeader::default();
                while let Some(key) = map.next_key::<String>()? {
                    if key == "__metadata__" {
                        header.metadata = map
                            .next_value()
                            .map_err(|e| A::Error::custom(format_args!("__metadata__: {e}")))?;
                    } else {
                        let entry = map
                            .next_value()
                            .map_err(|e| A::Error::custom(format_args!("tensor {key:?}: {e}")))?;
                        header.entries.insert(key, entry);
                    }
                }
                Ok(header)
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

fn shape<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<usize>, D::Error> {
    struct Sizes;

    impl<'de> Visitor<'de> for Sizes {
        type Value = Vec<usize>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a shape of at most {MOST_DIMENSIONS} dimensions")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<usize>, A::Error> {
            let mut sizes = Vec::new();
            while let Some(size) = list.next_element()? {
                if sizes.len() == MOST_DIMENSIONS {
                    return Err(A::Error::invalid_length(MOST_DIMENSIONS + 1, &self));
                }
                sizes.push(size);
            }
            Ok(sizes)
        }
    }

    deserializer.deserialize_seq(Sizes)
}

#[derive(Clone, Debug)]
struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    range: Range<usize>,
}

/// A parsed file over its bytes; nothing is copied until a tensor is asked for.
#[derive(Clone, Debug)]
pub struct TensorFile<'a> {
    entries: BTreeMap<String, Entry>,
    metadata: BTreeMap<String, String>,
    data: &'a [u8],
}

impl<'a> TensorFile<'a> {
    /// Checks the whole directory of a file: every tensor inside the data, its size equal to its
    /// shape, no overlap, no gap.
    ///
    /// # Errors
    /// The first disagreement, with the tensor's name and its offset.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, TensorFileError> {
        let have = bytes.len();
        let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
            return Err(TensorFileError::Truncated { have, need: 8 });
        };
        let length = u64::from_le_bytes(*length);
        if length > rest.len() as u64 {
            return Err(TensorFileError::Truncated { have, need: length.saturating_add(8) });
        }
        let (header, data) = rest.split_at(length as usize);
        let end = header.len() + 8;
        let invalid = |reason: String| TensorFileError::Header { end, reason };
        if header.len() > LONGEST_HEADER {
            return Err(invalid(format!("longer than {LONGEST_HEADER} bytes")));
        }
        let RawHeader { metadata, entries: raw } =
            serde_json::from_slice(header).map_err(|e| invalid(e.to_string()))?;
        let mut entries = BTreeMap::new();
        for (tensor, entry) in raw {
            let (start, stop) = entry.data_offsets;
            if start > stop || stop > data.len() {
                let (available, data_offset) = (data.len(), end);
                return Err(TensorFileError::OutOfFile {
                    tensor,
                    start,
                    end: stop,
                    available,
                    data_offset,
                });
            }
            let dtype = match entry.dtype.as_str() {
                "F32" => Dtype::F32,
                "F16" => Dtype::F16,
                "BF16" => Dtype::BF16,
                "U64" => Dtype::U64,
                other => {
                    let dtype = other.to_owned();
                    return Err(TensorFileError::Dtype { tensor, start, dtype });
                }
            };
            let filled = entry
                .shape
                .iter()
                .try_fold(dtype.size(), |n, &d| n.checked_mul(d))
                .is_some_and(|n| n == stop - start);
            if !filled {
                return Err(TensorFileError::Size {
                    tensor,
                    start,
                    shape: entry.shape,
                    dtype: entry.dtype,
                    bytes: stop - start,
                });
            }
            entries.insert(tensor, Entry { dtype, shape: entry.shape, range: start..stop });
        }
        let mut order: Vec<(&String, &Entry)> = entries.iter().collect();
        order.sort_by_key(|(_, e)| (e.range.start, e.range.end));
        let mut expected = 0;
        for (tensor, entry) in order {
            if entry.range.start != expected {
                let (tensor, start) = (tensor.clone(), entry.range.start);
                return Err(TensorFileError::Gap { tensor, start, expected });
            }
            expected = entry.range.end;
        }
        if expected != data.len() {
            let extra = data.len() - expected;
            return Err(TensorFileError::Trailing { extra, end: expected });
        }
        Ok(Self { entries, metadata, data })
    }

    /// Names of the tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The file's free-form strings.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Shape and element type of a tensor.
    pub fn describe(&self, tensor: &str) -> Option<(&[usize], Dtype)> {
        self.entries.get(tensor).map(|e| (e.shape.as_slice(), e.dtype))
    }

    /// The stored bytes of a tensor, little-endian.
    ///
    /// # Errors
    /// [`TensorFileError::Missing`].
    pub fn bytes(&self, tensor: &str) -> Result<&'a [u8], TensorFileError> {
        Ok(&self.data[self.entry(tensor)?.range.clone()])
    }

    /// Checks that a tensor can be read as f32 numbers of this shape into a buffer of `len`.
    ///
    /// # Errors
    /// Missing, another shape, an integer type.
    pub fn check(
        &self,
        tensor: &str,
        expected: &[usize],
        len: usize,
    ) -> Result<(), TensorFileError> {
        let entry = self.entry(tensor)?;
        let (tensor, start) = (tensor.to_owned(), entry.range.start);
        if entry.shape != expected || expected.iter().product::<usize>() != len {
            let (found, expected) = (entry.shape.clone(), expected.to_vec());
            return Err(TensorFileError::Shape { tensor, start, found, expected });
        }
        if entry.dtype == Dtype::U64 {
            return Err(TensorFileError::Dtype { tensor, start, dtype: "U64".to_owned() });
        }
        Ok(())
    }

    /// Reads a tensor of the given shape into `out`, as f32. Values must be finite.
    ///
    /// # Errors
    /// Missing, another shape, an integer type, a value that is NaN or infinite.
    pub fn read_into(
        &self,
        tensor: &str,
        expected: &[usize],
        out: &mut [f32],
    ) -> Result<(), TensorFileError> {
        self.check(tensor, expected, out.len())?;
        self.read_part(tensor, 0, out)?;
        Ok(())
    }

    /// Reads the elements from `first` on, in row-major order, until `out` is full. Gives the
    /// bytes that they came from.
    ///
    /// # Errors
    /// Missing, fewer elements, an integer type, a value that is NaN or infinite.
    pub fn read_part(
        &self,
        tensor: &str,
        first: usize,
        out: &mut [f32],
    ) -> Result<&'a [u8], TensorFileError> {
        let entry = self.entry(tensor)?;
        let (start, size) = (entry.range.start, entry.dtype.size());
        let bytes = first
            .checked_mul(size)
            .zip(out.len().checked_mul(size))
            .and_then(|(from, len)| {
                self.data[entry.range.clone()].get(from..from.checked_add(len)?)
            })
            .ok_or_else(|| TensorFileError::Shape {
                tensor: tensor.to_owned(),
                start,
                found: entry.shape.clone(),
                expected: vec![first.saturating_add(out.len())],
            })?;
        match entry.dtype {
            Dtype::F32 => {
                for (value, raw) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *value = f32::from_le_bytes(*raw);
                }
            }
            Dtype::F16 => {
                for (value, raw) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *value = f16::from_le_bytes(*raw).to_f32();
                }
            }
            Dtype::BF16 => {
                for (value, raw) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *value = bf16::from_le_bytes(*raw).to_f32();
                }
            }
            Dtype::U64 => {
                let (tensor, dtype) = (tensor.to_owned(), "U64".to_owned());
                return Err(TensorFileError::Dtype { tensor, start, dtype });
            }
        }
        match out.iter().position(|v| !v.is_finite()) {
            Some(element) => Err(TensorFileError::NotFinite {
                tensor: tensor.to_owned(),
                element: first + element,
                offset: start + (first + element) * size,
            }),
            None => Ok(bytes),
        }
    }

    fn entry(&self, tensor: &str) -> Result<&Entry, TensorFileError> {
        self.entries
            .get(tensor)
            .ok_or_else(|| TensorFileError::Missing { tensor: tensor.to_owned() })
    }
}

/// One array to write.
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its shape.
    pub shape: &'a [usize],
    /// Its values, row-major.
    pub values: &'a [f32],
}

/// The bytes of a file with these tensors in this order, values rounded to `dtype`, and these
/// strings. The same input gives the same bytes.
///
/// # Errors
/// [`TensorFileError::Write`] if values do not fill a shape, [`TensorFileError::Dtype`] for an
/// integer type, [`TensorFileError::Range`] for a value that a type of two bytes cannot hold.
pub fn write_tensors(
    tensors: &[TensorView<'_>],
    dtype: Dtype,
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>, TensorFileError> {
    let mut header = serde_json::Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".to_owned(), serde_json::json!(metadata));
    }
    let mut end = 0;
    for tensor in tensors {
        if dtype == Dtype::U64 {
            return Err(TensorFileError::Dtype {
                tensor: tensor.name.to_owned(),
                start: end,
                dtype: "U64".to_owned(),
            });
        }
        let filled = tensor
            .shape
            .iter()
            .try_fold(1_usize, |n, &d| n.checked_mul(d))
            .is_some_and(|n| n == tensor.values.len());
        if !filled {
            return Err(TensorFileError::Write {
                tensor: tensor.name.to_owned(),
                values: tensor.values.len(),
                shape: tensor.shape.to_vec(),
            });
        }
        let start = end;
        end += tensor.values.len() * dtype.size();
        let entry = serde_json::json!({ "dtype": dtype, "shape": tensor.shape, "data_offsets": [start, end] });
        header.insert(tensor.name.to_owned(), entry);
    }
    let mut header = serde_json::Value::Object(header).to_string().into_bytes();
    // Readers map the data in place, so it begins at a multiple of 8.
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut bytes = Vec::with_capacity(8 + header.len() + end);
    bytes.extend((header.len() as u64).to_le_bytes());
    bytes.extend(&header);
    for tensor in tensors {
        let beyond = match dtype {
            Dtype::F16 => rounded(tensor.values, &mut bytes, |v| {
                let half = f16::from_f32(v);
                half.is_finite().then(|| half.to_le_bytes())
            }),
            Dtype::BF16 => rounded(tensor.values, &mut bytes, |v| {
                let half = bf16::from_f32(v);
                half.is_finite().then(|| half.to_le_bytes())
            }),
            Dtype::F32 | Dtype::U64 => {
                bytes.extend(tensor.values.iter().flat_map(|v| v.to_le_bytes()));
                None
            }
        };
        if let Some(element) = beyond {
            let (tensor, value) = (tensor.name.to_owned(), tensor.values[element].to_string());
            return Err(TensorFileError::Range { tensor, element, value, dtype });
        }
    }
    Ok(bytes)
}

/// Appends values as two bytes each; gives the index of the first that has no such form.
fn rounded(
    values: &[f32],
    bytes: &mut Vec<u8>,
    round: impl Fn(f32) -> Option<[u8; 2]>,
) -> Option<usize> {
    for (element, &value) in values.iter().enumerate() {
        let Some(half) = round(value) else { return Some(element) };
        bytes.extend(half);
    }
    None
}
