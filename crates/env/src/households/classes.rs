//! What exists in a household: classes of receptacles and objects, what each object affords, where
//! it may be put, and where it usually lies. Counted over the games of the ALFWorld train split.

use std::sync::LazyLock;

/// Can be picked up.
pub(crate) const PICK: u8 = 1;
/// Can be cleaned in a sink basin.
pub(crate) const CLEAN: u8 = 2;
/// Can be heated in a microwave.
pub(crate) const HEAT: u8 = 4;
/// Can be cooled in a fridge.
pub(crate) const COOL: u8 = 8;
/// Can be sliced.
pub(crate) const SLICE: u8 = 16;
/// Other things can lie in it.
pub(crate) const VESSEL: u8 = 32;
/// Can be switched on.
pub(crate) const TOGGLE: u8 = 64;

/// A class of receptacles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub(crate) enum Rec {
    ArmChair,
    BathtubBasin,
    Bed,
    Cabinet,
    Cart,
    CoffeeMachine,
    CoffeeTable,
    CounterTop,
    Desk,
    DiningTable,
    Drawer,
    Dresser,
    Fridge,
    GarbageCan,
    HandTowelHolder,
    LaundryHamper,
    Microwave,
    Ottoman,
    Safe,
    Shelf,
    SideTable,
    SinkBasin,
    Sofa,
    StoveBurner,
    TvStand,
    Toaster,
    Toilet,
    ToiletPaperHanger,
    TowelHolder,
}

/// How many classes of receptacles there are.
pub(crate) const RECEPTACLE_CLASSES: usize = 29;

/// What is known about a class of receptacles.
pub(crate) struct ReceptacleClass {
    pub(crate) rec: Rec,
    /// The name as the problem files spell it.
    pub(crate) name: &'static str,
    /// How many of 1,000 have a door.
    pub(crate) doors: u32,
    /// Object classes that may be put here.
    holds: &'static [&'static str],
}

/// What is known about a class of objects.
pub(crate) struct ObjectClass {
    /// The name as the problem files spell it.
    pub(crate) name: &'static str,
    /// What can be done with it: the bits above.
    pub(crate) affords: u8,
    /// Where it lies, most promising first, with how often one such receptacle holds one (percent).
    pub(crate) places: &'static [(Rec, u32)],
}

const fn receptacle(
    rec: Rec,
    name: &'static str,
    doors: u32,
    holds: &'static [&'static str],
) -> ReceptacleClass {
    ReceptacleClass { rec, name, doors, holds }
}

const fn object(name: &'static str, affords: u8, places: &'static [(Rec, u32)]) -> ObjectClass {
    ObjectClass { name, affords, places }
}

/// All classes of receptacles, in the order of [`Rec`].
#[rustfmt::skip]
pub(crate) static RECEPTACLES: [ReceptacleClass; RECEPTACLE_CLASSES] = [
    receptacle(Rec::ArmChair, "ArmChair", 0, &["Book", "Box", "CellPhone", "Cloth", "CreditCard", "KeyChain", "Laptop", "Newspaper", "Pillow", "RemoteControl"]),
    receptacle(Rec::BathtubBasin, "BathtubBasin", 0, &["Cloth", "DishSponge", "HandTowel", "SoapBar"]),
    receptacle(Rec::Bed, "Bed", 0, &["Book", "CellPhone", "Laptop", "Pillow"]),
    receptacle(Rec::Cabinet, "Cabinet", 880, &["Book", "Bowl", "Box", "CD", "Candle", "Cloth", "Cup", "DishSponge", "Glassbottle", "HandTowel", "Kettle", "Ladle", "Mug", "Newspaper", "Pan", "PepperShaker", "Plate", "Pot", "SaltShaker", "SoapBar", "SoapBottle", "SprayBottle", "TissueBox", "ToiletPaper", "Vase", "WateringCan", "WineBottle"]),
    receptacle(Rec::Cart, "Cart", 0, &["Candle", "Cloth", "DishSponge", "HandTowel", "SoapBar", "SoapBottle", "SprayBottle", "TissueBox", "ToiletPaper"]),
    receptacle(Rec::CoffeeMachine, "CoffeeMachine", 0, &["Mug"]),
    receptacle(Rec::CoffeeTable, "CoffeeTable", 0, &["Book", "Bowl", "Box", "Candle", "CellPhone", "CreditCard", "KeyChain", "Laptop", "Newspaper", "Pen", "Pencil", "Plate", "RemoteControl", "Statue", "TissueBox", "Vase", "Watch", "WateringCan"]),
    receptacle(Rec::CounterTop, "CounterTop", 0, &["AlarmClock", "Apple", "Book", "Bowl", "Bread", "ButterKnife", "CD", "Candle", "CellPhone", "Cloth", "CreditCard", "Cup", "DishSponge", "Egg", "Fork", "Glassbottle", "HandTowel", "Kettle", "KeyChain", "Knife", "Ladle", "Laptop", "Lettuce", "Mug", "Pan", "Pen", "Pencil", "PepperShaker", "Plate", "Pot", "Potato", "RemoteControl", "SaltShaker", "SoapBar", "SoapBottle", "Spatula", "Spoon", "SprayBottle", "Statue", "TissueBox", "ToiletPaper", "Tomato", "Vase", "WineBottle"]),
    receptacle(Rec::Desk, "Desk", 0, &["AlarmClock", "Book", "Bowl", "Box", "CD", "CellPhone", "Cloth", "CreditCard", "KeyChain", "Laptop", "Mug", "Pen", "Pencil", "RemoteControl", "Statue", "TissueBox", "Vase", "Watch", "WateringCan"]),
    receptacle(Rec::DiningTable, "DiningTable", 0, &["AlarmClock", "Apple", "Book", "Bowl", "Box", "Bread", "ButterKnife", "CD", "Candle", "CellPhone", "Cloth", "CreditCard", "Cup", "DishSponge", "Egg", "Fork", "Glassbottle", "Kettle", "KeyChain", "Knife", "Ladle", "Laptop", "Lettuce", "Mug", "Newspaper", "Pan", "Pen", "Pencil", "PepperShaker", "Plate", "Pot", "Potato", "RemoteControl", "SaltShaker", "SoapBottle", "Spatula", "Spoon", "SprayBottle", "Statue", "TissueBox", "Tomato", "Vase", "Watch", "WateringCan", "WineBottle"]),
    receptacle(Rec::Drawer, "Drawer", 900, &["Book", "ButterKnife", "CD", "Candle", "CellPhone", "Cloth", "CreditCard", "DishSponge", "Fork", "HandTowel", "KeyChain", "Knife", "Ladle", "Newspaper", "Pen", "Pencil", "PepperShaker", "RemoteControl", "SaltShaker", "SoapBar", "SoapBottle", "Spatula", "Spoon", "SprayBottle", "TissueBox", "ToiletPaper", "Watch", "WateringCan"]),
    receptacle(Rec::Dresser, "Dresser", 0, &["AlarmClock", "Book", "Bowl", "Box", "CD", "Candle", "CellPhone", "Cloth", "CreditCard", "KeyChain", "Laptop", "Mug", "Newspaper", "Pen", "Pencil", "Plate", "RemoteControl", "SprayBottle", "Statue", "TissueBox", "ToiletPaper", "Vase", "Watch", "WateringCan"]),
    receptacle(Rec::Fridge, "Fridge", 1000, &["Apple", "Bowl", "Bread", "Cup", "Egg", "Glassbottle", "Lettuce", "Mug", "Pan", "Plate", "Pot", "Potato", "Tomato", "WineBottle"]),
    receptacle(Rec::GarbageCan, "GarbageCan", 0, &["Apple", "Bread", "CD", "Cloth", "DishSponge", "Egg", "HandTowel", "Lettuce", "Newspaper", "Pen", "Pencil", "Potato", "SoapBar", "SoapBottle", "SprayBottle", "TissueBox", "ToiletPaper", "Tomato", "WineBottle"]),
    receptacle(Rec::HandTowelHolder, "HandTowelHolder", 0, &["HandTowel"]),
    receptacle(Rec::LaundryHamper, "LaundryHamper", 0, &["Cloth"]),
    receptacle(Rec::Microwave, "Microwave", 1000, &["Apple", "Bowl", "Bread", "Cup", "Egg", "Glassbottle", "Mug", "Plate", "Potato", "Tomato"]),
    receptacle(Rec::Ottoman, "Ottoman", 0, &["Book", "Box", "CellPhone", "CreditCard", "KeyChain", "Laptop", "Newspaper", "Pillow", "RemoteControl"]),
    receptacle(Rec::Safe, "Safe", 900, &["CD", "CellPhone", "CreditCard", "KeyChain", "Statue", "Vase", "Watch"]),
    receptacle(Rec::Shelf, "Shelf", 0, &["AlarmClock", "Book", "Bowl", "Box", "CD", "Candle", "CellPhone", "Cloth", "CreditCard", "Cup", "DishSponge", "Glassbottle", "HandTowel", "Kettle", "KeyChain", "Mug", "Newspaper", "Pen", "Pencil", "PepperShaker", "Plate", "Pot", "RemoteControl", "SaltShaker", "SoapBar", "SoapBottle", "SprayBottle", "Statue", "TissueBox", "ToiletPaper", "Vase", "Watch", "WateringCan", "WineBottle"]),
    receptacle(Rec::SideTable, "SideTable", 0, &["AlarmClock", "Apple", "Book", "Bowl", "Box", "Bread", "ButterKnife", "CD", "Candle", "CellPhone", "Cloth", "CreditCard", "Cup", "DishSponge", "Egg", "Fork", "HandTowel", "Kettle", "KeyChain", "Knife", "Laptop", "Lettuce", "Mug", "Newspaper", "Pan", "Pen", "Pencil", "PepperShaker", "Plate", "Pot", "Potato", "RemoteControl", "SaltShaker", "SoapBar", "SoapBottle", "Spatula", "Spoon", "SprayBottle", "Statue", "TissueBox", "ToiletPaper", "Tomato", "Vase", "Watch", "WateringCan", "WineBottle"]),
    receptacle(Rec::SinkBasin, "SinkBasin", 0, &["Apple", "Bowl", "ButterKnife", "Cloth", "Cup", "DishSponge", "Egg", "Fork", "Glassbottle", "HandTowel", "Kettle", "Knife", "Ladle", "Lettuce", "Mug", "Pan", "Plate", "Pot", "Potato", "SoapBar", "Spatula", "Spoon", "Tomato"]),
    receptacle(Rec::Sofa, "Sofa", 0, &["Book", "Box", "CellPhone", "CreditCard", "KeyChain", "Laptop", "Newspaper", "Pillow", "RemoteControl"]),
    receptacle(Rec::StoveBurner, "StoveBurner", 0, &["Kettle", "Pan", "Pot"]),
    receptacle(Rec::TvStand, "TVStand", 0, &["TissueBox"]),
    receptacle(Rec::Toaster, "Toaster", 0, &[]),
    receptacle(Rec::Toilet, "Toilet", 0, &["Candle", "Cloth", "DishSponge", "HandTowel", "SoapBar", "SoapBottle", "SprayBottle", "TissueBox", "ToiletPaper"]),
    receptacle(Rec::ToiletPaperHanger, "ToiletPaperHanger", 0, &["ToiletPaper"]),
    receptacle(Rec::TowelHolder, "TowelHolder", 0, &["Towel"]),
];

/// Classes of objects that lie in receptacles.
#[rustfmt::skip]
pub(crate) static OBJECTS: &[ObjectClass] = &[
    object("AlarmClock", PICK, &[(Rec::DiningTable, 97), (Rec::Desk, 75), (Rec::Dresser, 57), (Rec::SideTable, 39), (Rec::Shelf, 12)]),
    object("Apple", PICK | CLEAN | HEAT | COOL | SLICE, &[(Rec::DiningTable, 40), (Rec::GarbageCan, 25), (Rec::Fridge, 49), (Rec::CounterTop, 21), (Rec::SinkBasin, 18), (Rec::Microwave, 26)]),
    object("Book", PICK, &[(Rec::Bed, 82), (Rec::CoffeeTable, 61), (Rec::Desk, 46), (Rec::CounterTop, 38), (Rec::DiningTable, 35), (Rec::Dresser, 25), (Rec::ArmChair, 14)]),
    object("Bowl", PICK | CLEAN | COOL | VESSEL, &[(Rec::Desk, 95), (Rec::DiningTable, 41), (Rec::Fridge, 40), (Rec::CounterTop, 18), (Rec::Shelf, 10), (Rec::SinkBasin, 6), (Rec::Microwave, 5)]),
    object("Box", PICK | VESSEL, &[(Rec::DiningTable, 48), (Rec::CoffeeTable, 27), (Rec::Sofa, 24), (Rec::Desk, 14), (Rec::Dresser, 5), (Rec::SideTable, 5), (Rec::ArmChair, 3)]),
    object("Bread", PICK | HEAT | COOL | SLICE, &[(Rec::DiningTable, 64), (Rec::CounterTop, 38), (Rec::Fridge, 19)]),
    object("ButterKnife", PICK | CLEAN, &[(Rec::DiningTable, 62), (Rec::CounterTop, 46), (Rec::SinkBasin, 10), (Rec::Drawer, 3)]),
    object("CD", PICK, &[(Rec::DiningTable, 83), (Rec::Dresser, 48), (Rec::Desk, 46), (Rec::SideTable, 27), (Rec::GarbageCan, 14), (Rec::Shelf, 4), (Rec::Drawer, 9)]),
    object("Candle", PICK, &[(Rec::SideTable, 76), (Rec::CounterTop, 57), (Rec::Toilet, 56), (Rec::CoffeeTable, 45), (Rec::Shelf, 25), (Rec::Cabinet, 13), (Rec::Drawer, 9)]),
    object("CellPhone", PICK, &[(Rec::Bed, 52), (Rec::Desk, 47), (Rec::DiningTable, 47), (Rec::Dresser, 41), (Rec::CounterTop, 29), (Rec::SideTable, 21), (Rec::ArmChair, 18)]),
    object("Cloth", PICK | CLEAN, &[(Rec::BathtubBasin, 87), (Rec::CounterTop, 32), (Rec::SinkBasin, 11), (Rec::Cabinet, 19), (Rec::Toilet, 6), (Rec::Shelf, 5), (Rec::Drawer, 8)]),
    object("CreditCard", PICK, &[(Rec::Desk, 46), (Rec::Dresser, 43), (Rec::DiningTable, 41), (Rec::Sofa, 35), (Rec::CounterTop, 32), (Rec::CoffeeTable, 32), (Rec::SideTable, 25)]),
    object("Cup", PICK | CLEAN | HEAT | COOL | VESSEL, &[(Rec::DiningTable, 38), (Rec::Fridge, 41), (Rec::SinkBasin, 18), (Rec::CounterTop, 18), (Rec::Microwave, 14), (Rec::Cabinet, 3)]),
    object("DeskLamp", TOGGLE, &[(Rec::SideTable, 42), (Rec::Desk, 40), (Rec::Dresser, 36), (Rec::Shelf, 4)]),
    object("DishSponge", PICK | CLEAN, &[(Rec::DiningTable, 33), (Rec::CounterTop, 23), (Rec::SinkBasin, 15), (Rec::GarbageCan, 11), (Rec::Shelf, 10), (Rec::Drawer, 7), (Rec::Cabinet, 3)]),
    object("Egg", PICK | CLEAN | HEAT | COOL | SLICE, &[(Rec::DiningTable, 31), (Rec::SinkBasin, 25), (Rec::Fridge, 50), (Rec::GarbageCan, 25), (Rec::CounterTop, 20), (Rec::Microwave, 23)]),
    object("Fork", PICK | CLEAN, &[(Rec::DiningTable, 59), (Rec::CounterTop, 37), (Rec::SinkBasin, 17), (Rec::Drawer, 7)]),
    object("Glassbottle", PICK, &[(Rec::DiningTable, 44), (Rec::CounterTop, 20), (Rec::SinkBasin, 18), (Rec::Fridge, 18), (Rec::Shelf, 9), (Rec::Cabinet, 4)]),
    object("HandTowel", PICK, &[(Rec::HandTowelHolder, 79), (Rec::CounterTop, 5)]),
    object("HousePlant", 0, &[(Rec::Desk, 43), (Rec::DiningTable, 32), (Rec::CounterTop, 32), (Rec::Dresser, 21), (Rec::SideTable, 18), (Rec::CoffeeTable, 17), (Rec::Shelf, 4)]),
    object("Kettle", PICK | CLEAN, &[(Rec::DiningTable, 24), (Rec::StoveBurner, 17), (Rec::CounterTop, 17), (Rec::Cabinet, 3)]),
    object("KeyChain", PICK, &[(Rec::Desk, 44), (Rec::Dresser, 41), (Rec::CoffeeTable, 32), (Rec::DiningTable, 31), (Rec::SideTable, 25), (Rec::Safe, 44), (Rec::Sofa, 16)]),
    object("Knife", PICK | CLEAN, &[(Rec::DiningTable, 62), (Rec::CounterTop, 39), (Rec::SinkBasin, 9), (Rec::Drawer, 6)]),
    object("Ladle", PICK | CLEAN, &[(Rec::DiningTable, 64), (Rec::CounterTop, 34), (Rec::SinkBasin, 4), (Rec::Drawer, 4), (Rec::Cabinet, 4)]),
    object("Laptop", PICK, &[(Rec::Bed, 103), (Rec::DiningTable, 46), (Rec::Desk, 38), (Rec::CoffeeTable, 34), (Rec::Sofa, 32), (Rec::Dresser, 17), (Rec::ArmChair, 5)]),
    object("Lettuce", PICK | CLEAN | COOL | SLICE, &[(Rec::DiningTable, 66), (Rec::CounterTop, 32), (Rec::Fridge, 41), (Rec::SinkBasin, 9)]),
    object("Mug", PICK | CLEAN | HEAT | COOL | VESSEL, &[(Rec::Desk, 86), (Rec::Dresser, 47), (Rec::CoffeeMachine, 38), (Rec::DiningTable, 33), (Rec::SideTable, 28), (Rec::CounterTop, 27), (Rec::Fridge, 30)]),
    object("Newspaper", PICK, &[(Rec::DiningTable, 57), (Rec::Dresser, 46), (Rec::CoffeeTable, 34), (Rec::Sofa, 30), (Rec::SideTable, 14), (Rec::ArmChair, 12), (Rec::Shelf, 12)]),
    object("Pan", PICK | CLEAN | COOL | VESSEL, &[(Rec::CounterTop, 26), (Rec::StoveBurner, 23), (Rec::DiningTable, 10), (Rec::Fridge, 7), (Rec::Cabinet, 1)]),
    object("PaperTowelRoll", PICK, &[(Rec::DiningTable, 41), (Rec::Toilet, 25), (Rec::CounterTop, 22), (Rec::GarbageCan, 14), (Rec::Shelf, 10)]),
    object("Pen", PICK, &[(Rec::DiningTable, 91), (Rec::Desk, 75), (Rec::CoffeeTable, 65), (Rec::Dresser, 63), (Rec::CounterTop, 36), (Rec::SideTable, 32), (Rec::Shelf, 11)]),
    object("Pencil", PICK, &[(Rec::DiningTable, 67), (Rec::Desk, 61), (Rec::CoffeeTable, 54), (Rec::Dresser, 44), (Rec::SideTable, 40), (Rec::CounterTop, 28), (Rec::Shelf, 12)]),
    object("PepperShaker", PICK, &[(Rec::DiningTable, 45), (Rec::SideTable, 43), (Rec::CounterTop, 28), (Rec::Shelf, 10), (Rec::Drawer, 5), (Rec::Cabinet, 5)]),
    object("Pillow", PICK, &[(Rec::Bed, 145), (Rec::Sofa, 76), (Rec::ArmChair, 14)]),
    object("Plate", PICK | CLEAN | HEAT | COOL | VESSEL, &[(Rec::DiningTable, 41), (Rec::CoffeeTable, 31), (Rec::CounterTop, 23), (Rec::Fridge, 16), (Rec::Shelf, 6), (Rec::SinkBasin, 4), (Rec::Cabinet, 5)]),
    object("Pot", PICK | CLEAN | COOL | VESSEL, &[(Rec::StoveBurner, 33), (Rec::CounterTop, 11), (Rec::DiningTable, 10), (Rec::Fridge, 8), (Rec::Cabinet, 1)]),
    object("Potato", PICK | CLEAN | HEAT | COOL | SLICE, &[(Rec::DiningTable, 42), (Rec::Fridge, 51), (Rec::CounterTop, 24), (Rec::SinkBasin, 21), (Rec::GarbageCan, 12), (Rec::Microwave, 20)]),
    object("RemoteControl", PICK, &[(Rec::Desk, 67), (Rec::CoffeeTable, 46), (Rec::Dresser, 38), (Rec::DiningTable, 37), (Rec::Sofa, 30), (Rec::SideTable, 16), (Rec::ArmChair, 11)]),
    object("SaltShaker", PICK, &[(Rec::DiningTable, 46), (Rec::SideTable, 43), (Rec::CounterTop, 27), (Rec::Shelf, 9), (Rec::Drawer, 5), (Rec::Cabinet, 5)]),
    object("SoapBar", PICK | CLEAN, &[(Rec::CounterTop, 38), (Rec::BathtubBasin, 35), (Rec::Toilet, 30), (Rec::SinkBasin, 20), (Rec::Shelf, 15), (Rec::GarbageCan, 13), (Rec::Cabinet, 12)]),
    object("SoapBottle", PICK, &[(Rec::DiningTable, 52), (Rec::Toilet, 43), (Rec::CounterTop, 31), (Rec::GarbageCan, 19), (Rec::Shelf, 16), (Rec::Cabinet, 5)]),
    object("Spatula", PICK | CLEAN, &[(Rec::DiningTable, 62), (Rec::CounterTop, 37), (Rec::SinkBasin, 16), (Rec::Drawer, 7)]),
    object("Spoon", PICK | CLEAN, &[(Rec::DiningTable, 56), (Rec::CounterTop, 32), (Rec::SinkBasin, 21), (Rec::Drawer, 9)]),
    object("SprayBottle", PICK, &[(Rec::SideTable, 88), (Rec::Cart, 87), (Rec::Toilet, 54), (Rec::CounterTop, 50), (Rec::DiningTable, 37), (Rec::Shelf, 27), (Rec::GarbageCan, 21)]),
    object("Statue", PICK, &[(Rec::DiningTable, 68), (Rec::Desk, 66), (Rec::CoffeeTable, 58), (Rec::Dresser, 43), (Rec::CounterTop, 34), (Rec::SideTable, 25), (Rec::Shelf, 20)]),
    object("TeddyBear", PICK, &[(Rec::Bed, 62)]),
    object("Television", 0, &[(Rec::Dresser, 78), (Rec::TvStand, 76), (Rec::CoffeeTable, 6), (Rec::SideTable, 1)]),
    object("TissueBox", PICK, &[(Rec::Desk, 83), (Rec::CoffeeTable, 82), (Rec::CounterTop, 77), (Rec::DiningTable, 63), (Rec::TvStand, 34), (Rec::Shelf, 25), (Rec::SideTable, 21)]),
    object("ToiletPaper", PICK, &[(Rec::Toilet, 46), (Rec::CounterTop, 44), (Rec::ToiletPaperHanger, 23), (Rec::Shelf, 21), (Rec::GarbageCan, 19), (Rec::Cabinet, 11), (Rec::Drawer, 8)]),
    object("Tomato", PICK | CLEAN | HEAT | COOL | SLICE, &[(Rec::DiningTable, 52), (Rec::Fridge, 66), (Rec::CounterTop, 26), (Rec::GarbageCan, 18), (Rec::SinkBasin, 13)]),
    object("Towel", PICK, &[(Rec::TowelHolder, 87)]),
    object("Vase", PICK, &[(Rec::Dresser, 103), (Rec::CoffeeTable, 55), (Rec::DiningTable, 49), (Rec::CounterTop, 32), (Rec::Shelf, 24), (Rec::SideTable, 20), (Rec::Cabinet, 6)]),
    object("Watch", PICK, &[(Rec::Desk, 63), (Rec::DiningTable, 51), (Rec::Dresser, 48), (Rec::CoffeeTable, 46), (Rec::SideTable, 25), (Rec::Shelf, 5), (Rec::Drawer, 10)]),
    object("WateringCan", PICK, &[(Rec::Shelf, 19), (Rec::CoffeeTable, 17), (Rec::SideTable, 1)]),
    object("WineBottle", PICK | COOL, &[(Rec::DiningTable, 61), (Rec::CounterTop, 37), (Rec::GarbageCan, 17), (Rec::Shelf, 6), (Rec::Cabinet, 4)]),
];

/// Which objects each class of receptacles may hold, as a bit mask over [`OBJECTS`].
static HOLDS: LazyLock<[u64; RECEPTACLE_CLASSES]> = LazyLock::new(|| {
    let mut masks = [0; RECEPTACLE_CLASSES];
    for class in &RECEPTACLES {
        for (index, object) in OBJECTS.iter().enumerate() {
            if class.holds.contains(&object.name) {
                masks[class.rec as usize] |= 1 << index;
            }
        }
    }
    masks
});

/// Whether an object of a class (index into [`OBJECTS`]) may be put into a receptacle of a class.
pub(crate) fn can_contain(rec: Rec, object: usize) -> bool {
    HOLDS[rec as usize] >> object & 1 == 1
}

/// The class of objects with a name in any case.
pub(crate) fn object_class(name: &str) -> Option<usize> {
    OBJECTS.iter().position(|class| class.name.eq_ignore_ascii_case(name))
}

/// The class of receptacles with a name in any case.
pub(crate) fn receptacle_class(name: &str) -> Option<Rec> {
    RECEPTACLES.iter().find(|class| class.name.eq_ignore_ascii_case(name)).map(|class| class.rec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_agree() {
        assert!(OBJECTS.len() <= 64);
        for (index, class) in RECEPTACLES.iter().enumerate() {
            assert_eq!(class.rec as usize, index);
            for name in class.holds {
                assert!(object_class(name).is_some(), "{name}");
            }
        }
        for (index, class) in OBJECTS.iter().enumerate() {
            assert_eq!(object_class(class.name), Some(index));
            assert!(!class.places.is_empty(), "{}", class.name);
        }
    }
}
