use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn one(body: &str) -> RideToScore {
    let RideOrRides { ride, rides, .. } = read(body.as_bytes()).unwrap_or_else(|why| panic!("{body}: {why:?}"));
    assert!(rides.is_none(), "{body}");
    ride
}

/// Reads an invalid body. Returns status, invalid field and detail.
fn refused(body: &str) -> (u64, String, String) {
    let problem = read(body.as_bytes()).unwrap_err();
    let json = serde_json::to_value(&problem).unwrap();
    let field = json["errors"][0]["field"].as_str().unwrap_or("(none)").to_owned();
    (json["status"].as_u64().unwrap(), field, problem.detail().to_owned())
}

#[test]
fn a_telemetry_record_is_read_as_a_ride() {
    let ride = one(
        r#"{"Name": "Ash", "RIDE_ID": 7.0, " StatusTime": "2019-07-01T10:20:30Z", "Latitude": 40.7, "Longitude": "-74.01",
        "Distance": " 29.5 ", "HealthPoints": "3e2", "\ufeffMagicPoints": 292, "FieldService": NaN, "Breed": null}"#,
    );
    let numbers = [ride.latitude, ride.longitude, ride.distance, ride.healthpoints, ride.magicpoints];
    assert_eq!(numbers, [Some(40.7), Some(-74.01), Some(29.5), Some(300.0), Some(292.0)]);
    assert_eq!((ride.ride_id.as_deref(), ride.breed.as_deref()), (Some("7"), None));
    assert_eq!(ride.statustime, Some(Moment::Text("2019-07-01T10:20:30Z".to_owned())));
    assert_eq!(
        (ride.spelling("healthpoints"), ride.spelling("magicpoints")),
        (Some("HealthPoints"), Some("\u{FEFF}MagicPoints"))
    );
}

#[test]
fn null_and_blank_mean_absent_everywhere() {
    let nulls: serde_json::Map<String, Value> = ALL_KEYS.iter().map(|key| ((*key).to_owned(), Value::Null)).collect();
    assert_eq!(one(&Value::Object(nulls).to_string()), RideToScore::default());
    for body in [
        r#"{"temperature": {"min": null, "max": null, "unit": null}, "precipitation": {"amount": null, "unit": null}}"#,
        r#"{"temperature": {}, "precipitation": {}, "statustime": " ", "tmin": "", "distance": "\t"}"#,
    ] {
        assert_eq!(one(body), RideToScore::default(), "{body}");
    }
    let ride = one(r#"{"temperature": {"MIN": "9.7", "max": null, "Unit": "celsius"}}"#);
    let expected = Temperature { value: None, min: Some(9.7), max: None, unit: Some(TemperatureUnit::Celsius) };
    assert_eq!(ride.temperature, Some(expected));
}

#[test]
fn a_byte_order_mark_is_ignored() {
    assert_eq!(one("\u{FEFF}{\"distance\": 3}").distance, Some(3.0));
    assert_eq!(read("\u{FEFF} [{}]".as_bytes()).unwrap().rides.unwrap().count, 1);
}

#[test]
fn options_are_read_beside_the_rides() {
    let body = r#"{"Request_Id": "q", "rides": [{"distance": 1}, {"Distance": "2"}], "explain": false, "impute": false,
        "units": {"temperature": null, "Precipitation": "inch"}}"#;
    let RideOrRides { ride, rides, units, explain, impute, request_id } = read(body.as_bytes()).unwrap();
    assert!(ride.is_empty());
    let distances: Vec<_> = rides.unwrap().kept.iter().map(|ride| ride.distance).collect();
    assert_eq!(distances, [Some(1.0), Some(2.0)]);
    assert_eq!(units, Units { precipitation: PrecipitationUnit::Inch, ..Units::default() });
    assert_eq!((explain, impute, request_id.as_deref()), (Some(false), Some(false), Some("q")));
    // Members beside the rides are not a ride.
    let envelope = read(br#"{"id": 7, "timestamp": 1, "name": "x", "rides": [{}]}"#).unwrap();
    assert!(envelope.ride.is_empty() && envelope.rides.is_some());
    let nulls = r#"{"travel_data": [{}], "units": null, "explain": null, "request_id": null}"#;
    let RideOrRides { rides, units, explain, request_id, .. } = read(nulls.as_bytes()).unwrap();
    assert_eq!((rides.map(|rides| rides.count), units, explain, request_id), (Some(1), Units::default(), None, None));
}

#[test]
fn an_invalid_value_is_named_by_its_path_and_its_spelling() {
    for (body, field, words) in [
        (r#"{"distance": NaN}"#, "distance", "write null"),
        (r#"{"Distance": -Infinity}"#, "Distance", "-Infinity is not JSON"),
        (r#"{"temperature": {"min": NaN, "max": 1, "unit": "celsius"}}"#, "temperature.min", "write null"),
        (r#"{"statustime": NaN}"#, "statustime", "write null"),
        (r#"{"rides": [{}, {"tmin": None}]}"#, "rides[1].tmin", "None is not JSON"),
        (r#"{"distance": "far"}"#, "distance", "expected a number"),
        (r#"{"distance": "NaN"}"#, "distance", "expected a number"),
        (r#"{"distance": 1e999}"#, "distance", "number out of range"),
        (r#"{"distance": 1, "Distance": 2}"#, "Distance", "distance is given twice"),
        (r#"{"distance": 1, "distance": 1}"#, "distance", "given twice"),
        (r#"{"rides": [], "travel_data": []}"#, "", "given twice"),
        (r#"{"units": []}"#, "units", "expected an object"),
        (r#"{"units": {"temperature": "kelvin"}}"#, "units.temperature", "expected one of"),
        (r#"{"ride_id": 1.5}"#, "ride_id", "expected a string"),
        (r#"{"rides": {}}"#, "rides", "expected an array of rides"),
        (r#""a ride""#, "", "expected an object"),
    ] {
        let (status, found, detail) = refused(body);
        assert_eq!((status, found.as_str()), (422, field), "{body}: {detail}");
        assert!(detail.contains(words), "{body}: {detail}");
    }
    let (_, field, detail) = refused(r#"[{"distance": 1}, {"distance": nan}]"#);
    assert_eq!(field, "[1].distance", "{detail}");
}

#[test]
fn a_body_that_is_not_json_is_recognised() {
    for (body, words) in [
        (&b"{\"distance\": 1} {\"distance\": 2}"[..], "write several rides as an array"),
        (b"{\"distance\": 1}\n{\"distance\": 2}\n", "write several rides as an array"),
        (b"\x1F\x8B\x08\x00", "Content-Encoding: gzip"),
        (b"\x28\xB5\x2F\xFD\x00", "Content-Encoding: zstd"),
        (b"\xFF\xFE{\x00", "UTF-16"),
        (b"distance=30&tmin=97", "the body is not JSON"),
        (b"\xEF\xBB\xBF", "the body is empty"),
    ] {
        let problem = read(body).unwrap_err();
        assert_eq!(problem.status(), 400, "{problem:?}");
        assert!(problem.detail().contains(words), "{problem:?}");
    }
}

#[test]
fn keys_that_resemble_a_member_are_kept_up_to_a_bound() {
    let ride = one(r#"{"km": 30, "hp": 3, "t_min": 4, "mileage": 31, "colour": "blue", "name": "Ash"}"#);
    let near: Vec<(&str, &str)> = ride.spellings.iter().map(|near| (near.field, &*near.key)).collect();
    assert_eq!(near, [("distance", "km"), ("healthpoints", "hp"), ("tmin", "t_min")]);
    assert_eq!(ride.distance, None);
    let many: Vec<String> = (0..1_000).map(|_| "\"km\": 1".to_owned()).collect();
    assert_eq!(one(&format!("{{{}}}", many.join(","))).spellings.len(), 1);
}

#[test]
fn all_rides_are_counted_and_a_bounded_number_is_kept() {
    let many = format!("[{}]", vec!["{}"; SCORE_RIDES_MAX + 5].join(","));
    let rides = read(many.as_bytes()).unwrap().rides.unwrap();
    assert_eq!((rides.kept.len(), rides.count), (SCORE_RIDES_MAX, SCORE_RIDES_MAX + 5));
}

/// A key in any case, with blanks and invisible characters around it.
fn spelled(key: &'static str) -> impl Strategy<Value = String> {
    let blanks = || prop::sample::select(vec!["", " ", "\t", "\u{FEFF}", "\u{200B}", "\u{A0}"]);
    (prop::collection::vec(any::<bool>(), key.len()), blanks(), blanks()).prop_map(move |(upper, before, after)| {
        let letters = key.chars().zip(upper).map(|(c, upper)| if upper { c.to_ascii_uppercase() } else { c });
        format!("{before}{}{after}", letters.collect::<String>())
    })
}

/// A number in one of its forms.
fn written(number: f64) -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        json!(number),
        json!(number.to_string()),
        json!(format!(" {number}\n")),
        json!(format!("{number:e}")),
        json!(format!("\u{FEFF}{}{number}", if number.is_sign_negative() { "" } else { "+" })),
    ])
}

type Clean = Vec<(&'static str, f64)>;
type Varied = Vec<(String, Value)>;

/// The members of a ride in their plain form, and the same in other spellings and another order.
fn varied() -> impl Strategy<Value = (Clean, Varied)> {
    const NUMBERS: [&str; 8] =
        ["distance", "healthpoints", "magicpoints", "tmin", "tmax", "prcp", "latitude", "longitude"];
    let member = |key: &'static str| {
        let finite = any::<f64>().prop_filter("JSON has no NaN and no infinity", |number| number.is_finite());
        (finite, spelled(key)).prop_flat_map(move |(number, name)| {
            (Just((key, number)), written(number).prop_map(move |value| (name.clone(), value)))
        })
    };
    let members = NUMBERS.map(|key| member(key).boxed()).to_vec();
    members.prop_flat_map(|members| {
        let (clean, varied): (Vec<_>, Vec<_>) = members.into_iter().unzip();
        (Just(clean), Just(varied).prop_shuffle())
    })
}

proptest! {
    /// Every spelling of keys and numbers gives the same ride, to the last bit.
    #[test]
    fn every_spelling_of_a_ride_is_the_same_ride((clean, varied) in varied(), mark in any::<bool>()) {
        let clean: serde_json::Map<String, Value> = clean.into_iter().map(|(key, number)| (key.to_owned(), json!(number))).collect();
        let expected = one(&Value::Object(clean).to_string());
        let members: Vec<String> = varied.iter().map(|(key, value)| format!("{}: {value}", json!(key))).collect();
        let body = format!("{}{{{}}}", if mark { "\u{FEFF}" } else { "" }, members.join(", "));
        let bits = |ride: &RideToScore| {
            let numbers = [ride.distance, ride.healthpoints, ride.magicpoints, ride.tmin, ride.tmax, ride.prcp, ride.latitude, ride.longitude];
            numbers.map(|number| number.map(f64::to_bits))
        };
        prop_assert_eq!(bits(&one(&body)), bits(&expected), "{}", body);
        let many = read(format!("[{body_only}]", body_only = body.trim_start_matches('\u{FEFF}')).as_bytes()).unwrap();
        prop_assert_eq!(bits(&many.rides.unwrap().kept[0]), bits(&expected));
    }

    #[test]
    fn no_body_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = (read(&bytes), read_one(&bytes));
    }
}
