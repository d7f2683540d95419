use super::*;
use common::ride::{Label, Observation, Ride, WeatherMissing};

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

#[test]
fn statistics_count_labels_weather_and_stations() {
    let labelled = real_ride();
    let mut unlabelled = real_ride();
    unlabelled.ride.fieldservice = None;
    let mut dry = real_ride();
    dry.weather = Weather::Missing(WeatherMissing::NoObservationOnDate);
    let mut total = Statistics::of(&[labelled.clone(), unlabelled]);
    total.add(&Statistics::of(&[dry, labelled]));
    assert_eq!((total.rides, total.labelled, total.trainable), (4, 3, 2));
    assert_eq!(total.stations, BTreeMap::from([("USW00094728".to_owned(), 3)]));
    assert_eq!(total.without_weather, Counts::from([("no_observation_on_date".to_owned(), 1)]));
}

#[test]
fn a_staged_chunk_is_read_back() {
    let rides = vec![real_ride(), real_ride()];
    let (batch_id, digest) = ("b".to_owned(), Some("0".repeat(32)));
    let chunk = EnrichedChunk { batch_id, chunk: 0, split_id: None, digest, refresh: None, rides };
    let object = staged(&chunk).unwrap();
    let (heading, start) = open_staged(0, &object).unwrap();
    assert_eq!(heading, Heading { digest: chunk.digest, statistics: Statistics::of(&chunk.rides) });
    let mut expected = Vec::new();
    chunk.rides.iter().for_each(|ride| push_row(&mut expected, ride));
    assert_eq!(object[start..], expected);
}

#[test]
fn a_broken_staged_object_is_refused() {
    for object in [&b""[..], b"{}", b"{}\n", b"not json\na,b\n"] {
        assert!(matches!(open_staged(3, object), Err(JoinError::BrokenChunk { chunk: 3, .. })));
    }
}
