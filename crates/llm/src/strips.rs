//! Some rows by a weight that was packed once into panels, as sampling multiplies, in either number
//! type: all rows go through a few panels while the next ones are on their way. A sum runs over the
//! inputs in order, whatever the number of rows: a row's result does not depend on its batch, to the bit.
// Kernels must be inlined into the function that enables their instruction set.
#![allow(unsafe_code, clippy::inline_always)]

use std::ops::Range;

use crate::ops::lanes::{fetch, fetch_far};
use crate::pairs::Pair32;
use crate::share::Disjoint;
use crate::team::{Team, part};
use crate::vector::{Lane32, unroll};

/// Outputs of one panel.
pub(crate) const PANEL: usize = 32;
/// At most so many panels that all rows are multiplied with before the next ones are read.
pub(crate) const STRIP: usize = 4;
/// Bytes of these panels: they and the next ones stay in the second cache.
const STRIP_BYTES: usize = 384 << 10;
/// Rows of a panel that are asked for ahead of their use.
const AHEAD: usize = 24;
/// Blocks of so many rows ask for the strip behind theirs.
const ASKING: usize = 6;
/// From this many rows on, packing them is shared among the threads.
pub(crate) const PACK_TOGETHER: usize = 24;
/// Lanes of one row that lie beside each other in packed rows.
pub(crate) const RUN: usize = 16;

/// What happens to the old content of the result.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// Replaced.
    Set,
    /// Added to.
    Add,
}

/// 32 f32 sums in registers, and what they are sums of.
///
/// # Safety
/// The implementations use instructions that the processor must have: call them only below a
/// function that enables the matching `target_feature` after detection.
pub(crate) unsafe trait Sums: Copy {
    /// A row of a panel in registers.
    type Row: Copy;
    /// Accumulators of this kind that fit into the registers beside the operands.
    const ACCUMULATORS: usize;
    /// All zero.
    unsafe fn zero() -> Self;
    /// The sums.
    unsafe fn store(self, to: &mut Lane32);
    /// Reads a row.
    unsafe fn row(from: &Pair32) -> Self::Row;
    /// self + row · x in every lane.
    unsafe fn dot(self, row: Self::Row, x: u32) -> Self;
}

/// A weight.
#[derive(Clone, Copy)]
pub(crate) struct Strips<'a> {
    /// (⌈outputs/32⌉, depth, 32)
    pub(crate) panels: &'a [Pair32],
    pub(crate) depth: usize,
    pub(crate) outputs: usize,
    /// ⌈outputs/32⌉ panels.
    pub(crate) bias: Option<&'a [Lane32]>,
    /// What is multiplied after this.
    pub(crate) then: Option<Place>,
}

/// Where panels lie that will be asked for and not read from here: the weight may be gone by then.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    address: usize,
    panels: usize,
    depth: usize,
}

impl Place {
    /// Of panels that are `depth` rows deep.
    pub(crate) fn of<T>(panels: &[T], depth: usize) -> Self {
        let count = size_of_val(panels) / (depth * size_of::<Pair32>()).max(1);
        Self { address: panels.as_ptr().addr(), panels: count, depth }
    }

    /// Where the thread's part begins.
    fn part(self, thread: usize, threads: usize) -> *const u32 {
        let first = part(self.panels, thread, threads).start;
        let offset = first * self.depth * size_of::<Pair32>();
        std::ptr::without_provenance(self.address + offset)
    }
}

/// Where a weight lies, and what it has to know of the next.
pub(crate) struct Link<'a> {
    pub(crate) place: Place,
    pub(crate) then: &'a mut Option<Place>,
}

/// Rows by [blocks], each (⌈depth/16⌉, rows of the block, 16).
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) packed: &'a [u32],
    pub(crate) blocks: &'a [(usize, usize)],
}

/// Where the result goes: (rows, outputs).
#[derive(Clone, Copy)]
pub(crate) struct To<'y, 'a> {
    pub(crate) y: &'a Disjoint<'y, f32>,
    pub(crate) into: Output,
}

/// Rows by blocks that a kernel with so many accumulators takes: first row and count.
pub(crate) fn blocks(rows: usize, accumulators: usize) -> Vec<(usize, usize)> {
    let mut blocks = Vec::new();
    let mut first = 0;
    while first < rows {
        let count = match (rows - first).min(accumulators) {
            12.. => 12,
            8.. => 8,
            6.. => 6,
            4.. => 4,
            left => left,
        };
        blocks.push((first, count));
        first += count;
    }
    blocks
}

/// Packs a block of so many rows to its place.
type Pack<'a> = dyn Fn(&[f32], usize, &mut [u32]) + Sync + 'a;

/// Packs rows (R, inputs) by blocks, `length` lanes a row.
pub(crate) fn pack_blocks(
    team: &Team,
    x: &[f32],
    (inputs, length): (usize, usize),
    blocks: &[(usize, usize)],
    packed: &mut Vec<Pair32>,
    pack: &Pack<'_>,
) {
    let rows = x.len() / inputs;
    packed.resize((rows * length).div_ceil(PANEL), Pair32::ZERO);
    let packed = Disjoint::new(bytemuck::cast_slice_mut(packed));
    team.split(blocks.len(), if rows < PACK_TOGETHER { usize::MAX } else { 2 }, &|which| {
        for &(first, count) in &blocks[which] {
            // SAFETY: blocks do not overlap, and no block is packed by two threads.
            let out = unsafe { packed.part(first * length..(first + count) * length) };
            pack(&x[first * inputs..(first + count) * inputs], count, out);
        }
    });
}

/// One block of rows with one strip of panels.
pub(crate) struct Call {
    pub(crate) strip: Range<usize>,
    /// First row and count.
    pub(crate) block: (usize, usize),
    ahead: Ahead,
}

/// What a thread multiplies: all rows with its part of the panels, of which `together` stay in one strip.
#[inline(always)]
pub(crate) fn calls<'a>(
    weight: Strips<'a>,
    rows: Rows<'a>,
    (thread, threads): (usize, usize),
    together: usize,
) -> impl Iterator<Item = Call> + 'a {
    let depth = weight.depth;
    let groups = part(weight.panels.len() / depth / together, thread, threads);
    let most = (STRIP_BYTES / (depth * size_of::<Pair32>()).max(1)).clamp(1, STRIP);
    let strips = groups.len().div_ceil((most / together).max(1));
    // Of the next strip every block of many rows asks for a part. The sums of few rows take less
    // time than their panel takes to come: these ask only for what comes after the thread's part.
    let asking = rows.blocks.iter().filter(|(_, count)| *count >= ASKING).count();
    let walk = PANEL.div_ceil(asking.max(1));
    (0..strips).flat_map(move |i| {
        // Of nearly one length: a last strip of a single panel would read the rows for it alone.
        let strip = part(groups.len(), i, strips);
        let strip = (groups.start + strip.start) * together..(groups.start + strip.end) * together;
        // The first strip of what is multiplied next would otherwise come while all wait for it.
        let behind = match weight.then {
            Some(then) if i + 1 == strips => then.part(thread, threads),
            _ => weight.panels.as_ptr().wrapping_add(strip.end * depth).cast::<u32>(),
        };
        let share = strip.len() * depth * walk;
        let last = i + 1 == strips;
        rows.blocks.iter().enumerate().map(move |(at, &(first, count))| {
            // Blocks of many rows come first.
            let next = behind.wrapping_add(at * share);
            let asks = count >= ASKING || asking == 0 && last && at == 0;
            let walk = if asks { walk } else { 0 };
            let ahead = Ahead { rows: AHEAD, next, walk };
            Call { strip: strip.clone(), block: (first, count), ahead }
        })
    })
}

/// Multiplies all rows with the thread's part of the panels.
///
/// # Safety
/// The caller enables what L needs; its blocks fit L. No other thread is `thread`.
#[inline(always)]
pub(crate) unsafe fn multiply_strips<L: Sums>(
    weight: Strips<'_>,
    rows: Rows<'_>,
    part: (usize, usize),
    to: To<'_, '_>,
) {
    for Call { strip, block: (first, count), ahead } in calls(weight, rows, part, 1) {
        let xs = rows.of(weight.depth, first, count);
        // SAFETY: the function's contract; `strip` stays inside the panels.
        unsafe { Block { weight, xs, first, to }.multiply_count::<L>(count, strip, ahead) };
    }
}

/// A call's sums, (count, 32 outputs for each panel of the strip), instead of a result's.
///
/// # Safety
/// As [`multiply_strips`].
#[inline(always)]
pub(crate) unsafe fn sums_of<L: Sums>(
    weight: Strips<'_>,
    rows: Rows<'_>,
    call: &Call,
    sums: &mut [f32],
) {
    let Call { strip, block: (first, count), ahead } = call;
    let outputs = strip.len() * PANEL;
    assert!(sums.len() == count * outputs && weight.bias.is_none(), "sums of the call alone");
    let panels = &weight.panels[strip.start * weight.depth..strip.end * weight.depth];
    let xs = rows.of(weight.depth, *first, *count);
    let to = To { y: &Disjoint::new(sums), into: Output::Set };
    let block = Block { weight: Strips { panels, outputs, ..weight }, xs, first: 0, to };
    // SAFETY: the function's contract.
    unsafe { block.multiply_count::<L>(*count, 0..strip.len(), *ahead) };
}

impl<'a> Rows<'a> {
    /// Rows of a block.
    #[inline(always)]
    fn of(self, depth: usize, first: usize, count: usize) -> &'a [u32] {
        let row = depth.next_multiple_of(RUN);
        &self.packed[first * row..(first + count) * row]
    }
}

/// Rows that a kernel takes.
#[derive(Clone, Copy)]
struct Block<'y, 'a> {
    weight: Strips<'a>,
    xs: &'a [u32],
    first: usize,
    to: To<'y, 'a>,
}

impl Block<'_, '_> {
    /// So many rows against a strip.
    #[inline(always)]
    unsafe fn multiply_count<L: Sums>(self, count: usize, strip: Range<usize>, ahead: Ahead) {
        // SAFETY: the caller enables what L needs.
        unsafe {
            match count {
                12 => self.multiply::<L, 12, 1>(strip, ahead),
                8 => self.multiply::<L, 8, 1>(strip, ahead),
                6 => self.multiply::<L, 6, 1>(strip, ahead),
                5 => self.multiply::<L, 5, 2>(strip, ahead),
                4 => self.multiply::<L, 4, 3>(strip, ahead),
                3 => self.multiply::<L, 3, 4>(strip, ahead),
                2 => self.multiply::<L, 2, 4>(strip, ahead),
                _ => self.multiply::<L, 1, 4>(strip, ahead),
            }
        }
    }

    /// M rows against a strip of panels, P at a time where the registers allow.
    #[inline(always)]
    unsafe fn multiply<L: Sums, const M: usize, const P: usize>(
        self,
        strip: Range<usize>,
        mut ahead: Ahead,
    ) {
        let further = ahead.walk * self.weight.depth;
        let mut panel = strip.start;
        // SAFETY: the caller enables what L needs.
        unsafe {
            if M * P <= L::ACCUMULATORS {
                while panel + P <= strip.end {
                    self.kernel::<L, M, P>(panel, ahead);
                    panel += P;
                    ahead.next = ahead.next.wrapping_add(further);
                }
            }
            if P == 4 && M * 3 <= L::ACCUMULATORS && panel + 3 == strip.end {
                self.kernel::<L, M, 3>(panel, ahead);
                panel += 3;
            }
            while panel < strip.end {
                self.kernel::<L, M, 1>(panel, ahead);
                panel += 1;
                ahead.next = ahead.next.wrapping_add(further);
            }
        }
    }

    /// M rows against the P panels from `panel` on.
    #[inline(always)]
    unsafe fn kernel<L: Sums, const M: usize, const P: usize>(self, panel: usize, ahead: Ahead) {
        let depth = self.weight.depth;
        let panels: [&[Pair32]; P] =
            std::array::from_fn(|p| &self.weight.panels[(panel + p) * depth..][..depth]);
        // SAFETY: the caller enables what L needs.
        let acc = unsafe { accumulate([[L::zero(); P]; M], self.xs, panels, ahead) };
        unroll!(M, R => unroll!(P, AT => {
            // SAFETY: as above.
            unsafe { self.finish(panel + AT, R, acc[R][AT]) };
        }));
    }

    /// Stores one row's sums of one panel.
    #[inline(always)]
    unsafe fn finish<L: Sums>(self, panel: usize, row: usize, acc: L) {
        let Strips { outputs, bias, .. } = self.weight;
        let mut sums = Lane32::ZERO;
        // SAFETY: the caller enables what L needs.
        unsafe { acc.store(&mut sums) };
        let first = panel * PANEL;
        let width = PANEL.min(outputs - first);
        if let Some(bias) = bias {
            for (s, b) in sums.0.iter_mut().zip(&bias[panel].0) {
                *s += b;
            }
        }
        let start = (self.first + row) * outputs + first;
        // SAFETY: no other thread has this panel's outputs.
        let out = unsafe { self.to.y.part(start..start + width) };
        match (self.to.into, <&mut [f32; PANEL]>::try_from(&mut *out)) {
            (Output::Set, Ok(out)) => *out = sums.0,
            (Output::Set, Err(_)) => out.copy_from_slice(&sums.0[..width]),
            (Output::Add, _) => {
                for (o, s) in out.iter_mut().zip(&sums.0) {
                    *o += s;
                }
            }
        }
    }
}

/// What to ask the memory for while something else is multiplied.
#[derive(Clone, Copy)]
pub(crate) struct Ahead {
    /// Rows of the panel at hand, into the first cache.
    rows: usize,
    /// What the second cache should hold soon, `walk` lanes further at every step.
    next: *const u32,
    walk: usize,
}

impl Ahead {
    /// Everything is in the cache.
    pub(crate) const NOTHING: Self = Self { rows: 0, next: std::ptr::null(), walk: 0 };
}

/// acc\[r\]\[p\] += Σ over the rows of panel p of row · x\[r\], in order.
#[inline(always)]
pub(crate) unsafe fn accumulate<L: Sums, const M: usize, const P: usize>(
    mut acc: [[L; P]; M],
    xs: &[u32],
    panels: [&[Pair32]; P],
    ahead: Ahead,
) -> [[L; P]; M] {
    let count = panels[0].len();
    assert!(
        panels.iter().all(|p| p.len() == count) && xs.len() == M * count.next_multiple_of(RUN),
        "rows and panels of one length"
    );
    let mut next = ahead.next;
    // One loop: of two, the compiler would carry the sums through memory.
    for k in 0..count {
        let at = k / RUN * RUN * M + k % RUN;
        if ahead.walk > 0 {
            fetch_far(next.cast());
            fetch_far(next.wrapping_add(ahead.walk / 2).cast());
            next = next.wrapping_add(ahead.walk);
        }
        unroll!(P, AT => {
            // SAFETY: the caller enables what L needs; k < count, the length of every panel. The
            // address ahead is not read.
            let w = unsafe {
                let row = panels[AT].get_unchecked(k);
                if ahead.rows > 0 {
                    let soon = std::ptr::from_ref(row).wrapping_add(ahead.rows).cast::<f32>();
                    fetch(soon);
                    fetch(soon.wrapping_add(PANEL / 2));
                }
                L::row(row)
            };
            unroll!(M, R => {
                // SAFETY: as above; `at` is in a run's first row, and M rows follow each other.
                acc[R][AT] = unsafe { acc[R][AT].dot(w, *xs.get_unchecked(at + R * RUN)) };
            });
        });
    }
    acc
}
