//! Loops compiled for several instruction sets and chosen when they run.
//!
//! The binary stays portable: [`vectorised!`] compiles a generic loop for AVX-512, for AVX2 with
//! FMA and for the baseline, and calls the widest that the processor has. Loops are plain Rust
//! over fixed-width lanes, which the compiler turns into vector code of the set in force.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU8, Ordering};

/// Instruction sets that loops are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Level {
    /// What every processor of the target has.
    Baseline = 1,
    /// AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2 = 2,
    /// AVX-512 F, BW, DQ, VL and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx512 = 3,
}

/// The widest level of this processor.
#[inline]
pub(crate) fn level() -> Level {
    static FOUND: AtomicU8 = AtomicU8::new(0);
    match FOUND.load(Ordering::Relaxed) {
        1 => Level::Baseline,
        #[cfg(target_arch = "x86_64")]
        2 => Level::Avx2,
        #[cfg(target_arch = "x86_64")]
        3 => Level::Avx512,
        _ => {
            let found = detect();
            FOUND.store(found as u8, Ordering::Relaxed);
            found
        }
    }
}

fn detect() -> Level {
    #[cfg(target_arch = "x86_64")]
    {
        use std::is_x86_feature_detected as has;
        let avx2 = has!("avx2") && has!("fma");
        if avx2 && has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") {
            return Level::Avx512;
        }
        if avx2 {
            return Level::Avx2;
        }
    }
    Level::Baseline
}

/// Defines a function that runs `imp` compiled for the widest instruction set at hand. `imp` is
/// `#[inline(always)]` and generic over `const FMA: bool` (fused multiply-add is cheap).
macro_rules! vectorised {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $imp:ident) => {
        $(#[$meta])*
        #[allow(unsafe_code)]
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512($($arg: $ty),*) $(-> $ret)? {
                    $imp::<true>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    $imp::<true>($($arg),*)
                }
                match $crate::ops::simd::level() {
                    // SAFETY: `level` found these features on this processor.
                    $crate::ops::simd::Level::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::ops::simd::Level::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::ops::simd::Level::Baseline => {}
                }
            }
            $imp::<false>($($arg),*)
        }
    };
}
pub(crate) use vectorised;

/// Lanes of a reduction: sums run in this many independent columns, so that their order does not
/// depend on the instruction set's width.
pub(crate) const LANES: usize = 16;

/// a · b + c.
#[inline(always)]
pub(crate) fn mul_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// eˣ to about 2 ulp; 0 far below and +∞-free far above (the argument is clamped to ±87). NaN
/// stays NaN.
#[inline(always)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    // Adding this rounds to an integer, which then stands in the low mantissa bits.
    const MAGIC: f32 = 12_582_912.0;
    const LN2_HI: f32 = 0.693_359_4;
    const LN2_LO: f32 = -2.121_944_4e-4;
    // Comparisons that keep a NaN, unlike f32::max.
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 87.0 { 87.0 } else { x };
    let shifted = mul_add::<FMA>(x, std::f32::consts::LOG2_E, MAGIC);
    let n = shifted - MAGIC;
    let r = mul_add::<FMA>(n, -LN2_HI, x);
    let r = mul_add::<FMA>(n, -LN2_LO, r);
    let mut p = 1.987_569_1e-4;
    p = mul_add::<FMA>(p, r, 1.398_199_9e-3);
    p = mul_add::<FMA>(p, r, 8.333_452e-3);
    p = mul_add::<FMA>(p, r, 4.166_579_6e-2);
    p = mul_add::<FMA>(p, r, 1.666_666_5e-1);
    p = mul_add::<FMA>(p, r, 5.0e-1);
    p = mul_add::<FMA>(p, r * r, r + 1.0);
    let bits = shifted.to_bits().wrapping_sub(MAGIC.to_bits()).wrapping_add(127) << 23;
    p * f32::from_bits(bits)
}

/// ln x to about 2 ulp, of positive normal numbers; 0 counts as the least of these.
#[inline(always)]
pub(crate) fn ln<const FMA: bool>(x: f32) -> f32 {
    const LN2_HI: f32 = 0.693_359_4;
    const LN2_LO: f32 = -2.121_944_4e-4;
    let x = if x < f32::MIN_POSITIVE { f32::MIN_POSITIVE } else { x };
    // x = 2ⁿ (1 + f), with 1 + f from √½ to √2.
    let from_root = x.to_bits().wrapping_sub(std::f32::consts::FRAC_1_SQRT_2.to_bits());
    let n = from_root as i32 >> 23;
    let f = f32::from_bits(x.to_bits().wrapping_sub((n << 23) as u32)) - 1.0;
    let n = n as f32;
    // ln(1 + f) = f − s (f − R), with s = f/(2 + f) and R = 2 (s²/3 + s⁴/5 + …), the last term fitted.
    let s = f / (2.0 + f);
    let z = s * s;
    let mut r = 0.242_790_79;
    r = mul_add::<FMA>(r, z, 0.284_987_87);
    r = mul_add::<FMA>(r, z, 0.400_009_72);
    r = mul_add::<FMA>(r, z, 0.666_666_6);
    let low = mul_add::<FMA>(-s, mul_add::<FMA>(-r, z, f), n * LN2_LO);
    mul_add::<FMA>(n, LN2_HI, low + f)
}

/// 2ˣ of sixteen numbers to 3·10⁻⁶, for what is rounded to bfloat16 afterwards. The argument is
/// clamped to ±126; NaN stays NaN.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn exp2_near(x: std::arch::x86_64::__m512) -> std::arch::x86_64::__m512 {
    use std::arch::x86_64::{
        _mm512_add_ps, _mm512_castps_si512, _mm512_castsi512_ps, _mm512_fmadd_ps, _mm512_max_ps,
        _mm512_min_ps, _mm512_mul_ps, _mm512_set1_ps, _mm512_slli_epi32, _mm512_sub_ps,
    };
    // Adding this rounds to an integer, which then stands, with the exponent's bias, in the low bits
    // of the mantissa.
    let magic = _mm512_set1_ps(12_582_912.0 + 127.0);
    // The second operand is returned if it is NaN.
    let x = _mm512_min_ps(_mm512_set1_ps(126.0), _mm512_max_ps(_mm512_set1_ps(-126.0), x));
    let shifted = _mm512_add_ps(x, magic);
    let r = _mm512_sub_ps(x, _mm512_sub_ps(shifted, magic));
    let mut p = _mm512_set1_ps(9.570_101e-3);
    for c in [5.591_786e-2, 2.402_474_4e-1, 6.931_218e-1, 9.999_993e-1] {
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(c));
    }
    let scale = _mm512_slli_epi32::<23>(_mm512_castps_si512(shifted));
    _mm512_mul_ps(p, _mm512_castsi512_ps(scale))
}

/// Σ of the lanes, by halves.
#[inline(always)]
pub(crate) fn sum_lanes(lanes: [f32; LANES]) -> f32 {
    let mut lanes = lanes;
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Σ f(a, b) over two slices of equal length, in [`LANES`] columns.
#[inline(always)]
pub(crate) fn sum_by(a: &[f32], b: &[f32], f: impl Fn(f32, f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for i in 0..LANES {
            lanes[i] = f(a[i], b[i], lanes[i]);
        }
    }
    for (i, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
        lanes[i] = f(*a, *b, lanes[i]);
    }
    sum_lanes(lanes)
}

/// The largest element, −∞ for an empty slice. A NaN may be passed over.
#[inline(always)]
pub(crate) fn max(a: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = a.as_chunks::<LANES>();
    for a in chunks {
        for i in 0..LANES {
            lanes[i] = if a[i] > lanes[i] { a[i] } else { lanes[i] };
        }
    }
    for (i, a) in rest.iter().enumerate() {
        lanes[i] = if *a > lanes[i] { *a } else { lanes[i] };
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(always)]
    fn exp_all_impl<const FMA: bool>(x: &mut [f32]) {
        for v in x {
            *v = exp::<FMA>(*v);
        }
    }
    vectorised!(fn exp_all(x: &mut [f32]) = exp_all_impl);

    #[test]
    fn exp_is_close_everywhere() {
        let inputs: Vec<f32> = (-8600..=8600).map(|i| i as f32 * 0.01 + 0.003).collect();
        let mut fast = inputs.clone();
        exp_all(&mut fast);
        let mut plain = inputs.clone();
        exp_all_impl::<false>(&mut plain);
        for ((x, y), z) in inputs.iter().zip(&fast).zip(&plain) {
            let exact = f64::from(*x).exp();
            for y in [y, z] {
                assert!((f64::from(*y) / exact - 1.0).abs() < 4e-7, "exp({x}) = {y}");
            }
        }
        assert!(exp::<false>(f32::NAN).is_nan());
        assert_eq!(exp::<false>(0.0), 1.0);
        assert!(exp::<false>(-1e30) < 1e-37);
    }

    #[inline(always)]
    fn ln_all_impl<const FMA: bool>(x: &mut [f32]) {
        for v in x {
            *v = ln::<FMA>(*v);
        }
    }
    vectorised!(fn ln_all(x: &mut [f32]) = ln_all_impl);

    #[test]
    fn ln_is_close_everywhere() {
        let inputs = (-870..=880).flat_map(|i| [(i as f32 * 0.1).exp(), 1.0 + i as f32 * 1e-5]);
        let inputs: Vec<f32> = inputs.collect();
        let (mut fast, mut plain) = (inputs.clone(), inputs.clone());
        ln_all(&mut fast);
        ln_all_impl::<false>(&mut plain);
        for ((x, y), z) in inputs.iter().zip(&fast).zip(&plain) {
            let exact = f64::from(*x).ln();
            for y in [y, z] {
                let off = (f64::from(*y) - exact).abs();
                assert!(off < 3e-7 * exact.abs() + 1e-9, "ln({x}) = {y}, {exact}");
            }
        }
        assert_eq!((ln::<false>(1.0), ln::<false>(0.0)), (0.0, ln::<false>(f32::MIN_POSITIVE)));
    }

    #[test]
    fn reductions() {
        let x: Vec<f32> = (0..37).map(|i| (i as f32 * 0.7).sin()).collect();
        let exact: f64 = x.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
        assert!((f64::from(sum_by(&x, &x, |a, b, s| a * b + s)) - exact).abs() < 1e-5);
        assert_eq!(max(&x), x.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    }
}
