//! f32 linear layers for inference by tile registers: weights stay f32 in memory and are
//! [split](crate::ops::thirds) panel by panel, in the cache. However few rows there are, they go this
//! way: a row's result does not depend on its batch, to the bit.
#![allow(unsafe_code)]

use crate::ops::panels::Mat;
use crate::ops::thirds::{self, PARTS, lanes, split_rows};
use crate::ops::thirds_product::{CHUNK, INNER_AT_ONCE, Panel, RowsByPanel, hand_on, room};
use crate::ops::tile_product::{INNER, TILE};
use crate::ops::tiles::{SIDE, Tiles};
use crate::panel_linear::PanelLinear;
use crate::share::Disjoint;
use crate::strips::{Output, PANEL};
use crate::team::{Team, part};
use crate::vector::Lane32;

/// Left rows, and a panel for every thread, in parts.
#[derive(Default)]
pub(crate) struct Split {
    rows: Vec<Lane32>,
    panels: Vec<Vec<Lane32>>,
}

impl PanelLinear<'_> {
    pub(crate) fn by_tiles(&self) -> bool {
        thirds::wanted(self.inputs, self.outputs)
    }

    /// As `apply`, where the layer goes [by tiles](Self::by_tiles).
    pub(crate) fn apply_by_tiles(
        &self,
        team: &Team,
        x: &[f32],
        y: &mut [f32],
        into: Output,
        split: &mut Split,
    ) {
        let (inputs, outputs) = (self.inputs, self.outputs);
        let rows = y.len() / outputs;
        assert!(x.len() == rows * inputs, "rows of input and result disagree");
        let (threads, block) = (team.threads(), lanes(inputs));
        let blocks = rows.div_ceil(SIDE);
        let left = room(&mut split.rows, blocks * block);
        let parts = Disjoint::new(&mut *left);
        team.split(blocks, 1, &|mine| {
            for b in mine {
                // SAFETY: no other thread has this block.
                let out = unsafe { parts.part(b * block..(b + 1) * block) };
                split_rows(Mat::new(x, rows, inputs).some(b * SIDE, SIDE), out);
            }
        });
        split.panels.resize_with(threads, Vec::new);
        let (y, buffers) = (Disjoint::new(y), Disjoint::new(&mut split.panels));
        let left = &*left;
        team.run(&|thread| {
            // SAFETY: every thread has its own.
            let buffer = unsafe { &mut buffers.part(thread..thread + 1)[0] };
            let registers = Tiles::set_up();
            let mine = part(self.panels.len() / inputs, thread, threads);
            for chunk in (0..rows).step_by(CHUNK).map(|start| start..(start + CHUNK).min(rows)) {
                for panel in mine.clone() {
                    let column = panel * PANEL;
                    let width = PANEL.min(outputs - column);
                    for from in (0..inputs).step_by(INNER_AT_ONCE) {
                        let end = inputs.min(from + INNER_AT_ONCE);
                        let steps = &self.panels[panel * inputs..][from..end];
                        let product = RowsByPanel {
                            left: &left[chunk.start / SIDE * block + from / INNER * PARTS * TILE..],
                            block,
                            rows: chunk.len(),
                            panel: Panel::Steps(steps),
                            next: steps.as_ptr_range().end,
                            sums: y.start().wrapping_add(chunk.start * outputs + column),
                            stride: outputs,
                        };
                        // A closure's sums: no other thread has this panel's outputs.
                        let finish = |first: usize, sums: &[Lane32]| {
                            for (r, sums) in sums.iter().enumerate() {
                                let start = (chunk.start + first + r) * outputs + column;
                                // SAFETY: as above.
                                let y = unsafe { y.part(start..start + width) };
                                hand_on(sums, y, into == Output::Add || from > 0);
                                if let (0, Some(bias)) = (from, &self.bias) {
                                    hand_on(&bias[panel], y, true);
                                }
                            }
                        };
                        // SAFETY: sums are handed on.
                        unsafe { product.multiply(&registers, buffer, false, finish) };
                    }
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::large_pages::Site;
    use crate::ops::tiles;

    #[test]
    fn as_right_as_f32_and_the_same_in_every_batch() {
        if !tiles::available() {
            return;
        }
        let numbers =
            |n: usize, by: f32| -> Vec<f32> { (0..n).map(|i| (i as f32 * by).sin()).collect() };
        for (inputs, outputs) in [(256, 512), (800, 523)] {
            let w = numbers(outputs * inputs, 0.7123);
            let bias = numbers(outputs, 1.3);
            let layer = PanelLinear::new(&w, (outputs, inputs), Some(&bias), Site::OWN);
            assert!(layer.by_tiles());
            let (mut split, mut alone) = (Split::default(), vec![0.0; outputs]);
            for (rows, threads) in [(0, 1), (1, 2), (5, 1), (33, 2), (290, 3)] {
                let (x, mut y) = (numbers(rows * inputs, 0.917), vec![1.0; rows * outputs]);
                let team = Team::new(threads);
                layer.apply_by_tiles(&team, &x, &mut y, Output::Add, &mut split);
                let (mut worst, mut plain) = (0.0_f64, 0.0_f64);
                for (x, y) in x.chunks(inputs).zip(y.chunks(outputs)) {
                    for (o, (y, w)) in y.iter().zip(w.chunks(inputs)).enumerate() {
                        let terms = || x.iter().zip(w);
                        let exact: f64 = terms().map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                        let exact = exact + f64::from(bias[o]) + 1.0;
                        let one = terms().fold(0.0_f32, |sum, (x, w)| x.mul_add(*w, sum));
                        worst = worst.max((f64::from(*y) - exact).abs());
                        plain = plain.max((f64::from(one + bias[o] + 1.0) - exact).abs());
                    }
                }
                assert!(worst <= plain, "{worst} by tiles, {plain} by f32: {rows} rows");
                layer.apply_by_tiles(&team, &x, &mut y, Output::Set, &mut split);
                for (x, y) in x.chunks(inputs).zip(y.chunks(outputs)) {
                    layer.apply_by_tiles(&team, x, &mut alone, Output::Set, &mut split);
                    assert_eq!(alone, y);
                }
            }
        }
    }
}
