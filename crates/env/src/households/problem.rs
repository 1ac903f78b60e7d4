//! Writes a home as a problem file in ALFWorld's format, so that it passes through the same loader
//! as a real game.

use super::classes::{
    CLEAN, COOL, HEAT, PICK, RECEPTACLES, Rec, SLICE, TOGGLE, VESSEL, can_contain, object_class,
};
use super::home::{Home, Receptacle, Thing};
use crate::alfworld::TaskKind;

/// Types that the domain's actions name: they must exist in every problem.
const NAMED_TYPES: [(&str, &str); 6] = [
    ("Sink", "rtype"),
    ("SinkBasin", "rtype"),
    ("Microwave", "rtype"),
    ("Fridge", "rtype"),
    ("Knife", "otype"),
    ("ButterKnife", "otype"),
];

impl Home {
    /// The task as the goal sentence says it, with its full stop.
    pub(crate) fn sentence(&self) -> String {
        let object = self.object.to_lowercase();
        let target = self.target.to_lowercase();
        let state = match self.kind {
            TaskKind::PickCleanThenPlaceInRecep => "clean",
            TaskKind::PickHeatThenPlaceInRecep => "heat",
            _ => "cool",
        };
        let adjective = if self.kind == TaskKind::PickHeatThenPlaceInRecep { "hot" } else { state };
        match (self.kind, self.wording) {
            (TaskKind::LookAtObjInLight, true) => format!("look at {object} under the {target}."),
            (TaskKind::LookAtObjInLight, false) => {
                format!("examine the {object} with the {target}.")
            }
            (TaskKind::PickAndPlaceSimple, true) => format!("put a {object} in {target}."),
            (TaskKind::PickAndPlaceSimple, false) => format!("put some {object} on {target}."),
            (TaskKind::PickTwoObjAndPlace, true) => format!("put two {object} in {target}."),
            (TaskKind::PickTwoObjAndPlace, false) => {
                format!("find two {object} and put them in {target}.")
            }
            (_, true) => format!("put a {adjective} {object} in {target}."),
            (_, false) => format!("{state} some {object} and put it in {target}."),
        }
    }

    /// The identifiers of the receptacles, whose bytewise order gives the display numbers: within a
    /// class the first of N is shown as N.
    fn receptacle_ids(&self) -> Vec<String> {
        self.receptacles
            .iter()
            .map(|r| {
                let count = self.receptacles.iter().filter(|other| other.rec == r.rec).count();
                receptacle_id(r, count - r.number + 1)
            })
            .collect()
    }

    fn thing_ids(&self) -> Vec<String> {
        self.things
            .iter()
            .map(|t| {
                let count = self.things.iter().filter(|other| other.class == t.class).count();
                thing_id(t, count - t.number + 1)
            })
            .collect()
    }

    /// The problem file.
    pub(crate) fn problem(&self, name: &str) -> String {
        let receptacles = self.receptacle_ids();
        let things = self.thing_ids();
        let mut rec_types: Vec<Rec> = self.receptacles.iter().map(|r| r.rec).collect();
        rec_types.sort_unstable();
        rec_types.dedup();
        let mut thing_types: Vec<&str> = self.things.iter().map(|t| t.class).collect();
        thing_types
            .extend([self.object, self.target].into_iter().filter(|c| object_class(c).is_some()));
        thing_types.sort_unstable();
        thing_types.dedup();
        let last_location = self.start;

        let mut text = String::with_capacity(24 * 1024);
        let mut put = |parts: &[&str]| {
            for part in parts {
                text.push_str(part);
            }
            text.push('\n');
        };
        put(&["(define (problem ", name, ")"]);
        put(&["(:domain alfred)"]);
        put(&["(:objects"]);
        put(&["agent1 - agent"]);
        for class in &thing_types {
            put(&[class, "Type - otype"]);
        }
        for rec in &rec_types {
            put(&[RECEPTACLES[*rec as usize].name, "Type - rtype"]);
        }
        for (class, sort) in NAMED_TYPES {
            let known = thing_types.contains(&class)
                || rec_types.iter().any(|rec| RECEPTACLES[*rec as usize].name == class);
            if !known {
                put(&[class, "Type - ", sort]);
            }
        }
        for id in &things {
            put(&[id, " - object"]);
        }
        for id in &receptacles {
            put(&[id, " - receptacle"]);
        }
        let locations: Vec<String> =
            (0..=last_location).map(|l| format!("loc_bar_{l:02}")).collect();
        for (number, location) in locations.iter().enumerate().skip(1) {
            if number == self.start || self.receptacles.iter().any(|r| r.location == number) {
                put(&[location, " - location"]);
            }
        }
        put(&[")"]);

        put(&["(:init"]);
        for (id, receptacle) in receptacles.iter().zip(&self.receptacles) {
            put(&["(receptacleType ", id, " ", RECEPTACLES[receptacle.rec as usize].name, "Type)"]);
            put(&["(receptacleAtLocation ", id, " ", &locations[receptacle.location], ")"]);
            if receptacle.door {
                put(&["(openable ", id, ")"]);
            }
        }
        for rec in &rec_types {
            for class in &thing_types {
                if object_class(class).is_some_and(|object| can_contain(*rec, object)) {
                    put(&[
                        "(canContain ",
                        RECEPTACLES[*rec as usize].name,
                        "Type ",
                        class,
                        "Type)",
                    ]);
                }
            }
        }
        for (id, thing) in things.iter().zip(&self.things) {
            put(&["(objectType ", id, " ", thing.class, "Type)"]);
            for (bit, fact) in [
                (PICK, "pickupable"),
                (CLEAN, "cleanable"),
                (HEAT, "heatable"),
                (COOL, "coolable"),
                (SLICE, "sliceable"),
                (VESSEL, "isReceptacleObject"),
                (TOGGLE, "toggleable"),
            ] {
                if thing.affords & bit != 0 {
                    put(&["(", fact, " ", id, ")"]);
                }
            }
            let place = &self.receptacles[thing.place];
            put(&["(inReceptacle ", id, " ", &receptacles[thing.place], ")"]);
            put(&["(objectAtLocation ", id, " ", &locations[place.location], ")"]);
        }
        put(&["(atLocation agent1 ", &locations[self.start], ")"]);
        put(&[")"]);
        text.push_str(&self.goal());
        text.push_str(")\n");
        text
    }

    fn goal(&self) -> String {
        let (object, target) = (self.object, self.target);
        let (needs, done) = match self.kind {
            TaskKind::PickCleanThenPlaceInRecep => ("(cleanable ?o) ", " (isClean ?o)"),
            TaskKind::PickHeatThenPlaceInRecep => ("(heatable ?o) ", " (isHot ?o)"),
            TaskKind::PickCoolThenPlaceInRecep => ("(coolable ?o) ", " (isCool ?o)"),
            TaskKind::LookAtObjInLight
            | TaskKind::PickAndPlaceSimple
            | TaskKind::PickTwoObjAndPlace => ("", ""),
        };
        match self.kind {
            TaskKind::LookAtObjInLight => format!(
                "(:goal (and (exists (?ot - object ?r - receptacle ?a - agent ?l - location) \
                 (and (objectType ?ot {target}Type) (toggleable ?ot) (isToggled ?ot) \
                 (receptacleAtLocation ?r ?l) (atLocation ?a ?l) (inReceptacle ?ot ?r))) \
                 (exists (?o - object ?a - agent) (and (objectType ?o {object}Type) (holds ?a ?o)))))\n"
            ),
            TaskKind::PickTwoObjAndPlace => format!(
                "(:goal (and (exists (?r - receptacle) (exists (?o1 - object) \
                 (and (objectType ?o1 {object}Type) (receptacleType ?r {target}Type) (inReceptacle ?o1 ?r) \
                 (exists (?o2 - object) (and (not (= ?o1 ?o2)) (objectType ?o2 {object}Type) \
                 (receptacleType ?r {target}Type) (inReceptacle ?o2 ?r))))))))\n"
            ),
            _ => format!(
                "(:goal (and (exists (?r - receptacle) (exists (?o - object) \
                 (and {needs}(objectType ?o {object}Type) (receptacleType ?r {target}Type){done} \
                 (inReceptacle ?o ?r))))))\n"
            ),
        }
    }
}

fn receptacle_id(receptacle: &Receptacle, rank: usize) -> String {
    match receptacle.rec {
        Rec::SinkBasin => format!("Sink_bar_{rank:02}_bar_SinkBasin"),
        Rec::BathtubBasin => format!("Bathtub_bar_{rank:02}_bar_BathtubBasin"),
        rec => format!("{}_bar_{rank:02}", RECEPTACLES[rec as usize].name),
    }
}

fn thing_id(thing: &Thing, rank: usize) -> String {
    format!("{}_bar_{rank:02}", thing.class)
}
