//! The words of WebShop's pages: interface data that an agent must see as the original prints them.
//! Origin: <https://github.com/princeton-nlp/WebShop> (page templates, `engine/normalize.py`), MIT;
//! see NOTICE.

/// Between two nodes of a page in the plain mode.
pub const SEPARATOR: &str = " [SEP] ";
/// The start page's heading.
pub(super) const WEBSHOP: &str = "WebShop";
/// Above the goal; the start page has a space after it.
pub const INSTRUCTION: &str = "Instruction:";
/// On the start page.
pub(super) const INSTRUCTION_SPACE: &str = "Instruction: ";
/// The button of the start page.
pub(super) const SEARCH: &str = "Search";
/// Leads to the start page.
pub(super) const BACK_TO_SEARCH: &str = "Back to Search";
/// One page back.
pub(super) const PREV: &str = "< Prev";
/// The next page of results.
pub(super) const NEXT: &str = "Next >";
/// Opens the description.
pub(super) const DESCRIPTION: &str = "Description";
/// Opens the bullet points.
pub(super) const FEATURES: &str = "Features";
/// Opens the reviews: there are none.
pub(super) const REVIEWS: &str = "Reviews";
/// Buys what the item page shows.
pub(super) const BUY_NOW: &str = "Buy Now";
/// The rating line of every item.
pub(super) const RATING: &str = "Rating: N.A.";
/// A page value that is not set.
pub(super) const NONE: &str = "None";

/// The end page up to the purchased item.
pub(super) const DONE_HEAD: [&str; 6] = [
    "Thank you for shopping with us!",
    "Your code: ",
    NONE,
    " (Paste it in your MTurk interface.)",
    "Purchased",
    "asin",
];
/// Between the item and its options.
pub(super) const DONE_OPTIONS: &str = "options";
/// From the options to the score.
pub(super) const DONE_TAIL: [&str; 21] = [
    "attrs",
    NONE,
    "category",
    NONE,
    "query",
    NONE,
    "product category",
    NONE,
    "Target",
    "asin",
    "options",
    "attrs",
    "price upper",
    "instuction text",
    "category",
    "product category",
    "query",
    "Goal ",
    NONE,
    "Reward",
    "Your score (min 0.0, max 1.0)",
];
/// After the score.
pub(super) const DONE_END: [&str; 2] = ["Reward Details ", NONE];

/// Stands for the attributes of a product that has none in the instruction file.
pub(super) const NO_ATTRIBUTE: &str = "DUMMY_ATTR";

/// Colours in the order in which they are looked for in an option's value.
pub(super) const COLORS: [&str; 102] = [
    "alabaster",
    "apricot",
    "aqua",
    "ash",
    "asphalt",
    "azure",
    "banana",
    "beige",
    "black",
    "blue",
    "blush",
    "bordeaux",
    "bronze",
    "brown",
    "burgundy",
    "camel",
    "camo",
    "caramel",
    "champagne",
    "charcoal",
    "cheetah",
    "chestnut",
    "chocolate",
    "christmas",
    "coffee",
    "cognac",
    "copper",
    "coral",
    "cranberry",
    "cream",
    "crystal",
    "dark",
    "denim",
    "eggplant",
    "elephant",
    "espresso",
    "fuchsia",
    "gold",
    "granite",
    "grape",
    "graphite",
    "grass",
    "gray",
    "green",
    "grey",
    "heather",
    "indigo",
    "ivory",
    "ivy",
    "khaki",
    "lavender",
    "lemon",
    "leopard",
    "light",
    "lilac",
    "lime",
    "magenta",
    "maroon",
    "mauve",
    "merlot",
    "midnight",
    "mint",
    "mocha",
    "multicolor",
    "mushroom",
    "mustard",
    "natural",
    "navy",
    "nude",
    "olive",
    "orange",
    "peach",
    "pewter",
    "pink",
    "plum",
    "purple",
    "rainbow",
    "red",
    "rose",
    "royal",
    "rust",
    "sand",
    "sapphire",
    "seashell",
    "silver",
    "skull",
    "slate",
    "steel",
    "stone",
    "stonewash",
    "sunflower",
    "tan",
    "taupe",
    "teal",
    "tiger",
    "turquoise",
    "violet",
    "walnut",
    "wheat",
    "white",
    "wine",
    "yellow",
];
