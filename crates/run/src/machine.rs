//! What a run was started on. It stands in `created.json`, apart from what a repetition gives again.

use std::fs;

use serde::{Deserialize, Serialize};

/// A machine, as far as it bears on speed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// `linux`, `macos`, `windows`.
    pub os: String,
    /// `x86_64`, `aarch64`.
    pub arch: String,
    /// The processor's name, where the system tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    /// Threads that can run at a time; 0 where the system does not tell.
    #[serde(default)]
    pub cores: usize,
}

impl Machine {
    /// This one.
    pub(crate) fn here() -> Self {
        let told = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = told.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == "model name").then(|| value.trim().to_owned())
        });
        Self {
            os: std::env::consts::OS.to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            cpu: cpu.filter(|name| !name.is_empty()),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.os, self.arch)?;
        if let Some(cpu) = &self.cpu {
            write!(f, ", {cpu}")?;
        }
        if self.cores > 0 {
            write!(f, ", {} core{}", self.cores, if self.cores == 1 { "" } else { "s" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_in_words() {
        let machine = Machine {
            os: "linux".into(),
            arch: "x86_64".into(),
            cpu: Some("Some CPU".into()),
            cores: 2,
        };
        assert_eq!(machine.to_string(), "linux x86_64, Some CPU, 2 cores");
        assert_eq!(Machine::here().os, std::env::consts::OS);
    }
}
