//! What the page asks for.

use std::sync::{Arc, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use empg_run::TrajectoryEntry;
use serde_json::{Value, json};

use super::board::RunView;
use super::query::Query;
use super::summaries::Columns;
use super::{Shared, pages, tasks as task_panel};

/// Runs of a comparison at most.
const COMPARED: usize = 200;
/// Characters of a search at most.
const WORDS: usize = 200;

/// A status and what is said.
type Refused = (StatusCode, String);
type Asked = (State<Arc<Shared>>, RawQuery);

/// The list: every run's row, and the version that it stands at.
pub(super) async fn runs(State(shared): State<Arc<Shared>>) -> Response {
    let shown = shared.board.shown();
    let rows: Vec<_> = shown.runs.values().map(|run| &run.line).collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
    let list = json!({
        "boot": shared.board.boot(),
        "version": shown.version,
        "folder": shared.board.root().display().to_string(),
        "now": now,
        "runs": rows,
        "notices": shown.notices,
    });
    pages::json(StatusCode::OK, list.to_string())
}

/// One run: its row, its facts and what was recorded.
pub(super) async fn run((State(shared), RawQuery(query)): Asked) -> Response {
    answer(shared, query, |_, _, view| {
        let recorded: Vec<_> = view.recorded.iter().map(|t| (t.step, t.rows)).collect();
        let data = view.data.as_deref();
        let value = json!({
            "line": view.line,
            "info": data.map(|d| &d.info),
            "recorded": recorded,
            "notes": data.map(|d| &d.notes),
        });
        Ok(value.to_string())
    })
    .await
}

/// Runs side by side.
pub(super) async fn compare((State(shared), RawQuery(query)): Asked) -> Response {
    let query = Query::parse(query.as_deref().unwrap_or_default());
    let mut chosen: Vec<(String, RunView)> = Vec::new();
    for id in query.all("id") {
        match shared.board.run(id) {
            Some(view) if chosen.iter().all(|(known, _)| known != id) => {
                chosen.push((id.to_owned(), view));
            }
            Some(_) => {}
            None => return missing(),
        }
    }
    if chosen.is_empty() || chosen.len() > COMPARED {
        let what = format!("name between 1 and {COMPARED} runs: ?id=RUN&id=RUN");
        return pages::error(StatusCode::BAD_REQUEST, &what);
    }
    aside(move || {
        let mut made = shared.comparisons.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(made.of(&chosen).to_string())
    })
    .await
}

/// The tasks of a run's evaluations.
pub(super) async fn tasks((State(shared), RawQuery(query)): Asked) -> Response {
    answer(shared, query, |shared, _, view| {
        Ok(task_panel::tasks(shared.board.root(), view).to_string())
    })
    .await
}

/// Summaries of the episodes of one recorded step, or of all.
pub(super) async fn episodes((State(shared), RawQuery(query)): Asked) -> Response {
    answer(shared, query, |shared, query, view| {
        let (mut summaries, mut notes) = (Vec::new(), Vec::new());
        for entry in chosen_steps(query, view)? {
            match shared.recorded.summary(shared.board.root(), view, entry) {
                Ok(summary) => summaries.push(summary),
                // One damaged file does not hide the others.
                Err(error) => notes.push(error),
            }
        }
        let source = view.data.as_ref().map_or_else(String::new, |d| d.name.clone());
        let columns = Columns::of(source, &summaries, notes);
        serde_json::to_string(&columns).map_err(|error| failed(&error.to_string()))
    })
    .await
}

/// One episode with every step's credit.
pub(super) async fn episode((State(shared), RawQuery(query)): Asked) -> Response {
    answer(shared, query, |shared, query, view| {
        let (group, rollout) = query
            .number("group")
            .zip(query.number("rollout"))
            .ok_or_else(|| (StatusCode::BAD_REQUEST, "group and rollout are numbers".to_owned()))?;
        let entry = chosen_step(query, view)?;
        let root = shared.board.root();
        let episode = shared.recorded.episode(root, view, entry, group, rollout);
        match episode.map_err(|error| failed(&error))? {
            Some(episode) => {
                serde_json::to_string(&episode).map_err(|error| failed(&error.to_string()))
            }
            None => Err((StatusCode::NOT_FOUND, "the step has no such episode".to_owned())),
        }
    })
    .await
}

/// The credit of every step of a task's rollouts, without their texts.
pub(super) async fn group((State(shared), RawQuery(query)): Asked) -> Response {
    answer(shared, query, |shared, query, view| {
        let group: u32 = query
            .number("group")
            .ok_or_else(|| (StatusCode::BAD_REQUEST, "group is a number".to_owned()))?;
        let entry = chosen_step(query, view)?;
        let file = shared.recorded.file(shared.board.root(), view, entry);
        let file = file.map_err(|error| failed(&error))?;
        let rollouts: Vec<Value> = file
            .episodes
            .iter()
            .map(|range| &file.rows[range.clone()])
            .filter(|rows| rows[0].group == group)
            .map(|rows| {
                let column = |of: fn(&empg_run::TrajectoryRow) -> f64| -> Vec<f64> {
                    rows.iter().map(|r| empg_report::arms::four_digits(of(r))).collect()
                };
                json!({
                    "rollout": rows[0].rollout,
                    "advantage": column(|r| r.advantage),
                    "h_norm": column(|r| r.h_norm),
                })
            })
            .collect();
        Ok(Value::from(rollouts).to_string())
    })
    .await
}

/// The places, in the list of summaries, of the episodes that hold a text.
pub(super) async fn search((State(shared), RawQuery(query)): Asked) -> Response {
    answer(shared, query, |shared, query, view| {
        let words: String = query.get("q").unwrap_or_default().chars().take(WORDS).collect();
        let words = words.to_lowercase();
        let (mut hits, mut before) = (Vec::new(), 0);
        for entry in chosen_steps(query, view)? {
            // Its summaries are missing from the list as well.
            let Ok(file) = shared.recorded.file(shared.board.root(), view, entry) else { continue };
            for (i, range) in file.episodes.iter().enumerate() {
                let found = file.rows[range.clone()].iter().any(|row| {
                    [&row.task, &row.observation, &row.action]
                        .iter()
                        .any(|text| text.to_lowercase().contains(&words))
                });
                if found {
                    hits.push(before + i);
                }
            }
            before += file.episodes.len();
        }
        Ok(Value::from(hits).to_string())
    })
    .await
}

/// `step=all`, one step, or the last one.
fn chosen_steps<'a>(query: &Query, view: &'a RunView) -> Result<Vec<&'a TrajectoryEntry>, Refused> {
    if query.get("step") == Some("all") {
        return Ok(view.recorded.iter().collect());
    }
    chosen_step(query, view).map(|entry| vec![entry])
}

fn chosen_step<'a>(query: &Query, view: &'a RunView) -> Result<&'a TrajectoryEntry, Refused> {
    let entry = match query.get("step") {
        Some(step) => view.recorded.iter().find(|t| Ok(t.step) == step.parse()),
        None => view.recorded.last(),
    };
    entry
        .ok_or_else(|| (StatusCode::NOT_FOUND, "no episodes were recorded at this step".to_owned()))
}

/// Answers about one run, on a thread beside those that serve connections.
async fn answer(
    shared: Arc<Shared>,
    query: Option<String>,
    work: impl FnOnce(&Shared, &Query, &RunView) -> Result<String, Refused> + Send + 'static,
) -> Response {
    let query = Query::parse(query.as_deref().unwrap_or_default());
    let Some(view) = query.get("id").and_then(|id| shared.board.run(id)) else { return missing() };
    aside(move || work(&shared, &query, &view)).await
}

async fn aside(work: impl FnOnce() -> Result<String, Refused> + Send + 'static) -> Response {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(text)) => pages::json(StatusCode::OK, text),
        Ok(Err((status, what))) => pages::error(status, &what),
        Err(error) => pages::error(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn missing() -> Response {
    pages::error(StatusCode::NOT_FOUND, "there is no such run in the folder")
}

fn failed(what: &str) -> Refused {
    (StatusCode::INTERNAL_SERVER_ERROR, what.to_owned())
}
