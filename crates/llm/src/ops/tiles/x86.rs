//! The instructions themselves.

use std::arch::asm;
use std::arch::x86_64::{__cpuid_count, _MM_HINT_ET0, _mm_prefetch};

use super::{Call, SIDE};

pub(super) fn there() -> bool {
    const BF16: u32 = 1 << 22;
    const TILES: u32 = 1 << 24;
    // Leaf 0 says which leaves there are.
    let leaves = __cpuid_count(0, 0).eax;
    leaves >= 7 && __cpuid_count(7, 0).edx & (BF16 | TILES) == BF16 | TILES
}

/// The system saves the registers for those processes only that asked for it.
pub(super) fn permitted() -> bool {
    const REQUEST: i32 = 0x1023; // ARCH_REQ_XCOMP_PERM
    const TILE_DATA: i32 = 18; // XFEATURE_XTILEDATA
    // SAFETY: the call changes what the system saves for this process, and no memory of ours.
    unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST, TILE_DATA) == 0 }
}

/// Asks for the cache line of an address, which need not be valid.
#[inline(always)]
pub(super) unsafe fn fetch_to_write(address: *const f32) {
    // SAFETY: it reads nothing.
    unsafe { _mm_prefetch::<_MM_HINT_ET0>(address.cast()) };
}

/// What `ldtilecfg` reads.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

pub(super) fn set_up() {
    static WHOLE: Shapes = {
        let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
        let mut register = 0;
        while register < 8 {
            row_bytes[register] = 64;
            rows[register] = SIDE as u8;
            register += 1;
        }
        Shapes { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows }
    };
    // SAFETY: only called where the instructions are there and permitted; the shapes are 64
    // bytes that fit the registers, and nothing else of the program uses these.
    unsafe {
        asm!("ldtilecfg [{}]", in(reg) &raw const WHOLE, options(nostack, readonly));
    }
}

pub(super) fn release() {
    // SAFETY: as in `set_up`.
    unsafe { asm!("tilerelease", options(nostack, nomem)) };
}

/// Four products a step; the registers are set up.
pub(super) fn spin(steps: u64) {
    // SAFETY: only registers that nobody else uses.
    unsafe {
        asm!(
            "tilezero tmm4",
            "tilezero tmm6",
            "2:",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm6",
            "tdpbf16ps tmm2, tmm4, tmm6",
            "tdpbf16ps tmm3, tmm4, tmm6",
            "dec {steps}",
            "jnz 2b",
            steps = inout(reg) steps => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm6") _,
            options(nostack, nomem),
        );
    }
}

/// Asks for eight lines.
macro_rules! fetch {
    ($place:literal) => {
        concat!(
            "prefetcht0 [",
            $place,
            "]\n",
            "prefetcht0 [",
            $place,
            " + 64]\n",
            "prefetcht0 [",
            $place,
            " + 128]\n",
            "prefetcht0 [",
            $place,
            " + 192]\n",
            "prefetcht0 [",
            $place,
            " + 256]\n",
            "prefetcht0 [",
            $place,
            " + 320]\n",
            "prefetcht0 [",
            $place,
            " + 384]\n",
            "prefetcht0 [",
            $place,
            " + 448]",
        )
    };
}

/// A product of one or two tiles of rows with a panel: what begins, loads and stores the sums, the
/// first factors, what is done at every tile of the inner dimension, and how it ends with the next
/// tile's factors or without. Factors are loaded as soon as their register is free, and their lines
/// asked for a tile before: the processor itself does not look far ahead over tiles, least with a
/// neighbour on the same core, and a line that was asked for holds nothing up. Names of operands are
/// those below.
macro_rules! product {
    (
        $name:ident, tiles of $a_step:literal and $b_step:literal,
        zero: [$($zero:literal)*], load: [$($load:literal)*], first: [$($first:literal)*],
        body: [$($body:expr),*], next: [$($next:expr),*], last: [$($last:literal)*],
        store: [$($store:literal)*] $(, second rows: $a2:ident, $c2:ident)?
    ) => {
        /// # Safety
        /// As `super::multiply`; the registers are set up.
        pub(super) unsafe fn $name(call: Call) {
            // SAFETY: reads and writes what the contract allows, and registers that nobody else
            // uses.
            unsafe {
                asm!(
                    "test {i:e}, {i:e}",
                    "jnz 2f",
                    $($zero,)*
                    "jmp 3f",
                    "2:",
                    $($load,)*
                    "3:",
                    $($first,)*
                    "jmp 6f",
                    "5:",
                    $($body,)*
                    $($next,)*
                    concat!("add {a}, ", $a_step),
                    $(concat!("add {", stringify!($a2), "}, ", $a_step),)?
                    concat!("add {b}, ", $b_step),
                    "6:",
                    "mov {i}, {walk}",
                    "4:",
                    "prefetcht1 [{next}]",
                    "prefetcht1 [{next} + {quarter}]",
                    "prefetcht1 [{next} + {quarter}*2]",
                    "prefetcht1 [{next} + {quarters3}]",
                    "add {next}, 64",
                    "dec {i}",
                    "jg 4b",
                    "dec {depth}",
                    "jnz 5b",
                    $($body,)*
                    $($last,)*
                    $($store,)*
                    a = inout(reg) call.a => _,
                    $($a2 = inout(reg) call.a.add(call.a_rows) => _,)?
                    line = in(reg) 64_usize,
                    b = inout(reg) call.b => _,
                    c = in(reg) call.c,
                    $($c2 = in(reg) call.c.add(SIDE * call.c_rows),)?
                    c_rows = in(reg) 4 * call.c_rows,
                    depth = inout(reg) call.depth => _,
                    next = inout(reg) call.next => _,
                    walk = in(reg) call.walk,
                    quarter = in(reg) 4 * call.quarter,
                    quarters3 = in(reg) 12 * call.quarter,
                    i = inout(reg) usize::from(call.add) => _,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

product! {
    multiply_16, tiles of 1024 and 2048,
    zero: [
        "tilezero tmm0"
        "tilezero tmm1"
    ],
    load: [
        "tileloadd tmm0, [{c} + {c_rows}*1]"
        "tileloadd tmm1, [{c} + {c_rows}*1 + 64]"
    ],
    first: [
        "tileloadd tmm6, [{b} + {line}*2]"
        "tileloadd tmm4, [{a} + {line}*1]"
        "tileloadd tmm7, [{b} + {line}*2 + 64]"
    ],
    body: [],
    next: [
        "tdpbf16ps tmm0, tmm4, tmm6",
        "tileloadd tmm6, [{b} + {line}*2 + 2048]",
        fetch!("{b} + 4096"),
        fetch!("{b} + 4608"),
        fetch!("{a} + 2048"),
        "tdpbf16ps tmm1, tmm4, tmm7",
        "tileloadd tmm4, [{a} + {line}*1 + 1024]",
        "tileloadd tmm7, [{b} + {line}*2 + 2112]",
        fetch!("{a} + 2560"),
        fetch!("{b} + 5120"),
        fetch!("{b} + 5632")
    ],
    last: [
        "tdpbf16ps tmm0, tmm4, tmm6"
        "tdpbf16ps tmm1, tmm4, tmm7"
    ],
    store: [
        "tilestored [{c} + {c_rows}*1], tmm0"
        "tilestored [{c} + {c_rows}*1 + 64], tmm1"
    ]
}

product! {
    multiply_32, tiles of 1024 and 2048,
    zero: [
        "tilezero tmm0"
        "tilezero tmm1"
        "tilezero tmm2"
        "tilezero tmm3"
    ],
    load: [
        "tileloadd tmm0, [{c} + {c_rows}*1]"
        "tileloadd tmm1, [{c} + {c_rows}*1 + 64]"
        "tileloadd tmm2, [{c2} + {c_rows}*1]"
        "tileloadd tmm3, [{c2} + {c_rows}*1 + 64]"
    ],
    first: [
        "tileloadd tmm6, [{b} + {line}*2]"
        "tileloadd tmm4, [{a} + {line}*1]"
        "tileloadd tmm5, [{a2} + {line}*1]"
        "tileloadd tmm7, [{b} + {line}*2 + 64]"
    ],
    body: [],
    next: [
        "tdpbf16ps tmm0, tmm4, tmm6",
        fetch!("{a} + 2048"),
        fetch!("{b} + 4096"),
        "tdpbf16ps tmm2, tmm5, tmm6",
        "tileloadd tmm6, [{b} + {line}*2 + 2048]",
        fetch!("{a} + 2560"),
        fetch!("{b} + 4608"),
        "tdpbf16ps tmm1, tmm4, tmm7",
        "tileloadd tmm4, [{a} + {line}*1 + 1024]",
        fetch!("{a2} + 2048"),
        fetch!("{b} + 5120"),
        "tdpbf16ps tmm3, tmm5, tmm7",
        "tileloadd tmm5, [{a2} + {line}*1 + 1024]",
        fetch!("{a2} + 2560"),
        "tileloadd tmm7, [{b} + {line}*2 + 2112]",
        fetch!("{b} + 5632")
    ],
    last: [
        "tdpbf16ps tmm0, tmm4, tmm6"
        "tdpbf16ps tmm2, tmm5, tmm6"
        "tdpbf16ps tmm1, tmm4, tmm7"
        "tdpbf16ps tmm3, tmm5, tmm7"
    ],
    store: [
        "tilestored [{c} + {c_rows}*1], tmm0"
        "tilestored [{c} + {c_rows}*1 + 64], tmm1"
        "tilestored [{c2} + {c_rows}*1], tmm2"
        "tilestored [{c2} + {c_rows}*1 + 64], tmm3"
    ],
    second rows: a2, c2
}

/// # Safety
/// As `super::multiply_list`; the registers are set up, and there is a panel.
pub(super) unsafe fn multiply_list(a: *const u32, list: &[*const u32], c: *mut f32, c_rows: usize) {
    // SAFETY: as in `product`.
    unsafe {
        asm!(
            "tileloadd tmm0, [{c} + {c_rows}*1]",
            "tileloadd tmm1, [{c} + {c_rows}*1 + 64]",
            "tileloadd tmm2, [{c2} + {c_rows}*1]",
            "tileloadd tmm3, [{c2} + {c_rows}*1 + 64]",
            "mov {b}, [{list}]",
            "2:",
            "tileloadd tmm6, [{b} + {line}*2]",
            "tileloadd tmm4, [{a} + {line}*1]",
            "mov {then}, [{list} + 8]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            fetch!("{then}"),
            "tileloadd tmm5, [{a} + {line}*1 + 1024]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            fetch!("{then} + 512"),
            "tileloadd tmm7, [{b} + {line}*2 + 64]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            fetch!("{then} + 1024"),
            "tdpbf16ps tmm3, tmm5, tmm7",
            fetch!("{then} + 1536"),
            "add {a}, 2048",
            "add {list}, 8",
            "mov {b}, {then}",
            "dec {depth}",
            "jnz 2b",
            "tilestored [{c} + {c_rows}*1], tmm0",
            "tilestored [{c} + {c_rows}*1 + 64], tmm1",
            "tilestored [{c2} + {c_rows}*1], tmm2",
            "tilestored [{c2} + {c_rows}*1 + 64], tmm3",
            a = inout(reg) a => _,
            list = inout(reg) list.as_ptr() => _,
            depth = inout(reg) list.len() - 1 => _,
            b = out(reg) _,
            then = out(reg) _,
            line = in(reg) 64_usize,
            c = in(reg) c,
            c2 = in(reg) c.add(SIDE * c_rows),
            c_rows = in(reg) 4 * c_rows,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

// The least part with the first, middle with first, middle with middle, first with middle, first
// with least, first with first: every product has one factor of the one before.
product! {
    multiply_thirds_16, tiles of 3072 and 6144,
    zero: [
        "tilezero tmm0"
        "tilezero tmm1"
    ],
    load: [
        "tileloadd tmm0, [{c} + {c_rows}*1]"
        "tileloadd tmm1, [{c} + {c_rows}*1 + 64]"
    ],
    first: [
        "tileloadd tmm2, [{b} + {line}*2]"
        "tileloadd tmm4, [{a} + {line}*1 + 2048]"
        "tileloadd tmm3, [{b} + {line}*2 + 64]"
    ],
    body: [
        "tileloadd tmm5, [{a} + {line}*1 + 1024]",
        "tdpbf16ps tmm0, tmm4, tmm2",
        fetch!("{b} + 6144"),
        "tdpbf16ps tmm1, tmm4, tmm3",
        fetch!("{b} + 6656"),
        fetch!("{b} + 7168"),
        "tileloadd tmm6, [{b} + {line}*2 + 2048]",
        "tileloadd tmm7, [{b} + {line}*2 + 2112]",
        "tdpbf16ps tmm0, tmm5, tmm2",
        fetch!("{b} + 7680"),
        fetch!("{a} + 5120"),
        "tdpbf16ps tmm1, tmm5, tmm3",
        fetch!("{a} + 5632"),
        fetch!("{a} + 4096"),
        "tileloadd tmm4, [{a} + {line}*1]",
        "tdpbf16ps tmm0, tmm5, tmm6",
        fetch!("{a} + 4608"),
        fetch!("{b} + 8192"),
        "tdpbf16ps tmm1, tmm5, tmm7",
        fetch!("{b} + 8704"),
        "tdpbf16ps tmm0, tmm4, tmm6",
        fetch!("{b} + 9216"),
        fetch!("{b} + 9728"),
        "tileloadd tmm6, [{b} + {line}*2 + 4096]",
        "tdpbf16ps tmm1, tmm4, tmm7",
        fetch!("{a} + 3072"),
        fetch!("{a} + 3584"),
        "tileloadd tmm7, [{b} + {line}*2 + 4160]",
        "tdpbf16ps tmm0, tmm4, tmm6",
        fetch!("{b} + 10240"),
        fetch!("{b} + 10752"),
        "tdpbf16ps tmm1, tmm4, tmm7",
        fetch!("{b} + 11264"),
        fetch!("{b} + 11776")
    ],
    next: [
        "tdpbf16ps tmm0, tmm4, tmm2",
        "tileloadd tmm2, [{b} + {line}*2 + 6144]",
        "tdpbf16ps tmm1, tmm4, tmm3",
        "tileloadd tmm4, [{a} + {line}*1 + 5120]",
        "tileloadd tmm3, [{b} + {line}*2 + 6208]"
    ],
    last: [
        "tdpbf16ps tmm0, tmm4, tmm2"
        "tdpbf16ps tmm1, tmm4, tmm3"
    ],
    store: [
        "tilestored [{c} + {c_rows}*1], tmm0"
        "tilestored [{c} + {c_rows}*1 + 64], tmm1"
    ]
}

product! {
    multiply_thirds_32, tiles of 3072 and 6144,
    zero: [
        "tilezero tmm0"
        "tilezero tmm1"
        "tilezero tmm2"
        "tilezero tmm3"
    ],
    load: [
        "tileloadd tmm0, [{c} + {c_rows}*1]"
        "tileloadd tmm1, [{c} + {c_rows}*1 + 64]"
        "tileloadd tmm2, [{c2} + {c_rows}*1]"
        "tileloadd tmm3, [{c2} + {c_rows}*1 + 64]"
    ],
    first: [
        "tileloadd tmm6, [{b} + {line}*2]"
        "tileloadd tmm4, [{a} + {line}*1 + 2048]"
        "tileloadd tmm7, [{b} + {line}*2 + 64]"
        "tileloadd tmm5, [{a2} + {line}*1 + 2048]"
    ],
    body: [
        "tdpbf16ps tmm0, tmm4, tmm6",
        fetch!("{b} + 6144"),
        "tdpbf16ps tmm1, tmm4, tmm7",
        fetch!("{b} + 6656"),
        "tileloadd tmm4, [{a} + {line}*1 + 1024]",
        "tdpbf16ps tmm2, tmm5, tmm6",
        fetch!("{b} + 7168"),
        "tdpbf16ps tmm3, tmm5, tmm7",
        fetch!("{b} + 7680"),
        "tileloadd tmm5, [{a2} + {line}*1 + 1024]",
        "tdpbf16ps tmm0, tmm4, tmm6",
        fetch!("{a} + 5120"),
        fetch!("{a} + 5632"),
        "tdpbf16ps tmm2, tmm5, tmm6",
        fetch!("{a2} + 5120"),
        "tileloadd tmm6, [{b} + {line}*2 + 2048]",
        "tdpbf16ps tmm1, tmm4, tmm7",
        fetch!("{a2} + 5632"),
        "tdpbf16ps tmm3, tmm5, tmm7",
        fetch!("{a} + 4096"),
        "tileloadd tmm7, [{b} + {line}*2 + 2112]",
        "tdpbf16ps tmm0, tmm4, tmm6",
        fetch!("{a} + 4608"),
        "tdpbf16ps tmm1, tmm4, tmm7",
        fetch!("{a2} + 4096"),
        fetch!("{a2} + 4608"),
        "tileloadd tmm4, [{a} + {line}*1]",
        "tdpbf16ps tmm2, tmm5, tmm6",
        fetch!("{b} + 8192"),
        "tdpbf16ps tmm3, tmm5, tmm7",
        fetch!("{b} + 8704"),
        "tileloadd tmm5, [{a2} + {line}*1]",
        "tdpbf16ps tmm0, tmm4, tmm6",
        fetch!("{b} + 9216"),
        "tdpbf16ps tmm2, tmm5, tmm6",
        fetch!("{b} + 9728"),
        "tileloadd tmm6, [{b} + {line}*2 + 4096]",
        "tdpbf16ps tmm1, tmm4, tmm7",
        fetch!("{a} + 3072"),
        fetch!("{a} + 3584"),
        "tdpbf16ps tmm3, tmm5, tmm7",
        fetch!("{a2} + 3072"),
        "tileloadd tmm7, [{b} + {line}*2 + 4160]",
        "tdpbf16ps tmm0, tmm4, tmm6",
        fetch!("{a2} + 3584"),
        "tdpbf16ps tmm2, tmm5, tmm6",
        fetch!("{b} + 10240"),
        "tileloadd tmm6, [{b} + {line}*2]",
        "tdpbf16ps tmm1, tmm4, tmm7",
        fetch!("{b} + 10752"),
        "tdpbf16ps tmm3, tmm5, tmm7",
        fetch!("{b} + 11264"),
        fetch!("{b} + 11776"),
        "tileloadd tmm7, [{b} + {line}*2 + 64]"
    ],
    next: [
        "tdpbf16ps tmm0, tmm4, tmm6",
        "tdpbf16ps tmm2, tmm5, tmm6",
        "tileloadd tmm6, [{b} + {line}*2 + 6144]",
        "tdpbf16ps tmm1, tmm4, tmm7",
        "tileloadd tmm4, [{a} + {line}*1 + 5120]",
        "tdpbf16ps tmm3, tmm5, tmm7",
        "tileloadd tmm5, [{a2} + {line}*1 + 5120]",
        "tileloadd tmm7, [{b} + {line}*2 + 6208]"
    ],
    last: [
        "tdpbf16ps tmm0, tmm4, tmm6"
        "tdpbf16ps tmm2, tmm5, tmm6"
        "tdpbf16ps tmm1, tmm4, tmm7"
        "tdpbf16ps tmm3, tmm5, tmm7"
    ],
    store: [
        "tilestored [{c} + {c_rows}*1], tmm0"
        "tilestored [{c} + {c_rows}*1 + 64], tmm1"
        "tilestored [{c2} + {c_rows}*1], tmm2"
        "tilestored [{c2} + {c_rows}*1 + 64], tmm3"
    ],
    second rows: a2, c2
}
