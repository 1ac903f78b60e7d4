//! A command line as words.

/// Splits at blanks; quotes keep what is between them together, a backslash takes the next character
/// as it is (between single quotes, it is a character like others). There are no variables.
///
/// # Errors
/// In words: nothing, a quote that does not end.
pub(super) fn words(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('\\', None | Some('"')) => {
                let next = characters.next().ok_or("it ends with a backslash")?;
                word.get_or_insert_default().push(next);
            }
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    if let Some(open) = quote {
        return Err(format!("a quote ({open}) does not end"));
    }
    words.extend(word);
    if words.iter().any(|w| w.contains('\0')) {
        return Err("it contains a NUL character".to_owned());
    }
    if words.first().is_none_or(String::is_empty) {
        Err("it is empty".to_owned())
    } else {
        Ok(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_blanks() {
        for (line, expected) in [
            ("python env.py", vec!["python", "env.py"]),
            ("  a\t b ", vec!["a", "b"]),
            (
                r#"sh -c 'exec "$0"' "two words" a\ b"#,
                vec!["sh", "-c", "exec \"$0\"", "two words", "a b"],
            ),
            (r#"a"b"c '' "\"" '\'"#, vec!["abc", "", "\"", "\\"]),
        ] {
            assert_eq!(words(line).unwrap(), expected, "{line}");
        }
        for (line, part) in [
            ("", "empty"),
            ("  ", "empty"),
            ("''", "empty"),
            ("a 'b", "quote"),
            ("a\\", "backslash"),
        ] {
            let error = words(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
