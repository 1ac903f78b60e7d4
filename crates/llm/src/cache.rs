//! Keys and values of live contexts in reference-counted blocks: contexts that share a beginning
//! share its blocks, and a block is copied only when one of them writes on.
// Kernels must be inlined into the function that enables their instruction set.
#![allow(unsafe_code, clippy::inline_always)]

use crate::config::ModelConfig;
use crate::large_pages::zeroed;
use crate::ops::bf16::round;
use crate::ops::panels::Precision;
use crate::ops::simd::vectorised;
use crate::pairs::Pair32;
use crate::share::Disjoint;
use crate::team::Team;
use crate::vector::Lane32;

/// Tokens of one block.
pub(crate) const BLOCK: usize = 32;

/// Blocks are allocated in pieces of about this size, which the system backs with large pages.
const SLAB_BYTES: usize = 16 << 20;
/// Unused rows behind a block: at a distance of a power of two the blocks of a context would
/// compete for the same few places of the processor's caches.
const PADDING: usize = 66;

/// Fewer tokens than this are not worth waking the team for.
const TOGETHER: usize = 8;

/// A block's place in the pool.
pub(crate) type BlockId = u32;

/// All blocks of a decoder.
///
/// A block holds 32 tokens of every layer. Per layer and key/value head in f32: keys
/// (`head_dim`, 32), one channel of 32 tokens beside each other, then values (32, `head_dim` rounded
/// up to 32). In bf16 the same in pairs, as products take them: keys (`head_dim`/2, 32) with two
/// channels in a lane, then values (⌈`head_dim`/32⌉, 16, 32) with two tokens in a lane.
pub(crate) struct BlockPool {
    shape: Shape,
    block_lanes: usize,
    /// Blocks per slab.
    slab_blocks: usize,
    slabs: Vec<Vec<Lane32>>,
    references: Vec<u32>,
    free: Vec<BlockId>,
}

/// What a block holds of one layer.
#[derive(Clone, Copy)]
struct Shape {
    precision: Precision,
    kv_heads: usize,
    head_dim: usize,
    /// Lanes of one token's value row.
    value_lanes: usize,
    /// Rows of keys of one head.
    key_rows: usize,
    /// Rows of keys and values of one head.
    head_lanes: usize,
}

/// Rows (R, `width`) of new tokens with keys from column `keys` on, then values.
#[derive(Clone, Copy)]
pub(crate) struct NewRows<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) width: usize,
    pub(crate) keys: usize,
}

impl BlockPool {
    pub(crate) fn new(config: &ModelConfig, precision: Precision) -> Self {
        let value_lanes = config.head_dim.div_ceil(BLOCK);
        let numbers = match precision {
            Precision::F32 => 1,
            Precision::Bf16 => 2,
        };
        let key_rows = config.head_dim.div_ceil(numbers);
        let head_lanes = key_rows + BLOCK / numbers * value_lanes;
        let block_lanes = head_lanes * config.num_kv_heads * config.num_layers + PADDING;
        let shape = Shape {
            precision,
            kv_heads: config.num_kv_heads,
            head_dim: config.head_dim,
            value_lanes,
            key_rows,
            head_lanes,
        };
        Self {
            shape,
            block_lanes,
            slab_blocks: (SLAB_BYTES / (block_lanes * size_of::<Lane32>())).max(1),
            slabs: Vec::new(),
            references: Vec::new(),
            free: Vec::new(),
        }
    }

    /// A zeroed block with one reference.
    pub(crate) fn allocate(&mut self) -> BlockId {
        let id = self.take();
        // Columns that no token has filled are multiplied by zero: they must be finite.
        self.block_mut(id).fill(Lane32::ZERO);
        id
    }

    /// A block with any content and one reference.
    fn take(&mut self) -> BlockId {
        if self.free.is_empty() {
            let first = self.references.len();
            self.slabs.push(zeroed(self.slab_blocks * self.block_lanes));
            self.references.resize(first + self.slab_blocks, 0);
            self.free.extend((first..first + self.slab_blocks).rev().map(|id| id as BlockId));
        }
        let id = self.free.pop().unwrap_or_default();
        self.references[id as usize] = 1;
        id
    }

    fn block(&self, id: BlockId) -> &[Lane32] {
        let (slab, block) = (id as usize / self.slab_blocks, id as usize % self.slab_blocks);
        &self.slabs[slab][block * self.block_lanes..][..self.block_lanes]
    }

    fn block_mut(&mut self, id: BlockId) -> &mut [Lane32] {
        let (slab, block) = (id as usize / self.slab_blocks, id as usize % self.slab_blocks);
        &mut self.slabs[slab][block * self.block_lanes..][..self.block_lanes]
    }

    pub(crate) fn retain(&mut self, id: BlockId) {
        self.references[id as usize] += 1;
    }

    pub(crate) fn release(&mut self, id: BlockId) {
        let references = &mut self.references[id as usize];
        *references -= 1;
        if *references == 0 {
            self.free.push(id);
        }
    }

    /// A block with the same content that nobody else writes; the block itself if it is not
    /// shared.
    pub(crate) fn own(&mut self, id: BlockId) -> BlockId {
        if self.references[id as usize] == 1 {
            return id;
        }
        let copy = self.take();
        let content = self.block(id).to_vec();
        self.block_mut(copy).copy_from_slice(&content);
        self.release(id);
        copy
    }

    /// Blocks that some context uses.
    pub(crate) fn live(&self) -> usize {
        self.references.len() - self.free.len()
    }

    /// Bytes of one token's keys and values, roughly.
    pub(crate) fn token_bytes(&self) -> usize {
        self.block_lanes * size_of::<Lane32>() / BLOCK
    }

    /// Bytes of the blocks in use.
    pub(crate) fn bytes(&self) -> usize {
        self.live() * self.block_lanes * size_of::<Lane32>()
    }

    /// Keys and values of one head in f32.
    pub(crate) fn head(&self, id: BlockId, layer: usize, head: usize) -> (&[Lane32], &[Lane32]) {
        let Shape { kv_heads, head_lanes, key_rows, .. } = self.shape;
        let start = (layer * kv_heads + head) * head_lanes;
        self.block(id)[start..start + head_lanes].split_at(key_rows)
    }

    /// Keys and values of one head in bf16.
    pub(crate) fn pairs(&self, id: BlockId, layer: usize, head: usize) -> (&[Pair32], &[Pair32]) {
        let (keys, values) = self.head(id, layer, head);
        (bytemuck::cast_slice(keys), bytemuck::cast_slice(values))
    }

    /// Stores the keys and values of every row at its block and slot, the blocks shared among the
    /// team.
    pub(crate) fn write(
        &mut self,
        team: &Team,
        layer: usize,
        places: &[(BlockId, usize)],
        rows: NewRows<'_>,
    ) {
        let (shape, slab_blocks, block_lanes) = (self.shape, self.slab_blocks, self.block_lanes);
        let layer_lanes = shape.kv_heads * shape.head_lanes;
        let slabs: Vec<_> = self.slabs.iter_mut().map(|slab| Disjoint::new(slab)).collect();
        let write = |thread: usize, threads: usize| {
            for (&(id, slot), row) in places.iter().zip(rows.data.chunks_exact(rows.width)) {
                let id = id as usize;
                if id % threads != thread {
                    continue;
                }
                let start = id % slab_blocks * block_lanes + layer * layer_lanes;
                // SAFETY: one thread has a block.
                let heads = unsafe { slabs[id / slab_blocks].part(start..start + layer_lanes) };
                let tokens = shape.kv_heads * shape.head_dim;
                let (k, v) = row[rows.keys..].split_at(tokens);
                shape.write(heads, slot, k, v);
            }
        };
        if places.len() < TOGETHER {
            write(0, 1);
        } else {
            let threads = team.threads();
            team.run(&|thread| write(thread, threads));
        }
    }
}

impl Shape {
    /// Stores one token's keys and values (`kv_heads · head_dim` each) at `slot` of a layer's heads.
    fn write(self, heads: &mut [Lane32], slot: usize, k: &[f32], v: &[f32]) {
        let Self { precision, head_dim: dim, value_lanes: lanes, key_rows, head_lanes, .. } = self;
        let heads = heads.chunks_exact_mut(head_lanes);
        for ((head, k), v) in heads.zip(k.chunks_exact(dim)).zip(v.chunks_exact(dim)) {
            let (keys, values) = head.split_at_mut(key_rows);
            if precision == Precision::Bf16 {
                let (keys, values) =
                    (bytemuck::cast_slice_mut(keys), bytemuck::cast_slice_mut(values));
                write_pairs(slot, k, v, keys, values);
                continue;
            }
            for (channel, k) in keys.iter_mut().zip(k) {
                channel.0[slot] = *k;
            }
            let row = &mut values[slot * lanes..(slot + 1) * lanes];
            for (lane, v) in row.iter_mut().zip(v.chunks(BLOCK)) {
                lane.0[..v.len()].copy_from_slice(v);
            }
        }
    }
}

#[inline(always)]
fn write_pairs_impl<const FMA: bool>(
    slot: usize,
    k: &[f32],
    v: &[f32],
    keys: &mut [Pair32],
    values: &mut [Pair32],
) {
    let mut pairs = [0; BLOCK];
    for (rows, k) in keys.chunks_mut(BLOCK).zip(k.chunks(2 * BLOCK)) {
        let (both, last) = k.as_chunks::<2>();
        for (pair, [low, high]) in pairs.iter_mut().zip(both) {
            *pair = round(*low) | round(*high) << 16;
        }
        if let [last] = last {
            pairs[both.len()] = round(*last);
        }
        for (row, pair) in rows.iter_mut().zip(pairs) {
            row.0[slot] = pair;
        }
    }
    // The other half of a lane is another token's.
    let (keep, shift) = if slot.is_multiple_of(2) { (0xFFFF_0000, 0) } else { (0x0000_FFFF, 16) };
    for (panel, v) in values.chunks_exact_mut(BLOCK / 2).zip(v.chunks(BLOCK)) {
        for (lane, v) in panel[slot / 2].0.iter_mut().zip(v) {
            *lane = *lane & keep | round(*v) << shift;
        }
    }
}

vectorised! {
    /// One token of one head in pairs.
    fn write_pairs(slot: usize, k: &[f32], v: &[f32], keys: &mut [Pair32], values: &mut [Pair32])
        = write_pairs_impl
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One token's keys and values in layer 1.
    fn write(pool: &mut BlockPool, id: BlockId, slot: usize, row: &[f32]) {
        let rows = NewRows { data: row, width: row.len(), keys: 0 };
        pool.write(&Team::new(1), 1, &[(id, slot)], rows);
    }

    #[test]
    fn shared_blocks_are_copied_before_they_are_written() {
        let config = ModelConfig {
            vocab_size: 4,
            hidden_size: 4,
            intermediate_size: 4,
            num_layers: 2,
            num_heads: 2,
            num_kv_heads: 1,
            head_dim: 2,
            rope_theta: 1e4,
            rope_scaling: None,
            rms_norm_eps: 1e-6,
            tie_word_embeddings: true,
            qkv_bias: false,
            qk_norm: false,
            max_position_embeddings: 64,
        };
        let mut pool = BlockPool::new(&config, Precision::F32);
        let a = pool.allocate();
        write(&mut pool, a, 3, &[1.0, 2.0, 3.0, 4.0]);
        pool.retain(a);
        let b = pool.own(a);
        assert_ne!(a, b);
        assert_eq!(pool.own(a), a);
        write(&mut pool, b, 3, &[9.0; 4]);
        let (keys, values) = pool.head(a, 1, 0);
        assert_eq!((keys[0].0[3], keys[1].0[3]), (1.0, 2.0));
        assert_eq!(values[3].0[..2], [3.0, 4.0]);
        assert_eq!(pool.live(), 2);
        pool.release(a);
        pool.release(b);
        assert_eq!(pool.live(), 0);
        let again = pool.allocate();
        assert!(pool.head(again, 1, 0).0.iter().all(|lane| lane.0 == [0.0; 32]));
    }

    #[test]
    fn pairs_hold_two_channels_of_a_key_and_two_tokens_of_a_value() {
        let config = ModelConfig {
            vocab_size: 4,
            hidden_size: 4,
            intermediate_size: 4,
            num_layers: 2,
            num_heads: 2,
            num_kv_heads: 2,
            head_dim: 2,
            rope_theta: 1e4,
            rope_scaling: None,
            rms_norm_eps: 1e-6,
            tie_word_embeddings: true,
            qkv_bias: false,
            qk_norm: false,
            max_position_embeddings: 64,
        };
        let mut pool = BlockPool::new(&config, Precision::Bf16);
        let id = pool.allocate();
        write(&mut pool, id, 4, &[0.0, 0.0, 1.0, 2.0, 0.0, 0.0, 3.0, 4.0]);
        write(&mut pool, id, 5, &[0.0, 0.0, 5.0, 6.0, 0.0, 0.0, 7.0, 8.0]);
        let (keys, values) = pool.pairs(id, 1, 1);
        let both = |pair: u32| (crate::pairs::low(pair), crate::pairs::high(pair));
        assert_eq!((both(keys[0].0[4]), both(keys[0].0[5])), ((1.0, 2.0), (5.0, 6.0)));
        assert_eq!((both(values[2].0[0]), both(values[2].0[1])), ((3.0, 7.0), (4.0, 8.0)));
    }
}
