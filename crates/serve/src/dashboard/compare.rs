//! Runs side by side: curves by arm, success by task type, paired differences, settings.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use empg_report::arms::{Arm, ArmDifference, arms, differences};
use empg_report::html::{Metric, metrics};
use empg_report::run_data::RunData;
use empg_report::statistics::mean;
use serde::Serialize;

use super::board::RunView;

/// Comparisons that are kept.
const KEPT: usize = 32;

/// Runs and their versions.
type Key = Vec<(String, u64)>;

/// Comparisons that were made.
#[derive(Debug, Default)]
pub(super) struct Comparisons(VecDeque<(Key, Arc<str>)>);

#[derive(Serialize)]
struct Comparison<'a> {
    arms: Vec<ArmView<'a>>,
    curves: Vec<Metric>,
    splits: Vec<SplitTable<'a>>,
    differences: Vec<ArmDifference>,
    /// Key, one value an arm.
    differing: Vec<(&'a str, Vec<Option<&'a str>>)>,
    shared: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
struct ArmView<'a> {
    label: &'a str,
    /// Identifiers of its runs, by seed.
    runs: Vec<&'a str>,
}

#[derive(Serialize)]
struct SplitTable<'a> {
    split: String,
    rows: Vec<SplitRow<'a>>,
}

#[derive(Serialize)]
struct SplitRow<'a> {
    /// A task type; none for all of them.
    kind: Option<&'a str>,
    /// Success before and after, one pair an arm.
    arms: Vec<(Option<f64>, Option<f64>)>,
}

impl Comparisons {
    /// The comparison of runs as JSON.
    pub(super) fn of(&mut self, runs: &[(String, RunView)]) -> Arc<str> {
        let key: Key = runs.iter().map(|(id, view)| (id.clone(), view.version)).collect();
        if let Some((_, found)) = self.0.iter().find(|(k, _)| *k == key) {
            return Arc::clone(found);
        }
        let made: Arc<str> = compare(runs).into();
        if self.0.len() >= KEPT {
            self.0.pop_front();
        }
        self.0.push_back((key, Arc::clone(&made)));
        made
    }
}

fn compare(views: &[(String, RunView)]) -> String {
    let (ids, runs): (Vec<&str>, Vec<RunData>) = views
        .iter()
        .filter_map(|(id, view)| Some((id.as_str(), RunData::clone(view.data.as_ref()?))))
        .unzip();
    let arms = arms(&runs);
    let firsts: Vec<&RunData> = arms.iter().map(|a| &runs[a.runs[0]]).collect();
    let keys: BTreeSet<&String> = firsts.iter().flat_map(|r| r.settings.keys()).collect();
    let (mut differing, mut shared) = (Vec::new(), BTreeMap::new());
    for key in keys {
        let values: Vec<Option<&str>> =
            firsts.iter().map(|r| r.settings.get(key).map(String::as_str)).collect();
        match values[0] {
            Some(value) if values.iter().all(|v| *v == Some(value)) => {
                shared.insert(key.as_str(), value);
            }
            _ => differing.push((key.as_str(), values)),
        }
    }
    let comparison = Comparison {
        curves: metrics(&runs, &arms),
        splits: splits(&runs, &arms),
        differences: differences(&runs, &arms),
        arms: arms
            .iter()
            .map(|a| ArmView { label: &a.label, runs: a.runs.iter().map(|&i| ids[i]).collect() })
            .collect(),
        differing,
        shared,
    };
    serde_json::to_string(&comparison).unwrap_or_default()
}

fn splits<'a>(runs: &'a [RunData], arms: &[Arm]) -> Vec<SplitTable<'a>> {
    let table = |split: String| {
        let kinds: BTreeSet<&str> = runs
            .iter()
            .flat_map(|r| [r.before(&split), r.after(&split)])
            .flatten()
            .flat_map(|r| r.by_task.keys().map(String::as_str))
            .collect();
        let rows = kinds.into_iter().map(Some).chain([None]).map(|kind| {
            let of = |arm: &Arm| {
                let (before, after) = arm.before_and_after(runs, &split, |result| {
                    kind.map_or(Some(result.success), |k| result.by_task.get(k).copied())
                });
                (mean(&before), mean(&after))
            };
            SplitRow { kind, arms: arms.iter().map(of).collect() }
        });
        let rows = rows.collect();
        SplitTable { split, rows }
    };
    empg_report::arms::splits(runs).into_iter().map(table).collect()
}
