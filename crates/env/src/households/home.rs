//! One generated home: a room, what stands in it, what lies where, and the task. Everything is drawn
//! from (split, index), so a task's identifier is all that is needed to make it again.

use super::classes::{OBJECTS, RECEPTACLES, Rec, can_contain, object_class};
use super::kind::needs;
use super::rooms::{ROOMS, Room};
use super::vocabulary::highest;
use crate::Split;
use crate::alfworld::TaskKind;
use crate::dice::{Dice, mix};

/// A new number changes every generated home; goldens and trained policies depend on it.
const GENERATION: u64 = 1;

/// One in this many layouts, and one in this many goal pairs, is kept for the unseen split.
const HELD_OUT: u64 = 5;

/// A receptacle of a home.
#[derive(Clone, Debug)]
pub(crate) struct Receptacle {
    pub(crate) rec: Rec,
    /// The k of the display name "class k".
    pub(crate) number: usize,
    /// The location's number.
    pub(crate) location: usize,
    pub(crate) door: bool,
}

/// An object of a home.
#[derive(Clone, Debug)]
pub(crate) struct Thing {
    /// The class as the problem files spell it.
    pub(crate) class: &'static str,
    pub(crate) affords: u8,
    /// The k of the display name "class k".
    pub(crate) number: usize,
    /// The receptacle it lies in.
    pub(crate) place: usize,
}

/// A home with its task.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    pub(crate) kind: TaskKind,
    pub(crate) room: &'static str,
    pub(crate) receptacles: Vec<Receptacle>,
    pub(crate) things: Vec<Thing>,
    /// The class to handle, as the problem files spell it.
    pub(crate) object: &'static str,
    /// Where it has to go, or the lamp: a class as the problem files spell it.
    pub(crate) target: &'static str,
    /// Which of the two wordings the task has.
    pub(crate) wording: bool,
    /// The number of the location where the agent starts; nothing stands there.
    pub(crate) start: usize,
}

const LAMP: &str = "DeskLamp";
const LAMP_PLACES: [(Rec, u32); 4] =
    [(Rec::SideTable, 42), (Rec::Desk, 40), (Rec::Dresser, 36), (Rec::Shelf, 4)];

/// The kind of the task at an index: every six in a row are the six kinds, in an order of their own,
/// so that a panel of any size is balanced.
pub(crate) fn kind_at(split: Split, index: u64) -> TaskKind {
    let mut kinds = TaskKind::ALL;
    Dice::new(mix(stream(split), !(index / 6))).shuffle(&mut kinds);
    kinds[(index % 6) as usize]
}

fn stream(split: Split) -> u64 {
    mix(
        0x686f_6d65_7300 + GENERATION,
        match split {
            Split::Train => 1,
            Split::Seen => 2,
            Split::Unseen => 3,
        },
    )
}

fn text_hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Whether a goal pair belongs to the unseen split.
pub(crate) fn pair_held_out(object: &str, target: &str) -> bool {
    mix(text_hash(object), text_hash(target)).is_multiple_of(HELD_OUT)
}

/// How many receptacles of each class a room has.
type Layout = Vec<(Rec, usize)>;

/// Whether a layout belongs to the unseen split.
pub(crate) fn layout_held_out(layout: &[(Rec, usize)]) -> bool {
    let mut sorted: Vec<(usize, usize)> = layout
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(rec, count)| (*rec as usize, *count))
        .collect();
    sorted.sort_unstable();
    sorted
        .iter()
        .fold(GENERATION, |hash, (rec, count)| mix(hash, (rec * 100 + count) as u64))
        .is_multiple_of(HELD_OUT)
}

impl Home {
    /// The home at an index of a split. Draws until one keeps the rules of the split, which each
    /// draw does with a probability well above one in a hundred.
    pub(crate) fn generate(split: Split, index: u64) -> Self {
        let kind = kind_at(split, index);
        let seed = mix(stream(split), index);
        let mut attempt = 0;
        loop {
            if let Some(home) = draw(split, kind, &mut Dice::new(mix(seed, attempt))) {
                return home;
            }
            attempt += 1;
        }
    }

    /// The layout: sorted receptacle counts by class.
    #[cfg(test)]
    pub(crate) fn layout(&self) -> Layout {
        let mut layout: Layout = Vec::new();
        for class in &RECEPTACLES {
            let count = self.receptacles.iter().filter(|r| r.rec == class.rec).count();
            if count > 0 {
                layout.push((class.rec, count));
            }
        }
        layout
    }
}

fn rooms_for(kind: TaskKind) -> &'static [usize] {
    match kind {
        TaskKind::LookAtObjInLight => &[1, 1, 1, 2, 2, 4, 6],
        TaskKind::PickAndPlaceSimple | TaskKind::PickTwoObjAndPlace => {
            &[0, 0, 1, 1, 2, 2, 3, 3, 4, 5, 6]
        }
        TaskKind::PickCleanThenPlaceInRecep => &[0, 0, 0, 3, 3, 4, 5, 6],
        TaskKind::PickHeatThenPlaceInRecep | TaskKind::PickCoolThenPlaceInRecep => &[0, 0, 0, 4, 5],
    }
}

fn draw_layout(room: &Room, dice: &mut Dice) -> Layout {
    let mut layout: Layout =
        room.receptacles.iter().map(|(rec, low, high)| (*rec, dice.range(*low, *high))).collect();
    // A grand room shows the high numbers ("cabinet 23") that real homes have.
    if dice.chance(0.12)
        && let Some(&grand) = dice.pick(room.grand)
        && let Some((_, count)) = layout.iter_mut().find(|(rec, _)| *rec == grand)
    {
        let most = highest(RECEPTACLES[grand as usize].name);
        let low = *count + 1;
        *count = dice.range(low, most.max(low)).max(dice.range(low, most.max(low))).min(most);
    }
    layout
}

fn draw(split: Split, kind: TaskKind, dice: &mut Dice) -> Option<Home> {
    let unseen = split == Split::Unseen;
    let room = &ROOMS[*dice.pick(rooms_for(kind))?];
    let layout = draw_layout(room, dice);
    let total: usize = layout.iter().map(|(_, count)| count).sum();
    if total < 8 || layout_held_out(&layout) != unseen {
        return None;
    }
    let has = |rec: Rec| layout.iter().any(|(class, count)| *class == rec && *count > 0);
    if kind == TaskKind::LookAtObjInLight && !LAMP_PLACES.iter().any(|(rec, _)| has(*rec)) {
        return None;
    }

    let (object, target) = draw_goal(kind, room, &has, unseen, dice)?;
    let mut receptacles = Vec::with_capacity(total);
    for (rec, count) in &layout {
        let doors = RECEPTACLES[*rec as usize].doors;
        for number in 1..=*count {
            receptacles.push(Receptacle {
                rec: *rec,
                number,
                location: receptacles.len() + 1,
                door: doors > 0 && dice.chance(f64::from(doors) / 1000.0),
            });
        }
    }
    // Neighbours sometimes share a place to stand, as they do in real homes.
    if dice.chance(0.2) {
        for _ in 0..dice.range(1, 2) {
            let second = dice.range(1, total - 1);
            if receptacles[second].rec == receptacles[second - 1].rec {
                receptacles[second].location = receptacles[second - 1].location;
            }
        }
    }

    let mut filler = Filler { load: vec![0; total], receptacles: &receptacles, things: Vec::new() };
    filler.place_goal(kind, object, target, dice)?;
    filler.place_others(room, object, dice);
    let mut things = filler.things;
    // Numbers carry no meaning: the object of the task is not always the first of its class.
    dice.shuffle(&mut things);
    number(&mut things);
    Some(Home {
        kind,
        room: room.name,
        things,
        object: OBJECTS[object].name,
        target: target.map_or(LAMP, |rec| RECEPTACLES[rec as usize].name),
        wording: dice.chance(0.5),
        start: total + 1,
        receptacles,
    })
}

/// The object's class and the target's (none for the lamp).
fn draw_goal(
    kind: TaskKind,
    room: &Room,
    has: &impl Fn(Rec) -> bool,
    unseen: bool,
    dice: &mut Dice,
) -> Option<(usize, Option<Rec>)> {
    let tool = match kind {
        TaskKind::PickCleanThenPlaceInRecep => Some(Rec::SinkBasin),
        TaskKind::PickHeatThenPlaceInRecep => Some(Rec::Microwave),
        TaskKind::PickCoolThenPlaceInRecep => Some(Rec::Fridge),
        _ => None,
    };
    for _ in 0..6 {
        let list = dice.pick(room.objects)?;
        let object = object_class(dice.pick(list)?)?;
        let class = &OBJECTS[object];
        if class.affords & needs(kind) != needs(kind) {
            continue;
        }
        let source_besides = |target: Option<Rec>| {
            class.places.iter().any(|(rec, _)| has(*rec) && Some(*rec) != target)
        };
        if kind == TaskKind::LookAtObjInLight {
            if pair_held_out(class.name, LAMP) == unseen && source_besides(None) {
                return Some((object, None));
            }
            continue;
        }
        let mut targets = [Rec::Bed; RECEPTACLES.len()];
        let mut count = 0;
        for class_of in &RECEPTACLES {
            let rec = class_of.rec;
            if has(rec)
                && can_contain(rec, object)
                && Some(rec) != tool
                && pair_held_out(class.name, class_of.name) == unseen
                && source_besides(Some(rec))
            {
                targets[count] = rec;
                count += 1;
            }
        }
        if let Some(&target) = dice.pick(&targets[..count]) {
            return Some((object, Some(target)));
        }
    }
    None
}

/// Puts objects into receptacles.
struct Filler<'a> {
    load: Vec<usize>,
    receptacles: &'a [Receptacle],
    things: Vec<Thing>,
}

impl Filler<'_> {
    /// Puts one object of a class where such objects lie, but not into an excluded class.
    fn place(
        &mut self,
        class: &'static str,
        affords: u8,
        places: &[(Rec, u32)],
        excluded: Option<Rec>,
        dice: &mut Dice,
    ) -> Option<usize> {
        let mut weights = [0_u32; 128];
        let count = self.receptacles.len().min(weights.len());
        for (weight, (receptacle, load)) in
            weights.iter_mut().zip(self.receptacles.iter().zip(&self.load))
        {
            let room = match receptacle.rec {
                Rec::CounterTop | Rec::DiningTable => 6,
                Rec::CoffeeMachine
                | Rec::StoveBurner
                | Rec::ToiletPaperHanger
                | Rec::TowelHolder => 1,
                _ => 4,
            };
            if *load < room && Some(receptacle.rec) != excluded {
                *weight =
                    places.iter().find(|(rec, _)| *rec == receptacle.rec).map_or(0, |(_, w)| *w);
            }
        }
        let place = dice.weighted(&weights[..count])?;
        self.load[place] += 1;
        self.things.push(Thing { class, affords, number: 0, place });
        Some(place)
    }

    fn place_goal(
        &mut self,
        kind: TaskKind,
        object: usize,
        target: Option<Rec>,
        dice: &mut Dice,
    ) -> Option<()> {
        let class = &OBJECTS[object];
        let copies = match (kind, dice.weighted(&[55, 30, 15])?) {
            (TaskKind::PickTwoObjAndPlace, more) => 2 + more,
            (_, more) => 1 + more,
        };
        for copy in 0..copies.min(highest(class.name)) {
            // Later copies may already stand at the target where that does not solve the task.
            let at_target = copy > 0
                && matches!(
                    kind,
                    TaskKind::PickCleanThenPlaceInRecep
                        | TaskKind::PickHeatThenPlaceInRecep
                        | TaskKind::PickCoolThenPlaceInRecep
                )
                && dice.chance(0.15);
            let excluded = if at_target { None } else { target };
            self.place(class.name, class.affords, class.places, excluded, dice)?;
        }
        if kind == TaskKind::PickTwoObjAndPlace
            && dice.chance(0.1)
            && let Some(target) = target
            && let Some(index) = self.receptacles.iter().position(|r| r.rec == target)
            && let Some(first) = self.things.first_mut()
        {
            self.load[first.place] -= 1;
            self.load[index] += 1;
            first.place = index;
        }
        let lamps = if kind == TaskKind::LookAtObjInLight {
            dice.range(1, 2)
        } else {
            usize::from(dice.chance(0.4))
        };
        for lamp in 0..lamps {
            let placed = self.place(LAMP, super::classes::TOGGLE, &LAMP_PLACES, None, dice);
            if kind == TaskKind::LookAtObjInLight && lamp == 0 {
                placed?;
            }
        }
        Some(())
    }

    fn place_others(&mut self, room: &Room, goal: usize, dice: &mut Dice) {
        let receptacles = self.receptacles.len();
        let wanted = dice.range(receptacles * 6 / 10, receptacles * 14 / 10).clamp(7, 26);
        let mut used = 1_u64 << goal;
        for _ in 0..wanted * 2 {
            if self.things.len() >= wanted {
                break;
            }
            let Some(class) = dice
                .pick(room.objects)
                .and_then(|list| dice.pick(list))
                .and_then(|n| object_class(n))
            else {
                continue;
            };
            if used >> class & 1 == 1 {
                continue;
            }
            used |= 1 << class;
            let copies = 1 + dice.weighted(&[58, 24, 11, 7]).unwrap_or(0);
            let object = &OBJECTS[class];
            for _ in 0..copies.min(highest(object.name)) {
                if self.place(object.name, object.affords, object.places, None, dice).is_none() {
                    break;
                }
            }
        }
        for fixture in ["HousePlant", "Television"] {
            if dice.chance(0.3)
                && let Some(class) = object_class(fixture)
            {
                self.place(fixture, 0, OBJECTS[class].places, None, dice);
            }
        }
    }
}

/// Numbers the objects of each class.
fn number(things: &mut [Thing]) {
    for index in 0..things.len() {
        let class = things[index].class;
        things[index].number =
            1 + things[..index].iter().filter(|thing| thing.class == class).count();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_six_tasks_are_the_six_kinds() {
        for block in 0..50 {
            let mut kinds: Vec<TaskKind> =
                (0..6).map(|i| kind_at(Split::Train, block * 6 + i)).collect();
            kinds.sort();
            kinds.dedup();
            assert_eq!(kinds.len(), 6);
        }
    }

    #[test]
    fn splits_share_no_layout_and_no_goal_pair() {
        for index in 0..1500 {
            for split in [Split::Train, Split::Seen, Split::Unseen] {
                let home = Home::generate(split, index);
                assert_eq!(layout_held_out(&home.layout()), split == Split::Unseen);
                assert_eq!(pair_held_out(home.object, home.target), split == Split::Unseen);
                assert!(home.receptacles.len() >= 8);
            }
        }
    }

    #[test]
    fn numbers_stay_within_the_vocabulary_and_reach_its_end() {
        let mut top = [0_usize; RECEPTACLES.len()];
        for index in 0..6000 {
            let home = Home::generate(Split::Train, index);
            for receptacle in &home.receptacles {
                assert!(receptacle.number <= highest(RECEPTACLES[receptacle.rec as usize].name));
                top[receptacle.rec as usize] = top[receptacle.rec as usize].max(receptacle.number);
            }
            for thing in &home.things {
                assert!(thing.number <= highest(thing.class), "{} {}", thing.class, thing.number);
            }
        }
        for class in &RECEPTACLES {
            assert_eq!(top[class.rec as usize], highest(class.name), "{}", class.name);
        }
    }
}
