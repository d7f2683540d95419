//! Mutations of one value or one key: its value in the dataset, or the field that the rejected ride names.

use super::{
    document::{FORMS, Form, JSON_FORMS, KEYS, Mutation, RIDES, Ride, all_accepted, all_but, rides},
    draw::Draw,
};

/// Numeric fields, each with the reason for a value that is not a number and for a missing value.
const NUMBERS: [(&str, &str, &str); 5] = [
    ("latitude", "invalid_latitude", "missing_latitude"),
    ("longitude", "invalid_longitude", "missing_longitude"),
    ("distance", "invalid_distance", "missing_distance"),
    ("healthpoints", "invalid_healthpoints", "missing_healthpoints"),
    ("magicpoints", "invalid_magicpoints", "missing_magicpoints"),
];

/// The rides with one value changed, and the position of the changed one.
fn changed(draw: &mut Draw, key: &str, value: &str) -> (Vec<Ride>, usize) {
    let (mut rides, position) = (rides(), draw.below(RIDES));
    rides[position].set(key, value);
    (rides, position)
}

/// NaN and infinities as Python and R write them reject one ride; a label that is NaN counts as absent.
pub(super) fn not_finite(draw: &mut Draw) -> Mutation {
    let form = draw.one_of(&FORMS);
    let written = ["NaN", "Infinity", "-Infinity", "NA", "-NaN", "\"NaN\"", "\"inf\"", "\"-Infinity\""];
    let value = draw.one_of(&written);
    if draw.once_in(5) {
        let value = draw.one_of(&["NaN", "\"nan\"", "NA", "\"NA\""]);
        let (rides, position) = changed(draw, "fieldservice", value);
        let words = format!("ride {position} has fieldservice {value}");
        return Mutation::of_rides(draw, words, form, &rides, all_accepted()).with_cell(position, "fieldservice", "");
    }
    let (key, reason) = match draw.below(6) {
        5 => ("statustime", "invalid_statustime"),
        nth => (NUMBERS[nth].0, NUMBERS[nth].1),
    };
    let (rides, position) = changed(draw, key, value);
    Mutation::of_rides(draw, format!("ride {position} has {key} {value}"), form, &rides, all_but(position, reason))
}

/// Labels in every spelling; any other value is rejected.
pub(super) fn label(draw: &mut Draw) -> Mutation {
    let form = draw.one_of(&FORMS);
    let labels = [
        ("true", "1"),
        ("false", "0"),
        ("\"TRUE\"", "1"),
        ("\"False\"", "0"),
        ("1.0", "1"),
        ("0.0", "0"),
        ("\"1.0\"", "1"),
        ("\" 0 \"", "0"),
        ("\"1e0\"", "1"),
        ("null", ""),
        ("\"\"", ""),
        ("\"null\"", ""),
        ("\"NaN\"", ""),
        ("\"  \"", ""),
    ];
    let none = ["2", "-1", "0.5", "\"yes\"", "\"t\"", "\"Y\"", "\"1 0\"", "\"wahr\""];
    if draw.once_in(2) {
        let (value, label) = draw.one_of(&labels);
        let (rides, position) = changed(draw, "fieldservice", value);
        let words = format!("ride {position} has fieldservice {value}");
        return Mutation::of_rides(draw, words, form, &rides, all_accepted()).with_cell(
            position,
            "fieldservice",
            label,
        );
    }
    let value = draw.one_of(&none);
    let (rides, position) = changed(draw, "fieldservice", value);
    let words = format!("ride {position} has fieldservice {value}");
    Mutation::of_rides(draw, words, form, &rides, all_but(position, "invalid_fieldservice"))
}

/// A time that names one moment is that moment; a time that may be two, or none, is rejected.
pub(super) fn time(draw: &mut Draw) -> Mutation {
    const SECONDS: &str = "2018-04-05 17:03:05.000";
    const MILLISECONDS: &str = "2018-04-05 17:03:05.250";
    let form = draw.one_of(&FORMS);
    let moments = [
        ("\"2018-04-05 17:03:05 UTC\"", SECONDS),
        ("\"2018-04-05 17:03:05 GMT\"", SECONDS),
        ("\"2018-04-05T17:03:05+0000\"", SECONDS),
        ("\"2018-04-05T18:03:05+01\"", SECONDS),
        ("\"2018-04-05 17:03:05 +00:00\"", SECONDS),
        ("\"2018-04-05 17:03:05.250 UTC\"", MILLISECONDS),
        ("\"2018-04-05 17:03:05,250\"", MILLISECONDS),
        ("\"2018-04-05 17:03\"", "2018-04-05 17:03:00.000"),
        ("\"2018-04-05T17:03Z\"", "2018-04-05 17:03:00.000"),
        ("\"20180405T170305Z\"", SECONDS),
        ("\"20180405170305\"", SECONDS),
        ("\"2018-04-05t17:03:05z\"", SECONDS),
        ("\"  2018-04-05 17:03:05 \"", SECONDS),
        ("\"2018-04-05 12:03:05-05:00\"", SECONDS),
        ("\"2018-04-06T02:03:05.25+09:00\"", MILLISECONDS),
        ("1522947785", SECONDS),
        ("\"1522947785\"", SECONDS),
        ("1522947785.25", MILLISECONDS),
        ("1522947785250", MILLISECONDS),
        ("\"1522947785250\"", MILLISECONDS),
    ];
    let none = [
        "\"4/5/2018 17:03\"",
        "\"05.04.2018 17:03\"",
        "\"2018-04-05\"",
        "\"17:03:05\"",
        "\"2018-04-05 17:03:05 EST\"",
        "\"2018-02-30 17:03:05\"",
        "\"2018-04-05 25:03:05\"",
        "\"5 April 2018, 17:03\"",
        "20180405",
        "17",
        "true",
    ];
    let value = draw.one_of(&none);
    let reads = draw.once_in(2);
    let (value, moment) = if reads { draw.one_of(&moments) } else { (value, "") };
    let (rides, position) = changed(draw, "statustime", value);
    let words = format!("ride {position} has statustime {value}");
    if reads {
        return Mutation::of_rides(draw, words, form, &rides, all_accepted()).with_cell(position, "statustime", moment);
    }
    Mutation::of_rides(draw, words, form, &rides, all_but(position, "invalid_statustime"))
}

/// Numbers as other programs write them are numbers; anything else, or an impossible number, is rejected with its
/// field.
pub(super) fn number(draw: &mut Draw) -> Mutation {
    let form = draw.one_of(&FORMS);
    let numbers = [
        ("\" 29.5\"", 29.5),
        ("\"29.5 \"", 29.5),
        ("\"\\t29.5\\u00a0\"", 29.5),
        ("\"2.95e+01\"", 29.5),
        ("\"2.95E1\"", 29.5),
        ("2.95e+01", 29.5),
        ("\".5\"", 0.5),
        ("\"29.\"", 29.0),
        ("\"+1\"", 1.0),
        ("\"007\"", 7.0),
        ("0.1e1", 1.0),
    ];
    let none = ["\"29,5\"", "\"0x1F\"", "\"1_000\"", "\"29.5 km\"", "\"--1\"", "\"1e999\"", "true", "\"1 2\"", "\"½\""];
    let absent = ["null", "\"\"", "\" \""];
    let impossible = [
        ("latitude", "90.5", "latitude_out_of_range"),
        ("latitude", "\"-91\"", "latitude_out_of_range"),
        ("longitude", "180.01", "longitude_out_of_range"),
        ("distance", "-0.5", "negative_distance"),
        ("distance", "1000001", "distance_out_of_range"),
        ("healthpoints", "1e10", "healthpoints_out_of_range"),
        ("magicpoints", "\"-2e9\"", "magicpoints_out_of_range"),
    ];
    let (key, invalid, missing) = draw.one_of(&NUMBERS);
    let (number, column) = draw.one_of(&numbers);
    let (key, value, reason) = match draw.below(5) {
        0 | 1 => (key, number, None),
        2 => (key, draw.one_of(&none), Some(invalid)),
        3 => (key, draw.one_of(&absent), Some(missing)),
        _ => {
            let (key, value, reason) = draw.one_of(&impossible);
            (key, value, Some(reason))
        }
    };
    let (rides, position) = changed(draw, key, value);
    let words = format!("ride {position} has {key} {value}");
    match reason {
        Some(reason) => Mutation::of_rides(draw, words, form, &rides, all_but(position, reason)),
        None => Mutation::of_rides(draw, words, form, &rides, all_accepted()).with_cell(position, key, column),
    }
}

/// Keys in any case, with blanks and invisible characters around them, are the same keys.
pub(super) fn key(draw: &mut Draw) -> Mutation {
    let form = draw.one_of(&FORMS);
    let key = draw.one_of(&KEYS);
    let upper = key.to_uppercase();
    let capital = key[..1].to_uppercase() + &key[1..];
    let spellings = [
        upper,
        capital,
        format!(" {key}"),
        format!("{key}  "),
        format!("\u{feff}{key}"),
        format!("{key}\u{200b}"),
        format!("\u{a0}{key}"),
        format!("\t{key}"),
    ];
    let spelling = &spellings[draw.below(spellings.len())];
    let mut rides = rides();
    // A table has one header; elsewhere each ride has its own keys.
    let all = form == Form::Csv || draw.once_in(2);
    let position = draw.below(RIDES);
    for (nth, ride) in rides.iter_mut().enumerate() {
        if all || nth == position {
            ride.rename(key, spelling);
        }
    }
    Mutation::of_rides(draw, format!("{key} is spelled {spelling:?}"), form, &rides, all_accepted())
}

/// Keys that are nearly those of a ride: every ride is rejected, and the suggestion names both keys.
pub(super) fn near_miss(draw: &mut Draw) -> Mutation {
    let form = draw.one_of(&FORMS);
    let (key, name, reason) = draw.one_of(&[
        ("statustime", "status_time", "missing_statustime"),
        ("statustime", "Status Time", "missing_statustime"),
        ("latitude", "lat", "missing_latitude"),
        ("longitude", "lng", "missing_longitude"),
        ("longitude", "LON", "missing_longitude"),
        ("healthpoints", "health_points", "missing_healthpoints"),
        ("magicpoints", "magic-points", "missing_magicpoints"),
    ]);
    let mut rides = rides();
    rides.iter_mut().for_each(|ride| ride.rename(key, name));
    Mutation::of_rides(draw, format!("{key} is named {name:?}"), form, &rides, vec![Some(reason); RIDES])
        .with_words(format!("{key}={name}"))
}

/// Other keys with a mapping: the values are those of the field, in its unit.
pub(super) fn mapping(draw: &mut Draw) -> Mutation {
    let form = draw.one_of(&FORMS);
    let (key, name, factor, value) = draw.one_of(&[
        ("distance", "km", "*0.5", 0.5),
        ("distance", "metres driven", "/1600", 1.0 / 1600.0),
        ("latitude", "lat", "", 1.0),
        ("longitude", "Länge", "", 1.0),
        ("healthpoints", "hp", "*2", 2.0),
        ("magicpoints", "mana", "/4", 0.25),
    ]);
    let mut rides = rides();
    rides.iter_mut().for_each(|ride| ride.rename(key, name));
    let position = draw.below(RIDES);
    let mapped = rides[position].number(name) * value;
    let map = format!("{key}={name}{factor}");
    let mutation = Mutation::of_rides(draw, format!("read with {map}"), form, &rides, all_accepted());
    let mut mutation = mutation.with_cell(position, key, mapped);
    mutation.reading.map.add(&map).expect("a mapping");
    mutation
}

/// A member that is missing, or given twice.
pub(super) fn member(draw: &mut Draw) -> Mutation {
    let (mut rides, position) = (rides(), draw.below(RIDES));
    let (key, _, missing) = draw.one_of(&NUMBERS);
    if draw.once_in(2) {
        let form = draw.one_of(&FORMS);
        let value = if form == Form::Csv { "" } else { "absent" };
        match form {
            Form::Csv => rides[position].set(key, "null"),
            _ => rides[position].0.retain(|(name, _)| name != key),
        }
        let words = format!("ride {position} has no {key} {value}");
        return Mutation::of_rides(draw, words, form, &rides, all_but(position, missing));
    }
    let form = draw.one_of(&JSON_FORMS);
    let again = if draw.once_in(2) { key.to_owned() } else { key.to_uppercase() };
    let at = draw.below(KEYS.len() + 1);
    rides[position].0.insert(at, (again, "7".to_owned()));
    let words = format!("ride {position} has {key} twice");
    Mutation::of_rides(draw, words, form, &rides, all_but(position, "duplicate_field"))
}

/// Ids as data frames write them.
pub(super) fn ride_id(draw: &mut Draw) -> Mutation {
    let form = draw.one_of(&FORMS);
    let (written, id, reason) = draw.one_of(&[
        ("7.0", "7", None),
        ("\"A-7\"", "A-7", None),
        ("12345678901", "12345678901", None),
        ("7.5", "", Some("invalid_ride_id")),
    ]);
    let (mut rides, position) = (rides(), draw.below(RIDES));
    for (nth, ride) in rides.iter_mut().enumerate() {
        let value = if nth == position { written.to_owned() } else { format!("\"ride {nth}\"") };
        ride.0.insert(0, ("ride_id".to_owned(), value));
    }
    let words = format!("ride {position} has ride_id {written}");
    // The cells of a table are texts, and a text is an id as it is.
    match reason {
        Some(reason) if form != Form::Csv => Mutation::of_rides(draw, words, form, &rides, all_but(position, reason)),
        _ => {
            let mutation = Mutation::of_rides(draw, words, form, &rides, all_accepted());
            let id = if form == Form::Csv { written.trim_matches('"') } else { id };
            mutation.with_cell(position, "ride_id", id)
        }
    }
}

/// The field that the reject of this reason must name.
pub(super) fn field_of(reason: &str) -> Option<&str> {
    let field = reason.strip_prefix("invalid_").or_else(|| reason.strip_prefix("missing_"));
    let field = field.or_else(|| reason.strip_suffix("_out_of_range")).or_else(|| reason.strip_prefix("negative_"));
    field.filter(|field| KEYS.contains(field) || *field == "ride_id")
}
