use super::*;
use proptest::prelude::*;

const GOOD: &str = r#"{"name":"Twilight","statustime":"2018-04-25 17:03:05.722","latitude":40.5,"longitude":-74,
    "distance":29.5,"healthpoints":291,"magicpoints":292,"fieldservice":1,"breed":"Qilin","ride_id":"r-1"}"#;

/// Both ways of reading must say the same; the fast one may give up.
fn read(json: &str) -> Judged {
    let careful = Judged::carefully(json.as_bytes());
    if let Ok(fast) = serde_json::from_str::<Judged>(json) {
        assert_eq!(fast, careful, "{json}");
    }
    careful
}

fn accepted(json: &str) -> Ride {
    match read(json) {
        Judged::Accepted(ride) => ride,
        rejected => panic!("{json}: {rejected:?}"),
    }
}

fn reason(json: &str) -> Option<RejectReason> {
    match read(json) {
        Judged::Accepted(_) => None,
        Judged::Rejected { reason, .. } => Some(reason),
    }
}

/// A good ride with one member replaced, or left out.
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
    let kept = members.map(|(name, good)| if name == key { (name, value) } else { (name, Some(good)) });
    let written = kept.iter().filter_map(|(name, value)| Some(format!("{name:?}:{}", (*value)?)));
    format!("{{{}}}", written.collect::<Vec<_>>().join(","))
}

#[test]
fn reads_a_ride_whatever_the_case_of_its_keys() {
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
fn what_only_resembles_a_key_is_none() {
    for name in ["ride\u{7f}id", "Latitud\u{c5}", "nam\u{5}", "nome", "status_time", "rideid", "latitude ", ""] {
        assert_eq!(Key::of(name.as_bytes()), Key::Unknown, "{name}");
    }
}

#[test]
fn says_of_every_field_what_is_wrong_with_it() {
    use RejectReason as Why;
    let invalid_numbers = [r#""""#, r#""abc""#, "true", "[1]", r#"{"a":{"b":[]}}"#, "1e999", r#""1e2""#, r#""nan""#];
    let odd_texts = [r#""inf""#, r#""0x10""#, r#"" 1""#, r#""1.""#, r#"".5""#, r#""--1""#, r#""1_0""#, r#""\ud800""#];
    for (key, missing, invalid) in [
        ("latitude", Why::MissingLatitude, Why::InvalidLatitude),
        ("longitude", Why::MissingLongitude, Why::InvalidLongitude),
        ("distance", Why::MissingDistance, Why::InvalidDistance),
        ("healthpoints", Why::MissingHealthpoints, Why::InvalidHealthpoints),
        ("magicpoints", Why::MissingMagicpoints, Why::InvalidMagicpoints),
    ] {
        assert_eq!(reason(&with(key, None)), Some(missing));
        assert_eq!(reason(&with(key, Some("null"))), Some(missing));
        for value in invalid_numbers.iter().chain(&odd_texts) {
            assert_eq!(reason(&with(key, Some(value))), Some(invalid), "{key} {value}");
        }
        for value in ["1", "1.5", "-0", r#""1""#, r#""+1.50""#, r#""-0.0""#, "1e1"] {
            assert_eq!(reason(&with(key, Some(value))), None, "{key} {value}");
        }
        let huge = format!("\"{}\"", "9".repeat(400));
        assert_eq!(reason(&with(key, Some(&huge))), Some(invalid));
    }
    for (key, value, expected) in [
        ("statustime", None, Some(Why::MissingStatustime)),
        ("statustime", Some("null"), Some(Why::MissingStatustime)),
        ("statustime", Some("\"\""), Some(Why::InvalidStatustime)),
        ("statustime", Some("1524675785"), Some(Why::InvalidStatustime)),
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
        ("fieldservice", Some("true"), Some(Why::InvalidFieldservice)),
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
fn what_is_optional_may_be_absent_null_or_empty() {
    for value in [None, Some("null"), Some("\"\"")] {
        assert_eq!(accepted(&with("fieldservice", value)).fieldservice, None);
        assert_eq!(accepted(&with("name", value)).name, "");
        assert_eq!(accepted(&with("breed", value)).breed, None);
        assert_eq!(accepted(&with("ride_id", value)).ride_id, "");
    }
    for (label, expected) in
        [("0", false), ("\"0\"", false), ("0.0", false), ("1", true), ("\"1\"", true), ("1.0", true)]
    {
        assert_eq!(accepted(&with("fieldservice", Some(label))).fieldservice, Some(Label(expected)));
    }
    for (id, expected) in [("17", "17"), ("-5", "-5"), ("18446744073709551615", "18446744073709551615")] {
        assert_eq!(accepted(&with("ride_id", Some(id))).ride_id, expected);
    }
    assert!(accepted(&with("distance", Some("-0.0"))).distance.is_sign_positive());
}

#[test]
fn of_several_faults_the_first_in_order_is_told() {
    let order = [
        ("statustime", "1", RejectReason::InvalidStatustime),
        ("latitude", "91", RejectReason::LatitudeOutOfRange),
        ("longitude", "null", RejectReason::MissingLongitude),
        ("distance", "-1", RejectReason::NegativeDistance),
        ("healthpoints", "\"\"", RejectReason::InvalidHealthpoints),
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
fn a_field_given_twice_is_told_before_anything_else() {
    for twice in [r#""Name":"x""#, r#""LATITUDE":null"#, r#""ride_id":"r-2""#] {
        assert_eq!(reason(&GOOD.replacen('{', &format!("{{{twice},"), 1)), Some(RejectReason::DuplicateField));
    }
    assert_eq!(reason(&GOOD.replacen('{', r#"{"note":1,"note":2,"#, 1)), None);
}

#[test]
fn a_rejected_ride_still_tells_its_id() {
    let rejected = read(&GOOD.replace("40.5", "99"));
    assert_eq!(rejected, Judged::Rejected { reason: RejectReason::LatitudeOutOfRange, ride_id: "r-1".into() });
}

#[test]
fn unknown_members_are_ignored_however_odd() {
    let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    for odd in [r#""x":1e999"#, r#""\ud800":"\udfff""#, r#""naïve":[{"latitude":1}]"#, &format!("\"deep\":{deep}")] {
        assert_eq!(accepted(&GOOD.replacen('{', &format!("{{{odd},"), 1)), accepted(GOOD));
    }
    assert_eq!(reason(&with("latitude", Some(&deep))), Some(RejectReason::InvalidLatitude));
}

#[test]
fn an_outline_sees_given_ids_only() {
    for (json, expected) in [
        (GOOD, true),
        (r#"{"RIDE_ID":7}"#, true),
        (r#"{"ride_id":1e999}"#, true),
        (r#"{"ride_id":null}"#, false),
        (r#"{"ride_id":""}"#, false),
        ("{}", false),
    ] {
        let careful = Outline::carefully(json.as_bytes());
        assert_eq!(careful.has_ride_id, expected, "{json}");
        assert!(serde_json::from_str::<Outline>(json).is_ok_and(|fast| fast == careful) || json.contains("999"));
    }
}

proptest! {
    #[test]
    fn a_plain_decimal_is_what_its_grammar_says(text in "[-+]?[0-9]{0,4}\\.?[0-9]{0,4}|.{0,6}") {
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(&text);
        let parts: Vec<_> = unsigned.split('.').collect();
        let digits = |part: &&str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
        let fits = parts.len() <= 2 && parts.iter().all(digits);
        prop_assert_eq!(plain_decimal(&text).is_some(), fits);
    }

    #[test]
    fn numbers_survive_as_numbers_and_as_texts(value in -1e9f64..1e9) {
        prop_assert_eq!(accepted(&with("healthpoints", Some(&format!("{value:?}")))).healthpoints, value + 0.0);
        prop_assert_eq!(accepted(&with("healthpoints", Some(&format!("\"{value}\"")))).healthpoints, value + 0.0);
    }

    /// Where the fast reading accepts JSON, the grammar does; where it is refused for good, the grammar refuses it, too.
    #[test]
    fn broken_rides_never_panic(cut in 0usize..200, byte in any::<u8>()) {
        let mut bytes = GOOD.as_bytes().to_vec();
        let at = cut % bytes.len();
        bytes[at] = byte;
        let fast = serde_json::from_slice::<Judged>(&bytes).is_ok();
        let outline = serde_json::from_slice::<Outline>(&bytes).is_ok();
        let grammar = serde_json::from_slice::<IgnoredAny>(&bytes).is_ok();
        if std::str::from_utf8(&bytes).is_ok() {
            prop_assert!(!fast || grammar);
            prop_assert!(!outline || grammar);
        }
        let _ = Judged::carefully(&bytes);
    }
}
