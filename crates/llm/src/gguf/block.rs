//! Element types of GGUF tensors: blocks of values with their scales, and how they become f32.
//!
//! A block of the simple types covers 32 values with one scale `d` (and, where the name ends in 1,
//! an offset `m`); one of the `K` types covers 256 with a scale of scales.

use half::{bf16, f16};

/// How the values of a tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types)]
pub enum GgmlType {
    /// 4 bytes a value.
    F32,
    /// IEEE half.
    F16,
    /// The upper half of an f32.
    BF16,
    /// 4 bits, symmetric.
    Q4_0,
    /// 4 bits with an offset.
    Q4_1,
    /// 5 bits, symmetric.
    Q5_0,
    /// 5 bits with an offset.
    Q5_1,
    /// 8 bits, symmetric.
    Q8_0,
    /// 4 bits, blocks of blocks.
    Q4_K,
    /// 5 bits, blocks of blocks.
    Q5_K,
    /// 6 bits, blocks of blocks.
    Q6_K,
}

impl GgmlType {
    /// The type by its number in the file.
    pub fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            12 => Self::Q4_K,
            13 => Self::Q5_K,
            14 => Self::Q6_K,
            30 => Self::BF16,
            _ => return None,
        })
    }

    /// Its number in the file.
    pub fn number(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q5_0 => 6,
            Self::Q5_1 => 7,
            Self::Q8_0 => 8,
            Self::Q4_K => 12,
            Self::Q5_K => 13,
            Self::Q6_K => 14,
            Self::BF16 => 30,
        }
    }

    /// Values in a block.
    pub fn block_values(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q4_K | Self::Q5_K | Self::Q6_K => 256,
        }
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q4_K => 144,
            Self::Q5_K => 176,
            Self::Q6_K => 210,
        }
    }

    /// Turns whole blocks into numbers; as many as both slices have.
    pub fn dequantize(self, bytes: &[u8], out: &mut [f32]) {
        match self {
            Self::F32 => values(bytes, out, f32::from_le_bytes),
            Self::F16 => values(bytes, out, |b| f16::from_le_bytes(b).to_f32()),
            Self::BF16 => values(bytes, out, |b| bf16::from_le_bytes(b).to_f32()),
            Self::Q4_0 => blocks::<18, 32>(bytes, out, q4_0),
            Self::Q4_1 => blocks::<20, 32>(bytes, out, q4_1),
            Self::Q5_0 => blocks::<22, 32>(bytes, out, q5_0),
            Self::Q5_1 => blocks::<24, 32>(bytes, out, q5_1),
            Self::Q8_0 => blocks::<34, 32>(bytes, out, q8_0),
            Self::Q4_K => blocks::<144, 256>(bytes, out, q4_k),
            Self::Q5_K => blocks::<176, 256>(bytes, out, q5_k),
            Self::Q6_K => blocks::<210, 256>(bytes, out, q6_k),
        }
    }
}

fn values<const N: usize>(bytes: &[u8], out: &mut [f32], read: impl Fn([u8; N]) -> f32) {
    for (value, raw) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *value = read(*raw);
    }
}

fn blocks<const B: usize, const V: usize>(
    bytes: &[u8],
    out: &mut [f32],
    read: impl Fn(&[u8; B], &mut [f32; V]),
) {
    for (values, block) in out.as_chunks_mut::<V>().0.iter_mut().zip(bytes.as_chunks::<B>().0) {
        read(block, values);
    }
}

/// The half-precision number at a place in a block.
fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = half(block, 0);
    for j in 0..16 {
        let q = block[2 + j];
        out[j] = (f32::from(q & 15) - 8.0) * d;
        out[j + 16] = (f32::from(q >> 4) - 8.0) * d;
    }
}

fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (half(block, 0), half(block, 2));
    for j in 0..16 {
        let q = block[4 + j];
        out[j] = f32::from(q & 15) * d + m;
        out[j + 16] = f32::from(q >> 4) * d + m;
    }
}

/// The fifth bits of 32 values.
fn fifth_bits(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let (d, high) = (half(block, 0), fifth_bits(block, 2));
    for j in 0..16 {
        let q = u32::from(block[6 + j]);
        let (low, up) = (q & 15 | (high >> j & 1) << 4, q >> 4 | (high >> (j + 16) & 1) << 4);
        out[j] = (low as f32 - 16.0) * d;
        out[j + 16] = (up as f32 - 16.0) * d;
    }
}

fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m, high) = (half(block, 0), half(block, 2), fifth_bits(block, 4));
    for j in 0..16 {
        let q = u32::from(block[8 + j]);
        let (low, up) = (q & 15 | (high >> j & 1) << 4, q >> 4 | (high >> (j + 16) & 1) << 4);
        out[j] = low as f32 * d + m;
        out[j + 16] = up as f32 * d + m;
    }
}

fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = half(block, 0);
    for (value, q) in out.iter_mut().zip(&block[2..]) {
        *value = f32::from(q.cast_signed()) * d;
    }
}

/// Six-bit scale and minimum of the `j`th of eight groups of 32 values, packed into 12 bytes: the
/// first four plainly, the last four in two pieces.
fn scale_and_min(packed: &[u8], j: usize) -> (f32, f32) {
    let (scale, min) = if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        (packed[j + 4] & 15 | packed[j - 4] >> 6 << 4, packed[j + 4] >> 4 | packed[j] >> 6 << 4)
    };
    (f32::from(scale), f32::from(min))
}

fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let (d, dmin) = (half(block, 0), half(block, 2));
    let (scales, quants) = (&block[4..16], &block[16..]);
    for (pair, out) in out.as_chunks_mut::<64>().0.iter_mut().enumerate() {
        let q = &quants[pair * 32..pair * 32 + 32];
        let (s, m) = scale_and_min(scales, 2 * pair);
        let (scale, min) = (d * s, dmin * m);
        let (s, m) = scale_and_min(scales, 2 * pair + 1);
        let (scale_up, min_up) = (d * s, dmin * m);
        for l in 0..32 {
            out[l] = scale * f32::from(q[l] & 15) - min;
            out[l + 32] = scale_up * f32::from(q[l] >> 4) - min_up;
        }
    }
}

fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    let (d, dmin) = (half(block, 0), half(block, 2));
    let (scales, high, quants) = (&block[4..16], &block[16..48], &block[48..]);
    for (pair, out) in out.as_chunks_mut::<64>().0.iter_mut().enumerate() {
        let q = &quants[pair * 32..pair * 32 + 32];
        let (s, m) = scale_and_min(scales, 2 * pair);
        let (scale, min) = (d * s, dmin * m);
        let (s, m) = scale_and_min(scales, 2 * pair + 1);
        let (scale_up, min_up) = (d * s, dmin * m);
        for l in 0..32 {
            let bits = high[l] >> (2 * pair);
            out[l] = scale * f32::from(q[l] & 15 | (bits & 1) << 4) - min;
            out[l + 32] = scale_up * f32::from(q[l] >> 4 | (bits >> 1 & 1) << 4) - min_up;
        }
    }
}

fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let d = half(block, 208);
    for (part, out) in out.as_chunks_mut::<128>().0.iter_mut().enumerate() {
        let low = &block[part * 64..part * 64 + 64];
        let high = &block[128 + part * 32..128 + part * 32 + 32];
        let scales = &block[192 + part * 8..192 + part * 8 + 8];
        for quarter in 0..4 {
            for l in 0..32 {
                let four = low[l + 32 * (quarter & 1)] >> (4 * (quarter >> 1)) & 15;
                let two = high[l] >> (2 * quarter) & 3;
                let scale = f32::from(scales[2 * quarter + l / 16].cast_signed());
                out[32 * quarter + l] = d * scale * (f32::from(four | two << 4) - 32.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [GgmlType; 11] = [
        GgmlType::F32,
        GgmlType::F16,
        GgmlType::BF16,
        GgmlType::Q4_0,
        GgmlType::Q4_1,
        GgmlType::Q5_0,
        GgmlType::Q5_1,
        GgmlType::Q8_0,
        GgmlType::Q4_K,
        GgmlType::Q5_K,
        GgmlType::Q6_K,
    ];

    #[test]
    fn numbers_name_types() {
        for kind in ALL {
            assert_eq!(GgmlType::from_number(kind.number()), Some(kind));
        }
        assert_eq!((0..64).filter_map(GgmlType::from_number).count(), ALL.len());
    }

    #[test]
    fn every_value_of_a_block_is_written_and_no_more() {
        for kind in ALL {
            let bytes = vec![0x3c; kind.block_bytes() * 2];
            let mut out = vec![f32::NAN; kind.block_values() * 3];
            kind.dequantize(&bytes, &mut out);
            let (written, rest) = out.split_at(kind.block_values() * 2);
            assert!(written.iter().all(|v| v.is_finite()), "{kind:?}");
            assert!(rest.iter().all(|v| v.is_nan()), "{kind:?}");
        }
    }
}
