//! The processor's tile registers (AMX): sixteen rows by sixteen columns over sixteen pairs of
//! bfloat16 in one instruction.
//!
//! A register holds 16 rows of 64 bytes. `tdpbf16ps` adds to a tile of f32 sums the product of a tile
//! of left rows (16 rows, 16 pairs) and one of right columns (16 pairs, 16 columns), half a panel as
//! [`Panels`](super::panels::Panels) has it. A sum runs over the pairs in their order, whatever
//! stands in the other rows.
#![allow(unsafe_code)]

/// Rows of a tile, and 32-bit lanes of a row.
pub(crate) const SIDE: usize = 16;

/// Whether this process may use tile registers: the processor has them, the system saves them, and
/// `EMPG_TILES=off` is not set, which leaves products to narrower instructions.
pub(crate) fn available() -> bool {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    {
        use std::sync::OnceLock;
        static FOUND: OnceLock<bool> = OnceLock::new();
        *FOUND.get_or_init(|| {
            let wanted = std::env::var_os("EMPG_TILES").is_none_or(|value| value != "off");
            wanted && super::bf16::native() && x86::there() && x86::permitted()
        })
    }
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    {
        false
    }
}

/// The calling thread's tile registers, set up for whole tiles until this is dropped.
#[derive(Debug)]
pub(crate) struct Tiles {
    /// Registers belong to their thread.
    thread: std::marker::PhantomData<*mut ()>,
}

impl Tiles {
    /// # Panics
    /// Where they are not [`available`].
    pub(crate) fn set_up() -> Self {
        assert!(available(), "no tile registers");
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        x86::set_up();
        Self { thread: std::marker::PhantomData }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        x86::release();
    }
}

/// c (16 M, 32) = or += a (16 M, 16 `depth`) · b (16 `depth`, 32).
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code))]
#[derive(Clone, Copy)]
pub(crate) struct Call {
    /// Tiles of the inner dimension.
    pub(crate) depth: usize,
    /// Tiles one after the other, those of the next sixteen rows `a_rows` lanes on.
    pub(crate) a: *const u32,
    pub(crate) a_rows: usize,
    /// Pairs of 32 columns, row after row.
    pub(crate) b: *const u32,
    /// Rows `c_rows` elements apart.
    pub(crate) c: *mut f32,
    pub(crate) c_rows: usize,
    pub(crate) add: bool,
    /// Rows that are written soon, `next_rows` elements apart: 32 elements of each are asked for, to be
    /// written. None if it is null.
    pub(crate) c_next: *const f32,
    pub(crate) next_rows: usize,
    /// Of what the second cache should hold soon, `walk` lines at every tile, from each of four
    /// places that are `quarter` lanes apart: several streams bring more of the bandwidth than one.
    pub(crate) next: *const u32,
    pub(crate) quarter: usize,
    pub(crate) walk: usize,
}

/// Multiplies up to 16 or 32 rows with a panel.
///
/// # Safety
/// `a`, `b` and `c` have what the shape and the strides reach: 16 or 32 rows.
pub(crate) unsafe fn multiply(_tiles: &Tiles, call: Call, rows: usize) {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    // SAFETY: the registers are set up as long as there is a `Tiles`; the function's contract.
    unsafe {
        fetch_sums(call.c_next, call.next_rows, rows);
        if rows <= SIDE { x86::multiply_16(call) } else { x86::multiply_32(call) }
    }
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    unreachable!("without tile registers there is no `Tiles`: {:?}, {rows}", call.depth);
}

/// As [`multiply`], where every number is the sum of three of bfloat16: a tile stands for three that
/// follow each other, of the first, middle and least parts. Products are left out where the least part
/// meets the middle or the least: 2⁻²⁶ of a product at most.
///
/// # Safety
/// As [`multiply`].
pub(crate) unsafe fn multiply_thirds(_tiles: &Tiles, call: Call, rows: usize) {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    // SAFETY: as above.
    unsafe {
        fetch_sums(call.c_next, call.next_rows, rows);
        if rows <= SIDE { x86::multiply_thirds_16(call) } else { x86::multiply_thirds_32(call) }
    }
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    unreachable!("no `Tiles` without registers: {:?}, {rows}", call.depth);
}

/// c (32, 32) += a (32, 16 D) · the D panels of `list`, each sixteen pairs deep, whose last entry is one
/// more address, to be asked for and not read. Left rows lie in tiles, all of a panel's before those of
/// the next; sums as in a [`Call`].
///
/// # Safety
/// All have what the shape and the strides reach.
pub(crate) unsafe fn multiply_list(
    _tiles: &Tiles,
    a: *const u32,
    list: &[*const u32],
    c: *mut f32,
    c_rows: usize,
) {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    if list.len() > 1 {
        // SAFETY: as above.
        unsafe { x86::multiply_list(a, list, c, c_rows) };
    }
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    unreachable!("no `Tiles` without registers: {a:?}, {list:?}, {c:?}, {c_rows}");
}

/// Asks for sums that will be written.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
unsafe fn fetch_sums(first: *const f32, stride: usize, rows: usize) {
    if first.is_null() {
        return;
    }
    for row in 0..rows.next_multiple_of(SIDE) {
        // SAFETY: nothing is read.
        unsafe {
            x86::fetch_to_write(first.wrapping_add(row * stride));
            x86::fetch_to_write(first.wrapping_add(row * stride + SIDE));
        }
    }
}

/// Products of registers alone: what is the most that a thread can do. Returns the operations.
pub(crate) fn spin(_tiles: &Tiles, steps: u64) -> u64 {
    const PRODUCTS: u64 = 4;
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    x86::spin(steps.max(1));
    steps.max(1) * PRODUCTS * (SIDE * SIDE * 2 * SIDE * 2) as u64
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod x86;
