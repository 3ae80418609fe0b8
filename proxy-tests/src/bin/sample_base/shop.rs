//! The sample data: a small shop for coffee and tea, consistent in itself. An order's total is the
//! sum of its lines, only buyers review, and a product's rating is that of its reviews.

use std::collections::{BTreeMap, BTreeSet};

use bson::oid::ObjectId;
use bson::{Bson, DateTime, Decimal128, Document, doc};

use crate::random::Random;
use crate::words::{
    ADJECTIVES, CATEGORIES, CITIES, FIRST_NAMES, LAST_NAMES, REVIEWS, STREETS, TAGS,
};

const PRODUCTS: i64 = 320;
const CUSTOMERS: i64 = 600;
const ORDERS: i64 = 2400;

/// How many of a hundred lines of delivered orders are reviewed.
const REVIEWED_PERCENT: usize = 30;

/// 2024-01-01T00:00:00Z; the shop's data spans two years from here.
const OPENED_MS: i64 = 1_704_067_200_000;
const DAY_MS: i64 = 86_400_000;
const DAYS: i64 = 730;

/// All documents, by collection.
pub struct Shop {
    pub products: Vec<Document>,
    pub customers: Vec<Document>,
    pub orders: Vec<Document>,
    pub reviews: Vec<Document>,
    pub stores: Vec<Document>,
}

struct Product {
    name: String,
    cents: i64,
}

/// The shop, the same at every run.
pub fn shop() -> Shop {
    let mut random = Random::seeded(2024);
    let stores = stores(&mut random);
    let (mut products, facts) = products(&mut random);
    let customers = customers(&mut random);
    let orders = orders(&mut random, &facts, &customers);
    let reviews = reviews(&mut random, &facts, &orders);
    rate(&mut products, &reviews);
    Shop { products, customers, orders, reviews, stores }
}

fn stores(random: &mut Random) -> Vec<Document> {
    let store =
        |(number, (city, country, longitude, latitude)): (usize, &(&str, &str, f64, f64))| {
            doc! {
                "_id": number as i32 + 1,
                "name": format!("{city} {}", if number % 2 == 0 { "Centre" } else { "Station" }),
                "city": *city,
                "country": *country,
                "location": point(random, *longitude, *latitude),
                "opened_at": at(random.between(0, 300), 9 * 3600),
            }
        };
    CITIES.iter().enumerate().map(store).collect()
}

fn products(random: &mut Random) -> (Vec<Document>, Vec<Product>) {
    let (mut documents, mut facts, mut slugs) = (Vec::new(), Vec::new(), BTreeSet::new());
    while (facts.len() as i64) < PRODUCTS {
        let category = random.pick(&CATEGORIES);
        let name = format!("{} {}", random.pick(&ADJECTIVES), random.pick(category.nouns));
        let slug = name.to_lowercase().replace(' ', "-");
        if !slugs.insert(slug.clone()) {
            continue;
        }
        // Prices end in 90 cents, as in any shop.
        let cents = random.between(category.cents.0, category.cents.1) / 100 * 100 + 90;
        let attributes: Document = (category.attributes.iter())
            .map(|(key, values)| ((*key).to_owned(), Bson::from(*random.pick(values))))
            .collect();
        let tags: BTreeSet<&str> = (0..random.below(4)).map(|_| *random.pick(&TAGS)).collect();
        let made_of = attributes.values().filter_map(Bson::as_str).collect::<Vec<_>>().join(", ");
        documents.push(doc! {
            "_id": facts.len() as i32 + 1,
            "slug": slug,
            "name": &name,
            "description": format!("{name} for everyday use: {made_of}."),
            "category": category.name,
            "price": money(cents),
            "stock": random.between(0, 250) as i32,
            "tags": tags.into_iter().collect::<Vec<_>>(),
            "attributes": attributes,
            "added_at": at(random.between(0, 200), 8 * 3600),
        });
        facts.push(Product { name, cents });
    }
    (documents, facts)
}

fn customers(random: &mut Random) -> Vec<Document> {
    let customer = |number: i64| {
        let (first, last) = (*random.pick(&FIRST_NAMES), *random.pick(&LAST_NAMES));
        let (city, country, longitude, latitude) = *random.pick(&CITIES);
        doc! {
            "_id": number as i32,
            "name": format!("{first} {last}"),
            "email": format!("{}.{}{number}@example.com", plain(first), plain(last)),
            "address": {
                "street": format!("{} {}", random.pick(&STREETS), random.between(1, 180)),
                "city": city,
                "country": country,
                "location": point(random, longitude, latitude),
            },
            "newsletter": random.chance(40),
            "joined_at": at(random.between(0, DAYS / 2 - 1), random.between(0, 86_399)),
        }
    };
    (1..=CUSTOMERS).map(customer).collect()
}

fn orders(random: &mut Random, products: &[Product], customers: &[Document]) -> Vec<Document> {
    let mut placed: Vec<(i64, i64)> = (0..ORDERS)
        .map(|_| (random.between(DAYS / 2, DAYS - 1), random.between(0, 86_399)))
        .collect();
    placed.sort_unstable();
    let order = |(number, (day, second)): (usize, (i64, i64))| {
        let customer = &customers[(random.skewed() * customers.len() as f64) as usize];
        let mut chosen = BTreeMap::new();
        for _ in 0..random.between(1, 5) {
            let product = (random.skewed() * products.len() as f64) as usize;
            *chosen.entry(product).or_insert(0) += random.between(1, 3);
        }
        let mut total = 0;
        let mut lines = Vec::new();
        for (product, quantity) in chosen {
            let Product { name, cents } = &products[product];
            total += cents * quantity;
            lines.push(doc! {
                "product_id": product as i32 + 1,
                "name": name,
                "price": money(*cents),
                "quantity": quantity as i32,
            });
        }
        let status = status(random, day);
        let mut order = doc! {
            "_id": 100_001 + number as i32,
            "customer_id": customer.get_i32("_id").expect("customers are numbered"),
            "status": status,
            "items": lines,
            "total": money(total),
            "ship_to": {
                "city": customer.get_document("address").and_then(|a| a.get_str("city")).unwrap_or_default(),
                "country": customer.get_document("address").and_then(|a| a.get_str("country")).unwrap_or_default(),
            },
            "placed_at": at(day, second),
        };
        if status == "delivered" {
            order.insert("delivered_at", at(day + random.between(1, 9), 12 * 3600));
        }
        order
    };
    placed.into_iter().enumerate().map(order).collect()
}

/// What is old is settled, what is recent may be open.
fn status(random: &mut Random, day: i64) -> &'static str {
    let choices: &[&str] = match DAYS - day {
        ..=4 => &["paid", "paid", "placed"],
        5..=14 => &["shipped", "shipped", "paid", "delivered"],
        _ => &["delivered"; 19],
    };
    if random.chance(5) { "cancelled" } else { choices[random.below(choices.len())] }
}

fn reviews(random: &mut Random, products: &[Product], orders: &[Document]) -> Vec<Document> {
    let (mut seen, mut reviews) = (BTreeSet::new(), Vec::new());
    for order in orders {
        let Ok(delivered) = order.get_datetime("delivered_at") else { continue };
        let customer = order.get_i32("customer_id").expect("orders have a customer");
        let lines = order.get_array("items").expect("orders have items").iter();
        for line in lines.filter_map(Bson::as_document) {
            let product = line.get_i32("product_id").expect("lines have a product");
            if !random.chance(REVIEWED_PERCENT) || !seen.insert((product, customer)) {
                continue;
            }
            let stars = *random.pick(&[1, 2, 3, 3, 4, 4, 4, 5, 5, 5, 5, 5]);
            let (title, text) = *random.pick(REVIEWS[stars - 1]);
            let name = &products[usize::try_from(product - 1).expect("from 1")].name;
            let written = delivered.timestamp_millis() + random.between(1, 20) * DAY_MS;
            reviews.push(doc! {
                "_id": ObjectId::from_bytes(random.id()),
                "product_id": product,
                "customer_id": customer,
                "rating": stars as i32,
                "title": title,
                "text": text.replace("{}", name),
                "helpful": (random.skewed() * 25.0) as i32,
                "written_at": DateTime::from_millis(written),
            });
        }
    }
    reviews
}

fn rate(products: &mut [Document], reviews: &[Document]) {
    let mut ratings: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for review in reviews {
        let number = |key| review.get_i32(key).expect("reviews have numbers");
        ratings.entry(number("product_id")).or_default().push(number("rating"));
    }
    for product in products {
        if let Some(stars) = product.get_i32("_id").ok().and_then(|id| ratings.get(&id)) {
            let count = stars.len() as i32;
            let average = f64::from(stars.iter().sum::<i32>()) / f64::from(count);
            let average = (average * 10.0).round() / 10.0;
            product.insert("rating", doc! { "average": average, "count": count });
        }
    }
}

/// An amount in euros, exact.
fn money(cents: i64) -> Decimal128 {
    let text = format!("{}.{:02}", cents / 100, cents % 100);
    text.parse().expect("digits and a point are a decimal")
}

fn at(day: i64, second: i64) -> DateTime {
    DateTime::from_millis(OPENED_MS + day * DAY_MS + second * 1000)
}

/// Somewhere within a few kilometres.
fn point(random: &mut Random, longitude: f64, latitude: f64) -> Document {
    let mut near = |degrees: f64| {
        let moved = degrees + random.between(-400, 400) as f64 / 10_000.0;
        (moved * 10_000.0).round() / 10_000.0
    };
    doc! { "type": "Point", "coordinates": [near(longitude), near(latitude)] }
}

/// A name as it stands in a mail address.
fn plain(name: &str) -> String {
    let folded = |c: char| match c {
        'á' | 'ã' => 'a',
        'é' | 'ë' => 'e',
        'í' => 'i',
        'ü' => 'u',
        other => other,
    };
    name.to_lowercase().chars().map(folded).collect()
}
