//! The live view of a run: two lines that update where stderr is a terminal, plain lines elsewhere.

use std::collections::VecDeque;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use empg_train::{Observer, Progress, StepReport};
use indicatif::{ProgressBar, ProgressStyle};

use crate::table;

/// Steps over which success and speed are averaged.
const WINDOW: usize = 5;
/// Steps that the sparkline shows.
const SPARK: usize = 24;

/// Watches a run and shows it on stderr.
#[derive(Debug)]
pub(crate) struct Live {
    bar: Option<ProgressBar>,
    success: VecDeque<f64>,
    seconds: VecDeque<f64>,
    last: Instant,
    evaluation: Option<f64>,
    steps: u64,
    every: u64,
}

impl Live {
    /// A view of a run of `steps` steps, `done` of which are done, that evaluates `every` so many
    /// steps.
    pub(crate) fn new(done: u64, steps: u64, every: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(steps).with_style(style(WAITING));
            bar.set_position(done);
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self {
            bar,
            success: VecDeque::new(),
            seconds: VecDeque::new(),
            last: Instant::now(),
            evaluation: None,
            steps,
            every,
        }
    }

    /// The bar, for who else writes to stderr meanwhile.
    pub(crate) fn bar(&self) -> Option<ProgressBar> {
        self.bar.clone()
    }

    /// Takes the view off the screen.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn say(&self, line: &str) {
        if let Some(bar) = &self.bar {
            bar.println(line);
        } else {
            crate::say!("{line}");
        }
    }

    fn step(&mut self, report: &StepReport, steps: u64) {
        let elapsed = self.last.elapsed().as_secs_f64();
        self.last = Instant::now();
        push(&mut self.success, report.success(), SPARK);
        // A step with an evaluation in it says nothing about the next one.
        if report.evaluations.is_empty() || self.seconds.is_empty() {
            push(&mut self.seconds, elapsed - report.timings.evaluate, WINDOW);
        }
        if let Some(why) = &report.played.failure {
            let (failed, episodes) = (report.played.failed, report.played.episodes);
            self.say(&format!("warning: {failed} of {episodes} episodes failed; the first: {why}"));
        }
        let left = self.left(report.step, steps);
        let numbers = Numbers::of(report);
        if let Some(bar) = &self.bar {
            bar.set_style(style(RUNNING));
            bar.set_position(report.step);
            bar.set_prefix(left);
            bar.set_message(numbers.line(&format!(" {}", sparkline(&self.success))));
        } else {
            crate::say!("step {}/{steps}  {}  {left}", report.step, numbers.line(""));
        }
    }

    fn left(&self, step: u64, steps: u64) -> String {
        let remaining = steps.saturating_sub(step);
        let evaluations = match self.every {
            0 => u64::from(remaining > 0),
            every => {
                steps / every - step / every
                    + u64::from(remaining > 0 && !steps.is_multiple_of(every))
            }
        };
        let seconds = remaining as f64 * mean(self.seconds.iter())
            + evaluations as f64 * self.evaluation.unwrap_or(0.0);
        format!("{} left", duration(seconds))
    }
}

impl Observer for Live {
    fn on(&mut self, progress: Progress<'_>) {
        match progress {
            Progress::Evaluating { step, episodes } => {
                let what = match step {
                    0 => "before training".to_owned(),
                    last if last == self.steps => "after training".to_owned(),
                    step => format!("after step {step}"),
                };
                let text = format!("playing {episodes} evaluation episodes ({what})");
                match &self.bar {
                    Some(bar) if step == 0 => bar.set_message(text),
                    Some(bar) => bar.set_prefix("evaluating"),
                    None => crate::say!("{text}"),
                }
                self.evaluation = None;
                if step == 0 {
                    self.last = Instant::now();
                }
            }
            Progress::Evaluated { step, evaluations } => {
                for evaluation in evaluations {
                    let when = match step {
                        0 => "before".to_owned(),
                        last if last == self.steps => "after".to_owned(),
                        step => format!("step {step}"),
                    };
                    self.say(&format!("{when}: {}", table::sentence(evaluation)));
                    if let Some(why) = &evaluation.failure {
                        let failed = evaluation.failed;
                        self.say(&format!("warning: {failed} episodes failed; the first: {why}"));
                    }
                }
                if step == 0 {
                    self.evaluation = Some(self.last.elapsed().as_secs_f64());
                    self.last = Instant::now();
                    if let Some(bar) = &self.bar {
                        bar.set_message("playing the first batch");
                    }
                }
            }
            Progress::Step { report, steps } => {
                if report.timings.evaluate > 0.0 && !report.evaluations.is_empty() {
                    self.evaluation = Some(report.timings.evaluate);
                }
                self.step(report, steps);
            }
            _ => {}
        }
    }
}

/// A spinner for something of unknown length, on terminals only.
pub(crate) fn spinner(text: String) -> Option<ProgressBar> {
    if !std::io::stderr().is_terminal() {
        crate::say!("{text}");
        return None;
    }
    let bar = ProgressBar::new_spinner().with_style(style(WAITING)).with_message(text);
    bar.enable_steady_tick(Duration::from_millis(120));
    Some(bar)
}

/// A bar of `steps` steps with a message, on terminals only.
pub(crate) fn steps_bar(steps: u64) -> Option<ProgressBar> {
    std::io::stderr().is_terminal().then(|| {
        let bar = ProgressBar::new(steps).with_style(style(RUNNING));
        bar.enable_steady_tick(Duration::from_millis(120));
        bar
    })
}

const WAITING: &str = "{spinner} {msg} {elapsed}";
const RUNNING: &str = "{spinner} {pos}/{len} {bar:40.cyan/dim} {prefix}\n  {msg}";

fn style(template: &str) -> ProgressStyle {
    // A template that indicatif refuses would cost the colours only.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸─")
}

/// What a step's line shows.
struct Numbers {
    success: f64,
    reward: f64,
    entropy: Option<f64>,
    /// `None` where nothing was learned.
    kl: Option<f64>,
    speed: f64,
}

impl Numbers {
    fn of(report: &StepReport) -> Self {
        let episodes = report.played.episodes.max(1) as f64;
        Self {
            success: report.success(),
            reward: report.played.reward / episodes,
            entropy: report.credit.as_ref().map(|c| c.entropy_mean),
            kl: (report.updates > 0).then_some(report.kl_reference),
            speed: report.timings.tokens_per_s,
        }
    }

    fn line(&self, spark: &str) -> String {
        let entropy = self.entropy.map_or("-".to_owned(), |h| format!("{h:.3}"));
        let kl = self.kl.map_or("-".to_owned(), |kl| format!("{kl:.4}"));
        format!(
            "success {:>3.0} %{spark}  return {:.2}  entropy {entropy}  KL {kl}  {} tok/s",
            self.success * 100.0,
            self.reward,
            thousands(self.speed),
        )
    }
}

fn push(window: &mut VecDeque<f64>, value: f64, most: usize) {
    if window.len() == most {
        window.pop_front();
    }
    window.push_back(value);
}

fn mean<'a>(values: impl Iterator<Item = &'a f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0usize), |(sum, n), v| (sum + v, n + 1));
    if n == 0 { 0.0 } else { sum / n as f64 }
}

/// Shares of 1 as a row of blocks, from nothing to all.
fn sparkline(values: &VecDeque<f64>) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    values.iter().map(|v| BLOCKS[((v * 8.0) as usize).min(7)]).collect()
}

/// `9,120`.
fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.max(0.0));
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `45 s`, `2 min 10 s`, `1 h 05 min`.
pub(crate) fn duration(seconds: f64) -> String {
    let s = seconds.max(0.0).round() as u64;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {:02} s", s / 60, s % 60),
        _ => format!("{} h {:02} min", s / 3600, s / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(thousands(1_234_567.4), "1,234,567");
        assert_eq!(thousands(999.0), "999");
        assert_eq!(duration(59.4), "59 s");
        assert_eq!(duration(130.0), "2 min 10 s");
        assert_eq!(duration(3900.0), "1 h 05 min");
        assert_eq!(sparkline(&VecDeque::from([0.0, 0.5, 1.0])), "▁▅█");
    }

    #[test]
    fn a_step_that_learned_nothing_has_no_kl() {
        let line = Numbers::of(&StepReport::default()).line("");
        assert_eq!(line, "success   0 %  return 0.00  entropy -  KL -  0 tok/s");
        let learned = StepReport { updates: 1, kl_reference: 0.25, ..StepReport::default() };
        assert!(Numbers::of(&learned).line("").contains("KL 0.2500"));
    }
}
