//! What changes while a game is played, and how commands change it.

use super::command::Command;
use super::game::Game;
use super::goal::Treatment;
use super::set::{Index, LocationId, ObjectId, ReceptacleId, Set};

/// The changing facts of a game. Cheap to clone, compare and hash, so that a planner can search.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub(crate) place: LocationId,
    pub(crate) held: Option<ObjectId>,
    pub(crate) opened: Set<ReceptacleId>,
    pub(crate) clean: Set<ObjectId>,
    pub(crate) hot: Set<ObjectId>,
    pub(crate) cool: Set<ObjectId>,
    pub(crate) toggled: Set<ObjectId>,
    pub(crate) sliced: Set<ObjectId>,
    /// Contents of each receptacle, then what was taken out of each and not put back, then what
    /// lies at each location: one allocation.
    pub(crate) objects: Box<[Set<ObjectId>]>,
    pub(crate) receptacles: u8,
}

impl State {
    pub(crate) fn new(place: LocationId, receptacles: usize, locations: usize) -> Self {
        Self {
            place,
            held: None,
            opened: Set::default(),
            clean: Set::default(),
            hot: Set::default(),
            cool: Set::default(),
            toggled: Set::default(),
            sliced: Set::default(),
            objects: vec![Set::default(); 2 * receptacles + locations].into(),
            receptacles: receptacles as u8,
        }
    }

    /// Where the agent stands.
    pub fn place(&self) -> LocationId {
        self.place
    }

    /// What the agent carries.
    pub fn held(&self) -> Option<ObjectId> {
        self.held
    }

    /// The receptacles that are open.
    pub fn opened(&self) -> Set<ReceptacleId> {
        self.opened
    }

    /// What lies in or on a receptacle, seen or not.
    pub fn contents(&self, receptacle: ReceptacleId) -> Set<ObjectId> {
        self.objects[receptacle.index()]
    }

    /// The objects that are clean, hot or cool.
    pub fn treated(&self, treatment: Treatment) -> Set<ObjectId> {
        match treatment {
            Treatment::Clean => self.clean,
            Treatment::Heat => self.hot,
            Treatment::Cool => self.cool,
        }
    }

    /// The objects that were turned on.
    pub fn toggled(&self) -> Set<ObjectId> {
        self.toggled
    }

    /// The objects that were sliced.
    pub fn sliced(&self) -> Set<ObjectId> {
        self.sliced
    }

    pub(crate) fn contents_mut(&mut self, receptacle: ReceptacleId) -> &mut Set<ObjectId> {
        &mut self.objects[receptacle.index()]
    }

    /// What was taken out of a receptacle and not put back.
    pub(crate) fn taken(&self, receptacle: ReceptacleId) -> Set<ObjectId> {
        self.objects[usize::from(self.receptacles) + receptacle.index()]
    }

    fn taken_mut(&mut self, receptacle: ReceptacleId) -> &mut Set<ObjectId> {
        &mut self.objects[usize::from(self.receptacles) + receptacle.index()]
    }

    /// What lies at a location.
    pub(crate) fn lying(&self, location: LocationId) -> Set<ObjectId> {
        self.objects[2 * usize::from(self.receptacles) + location.index()]
    }

    pub(crate) fn lying_mut(&mut self, location: LocationId) -> &mut Set<ObjectId> {
        &mut self.objects[2 * usize::from(self.receptacles) + location.index()]
    }

    /// Whether one can reach into a receptacle: it has no door, or the door is open.
    pub fn accessible(&self, game: &Game, receptacle: ReceptacleId) -> bool {
        !game.openable().contains(receptacle) || self.opened.contains(receptacle)
    }

    /// Whether the command can be played now. `Help` and the wording of `Put` depend on the data
    /// version and are not judged here.
    pub fn admits(&self, game: &Game, command: Command) -> bool {
        let here = |r: ReceptacleId| game.location_of(r) == Some(self.place);
        match command {
            Command::Look | Command::Inventory | Command::Help => true,
            Command::GoTo(r) => game.location_of(r).is_some_and(|l| l != self.place),
            Command::Open(r) => here(r) && game.openable().contains(r) && self.may_open(game, r),
            Command::Close(r) => here(r) && game.openable().contains(r) && self.opened.contains(r),
            Command::Take { object, receptacle } => {
                self.held.is_none()
                    && here(receptacle)
                    && self.contents(receptacle).contains(object)
                    && game.pickupable().contains(object)
                    && self.accessible(game, receptacle)
            }
            Command::Put { object, receptacle } => {
                self.held == Some(object)
                    && here(receptacle)
                    && self.accessible(game, receptacle)
                    && game.can_contain(receptacle).contains(object)
            }
            Command::ExamineReceptacle(r) => here(r),
            Command::ExamineObject(o) => self.held == Some(o),
            Command::Use(o) => {
                game.toggleable().contains(o)
                    && if game.rules().use_by_location {
                        self.lying(self.place).contains(o)
                    } else {
                        game.receptacles_at(self.place).iter().any(|r| self.contents(r).contains(o))
                    }
            }
            Command::Treat { treatment, object, receptacle } => {
                self.held == Some(object)
                    && here(receptacle)
                    && game.treatable(treatment).contains(object)
                    && game.treats(treatment).contains(receptacle)
            }
            Command::Slice { object, tool } => {
                self.held == Some(tool)
                    && game.knives().contains(tool)
                    && game.sliceable().contains(object)
                    && self.lying(self.place).contains(object)
            }
        }
    }

    pub(crate) fn may_open(&self, game: &Game, receptacle: ReceptacleId) -> bool {
        if game.rules().one_open_at_a_time {
            self.opened.is_empty()
        } else {
            !self.opened.contains(receptacle)
        }
    }

    /// Plays a command; false, and nothing changed, where it is not admissible.
    pub fn apply(&mut self, game: &Game, command: Command) -> bool {
        let admitted = self.admits(game, command);
        if admitted {
            self.play(game, command);
        }
        admitted
    }

    /// Plays a command that is admissible.
    fn play(&mut self, game: &Game, command: Command) {
        match command {
            Command::GoTo(r) => self.place = game.location_of(r).unwrap_or(self.place),
            Command::Open(r) => self.opened.insert(r),
            Command::Close(r) => self.opened.remove(r),
            Command::Take { object, receptacle } => {
                self.contents_mut(receptacle).remove(object);
                self.taken_mut(receptacle).insert(object);
                self.lying_mut(self.place).remove(object);
                self.held = Some(object);
            }
            Command::Put { object, receptacle } => {
                self.contents_mut(receptacle).insert(object);
                self.taken_mut(receptacle).remove(object);
                self.lying_mut(self.place).insert(object);
                self.held = None;
            }
            Command::Treat { treatment, object, .. } => match treatment {
                Treatment::Clean => self.clean.insert(object),
                Treatment::Heat => {
                    self.hot.insert(object);
                    self.cool.remove(object);
                }
                Treatment::Cool => {
                    self.cool.insert(object);
                    self.hot.remove(object);
                }
            },
            Command::Use(o) => self.toggled.insert(o),
            Command::Slice { object, .. } => self.sliced.insert(object),
            Command::Look
            | Command::Inventory
            | Command::Help
            | Command::ExamineObject(_)
            | Command::ExamineReceptacle(_) => {}
        }
    }
}
