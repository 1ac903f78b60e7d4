//! The names of the generated world. Few words, many names: a person is two words, a work two, a place
//! one.

/// First names.
pub(crate) const FIRST: &[&str] = &[
    "Ada", "Milo", "Vera", "Otto", "Lena", "Ivo", "Nora", "Felix", "Greta", "Hugo", "Irma",
    "Jonas", "Klara", "Leo", "Mina", "Nils", "Olga", "Pavel", "Rosa", "Stefan", "Tilda", "Ulrik",
    "Viola", "Walter", "Yara", "Zeno", "Anton", "Berta", "Casper", "Dora", "Emil", "Frida",
];

/// Last names.
pub(crate) const LAST: &[&str] = &[
    "Lorn",
    "Venn",
    "Hask",
    "Marlow",
    "Tessel",
    "Brandt",
    "Corvin",
    "Dalgard",
    "Eskil",
    "Farrow",
    "Gorski",
    "Hallam",
    "Ilves",
    "Jarvik",
    "Kessler",
    "Lindqvist",
    "Moreau",
    "Nyland",
    "Orban",
    "Pascoe",
    "Quist",
    "Rademaker",
    "Sorel",
    "Tavener",
    "Ulmann",
    "Vostok",
    "Wexler",
    "Yoder",
    "Zeller",
    "Ashdown",
    "Birk",
    "Calloway",
    "Drexel",
    "Ennis",
    "Fontane",
    "Grimaldi",
    "Holub",
    "Ingram",
    "Jansky",
    "Kovac",
];

/// First words of works.
pub(crate) const ADJECTIVES: &[&str] = &[
    "Silent",
    "Crimson",
    "Hollow",
    "Golden",
    "Distant",
    "Broken",
    "Hidden",
    "Burning",
    "Frozen",
    "Endless",
    "Paper",
    "Iron",
    "Velvet",
    "Midnight",
    "Northern",
    "Restless",
    "Amber",
    "Wandering",
    "Forgotten",
    "Electric",
    "Quiet",
    "Savage",
    "Tender",
    "Marble",
];

/// Second words of works.
pub(crate) const NOUNS: &[&str] = &[
    "Harbor", "Orchard", "Lantern", "Meadow", "Compass", "Garden", "Mirror", "Bridge", "Winter",
    "Voyage", "Island", "Tower", "Canyon", "Sparrow", "Ember", "Signal", "Letter", "Kingdom",
    "Shadow", "Station", "Horizon", "Castle", "Thunder", "Feather",
];

/// First words of companies.
pub(crate) const BRANDS: &[&str] = &[
    "Orbit", "Cobalt", "Zephyr", "Pinnacle", "Nimbus", "Vertex", "Lumen", "Kestrel", "Granite",
    "Aurora", "Falcon", "Juniper", "Tundra", "Saffron", "Beacon", "Willow", "Onyx", "Meridian",
];

/// Second words of companies.
pub(crate) const TRADES: &[&str] =
    &["Foods", "Motors", "Systems", "Textiles", "Shipping", "Optics"];

/// First words of bands.
pub(crate) const BAND_FIRST: &[&str] = &[
    "Neon", "Rusty", "Lunar", "Cosmic", "Velour", "Static", "Wooden", "Plastic", "Sunken",
    "Atomic", "Dusty", "Royal",
];

/// Second words of bands.
pub(crate) const BAND_SECOND: &[&str] =
    &["Tigers", "Pilots", "Rivers", "Wolves", "Prophets", "Dancers", "Ravens", "Strangers"];

/// Cities.
pub(crate) const CITIES: &[&str] = &[
    "Torvale",
    "Kelmar",
    "Brinport",
    "Ostwick",
    "Dunhaven",
    "Larkspur",
    "Minsford",
    "Norrby",
    "Pellworth",
    "Quarrin",
    "Rosmere",
    "Saltash",
    "Thornby",
    "Umbria",
    "Valmont",
    "Westerly",
    "Yarmouth",
    "Zandvik",
    "Ambleton",
    "Bexhall",
    "Corlund",
    "Drumore",
    "Elsinor",
    "Fernhill",
    "Glaston",
    "Hollin",
    "Innsvik",
    "Jorvik",
    "Kirkwall",
    "Lomond",
    "Marstrand",
    "Nesbyen",
    "Oakmere",
    "Porthleven",
    "Ravenna",
    "Stavora",
    "Tindal",
    "Ulverton",
    "Vintry",
    "Wolvey",
    "Aldermoor",
    "Belgrove",
    "Caldera",
    "Dorwick",
    "Eastmarch",
    "Fallowby",
    "Grenholm",
    "Hartsea",
];

/// Countries; the language of the same index is spoken there.
pub(crate) const COUNTRIES: &[&str] = &[
    "Valdoria",
    "Kestria",
    "Norland",
    "Oberia",
    "Tarsis",
    "Zembla",
    "Marovia",
    "Lutania",
    "Caspiera",
    "Drovnia",
    "Elbonia",
    "Fenwick",
    "Graustark",
    "Hyrkania",
    "Ixania",
    "Jovaria",
];

/// Languages.
pub(crate) const LANGUAGES: &[&str] = &[
    "Valdorian",
    "Kestrian",
    "Norlandic",
    "Oberian",
    "Tarsic",
    "Zemblan",
    "Marovian",
    "Lutanian",
    "Caspieran",
    "Drovnian",
    "Elbonian",
    "Fenwickian",
    "Graustarkian",
    "Hyrkanian",
    "Ixanian",
    "Jovarian",
];

/// Currencies.
pub(crate) const CURRENCIES: &[&str] = &[
    "crown", "florin", "thaler", "ducat", "guilder", "lira", "mark", "peso", "shilling", "talent",
    "drachma", "kroner",
];

/// Rivers.
pub(crate) const RIVERS: &[&str] = &[
    "Aven", "Brona", "Cald", "Dwin", "Erlen", "Fosse", "Gwyra", "Hesk", "Isla", "Jura", "Kolva",
    "Lethe", "Morava", "Nidda", "Oster", "Prut", "Rhuna", "Sava", "Teviot", "Ulla",
];

/// What people are called besides their names.
pub(crate) const NICKNAMES: &[&str] = &[
    "Swift", "Badger", "Comet", "Duchess", "Engine", "Fox", "Giant", "Hermit", "Jackal", "Magpie",
    "Needle", "Oracle",
];

/// The parts of people's names.
pub(crate) fn first_and_last_names() -> (&'static [&'static str], &'static [&'static str]) {
    (FIRST, LAST)
}

/// All names, in a fixed order.
pub(crate) fn all() -> impl Iterator<Item = &'static str> {
    [
        FIRST,
        LAST,
        ADJECTIVES,
        NOUNS,
        BRANDS,
        TRADES,
        BAND_FIRST,
        BAND_SECOND,
        CITIES,
        COUNTRIES,
        LANGUAGES,
        CURRENCIES,
        RIVERS,
        NICKNAMES,
    ]
    .into_iter()
    .flatten()
    .copied()
}
