//! Which task comes next, without end.

use crate::dice::mix;

/// How many tasks of a split without end are drawn from.
const UNLIMITED: u64 = 1 << 32;

/// The order in which environments draw the tasks of a split.
///
/// Let `n` be the number of tasks (2^32 where the split is generated without end) and `P_r` a fixed
/// pseudo-random permutation of `0..n` for every round `r`. The `k`-th episode (from 0) of an
/// environment seeded with `s` plays task `P_{k div n}((Q(s mod n) + k) mod n)`, where `Q` is one more
/// such permutation. Hence one environment plays every task once before any twice, and environments
/// whose seeds differ modulo `n` play different tasks in episodes of the same number. The rule never
/// changes within a major version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskOrder {
    tasks: u64,
}

impl TaskOrder {
    /// The order of a split with so many tasks (`None`: without end); `None` where there is none.
    pub fn new(tasks: Option<u64>) -> Option<Self> {
        let tasks = tasks.unwrap_or(UNLIMITED);
        (tasks > 0).then_some(Self { tasks })
    }

    /// The index of the task that an environment plays in its `episode`-th episode.
    pub fn index(self, seed: u64, episode: u64) -> u64 {
        let n = self.tasks;
        let start = self.permuted(START, seed % n);
        let place = (u128::from(start) + u128::from(episode)) % u128::from(n);
        self.permuted(mix(ROUND, episode / n), place as u64)
    }

    /// A permutation of `0..tasks`: a Feistel network over the next power of four, walked until the
    /// value is in range.
    fn permuted(self, key: u64, value: u64) -> u64 {
        let bits = u64::BITS - (self.tasks - 1).leading_zeros();
        let half = bits.div_ceil(2).max(1);
        let mask = (1_u64 << half) - 1;
        let mut value = value;
        loop {
            let (mut left, mut right) = (value >> half, value & mask);
            for round in 0..4 {
                (left, right) = (right, left ^ (mix(mix(key, round), right) & mask));
            }
            value = left << half | right;
            if value < self.tasks {
                return value;
            }
        }
    }
}

const START: u64 = 0x7374_6172_7400;
const ROUND: u64 = 0x726f_756e_6400;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn one_environment_plays_every_task_before_any_twice() {
        for n in [1, 2, 3, 5, 16, 17, 140, 3553] {
            let order = TaskOrder::new(Some(n)).unwrap();
            for (seed, round) in [(0, 0), (9, 1), (u64::MAX, 7)] {
                let played: HashSet<u64> =
                    (round * n..(round + 1) * n).map(|k| order.index(seed, k)).collect();
                assert_eq!(played.len() as u64, n, "{n} {seed} {round}");
                assert!(played.iter().all(|&index| index < n));
            }
        }
    }

    #[test]
    fn neighbouring_seeds_play_different_tasks() {
        for n in [Some(64), Some(3553), None] {
            let order = TaskOrder::new(n).unwrap();
            for episode in [0, 1, 5, 4000] {
                let seeds = 1_000_000_007_u64..1_000_000_007 + 64;
                let played: HashSet<u64> = seeds.map(|s| order.index(s, episode)).collect();
                assert_eq!(played.len(), 64, "{n:?} {episode}");
            }
        }
    }

    #[test]
    fn rounds_differ_and_order_is_no_count() {
        let order = TaskOrder::new(Some(140)).unwrap();
        let round = |r: u64| (0..140).map(|k| order.index(0, r * 140 + k)).collect::<Vec<_>>();
        assert_ne!(round(0), round(1));
        let steps = round(0).windows(2).filter(|w| w[1] == w[0] + 1).count();
        assert!(steps < 10, "{steps}");
    }

    /// The rule is a promise: a seed gives the same tasks in every release.
    #[test]
    fn the_rule_is_pinned() {
        let draw = |n, seed| {
            let order = TaskOrder::new(n).unwrap();
            (0..6).map(|k| order.index(seed, k)).collect::<Vec<_>>()
        };
        assert_eq!(draw(Some(3553), 0), PINNED_TRAIN);
        assert_eq!(draw(None, 7), PINNED_GENERATED);
        assert_eq!(TaskOrder::new(Some(0)), None);
    }

    const PINNED_TRAIN: [u64; 6] = [287, 572, 1645, 2000, 3443, 88];
    const PINNED_GENERATED: [u64; 6] =
        [2784595160, 4270324568, 2144306696, 1434407735, 1766630061, 3120184364];
}
