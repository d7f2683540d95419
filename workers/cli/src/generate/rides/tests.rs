use super::*;
use common::ride::{RejectReason, Ride};
use sha2::{Digest, Sha256};
use splitter::ride::Validation;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

fn options(rides: u64) -> RidesOptions {
    RidesOptions { rides, ..RidesOptions::default() }
}

/// Returns the splitter's decision on a ride.
fn judge(ride: &SyntheticRide) -> Result<Ride, RejectReason> {
    match serde_json::from_str(&serde_json::to_string(ride).unwrap()).unwrap() {
        Validation::Accepted(ride) => Ok(ride),
        Validation::Rejected { reason, .. } => Err(reason),
    }
}

fn document(form: Form, options: &RidesOptions) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rides");
    write_rides(&path, form, options).unwrap();
    fs::read_to_string(path).unwrap()
}

#[test]
fn same_seed_gives_the_same_bytes_on_every_machine() {
    let sha256 = |options: &RidesOptions| hex::encode(Sha256::digest(document(Form::Ndjson, options)));
    let digest = sha256(&options(2_000));
    assert_eq!(digest, "4454a1bb33ff323a73b21e0ee02139094de6c23a58b3a2d9ae23ab970cd1666d");
    assert_ne!(digest, sha256(&RidesOptions { seed: 43, ..options(2_000) }));
}

#[test]
fn every_form_contains_the_same_rides() {
    type Object = serde_json::Map<String, serde_json::Value>;
    let options = options(50);
    let of = |form| document(form, &options);
    let array: Vec<Object> = serde_json::from_str(&of(Form::Array)).unwrap();
    let travel_data: BTreeMap<String, Vec<Object>> = serde_json::from_str(&of(Form::TravelData)).unwrap();
    let lines = of(Form::Ndjson);
    let concatenated = of(Form::Concatenated);
    assert_eq!(array.len(), 50);
    assert_eq!(travel_data["travel_data"], array);
    assert_eq!(lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Object>>(), array);
    let objects = serde_json::Deserializer::from_str(&concatenated).into_iter();
    assert_eq!(objects.collect::<Result<Vec<Object>, _>>().unwrap(), array);
    assert!(!concatenated.contains('\n'));
}

#[test]
fn documents_without_rides_are_valid() {
    let none = options(0);
    assert_eq!(document(Form::Array, &none), "[\n\n]\n");
    assert_eq!(document(Form::TravelData, &none), "{\"travel_data\":[\n\n]}\n");
    assert_eq!(document(Form::Concatenated, &none), "");
}

#[test]
fn splitter_accepts_valid_rides_and_rejects_invalid_ones_for_their_reasons() {
    let mut reasons = BTreeSet::new();
    for ride in rides(&RidesOptions { bad_share: 0.05, ..options(3_000) }) {
        reasons.extend(ride.reject_reason);
        match ride.reject_reason {
            None | Some(RejectReason::DuplicateRideId) => {
                let ride = judge(&ride).unwrap();
                assert!((29.0..=31.0).contains(&ride.distance) && (290.0..=370.0).contains(&ride.healthpoints));
                assert_eq!(ride.statustime.date().0, 2018);
            }
            Some(reason) => assert_eq!(judge(&ride), Err(reason)),
        }
    }
    assert_eq!(reasons, BTreeSet::from(FAULTS.map(|(why, _)| why)));
}

#[test]
fn about_two_in_five_rides_end_in_a_service_request() {
    let valid: Vec<Ride> = rides(&options(20_000)).filter_map(|ride| judge(&ride).ok()).collect();
    let service = valid.iter().filter(|ride| ride.fieldservice.is_some_and(|label| label.0)).count();
    let share = service as f64 / valid.len() as f64;
    assert!((0.34..0.42).contains(&share), "{share}");
    let unlabelled = RidesOptions { labelled: false, bad_share: 0.0, ..options(100) };
    assert!(rides(&unlabelled).all(|ride| judge(&ride).unwrap().fieldservice.is_none()));
}
