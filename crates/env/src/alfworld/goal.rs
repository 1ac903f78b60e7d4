//! What a game asks for: reads the goal's formula and checks it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::error::GameError;
use super::pddl::Tree;
use super::set::{ObjectId, ReceptacleId, Set};
use super::state::State;

/// The six kinds of task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    /// Put an object in or on a receptacle.
    PickAndPlaceSimple,
    /// Hold an object at a lamp that is on.
    LookAtObjInLight,
    /// Clean it first.
    PickCleanThenPlaceInRecep,
    /// Heat it first.
    PickHeatThenPlaceInRecep,
    /// Cool it first.
    PickCoolThenPlaceInRecep,
    /// Put two objects of a class in or on one receptacle.
    PickTwoObjAndPlace,
}

impl TaskKind {
    /// All six, in ALFWorld's order.
    pub const ALL: [Self; 6] = [
        Self::PickAndPlaceSimple,
        Self::LookAtObjInLight,
        Self::PickCleanThenPlaceInRecep,
        Self::PickHeatThenPlaceInRecep,
        Self::PickCoolThenPlaceInRecep,
        Self::PickTwoObjAndPlace,
    ];

    /// ALFWorld's name of the kind, with which task directories begin.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PickAndPlaceSimple => "pick_and_place_simple",
            Self::LookAtObjInLight => "look_at_obj_in_light",
            Self::PickCleanThenPlaceInRecep => "pick_clean_then_place_in_recep",
            Self::PickHeatThenPlaceInRecep => "pick_heat_then_place_in_recep",
            Self::PickCoolThenPlaceInRecep => "pick_cool_then_place_in_recep",
            Self::PickTwoObjAndPlace => "pick_two_obj_and_place",
        }
    }
}

impl fmt::Display for TaskKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an appliance does to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Treatment {
    /// At a sink basin.
    Clean,
    /// At a microwave.
    Heat,
    /// At a fridge.
    Cool,
}

/// The goal of a game, with the objects and receptacles of this game that can meet it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Some objects lie in or on one receptacle.
    Place {
        /// Class of the objects, e.g. `apple`.
        object: String,
        /// Class of the receptacle, e.g. `diningtable`.
        receptacle: String,
        /// What must have been done to the objects.
        treatment: Option<Treatment>,
        /// Whether the objects must be sliced.
        sliced: bool,
        /// How many objects: 1 or 2.
        count: usize,
        /// The objects of that class (that can be treated).
        objects: Set<ObjectId>,
        /// The receptacles of that class.
        receptacles: Set<ReceptacleId>,
    },
    /// An object is held where a lamp that was turned on stands.
    Examine {
        /// Class of the object, e.g. `alarmclock`.
        object: String,
        /// Class of the lamp, e.g. `desklamp`.
        lamp: String,
        /// The objects of that class.
        objects: Set<ObjectId>,
        /// The lamps of that class.
        lamps: Set<ObjectId>,
    },
}

impl Goal {
    /// The kind of task with this goal.
    pub fn kind(&self) -> TaskKind {
        match self {
            Self::Examine { .. } => TaskKind::LookAtObjInLight,
            Self::Place { count: 2, .. } => TaskKind::PickTwoObjAndPlace,
            Self::Place { treatment: Some(Treatment::Clean), .. } => {
                TaskKind::PickCleanThenPlaceInRecep
            }
            Self::Place { treatment: Some(Treatment::Heat), .. } => {
                TaskKind::PickHeatThenPlaceInRecep
            }
            Self::Place { treatment: Some(Treatment::Cool), .. } => {
                TaskKind::PickCoolThenPlaceInRecep
            }
            Self::Place { treatment: None, .. } => TaskKind::PickAndPlaceSimple,
        }
    }

    /// Whether a state meets the goal. `here` holds the receptacles at the agent's place.
    pub(crate) fn met(&self, state: &State, here: Set<ReceptacleId>) -> bool {
        match self {
            Self::Place { treatment, sliced, count, objects, receptacles, .. } => {
                let mut fit = *objects;
                if let Some(treatment) = treatment {
                    fit = fit.and(state.treated(*treatment));
                }
                if *sliced {
                    fit = fit.and(state.sliced());
                }
                !fit.is_empty()
                    && receptacles.iter().any(|r| state.contents(r).and(fit).len() >= *count)
            }
            Self::Examine { objects, lamps, .. } => {
                state.held().is_some_and(|o| objects.contains(o)) && {
                    let lit = lamps.and(state.toggled());
                    !lit.is_empty() && here.iter().any(|r| !state.contents(r).and(lit).is_empty())
                }
            }
        }
    }
}

/// The goal's formula before it meets the game's facts: what each object variable must satisfy.
#[derive(Debug)]
pub(crate) struct Formula<'a> {
    pub(crate) objects: Vec<ObjectVariable<'a>>,
    receptacle_type: Option<&'a str>,
    distinct: bool,
    lamp_at_agent: bool,
}

#[derive(Debug, Default)]
pub(crate) struct ObjectVariable<'a> {
    name: &'a str,
    pub(crate) object_type: Option<&'a str>,
    affordances: Vec<Treatment>,
    toggleable: bool,
    treatments: Vec<Treatment>,
    toggled: bool,
    sliced: bool,
    placed: bool,
    held: bool,
}

/// Looks up the game's objects and receptacles for [`Formula::resolve`].
pub(crate) trait Facts {
    /// Objects of a type (`appletype`).
    fn objects_of(&self, object_type: &str) -> Set<ObjectId>;
    /// Receptacles of a type.
    fn receptacles_of(&self, receptacle_type: &str) -> Set<ReceptacleId>;
    /// Objects that can be treated so.
    fn treatable(&self, treatment: Treatment) -> Set<ObjectId>;
    /// Objects with a switch.
    fn toggleable(&self) -> Set<ObjectId>;
}

impl<'a> Formula<'a> {
    /// Reads the tree of a `:goal` section.
    pub(crate) fn parse(tree: &Tree<'a>) -> Result<Self, GameError> {
        let mut scope = Scope::default();
        scope.conjunct(tree)?;
        scope.finish()
    }

    /// Finds the objects and receptacles that can meet the formula.
    pub(crate) fn resolve(&self, facts: &impl Facts) -> Result<Goal, GameError> {
        let class = |name: Option<&str>| {
            let name = name.ok_or_else(|| unknown("a variable has no type".to_owned()))?;
            Ok::<_, GameError>(name.strip_suffix("type").unwrap_or(name).to_owned())
        };
        let objects_of = |variable: &ObjectVariable<'_>| {
            let mut objects = facts.objects_of(variable.object_type.unwrap_or_default());
            for &treatment in &variable.affordances {
                objects = objects.and(facts.treatable(treatment));
            }
            if variable.toggleable { objects.and(facts.toggleable()) } else { objects }
        };
        match self.objects.as_slice() {
            [lamp, object] | [object, lamp]
                if object.held && lamp.toggled && lamp.placed && self.lamp_at_agent =>
            {
                let plain = !object.placed && !object.toggled && !object.sliced && !lamp.held;
                if !plain || !object.treatments.is_empty() || !lamp.treatments.is_empty() {
                    return Err(unknown("extra conditions on the lamp or the object".to_owned()));
                }
                Ok(Goal::Examine {
                    object: class(object.object_type)?,
                    lamp: class(lamp.object_type)?,
                    objects: objects_of(object),
                    lamps: objects_of(lamp),
                })
            }
            [first, rest @ ..] if !self.lamp_at_agent => {
                let pair = rest.len() == 1 && self.distinct;
                let alike = rest.iter().all(|other| {
                    other.object_type == first.object_type && other.placed && other.is_plain()
                });
                if !(rest.is_empty() || (pair && alike && first.is_plain())) {
                    return Err(unknown("its objects are not two of one class".to_owned()));
                }
                if !first.placed || first.held || first.toggled || first.treatments.len() > 1 {
                    return Err(unknown(format!("conditions on {}", first.name)));
                }
                Ok(Goal::Place {
                    object: class(first.object_type)?,
                    receptacle: class(self.receptacle_type)?,
                    treatment: first.treatments.first().copied(),
                    sliced: first.sliced,
                    count: 1 + rest.len(),
                    objects: objects_of(first),
                    receptacles: facts.receptacles_of(self.receptacle_type.unwrap_or_default()),
                })
            }
            _ => Err(unknown("its objects and conditions fit no task".to_owned())),
        }
    }
}

impl ObjectVariable<'_> {
    fn is_plain(&self) -> bool {
        self.treatments.is_empty()
            && self.affordances.is_empty()
            && !self.toggleable
            && !self.toggled
            && !self.sliced
            && !self.held
    }
}

fn unknown(what: String) -> GameError {
    GameError::UnknownGoal { what }
}

/// Collects the conjuncts under nested `and` and `exists`. Blocks may be merged because no
/// variable but the one agent's (or a place's) is declared twice.
#[derive(Default)]
struct Scope<'a> {
    variables: Vec<(&'a str, &'a str)>,
    objects: Vec<ObjectVariable<'a>>,
    receptacle: Option<&'a str>,
    receptacle_type: Option<&'a str>,
    distinct: bool,
    agent_at: Option<&'a str>,
    receptacle_at: Option<&'a str>,
}

impl<'a> Scope<'a> {
    fn conjunct(&mut self, tree: &Tree<'a>) -> Result<(), GameError> {
        let Tree::List(items) = tree else {
            return Err(unknown("a bare word where a condition belongs".to_owned()));
        };
        match items.as_slice() {
            [Tree::Word("and"), conjuncts @ ..] => {
                conjuncts.iter().try_for_each(|c| self.conjunct(c))
            }
            [Tree::Word("exists"), Tree::List(variables), body] => {
                self.declare(variables)?;
                self.conjunct(body)
            }
            [Tree::Word("not"), Tree::List(equality)] => match equality.as_slice() {
                [Tree::Word("="), Tree::Word(a), Tree::Word(b)] if a != b => {
                    self.object(a)?;
                    self.object(b)?;
                    self.distinct = true;
                    Ok(())
                }
                _ => Err(unknown("a negated condition".to_owned())),
            },
            [Tree::Word(predicate), arguments @ ..] => {
                let mut words = [""; 2];
                for (i, argument) in arguments.iter().enumerate() {
                    match (argument, words.get_mut(i)) {
                        (Tree::Word(word), Some(slot)) => *slot = word,
                        _ => return Err(unknown(format!("the arguments of {predicate}"))),
                    }
                }
                self.atom(predicate, words[0], words[1])
            }
            _ => Err(unknown("an empty condition".to_owned())),
        }
    }

    fn declare(&mut self, list: &[Tree<'a>]) -> Result<(), GameError> {
        let mut words = list.iter();
        while let Some(word) = words.next() {
            let (Tree::Word(name), Some(Tree::Word("-")), Some(Tree::Word(sort))) =
                (word, words.next(), words.next())
            else {
                return Err(unknown("a variable without a type".to_owned()));
            };
            if self.variables.iter().any(|(n, s)| n == name && (s != sort || *sort != "agent")) {
                return Err(unknown(format!("{name} is declared twice")));
            }
            self.variables.push((name, sort));
            match *sort {
                "object" => self.objects.push(ObjectVariable { name, ..ObjectVariable::default() }),
                "receptacle" => {
                    if self.receptacle.replace(name).is_some() {
                        return Err(unknown("two receptacles".to_owned()));
                    }
                }
                "agent" | "location" => {}
                _ => return Err(unknown(format!("{name} has the type {sort}"))),
            }
        }
        Ok(())
    }

    fn object(&mut self, name: &str) -> Result<&mut ObjectVariable<'a>, GameError> {
        self.objects
            .iter_mut()
            .find(|v| v.name == name)
            .ok_or_else(|| unknown(format!("{name} is no object variable")))
    }

    fn is(&self, name: &str, sort: &str) -> Result<(), GameError> {
        if self.variables.iter().any(|(n, s)| *n == name && *s == sort) {
            Ok(())
        } else {
            Err(unknown(format!("{name} is no {sort} variable")))
        }
    }

    fn atom(&mut self, predicate: &str, a: &'a str, b: &'a str) -> Result<(), GameError> {
        match predicate {
            "objecttype" => self.object(a)?.object_type = Some(b),
            "receptacletype" => {
                self.is(a, "receptacle")?;
                if self.receptacle_type.is_some_and(|earlier| earlier != b) {
                    return Err(unknown("two receptacle types".to_owned()));
                }
                self.receptacle_type = Some(b);
            }
            "inreceptacle" => {
                self.is(b, "receptacle")?;
                self.object(a)?.placed = true;
            }
            "holds" => {
                self.is(a, "agent")?;
                self.object(b)?.held = true;
            }
            "atlocation" => {
                self.is(a, "agent")?;
                self.is(b, "location")?;
                self.agent_at = Some(b);
            }
            "receptacleatlocation" => {
                self.is(a, "receptacle")?;
                self.is(b, "location")?;
                self.receptacle_at = Some(b);
            }
            "cleanable" => self.object(a)?.affordances.push(Treatment::Clean),
            "heatable" => self.object(a)?.affordances.push(Treatment::Heat),
            "coolable" => self.object(a)?.affordances.push(Treatment::Cool),
            "toggleable" => self.object(a)?.toggleable = true,
            "isclean" => self.object(a)?.treatments.push(Treatment::Clean),
            "ishot" => self.object(a)?.treatments.push(Treatment::Heat),
            "iscool" => self.object(a)?.treatments.push(Treatment::Cool),
            "istoggled" => self.object(a)?.toggled = true,
            "issliced" => self.object(a)?.sliced = true,
            _ => return Err(unknown(format!("the condition {predicate}"))),
        }
        Ok(())
    }

    fn finish(self) -> Result<Formula<'a>, GameError> {
        if self.agent_at != self.receptacle_at {
            return Err(unknown("the agent's and the receptacle's place differ".to_owned()));
        }
        if self.objects.is_empty() {
            return Err(unknown("no object".to_owned()));
        }
        Ok(Formula {
            objects: self.objects,
            receptacle_type: self.receptacle_type,
            distinct: self.distinct,
            lamp_at_agent: self.agent_at.is_some(),
        })
    }
}
