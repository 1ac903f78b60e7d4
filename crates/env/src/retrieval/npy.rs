//! Matrices from NumPy's `.npy` files.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

/// Rows of numbers, in single precision.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    columns: usize,
    values: Vec<f32>,
}

/// Why a matrix cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NpyError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// It is no `.npy` file, or not one of the kinds that are read here.
    #[error("{path}: {what}")]
    Format {
        /// The file.
        path: String,
        /// What is wrong, and what to do.
        what: String,
    },
}

/// What went wrong, before the file's name is added.
enum Wrong {
    Io(io::Error),
    Format(String),
}

impl From<io::Error> for Wrong {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Self::Format("the file ends early".into());
        }
        Self::Io(error)
    }
}

impl From<String> for Wrong {
    fn from(what: String) -> Self {
        Self::Format(what)
    }
}

impl Wrong {
    fn at(self, path: &str) -> NpyError {
        let path = path.to_owned();
        match self {
            Self::Io(source) => NpyError::Io { path, source },
            Self::Format(what) => NpyError::Format { path, what },
        }
    }
}

impl Matrix {
    /// A matrix of rows that have one length.
    ///
    /// `None` if `values` is no whole number of rows, or rows have no columns.
    pub fn new(columns: usize, values: Vec<f32>) -> Option<Self> {
        (columns > 0 && values.len().is_multiple_of(columns)).then_some(Self { columns, values })
    }

    /// Reads a two-dimensional `.npy` file of `float32` or `float16`, little-endian, in C order.
    ///
    /// # Errors
    /// A file that cannot be read, that is of another kind or shape, that is longer or shorter than
    /// it says, or that holds a number that is not finite (the row is named).
    pub fn load(path: impl AsRef<Path>) -> Result<Self, NpyError> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let open = || -> Result<Self, Wrong> {
            let file = File::open(path)?;
            let length = file.metadata()?.len();
            read(&mut BufReader::with_capacity(1 << 20, file), length)
        };
        open().map_err(|wrong| wrong.at(&name))
    }

    /// Reads the bytes of such a file; `name` stands in errors.
    ///
    /// # Errors
    /// As [`Matrix::load`].
    pub fn parse(mut bytes: &[u8], name: &str) -> Result<Self, NpyError> {
        let length = bytes.len() as u64;
        read(&mut bytes, length).map_err(|wrong| wrong.at(name))
    }

    /// How many rows.
    pub fn rows(&self) -> usize {
        self.values.len() / self.columns
    }

    /// How many numbers a row has.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// A row; `None` past the end.
    pub fn row(&self, row: usize) -> Option<&[f32]> {
        self.values.chunks_exact(self.columns).nth(row)
    }

    pub(super) fn values(&self) -> &[f32] {
        &self.values
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Single,
    Half,
}

fn read(from: &mut impl Read, length: u64) -> Result<Matrix, Wrong> {
    let mut start = [0; 8];
    from.read_exact(&mut start).map_err(|_| no_npy())?;
    if &start[..6] != b"\x93NUMPY" {
        return Err(no_npy());
    }
    let header_length = match start[6] {
        1 => {
            let mut bytes = [0; 2];
            from.read_exact(&mut bytes)?;
            u64::from(u16::from_le_bytes(bytes))
        }
        2 | 3 => {
            let mut bytes = [0; 4];
            from.read_exact(&mut bytes)?;
            u64::from(u32::from_le_bytes(bytes))
        }
        version => return Err(format!("version {version} of the format is not known").into()),
    };
    let before = if start[6] == 1 { 10 } else { 12 };
    // Headers are padded to 64 bytes; one of a megabyte is damage.
    if header_length > 1 << 20 || before + header_length > length {
        return Err(format!("its header of {header_length} bytes is longer than the file").into());
    }
    let mut header = vec![0; header_length as usize];
    from.read_exact(&mut header)?;
    let header = String::from_utf8_lossy(&header);
    let (kind, rows, columns) = shape(&header)?;
    let size = match kind {
        Kind::Single => 4,
        Kind::Half => 2,
    };
    let count = rows.checked_mul(columns).filter(|&n| n <= (isize::MAX as u64) / 4);
    let Some((count, bytes)) = count.and_then(|n| Some((n, n.checked_mul(size)?))) else {
        return Err(format!("its shape ({rows}, {columns}) is larger than memory can be").into());
    };
    let there = length - before - header_length;
    if bytes != there {
        return Err(format!(
            "its shape ({rows}, {columns}) needs {bytes} bytes, and {there} follow the header"
        )
        .into());
    }
    let mut values = Vec::with_capacity(count as usize);
    let mut buffer = vec![0; (bytes as usize).min(1 << 20)];
    let mut left = bytes as usize;
    while left > 0 {
        let part = &mut buffer[..left.min(1 << 20)];
        from.read_exact(part)?;
        left -= part.len();
        match kind {
            Kind::Single => {
                values.extend(part.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)));
            }
            Kind::Half => {
                values.extend(part.as_chunks::<2>().0.iter().map(|b| half(u16::from_le_bytes(*b))));
            }
        }
    }
    if let Some(at) = values.iter().position(|value| !value.is_finite()) {
        return Err(format!(
            "row {} holds {}: numbers must be finite",
            at / columns as usize,
            values[at]
        )
        .into());
    }
    Ok(Matrix { columns: columns as usize, values })
}

fn no_npy() -> Wrong {
    Wrong::Format("this is no .npy file (numpy.save writes one)".into())
}

/// Reads the header: a Python dictionary with `descr`, `fortran_order` and `shape`.
fn shape(header: &str) -> Result<(Kind, u64, u64), String> {
    let field = |key: &str| -> Result<&str, String> {
        let found = ['\'', '"'].iter().find_map(|quote| {
            let (_, rest) = header.split_once(&format!("{quote}{key}{quote}"))?;
            Some(rest.trim_start().strip_prefix(':')?.trim_start())
        });
        found.ok_or_else(|| format!("its header names no {key:?}"))
    };
    let text = field("descr")?;
    let quote = text.chars().next().filter(|&c| c == '\'' || c == '"');
    let descr = quote.and_then(|quote| text[1..].split(quote).next());
    let kind = match descr {
        Some("<f4") => Kind::Single,
        Some("<f2") => Kind::Half,
        Some(other) => {
            return Err(format!(
                "it holds {other:?}: only little-endian float32 and float16 are read \
                 (array.astype(\"<f4\") converts)"
            ));
        }
        None => return Err("it holds records: only float32 and float16 are read".into()),
    };
    let order = field("fortran_order")?;
    if order.starts_with("True") {
        return Err("it is in Fortran order (numpy.ascontiguousarray before numpy.save)".into());
    }
    if !order.starts_with("False") {
        return Err("its header does not say the order".into());
    }
    let text = field("shape")?;
    let inner = text.strip_prefix('(').and_then(|t| t.split_once(')')).map(|(inner, _)| inner);
    let Some(inner) = inner else { return Err("its header does not say the shape".into()) };
    let mut sizes = Vec::new();
    for size in inner.split(',').map(str::trim).filter(|size| !size.is_empty()) {
        let size: u64 = size.parse().map_err(|_| format!("its shape ({inner}) cannot be read"))?;
        sizes.push(size);
    }
    match sizes[..] {
        [rows, columns] if columns > 0 => Ok((kind, rows, columns)),
        _ => Err(format!("its shape is ({inner}): rows and columns are expected")),
    }
}

/// Half precision to single, exactly.
fn half(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let exponent = u32::from(bits >> 10 & 0x1f);
    let mantissa = u32::from(bits & 0x3ff);
    let magnitude = match exponent {
        // Subnormal: a multiple of 2^-24.
        0 => return f32::from_bits(sign | (mantissa as f32 * 2.0_f32.powi(-24)).to_bits()),
        31 => 0x7f80_0000 | mantissa << 13,
        _ => (exponent + 112) << 23 | mantissa << 13,
    };
    f32::from_bits(sign | magnitude)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(descr: &str, order: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let header =
            format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn single_and_half() {
        let data: Vec<u8> =
            [1.0_f32, -2.5, 0.0, 3.0, 4.0, 5.5].iter().flat_map(|v| v.to_le_bytes()).collect();
        let matrix = Matrix::parse(&file("<f4", "False", "(2, 3)", &data), "x").unwrap();
        assert_eq!((matrix.rows(), matrix.columns()), (2, 3));
        assert_eq!(matrix.row(1), Some(&[3.0, 4.0, 5.5][..]));
        assert_eq!(matrix.row(2), None);
        let data: Vec<u8> =
            [0x3c00_u16, 0xc100, 0x0001, 0x7bff].iter().flat_map(|v| v.to_le_bytes()).collect();
        let matrix = Matrix::parse(&file("<f2", "False", "(2, 2)", &data), "x").unwrap();
        assert_eq!(matrix.values(), [1.0, -2.5, 2.0_f32.powi(-24), 65504.0]);
        let none = Matrix::parse(&file("<f4", "False", "(0, 5)", &[]), "x").unwrap();
        assert_eq!(none.rows(), 0);
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let nan = f32::NAN.to_le_bytes();
        for (bytes, part) in [
            (b"".to_vec(), "no .npy"),
            (b"PK\x03\x04........".to_vec(), "no .npy"),
            (b"\x93NUMPY\x09\x00\x00\x00".to_vec(), "version 9"),
            (b"\x93NUMPY\x01\x00\xff\xff{".to_vec(), "longer than the file"),
            (file("<f8", "False", "(1, 1)", &[0; 8]), "astype"),
            (file(">f4", "False", "(1, 1)", &[0; 4]), "astype"),
            (file("<f4", "True", "(1, 1)", &[0; 4]), "Fortran"),
            (file("<f4", "False", "(4,)", &[0; 16]), "rows and columns"),
            (file("<f4", "False", "(1, 1, 1)", &[0; 4]), "rows and columns"),
            (file("<f4", "False", "(2, 2)", &[0; 12]), "needs 16 bytes"),
            (file("<f4", "False", "(2, 2)", &[0; 20]), "needs 16 bytes"),
            (file("<f4", "False", "(18446744073709551615, 9)", &[]), "memory"),
            (file("<f4", "False", "(-1, 9)", &[]), "cannot be read"),
            (file("<f4", "False", "(1, 1)", &nan), "row 0"),
        ] {
            let error = Matrix::parse(&bytes, "x.npy").unwrap_err().to_string();
            assert!(error.starts_with("x.npy: ") && error.contains(part), "{error}");
        }
    }
}
