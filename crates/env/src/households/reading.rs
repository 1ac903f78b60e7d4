//! Reads what the environment prints: the intro, and what one command led to.

use crate::alfworld::TaskKind;

/// The task, as the intro's last line says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Goal {
    pub(crate) kind: TaskKind,
    /// Display class of the object.
    pub(crate) object: String,
    /// Display class of the target receptacle, or of the lamp.
    pub(crate) target: String,
}

/// What a receptacle looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum View<'a> {
    /// "The drawer 1 is closed."
    Closed(&'a str),
    /// "The drawer 1 is open. In it, you see …"
    Open(&'a str, Vec<&'a str>),
    /// "On the desk 1, you see …"
    Surface(&'a str, Vec<&'a str>),
}

/// What one observation tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// The command did nothing.
    Nothing,
    /// The agent arrived; data version 2.1.1 names a location, later ones the receptacle.
    Arrived { names_location: bool, view: Option<View<'a>> },
    /// Opened a receptacle.
    Opened(Option<View<'a>>),
    /// Closed a receptacle.
    Closed(&'a str),
    /// Examined a receptacle.
    Seen(View<'a>),
    /// Took an object from a receptacle.
    Took(&'a str, &'a str),
    /// Put an object into a receptacle; true in the wording of data version 2.1.1.
    Put(&'a str, &'a str, bool),
    /// Cleaned, heated or cooled ("clean", "heat", "cool") an object.
    Changed(&'a str, &'a str),
    /// Switched something on.
    Switched(&'a str),
    /// What the agent carries.
    Carrying(Option<&'a str>),
    /// Receptacles at the place where the agent stands.
    Facing(Vec<&'a str>),
    /// Something else.
    Other,
}

/// The names of a list such as "a mug 1, a cup 2, and a pen 1"; empty for "nothing".
pub(crate) fn names(list: &str) -> Vec<&str> {
    list.trim_end_matches('.')
        .split(", ")
        .map(|item| item.strip_prefix("and ").unwrap_or(item))
        .filter_map(|item| item.strip_prefix("a "))
        .collect()
}

/// A text without any of these beginnings, taken off in turn.
fn strip<'a>(text: &'a str, beginnings: &[&str]) -> &'a str {
    beginnings.iter().fold(text, |text, beginning| text.strip_prefix(beginning).unwrap_or(text))
}

/// The receptacles of the intro, in its order, and the task.
pub(crate) fn intro(text: &str) -> Option<(Vec<&str>, Option<Goal>)> {
    let (before, task) = text.split_once("Your task is to: ")?;
    let (_, list) = before.rsplit_once("you see ")?;
    Some((names(list.trim()), goal(task)))
}

fn goal(task: &str) -> Option<Goal> {
    let words: Vec<&str> = task.trim().trim_end_matches('.').split_whitespace().collect();
    let (kind, object, target) = match words.as_slice() {
        ["look", "at", object, "under", "the", target]
        | ["examine", "the", object, "with", "the", target] => {
            (TaskKind::LookAtObjInLight, object, target)
        }
        ["put", "two", object, "in", target]
        | ["find", "two", object, "and", "put", "them", "in", target] => {
            (TaskKind::PickTwoObjAndPlace, object, target)
        }
        ["put", "a", "clean", object, "in", target]
        | ["clean", "some", object, "and", "put", "it", "in", target] => {
            (TaskKind::PickCleanThenPlaceInRecep, object, target)
        }
        ["put", "a", "hot", object, "in", target]
        | ["heat", "some", object, "and", "put", "it", "in", target] => {
            (TaskKind::PickHeatThenPlaceInRecep, object, target)
        }
        ["put", "a", "cool", object, "in", target]
        | ["cool", "some", object, "and", "put", "it", "in", target] => {
            (TaskKind::PickCoolThenPlaceInRecep, object, target)
        }
        ["put", "a", object, "in", target] | ["put", "some", object, "on", target] => {
            (TaskKind::PickAndPlaceSimple, object, target)
        }
        _ => return None,
    };
    Some(Goal { kind, object: (*object).to_string(), target: (*target).to_string() })
}

fn view(text: &str) -> Option<View<'_>> {
    if let Some(rest) = text.strip_prefix("The ") {
        if let Some(name) = rest.strip_suffix(" is closed.") {
            return Some(View::Closed(name));
        }
        let (name, list) = rest.split_once(" is open. In it, you see ")?;
        return Some(View::Open(name, names(list)));
    }
    let (name, list) = text.strip_prefix("On the ")?.split_once(", you see ")?;
    Some(View::Surface(name, names(list)))
}

/// What an observation tells.
pub(crate) fn event(text: &str) -> Event<'_> {
    let text = text.trim();
    if text == "Nothing happens." {
        return Event::Nothing;
    }
    if let Some(seen) = view(text) {
        return Event::Seen(seen);
    }
    read(text).unwrap_or(Event::Other)
}

fn read(text: &str) -> Option<Event<'_>> {
    if let Some(rest) = text.strip_prefix("You arrive at ") {
        let (at, seen) = rest.split_once(". ")?;
        return Some(Event::Arrived { names_location: at.starts_with("loc "), view: view(seen) });
    }
    if let Some(rest) = text.strip_prefix("You open the ") {
        return Some(Event::Opened(rest.split_once(". ").and_then(|(_, seen)| view(seen))));
    }
    if let Some(rest) = text.strip_prefix("You close the ") {
        return Some(Event::Closed(rest.trim_end_matches('.')));
    }
    if let Some(rest) = text.strip_prefix("You pick up the ") {
        let (object, place) = rest.split_once(" from the ")?;
        return Some(Event::Took(object, place.trim_end_matches('.')));
    }
    if let Some(rest) = text.strip_prefix("You put the ") {
        let (object, place) = rest.split_once(" in/on the ")?;
        return Some(Event::Put(object, place.trim_end_matches('.'), true));
    }
    if let Some(rest) = text.strip_prefix("You move the ") {
        let (object, place) = rest.split_once(" to the ")?;
        return Some(Event::Put(object, place.trim_end_matches('.'), false));
    }
    for verb in ["clean", "heat", "cool"] {
        if let Some(rest) = text.strip_prefix("You ").and_then(|t| t.strip_prefix(verb))
            && let Some(rest) = rest.strip_prefix(" the ")
        {
            return Some(Event::Changed(verb, rest.split_once(" using the ")?.0));
        }
    }
    if let Some(rest) = text.strip_prefix("You turn on the ") {
        return Some(Event::Switched(rest.trim_end_matches('.')));
    }
    if let Some(rest) = text.strip_prefix("You are carrying: a ") {
        return Some(Event::Carrying(Some(rest.trim_end_matches('.'))));
    }
    if text == "You are not carrying anything." {
        return Some(Event::Carrying(None));
    }
    if let Some(rest) = text.strip_prefix("You are facing ") {
        let (list, _) = rest.split_once(". Next to it")?;
        // Here only the first name has an article.
        let bare = |name| strip(name, &["and ", "the "]);
        return Some(Event::Facing(list.split(", ").map(bare).collect()));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_intro() {
        let text = "-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of a room. Looking quickly \
                    around you, you see a bed 1, a desk 2, and a desk 1.\n\nYour task is to: put a hot mug in desk.";
        let (places, goal) = intro(text).unwrap();
        assert_eq!(places, ["bed 1", "desk 2", "desk 1"]);
        assert_eq!(
            goal,
            Some(Goal {
                kind: TaskKind::PickHeatThenPlaceInRecep,
                object: "mug".into(),
                target: "desk".into()
            })
        );
    }

    #[test]
    fn reads_observations_of_both_data_versions() {
        assert_eq!(
            event("You arrive at loc 12. On the desk 1, you see a pen 1, and a cd 2."),
            Event::Arrived {
                names_location: true,
                view: Some(View::Surface("desk 1", vec!["pen 1", "cd 2"]))
            }
        );
        assert_eq!(
            event("You arrive at safe 1. The safe 1 is closed."),
            Event::Arrived { names_location: false, view: Some(View::Closed("safe 1")) }
        );
        assert_eq!(
            event("You open the safe 1. The safe 1 is open. In it, you see nothing."),
            Event::Opened(Some(View::Open("safe 1", vec![])))
        );
        assert_eq!(
            event("You put the pen 1 in/on the desk 1."),
            Event::Put("pen 1", "desk 1", true)
        );
        assert_eq!(
            event("You move the pen 1 to the desk 1."),
            Event::Put("pen 1", "desk 1", false)
        );
        assert_eq!(
            event("You heat the mug 1 using the microwave 1."),
            Event::Changed("heat", "mug 1")
        );
        assert_eq!(
            event("You are facing the desk 1, and shelf 2. Next to it, you see nothing."),
            Event::Facing(vec!["desk 1", "shelf 2"])
        );
        assert_eq!(event("This is a hot mug 1."), Event::Other);
    }
}
