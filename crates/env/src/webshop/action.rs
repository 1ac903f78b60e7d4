//! Reading an action.

/// An action, read as the original reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// `search[…]`, in lower case.
    Search(String),
    /// `click[…]`, in lower case.
    Click(String),
    /// Anything else.
    Other,
}

impl Action {
    /// Reads `name[argument]`: the name ends at the last bracket that leaves room for an argument,
    /// the argument at the line's last closing bracket. What follows does not count.
    pub fn parse(text: &str) -> Self {
        match split(text) {
            Some(("search", argument)) => Self::Search(argument.to_lowercase()),
            Some(("click", argument)) => Self::Click(argument.to_lowercase()),
            _ => Self::Other,
        }
    }
}

/// `(.+)\[(.+)\]` from the start, each part as long as it can be, neither across lines.
fn split(text: &str) -> Option<(&str, &str)> {
    let line = text.split('\n').next()?;
    let close = line.rfind(']')?;
    // At least one byte, so one character, between the brackets.
    let before = &line.as_bytes()[..close.saturating_sub(1)];
    let open = before.iter().rposition(|&b| b == b'[')?;
    (open > 0).then(|| (&line[..open], &line[open + 1..close]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_brackets_greedily() {
        for (text, expected) in [
            ("search[Red Shoes]", Some(("search", "Red Shoes"))),
            ("search[red [blue]]", Some(("search[red ", "blue]"))),
            ("search[red [x] y]", Some(("search[red ", "x] y"))),
            ("search[]", None),
            ("search[]]", Some(("search", "]"))),
            ("search[[]", Some(("search", "["))),
            ("search[a[]", Some(("search", "a["))),
            ("[x]", None),
            ("[[x]", Some(("[", "x"))),
            ("click[x] and more", Some(("click", "x"))),
            ("click[x\ny]", None),
            ("\nclick[x]", None),
            ("click", None),
            ("click[é]", Some(("click", "é"))),
            ("clické]", None),
            ("", None),
            ("]", None),
            ("[", None),
        ] {
            assert_eq!(split(text), expected, "{text:?}");
        }
    }
}
