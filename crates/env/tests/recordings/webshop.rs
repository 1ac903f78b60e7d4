//! WebShop: equality with recordings of the original.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use empg_env::webshop::{
    Available, Catalogue, Mode, Purchase, WebshopOptions, WebshopSet, token_set_ratio, verl_agent,
};
use empg_env::{Env, Projection};
use flate2::bufread::MultiGzDecoder;
use libtest_mimic::Failed;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::lines;

fn catalogue(data: &Path) -> &'static Arc<Catalogue> {
    static CATALOGUE: OnceLock<Arc<Catalogue>> = OnceLock::new();
    CATALOGUE.get_or_init(|| Catalogue::load(data).expect("the small catalogue loads"))
}

fn set(data: &Path, options: WebshopOptions) -> Result<WebshopSet, Failed> {
    Ok(WebshopSet::new(Arc::clone(catalogue(data)), options, None)?)
}

fn json<T: DeserializeOwned>(path: &Path) -> Result<T, Failed> {
    let file = BufReader::new(File::open(path).map_err(|e| format!("{}: {e}", path.display()))?);
    if path.extension().is_some_and(|e| e == "gz") {
        Ok(serde_json::from_reader(BufReader::new(MultiGzDecoder::new(file)))?)
    } else {
        Ok(serde_json::from_reader(file)?)
    }
}

#[derive(Deserialize)]
struct Transcript {
    id: String,
    mode: Mode,
    env_seed: u32,
    human_goals: bool,
    session: usize,
    goal: Value,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    action: Option<String>,
    observation: String,
    reward: f64,
    done: bool,
    /// Null after the purchase.
    available_actions: Option<Available>,
}

/// Every page, every list of what can be clicked and every reward, in both modes.
pub(crate) fn transcripts(data: &Path) -> Result<(), Failed> {
    let mut steps = 0;
    for recording in lines::<Transcript>(&data.join("webshop/transcripts.jsonl.gz"))? {
        let Transcript { id, mode, env_seed, human_goals, session, goal, .. } = recording;
        let options = WebshopOptions { mode, human_goals, env_seed, ..WebshopOptions::default() };
        let set = set(data, options)?;
        let kind = if human_goals { "webshop-human" } else { "webshop" };
        let mut env = set.environment();
        let first = env.reset(&format!("{kind}/{env_seed}/{session}"), 0)?;
        includes(&goal_of(&set, session)?, &goal).map_err(|e| format!("{id}: {e}"))?;
        let mut first = Some(first);
        for (i, step) in recording.steps.iter().enumerate() {
            let (observation, reward, done) = match &step.action {
                None => (first.take().ok_or("two beginnings")?, 0.0, false),
                Some(action) => {
                    let transition = env.step(action)?;
                    let won = transition.won;
                    if won != (transition.reward == 1.0) || env.score() < transition.reward {
                        return Err(format!("{id} step {i}: {transition:?}").into());
                    }
                    (transition.observation, transition.reward, transition.end.is_some())
                }
            };
            let available = env.available();
            let same = observation.text == step.observation
                && reward == step.reward
                && done == step.done
                && available == step.available_actions.clone().unwrap_or_default();
            if !same {
                return Err(format!(
                    "{id} step {i} {:?}:\n{}\n{reward} {done} {available:?}\nrecorded:\n{}\n{} {} \
                     {:?}",
                    step.action,
                    observation.text,
                    step.observation,
                    step.reward,
                    step.done,
                    step.available_actions
                )
                .into());
            }
            steps += 1;
        }
    }
    if steps == 0 { Err("no step was recorded".into()) } else { Ok(()) }
}

fn goal_of(set: &WebshopSet, session: usize) -> Result<Value, Failed> {
    let goal = set.goals().goal(set.catalogue(), session).ok_or("no such goal")?;
    Ok(serde_json::to_value(goal)?)
}

/// Every recorded field is the same; numbers by value.
fn includes(ours: &Value, recorded: &Value) -> Result<(), String> {
    for (name, value) in recorded.as_object().into_iter().flatten() {
        let own = &ours[name];
        let same = match (own.as_f64(), value.as_f64()) {
            (Some(a), Some(b)) => a == b,
            _ => own == value,
        };
        if !same {
            return Err(format!("{name} is {own}, recorded {value}"));
        }
    }
    Ok(())
}

pub(crate) fn rewards(data: &Path) -> Result<(), Failed> {
    for row in lines::<Value>(&data.join("webshop/rewards.jsonl.gz"))? {
        let reward = Purchase::deserialize(&row)?.reward(catalogue(data))?;
        let info = &row["info"];
        let same = row["reward"] == reward.total
            && info["r_type"] == reward.kind
            && info["title_score"] == reward.title_score
            && info["query_match"] == reward.query_match
            && info["category_match"] == reward.category_match
            && info["r_price"] == reward.price;
        if !same {
            return Err(format!("{reward:?} for {row}").into());
        }
    }
    Ok(())
}

/// Without a noun table the factor for the product's type is nearly always the same.
pub(crate) fn approximate_nouns(data: &Path) -> Result<(), Failed> {
    let unpacked = |name: &str| -> Result<Vec<u8>, Failed> {
        let file = BufReader::new(File::open(data.join("webshop").join(name))?);
        let mut bytes = Vec::new();
        MultiGzDecoder::new(file).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let items = unpacked("items_shuffle_1000.reconstructed.json.gz")?;
    let catalogue =
        Catalogue::from_json(&items, &unpacked("items_ins_v2_1000.json.gz")?, None, None)?;
    let (mut same, mut all) = (0, 0);
    for row in lines::<Value>(&data.join("webshop/rewards.jsonl.gz"))? {
        let reward = Purchase::deserialize(&row)?.reward(&catalogue)?;
        same += usize::from(row["info"]["r_type"] == reward.kind);
        all += 1;
    }
    if same * 100 >= all * 96 { Ok(()) } else { Err(format!("{same} of {all}").into()) }
}

pub(crate) fn ratios(data: &Path) -> Result<(), Failed> {
    for (a, b, ratio) in
        lines::<(String, String, u32)>(&data.join("webshop/token_set_ratio.jsonl.gz"))?
    {
        let own = token_set_ratio(&a, &b);
        if own != ratio {
            return Err(format!("{a:?}, {b:?}: {own}, not {ratio}").into());
        }
    }
    Ok(())
}

#[derive(Deserialize)]
struct SeedRecord {
    seed: u32,
    n_goals: usize,
    sha256_instruction_texts: String,
    first: Vec<Value>,
}

pub(crate) fn goals_by_seed(data: &Path) -> Result<(), Failed> {
    for record in lines::<SeedRecord>(&data.join("webshop/goals_by_seed.jsonl.gz"))? {
        let options = WebshopOptions { env_seed: record.seed, ..WebshopOptions::default() };
        let set = set(data, options)?;
        let mut hash = Sha256::new();
        for session in 0..set.goals().len() {
            let goal = set.goals().goal(set.catalogue(), session).ok_or("no goal")?;
            if session > 0 {
                hash.update("\n");
            }
            hash.update(&goal.instruction_text);
        }
        let hash = hash.finalize().iter().fold(String::new(), |mut hex, byte| {
            // Writing to a string does not fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        if hash != record.sha256_instruction_texts || set.goals().len() != record.n_goals {
            return Err(format!("seed {}: other goals", record.seed).into());
        }
        for (session, goal) in record.first.iter().enumerate() {
            includes(&goal_of(&set, session)?, goal)
                .map_err(|e| format!("seed {} goal {session}: {e}", record.seed))?;
        }
    }
    Ok(())
}

pub(crate) fn goals(data: &Path) -> Result<(), Failed> {
    for (file, human_goals) in
        [("goals_seed0_synthetic_small.json.gz", false), ("goals_seed0_human_subset13.json", true)]
    {
        let set = set(data, WebshopOptions { human_goals, ..WebshopOptions::default() })?;
        let recorded: Vec<Value> = json(&data.join("webshop").join(file))?;
        if recorded.len() != set.goals().len() {
            return Err(format!("{file}: {} goals", set.goals().len()).into());
        }
        for (session, goal) in recorded.iter().enumerate() {
            includes(&goal_of(&set, session)?, goal)
                .map_err(|e| format!("{file} {session}: {e}"))?;
        }
    }
    Ok(())
}

#[derive(Deserialize)]
struct Search {
    query: String,
    hits: Vec<(String, f64)>,
}

/// Results in order; scores to the four places of the recording.
pub(crate) fn searches(data: &Path) -> Result<(), Failed> {
    let catalogue = catalogue(data);
    for Search { query, hits } in lines(&data.join("webshop/search.jsonl.gz"))? {
        let own = catalogue.search(&query, 50);
        let same = own.len() == hits.len()
            && own.iter().zip(&hits).all(|((product, score), (asin, recorded))| {
                catalogue.product(*product).asin() == asin
                    && (f64::from(*score) - recorded).abs() < 6e-5
            });
        if !same {
            return Err(format!("{query:?}: {own:?}, recorded {hits:?}").into());
        }
    }
    Ok(())
}

#[derive(Deserialize)]
struct Conversation {
    session: usize,
    env_seed: u32,
    steps: Vec<Turn>,
}

#[derive(Deserialize)]
struct Turn {
    raw: Option<String>,
    /// Null after the end.
    prompt: Option<String>,
    #[serde(default)]
    anchor: Option<String>,
    #[serde(default)]
    reward: f64,
    #[serde(default)]
    done: bool,
    #[serde(default)]
    task_score: f64,
    #[serde(default)]
    won: bool,
    #[serde(default = "one")]
    is_action_valid: u8,
}

fn one() -> u8 {
    1
}

/// verl-agent's observations, action lists, rewards and validity, up to the end of the episode.
pub(crate) fn agent_prompts(data: &Path) -> Result<(), Failed> {
    for Conversation { session, env_seed, steps } in
        lines(&data.join("webshop/agent_prompts.jsonl.gz"))?
    {
        let options = WebshopOptions { env_seed, ..WebshopOptions::default() };
        let set = WebshopSet::new(Arc::clone(catalogue(data)), options, Some(15))?;
        let mut env = set.environment();
        let mut text = env.reset(&format!("webshop/{env_seed}/{session}"), 0)?.text;
        let goal = set.goals().goal(set.catalogue(), session).ok_or("no goal")?.instruction_text;
        for (i, turn) in steps.iter().enumerate() {
            let wrong = |what: String| Failed::from(format!("session {session} step {i}: {what}"));
            if let Some(raw) = &turn.raw {
                let projected = Projection::Webshop.project(raw);
                let transition = env.step(&projected.action)?;
                let bought = transition.end == Some(empg_env::EnvEnd::Terminated);
                let same = u8::from(projected.valid) == turn.is_action_valid
                    && transition.won == turn.won
                    && bought == turn.done
                    && transition.reward == turn.task_score
                    && verl_agent::reward(&transition) == turn.reward;
                if !same {
                    return Err(wrong(format!("{transition:?}")));
                }
                text = transition.observation.text;
            }
            let observation = verl_agent::observation(&text, &goal);
            if turn.anchor.as_ref().is_some_and(|anchor| *anchor != observation) {
                return Err(wrong(observation));
            }
            let Some(prompt) = &turn.prompt else { break };
            let shown = format!("our current observation is: {observation}.\n");
            let actions = verl_agent::actions(&env.available());
            let task = format!("Your task is to: {goal}.\n");
            for part in [shown, format!("[\n{actions}\n]."), task] {
                if !prompt.contains(&part) {
                    return Err(wrong(format!("{part:?} not in {prompt:?}")));
                }
            }
            if !verl_agent::fits(prompt) && prompt.contains("Prior to this step") {
                return Err(wrong("a long prompt keeps its history".to_owned()));
            }
        }
    }
    Ok(())
}
