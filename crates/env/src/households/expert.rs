//! The observing expert: acts on what it has seen, nothing else.
//!
//! Its rules are short so that a small model can imitate them. It searches the receptacle classes
//! where the object usually lies, then all others, always in the order of the intro; it opens what is
//! closed; it takes the object, treats it, and brings it to the first receptacle of the target class.
//! Its next command depends only on the observations so far, so it can be asked after any history.

use super::belief::{Belief, Door, class_of};
use super::classes::{OBJECTS, RECEPTACLES, can_contain, object_class, receptacle_class};
use super::kind::transform;
use super::reading::{Event, Goal, event};
use super::style::ExpertStyle;
use crate::alfworld::TaskKind;
use crate::dice::{Dice, mix};

/// An expert in one episode.
#[derive(Clone, Debug)]
pub struct Expert {
    pub(super) belief: Belief,
    seed: u64,
    wander: f64,
    poor_order: bool,
    /// Whether this episode contains the mistake of its kind of task; which one depends on the kind.
    flaws: [bool; 4],
    /// Objects of the task that were put down.
    placed: u32,
    /// A mistake was made that this expert does not repair.
    lost: bool,
}

/// Which of the flaws belongs to a kind of task.
fn flaw(kind: TaskKind) -> usize {
    match kind {
        TaskKind::PickCleanThenPlaceInRecep
        | TaskKind::PickHeatThenPlaceInRecep
        | TaskKind::PickCoolThenPlaceInRecep => 0,
        TaskKind::LookAtObjInLight => 1,
        TaskKind::PickTwoObjAndPlace => 2,
        TaskKind::PickAndPlaceSimple => 3,
    }
}

impl Expert {
    /// An expert whose mistakes are drawn from a style.
    pub fn new(style: &ExpertStyle, seed: u64) -> Self {
        let mut dice = Dice::new(mix(0x6578_7065_7274, seed));
        let flaws =
            [style.skip_transform, style.forget_object, style.stop_after_one, style.wrong_place]
                .map(|p| dice.chance(p));
        Self {
            belief: Belief::default(),
            seed,
            wander: style.wander,
            poor_order: dice.chance(style.poor_order),
            flaws,
            placed: 0,
            lost: false,
        }
    }

    /// Takes in an observation and the command that led to it; no command for the intro, which
    /// starts an episode.
    pub fn observe(&mut self, action: Option<&str>, observation: &str) {
        self.belief.observe(action, observation);
        if action.is_none() {
            self.placed = 0;
            self.lost = false;
            return;
        }
        let Some(kind) = self.belief.goal.as_ref().map(|goal| goal.kind) else { return };
        if !self.flaws[flaw(kind)] {
            return;
        }
        match event(observation) {
            Event::Put(object, _, _) if self.is_object(object) => {
                self.placed += 1;
                self.lost |=
                    kind != TaskKind::PickTwoObjAndPlace || self.placed > 1 || self.seed & 1 == 0;
            }
            Event::Switched(_)
                if kind == TaskKind::LookAtObjInLight && self.belief.holding.is_none() =>
            {
                self.lost = true;
            }
            _ => {}
        }
    }

    /// Whether a mistake was made that this expert does not repair; it only wanders from then on.
    pub fn lost(&self) -> bool {
        self.lost
    }

    /// What the expert would do now. Asking changes nothing.
    pub fn next_action(&self) -> String {
        let mut dice = Dice::new(mix(self.seed, self.belief.turn));
        let Some(goal) = self.belief.goal.as_ref().filter(|_| !self.lost) else {
            return self.stray(&mut dice);
        };
        if self.wander > 0.0 && dice.chance(self.wander) {
            return self.stray(&mut dice);
        }
        let action = self.decide(goal);
        if self.belief.failed.contains(&action) { self.elsewhere() } else { action }
    }

    fn is_object(&self, name: &str) -> bool {
        self.belief.goal.as_ref().is_some_and(|goal| class_of(name) == goal.object)
    }

    fn decide(&self, goal: &Goal) -> String {
        let flawed = self.flaws[flaw(goal.kind)];
        if goal.kind == TaskKind::LookAtObjInLight && flawed && self.belief.holding.is_none() {
            return self.use_lamp(goal);
        }
        let Some(held) = self.belief.holding.as_deref() else {
            return self.fetch(goal);
        };
        if class_of(held) != goal.object {
            return self.put_away(held);
        }
        match goal.kind {
            TaskKind::LookAtObjInLight => return self.use_lamp(goal),
            TaskKind::PickCleanThenPlaceInRecep
            | TaskKind::PickHeatThenPlaceInRecep
            | TaskKind::PickCoolThenPlaceInRecep
                if !flawed =>
            {
                if let Some((verb, class)) = transform(goal.kind)
                    && !self.belief.is(held, verb)
                    && let Some(tool) = self.nearest(class)
                {
                    return self.reach(tool).unwrap_or_else(|| {
                        format!("{verb} {held} with {}", self.belief.places[tool].name)
                    });
                }
            }
            _ => {}
        }
        let target = match goal.kind {
            TaskKind::PickAndPlaceSimple if flawed => self.other_place(goal, held),
            TaskKind::PickTwoObjAndPlace if flawed && self.placed > 0 => {
                self.other_place(goal, held)
            }
            TaskKind::PickTwoObjAndPlace => self.base(goal),
            _ => None,
        };
        match target.or_else(|| self.nearest(&goal.target)) {
            Some(target) => self.put(held, target),
            None => self.search(&goal.target),
        }
    }

    /// Gets an object of the task: the nearest known one, or searches.
    fn fetch(&self, goal: &Goal) -> String {
        let base = if goal.kind == TaskKind::PickTwoObjAndPlace { self.base(goal) } else { None };
        let verb = transform(goal.kind).map(|(verb, _)| verb);
        let mut best: Option<(u32, usize, &str)> = None;
        for (index, place) in self.belief.places.iter().enumerate() {
            if Some(index) == base {
                continue;
            }
            for thing in place.things.iter().filter(|thing| class_of(thing) == goal.object) {
                let treated = verb.is_some_and(|verb| self.belief.is(thing, verb));
                let rank = 2 * u32::from(!treated) + u32::from(!self.belief.at(index));
                if best.is_none_or(|(other, _, _)| rank < other) {
                    best = Some((rank, index, thing));
                }
            }
        }
        match best {
            Some((_, place, thing)) => self
                .reach(place)
                .or_else(|| self.unlock(place))
                .unwrap_or_else(|| format!("take {thing} from {}", self.belief.places[place].name)),
            None => self.search(&goal.object),
        }
    }

    fn use_lamp(&self, goal: &Goal) -> String {
        for (index, place) in self.belief.places.iter().enumerate() {
            if let Some(lamp) = place.things.iter().find(|thing| class_of(thing) == goal.target) {
                return self.reach(index).unwrap_or_else(|| format!("use {lamp}"));
            }
        }
        self.search(&goal.target)
    }

    /// Where the first of two objects stands.
    fn base(&self, goal: &Goal) -> Option<usize> {
        let mut best = None;
        for (index, place) in
            self.belief.places.iter().enumerate().filter(|(_, p)| p.class == goal.target)
        {
            let there = place.things.iter().filter(|thing| class_of(thing) == goal.object).count();
            if there > best.map_or(0, |(most, _)| most) {
                best = Some((there, index));
            }
        }
        best.map(|(_, index)| index)
    }

    /// A receptacle of a class: one where the agent stands, else the first of the intro.
    fn nearest(&self, class: &str) -> Option<usize> {
        let of_class = |index: &usize| self.belief.places[*index].class == class;
        let all = 0..self.belief.places.len();
        all.clone()
            .filter(of_class)
            .find(|place| self.belief.at(*place))
            .or_else(|| all.clone().find(of_class))
    }

    /// A receptacle that takes the object but does not serve the task.
    fn other_place(&self, goal: &Goal, held: &str) -> Option<usize> {
        let object = object_class(class_of(held))?;
        let base = self.base(goal);
        let fits: Vec<usize> = (0..self.belief.places.len())
            .filter(|index| {
                let place = &self.belief.places[*index];
                let serves = match goal.kind {
                    TaskKind::PickTwoObjAndPlace => Some(*index) == base,
                    _ => place.class == goal.target,
                };
                !serves
                    && receptacle_class(&place.class).is_some_and(|rec| can_contain(rec, object))
            })
            .collect();
        Dice::new(self.seed).pick(&fits).copied()
    }

    /// Puts down what does not belong to the task: here, or at the first receptacle that takes it.
    fn put_away(&self, held: &str) -> String {
        let object = object_class(class_of(held));
        let takes = |index: &usize| {
            object.is_some_and(|object| {
                receptacle_class(&self.belief.places[*index].class)
                    .is_some_and(|rec| can_contain(rec, object))
            })
        };
        let all = 0..self.belief.places.len();
        match all
            .clone()
            .find(|place| self.belief.at(*place) && takes(place))
            .or_else(|| all.clone().find(takes))
        {
            Some(place) => self.put(held, place),
            None => self.elsewhere(),
        }
    }

    fn put(&self, held: &str, place: usize) -> String {
        self.reach(place).or_else(|| self.unlock(place)).unwrap_or_else(|| {
            let name = &self.belief.places[place].name;
            if self.belief.old_wording {
                format!("put {held} in/on {name}")
            } else {
                format!("move {held} to {name}")
            }
        })
    }

    fn reach(&self, place: usize) -> Option<String> {
        (!self.belief.at(place)).then(|| format!("go to {}", self.belief.places[place].name))
    }

    fn unlock(&self, place: usize) -> Option<String> {
        let known = &self.belief.places[place];
        match known.door {
            Door::Closed => Some(format!("open {}", known.name)),
            Door::Unknown => Some(format!("examine {}", known.name)),
            Door::Open => None,
        }
    }

    /// Looks into the next receptacle that may hold an object of a class.
    fn search(&self, class: &str) -> String {
        match self.next_unsearched(class) {
            Some(place) => self
                .reach(place)
                .or_else(|| self.unlock(place))
                .unwrap_or_else(|| format!("examine {}", self.belief.places[place].name)),
            None => self.elsewhere(),
        }
    }

    fn next_unsearched(&self, class: &str) -> Option<usize> {
        let places = &self.belief.places;
        if self.poor_order {
            return (0..places.len())
                .filter(|index| !places[*index].searched)
                .min_by_key(|index| mix(self.seed, *index as u64));
        }
        let preferred = object_class(class).map_or(&[][..], |object| OBJECTS[object].places);
        for (rec, _) in preferred {
            let name = RECEPTACLES[*rec as usize].name;
            let found =
                places.iter().position(|p| !p.searched && p.class.eq_ignore_ascii_case(name));
            if found.is_some() {
                return found;
            }
        }
        places.iter().position(|place| !place.searched)
    }

    /// Where nothing is left to search: the receptacle that was seen longest ago.
    fn elsewhere(&self) -> String {
        (0..self.belief.places.len())
            .filter(|index| !self.belief.at(*index))
            .min_by_key(|index| self.belief.places[*index].seen_at)
            .and_then(|index| self.reach(index))
            .filter(|action| !self.belief.failed.contains(action))
            .unwrap_or_else(|| "look".to_string())
    }

    /// Something admissible that does not serve the task.
    fn stray(&self, dice: &mut Dice) -> String {
        let places = &self.belief.places;
        let here: Vec<usize> = (0..places.len()).filter(|index| self.belief.at(*index)).collect();
        let choice = dice.below(100);
        if choice < 15 {
            return "look".to_string();
        }
        if choice < 25 {
            return "inventory".to_string();
        }
        if choice < 55
            && let Some(&place) = dice.pick(&here)
        {
            let name = &places[place].name;
            return match (&self.belief.holding, places[place].door) {
                (Some(held), _) if choice < 30 => format!("examine {held}"),
                (_, Door::Closed) if choice < 45 => format!("open {name}"),
                _ => format!("examine {name}"),
            };
        }
        let away: Vec<usize> = (0..places.len()).filter(|index| !self.belief.at(*index)).collect();
        dice.pick(&away)
            .and_then(|place| self.reach(*place))
            .filter(|action| !self.belief.failed.contains(action))
            .unwrap_or_else(|| "look".to_string())
    }
}

impl crate::Expert for Expert {
    fn observe(&mut self, action: Option<&str>, observation: &str) {
        Self::observe(self, action, observation);
    }

    fn next_action(&mut self) -> String {
        Self::next_action(self)
    }

    fn thought(&mut self) -> String {
        Self::thought(self)
    }
}
