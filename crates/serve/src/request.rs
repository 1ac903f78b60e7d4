//! What a client may ask.

use serde::Deserialize;

use crate::retrieval::Limits;

/// The body of a request, in either form. Other fields are ignored, as the original servers do.
#[derive(Deserialize)]
struct Body {
    /// Search-R1.
    queries: Option<Vec<String>>,
    /// verl-agent.
    query: Option<String>,
    topk: Option<u64>,
    return_scores: Option<bool>,
}

/// What to search.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) queries: Vec<String>,
    pub(crate) topk: usize,
    pub(crate) scores: bool,
}

impl Request {
    /// Reads a body.
    ///
    /// # Errors
    /// In words: no JSON, not one of the two forms, more than the limits allow.
    pub(crate) fn read(body: &[u8], limits: &Limits) -> Result<Self, String> {
        let body: Body = serde_json::from_slice(body).map_err(|e| {
            format!("the body cannot be read: {e}; expected {{\"queries\": [\"...\"], \"topk\": 3, \"return_scores\": true}}")
        })?;
        let queries = match (body.queries, body.query) {
            (Some(queries), None) => queries,
            (None, Some(query)) => vec![query],
            (None, None) => {
                return Err(
                    "neither \"queries\" (a list of texts) nor \"query\" (a text) is given".into(),
                );
            }
            (Some(_), Some(_)) => {
                return Err("both \"queries\" and \"query\" are given: give one of them".into());
            }
        };
        let topk = body.topk.unwrap_or(limits.default_topk as u64);
        if topk == 0 || topk > limits.topk as u64 {
            return Err(format!("\"topk\" is {topk}: must be in 1..={}", limits.topk));
        }
        let topk = topk as usize;
        if queries.len().saturating_mul(topk) > limits.passages {
            return Err(format!(
                "{} queries with {topk} passages each are more than the {} passages of one answer: \
                 split the request",
                queries.len(),
                limits.passages
            ));
        }
        Ok(Self { queries, topk, scores: body.return_scores.unwrap_or(false) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Request, String> {
        Request::read(body.as_bytes(), &Limits::default())
    }

    #[test]
    fn both_forms() {
        let many = read(r#"{"queries": ["a", "b"], "topk": 5, "return_scores": true}"#).unwrap();
        assert_eq!(many, Request { queries: vec!["a".into(), "b".into()], topk: 5, scores: true });
        let one = read(r#"{"query": "a", "topk": null, "more": {}}"#).unwrap();
        assert_eq!(one, Request { queries: vec!["a".into()], topk: 3, scores: false });
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (body, part) in [
            ("", "cannot be read"),
            ("{", "cannot be read"),
            ("[]", "cannot be read"),
            (r#"{"queries": "a"}"#, "expected a sequence"),
            (r#"{"queries": [1]}"#, "expected a string"),
            (r#"{"topk": 3}"#, "neither"),
            (r#"{"query": "a", "queries": []}"#, "both"),
            (r#"{"query": "a", "topk": 0}"#, "1..="),
            (r#"{"query": "a", "topk": -1}"#, "invalid value"),
            (r#"{"query": "a", "topk": 99999999999}"#, "1..="),
            (r#"{"query": "\ud800"}"#, "cannot be read"),
        ] {
            let error = read(body).unwrap_err();
            assert!(error.contains(part), "{body}: {error}");
        }
        let many = format!(r#"{{"queries": [{}"a"], "topk": 1000}}"#, "\"a\",".repeat(100_000));
        assert!(read(&many).unwrap_err().contains("split the request"));
    }
}
