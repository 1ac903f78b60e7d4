//! The figures of a run, and the peaks that they are a share of.

use empg_llm::peak;
use serde_json::{Map, Value, json};

use super::subject::{BenchDtype, SubjectArgs};
use crate::{output, say};

/// What this machine does at best.
pub(super) struct Peaks {
    f32_gflops: f64,
    bf16_gflops: Option<f64>,
    pub(super) read_gb_s: f64,
}

impl Peaks {
    pub(super) fn measure(subject: &SubjectArgs) -> Self {
        let threads = subject.threads();
        say!("measuring the peaks of {threads} threads");
        Self {
            f32_gflops: peak::f32_fma_gflops(threads),
            bf16_gflops: peak::bf16_gflops(threads),
            read_gb_s: peak::read_gb_per_s(threads),
        }
    }

    /// The peak of a number type; f32's where bf16 has no instruction of its own.
    pub(super) fn gflops(&self, dtype: BenchDtype) -> f64 {
        match dtype {
            BenchDtype::F32 => self.f32_gflops,
            BenchDtype::Bf16 => self.bf16_gflops.unwrap_or(self.f32_gflops),
        }
    }
}

/// What a benchmark found.
pub(super) struct Figures {
    /// Seconds of one step (the median).
    pub(super) seconds: f64,
    /// Tokens of one step; 0 where there are none to speak of.
    pub(super) tokens: f64,
    /// Operations of one step.
    pub(super) flop: f64,
    /// Bytes that one step has to move at least, where that matters.
    pub(super) bytes: Option<f64>,
    /// Further rows: key in the JSON, label, value, how the table prints it.
    pub(super) more: Vec<(&'static str, &'static str, Value, String)>,
}

impl Figures {
    pub(super) fn add(&mut self, key: &'static str, label: &'static str, value: f64, unit: &str) {
        let digits = if value.abs() >= 100.0 { 0 } else { 2 };
        self.more.push((key, label, json!(value), format!("{value:.digits$}{unit}")));
    }

    /// Prints the table and, with `json`, a last line of JSON.
    pub(super) fn print(
        self,
        subject: &SubjectArgs,
        peaks: &Peaks,
        json: bool,
    ) -> anyhow::Result<()> {
        let dtype = subject.dtype;
        let memory = peak_memory_bytes();
        let (gflops, peak) = (self.flop / self.seconds / 1e9, peaks.gflops(dtype));
        // Null where there are no tokens: the keys are the same for all.
        let tokens_per_s = (self.tokens > 0.0).then_some(self.tokens / self.seconds);
        let percent = 100.0 * gflops / peak;
        let mut rows = vec![
            ("model", subject.model.clone()),
            ("number type", dtype.name().to_owned()),
            ("threads", subject.threads().to_string()),
            ("seconds a step", format!("{:.4}", self.seconds)),
        ];
        let mut line = Map::new();
        if let Some(tokens_per_s) = tokens_per_s {
            rows.push(("tokens/s", format!("{tokens_per_s:.1}")));
        }
        line.insert("tokens_per_s".into(), json!(tokens_per_s));
        rows.push(("GFLOP/s", format!("{gflops:.1}, {percent:.1} % of {peak:.0}")));
        line.insert("gflops".into(), json!(gflops));
        line.insert("peak_gflops".into(), json!(peak));
        line.insert("percent_of_peak".into(), json!(percent));
        line.insert("peak_memory_bytes".into(), json!(memory));
        line.insert("dtype".into(), json!(dtype.name()));
        line.insert("seconds".into(), json!(self.seconds));
        line.insert("threads".into(), json!(subject.threads()));
        line.insert("peak_gb_per_s".into(), json!(peaks.read_gb_s));
        line.insert("peak_f32_gflops".into(), json!(peaks.f32_gflops));
        line.insert("peak_bf16_gflops".into(), json!(peaks.bf16_gflops));
        if let Some(bytes) = self.bytes {
            let rate = bytes / self.seconds / 1e9;
            let share = 100.0 * rate / peaks.read_gb_s;
            rows.push(("GB/s", format!("{rate:.1}, {share:.1} % of {:.1}", peaks.read_gb_s)));
            line.insert("gb_per_s".into(), json!(rate));
            line.insert("percent_of_bandwidth".into(), json!(share));
        }
        for (key, label, value, text) in self.more {
            rows.push((label, text));
            line.insert(key.into(), value);
        }
        let bf16 = peaks.bf16_gflops.map_or("no such instruction".into(), |g| format!("{g:.0}"));
        rows.push((
            "peaks",
            format!(
                "f32 {:.0} GFLOP/s, bf16 {bf16}, reads {:.1} GB/s",
                peaks.f32_gflops, peaks.read_gb_s
            ),
        ));
        rows.push(("peak memory", format!("{:.2} GB", memory as f64 / 1e9)));
        let width = rows.iter().map(|r| r.0.chars().count()).max().unwrap_or(0);
        for (label, text) in rows {
            output::line(&format!("{label:<width$}  {text}"))?;
        }
        if json {
            output::line(&Value::Object(line).to_string())?;
        }
        Ok(())
    }
}

/// The most memory that this process has held so far; 0 where the system does not tell.
pub(super) fn peak_memory_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}
