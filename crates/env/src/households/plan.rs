//! The shortest plan for a home whose every drawer is known. It proves that the task can be done and
//! measures how long it is.

use super::classes::RECEPTACLES;
use super::home::Home;
use super::kind::transform;
use crate::alfworld::{DataVersion, TaskKind};

/// Walks through a home and writes down the commands.
#[derive(Clone)]
struct Walk<'a> {
    home: &'a Home,
    version: DataVersion,
    location: usize,
    opened: Vec<usize>,
    commands: Vec<String>,
}

impl Walk<'_> {
    fn name(&self, receptacle: usize) -> String {
        let r = &self.home.receptacles[receptacle];
        format!("{} {}", RECEPTACLES[r.rec as usize].name.to_lowercase(), r.number)
    }

    fn thing(&self, thing: usize) -> String {
        let t = &self.home.things[thing];
        format!("{} {}", t.class.to_lowercase(), t.number)
    }

    fn go(&mut self, receptacle: usize) {
        let location = self.home.receptacles[receptacle].location;
        if location != self.location {
            self.location = location;
            self.commands.push(format!("go to {}", self.name(receptacle)));
        }
    }

    fn open(&mut self, receptacle: usize) {
        if self.home.receptacles[receptacle].door && !self.opened.contains(&receptacle) {
            self.opened.push(receptacle);
            self.commands.push(format!("open {}", self.name(receptacle)));
        }
    }

    fn take(&mut self, thing: usize) {
        let place = self.home.things[thing].place;
        self.go(place);
        self.open(place);
        self.commands.push(format!("take {} from {}", self.thing(thing), self.name(place)));
    }

    fn put(&mut self, thing: usize, receptacle: usize) {
        self.go(receptacle);
        self.open(receptacle);
        self.commands.push(match self.version {
            DataVersion::V2_1_1 => {
                format!("put {} in/on {}", self.thing(thing), self.name(receptacle))
            }
            DataVersion::V2_1_2 => {
                format!("move {} to {}", self.thing(thing), self.name(receptacle))
            }
        });
    }
}

impl Home {
    /// The shortest sequence of commands that solves the task; `None` when there is none.
    pub(crate) fn plan(&self, version: DataVersion) -> Option<Vec<String>> {
        let walk = Walk {
            home: self,
            version,
            location: self.start,
            opened: Vec::new(),
            commands: Vec::new(),
        };
        let objects: Vec<usize> =
            (0..self.things.len()).filter(|t| self.things[*t].class == self.object).collect();
        let of_class = |class: &str| -> Vec<usize> {
            (0..self.receptacles.len())
                .filter(|r| {
                    RECEPTACLES[self.receptacles[*r].rec as usize].name.eq_ignore_ascii_case(class)
                })
                .collect()
        };
        let targets = of_class(self.target);
        let mut best: Option<Vec<String>> = None;
        let mut offer = |walk: Walk<'_>| {
            if best.as_ref().is_none_or(|b| walk.commands.len() < b.len()) {
                best = Some(walk.commands);
            }
        };
        match self.kind {
            TaskKind::LookAtObjInLight => {
                for &object in &objects {
                    for (lamp, thing) in
                        self.things.iter().enumerate().filter(|(_, t)| t.class == self.target)
                    {
                        let mut walk = walk.clone();
                        walk.take(object);
                        walk.go(thing.place);
                        walk.commands.push(format!("use {}", walk.thing(lamp)));
                        offer(walk);
                    }
                }
            }
            TaskKind::PickTwoObjAndPlace => {
                for &target in &targets {
                    let there = objects.iter().filter(|o| self.things[**o].place == target).count();
                    let missing = 2_usize.saturating_sub(there);
                    let loose: Vec<usize> = objects
                        .iter()
                        .copied()
                        .filter(|o| self.things[*o].place != target)
                        .collect();
                    for &first in &loose {
                        let mut one = walk.clone();
                        one.take(first);
                        one.put(first, target);
                        if missing <= 1 {
                            offer(one);
                            continue;
                        }
                        for &second in loose.iter().filter(|o| **o != first) {
                            let mut two = one.clone();
                            two.take(second);
                            two.put(second, target);
                            offer(two);
                        }
                    }
                }
            }
            TaskKind::PickAndPlaceSimple
            | TaskKind::PickCleanThenPlaceInRecep
            | TaskKind::PickHeatThenPlaceInRecep
            | TaskKind::PickCoolThenPlaceInRecep => {
                let tools = transform(self.kind).map(|(verb, class)| (verb, of_class(class)));
                for &object in &objects {
                    let mut taken = walk.clone();
                    taken.take(object);
                    let ready: Vec<Walk<'_>> = match &tools {
                        None => vec![taken],
                        Some((verb, tools)) => tools
                            .iter()
                            .map(|&tool| {
                                let mut used = taken.clone();
                                used.go(tool);
                                used.commands.push(format!(
                                    "{verb} {} with {}",
                                    used.thing(object),
                                    used.name(tool)
                                ));
                                used
                            })
                            .collect(),
                    };
                    for walk in ready {
                        for &target in &targets {
                            let mut walk = walk.clone();
                            walk.put(object, target);
                            offer(walk);
                        }
                    }
                }
            }
        }
        best
    }
}
