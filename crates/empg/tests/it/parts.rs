//! Rows of tokens as parts of a batch: the same bits however it is cut.

use std::ops::Range;

use empg::{AdvantageError, Base, EmpgOptions, Part, RowKeys, StepSpans, StepTable, TokenRows};
use proptest::collection::vec;
use proptest::prelude::*;

/// Trajectories under keys of any order: base advantage and steps of (gap before, entropies).
#[derive(Clone, Debug)]
struct Whole {
    keys: Vec<u64>,
    bases: Vec<f32>,
    steps: Vec<Vec<(usize, Vec<f32>)>>,
}

fn wholes() -> impl Strategy<Value = Whole> {
    let step = (0usize..3, vec(0.0f32..5.0, 1..40));
    let trajectory = (-2.0f32..2.0, vec(step, 0..6));
    vec(trajectory, 1..9)
        .prop_filter("a step", |all| all.iter().any(|(_, steps)| !steps.is_empty()))
        .prop_flat_map(|all| {
            let keys = proptest::sample::subsequence((0u64..40).collect::<Vec<_>>(), all.len());
            (Just(all), keys.prop_shuffle())
        })
        .prop_map(|(all, keys)| {
            let (bases, steps) = all.into_iter().unzip();
            Whole { keys, bases, steps }
        })
}

/// Packed rows, each some steps of a trajectory.
struct Rows {
    steps: StepSpans,
    entropy: Vec<f32>,
    bases: Vec<f32>,
    trajectories: Vec<u64>,
    first_steps: Vec<u32>,
}

impl Rows {
    fn new(whole: &Whole, pieces: &[(usize, Range<usize>)]) -> Self {
        let (mut entropy, mut spans, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
        for (trajectory, piece) in pieces {
            let (start, mut row) = (entropy.len(), Vec::new());
            for (gap, tokens) in &whole.steps[*trajectory][piece.clone()] {
                // A gap keeps steps apart; what stands in it is never read.
                entropy.extend(vec![f32::NAN; gap + 1]);
                let from = entropy.len() - start;
                entropy.extend(tokens);
                row.push(from..from + tokens.len());
            }
            lengths.push(entropy.len() - start);
            spans.push(row);
        }
        Self {
            steps: StepSpans::new(TokenRows::packed(lengths), spans).unwrap(),
            entropy,
            bases: pieces.iter().map(|(trajectory, _)| whole.bases[*trajectory]).collect(),
            trajectories: pieces.iter().map(|(trajectory, _)| whole.keys[*trajectory]).collect(),
            first_steps: pieces.iter().map(|(_, piece)| piece.start as u32).collect(),
        }
    }

    fn keys(&self) -> RowKeys<'_> {
        RowKeys { trajectories: Some(&self.trajectories), first_steps: Some(&self.first_steps) }
    }

    fn table(&self) -> StepTable {
        let base = Base::Rows(&self.bases);
        StepTable::from_tokens(&self.steps, &self.entropy, base, self.keys(), 1).unwrap()
    }

    /// Key and bits of the advantage of every token inside steps, and the credit's bits.
    fn credit(
        &self,
        options: &EmpgOptions,
        table: Option<&StepTable>,
    ) -> Vec<(u64, u32, u32, u64)> {
        let mut out = vec![f32::NAN; self.entropy.len()];
        let part = Part { keys: self.keys(), table };
        let credit = options
            .modulate_part_into(
                &self.steps,
                &self.entropy,
                Base::Rows(&self.bases),
                &mut out,
                part,
                1,
            )
            .unwrap();
        let mut all = Vec::new();
        for row in 0..self.steps.rows().len() {
            let tokens = &out[self.steps.rows().range(row)];
            for (span, index) in self.steps.of_row(row).iter().zip(self.steps.indices(row)) {
                let key = credit.rows[index].key;
                let bits = credit.steps[index].advantage.to_bits();
                all.extend(
                    tokens[span.clone()]
                        .iter()
                        .map(|a| (key.trajectory, key.step, a.to_bits(), bits)),
                );
            }
        }
        all.sort_unstable();
        all
    }
}

fn uncut(whole: &Whole) -> Vec<(usize, Range<usize>)> {
    (0..whole.steps.len()).map(|t| (t, 0..whole.steps[t].len())).collect()
}

fn options() -> impl Strategy<Value = EmpgOptions> {
    (0.0f64..2.0, 0.0f64..0.5, any::<bool>(), any::<bool>()).prop_map(
        |(k, zeta, center, quantile)| EmpgOptions {
            k,
            zeta,
            center,
            normalize: if quantile { empg::Normalize::Quantile } else { empg::Normalize::Minmax },
            ..EmpgOptions::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_sharding_gives_the_bits_of_one_process(
        whole in wholes(),
        options in options(),
        cuts in vec((0usize..6, 0usize..4), 9),
        owners in vec(0usize..4, 18),
    ) {
        let single = Rows::new(&whole, &uncut(&whole));
        let wanted = single.credit(&options, None);
        // Each trajectory in two rows, the rows on four workers.
        let mut shards = vec![Vec::new(); 4];
        for (trajectory, (cut, turn)) in (0..whole.steps.len()).zip(cuts) {
            let count = whole.steps[trajectory].len();
            let cut = cut.min(count);
            shards[owners[2 * trajectory]].push((trajectory, 0..cut));
            shards[(owners[2 * trajectory + 1] + turn) % 4].insert(0, (trajectory, cut..count));
        }
        let shards: Vec<Rows> = shards.iter().map(|pieces| Rows::new(&whole, pieces)).collect();
        let table = StepTable::gather(shards.iter().rev().map(Rows::table)).unwrap();
        prop_assert_eq!(&table, &single.table());
        let mut got: Vec<_> =
            shards.iter().flat_map(|shard| shard.credit(&options, Some(&table))).collect();
        got.sort_unstable();
        prop_assert_eq!(got, wanted);
    }

    #[test]
    fn a_trajectory_cut_into_rows_of_one_batch_is_uncut(
        whole in wholes(),
        options in options(),
        cuts in vec(0usize..6, 9),
    ) {
        let mut pieces = Vec::new();
        for (trajectory, cut) in (0..whole.steps.len()).zip(cuts) {
            let count = whole.steps[trajectory].len();
            pieces.push((trajectory, cut.min(count)..count));
            pieces.insert(0, (trajectory, 0..cut.min(count)));
        }
        let uncut = Rows::new(&whole, &uncut(&whole)).credit(&options, None);
        prop_assert_eq!(Rows::new(&whole, &pieces).credit(&options, None), uncut);
    }
}

fn two_rows() -> (StepSpans, [f64; 6], [f64; 2]) {
    let steps = StepSpans::from_binary_mask(TokenRows::padded(2, 3), &[1u8, 0, 1, 1, 1, 0], 1);
    (steps.unwrap(), [0.5, 9.0, 0.25, 1.0, 2.0, 9.0], [1.0, -1.0])
}

#[test]
fn a_table_that_is_not_of_the_whole_is_refused() {
    let (steps, entropy, bases) = two_rows();
    let base = Base::Rows(&bases);
    let own = StepTable::from_tokens(&steps, &entropy, base, RowKeys::default(), 1).unwrap();
    let credit = |table: &StepTable, trajectories: Option<&[u64]>| {
        let keys = RowKeys { trajectories, first_steps: None };
        let part = Part { keys, table: Some(table) };
        EmpgOptions::default().credit_part(&steps, &entropy, base, part, 1).map(|_| ())
    };
    assert_eq!(credit(&own, None), Ok(()));
    let unknown = credit(&own, Some(&[0, 7])).unwrap_err();
    assert!(unknown.to_string().contains("trajectory 7 step 0 is not in the table"));
    // Another worker's rows under the keys of these.
    let others = [0.5, 9.0, 0.75, 1.0, 2.0, 9.0];
    let others = StepTable::from_tokens(&steps, &others, base, RowKeys::default(), 1).unwrap();
    let differs = credit(&others, None).unwrap_err();
    assert!(differs.to_string().contains("the entropy of trajectory 0 step 1"));
    let bases = [1.0, -0.5];
    let others =
        StepTable::from_tokens(&steps, &entropy, Base::Rows(&bases), RowKeys::default(), 1);
    let differs = credit(&others.unwrap(), None).unwrap_err();
    assert!(differs.to_string().contains("the advantage of trajectory 1 step 0"));
}

#[test]
fn keys_are_checked() {
    let (steps, entropy, bases) = two_rows();
    let table = |trajectories: &[u64], first_steps: &[u32]| {
        let keys = RowKeys { trajectories: Some(trajectories), first_steps: Some(first_steps) };
        StepTable::from_tokens(&steps, &entropy, Base::Rows(&bases), keys, 1)
    };
    assert_eq!(table(&[3, 3], &[0, 2]).unwrap().len(), 3);
    assert!(matches!(table(&[3, 3], &[0, 1]), Err(AdvantageError::DuplicateStep(_))));
    assert!(matches!(table(&[3], &[0, 1]), Err(AdvantageError::Length { .. })));
    let many = table(&[3, 4], &[u32::MAX, 0]).unwrap_err();
    assert_eq!(many, AdvantageError::TooManySteps { row: 0 });
}

#[test]
fn a_worker_without_steps_takes_part() {
    let (steps, entropy, bases) = two_rows();
    let keys = RowKeys { trajectories: Some(&[8, 9]), first_steps: None };
    let whole = StepTable::from_tokens(&steps, &entropy, Base::Rows(&bases), keys, 1).unwrap();
    let idle = StepSpans::from_binary_mask(TokenRows::padded(2, 3), &[0u8; 6], 1).unwrap();
    let mut out = [5.0; 6];
    let part = Part { keys: RowKeys::default(), table: Some(&whole) };
    let base = Base::Rows(&bases);
    let options = EmpgOptions::default();
    let credit = options.modulate_part_into(&idle, &entropy, base, &mut out, part, 1).unwrap();
    assert_eq!((out, credit.steps.len(), credit.summary.steps), ([0.0; 6], 0, 3));
    let exact = EmpgOptions { paper_exact: true, ..options };
    let credit = exact.modulate_part_into(&idle, &entropy, base, &mut out, part, 1).unwrap();
    let centring = credit.summary.centring;
    assert_eq!(out[0].to_bits(), (1.0 - centring).to_bits());
    assert_eq!(out[5].to_bits(), (-1.0 - centring).to_bits());
    let none = StepSpans::new(TokenRows::padded(0, 3), Vec::<Vec<Range<usize>>>::new()).unwrap();
    let credit = options.credit_part::<f64>(&none, &[], Base::Rows(&[]), part, 1).unwrap();
    assert_eq!(credit.summary.steps, 3);
}

#[test]
fn masks_of_every_type_agree_and_name_what_is_no_mask() {
    let plain: Vec<u8> =
        (0..400u32).map(|i| u8::from(i.wrapping_mul(2654435761) >> 30 > 0)).collect();
    let rows = || TokenRows::padded(4, 100);
    let wanted = StepSpans::from_mask(rows(), &plain).unwrap();
    macro_rules! check {
        ($($number:ty),*) => {$(
            let mut mask: Vec<$number> = plain.iter().map(|&m| m as $number).collect();
            assert_eq!(StepSpans::from_binary_mask(rows(), &mask, 2).unwrap(), wanted);
            mask[207] = 3 as $number;
            let bad = StepSpans::from_binary_mask(rows(), &mask, 2).unwrap_err();
            assert_eq!(bad, AdvantageError::MaskValue { row: 2, token: 7, value: 3.0 });
        )*};
    }
    check!(u8, i32, i64, f32, f64);
    let mut mask = [0.0f32; 400];
    mask[0] = f32::NAN;
    assert!(StepSpans::from_binary_mask(rows(), &mask, 1).is_err());
}

#[test]
fn many_rows_have_the_same_bits_for_any_number_of_threads() {
    let (rows, width) = (64, 4096);
    let mut state = 3u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1 << 24) as f32
    };
    let mask: Vec<u8> = (0..rows * width).map(|at| u8::from(at % 163 > 61)).collect();
    let entropy: Vec<f32> = (0..rows * width).map(|_| next()).collect();
    let advantages: Vec<f32> = (0..rows * width).map(|_| next() - 0.5).collect();
    let trajectories: Vec<u64> = (0..rows as u64).map(|row| (row * 37) % 64).collect();
    let keys = RowKeys { trajectories: Some(&trajectories), first_steps: None };
    let run = |threads| {
        let steps =
            StepSpans::from_binary_mask(TokenRows::padded(rows, width), &mask, threads).unwrap();
        let mut out = advantages.clone();
        let part = Part { keys, table: None };
        let credit = EmpgOptions::default()
            .modulate_part(&steps, &entropy, &mut out, part, threads)
            .unwrap();
        (out.iter().map(|a| a.to_bits()).collect::<Vec<_>>(), credit)
    };
    let one = run(1);
    assert!(run(2) == one && run(3) == one && run(0) == one);
}
