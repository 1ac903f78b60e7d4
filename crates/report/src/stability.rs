//! Whether a run stayed stable to its end: the paper shows baselines whose KL runs away late.

use serde::{Deserialize, Serialize};

use crate::run_data::RunData;
use crate::statistics::mean;

/// What the last third of training looked like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stability {
    /// Mean KL to the reference over the middle third.
    pub kl_middle: f64,
    /// Largest KL to the reference in the last third.
    pub kl_late: f64,
    /// Best mean success of five steps in a row.
    pub success_best: f64,
    /// Mean success of the last five steps.
    pub success_late: f64,
    /// KL grew in the last third to more than three times the mean of the middle third.
    pub kl_runs_away: bool,
    /// Success ended more than ten points below its best.
    pub success_collapses: bool,
}

impl Stability {
    /// Neither flag is up.
    pub fn stable(&self) -> bool {
        !self.kl_runs_away && !self.success_collapses
    }
}

/// Looks at KL and success, one value a step; `None` for runs of fewer than 15 steps, of which a
/// third says nothing. Values that are not finite are passed over; a KL that ends so has run away.
pub fn stability(kl: &[f64], success: &[f64]) -> Option<Stability> {
    let n = kl.len().min(success.len());
    if n < 15 {
        return None;
    }
    let finite =
        |values: &[f64]| -> Vec<f64> { values.iter().copied().filter(|v| v.is_finite()).collect() };
    let kl_middle = mean(&finite(&kl[n / 3..2 * n / 3]))?;
    let late = finite(&kl[2 * n / 3..n]);
    let kl_late = late.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let fives: Vec<f64> = success[..n].windows(5).filter_map(|w| mean(&finite(w))).collect();
    let success_best = fives.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let success_late = *fives.last()?;
    Some(Stability {
        kl_middle,
        kl_late,
        success_best,
        success_late,
        kl_runs_away: late.len() < n - 2 * n / 3 || kl_late > 3.0 * kl_middle,
        success_collapses: success_late < success_best - 0.1,
    })
}

/// [`stability`] of a run's curves.
pub fn of_run(run: &RunData) -> Option<Stability> {
    let curve = |name: &str| run.curves.get(name).map_or(&[][..], Vec::as_slice);
    stability(curve("kl_reference"), curve("success"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_trouble_is_seen() {
        let calm: Vec<f64> = (0..60).map(|i| 0.2 + 0.001 * f64::from(i)).collect();
        let rise: Vec<f64> = (0..60).map(|i| f64::from(i) / 60.0).collect();
        assert!(stability(&calm, &rise).unwrap().stable());
        let mut burst = calm.clone();
        burst[55] = 2.0;
        assert!(stability(&burst, &rise).unwrap().kl_runs_away);
        burst[55] = f64::NAN;
        assert!(stability(&burst, &rise).unwrap().kl_runs_away);
        let mut fall = rise.clone();
        fall[50..].fill(0.3);
        assert!(stability(&calm, &fall).unwrap().success_collapses);
        assert_eq!(stability(&calm[..10], &rise[..10]), None);
    }
}
