//! Tables of success by task type, and their JSON.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use empg_env::Split;
use empg_train::Evaluation;
use serde_json::{Map, Value, json};

/// A split in words.
pub(crate) fn split_name(split: Split) -> &'static str {
    match split {
        Split::Train => "train",
        Split::Seen => "seen",
        Split::Unseen => "unseen",
    }
}

/// One evaluation by task type.
pub(crate) fn single(evaluation: &Evaluation) -> String {
    let width = name_width(&[evaluation]);
    let mut text = String::new();
    let _ = writeln!(text, "{:<width$}  {:>8}  {:>8}", "task type", "episodes", "success");
    for (kind, tally) in &evaluation.by_task {
        let _ =
            writeln!(text, "{kind:<width$}  {:>8}  {:>8}", tally.episodes, percent(tally.success));
    }
    let (low, high) = evaluation.interval();
    let _ = writeln!(
        text,
        "{:<width$}  {:>8}  {:>8}   95 % interval {}",
        "all",
        evaluation.episodes,
        percent(evaluation.success),
        range(low, high),
    );
    text
}

/// Two evaluations of one panel by task type.
pub(crate) fn comparison(before: &Evaluation, after: &Evaluation) -> String {
    let width = name_width(&[before, after]);
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{:<width$}  {:>8}  {:>8}  {:>8}  {:>8}",
        format!("{} tasks", split_name(after.split)),
        "episodes",
        "before",
        "after",
        "change",
    );
    let kinds: BTreeSet<&String> = before.by_task.keys().chain(after.by_task.keys()).collect();
    for kind in kinds {
        let (b, a) = (before.by_task.get(kind), after.by_task.get(kind));
        let success = |tally: Option<&empg_train::Tally>| tally.map_or(0.0, |t| t.success);
        let (from, to) = (success(b), success(a));
        let episodes = a.or(b).map_or(0, |t| t.episodes);
        let _ = writeln!(
            text,
            "{kind:<width$}  {episodes:>8}  {:>8}  {:>8}  {:>8}",
            percent(from),
            percent(to),
            change(from, to),
        );
    }
    let _ = writeln!(
        text,
        "{:<width$}  {:>8}  {:>8}  {:>8}  {:>8}",
        "all",
        after.episodes,
        percent(before.success),
        percent(after.success),
        change(before.success, after.success),
    );
    let ((b_low, b_high), (a_low, a_high)) = (before.interval(), after.interval());
    let _ = writeln!(
        text,
        "{:<width$}  {:>8}  {:>8}  {:>8}",
        "95 % interval",
        "",
        range(b_low, b_high),
        range(a_low, a_high),
    );
    text
}

/// `{"success", "episodes", "failed", "by_task"}` of the headline, which is the last split; with several,
/// `"splits"` has the same for each.
pub(crate) fn json(evaluations: &[Evaluation]) -> Value {
    let one = |e: &Evaluation| json!({ "success": e.success, "episodes": e.episodes, "failed": e.failed, "by_task": e.by_task });
    let Some(last) = evaluations.last() else { return Value::Null };
    let mut value = one(last);
    if evaluations.len() > 1 {
        let splits: Map<String, Value> =
            evaluations.iter().map(|e| (split_name(e.split).to_owned(), one(e))).collect();
        value["splits"] = Value::Object(splits);
    }
    value
}

/// `42.2 % of 256 unseen episodes (95 % interval 36–48 %)`.
pub(crate) fn sentence(evaluation: &Evaluation) -> String {
    let (low, high) = evaluation.interval();
    format!(
        "{} of {} {} episodes won (95 % interval {})",
        percent(evaluation.success),
        evaluation.episodes,
        split_name(evaluation.split),
        range(low, high),
    )
}

fn name_width(evaluations: &[&Evaluation]) -> usize {
    let kinds = evaluations.iter().flat_map(|e| e.by_task.keys());
    kinds.map(|k| k.chars().count()).max().unwrap_or(0).max("95 % interval".len())
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn range(low: f64, high: f64) -> String {
    format!("{:.0}–{:.0} %", low * 100.0, high * 100.0)
}

fn change(from: f64, to: f64) -> String {
    format!("{:+.1}", (to - from) * 100.0)
}

#[cfg(test)]
mod tests {
    use empg_train::Tally;

    use super::*;

    fn evaluation(split: Split, kinds: &[(&str, usize, usize)]) -> Evaluation {
        let tally = |episodes: usize, won: usize| Tally {
            episodes,
            won,
            success: won as f64 / episodes as f64,
        };
        let (episodes, won) = kinds.iter().fold((0, 0), |(e, w), k| (e + k.1, w + k.2));
        Evaluation {
            split,
            success: won as f64 / episodes as f64,
            episodes,
            by_task: kinds.iter().map(|&(k, e, w)| (k.to_owned(), tally(e, w))).collect(),
            turns: 10.0,
            ineffective: 0.0,
            truncated: 0,
            failed: 0,
            failure: None,
        }
    }

    #[test]
    fn tables_line_up() {
        let before =
            evaluation(Split::Unseen, &[("look_at_obj_in_light", 20, 5), ("pick", 108, 50)]);
        let after =
            evaluation(Split::Unseen, &[("look_at_obj_in_light", 20, 15), ("pick", 108, 98)]);
        insta::assert_snapshot!(comparison(&before, &after), @r"
        unseen tasks          episodes    before     after    change
        look_at_obj_in_light        20    25.0 %    75.0 %     +50.0
        pick                       108    46.3 %    90.7 %     +44.4
        all                        128    43.0 %    88.3 %     +45.3
        95 % interval                    35–52 %   82–93 %
        ");
        insta::assert_snapshot!(single(&after), @r"
        task type             episodes   success
        look_at_obj_in_light        20    75.0 %
        pick                       108    90.7 %
        all                        128    88.3 %   95 % interval 82–93 %
        ");
    }

    #[test]
    fn json_has_the_headline_and_every_split() {
        let seen = evaluation(Split::Seen, &[("pick", 4, 1)]);
        let unseen = evaluation(Split::Unseen, &[("pick", 4, 2)]);
        let value = json(&[seen, unseen]);
        assert_eq!(value["success"], 0.5);
        assert_eq!(value["splits"]["seen"]["success"], 0.25);
        assert_eq!(value["by_task"]["pick"], json!({"episodes": 4, "won": 2, "success": 0.5}));
    }
}
