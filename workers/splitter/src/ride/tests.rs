use super::*;
use proptest::prelude::*;

const GOOD: &str = r#"{"name":"Twilight","statustime":"2018-04-25 17:03:05.722","latitude":40.5,"longitude":-74,
    "distance":29.5,"healthpoints":291,"magicpoints":292,"fieldservice":1,"breed":"Qilin","ride_id":"r-1"}"#;

/// Both ways of reading agree; the fast one may fail.
fn read(json: &str) -> Validation {
    let careful = Validation::from_members(json.as_bytes(), &Mapping::default());
    if let Ok(fast) = serde_json::from_str::<Validation>(json) {
        assert_eq!(fast, careful, "{json}");
    }
    careful
}

fn accepted(json: &str) -> Ride {
    match read(json) {
        Validation::Accepted(ride) => ride,
        rejected => panic!("{json}: {rejected:?}"),
    }
}

fn reason(json: &str) -> Option<RejectReason> {
    match read(json) {
        Validation::Accepted(_) => None,
        Validation::Rejected { reason, .. } => Some(reason),
    }
}

/// A valid ride with one member replaced or left out.
fn with(key: &str, value: Option<&str>) -> String {
    let members = [
        ("name", r#""Twilight""#),
        ("statustime", r#""2018-04-25 17:03:05""#),
        ("latitude", "40.5"),
        ("longitude", "-74"),
        ("distance", "29.5"),
        ("healthpoints", "291"),
        ("magicpoints", "292"),
        ("fieldservice", "1"),
        ("breed", r#""Qilin""#),
        ("ride_id", r#""r-1""#),
    ];
    let members = members.map(|(name, good)| if name == key { (name, value) } else { (name, Some(good)) });
    let written = members.iter().filter_map(|(name, value)| Some(format!("{name:?}:{}", (*value)?)));
    format!("{{{}}}", written.collect::<Vec<_>>().join(","))
}

#[test]
fn keys_are_read_in_any_case() {
    let ride = accepted(GOOD);
    assert_eq!((ride.name.as_str(), ride.breed.as_deref(), ride.ride_id.as_str()), ("Twilight", Some("Qilin"), "r-1"));
    assert_eq!(ride.statustime.to_string(), "2018-04-25 17:03:05.722");
    assert_eq!((ride.latitude, ride.longitude, ride.distance), (40.5, -74.0, 29.5));
    assert_eq!((ride.healthpoints, ride.magicpoints, ride.fieldservice), (291.0, 292.0, Some(Label(true))));
    let keys = ["name", "statustime", "latitude", "longitude", "distance", "healthpoints", "magicpoints"];
    for key in keys.iter().chain(&["fieldservice", "breed", "ride_id"]) {
        assert_eq!(accepted(&GOOD.replace(key, &key.to_uppercase())), ride);
        let escaped = format!("\\u{:04x}{}", u32::from(key.as_bytes()[0]), &key[1..]);
        assert_eq!(accepted(&GOOD.replace(&format!("{key:?}"), &format!("\"{escaped}\""))), ride, "{escaped}");
    }
}

#[test]
fn keys_are_trimmed() {
    for key in [
        " latitude",
        "Latitude ",
        "\u{feff}latitude",
        "\\tLATITUDE\\u200b",
        "\u{200b}latitude\u{a0}",
        "\\ufefflatitude",
    ] {
        assert_eq!(accepted(&GOOD.replace("\"latitude\"", &format!("\"{key}\""))), accepted(GOOD), "{key:?}");
        let twice = GOOD.replacen('{', &format!("{{\"{key}\":1,"), 1);
        assert_eq!(reason(&twice), Some(RejectReason::DuplicateField), "{key:?}");
    }
}

#[test]
fn a_key_that_resembles_a_field_is_unknown() {
    for name in ["ride\u{7f}id", "Latitud\u{c5}", "nam\u{5}", "nome", "status_time", "rideid", "latitude ", ""] {
        assert_eq!(Key::of(name.as_bytes()), Key::Unknown, "{name}");
    }
}

#[test]
fn every_invalid_number_has_its_reason() {
    use RejectReason as Why;
    let invalid_numbers =
        [r#""abc""#, "true", "[1]", r#"{"a":{"b":[]}}"#, "1e999", r#""1e999""#, r#""nan""#, r#""e5""#];
    let odd_texts = [r#""inf""#, r#""0x10""#, r#""1 2""#, r#"".""#, r#""1,5""#, r#""--1""#, r#""1_0""#, r#""\ud800""#];
    for (key, missing, invalid) in [
        ("latitude", Why::MissingLatitude, Why::InvalidLatitude),
        ("longitude", Why::MissingLongitude, Why::InvalidLongitude),
        ("distance", Why::MissingDistance, Why::InvalidDistance),
        ("healthpoints", Why::MissingHealthpoints, Why::InvalidHealthpoints),
        ("magicpoints", Why::MissingMagicpoints, Why::InvalidMagicpoints),
    ] {
        assert_eq!(reason(&with(key, None)), Some(missing));
        for value in ["null", "\"\"", "\" \\t\"", "\"\u{feff}\""] {
            assert_eq!(reason(&with(key, Some(value))), Some(missing), "{key} {value}");
        }
        for value in invalid_numbers.iter().chain(&odd_texts) {
            assert_eq!(reason(&with(key, Some(value))), Some(invalid), "{key} {value}");
        }
        let texts =
            [r#""1""#, r#""+1.50""#, r#""-0.0""#, r#"" 1""#, r#""1.\t""#, r#"".5""#, r#""1e1""#, r#""2.5E+01""#];
        for value in ["1", "1.5", "-0", "1e1"].iter().chain(&texts) {
            assert_eq!(reason(&with(key, Some(value))), None, "{key} {value}");
        }
        let huge = format!("\"{}\"", "9".repeat(400));
        assert_eq!(reason(&with(key, Some(&huge))), Some(invalid));
    }
}

#[test]
fn every_value_out_of_range_or_of_another_type_has_its_reason() {
    use RejectReason as Why;
    for (key, value, expected) in [
        ("statustime", None, Some(Why::MissingStatustime)),
        ("statustime", Some("null"), Some(Why::MissingStatustime)),
        ("statustime", Some("\"\""), Some(Why::MissingStatustime)),
        ("statustime", Some("\"  \""), Some(Why::MissingStatustime)),
        ("statustime", Some("1524675785"), None),
        ("statustime", Some("1524675785.5"), None),
        ("statustime", Some("1524675785722"), None),
        ("statustime", Some("\"1524675785722\""), None),
        ("statustime", Some("20180425"), Some(Why::InvalidStatustime)),
        ("statustime", Some("-1"), Some(Why::InvalidStatustime)),
        ("statustime", Some("1e999"), Some(Why::InvalidStatustime)),
        ("statustime", Some("true"), Some(Why::InvalidStatustime)),
        ("statustime", Some("\"2018-04-25\""), Some(Why::InvalidStatustime)),
        ("statustime", Some("\"4/25/2018 17:03\""), Some(Why::InvalidStatustime)),
        ("statustime", Some("\"2018-02-30 00:00:00\""), Some(Why::InvalidStatustime)),
        ("latitude", Some("90"), None),
        ("latitude", Some("90.000001"), Some(Why::LatitudeOutOfRange)),
        ("latitude", Some("\"-91\""), Some(Why::LatitudeOutOfRange)),
        ("longitude", Some("-180"), None),
        ("longitude", Some("181"), Some(Why::LongitudeOutOfRange)),
        ("distance", Some("-0.001"), Some(Why::NegativeDistance)),
        ("distance", Some("1000000"), None),
        ("distance", Some("1000000.001"), Some(Why::DistanceOutOfRange)),
        ("distance", Some("1e308"), Some(Why::DistanceOutOfRange)),
        ("healthpoints", Some("-1000000000"), None),
        ("healthpoints", Some("-1000000000.1"), Some(Why::HealthpointsOutOfRange)),
        ("healthpoints", Some("\"1000000001\""), Some(Why::HealthpointsOutOfRange)),
        ("magicpoints", Some("1e9"), None),
        ("magicpoints", Some("-1e308"), Some(Why::MagicpointsOutOfRange)),
        ("fieldservice", Some("2"), Some(Why::InvalidFieldservice)),
        ("fieldservice", Some("0.5"), Some(Why::InvalidFieldservice)),
        ("fieldservice", Some("-1"), Some(Why::InvalidFieldservice)),
        ("fieldservice", Some("1e999"), Some(Why::InvalidFieldservice)),
        ("fieldservice", Some("\"yes\""), Some(Why::InvalidFieldservice)),
        ("fieldservice", Some("[]"), Some(Why::InvalidFieldservice)),
        ("name", Some("7"), Some(Why::InvalidName)),
        ("name", Some("false"), Some(Why::InvalidName)),
        ("name", Some("\"\\udc00\""), Some(Why::InvalidName)),
        ("breed", Some("{}"), Some(Why::InvalidBreed)),
        ("ride_id", Some("1.5"), Some(Why::InvalidRideId)),
        ("ride_id", Some("true"), Some(Why::InvalidRideId)),
        ("ride_id", Some("\"a\\nb\""), Some(Why::InvalidRideId)),
        ("ride_id", Some("18446744073709551616"), Some(Why::InvalidRideId)),
        ("ride_id", Some("9007199254740992.0"), Some(Why::InvalidRideId)),
        ("ride_id", Some("9007199254740993.0"), Some(Why::InvalidRideId)),
        ("ride_id", Some("1e300"), Some(Why::InvalidRideId)),
    ] {
        assert_eq!(reason(&with(key, value)), expected, "{key} {value:?}");
    }
    let long = |bytes: usize| format!("\"{}\"", "x".repeat(bytes));
    assert_eq!(reason(&with("ride_id", Some(&long(RIDE_ID_BYTES_MAX)))), None);
    assert_eq!(reason(&with("ride_id", Some(&long(RIDE_ID_BYTES_MAX + 1)))), Some(Why::InvalidRideId));
    assert_eq!(reason(&with("name", Some(&long(TEXT_BYTES_MAX)))), None);
    assert_eq!(reason(&with("name", Some(&long(TEXT_BYTES_MAX + 1)))), Some(Why::InvalidName));
    assert_eq!(reason(&with("breed", Some(&long(TEXT_BYTES_MAX + 1)))), Some(Why::InvalidBreed));
}

#[test]
fn optional_fields_may_be_absent_null_or_empty() {
    for value in [None, Some("null"), Some("\"\"")] {
        assert_eq!(accepted(&with("fieldservice", value)).fieldservice, None);
        assert_eq!(accepted(&with("name", value)).name, "");
        assert_eq!(accepted(&with("breed", value)).breed, None);
        assert_eq!(accepted(&with("ride_id", value)).ride_id, "");
    }
    for unlabelled in ["\"null\"", "\"NaN\"", "\"NA\"", "\"  \""] {
        assert_eq!(accepted(&with("fieldservice", Some(unlabelled))).fieldservice, None, "{unlabelled}");
    }
    for (zero, one) in [("0", "1"), ("\"0\"", "\"1\""), ("0.0", "1.0"), ("\"0.0\"", "\" 1.0\""), ("false", "true")] {
        assert_eq!(accepted(&with("fieldservice", Some(zero))).fieldservice, Some(Label(false)));
        assert_eq!(accepted(&with("fieldservice", Some(one))).fieldservice, Some(Label(true)));
    }
    for (zero, one) in [("\"FALSE\"", "\"True\""), ("\"false \"", "\"TRUE\""), ("-0.0", "1e0")] {
        assert_eq!(accepted(&with("fieldservice", Some(zero))).fieldservice, Some(Label(false)));
        assert_eq!(accepted(&with("fieldservice", Some(one))).fieldservice, Some(Label(true)));
    }
    for (id, expected) in [
        ("17", "17"),
        ("-5", "-5"),
        ("18446744073709551615", "18446744073709551615"),
        ("7.0", "7"),
        ("-0.0", "0"),
        ("1.2e3", "1200"),
        ("9007199254740991.0", "9007199254740991"),
        ("9007199254740993", "9007199254740993"),
        ("\" 7.0\"", " 7.0"),
    ] {
        assert_eq!(accepted(&with("ride_id", Some(id))).ride_id, expected);
    }
    assert!(accepted(&with("distance", Some("-0.0"))).distance.is_sign_positive());
}

#[test]
fn the_first_fault_in_the_order_of_fields_is_the_reason() {
    let order = [
        ("statustime", "1", RejectReason::InvalidStatustime),
        ("latitude", "91", RejectReason::LatitudeOutOfRange),
        ("longitude", "null", RejectReason::MissingLongitude),
        ("distance", "-1", RejectReason::NegativeDistance),
        ("healthpoints", "\"x\"", RejectReason::InvalidHealthpoints),
        ("magicpoints", "[]", RejectReason::InvalidMagicpoints),
        ("fieldservice", "3", RejectReason::InvalidFieldservice),
        ("name", "1", RejectReason::InvalidName),
        ("breed", "1", RejectReason::InvalidBreed),
        ("ride_id", "0.5", RejectReason::InvalidRideId),
    ];
    for first in 0..order.len() {
        let bad: Vec<_> = order[first..].iter().rev().map(|(key, value, _)| format!("{key:?}:{value}")).collect();
        let good = order[..first].iter().map(|(key, ..)| {
            let all = with("", None);
            let start = all.find(&format!("{key:?}:")).unwrap();
            all[start..].split([',', '}']).next().unwrap().to_owned()
        });
        let members: Vec<_> = bad.iter().cloned().chain(good).collect();
        assert_eq!(reason(&format!("{{{}}}", members.join(","))), Some(order[first].2));
    }
}

#[test]
fn a_repeated_field_is_the_reason_before_any_other() {
    for twice in [r#""Name":"x""#, r#""LATITUDE":null"#, r#""ride_id":"r-2""#] {
        assert_eq!(reason(&GOOD.replacen('{', &format!("{{{twice},"), 1)), Some(RejectReason::DuplicateField));
    }
    assert_eq!(reason(&GOOD.replacen('{', r#"{"note":1,"note":2,"#, 1)), None);
}

#[test]
fn a_rejected_ride_keeps_its_id() {
    let rejected = read(&GOOD.replace("40.5", "99"));
    assert_eq!(rejected, Validation::Rejected { reason: RejectReason::LatitudeOutOfRange, ride_id: "r-1".into() });
}

#[test]
fn unknown_members_are_ignored() {
    let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    for odd in [r#""x":1e999"#, r#""\ud800":"\udfff""#, r#""naïve":[{"latitude":1}]"#, &format!("\"deep\":{deep}")] {
        assert_eq!(accepted(&GOOD.replacen('{', &format!("{{{odd},"), 1)), accepted(GOOD));
    }
    assert_eq!(reason(&with("latitude", Some(&deep))), Some(RejectReason::InvalidLatitude));
}

#[test]
fn an_outline_has_given_ids() {
    for (json, has_ride_id) in [
        (GOOD, true),
        (r#"{"RIDE_ID":7}"#, true),
        (r#"{"ride_id":1e999}"#, true),
        (r#"{"ride_id":null}"#, false),
        (r#"{"ride_id":"","ride_id ":" NaN"}"#, false),
        ("{}", false),
    ] {
        let careful = Outline::from_members(json.as_bytes(), &Mapping::default());
        assert_eq!(careful, Outline { has_ride_id }, "{json}");
        assert!(serde_json::from_str::<Outline>(json).is_ok_and(|fast| fast == careful) || json.contains("999"));
    }
}

/// Regression test (fuzzing): the first pass accepted a control character around a known key, and the second refused it.
#[test]
fn a_control_character_in_a_key_is_refused_in_both_passes() {
    for key in ["\0\0LATITUDE", "latitude\n", "\u{1}latitude", "x\0"] {
        let json = format!("{{\"{key}\":1}}");
        assert!(serde_json::from_str::<Outline>(&json).is_err(), "{key:?}");
        assert!(serde_json::from_str::<Validation>(&json).is_err(), "{key:?}");
    }
}

/// A placeholder for a missing value is neither a breed nor an id.
#[test]
fn a_placeholder_is_an_absent_breed_and_an_absent_id() {
    for placeholder in
        ["NaN", "nan", "-nan", "NA", "null", "NULL", " ", "\\t", " None ", "N/A", "#N/A", "<NA>", "\\\\N"]
    {
        let text = format!("\"{placeholder}\"");
        assert_eq!(accepted(&with("ride_id", Some(&text))).ride_id, "", "{text}");
        assert_eq!(accepted(&with("breed", Some(&text))).breed, None, "{text}");
        assert!(!serde_json::from_str::<Outline>(&with("ride_id", Some(&text))).unwrap().has_ride_id, "{text}");
    }
    assert_eq!(accepted(&with("name", Some("\"Nan\""))).name, "Nan", "a name is free text");
    assert_eq!(accepted(&with("breed", Some("\"Nana\""))).breed.as_deref(), Some("Nana"));
}

fn mapping(entries: &[&str]) -> Mapping {
    let mut map = Mapping::default();
    entries.iter().for_each(|entry| map.add(entry).unwrap());
    map
}

const FOREIGN: &str = r#"{"name":"Twilight","when":{"end":1524675785.722},"pos":[-74,40.5],"km":" 47.475651","hp":"291",
    "Magic Points ":292,"service.needed":"True","kind":"Qilin","id":7.0,"distance":"not this one"}"#;

#[test]
fn a_mapped_field_is_read_only_from_its_source() {
    let map = mapping(&[
        "statustime=when.end",
        "latitude=pos.1",
        "longitude=pos.0",
        "distance=KM*0.621371",
        "healthpoints=hp",
        "magicpoints=magic points",
        "fieldservice=service.needed",
        "breed=kind",
        "ride_id=id",
    ]);
    let Validation::Accepted(ride) = Validation::from_members(FOREIGN.as_bytes(), &map) else {
        panic!("expected a ride")
    };
    let good = Ride { ride_id: "7".into(), distance: ride.distance, ..accepted(GOOD) };
    assert_eq!(ride, good);
    assert!((ride.distance - 29.5).abs() < 1e-4, "{}", ride.distance);
    assert_eq!(Outline::from_members(FOREIGN.as_bytes(), &map), Outline { has_ride_id: true });
    assert_eq!(Outline::from_members(GOOD.as_bytes(), &map), Outline::default(), "their own keys are ignored");
}

#[test]
fn a_mapped_field_is_rejected_like_any_other() {
    use RejectReason as Why;
    let reason = |json: String, entry: &str| match Validation::from_members(json.as_bytes(), &mapping(&[entry])) {
        Validation::Accepted(_) => None,
        Validation::Rejected { reason, .. } => Some(reason),
    };
    let also = |members: &str| GOOD.replacen('{', &format!("{{{members},"), 1);
    for (members, entry, expected) in [
        (r#""lat":1"#, "latitude=lat", None),
        (r#""x":1"#, "latitude=lat", Some(Why::MissingLatitude)),
        (r#""lat":"""#, "latitude=lat", Some(Why::MissingLatitude)),
        (r#""lat":true"#, "latitude=lat", Some(Why::InvalidLatitude)),
        (r#""lat":91"#, "latitude=lat", Some(Why::LatitudeOutOfRange)),
        (r#""lat":1,"Lat ":2"#, "latitude=lat", Some(Why::DuplicateField)),
        (r#""a":{"b":1,"b":2}"#, "latitude=a.b", Some(Why::DuplicateField)),
        (r#""a.b":1,"a":{"b":"x"}"#, "latitude=a.b", None),
        (r#""a":{"b":1}"#, "latitude=a.b", None),
        (r#""a":{"b":1}"#, "latitude=a.b.c", Some(Why::MissingLatitude)),
        (r#""a":[0,{"b":1}]"#, "latitude=a.1.b", None),
        (r#""a":[0]"#, "latitude=a.1", Some(Why::MissingLatitude)),
        (r#""km":"47.5""#, "distance=km*0.621371", None),
        (r#""km":[1]"#, "distance=km*0.621371", Some(Why::InvalidDistance)),
        (r#""km":1e300"#, "distance=km*1e300", Some(Why::InvalidDistance)),
        (r#""m":-1"#, "distance=m/1609.344", Some(Why::NegativeDistance)),
        (r#""x":1"#, "latitude=latitude", None),
        (r#""name2":"y""#, "name=name2", None),
        (r#""x":1"#, "breed=name", None),
    ] {
        assert_eq!(reason(also(members), entry), expected, "{members} {entry}");
    }
}

proptest! {
    #[test]
    fn numbers_round_trip_as_numbers_and_as_texts(value in -1e9f64..1e9) {
        prop_assert_eq!(accepted(&with("healthpoints", Some(&format!("{value:?}")))).healthpoints, value + 0.0);
        prop_assert_eq!(accepted(&with("healthpoints", Some(&format!("\"{value}\"")))).healthpoints, value + 0.0);
    }

    /// What the fast reading accepts is valid JSON; what both readings refuse is not.
    #[test]
    fn broken_rides_never_panic(cut in 0usize..200, byte in any::<u8>()) {
        let mut bytes = GOOD.as_bytes().to_vec();
        let at = cut % bytes.len();
        bytes[at] = byte;
        let fast = serde_json::from_slice::<Validation>(&bytes).is_ok();
        let outline = serde_json::from_slice::<Outline>(&bytes).is_ok();
        let grammar = serde_json::from_slice::<IgnoredAny>(&bytes).is_ok();
        if std::str::from_utf8(&bytes).is_ok() {
            prop_assert!(!fast || grammar);
            prop_assert!(!outline || grammar);
        }
        let _ = Validation::from_members(&bytes, &Mapping::default());
    }
}
