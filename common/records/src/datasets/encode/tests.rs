//! Every field has its reference form, and other readers of CSV read the same values.

use super::*;
use common::ride::{DISTANCE_MAX, Label, Observation, POINTS_MAX, Ride, WeatherMissing};
use proptest::{collection::vec, option, prelude::*};

fn real_ride() -> EnrichedRide {
    EnrichedRide {
        ride: Ride {
            ride_id: "450c7f9391a7a29b-0".into(),
            name: "Twilight".into(),
            breed: Some("Monoceros".into()),
            statustime: "2018-04-25 17:03:05.722".parse().unwrap(),
            latitude: 40.626722,
            longitude: -74.110954,
            distance: 29.56715,
            healthpoints: 291.0,
            magicpoints: 292.0,
            fieldservice: Some(Label(false)),
        },
        weather: Weather::Observed(Observation {
            groundstation: "USW00094728".into(),
            station_km: 20.71533,
            tmin: 111,
            tmax: 156,
            prcp: 241,
        }),
    }
}

fn row(ride: &EnrichedRide) -> String {
    let mut row = Vec::new();
    push_row(&mut row, ride);
    String::from_utf8(row).unwrap()
}

fn number(number: f64) -> String {
    let mut out = Vec::new();
    push_number(&mut out, number);
    String::from_utf8(out).unwrap()
}

fn km(number: f64) -> String {
    let mut out = Vec::new();
    push_six_decimals(&mut out, number);
    String::from_utf8(out).unwrap()
}

#[test]
fn the_first_ride_of_the_real_data_has_its_reference_row() {
    assert_eq!(
        row(&real_ride()),
        "450c7f9391a7a29b-0,Twilight,Monoceros,2018-04-25 17:03:05.722,40.626722,-74.110954,29.56715,291,292,0,\
         USW00094728,20.715330,111,156,241\n"
    );
}

#[test]
fn missing_values_are_empty_fields() {
    let mut ride = real_ride();
    ride.ride.breed = None;
    ride.ride.name = "".into();
    ride.ride.fieldservice = None;
    ride.weather = Weather::Missing(WeatherMissing::NoStationInReach);
    let expected = "450c7f9391a7a29b-0,,,2018-04-25 17:03:05.722,40.626722,-74.110954,29.56715,291,292,,,,,,\n";
    assert_eq!(row(&ride), expected);
}

#[test]
fn numbers_have_their_shortest_form() {
    for (value, text) in [
        (26.0, "26"),
        (-26.0, "-26"),
        (0.0, "0"),
        (-0.0, "0"),
        (0.1, "0.1"),
        (30.311448438933994, "30.311448438933994"),
        (9_007_199_254_740_992.0, "9007199254740992"),
        (9_883_202_237_979_838.0, "9883202237979838"),
    ] {
        assert_eq!(number(value), text);
    }
    for (value, text) in [(0.0, "0.000000"), (20.71533, "20.715330"), (99.999999, "99.999999"), (7.0, "7.000000")] {
        assert_eq!(km(value), text);
    }
}

/// Any ride.
pub(in crate::datasets) fn rides() -> impl Strategy<Value = EnrichedRide> {
    let text = "[ -~\u{e9}\n\r\",]{0,12}";
    let id = "[ -~\u{e9}\u{feff}\n\r\",]{1,12}";
    let points = prop_oneof![-POINTS_MAX..=POINTS_MAX, (-1000i32..1000).prop_map(f64::from)];
    let weather = prop_oneof![
        ("[A-Z0-9]{11}", 0u64..100_000_000, any::<i32>(), any::<i32>(), any::<i32>()).prop_map(
            |(station, millionths, tmin, tmax, prcp)| Weather::Observed(Observation {
                groundstation: station.into(),
                station_km: millionths as f64 / 1e6,
                tmin,
                tmax,
                prcp,
            })
        ),
        Just(Weather::Missing(WeatherMissing::NoStationInReach)),
        Just(Weather::Missing(WeatherMissing::NoObservationOnDate)),
    ];
    let numbers = (-90.0f64..=90.0, -180.0f64..=180.0, 0.0f64..=DISTANCE_MAX, points.clone(), points);
    (id, text, option::of(text), numbers, option::of(any::<bool>()), weather).prop_map(
        |(ride_id, name, breed, (latitude, longitude, distance, healthpoints, magicpoints), label, weather)| {
            EnrichedRide {
                ride: Ride {
                    ride_id: ride_id.into(),
                    name: name.into(),
                    breed: breed.map(Into::into),
                    statustime: "2019-12-31T23:59:59.999Z".parse().unwrap(),
                    latitude,
                    longitude,
                    distance,
                    healthpoints,
                    magicpoints,
                    fieldservice: label.map(Label),
                },
                weather,
            }
        },
    )
}

proptest! {
    #[test]
    fn every_field_round_trips_through_the_csv_crate(rides in vec(rides(), 0..20)) {
        let mut csv = header();
        rides.iter().for_each(|ride| push_row(&mut csv, ride));
        let mut reader = csv::Reader::from_reader(csv.as_slice());
        prop_assert_eq!(reader.headers().unwrap(), &csv::StringRecord::from(column_names().to_vec()));
        let records: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>().unwrap();
        prop_assert_eq!(records.len(), rides.len());
        for (record, EnrichedRide { ride, weather }) in records.iter().zip(&rides) {
            prop_assert_eq!(&record[0], ride.ride_id.as_str());
            prop_assert_eq!(&record[1], ride.name.as_str());
            prop_assert_eq!(&record[2], ride.breed.as_deref().unwrap_or(""));
            prop_assert_eq!(&record[3], ride.statustime.to_string());
            let numbers = [ride.latitude, ride.longitude, ride.distance, ride.healthpoints, ride.magicpoints];
            for (column, number) in (4..).zip(numbers) {
                prop_assert_eq!(record[column].parse::<f64>().unwrap(), number);
                prop_assert!(!record[column].ends_with(".0"));
            }
            prop_assert_eq!(&record[9], ride.fieldservice.map_or("", |label| if label.0 { "1" } else { "0" }));
            match weather {
                Weather::Observed(o) => {
                    prop_assert_eq!(&record[10], o.groundstation.as_str());
                    prop_assert_eq!(&record[11], format!("{:.6}", o.station_km));
                    prop_assert_eq!(record[11].parse::<f64>().unwrap(), o.station_km);
                    prop_assert_eq!([&record[12], &record[13], &record[14]], [o.tmin, o.tmax, o.prcp].map(|t| t.to_string()));
                }
                Weather::Missing(_) => prop_assert!((10..15).all(|column| record[column].is_empty())),
            }
        }
    }

    #[test]
    fn text_is_quoted_like_the_csv_crate_does(text in "[a-z\u{e9} \"',;\n\r]{1,12}") {
        let mut quoted = Vec::new();
        push_text(&mut quoted, &text);
        quoted.push(b'\n');
        let mut reference = csv::Writer::from_writer(Vec::new());
        reference.write_record([&text]).unwrap();
        prop_assert_eq!(quoted, reference.into_inner().unwrap());
    }
}
