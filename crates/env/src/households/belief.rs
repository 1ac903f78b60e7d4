//! What an observer knows: built from observations only.

use super::reading::{Event, Goal, View, event, intro};

/// What is known of a receptacle's door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// Never seen.
    Unknown,
    /// Its contents are in plain sight.
    Open,
    /// Seen closed.
    Closed,
}

/// A receptacle as it is known.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Display name, "countertop 2".
    pub(crate) name: String,
    /// Display class, "countertop".
    pub(crate) class: String,
    pub(crate) door: Door,
    /// Whether its contents have been seen.
    pub(crate) searched: bool,
    /// What is known to lie in it.
    pub(crate) things: Vec<String>,
    /// Receptacles that are known to stand at the same place carry the same number.
    pub(crate) spot: usize,
    /// The turn at which it was last seen.
    pub(crate) seen_at: u64,
}

/// What has been done to an object.
#[derive(Clone, Debug, Default)]
pub(crate) struct Treated {
    name: String,
    clean: bool,
    hot: bool,
    cool: bool,
}

/// Everything that the observations so far have told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Belief {
    pub(crate) goal: Option<Goal>,
    /// In the order of the intro.
    pub(crate) places: Vec<Place>,
    /// The spot where the agent stands.
    pub(crate) here: Option<usize>,
    pub(crate) holding: Option<String>,
    treated: Vec<Treated>,
    /// Whether commands are worded as in data version 2.1.1 ("put … in/on …").
    pub(crate) old_wording: bool,
    /// Observations so far.
    pub(crate) turn: u64,
    /// Commands that did nothing since the last that did something.
    pub(crate) failed: Vec<String>,
}

/// The class of a display name: "mug 2" is a "mug".
pub(crate) fn class_of(name: &str) -> &str {
    name.rsplit_once(' ').map_or(name, |(class, _)| class)
}

impl Belief {
    /// The place with a display name.
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        self.places.iter().position(|place| place.name == name)
    }

    /// Whether the agent stands at a place.
    pub(crate) fn at(&self, place: usize) -> bool {
        self.here == Some(self.places[place].spot)
    }

    /// Whether an object is known to be clean, hot or cool.
    pub(crate) fn is(&self, name: &str, verb: &str) -> bool {
        self.treated.iter().any(|t| {
            t.name == name
                && match verb {
                    "clean" => t.clean,
                    "heat" => t.hot,
                    _ => t.cool,
                }
        })
    }

    /// Takes in one observation and the command that led to it (none for the intro).
    pub(crate) fn observe(&mut self, action: Option<&str>, observation: &str) {
        if let Some((names, goal)) = intro(observation) {
            *self = Self { goal, ..Self::default() };
            for (spot, name) in names.into_iter().enumerate() {
                self.places.push(Place {
                    name: name.to_string(),
                    class: class_of(name).to_string(),
                    door: Door::Unknown,
                    searched: false,
                    things: Vec::new(),
                    spot,
                    seen_at: 0,
                });
            }
            return;
        }
        self.turn += 1;
        let action = action.unwrap_or_default().trim();
        let event = event(observation);
        if event == Event::Nothing {
            self.nothing(action);
            return;
        }
        self.failed.clear();
        match event {
            Event::Arrived { names_location, view } => {
                self.old_wording = names_location;
                let place = action.strip_prefix("go to ").and_then(|name| self.find(name));
                if let Some(place) = place {
                    self.here = Some(self.places[place].spot);
                }
                if let Some(view) = view {
                    self.look(view);
                }
            }
            Event::Opened(Some(view)) | Event::Seen(view) => self.look(view),
            Event::Closed(name) => {
                if let Some(place) = self.find(name) {
                    self.places[place].door = Door::Closed;
                }
            }
            Event::Took(object, name) => {
                if let Some(place) = self.find(name) {
                    self.places[place].things.retain(|thing| thing != object);
                }
                self.holding = Some(object.to_string());
            }
            Event::Put(object, name, old) => {
                self.old_wording = old;
                if let Some(place) = self.find(name) {
                    self.places[place].things.push(object.to_string());
                }
                self.holding = None;
            }
            Event::Changed(verb, object) => self.treat(verb, object),
            Event::Carrying(held) => self.holding = held.map(str::to_string),
            Event::Facing(names) => self.stand_together(&names),
            Event::Opened(None) | Event::Nothing | Event::Switched(_) | Event::Other => {}
        }
    }

    /// A command without effect still tells something.
    fn nothing(&mut self, action: &str) {
        if let Some(place) = action.strip_prefix("go to ").and_then(|name| self.find(name)) {
            // Going to where one stands does nothing: both receptacles share a place.
            match self.here {
                Some(here) => {
                    let spot = self.places[place].spot;
                    for other in &mut self.places {
                        if other.spot == spot {
                            other.spot = here;
                        }
                    }
                }
                None => self.here = Some(self.places[place].spot),
            }
        } else if let Some((object, name)) =
            action.strip_prefix("take ").and_then(|t| t.split_once(" from "))
            && self.holding.is_none()
            && let Some(place) = self.find(name)
            && self.at(place)
            && self.places[place].door == Door::Open
        {
            self.places[place].things.retain(|thing| thing != object);
        }
        if !self.failed.iter().any(|failed| failed == action) {
            self.failed.push(action.to_string());
        }
    }

    fn look(&mut self, view: View<'_>) {
        let (name, door, things) = match view {
            View::Closed(name) => (name, Door::Closed, None),
            View::Open(name, things) | View::Surface(name, things) => {
                (name, Door::Open, Some(things))
            }
        };
        let Some(index) = self.find(name) else { return };
        let turn = self.turn;
        let here = self.here;
        let place = &mut self.places[index];
        place.door = door;
        place.seen_at = turn;
        if here.is_none() {
            self.here = Some(place.spot);
        }
        if let Some(things) = things {
            place.searched = true;
            place.things.clear();
            place.things.extend(things.into_iter().map(str::to_string));
        }
    }

    fn stand_together(&mut self, names: &[&str]) {
        let found: Vec<usize> = names.iter().filter_map(|name| self.find(name)).collect();
        let Some(&first) = found.first() else { return };
        let spot = self.here.unwrap_or(self.places[first].spot);
        let joined: Vec<usize> = found.iter().map(|place| self.places[*place].spot).collect();
        for place in &mut self.places {
            if joined.contains(&place.spot) {
                place.spot = spot;
            }
        }
        self.here = Some(spot);
    }

    fn treat(&mut self, verb: &str, object: &str) {
        let index = self.treated.iter().position(|t| t.name == object).unwrap_or_else(|| {
            self.treated.push(Treated { name: object.to_string(), ..Treated::default() });
            self.treated.len() - 1
        });
        let treated = &mut self.treated[index];
        match verb {
            "clean" => treated.clean = true,
            "heat" => (treated.hot, treated.cool) = (true, false),
            _ => (treated.hot, treated.cool) = (false, true),
        }
    }
}
