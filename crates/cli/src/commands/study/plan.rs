//! From a study's file to its cells, every one with settings that have been checked.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use empg_report::study::{Arm, Cell, CellKey, Comparison, Layout};
use empg_train::Config;
use serde::Deserialize;
use toml::de::DeTable;
use toml::{Table, Value};

use crate::settings::{self, CommonArgs, SettingsError, TrainingArgs};

/// A study's file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StudyFile {
    name: String,
    #[serde(default)]
    about: String,
    seeds: Vec<u64>,
    #[serde(default = "one")]
    threads: usize,
    #[serde(default)]
    settings: Table,
    environments: Vec<EnvironmentEntry>,
    arms: Vec<ArmEntry>,
    #[serde(default)]
    comparisons: Vec<ComparisonEntry>,
    #[serde(default)]
    grids: Vec<GridEntry>,
}

fn one() -> usize {
    1
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvironmentEntry {
    name: String,
    /// The environment's name on the command line, where `name` is another.
    env: Option<String>,
    #[serde(default)]
    settings: Table,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ArmEntry {
    name: String,
    label: Option<String>,
    #[serde(default)]
    settings: Table,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ComparisonEntry {
    arm: String,
    base: String,
}

/// Variations of one arm by one key, compared with it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GridEntry {
    arm: String,
    key: String,
    values: Vec<Value>,
    seeds: Option<Vec<u64>>,
    environments: Option<Vec<String>>,
}

/// One cell that is to be run.
#[derive(Clone, Debug)]
pub(super) struct PlannedCell {
    pub(super) key: CellKey,
    /// The environment's name on the command line.
    pub(super) env: String,
    /// What stands over the environment's preset.
    pub(super) layer: Table,
    /// The resolved settings that bear on the result.
    pub(super) settings: BTreeMap<String, serde_json::Value>,
}

/// A study that can be run.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) name: String,
    about: String,
    pub(super) threads: usize,
    environments: Vec<String>,
    arms: Vec<Arm>,
    comparisons: Vec<Comparison>,
    /// The settings that a cell has where nothing else is said.
    defaults: BTreeMap<String, serde_json::Value>,
    /// By seed first: an interrupted study has all arms for its first seeds.
    pub(super) cells: Vec<PlannedCell>,
    /// Where the cells' files lie.
    pub(super) folder: PathBuf,
}

/// An arm, or a variation of one.
struct Variant {
    arm: Arm,
    settings: Table,
    seeds: Vec<u64>,
    environments: Option<Vec<String>>,
    at: At,
}

/// Where in the file a variant stands: its arm, and the grid that varies it.
#[derive(Clone, Copy)]
struct At {
    arm: usize,
    grid: Option<usize>,
}

impl Plan {
    /// Reads a study and resolves every cell's settings.
    ///
    /// # Errors
    /// A file that cannot be read or is no study, names that do not exist or exist twice, settings
    /// that no run could train with.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the study {}", path.display()))?;
        let file: StudyFile =
            toml::from_str(&text).with_context(|| format!("{} is not a study", path.display()))?;
        Self::of(file, &text, path).with_context(|| format!("the study {}", path.display()))
    }

    /// `text` is the file's, to say where in it something is wrong.
    fn of(file: StudyFile, text: &str, path: &Path) -> anyhow::Result<Self> {
        plain("name", &file.name)?;
        if file.seeds.is_empty() || file.environments.is_empty() || file.arms.is_empty() {
            bail!("seeds, environments and arms must each name at least one");
        }
        let alone: BTreeSet<u64> = file.seeds.iter().copied().collect();
        if alone.len() < file.seeds.len() {
            bail!("seeds: one is named twice, and would count as two");
        }
        let names: BTreeSet<&str> = file.environments.iter().map(|e| e.name.as_str()).collect();
        if names.len() < file.environments.len() {
            bail!("two environments have the same name");
        }
        if file.threads == 0 {
            bail!("threads must be at least 1: results depend on it");
        }
        let mut variants: Vec<Variant> = Vec::new();
        for ArmEntry { name, label, settings } in &file.arms {
            plain("arm", name)?;
            let label = label.clone().unwrap_or_else(|| name.clone());
            variants.push(Variant {
                arm: Arm { name: name.clone(), label },
                settings: settings.clone(),
                seeds: file.seeds.clone(),
                environments: None,
                at: At { arm: variants.len(), grid: None },
            });
        }
        let mut comparisons: Vec<Comparison> = file
            .comparisons
            .into_iter()
            .map(|ComparisonEntry { arm, base }| Comparison { arm, base })
            .collect();
        for (index, grid) in file.grids.iter().enumerate() {
            grid_variants(index, grid, &file.seeds, &mut variants, &mut comparisons)?;
        }
        let names: BTreeSet<&str> = variants.iter().map(|v| v.arm.name.as_str()).collect();
        if names.len() < variants.len() {
            bail!("two arms (or an arm and a grid's value) have the same name");
        }
        for name in comparisons.iter().flat_map(|c| [&c.arm, &c.base]) {
            if !names.contains(name.as_str()) {
                bail!("comparisons: there is no arm {name:?}");
            }
        }
        let environments: Vec<String> = file.environments.iter().map(|e| e.name.clone()).collect();
        for name in variants.iter().filter_map(|v| v.environments.as_ref()).flatten() {
            if !environments.contains(name) {
                bail!("grids: there is no environment {name:?}");
            }
        }

        let work = tempfile::tempdir().context("cannot make a temporary folder")?;
        let mut cells = Vec::new();
        for (place, environment) in file.environments.iter().enumerate() {
            plain("environment", &environment.name)?;
            let env = environment.env.clone().unwrap_or_else(|| environment.name.clone());
            for variant in &variants {
                if variant.environments.as_ref().is_some_and(|e| !e.contains(&environment.name)) {
                    continue;
                }
                let mut layer = file.settings.clone();
                settings::merge(&mut layer, environment.settings.clone());
                settings::merge(&mut layer, variant.settings.clone());
                let what = || format!("arm {} in {}", variant.arm.name, environment.name);
                let settings = resolve(&layer, &env, file.threads, work.path());
                let settings = settings
                    .map_err(|error| {
                        let line = |key: &str| {
                            let grid = variant.at.grid.map(|i| (i, file.grids[i].key.as_str()));
                            line_of(text, key, variant.at.arm, grid, place)
                        };
                        of_the_study(error, path, line)
                    })
                    .with_context(what)?;
                for &seed in &variant.seeds {
                    cells.push(PlannedCell {
                        key: CellKey {
                            environment: environment.name.clone(),
                            arm: variant.arm.name.clone(),
                            seed,
                        },
                        env: env.clone(),
                        layer: layer.clone(),
                        settings: settings.clone(),
                    });
                }
            }
        }
        // A stable sort: within a seed the file's order stays.
        cells.sort_by_key(|cell| cell.key.seed);
        let parent = path.parent().unwrap_or(Path::new("."));
        Ok(Self {
            folder: parent.join(&file.name),
            name: file.name,
            about: file.about,
            threads: file.threads,
            environments,
            arms: variants.into_iter().map(|v| v.arm).collect(),
            comparisons,
            defaults: bearing(
                &Config { threads: file.threads, ..Config::default() }.resolve()?,
                &Table::new(),
            )?,
            cells,
        })
    }

    /// Whether an environment or arm has this name.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.environments.iter().any(|e| e == name) || self.arms.iter().any(|a| a.name == name)
    }

    /// Refuses seeds that the study does not have.
    ///
    /// # Errors
    /// As said, with those that it has.
    pub(super) fn check_seeds(&self, seeds: &[u64]) -> anyhow::Result<()> {
        let have: BTreeSet<u64> = self.cells.iter().map(|cell| cell.key.seed).collect();
        let list = |seeds: &mut dyn Iterator<Item = &u64>| {
            seeds.map(u64::to_string).collect::<Vec<_>>().join(", ")
        };
        let missing = list(&mut seeds.iter().filter(|seed| !have.contains(seed)));
        if !missing.is_empty() {
            bail!("--seeds {missing}: the study has the seeds {} only", list(&mut have.iter()));
        }
        Ok(())
    }

    /// The file of a cell.
    pub(super) fn file(&self, key: &CellKey) -> PathBuf {
        self.folder.join(format!("{}.json", key.name()))
    }

    /// The cell, if it is finished.
    ///
    /// # Errors
    /// A damaged file; a cell that was run with other settings than the study has now.
    pub(super) fn finished(&self, cell: &PlannedCell) -> anyhow::Result<Option<Cell>> {
        let path = self.file(&cell.key);
        let Some(done) = Cell::read(&path)? else { return Ok(None) };
        let (defaults, then, now) =
            (comparable(&self.defaults), comparable(&done.settings), comparable(&cell.settings));
        for key in then.keys().chain(now.keys()) {
            // A key may be left out at its default, or have come with another version.
            let [then, now] = [&then, &now].map(|side| side.get(key).or(defaults.get(key)));
            if then != now {
                let [then, now] = [then, now]
                    .map(|value| value.map_or("nothing".to_owned(), ToString::to_string));
                bail!(
                    "{}: this cell was run with {key} = {then}, the study has {now} now; remove the \
                     file to run the cell again, or give the study another name",
                    path.display()
                );
            }
        }
        Ok(Some(done))
    }

    /// What the tables show.
    pub(super) fn layout(&self) -> Layout {
        Layout {
            name: self.name.clone(),
            about: self.about.clone(),
            environments: self.environments.clone(),
            arms: self.arms.clone(),
            comparisons: self.comparisons.clone(),
            planned: self.cells.iter().map(|c| c.key.clone()).collect(),
        }
    }
}

fn grid_variants(
    index: usize,
    grid: &GridEntry,
    seeds: &[u64],
    variants: &mut Vec<Variant>,
    comparisons: &mut Vec<Comparison>,
) -> anyhow::Result<()> {
    let GridEntry { arm, key, values, seeds: own, environments } = grid;
    let Some(base) = variants.iter().find(|v| v.arm.name == *arm) else {
        bail!("grids: there is no arm {arm:?}");
    };
    let (base_label, base_settings) = (base.arm.label.clone(), base.settings.clone());
    let at = At { grid: Some(index), ..base.at };
    for value in values {
        let short = key.rsplit('.').next().unwrap_or(key);
        let shown = value.to_string().trim_matches('"').to_owned();
        let name = format!("{arm}-{short}-{shown}");
        plain("grid", &name)?;
        let mut settings = base_settings.clone();
        settings::merge(&mut settings, nested(key, value.clone()));
        comparisons.push(Comparison { arm: name.clone(), base: arm.clone() });
        variants.push(Variant {
            arm: Arm { name, label: format!("{base_label}, {short} = {shown}") },
            settings,
            seeds: own.clone().unwrap_or_else(|| seeds.to_vec()),
            environments: environments.clone(),
            at,
        });
    }
    Ok(())
}

/// `a.b` and a value as a table of tables.
fn nested(key: &str, value: Value) -> Table {
    let (first, rest) = key.split_once('.').map_or((key, None), |(a, b)| (a, Some(b)));
    let value = match rest {
        Some(rest) => Value::Table(nested(rest, value)),
        None => value,
    };
    Table::from_iter([(first.to_owned(), value)])
}

/// Names become parts of file names.
fn plain(what: &str, name: &str) -> anyhow::Result<()> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+');
    if name.is_empty() || name.starts_with('.') || name.contains("--") || !name.chars().all(fine) {
        bail!("{what} {name:?}: names have letters, digits and single '-', '_', '.', '+' only");
    }
    Ok(())
}

/// Settings that name files.
const NAMED: [(&str, &str); 4] =
    [("env", "data"), ("env", "corpus"), ("model", "path"), ("rollout", "prompt")];

/// An error of settings as one of the study's file, which is where they stand.
fn of_the_study(
    error: anyhow::Error,
    path: &Path,
    line: impl Fn(&str) -> Option<usize>,
) -> anyhow::Error {
    let Some(found) = error.downcast_ref::<SettingsError>() else { return error };
    let (key, what) = match found {
        SettingsError::UnknownKey { place, key, .. } | SettingsError::Value { place, key, .. } => {
            let text = found.to_string();
            let what = text.strip_prefix(&format!("{place}: ")).unwrap_or(&text).to_owned();
            (key.as_str(), what)
        }
        SettingsError::Refused { key, what } => (*key, format!("`{key}` {what}")),
        _ => return error,
    };
    let line = line(key).map_or_else(String::new, |line| format!(":{line}"));
    SettingsError::Conflict(format!("{}{line}: {what}", path.display())).into()
}

/// The line that decides a key: of the grid, else of the arm, else of the environment, else of the
/// study's own settings.
fn line_of(
    text: &str,
    key: &str,
    arm: usize,
    grid: Option<(usize, &str)>,
    environment: usize,
) -> Option<usize> {
    let file = DeTable::parse(text).ok()?;
    let file = file.get_ref();
    let entry = |list: &str, at: usize| file.get(list)?.get_ref().get(at)?.get_ref().as_table();
    let settings = |entry: Option<&DeTable<'_>>| {
        let table = entry?.get("settings")?.get_ref().as_table()?;
        offset(table, key)
    };
    let varied = grid.and_then(|(at, varied)| {
        let within = key == varied || key.strip_prefix(varied).is_some_and(|k| k.starts_with('.'));
        let (name, _) = entry("grids", at)?.get_key_value("key").filter(|_| within)?;
        Some(name.span().start)
    });
    let at = varied
        .or_else(|| settings(entry("arms", arm)))
        .or_else(|| settings(entry("environments", environment)))
        .or_else(|| settings(Some(file)))?;
    Some(text.get(..at)?.matches('\n').count() + 1)
}

/// Where the last part of a dotted key stands in a table of tables.
fn offset(table: &DeTable<'_>, key: &str) -> Option<usize> {
    let (first, rest) = key.split_once('.').map_or((key, None), |(a, b)| (a, Some(b)));
    let (name, value) = table.get_key_value(first)?;
    match rest {
        Some(rest) => offset(value.get_ref().as_table()?, rest),
        None => Some(name.span().start),
    }
}

/// The settings that a cell's run would have, by dotted key, without those that do not bear on its
/// result: folders, checkpoints, what is recorded, the seed.
fn resolve(
    layer: &Table,
    env: &str,
    threads: usize,
    work: &Path,
) -> anyhow::Result<BTreeMap<String, serde_json::Value>> {
    for key in ["seed", "threads"] {
        if layer.contains_key(key) {
            bail!("settings.{key}: the study itself decides it");
        }
    }
    let path = work.join("settings.toml");
    std::fs::write(&path, toml::to_string(layer)?)?;
    let common = CommonArgs {
        config: Some(path),
        env: Some(env.to_owned()),
        threads: Some(threads),
        ..CommonArgs::default()
    };
    bearing(&settings::resolve(TrainingArgs { common, ..TrainingArgs::default() })?, layer)
}

/// Those of a resolved configuration, with what `layer` names.
fn bearing(config: &Config, layer: &Table) -> anyhow::Result<BTreeMap<String, serde_json::Value>> {
    let mut flat = BTreeMap::new();
    flatten("", serde_json::to_value(config)?, &mut flat);
    flat.retain(|key, _| {
        !["env.data", "env.corpus", "model.path", "rollout.prompt", "seed"].contains(&key.as_str())
            && !key.starts_with("checkpoint.")
            && !key.starts_with("record.")
    });
    // What lies in files by its name: another model or other data make another result, wherever
    // their folders are.
    for (section, key) in NAMED {
        let default = match key {
            "path" => config.model.path.as_str(),
            "prompt" => config.rollout.prompt.as_str(),
            _ => "",
        };
        let given = layer.get(section).and_then(|s| s.get(key)).and_then(toml::Value::as_str);
        let given = given.unwrap_or(default);
        let name = match Path::new(given).file_name().filter(|_| section == "env") {
            Some(name) => name.to_string_lossy().into_owned(),
            None => given.to_owned(),
        };
        flat.insert(format!("{section}.{key}"), name.into());
    }
    Ok(flat)
}

/// Settings by keys that do not depend on their values: a context is `full`, or `window` by the turns.
fn comparable(
    settings: &BTreeMap<String, serde_json::Value>,
) -> BTreeMap<&str, Cow<'_, serde_json::Value>> {
    const CONTEXT: &str = "rollout.context";
    let one = |(key, value)| match str::strip_prefix(key, CONTEXT).and_then(|k| k.strip_prefix('.'))
    {
        Some(kind) => (CONTEXT, Cow::Owned(serde_json::json!({ kind: value }))),
        None => (key, Cow::Borrowed(value)),
    };
    settings.iter().map(|(key, value)| one((key.as_str(), value))).collect()
}

fn flatten(prefix: &str, value: serde_json::Value, into: &mut BTreeMap<String, serde_json::Value>) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                let name = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
                flatten(&name, value, into);
            }
        }
        value => {
            into.insert(prefix.to_owned(), value);
        }
    }
}

#[cfg(test)]
mod tests;
