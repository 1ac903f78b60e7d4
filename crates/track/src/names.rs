//! Names and texts as MLflow takes them.

/// Longest key of a metric, a parameter or a tag.
const LONGEST_KEY: usize = 250;
/// Longest value of a parameter.
const LONGEST_PARAM: usize = 6000;
/// Longest value of a tag.
const LONGEST_TAG: usize = 8000;

/// A key that MLflow takes for metrics, parameters and tags: letters, digits and `_ - . /` and
/// spaces, and a path that leads nowhere else. Everything else becomes `_`.
pub(crate) fn key(name: &str) -> String {
    let fine = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ' ' | '/');
    let name: String = name.chars().map(|c| if fine(c) { c } else { '_' }).collect();
    let parts = name.split('/').map(|part| match part {
        "" | "." | ".." => "_",
        part => part,
    });
    let name = parts.collect::<Vec<_>>().join("/");
    let short: String = name.chars().take(LONGEST_KEY).collect();
    match short.strip_suffix('/') {
        Some(cut) => cut.to_owned(),
        None => short,
    }
}

/// The value of a parameter.
pub(crate) fn param(value: &str) -> String {
    cut(value, LONGEST_PARAM)
}

/// The value of a tag.
pub(crate) fn tag(value: &str) -> String {
    cut(value, LONGEST_TAG)
}

fn cut(value: &str, limit: usize) -> String {
    // Limits are counted in characters, as Python counts them.
    if value.chars().nth(limit).is_none() {
        return value.to_owned();
    }
    let mut short: String = value.chars().take(limit - 1).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_fit() {
        for (name, expected) in [
            ("eval/unseen/success", "eval/unseen/success"),
            ("a b-c.d_e", "a b-c.d_e"),
            ("Erfolg ü", "Erfolg ü"),
            ("p@90:x", "p_90_x"),
            ("a//b", "a/_/b"),
            ("/a/", "_/a/_"),
            ("../a/./b", "_/a/_/b"),
            ("", "_"),
            ("<script>\n", "_script__"),
        ] {
            assert_eq!(key(name), expected);
        }
        assert_eq!(key(&"ü".repeat(300)).chars().count(), LONGEST_KEY);
        let at_the_cut = format!("{}/{}", "a".repeat(LONGEST_KEY - 1), "b".repeat(9));
        assert_eq!(key(&at_the_cut), "a".repeat(LONGEST_KEY - 1));
    }

    #[test]
    fn values_are_cut_where_they_must_be() {
        assert_eq!(param(&"ü".repeat(LONGEST_PARAM)), "ü".repeat(LONGEST_PARAM));
        let cut = param(&"ü".repeat(LONGEST_PARAM + 1));
        assert!(cut.chars().count() == LONGEST_PARAM && cut.ends_with('…'));
        assert_eq!(tag("x"), "x");
    }
}
