//! Reading one line: its trajectory, or what is wrong with it.

use std::ops::Range;

use empg::StepMean;

use super::fields::fields;
use super::number::{number, numbers};
use super::table::{Given, Row, StepSeen};

/// A line that cannot be read: the field, if one is to blame, and why.
pub(super) struct Fault {
    pub(super) field: &'static str,
    pub(super) why: String,
}

pub(super) fn fault<T>(field: &'static str, why: impl Into<String>) -> Result<T, Fault> {
    Err(Fault { field, why: why.into() })
}

/// One line, read.
pub(super) struct Parsed<'a> {
    pub(super) group: &'a [u8],
    pub(super) row: Row,
    pub(super) steps: Vec<StepSeen>,
}

pub(super) fn parse(line: &[u8]) -> Result<Parsed<'_>, Fault> {
    let fields = fields(line)?;
    let Some(entropy) = fields.entropy else { return fault("entropy", "missing") };
    let (spans, masked) = match (fields.steps, fields.mask) {
        (Some(steps), _) => (given_spans(steps)?, None),
        (None, Some(mask)) => mask_spans(mask).map(|(spans, count)| (spans, Some(count)))?,
        (None, None) => return fault("mask", "missing, and there are no \"steps\" either"),
    };

    let mut steps: Vec<StepSeen> = Vec::with_capacity(spans.len());
    let (mut current, mut mean, mut bad) = (0, StepMean::default(), None);
    let tokens = numbers("entropy", entropy, |token, value, text| {
        let Some(span) = spans.get(current).filter(|span| token >= span.start) else { return };
        if !value.is_finite() && bad.is_none() {
            bad = Some((current, token, String::from_utf8_lossy(text).into_owned()));
        }
        if token == span.start {
            mean = StepMean::default();
        }
        mean.push(value);
        if token + 1 == span.end {
            steps.push(StepSeen {
                start: span.start as u32,
                end: span.end as u32,
                entropy: mean.mean(),
                base: 0.0,
            });
            current += 1;
        }
    })?;
    if let Some((step, token, text)) = bad {
        return fault("entropy", format!("step {step}, token {token}: {text} is not finite"));
    }
    if let Some(overflow) = steps.iter().position(|step| !step.entropy.is_finite()) {
        return fault("entropy", format!("step {overflow}: the mean is not finite"));
    }
    let count = |field, got: usize| {
        if got == tokens {
            return Ok(());
        }
        fault(field, format!("{got} entries, but \"entropy\" has {tokens}"))
    };
    if let Some(masked) = masked {
        count("mask", masked)?;
    }
    if let Some(last) = spans.last().filter(|last| last.end > tokens) {
        let why =
            format!("step {} ends at {}, but there are {tokens} tokens", spans.len() - 1, last.end);
        return fault("steps", why);
    }
    let given = match fields.advantage {
        None => Given::None,
        Some(array) if array.starts_with(b"[") => {
            let (mut current, mut bad) = (0, None);
            let got = numbers("advantage", array, |token, value, _| {
                let Some(span) = spans.get(current).filter(|span| token >= span.start) else {
                    return;
                };
                if token == span.start
                    && let Some(step) = steps.get_mut(current)
                {
                    step.base = value;
                }
                if !value.is_finite() {
                    bad.get_or_insert((current, token));
                }
                if token + 1 == span.end {
                    current += 1;
                }
            })?;
            if let Some((step, token)) = bad {
                return fault("advantage", format!("step {step}, token {token}: not finite"));
            }
            count("advantage", got)?;
            Given::Tokens
        }
        Some(value) => match number(value).filter(|value| value.is_finite()) {
            Some(value) => Given::Row(value),
            None => return fault("advantage", "expected a finite number or an array of numbers"),
        },
    };
    let reward = match fields.reward {
        None => None,
        Some(value) => match number(value).filter(|value| value.is_finite()) {
            None => return fault("reward", "expected a finite number"),
            some => some,
        },
    };
    let Ok(tokens) = u32::try_from(tokens) else { return fault("entropy", "too many tokens") };
    let stale = !fields.stale.is_empty();
    let row = Row { line: 0, group: 0, tokens, first_step: 0, reward, given, stale, base: 0.0 };
    Ok(Parsed { group: fields.group.unwrap_or_default(), row, steps })
}

/// Explicit steps: in order, none empty.
fn given_spans(steps: &[u8]) -> Result<Vec<Range<usize>>, Fault> {
    let Ok(pairs) = serde_json::from_slice::<Vec<[u32; 2]>>(steps) else {
        return fault("steps", "expected [[start, end], …] in whole numbers");
    };
    let mut spans: Vec<Range<usize>> = Vec::with_capacity(pairs.len());
    for (step, [start, end]) in pairs.into_iter().enumerate() {
        if start >= end {
            return fault("steps", format!("step {step}: the range [{start}, {end}] is empty"));
        }
        let span = start as usize..end as usize;
        if spans.last().is_some_and(|last| last.end > span.start) {
            return fault("steps", format!("step {step} starts at {start}, inside the one before"));
        }
        spans.push(span);
    }
    Ok(spans)
}

/// Runs of 1 (or true) of a mask, and its length.
fn mask_spans(mask: &[u8]) -> Result<(Vec<Range<usize>>, usize), Fault> {
    let [b'[', inner @ .., b']'] = mask else {
        return fault("mask", "expected an array of 0 and 1");
    };
    let (mut spans, mut open, mut count, mut at) = (Vec::new(), None, 0, 0);
    let skip_blanks = |mut at: usize| {
        while inner.get(at).is_some_and(u8::is_ascii_whitespace) {
            at += 1;
        }
        at
    };
    at = skip_blanks(at);
    while at < inner.len() {
        let (sampled, length) = match &inner[at..] {
            [b'0', ..] => (false, 1),
            [b'1', ..] => (true, 1),
            [b't', b'r', b'u', b'e', ..] => (true, 4),
            [b'f', b'a', b'l', b's', b'e', ..] => (false, 5),
            _ => return fault("mask", format!("token {count}: expected 0 or 1")),
        };
        match (open, sampled) {
            (None, true) => open = Some(count),
            (Some(start), false) => {
                spans.push(start..count);
                open = None;
            }
            _ => {}
        }
        count += 1;
        at = skip_blanks(at + length);
        match inner.get(at) {
            None => break,
            Some(b',') => at = skip_blanks(at + 1),
            Some(_) => return fault("mask", format!("token {}: expected 0 or 1", count - 1)),
        }
        if at == inner.len() {
            return fault("mask", "a value is missing after the last comma");
        }
    }
    spans.extend(open.map(|start| start..count));
    Ok((spans, count))
}
