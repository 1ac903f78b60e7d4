//! Room types: which receptacles stand in them and which objects lie about.

use super::classes::Rec;

/// A type of room.
pub(crate) struct Room {
    /// Its name, for descriptions.
    pub(crate) name: &'static str,
    /// Receptacle classes with the fewest and the most that an ordinary room has.
    pub(crate) receptacles: &'static [(Rec, usize, usize)],
    /// Classes of which a grand room has more, up to the highest number in ALFWorld.
    pub(crate) grand: &'static [Rec],
    /// Object classes that lie about.
    pub(crate) objects: &'static [&'static [&'static str]],
}

const FOOD: &[&str] = &["Apple", "Bread", "Egg", "Lettuce", "Potato", "Tomato", "WineBottle"];
const COOKING: &[&str] = &[
    "ButterKnife",
    "Fork",
    "Knife",
    "Ladle",
    "Spatula",
    "Spoon",
    "Pan",
    "Pot",
    "Kettle",
    "DishSponge",
];
const DISHES: &[&str] =
    &["Bowl", "Cup", "Glassbottle", "Mug", "Plate", "PepperShaker", "SaltShaker", "SoapBottle"];
const DESK: &[&str] =
    &["AlarmClock", "Book", "CD", "CellPhone", "CreditCard", "KeyChain", "Laptop", "Pen", "Pencil"];
const BEDROOM: &[&str] = &["Pillow", "Mug", "Bowl", "Box", "Cloth", "TeddyBear", "TissueBox"];
const LIVING: &[&str] = &[
    "Box",
    "CreditCard",
    "KeyChain",
    "Laptop",
    "Newspaper",
    "Pillow",
    "Plate",
    "RemoteControl",
    "Statue",
    "TissueBox",
    "Vase",
    "Watch",
    "WateringCan",
];
const BATH: &[&str] = &[
    "Candle",
    "Cloth",
    "DishSponge",
    "HandTowel",
    "SoapBar",
    "SoapBottle",
    "SprayBottle",
    "TissueBox",
    "ToiletPaper",
    "Towel",
    "PaperTowelRoll",
];
const ORNAMENTS: &[&str] = &["Statue", "Vase", "Candle"];

/// All types of rooms; the last three are mixes.
#[rustfmt::skip]
pub(crate) static ROOMS: &[Room] = &[
    Room {
        name: "kitchen",
        receptacles: &[
            (Rec::SinkBasin, 1, 1), (Rec::Fridge, 1, 1), (Rec::Microwave, 1, 1), (Rec::CoffeeMachine, 0, 1),
            (Rec::Toaster, 0, 1), (Rec::GarbageCan, 1, 1), (Rec::CounterTop, 1, 3), (Rec::Cabinet, 1, 5),
            (Rec::Drawer, 1, 4), (Rec::StoveBurner, 1, 3), (Rec::DiningTable, 0, 2), (Rec::SideTable, 0, 1),
            (Rec::Shelf, 0, 2), (Rec::Safe, 0, 1),
        ],
        grand: &[Rec::Cabinet, Rec::Cabinet, Rec::Drawer, Rec::Drawer, Rec::CounterTop, Rec::StoveBurner, Rec::DiningTable],
        objects: &[FOOD, COOKING, DISHES],
    },
    Room {
        name: "bedroom",
        receptacles: &[
            (Rec::Bed, 1, 2), (Rec::Desk, 0, 2), (Rec::Drawer, 2, 6), (Rec::SideTable, 1, 2), (Rec::Shelf, 0, 5),
            (Rec::Dresser, 0, 2), (Rec::GarbageCan, 1, 1), (Rec::LaundryHamper, 0, 1), (Rec::Safe, 0, 1),
            (Rec::ArmChair, 0, 2), (Rec::Cabinet, 0, 2), (Rec::DiningTable, 0, 1),
        ],
        grand: &[Rec::Drawer, Rec::Drawer, Rec::Shelf, Rec::Shelf, Rec::ArmChair, Rec::Cabinet],
        objects: &[DESK, DESK, BEDROOM, ORNAMENTS],
    },
    Room {
        name: "living room",
        receptacles: &[
            (Rec::Sofa, 1, 2), (Rec::ArmChair, 1, 2), (Rec::CoffeeTable, 0, 2), (Rec::SideTable, 1, 3),
            (Rec::TvStand, 0, 1), (Rec::Dresser, 0, 1), (Rec::DiningTable, 0, 1), (Rec::Drawer, 0, 4),
            (Rec::Shelf, 0, 4), (Rec::Cabinet, 0, 3), (Rec::Ottoman, 0, 1), (Rec::GarbageCan, 1, 1),
            (Rec::Desk, 0, 1), (Rec::Safe, 0, 1),
        ],
        grand: &[Rec::SideTable, Rec::SideTable, Rec::Shelf, Rec::Drawer, Rec::ArmChair, Rec::TvStand],
        objects: &[LIVING, LIVING, DESK, ORNAMENTS],
    },
    Room {
        name: "bathroom",
        receptacles: &[
            (Rec::SinkBasin, 1, 2), (Rec::Toilet, 1, 1), (Rec::ToiletPaperHanger, 1, 1), (Rec::HandTowelHolder, 1, 2),
            (Rec::TowelHolder, 1, 2), (Rec::BathtubBasin, 0, 1), (Rec::CounterTop, 0, 2), (Rec::Cabinet, 0, 4),
            (Rec::Drawer, 0, 4), (Rec::Shelf, 0, 2), (Rec::Cart, 0, 1), (Rec::GarbageCan, 1, 1),
            (Rec::SideTable, 0, 1), (Rec::Dresser, 0, 1),
        ],
        grand: &[Rec::Cabinet, Rec::Drawer, Rec::HandTowelHolder, Rec::HandTowelHolder, Rec::Shelf],
        objects: &[BATH],
    },
    Room {
        name: "studio",
        receptacles: &[
            (Rec::Bed, 1, 1), (Rec::Desk, 1, 1), (Rec::Drawer, 1, 3), (Rec::SideTable, 0, 2), (Rec::Shelf, 0, 3),
            (Rec::Dresser, 0, 1), (Rec::GarbageCan, 1, 1), (Rec::SinkBasin, 1, 1), (Rec::Fridge, 1, 1),
            (Rec::Microwave, 1, 1), (Rec::CounterTop, 1, 2), (Rec::Cabinet, 0, 2), (Rec::CoffeeMachine, 0, 1),
            (Rec::ArmChair, 0, 1),
        ],
        grand: &[Rec::Drawer, Rec::Shelf, Rec::Cabinet],
        objects: &[FOOD, DISHES, DESK, BEDROOM],
    },
    Room {
        name: "kitchen and living room",
        receptacles: &[
            (Rec::Sofa, 1, 1), (Rec::ArmChair, 0, 2), (Rec::CoffeeTable, 0, 1), (Rec::SideTable, 1, 2),
            (Rec::TvStand, 0, 1), (Rec::SinkBasin, 1, 1), (Rec::Fridge, 1, 1), (Rec::Microwave, 1, 1),
            (Rec::CounterTop, 1, 2), (Rec::DiningTable, 1, 2), (Rec::Cabinet, 0, 3), (Rec::Drawer, 0, 3),
            (Rec::StoveBurner, 0, 2), (Rec::GarbageCan, 1, 1),
        ],
        grand: &[Rec::Cabinet, Rec::Drawer, Rec::SideTable],
        objects: &[FOOD, COOKING, DISHES, LIVING],
    },
    Room {
        name: "bedroom and bathroom",
        receptacles: &[
            (Rec::Bed, 1, 1), (Rec::SideTable, 1, 2), (Rec::Drawer, 1, 3), (Rec::Dresser, 0, 1), (Rec::Shelf, 0, 3),
            (Rec::SinkBasin, 1, 2), (Rec::Toilet, 1, 1), (Rec::ToiletPaperHanger, 0, 1), (Rec::HandTowelHolder, 0, 1),
            (Rec::TowelHolder, 0, 1), (Rec::BathtubBasin, 0, 1), (Rec::CounterTop, 0, 1), (Rec::Cabinet, 0, 3),
            (Rec::GarbageCan, 1, 1),
        ],
        grand: &[Rec::Drawer, Rec::Cabinet, Rec::Shelf],
        objects: &[BATH, DESK, BEDROOM],
    },
];
