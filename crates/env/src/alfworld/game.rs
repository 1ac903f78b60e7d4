//! A parsed game: what never changes while it is played, and how it starts.

use std::collections::HashMap;

use super::error::GameError;
use super::goal::{Facts, Formula, Goal, TaskKind, Treatment};
use super::pddl::{Predicate, Problem, Sort, Symbol};
use super::rules::Rules;
use super::set::{CAPACITY, Index, LocationId, ObjectId, ReceptacleId, Set};
use super::state::State;

/// A game, ready to play. Share it behind an `Arc`: episodes only read it.
#[derive(Clone, Debug)]
pub struct Game {
    id: Box<str>,
    task: Box<str>,
    rules: Rules,
    object_names: Box<[Box<str>]>,
    receptacle_names: Box<[Box<str>]>,
    location_names: Box<[Box<str>]>,
    objects_by_name: Box<[ObjectId]>,
    name_ranks: Box<[u8]>,
    receptacles_by_name: Box<[ReceptacleId]>,
    receptacle_places: Box<[Option<LocationId>]>,
    can_contain: Box<[Set<ObjectId>]>,
    places: Box<[Place]>,
    /// Receptacle objects and what lies in them.
    boxes: Set<ObjectId>,
    inside: Box<[(ObjectId, ObjectId)]>,
    openable: Set<ReceptacleId>,
    appliances: [Set<ReceptacleId>; 3],
    treatable: [Set<ObjectId>; 3],
    pickupable: Set<ObjectId>,
    toggleable: Set<ObjectId>,
    sliceable: Set<ObjectId>,
    knives: Set<ObjectId>,
    goal: Goal,
    initial: State,
}

#[derive(Clone, Debug, Default)]
struct Place {
    receptacles: Set<ReceptacleId>,
    by_name: Box<[ReceptacleId]>,
}

/// What a display name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thing {
    /// An object.
    Object(ObjectId),
    /// A receptacle.
    Receptacle(ReceptacleId),
}

impl Game {
    /// Reads a game of the usual domain. `problem` is the PDDL problem's text, `task` the goal
    /// sentence with its full stop (`put a mug in desk.`).
    ///
    /// # Errors
    /// Text that breaks the format, another domain, a goal of no known task type, more than 128
    /// objects, receptacles or locations.
    pub fn parse(id: &str, problem: &str, task: &str) -> Result<Self, GameError> {
        Self::parse_with(id, problem, task, Rules::default())
    }

    /// [`Game::parse`] for games whose domain or grammar is a variant.
    ///
    /// # Errors
    /// As [`Game::parse`].
    pub fn parse_with(
        id: &str,
        problem: &str,
        task: &str,
        rules: Rules,
    ) -> Result<Self, GameError> {
        let text = problem.to_ascii_lowercase();
        Builder::new(&Problem::parse(&text)?)?.build(id, task, rules)
    }

    /// The game's identifier, e.g. `valid_seen/<task>/<trial>`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The goal sentence with its full stop, e.g. `put a mug in desk.`
    pub fn task(&self) -> &str {
        &self.task
    }

    /// The kind of task.
    pub fn kind(&self) -> TaskKind {
        self.goal.kind()
    }

    /// The goal's structure.
    pub fn goal(&self) -> &Goal {
        &self.goal
    }

    /// The variant of the rules.
    pub fn rules(&self) -> Rules {
        self.rules
    }

    /// The state in which an episode starts.
    pub fn initial(&self) -> &State {
        &self.initial
    }

    /// Whether the state meets the goal.
    pub fn won(&self, state: &State) -> bool {
        self.goal.met(state, self.receptacles_at(state.place()))
    }

    /// All objects.
    pub fn objects(&self) -> impl ExactSizeIterator<Item = ObjectId> + use<> {
        (0..self.object_names.len()).map(ObjectId::from_index)
    }

    /// All receptacles.
    pub fn receptacles(&self) -> impl ExactSizeIterator<Item = ReceptacleId> + use<> {
        (0..self.receptacle_names.len()).map(ReceptacleId::from_index)
    }

    /// How many locations there are.
    pub fn location_count(&self) -> usize {
        self.location_names.len()
    }

    /// Display name, e.g. `apple 2`.
    pub fn object_name(&self, object: ObjectId) -> &str {
        &self.object_names[object.index()]
    }

    /// Display name, e.g. `countertop 1`.
    pub fn receptacle_name(&self, receptacle: ReceptacleId) -> &str {
        &self.receptacle_names[receptacle.index()]
    }

    /// Display name, e.g. `loc 12`.
    pub fn location_name(&self, location: LocationId) -> &str {
        &self.location_names[location.index()]
    }

    /// Class of an object: its display name without the number.
    pub fn object_class(&self, object: ObjectId) -> &str {
        class_of(self.object_name(object))
    }

    /// Class of a receptacle: its display name without the number.
    pub fn receptacle_class(&self, receptacle: ReceptacleId) -> &str {
        class_of(self.receptacle_name(receptacle))
    }

    /// The object with a display name.
    pub fn object(&self, name: &str) -> Option<ObjectId> {
        let found = self.objects_by_name.binary_search_by(|&o| self.object_name(o).cmp(name));
        found.ok().map(|i| self.objects_by_name[i])
    }

    /// The receptacle with a display name.
    pub fn receptacle(&self, name: &str) -> Option<ReceptacleId> {
        let found =
            self.receptacles_by_name.binary_search_by(|&r| self.receptacle_name(r).cmp(name));
        found.ok().map(|i| self.receptacles_by_name[i])
    }

    /// The object or receptacle with a display name.
    pub fn thing(&self, name: &str) -> Option<Thing> {
        let object = self.object(name).map(Thing::Object);
        object.or_else(|| self.receptacle(name).map(Thing::Receptacle))
    }

    /// Where a receptacle is reached from.
    pub fn location_of(&self, receptacle: ReceptacleId) -> Option<LocationId> {
        self.receptacle_places[receptacle.index()]
    }

    /// The receptacles that are reached from a location.
    pub fn receptacles_at(&self, location: LocationId) -> Set<ReceptacleId> {
        self.places[location.index()].receptacles
    }

    pub(crate) fn receptacles_at_by_name(&self, location: LocationId) -> &[ReceptacleId] {
        &self.places[location.index()].by_name
    }

    pub(crate) fn receptacles_by_name(&self) -> &[ReceptacleId] {
        &self.receptacles_by_name
    }

    pub(crate) fn name_rank(&self, object: ObjectId) -> u8 {
        self.name_ranks[object.index()]
    }

    /// Receptacles with a door or a lid.
    pub fn openable(&self) -> Set<ReceptacleId> {
        self.openable
    }

    /// The objects that a receptacle takes.
    pub fn can_contain(&self, receptacle: ReceptacleId) -> Set<ObjectId> {
        self.can_contain[receptacle.index()]
    }

    /// The receptacles that clean, heat or cool.
    pub fn treats(&self, treatment: Treatment) -> Set<ReceptacleId> {
        self.appliances[treatment as usize]
    }

    /// The objects that can be cleaned, heated or cooled.
    pub fn treatable(&self, treatment: Treatment) -> Set<ObjectId> {
        self.treatable[treatment as usize]
    }

    /// Objects that can be carried.
    pub fn pickupable(&self) -> Set<ObjectId> {
        self.pickupable
    }

    /// Objects with a switch.
    pub fn toggleable(&self) -> Set<ObjectId> {
        self.toggleable
    }

    /// Objects that a knife cuts.
    pub fn sliceable(&self) -> Set<ObjectId> {
        self.sliceable
    }

    /// Knives and butter knives.
    pub fn knives(&self) -> Set<ObjectId> {
        self.knives
    }

    /// Objects that hold others (a box, a bowl).
    pub(crate) fn boxes(&self) -> Set<ObjectId> {
        self.boxes
    }

    /// What lies in an object, by raw identifier.
    pub(crate) fn inside(&self, outer: ObjectId) -> impl Iterator<Item = ObjectId> {
        self.inside.iter().filter(move |(o, _)| *o == outer).map(|&(_, inner)| inner)
    }
}

fn class_of(name: &str) -> &str {
    name.split_once(' ').map_or(name, |(class, _)| class)
}

/// Turns symbols into indices and facts into tables.
struct Builder<'p, 'a> {
    problem: &'p Problem<'a>,
    /// For each symbol its position within its sort, where an initial fact mentions it.
    positions: Vec<u8>,
    names: [Vec<Box<str>>; 3],
    /// For each symbol of a type: the objects (or receptacles) of that type.
    objects_of: Vec<Set<ObjectId>>,
    receptacles_of: Vec<Set<ReceptacleId>>,
    treatable: [Set<ObjectId>; 3],
    toggleable: Set<ObjectId>,
}

const OBJECTS: usize = 0;
const RECEPTACLES: usize = 1;
const LOCATIONS: usize = 2;

impl<'p, 'a> Builder<'p, 'a> {
    fn new(problem: &'p Problem<'a>) -> Result<Self, GameError> {
        let (positions, names) = number(&problem.symbols)?;
        Ok(Self {
            problem,
            positions,
            names,
            objects_of: vec![Set::default(); problem.symbols.len()],
            receptacles_of: vec![Set::default(); problem.symbols.len()],
            treatable: [Set::default(); 3],
            toggleable: Set::default(),
        })
    }

    fn at<I: Index>(&self, symbol: u32) -> I {
        I::from_index(usize::from(self.positions[symbol as usize]))
    }

    fn build(mut self, id: &str, task: &str, rules: Rules) -> Result<Game, GameError> {
        let receptacle_count = self.names[RECEPTACLES].len();
        let location_count = self.names[LOCATIONS].len();
        let first = LocationId::from_index(0);
        let mut initial = State::new(first, receptacle_count, location_count);
        let mut start = None;
        let mut receptacle_places = vec![None; receptacle_count];
        let mut inside = Vec::new();
        let mut openable = Set::default();
        let [mut pickupable, mut sliceable, mut boxes] = [Set::default(); 3];
        for fact in &self.problem.facts {
            let (a, b) = (fact.a, fact.b);
            match fact.predicate {
                Predicate::AtLocation => {
                    let place = self.at(b);
                    if start.replace(place).is_some_and(|earlier| earlier != place) {
                        return Err(inconsistent("the agent starts at two locations"));
                    }
                }
                Predicate::ReceptacleAtLocation => {
                    let receptacle: ReceptacleId = self.at(a);
                    let place = self.at(b);
                    let slot = &mut receptacle_places[receptacle.index()];
                    if slot.replace(place).is_some_and(|earlier| earlier != place) {
                        let name = self.problem.symbols[a as usize].name;
                        return Err(inconsistent(&format!("{name} is at two locations")));
                    }
                }
                Predicate::ObjectAtLocation => initial.lying_mut(self.at(b)).insert(self.at(a)),
                Predicate::Openable => openable.insert(self.at(a)),
                Predicate::Opened => initial.opened.insert(self.at(a)),
                Predicate::InReceptacle => initial.contents_mut(self.at(b)).insert(self.at(a)),
                Predicate::IsReceptacleObject => boxes.insert(self.at(a)),
                Predicate::InReceptacleObject => {
                    inside.push((self.at::<ObjectId>(b), self.at::<ObjectId>(a)));
                }
                Predicate::ReceptacleType => {
                    let receptacle = self.at(a);
                    self.receptacles_of[b as usize].insert(receptacle);
                }
                Predicate::ObjectType => {
                    let object = self.at(a);
                    self.objects_of[b as usize].insert(object);
                }
                Predicate::Holds => {
                    let object = self.at(b);
                    if initial.held.replace(object).is_some_and(|earlier| earlier != object) {
                        return Err(inconsistent("the agent holds two objects"));
                    }
                }
                Predicate::IsClean => initial.clean.insert(self.at(a)),
                Predicate::IsHot => initial.hot.insert(self.at(a)),
                Predicate::IsCool => initial.cool.insert(self.at(a)),
                Predicate::IsToggled => initial.toggled.insert(self.at(a)),
                Predicate::IsSliced => initial.sliced.insert(self.at(a)),
                Predicate::Cleanable => self.allow(Treatment::Clean, a),
                Predicate::Heatable => self.allow(Treatment::Heat, a),
                Predicate::Coolable => self.allow(Treatment::Cool, a),
                Predicate::Pickupable => pickupable.insert(self.at(a)),
                Predicate::Toggleable => {
                    let object = self.at(a);
                    self.toggleable.insert(object);
                }
                Predicate::Sliceable => sliceable.insert(self.at(a)),
                Predicate::CanContain | Predicate::Unread => {}
            }
        }
        initial.place = start.ok_or_else(|| inconsistent("the agent has no location"))?;
        inside.sort_unstable();
        inside.dedup();

        let mut clean = self.receptacles_of("sinkbasintype");
        if rules.sink_cleans {
            clean = clean.or(self.receptacles_of("sinktype"));
        }
        let appliances =
            [clean, self.receptacles_of("microwavetype"), self.receptacles_of("fridgetype")];
        let knives = self.objects_of("knifetype").or(self.objects_of("butterknifetype"));
        let goal = Formula::parse(&self.problem.goal)?.resolve(&self)?;
        let can_contain = self.can_contain(receptacle_count);

        let [object_names, receptacle_names, location_names] =
            self.names.map(Vec::into_boxed_slice);
        let objects_by_name = by_name::<ObjectId>(&object_names)?;
        let receptacles_by_name = by_name::<ReceptacleId>(&receptacle_names)?;
        let mut name_ranks = vec![0; object_names.len()];
        for (rank, object) in objects_by_name.iter().enumerate() {
            name_ranks[object.index()] = rank as u8;
        }
        let mut places = vec![(Set::default(), Vec::new()); location_count];
        for &receptacle in &receptacles_by_name {
            if let Some(location) = receptacle_places[receptacle.index()] {
                let location: LocationId = location;
                let (set, list) = &mut places[location.index()];
                set.insert(receptacle);
                list.push(receptacle);
            }
        }
        let places = places
            .into_iter()
            .map(|(receptacles, list)| Place { receptacles, by_name: list.into() })
            .collect();
        Ok(Game {
            id: id.into(),
            task: task.into(),
            rules,
            object_names,
            receptacle_names,
            location_names,
            objects_by_name: objects_by_name.into(),
            name_ranks: name_ranks.into(),
            receptacles_by_name: receptacles_by_name.into(),
            receptacle_places: receptacle_places.into(),
            can_contain,
            places,
            boxes,
            inside: inside.into(),
            openable,
            appliances,
            treatable: self.treatable,
            pickupable,
            toggleable: self.toggleable,
            sliceable,
            knives,
            goal,
            initial,
        })
    }

    fn allow(&mut self, treatment: Treatment, symbol: u32) {
        let object = self.at(symbol);
        self.treatable[treatment as usize].insert(object);
    }

    fn can_contain(&self, receptacles: usize) -> Box<[Set<ObjectId>]> {
        let mut can = vec![Set::default(); receptacles];
        for fact in &self.problem.facts {
            if fact.predicate == Predicate::CanContain {
                let objects = self.objects_of[fact.b as usize];
                for receptacle in self.receptacles_of[fact.a as usize] {
                    let slot = &mut can[receptacle.index()];
                    *slot = slot.or(objects);
                }
            }
        }
        can.into()
    }

    fn types(&self, name: &str) -> impl Iterator<Item = usize> {
        let symbols = self.problem.symbols.iter().enumerate();
        symbols.filter(move |(_, s)| s.name == name).map(|(i, _)| i)
    }
}

impl Facts for Builder<'_, '_> {
    fn objects_of(&self, object_type: &str) -> Set<ObjectId> {
        self.types(object_type).fold(Set::default(), |all, i| all.or(self.objects_of[i]))
    }

    fn receptacles_of(&self, receptacle_type: &str) -> Set<ReceptacleId> {
        self.types(receptacle_type).fold(Set::default(), |all, i| all.or(self.receptacles_of[i]))
    }

    fn treatable(&self, treatment: Treatment) -> Set<ObjectId> {
        self.treatable[treatment as usize]
    }

    fn toggleable(&self) -> Set<ObjectId> {
        self.toggleable
    }
}

fn inconsistent(what: &str) -> GameError {
    GameError::Inconsistent { what: what.to_owned() }
}

/// The indices in the order of their names, which must differ.
fn by_name<I: Index>(names: &[Box<str>]) -> Result<Vec<I>, GameError> {
    let mut order: Vec<I> = (0..names.len()).map(I::from_index).collect();
    order.sort_unstable_by(|a, b| names[a.index()].cmp(&names[b.index()]));
    match order.windows(2).find(|pair| names[pair[0].index()] == names[pair[1].index()]) {
        Some(pair) => {
            Err(inconsistent(&format!("two things are called {}", names[pair[0].index()])))
        }
        None => Ok(order),
    }
}

type Numbered = (Vec<u8>, [Vec<Box<str>>; 3]);

/// Orders the mentioned symbols by identifier and names them: within a class the first gets the
/// highest number.
fn number(symbols: &[Symbol<'_>]) -> Result<Numbered, GameError> {
    let mut order: Vec<usize> = (0..symbols.len()).filter(|&i| symbols[i].used).collect();
    order.sort_unstable_by(|&a, &b| symbols[a].name.cmp(symbols[b].name));
    let class = |i: usize| {
        let name = symbols[i].name;
        name.split_once("_bar_").map(|(class, _)| (class, name.contains("basin")))
    };
    let mut counts: HashMap<(&str, bool), usize> = HashMap::new();
    for &i in &order {
        if let Some(class) = class(i) {
            *counts.entry(class).or_default() += 1;
        }
    }
    let mut positions = vec![0; symbols.len()];
    let mut names: [Vec<Box<str>>; 3] = Default::default();
    for &i in &order {
        let (which, what) = match symbols[i].sort {
            Sort::Object => (OBJECTS, "objects"),
            Sort::Receptacle => (RECEPTACLES, "receptacles"),
            Sort::Location => (LOCATIONS, "locations"),
            Sort::Agent | Sort::ReceptacleType | Sort::ObjectType => {
                if let Some(count) = class(i).and_then(|class| counts.get_mut(&class)) {
                    *count -= 1;
                }
                continue;
            }
        };
        let Some((stem, basin)) = class(i) else {
            return Err(inconsistent(&format!("{:?} has no `_bar_` in its name", symbols[i].name)));
        };
        let count = counts.entry((stem, basin)).or_default();
        if names[which].len() == CAPACITY {
            let found = symbols.iter().filter(|s| s.used && s.sort == symbols[i].sort).count();
            return Err(GameError::TooMany { what, found, limit: CAPACITY });
        }
        positions[i] = names[which].len() as u8;
        let ending = if basin { "basin" } else { "" };
        names[which].push(format!("{stem}{ending} {count}").into());
        *count -= 1;
    }
    Ok((positions, names))
}
