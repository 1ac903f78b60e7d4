//! Drawing a token from a row of logits, and what is recorded about it.

use empg::{TokenId, TokenScore};

use crate::ops::head::{RowScore, probabilities, score};

/// The lowest temperature above 0. Below it what cannot be drawn would still weigh in the entropy.
pub const LEAST_TEMPERATURE: f32 = 1e-20;

/// How tokens are drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// T of softmax(z/T). 0 takes the most probable token (evaluation only); its scores are then
    /// those at T = 1.
    pub temperature: f32,
    /// Draw among this many most probable tokens.
    pub top_k: Option<usize>,
    /// Draw among the fewest most probable tokens that together have at least this probability,
    /// of what `top_k` left.
    pub top_p: Option<f32>,
    /// Tokens of a turn at most, the stop token included.
    pub max_tokens: usize,
    /// Tokens that end a turn.
    pub stop: Vec<TokenId>,
}

impl Default for SamplingParams {
    /// T = 1 over the whole vocabulary, 32 tokens a turn, no stop token.
    fn default() -> Self {
        Self { temperature: 1.0, top_k: None, top_p: None, max_tokens: 32, stop: Vec::new() }
    }
}

/// A parameter that makes no sense.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("sampling: {parameter} is {value}; it must be {rule}")]
pub struct SamplingError {
    /// Field of [`SamplingParams`].
    pub parameter: &'static str,
    /// Its value, printed.
    pub value: String,
    /// What it must be.
    pub rule: &'static str,
}

impl SamplingParams {
    /// Checks every field against a vocabulary of `vocab_size` tokens.
    ///
    /// # Errors
    /// The first field that is out of range.
    pub fn validate(&self, vocab_size: usize) -> Result<(), SamplingError> {
        let refuse = |parameter, value: String, rule| Err(SamplingError { parameter, value, rule });
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            let rule = "0 or a positive finite number";
            return refuse("temperature", self.temperature.to_string(), rule);
        }
        if self.temperature > 0.0 && self.temperature < LEAST_TEMPERATURE {
            let rule = "0 (the most probable token) or at least 1e-20";
            return refuse("temperature", self.temperature.to_string(), rule);
        }
        if self.top_k == Some(0) {
            return refuse("top_k", "0".to_owned(), "at least 1");
        }
        if let Some(p) = self.top_p.filter(|p| !(*p > 0.0 && *p <= 1.0)) {
            return refuse("top_p", p.to_string(), "above 0 and at most 1");
        }
        if self.max_tokens == 0 {
            return refuse("max_tokens", "0".to_owned(), "at least 1");
        }
        if let Some(token) = self.stop.iter().find(|t| **t as usize >= vocab_size) {
            return refuse("stop", token.to_string(), "tokens of the vocabulary");
        }
        Ok(())
    }

    /// The temperature that scores are taken at.
    pub fn score_temperature(&self) -> f32 {
        if self.temperature == 0.0 { 1.0 } else { self.temperature }
    }
}

/// A stream of uniform numbers that depends on its seed alone.
#[derive(Clone, Debug)]
pub(crate) struct TurnRng {
    state: u64,
}

impl TurnRng {
    pub(crate) fn new(seed: u64) -> Self {
        // Neighbouring seeds begin far apart.
        Self { state: mix(seed ^ 0x5851_F42D_4C95_7F2D) }
    }

    /// Uniform in [0, 1), 53 bits.
    pub(crate) fn uniform(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        (mix(self.state) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Draws a token from `logits` (V). `None` if the distribution is not finite. `scratch` is reused
/// between calls.
pub(crate) fn sample(
    logits: &[f32],
    params: &SamplingParams,
    rng: &mut TurnRng,
    scratch: &mut Vec<f32>,
) -> Option<(TokenId, TokenScore)> {
    let inv_t = params.score_temperature().recip();
    let row = score(logits, inv_t);
    if !row.is_finite() {
        return None;
    }
    // One draw a token whatever the parameters, so that streams stay aligned.
    let uniform = rng.uniform();
    if params.temperature == 0.0 {
        let mut best = 0;
        for (token, z) in logits.iter().enumerate() {
            if *z > logits[best] {
                best = token;
            }
        }
        return finish(best, logits[best], inv_t, row);
    }
    let narrowed = params.top_k.is_some_and(|k| k < logits.len()) || params.top_p.is_some();
    scratch.clear();
    scratch.extend_from_slice(logits);
    probabilities(scratch, inv_t, row);
    let token =
        if narrowed { draw_narrowed(scratch, params, uniform) } else { draw(scratch, uniform) };
    finish(token, logits[token], inv_t, row)
}

fn finish(token: usize, z: f32, inv_t: f32, row: RowScore) -> Option<(TokenId, TokenScore)> {
    // At most 0; rounding can exceed it by an ulp.
    let logprob = row.logprob(z, inv_t).min(0.0);
    let score = TokenScore { logprob, entropy: row.entropy };
    logprob.is_finite().then_some((token as TokenId, score))
}

/// The token where the cumulative probability passes `uniform` of the total.
fn draw(p: &[f32], uniform: f64) -> usize {
    const RUN: usize = 32;
    let run_sum = |run: &[f32]| f64::from(run.iter().sum::<f32>());
    let total: f64 = p.chunks(RUN).map(run_sum).sum();
    let mut left = uniform * total;
    for (index, run) in p.chunks(RUN).enumerate() {
        let sum = run_sum(run);
        if left >= sum && (index + 1) * RUN < p.len() {
            left -= sum;
            continue;
        }
        let mut best = 0;
        for (offset, &p) in run.iter().enumerate() {
            left -= f64::from(p);
            if p > 0.0 && left < 0.0 {
                return index * RUN + offset;
            }
            if p > run[best] {
                best = offset;
            }
        }
        // Rounding made the sum larger than its terms.
        return index * RUN + best;
    }
    0
}

/// The same among the tokens that top-k and top-p leave.
fn draw_narrowed(p: &[f32], params: &SamplingParams, uniform: f64) -> usize {
    let mut tokens: Vec<usize> = (0..p.len()).collect();
    // Most probable first, the smaller id among equals.
    let order = |a: &usize, b: &usize| p[*b].total_cmp(&p[*a]).then(a.cmp(b));
    if let Some(k) = params.top_k.filter(|k| *k < tokens.len()) {
        tokens.select_nth_unstable_by(k - 1, order);
        tokens.truncate(k);
    }
    tokens.sort_unstable_by(order);
    if let Some(top_p) = params.top_p {
        let total: f64 = tokens.iter().map(|t| f64::from(p[*t])).sum();
        let enough = f64::from(top_p) * total;
        let mut sum = 0.0;
        let keep = tokens.iter().position(|t| {
            sum += f64::from(p[*t]);
            sum >= enough
        });
        tokens.truncate(keep.map_or(tokens.len(), |last| last + 1));
    }
    let kept: Vec<f32> = tokens.iter().map(|t| p[*t]).collect();
    tokens[draw(&kept, uniform)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(params: &SamplingParams, logits: &[f32], draws: u64) -> Vec<u64> {
        let mut counts = vec![0; logits.len()];
        let mut scratch = Vec::new();
        for seed in 0..draws {
            let mut rng = TurnRng::new(seed);
            let (token, _) = sample(logits, params, &mut rng, &mut scratch).expect("finite");
            counts[token as usize] += 1;
        }
        counts
    }

    fn logits() -> Vec<f32> {
        (0..70).map(|i| (i as f32 * 1.7).sin() * 2.0).collect()
    }

    #[test]
    fn frequencies_follow_the_distribution() {
        let logits = logits();
        let params = SamplingParams { temperature: 0.8, ..SamplingParams::default() };
        let n = 40_000;
        let counts = counts(&params, &logits, n);
        let z: f64 = logits.iter().map(|l| f64::from(l / 0.8).exp()).sum();
        for (count, logit) in counts.iter().zip(&logits) {
            let p = f64::from(logit / 0.8).exp() / z;
            let sigma = (p * (1.0 - p) / n as f64).sqrt();
            assert!((*count as f64 / n as f64 - p).abs() < 5.0 * sigma + 1e-4);
        }
    }

    #[test]
    fn scores_are_of_the_full_distribution() {
        let logits = logits();
        let mut scratch = Vec::new();
        for params in [
            SamplingParams { temperature: 0.7, ..SamplingParams::default() },
            SamplingParams { temperature: 0.7, top_k: Some(3), ..SamplingParams::default() },
            SamplingParams { temperature: 0.0, ..SamplingParams::default() },
        ] {
            let t = f64::from(params.score_temperature());
            let (token, found) =
                sample(&logits, &params, &mut TurnRng::new(5), &mut scratch).expect("finite");
            let z: f64 = logits.iter().map(|l| (f64::from(*l) / t).exp()).sum();
            let logp = |l: f32| f64::from(l) / t - z.ln();
            let entropy: f64 = logits.iter().map(|l| -logp(*l).exp() * logp(*l)).sum();
            assert!((f64::from(found.logprob) - logp(logits[token as usize])).abs() < 1e-5);
            assert!((f64::from(found.entropy) - entropy).abs() < 1e-5);
        }
    }

    #[test]
    fn a_temperature_near_zero_takes_the_most_probable_token() {
        let mut logits = logits();
        logits[33] = 25.1;
        let mut scratch = Vec::new();
        for temperature in [1e-3, 1e-6, 1e-8, 1e-9, LEAST_TEMPERATURE] {
            let params = SamplingParams { temperature, ..SamplingParams::default() };
            params.validate(logits.len()).expect("allowed");
            for seed in 0..100 {
                let mut rng = TurnRng::new(seed);
                let (token, score) = sample(&logits, &params, &mut rng, &mut scratch).expect("one");
                let TokenScore { logprob, entropy } = score;
                assert!(
                    token == 33 && logprob == 0.0 && entropy < 1e-12,
                    "{temperature} {score:?}"
                );
            }
            // Two that are equal share the draws.
            let mut two = logits.clone();
            two[50] = 25.1;
            let found = counts(&params, &two, 1000);
            assert!(found[33] > 400 && found[50] > 400 && found[33] + found[50] == 1000);
            let (_, score) =
                sample(&two, &params, &mut TurnRng::new(0), &mut scratch).expect("one");
            assert!((score.logprob + 2.0f32.ln()).abs() < 1e-6, "{temperature} {score:?}");
        }
    }

    #[test]
    fn a_draw_ends_in_the_run_that_it_enters() {
        // In f32 the first run sums to 1, and what is left of a draw close to it would have gone
        // on to the last token.
        let mut p = vec![1e-38_f32; 320];
        (p[0], p[1]) = (1.0 - 2.0_f32.powi(-24), 4.0e-8);
        for uniform in [0.0, 0.5, 1.0 - 1e-9, 1.0 - f64::EPSILON / 2.0] {
            assert!(draw(&p, uniform) < 32, "{uniform}");
        }
    }

    #[test]
    fn greedy_top_k_and_top_p_restrict_the_support() {
        let logits = logits();
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
        let drawn = |params: SamplingParams| -> Vec<usize> {
            let counts = counts(&params, &logits, 4000);
            (0..counts.len()).filter(|i| counts[*i] > 0).collect()
        };
        let sorted = |n: usize| {
            let mut best = order[..n].to_vec();
            best.sort_unstable();
            best
        };
        let base = SamplingParams::default();
        assert_eq!(drawn(SamplingParams { temperature: 0.0, ..base.clone() }), sorted(1));
        assert_eq!(drawn(SamplingParams { top_k: Some(4), ..base.clone() }), sorted(4));
        assert_eq!(drawn(SamplingParams { top_p: Some(1e-6), ..base.clone() }), sorted(1));
        let z: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
        let mut sum = 0.0;
        let needed = 1 + order
            .iter()
            .position(|t| {
                sum += f64::from(logits[*t]).exp() / z;
                sum >= 0.3
            })
            .expect("reaches 0.3");
        assert_eq!(drawn(SamplingParams { top_p: Some(0.3), ..base }), sorted(needed));
    }

    #[test]
    fn refuses_what_makes_no_sense() {
        let base = SamplingParams::default();
        for (params, field) in [
            (SamplingParams { temperature: -1.0, ..base.clone() }, "temperature"),
            (SamplingParams { temperature: 1e-21, ..base.clone() }, "temperature"),
            (SamplingParams { temperature: f32::NAN, ..base.clone() }, "temperature"),
            (SamplingParams { temperature: 1e-45, ..base.clone() }, "temperature"),
            (SamplingParams { top_k: Some(0), ..base.clone() }, "top_k"),
            (SamplingParams { top_p: Some(0.0), ..base.clone() }, "top_p"),
            (SamplingParams { top_p: Some(f32::NAN), ..base.clone() }, "top_p"),
            (SamplingParams { max_tokens: 0, ..base.clone() }, "max_tokens"),
            (SamplingParams { stop: vec![9], ..base.clone() }, "stop"),
        ] {
            assert_eq!(params.validate(9).expect_err("refused").parameter, field);
        }
        assert!(base.validate(9).is_ok());
        let mut scratch = Vec::new();
        assert!(sample(&[f32::NAN, 0.0], &base, &mut TurnRng::new(0), &mut scratch).is_none());
    }
}
