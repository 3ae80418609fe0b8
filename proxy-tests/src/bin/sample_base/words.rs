//! What the shop's names are made of.

/// A category, the noun of its products, what they cost in cents, and the options they come in.
pub struct Category {
    pub name: &'static str,
    pub nouns: &'static [&'static str],
    pub cents: (i64, i64),
    pub attributes: &'static [(&'static str, &'static [&'static str])],
}

pub const CATEGORIES: [Category; 6] = [
    Category {
        name: "coffee",
        nouns: &["Espresso", "Filter Roast", "House Blend", "Decaf", "Single Origin"],
        cents: (790, 2490),
        attributes: &[
            ("origin", &["Ethiopia", "Colombia", "Kenya", "Guatemala", "Sumatra", "Brazil"]),
            ("roast", &["light", "medium", "dark"]),
            ("grams", &["250", "500", "1000"]),
        ],
    },
    Category {
        name: "tea",
        nouns: &["Green Tea", "Black Tea", "Oolong", "White Tea", "Herbal Infusion"],
        cents: (490, 1890),
        attributes: &[
            ("origin", &["Japan", "India", "China", "Nepal", "Taiwan"]),
            ("form", &["leaf", "bags", "powder"]),
        ],
    },
    Category {
        name: "brewing",
        nouns: &["French Press", "Dripper", "Moka Pot", "Kettle", "Cold Brew Jug", "Teapot"],
        cents: (1490, 12_900),
        attributes: &[
            ("material", &["glass", "steel", "ceramic", "copper"]),
            ("litres", &["0.3", "0.6", "1.0", "1.5"]),
        ],
    },
    Category {
        name: "grinders",
        nouns: &["Hand Grinder", "Burr Grinder", "Espresso Grinder"],
        cents: (3900, 44_900),
        attributes: &[
            ("burrs", &["steel", "ceramic", "titanium"]),
            ("watts", &["0", "120", "250"]),
        ],
    },
    Category {
        name: "cups",
        nouns: &["Mug", "Espresso Cup", "Travel Cup", "Glass", "Bowl"],
        cents: (590, 3490),
        attributes: &[
            ("colour", &["white", "slate", "moss", "clay", "navy"]),
            ("millilitres", &["80", "200", "300", "450"]),
        ],
    },
    Category {
        name: "books",
        nouns: &["Handbook", "Atlas", "Field Guide", "Cookbook"],
        cents: (1490, 4990),
        attributes: &[("binding", &["paperback", "hardcover"]), ("language", &["en", "de", "fr"])],
    },
];

pub const ADJECTIVES: [&str; 28] = [
    "Amber", "Autumn", "Bright", "Coastal", "Copper", "Crimson", "Dawn", "Evening", "Fern",
    "Golden", "Harbour", "Highland", "Honey", "Indigo", "Juniper", "Lunar", "Maple", "Meadow",
    "Misty", "Northern", "Quiet", "River", "Silver", "Smoky", "Summit", "Sunday", "Velvet", "Wild",
];

pub const TAGS: [&str; 10] = [
    "organic",
    "fair-trade",
    "new",
    "gift",
    "bestseller",
    "limited",
    "local",
    "vegan",
    "travel",
    "refill",
];

pub const FIRST_NAMES: [&str; 32] = [
    "Ada", "Amir", "Ana", "Ben", "Chloé", "Daniel", "Elif", "Emma", "Farah", "Grace", "Hana",
    "Ivan", "Jonas", "José", "Kemal", "Lena", "Liam", "Lucía", "Maja", "Marco", "Mina", "Noah",
    "Olga", "Omar", "Paul", "Priya", "Rosa", "Sofia", "Tomás", "Vera", "Wei", "Zoë",
];

pub const LAST_NAMES: [&str; 28] = [
    "Adeyemi",
    "Andersson",
    "Bauer",
    "Costa",
    "Dubois",
    "Fernández",
    "García",
    "Haddad",
    "Hansen",
    "Ito",
    "Jansen",
    "Kaya",
    "Kim",
    "Kowalski",
    "Larsen",
    "Martin",
    "Moreau",
    "Müller",
    "Nguyen",
    "Novak",
    "Okafor",
    "Patel",
    "Rossi",
    "Schmidt",
    "Silva",
    "Smith",
    "Tanaka",
    "Virtanen",
];

/// A city, its country, longitude and latitude.
pub const CITIES: [(&str, &str, f64, f64); 12] = [
    ("Amsterdam", "NL", 4.9041, 52.3676),
    ("Athens", "GR", 23.7275, 37.9838),
    ("Barcelona", "ES", 2.1734, 41.3851),
    ("Berlin", "DE", 13.4050, 52.5200),
    ("Copenhagen", "DK", 12.5683, 55.6761),
    ("Dublin", "IE", -6.2603, 53.3498),
    ("Lisbon", "PT", -9.1393, 38.7223),
    ("Milan", "IT", 9.1900, 45.4642),
    ("Paris", "FR", 2.3522, 48.8566),
    ("Stockholm", "SE", 18.0686, 59.3293),
    ("Vienna", "AT", 16.3738, 48.2082),
    ("Warsaw", "PL", 21.0122, 52.2297),
];

pub const STREETS: [&str; 12] = [
    "Station Road",
    "Mill Lane",
    "Market Square",
    "Harbour Street",
    "Church Hill",
    "Park Avenue",
    "Linden Alley",
    "Bridge Street",
    "School Lane",
    "Garden Row",
    "Castle Way",
    "Old Wharf",
];

/// Titles and texts of reviews, by stars; `{}` is the product's name.
pub const REVIEWS: [&[(&str, &str)]; 5] = [
    &[
        ("Broken on arrival", "The {} came damaged and nobody answered for a week."),
        ("Not again", "I gave the {} three tries. It went back."),
    ],
    &[
        ("Disappointing", "Expected more of the {} at this price."),
        ("Meh", "The {} looks better in the picture than on the table."),
    ],
    &[
        ("It is fine", "The {} does what it should, no more."),
        ("Decent", "Good, but there are cheaper ones than the {}."),
        ("Mixed feelings", "Like the {}, delivery took two weeks though."),
    ],
    &[
        ("Very good", "Happy with the {}; one star less for the packaging."),
        ("Solid choice", "We use the {} every day."),
        ("Would buy again", "The {} was a gift, and a welcome one."),
    ],
    &[
        ("Wonderful", "The {} made our mornings better."),
        ("Perfect", "Third time I order the {}. Always fresh, always quick."),
        ("Love it", "Everybody asks where the {} is from."),
        ("Five stars", "Nothing to add: get the {}."),
    ],
];
