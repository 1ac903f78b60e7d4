//! A list of commands in one piece of text.

/// Commands in order, kept as one text: hundreds of environments list theirs at every step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandList {
    text: String,
    ends: Vec<usize>,
}

impl CommandList {
    /// An empty list with room for so many commands and bytes.
    pub fn with_capacity(commands: usize, bytes: usize) -> Self {
        Self { text: String::with_capacity(bytes), ends: Vec::with_capacity(commands) }
    }

    /// Appends a command in parts.
    pub fn push(&mut self, parts: &[&str]) {
        for part in parts {
            self.text.push_str(part);
        }
        self.ends.push(self.text.len());
    }

    /// How many commands there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The command at an index.
    pub fn get(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)?;
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before).copied());
        self.text.get(start.unwrap_or(0)..end)
    }

    /// The commands in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &str> + ExactSizeIterator {
        (0..self.len()).map(|index| self.get(index).unwrap_or_default())
    }
}

impl<S: AsRef<str>> FromIterator<S> for CommandList {
    fn from_iter<I: IntoIterator<Item = S>>(commands: I) -> Self {
        let mut list = Self::default();
        for command in commands {
            list.push(&[command.as_ref()]);
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_back_what_was_pushed() {
        let commands = ["look", "", "öffne ☃", "go to shelf 1"];
        let mut list: CommandList = commands.iter().collect();
        list.push(&["put ", "a", " in b"]);
        assert_eq!(list.iter().collect::<Vec<_>>()[..4], commands);
        assert_eq!((list.len(), list.get(4), list.get(5)), (5, Some("put a in b"), None));
        assert_eq!(list.iter().next_back(), Some("put a in b"));
        assert!(CommandList::with_capacity(3, 9).is_empty());
    }
}
