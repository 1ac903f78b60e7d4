//! Why the observing expert does what it does next, in a few words: what a policy that thinks before
//! it acts can imitate.

use super::belief::class_of;
use super::expert::Expert;
use super::kind::transform;
use crate::alfworld::TaskKind;

impl Expert {
    /// One or two short sentences about [`Self::next_action`]: what is sought, held or missing. Built
    /// from observations only. Asking changes nothing.
    pub fn thought(&self) -> String {
        let action = self.next_action();
        let Some(goal) = self.belief.goal.as_ref().filter(|_| !self.lost()) else {
            return "I look around.".to_owned();
        };
        let (verb, rest) = action.split_once(' ').unwrap_or((action.as_str(), ""));
        let wanted = goal.object.as_str();
        let held = self.belief.holding.as_deref();
        match (verb, held) {
            ("go", Some(held)) => self.errand(held, rest.trim_start_matches("to ")),
            ("go", None) => {
                let name = rest.trim_start_matches("to ");
                let Some(place) = self.belief.find(name) else {
                    return format!("I go on to {name}.");
                };
                let place = &self.belief.places[place];
                let known = |class: &str| {
                    place.things.iter().find(|thing| class_of(thing) == class).cloned()
                };
                match known(wanted).or_else(|| known(&goal.target)) {
                    Some(thing) => format!("I saw the {thing} at {name}."),
                    None if place.searched => format!("I look at {name} once more."),
                    None => format!("I need a {wanted}. I have not looked at {name} yet."),
                }
            }
            ("open", _) => format!("The {rest} is closed."),
            ("take", _) => {
                let thing = rest.split_once(" from ").map_or(rest, |(thing, _)| thing);
                format!("I need a {wanted}, and the {thing} is here.")
            }
            ("clean" | "heat" | "cool", Some(held)) => {
                let state = match verb {
                    "clean" => "clean",
                    "heat" => "hot",
                    _ => "cool",
                };
                format!("The {held} must be {state}.")
            }
            ("move" | "put", Some(held)) if class_of(held) == wanted => {
                format!("The {held} belongs here.")
            }
            ("move" | "put", Some(held)) => format!("I do not need the {held}."),
            ("use", _) => format!("The {} is here.", goal.target),
            ("examine", _) => format!("I need a {wanted}. I look closer."),
            _ => "I look around.".to_owned(),
        }
    }

    /// Why what is held is carried to a place.
    fn errand(&self, held: &str, name: &str) -> String {
        let Some(goal) = self.belief.goal.as_ref() else { return format!("I go on to {name}.") };
        let class = class_of(name);
        if class_of(held) != goal.object {
            return format!("I do not need the {held}.");
        }
        match transform(goal.kind) {
            Some((verb, tool)) if tool == class && !self.belief.is(held, verb) => {
                format!("I have the {held}. I {verb} it at {name}.")
            }
            _ if goal.kind == TaskKind::LookAtObjInLight => {
                format!("I have the {held}. I need the {}.", goal.target)
            }
            _ if class == goal.target => format!("I have the {held}. It belongs in {name}."),
            _ => format!("I have the {held}. I go on to {name}."),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Manner, Showing, Split, TaskSet};

    #[test]
    fn thoughts_name_what_the_next_command_is_about() {
        let set = crate::households::HouseholdSet::default();
        let showing =
            Showing { manner: Manner::Clean, noise: 0.0, max_turns: 40, admissible: true };
        let mut turns = 0;
        for index in 0..24 {
            let task = set.task(Split::Train, index).unwrap();
            let shown = set.demonstrate(&task.id, index, &showing).unwrap().unwrap();
            assert!(shown.won);
            for turn in &shown.turns {
                let thought = &turn.thought;
                assert!(thought.ends_with('.') && thought.len() < 90, "{thought:?}");
                assert!(turn.admissible.contains(&turn.action), "{} not listed", turn.action);
                if let Some(name) = turn.action.strip_prefix("go to ") {
                    let held = thought.contains("do not need") || thought.contains("I need the");
                    assert!(held || thought.contains(name), "{thought:?} before {name:?}");
                }
                if turn.action.starts_with("take ") {
                    let object = turn.action[5..].split(" from ").next().unwrap();
                    assert!(thought.contains(object), "{thought:?} before {:?}", turn.action);
                }
                turns += 1;
            }
        }
        assert!(turns > 100);
    }
}
