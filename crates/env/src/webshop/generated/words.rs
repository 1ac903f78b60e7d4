//! The words of the generated catalogue. One-word names keep the embedded policy's vocabulary small.

/// A department: what its products are, can be, and come in.
#[derive(Debug)]
pub(crate) struct Department {
    /// The catalogue's category.
    pub(crate) category: &'static str,
    /// The beginning of the category path.
    pub(crate) path: &'static str,
    /// Product types with the section they stand in.
    pub(crate) kinds: &'static [(&'static str, &'static str)],
    /// What a product can be.
    pub(crate) attributes: &'static [&'static str],
    /// Names and values of its options.
    pub(crate) options: &'static [(&'static str, &'static [&'static str])],
}

const COLORS: &[&str] = &[
    "red", "blue", "green", "black", "white", "yellow", "purple", "orange", "pink", "brown",
    "gray", "navy",
];

/// All departments.
pub(crate) const DEPARTMENTS: &[Department] = &[
    Department {
        category: "fashion",
        path: "Clothing, Shoes & Jewelry",
        kinds: &[
            ("boots", "Shoes"),
            ("sandals", "Shoes"),
            ("sneakers", "Shoes"),
            ("slippers", "Shoes"),
            ("jacket", "Clothing"),
            ("sweater", "Clothing"),
            ("jeans", "Clothing"),
            ("dress", "Clothing"),
        ],
        attributes: &[
            "waterproof",
            "breathable",
            "lightweight",
            "washable",
            "stretchy",
            "insulated",
            "padded",
            "leather",
            "cotton",
            "vintage",
        ],
        options: &[
            ("color", COLORS),
            ("size", &["small", "medium", "large", "x-large", "xx-large"]),
        ],
    },
    Department {
        category: "garden",
        path: "Home & Kitchen",
        kinds: &[
            ("lamp", "Furnishings"),
            ("rug", "Furnishings"),
            ("curtains", "Furnishings"),
            ("blanket", "Bedding"),
            ("pillow", "Bedding"),
            ("desk", "Furniture"),
            ("bookcase", "Furniture"),
            ("ottoman", "Furniture"),
        ],
        attributes: &[
            "foldable",
            "washable",
            "wooden",
            "sturdy",
            "modern",
            "rustic",
            "handmade",
            "adjustable",
            "velvet",
            "stackable",
        ],
        options: &[
            ("color", COLORS),
            ("size", &["small", "medium", "large", "twin", "queen", "king"]),
        ],
    },
    Department {
        category: "electronics",
        path: "Electronics",
        kinds: &[
            ("headphones", "Audio"),
            ("speaker", "Audio"),
            ("charger", "Accessories"),
            ("keyboard", "Computers"),
            ("monitor", "Computers"),
            ("tripod", "Camera"),
        ],
        attributes: &[
            "wireless",
            "rechargeable",
            "portable",
            "waterproof",
            "compact",
            "magnetic",
            "foldable",
            "backlit",
            "lightweight",
            "sturdy",
        ],
        options: &[("color", COLORS), ("style", &["basic", "deluxe", "travel", "studio"])],
    },
    Department {
        category: "beauty",
        path: "Beauty & Personal Care",
        kinds: &[
            ("shampoo", "Hair"),
            ("conditioner", "Hair"),
            ("lotion", "Skin"),
            ("sunscreen", "Skin"),
            ("perfume", "Fragrance"),
            ("lipstick", "Makeup"),
        ],
        attributes: &[
            "vegan",
            "organic",
            "unscented",
            "hydrating",
            "natural",
            "gentle",
            "refillable",
            "handmade",
            "waterproof",
            "nourishing",
        ],
        options: &[
            ("scent", &["rose", "lemon", "mint", "vanilla", "lavender", "coconut", "honey"]),
            ("size", &["small", "medium", "large", "travel"]),
        ],
    },
    Department {
        category: "grocery",
        path: "Grocery & Gourmet Food",
        kinds: &[
            ("coffee", "Beverages"),
            ("tea", "Beverages"),
            ("granola", "Breakfast"),
            ("popcorn", "Snacks"),
            ("crackers", "Snacks"),
            ("chocolate", "Snacks"),
        ],
        attributes: &[
            "organic",
            "vegan",
            "kosher",
            "roasted",
            "unsalted",
            "crunchy",
            "natural",
            "sweetened",
            "spicy",
            "imported",
        ],
        options: &[
            ("flavor", &["vanilla", "lemon", "mint", "honey", "coconut", "cherry", "ginger"]),
            ("pack", &["single", "double", "family"]),
        ],
    },
];

/// Invented makers.
pub(crate) const BRANDS: &[&str] = &[
    "Norvik",
    "Altessa",
    "Quillon",
    "Bramwell",
    "Ferrano",
    "Halden",
    "Ostrava",
    "Pelluco",
    "Rivanna",
    "Sundergard",
    "Tavira",
    "Ulmora",
    "Verdano",
    "Wexcombe",
    "Yarrowby",
    "Zelmont",
    "Corvina",
    "Dunmore",
    "Ellisar",
    "Galloway",
];

/// Prices in dollars.
pub(crate) const PRICES: &[&str] = &[
    "4.99", "8.99", "12.99", "16.99", "22.99", "27.99", "34.99", "38.99", "43.99", "49.99",
    "56.99", "64.99", "72.99", "79.99", "88.99", "95.99",
];

/// Every word above in lower case, in a fixed order, repetitions included.
pub(crate) fn all() -> impl Iterator<Item = &'static str> {
    let departments = DEPARTMENTS.iter().flat_map(|d| {
        let kinds = d.kinds.iter().map(|k| k.0);
        let options = d
            .options
            .iter()
            .flat_map(|(name, values)| std::iter::once(*name).chain(values.iter().copied()));
        kinds.chain(d.attributes.iter().copied()).chain(options)
    });
    departments.chain(BRANDS.iter().copied())
}
