//! Base advantages of rollouts that lie in any order, each with the index of its group.

use crate::baseline::GroupError;
use crate::dapo::flat_rewards;

/// The members of each group, in the rollouts' order.
fn members(groups: &[usize]) -> Vec<Vec<usize>> {
    let count = groups.iter().max().map_or(0, |last| last + 1);
    let mut members = vec![Vec::new(); count];
    for (rollout, &group) in groups.iter().enumerate() {
        members[group].push(rollout);
    }
    members
}

/// Advantages of rollouts whose rewards are compared within groups: `groups[i]` is the group of
/// rollout `i`, counted from 0.
///
/// # Errors
/// The first rollout of the first group for which `advantages` is not defined (or the rollout
/// whose reward is not finite), and why.
pub fn advantages_by_group(
    rewards: &[f64],
    groups: &[usize],
    advantages: impl Fn(&[f64]) -> Result<Vec<f64>, GroupError>,
) -> Result<Vec<f64>, (usize, GroupError)> {
    let mut all = vec![0.0; rewards.len()];
    for members in members(groups) {
        let own: Vec<f64> = members.iter().map(|&rollout| rewards[rollout]).collect();
        if own.is_empty() {
            continue;
        }
        let values = advantages(&own).map_err(|error| match error {
            GroupError::NotFinite(at) => (members[at], error),
            _ => (members[0], error),
        })?;
        for (&rollout, value) in members.iter().zip(values) {
            all[rollout] = value;
        }
    }
    Ok(all)
}

/// Whether each rollout's group has equal rewards throughout, and so no signal: DAPO drops those.
pub fn flat_by_group(rewards: &[f64], groups: &[usize]) -> Vec<bool> {
    let mut all = vec![false; rewards.len()];
    for members in members(groups) {
        let own: Vec<f64> = members.iter().map(|&rollout| rewards[rollout]).collect();
        if flat_rewards(&own) {
            for rollout in members {
                all[rollout] = true;
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::baseline::{Grpo, Rloo};

    #[test]
    fn members_are_compared_wherever_they_lie() {
        let rewards = [1.0, 5.0, 0.0, 7.0, 0.0];
        let groups = [0, 3, 0, 3, 0];
        let rloo = advantages_by_group(&rewards, &groups, Rloo::advantages).unwrap();
        assert_eq!(rloo, [1.0, -2.0, -0.5, 2.0, -0.5]);
        let grpo = |r: &[f64]| Grpo::default().advantages(r);
        let together = advantages_by_group(&rewards, &groups, grpo).unwrap();
        assert_eq!([together[1], together[3]], grpo(&[5.0, 7.0]).unwrap()[..]);
    }

    #[test]
    fn the_culprit_is_named() {
        let refuse = |rewards: &[f64], groups: &[usize]| {
            advantages_by_group(rewards, groups, Rloo::advantages).unwrap_err()
        };
        assert_eq!(refuse(&[1.0, 2.0, 3.0], &[0, 1, 0]), (1, GroupError::One));
        assert_eq!(refuse(&[1.0, 2.0, f64::NAN], &[1, 0, 1]), (1, GroupError::One));
        assert_eq!(refuse(&[1.0, 2.0, f64::NAN], &[0, 0, 0]), (2, GroupError::NotFinite(2)));
        assert_eq!(advantages_by_group(&[], &[], Rloo::advantages), Ok(vec![]));
    }

    #[test]
    fn flat_groups_are_found() {
        let flat = flat_by_group(&[1.0, 0.0, 1.0, 1.0, 4.0], &[0, 1, 0, 1, 2]);
        assert_eq!(flat, [true, false, true, false, true]);
    }
}
