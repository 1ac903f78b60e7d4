//! The calls of MLflow's REST API that a mirror makes.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::connection::Connection;
use crate::{Result, TrackError, names};

/// Most points of a request, and most parameters or tags.
const POINTS: usize = 1000;
const TEXTS: usize = 100;

/// The tag by which a run is found again.
const IDENTITY: &str = "empg.id";

/// One value of a metric.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Point {
    pub(crate) key: String,
    pub(crate) value: f64,
    pub(crate) step: u64,
    pub(crate) milliseconds: i64,
}

/// What the server knows of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    pub(crate) id: String,
    pub(crate) status: String,
    pub(crate) params: BTreeMap<String, String>,
    /// The last step of every metric.
    pub(crate) last: BTreeMap<String, u64>,
}

/// A tracking server.
#[derive(Debug)]
pub(crate) struct Mlflow {
    connection: Connection,
}

impl Mlflow {
    pub(crate) fn new(connection: Connection) -> Self {
        Self { connection }
    }

    /// The page of a run.
    pub(crate) fn page(&self, experiment: &str, run: &str) -> String {
        format!("{}/#/experiments/{experiment}/runs/{run}", self.connection.url())
    }

    /// The identifier of an experiment, which is made if it does not exist.
    pub(crate) fn experiment(&self, name: &str) -> Result<String> {
        if let Some(id) = self.experiment_by_name(name)? {
            return Ok(id);
        }
        match self.connection.post("experiments/create", &json!({ "name": name })) {
            Ok(made) => text(&made, &["experiment_id"])
                .ok_or_else(|| self.connection.lacking("experiments/create", "experiment_id")),
            // Another client was faster.
            Err(TrackError::Refused { code, .. }) if code == "RESOURCE_ALREADY_EXISTS" => {
                let found = self.experiment_by_name(name)?;
                found.ok_or_else(|| self.connection.lacking("experiments/get-by-name", name))
            }
            Err(error) => Err(error),
        }
    }

    fn experiment_by_name(&self, name: &str) -> Result<Option<String>> {
        let call = "experiments/get-by-name";
        let found = match self.connection.get(call, &[("experiment_name", name)]) {
            Ok(found) => found,
            Err(TrackError::Refused { code, .. }) if code == "RESOURCE_DOES_NOT_EXIST" => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        if text(&found, &["experiment", "lifecycle_stage"]).as_deref() == Some("deleted") {
            let what = format!("the experiment {name:?}");
            return Err(TrackError::Deleted { address: self.connection.url().to_owned(), what });
        }
        let id = text(&found, &["experiment", "experiment_id"]);
        id.map(Some).ok_or_else(|| self.connection.lacking(call, "experiment_id"))
    }

    /// The run that was made for `identity`, if there is one.
    pub(crate) fn find(&self, experiment: &str, identity: &str) -> Result<Option<Known>> {
        let found = self.connection.post(
            "runs/search",
            &json!({
                "experiment_ids": [experiment],
                "filter": format!("tags.`{IDENTITY}` = '{identity}'"),
                "run_view_type": "ALL",
                "max_results": 1,
                "order_by": ["attributes.start_time ASC"],
            }),
        )?;
        let Some(run) = found.get("runs").and_then(|runs| runs.get(0)) else { return Ok(None) };
        let id = text(run, &["info", "run_id"]);
        let id = id.ok_or_else(|| self.connection.lacking("runs/search", "run_id"))?;
        self.run(&id).map(Some)
    }

    fn run(&self, id: &str) -> Result<Known> {
        let call = "runs/get";
        let found = self.connection.get(call, &[("run_id", id)])?;
        let run = found.get("run").ok_or_else(|| self.connection.lacking(call, "run"))?;
        if text(run, &["info", "lifecycle_stage"]).as_deref() == Some("deleted") {
            let what = format!("the run {id}");
            return Err(TrackError::Deleted { address: self.connection.url().to_owned(), what });
        }
        let data = |key: &str| {
            let list = run.get("data").and_then(|data| data.get(key)).and_then(Value::as_array);
            list.into_iter().flatten()
        };
        let params = data("params").filter_map(|param| {
            Some((text(param, &["key"])?, text(param, &["value"]).unwrap_or_default()))
        });
        let last = data("metrics")
            .filter_map(|metric| Some((text(metric, &["key"])?, whole(metric.get("step")))));
        Ok(Known {
            id: id.to_owned(),
            status: text(run, &["info", "status"]).unwrap_or_default(),
            params: params.collect(),
            last: last.collect(),
        })
    }

    /// Makes the run of `identity`.
    pub(crate) fn create(
        &self,
        experiment: &str,
        identity: &str,
        name: &str,
        milliseconds: i64,
    ) -> Result<Known> {
        let call = "runs/create";
        let made = self.connection.post(
            call,
            &json!({
                "experiment_id": experiment,
                "run_name": names::tag(name),
                "start_time": milliseconds,
                "tags": [
                    {"key": IDENTITY, "value": identity},
                    {"key": "mlflow.source.name", "value": "empg"},
                    {"key": "mlflow.source.type", "value": "LOCAL"},
                ],
            }),
        )?;
        let id = text(&made, &["run", "info", "run_id"]);
        let id = id.ok_or_else(|| self.connection.lacking(call, "run_id"))?;
        Ok(Known { id, status: "RUNNING".to_owned(), ..Known::default() })
    }

    /// Writes parameters and tags.
    pub(crate) fn describe(
        &self,
        run: &str,
        params: &[(String, String)],
        tags: &[(String, String)],
    ) -> Result<()> {
        for (kind, texts) in [("params", params), ("tags", tags)] {
            for part in texts.chunks(TEXTS) {
                let part: Vec<Value> =
                    part.iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
                self.connection.post("runs/log-batch", &json!({"run_id": run, kind: part}))?;
            }
        }
        Ok(())
    }

    /// Writes as many of the points as one request takes; gives how many those were.
    pub(crate) fn log(&self, run: &str, points: &[Point]) -> Result<usize> {
        let part = &points[..points.len().min(POINTS)];
        let metrics: Vec<Value> = part
            .iter()
            .map(|p| {
                json!({"key": p.key, "value": p.value, "timestamp": p.milliseconds, "step": p.step})
            })
            .collect();
        self.connection.post("runs/log-batch", &json!({"run_id": run, "metrics": metrics}))?;
        Ok(part.len())
    }

    /// Sets a run's status, and its end if it has ended.
    pub(crate) fn set_status(&self, run: &str, status: &str, end: Option<i64>) -> Result<()> {
        let mut body = json!({"run_id": run, "status": status});
        if let Some(end) = end {
            body["end_time"] = end.into();
        }
        self.connection.post("runs/update", &body).map(|_| ())
    }
}

fn text(value: &Value, path: &[&str]) -> Option<String> {
    let found = path.iter().try_fold(value, |value, key| value.get(key))?;
    found.as_str().map(str::to_owned)
}

/// A step; JSON made of protobuf writes 64-bit numbers as text, and leaves zeros out.
fn whole(value: Option<&Value>) -> u64 {
    match value {
        Some(Value::String(text)) => text.parse().unwrap_or(0),
        Some(value) => value.as_u64().unwrap_or(0),
        None => 0,
    }
}
