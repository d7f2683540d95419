//! Serving statistics, shadow scoring and the sample of scored rides.

use super::*;
use common::{
    message::Fallback,
    model::Histogram,
    served::{Served, Tally, drift, read_scored},
};
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use records::serving;

/// Time after which everything is written.
const WRITTEN: Duration = Duration::from_millis(5_001);

async fn put_challenger(store: &Store, model: &Model) {
    store::write(store, &layout::model(&model.model, &model.model_id), encoded(model)).await.unwrap();
    let body = serde_json::to_vec(&alias(AliasName::Challenger, &[model])).unwrap();
    store::write(store, &layout::alias(&model.model, AliasName::Challenger), body).await.unwrap();
}

async fn paths(store: &Store, prefix: &str) -> Vec<String> {
    let listed = store.list(Some(&prefix.into())).map_ok(|object| object.location.to_string());
    let mut paths: Vec<String> = listed.try_collect().await.unwrap();
    paths.sort();
    paths
}

async fn tally(store: &Store, id: &str) -> Tally {
    serving::read(store, layout::GLOBAL_MODEL, id, None).await.unwrap()
}

/// A request for rides with these distances and ids.
fn with_ids(rides: impl Iterator<Item = (f64, String)>) -> ScoreRequest {
    let template = request(1).rides.remove(0);
    let ride = |(distance, id)| ScoreRide { distance: Some(distance), ride_id: Some(id), ..template.clone() };
    ScoreRequest { rides: rides.map(ride).collect(), ..request(1) }
}

async fn with_champion(settings: Settings) -> (Store, Scorer) {
    let store = memory();
    put_model(&store, "0").await;
    put_champion(&store, &["0"]).await;
    let scorer = Scorer::new(settings, Arc::clone(&store));
    scorer.connected().await.unwrap();
    (store, scorer)
}

/// Some seconds after the first request the counts are written, in the bins of the artefact; later requests are added, and the counts
/// of two processes add up.
#[tokio::test(start_paused = true)]
async fn serving_statistics_are_written_some_seconds_later() {
    let (store, scorer) = with_champion(Settings::default()).await;
    // Distances below 10, below 100 and above, weighted with 0.75; all other features are 0.
    let distances = [0.0, 9.9, 10.0, 50.0, 100.0, 1_000.0, -1.0];
    let rides = |distances: &[f64]| {
        with_ids(distances.iter().map(|d| (*d, format!("ride {d}"))).collect::<Vec<_>>().into_iter())
    };
    ask_for(&scorer, rides(&distances), None).await.unwrap();
    assert_eq!(paths(&store, "served").await, [""; 0], "not yet");
    tokio::time::sleep(Duration::from_millis(4_900)).await;
    ask_for(
        &scorer,
        ScoreRequest {
            rides: vec![ScoreRide { breed: Some("qilin".to_owned()), ..request(1).rides.remove(0) }],
            ..request(1)
        },
        None,
    )
    .await
    .unwrap();
    tokio::time::sleep(Duration::from_millis(101)).await;

    let written = paths(&store, "served").await;
    let [path] = written.as_slice() else { panic!("{written:?}") };
    let snapshot: Served = store::read_json(&store, path).await.unwrap().unwrap();
    let Served { model, model_id, date, scorer: name, .. } = &snapshot;
    assert_eq!(*path, layout::served(model, model_id, date, name));
    let counts = tally(&store, "0").await;
    assert_eq!(counts, snapshot.tally);
    assert_eq!((counts.rides, counts.fallbacks.no_breed_model), (7, 1), "the impossible one is not scored");
    let by_name = |feature: &str| counts.features.iter().find(|known| known.feature == feature).unwrap().rides.clone();
    assert_eq!((by_name("distance"), by_name("tmin")), (vec![3, 2, 2], vec![7, 0, 0]));
    assert_eq!(counts.probabilities.iter().sum::<u64>(), 7);
    assert_eq!((counts.probabilities[10], counts.probabilities[19]), (2, 5), "{:?}", counts.probabilities);
    assert_eq!(counts.service, 7);
    assert_eq!(counts.breeds.map(|cache| (cache.hits, cache.misses, cache.loads)), Some((0, 1, 1)));

    ask_for(&scorer, rides(&[20.0]), None).await.unwrap();
    let other = Scorer::new(Settings::default(), Arc::clone(&store));
    ask_for(&other, rides(&[30.0, 40.0]), None).await.unwrap();
    tokio::time::sleep(WRITTEN).await;
    assert_eq!(paths(&store, "served").await.len(), 2);
    assert_eq!(tally(&store, "0").await.rides, 10);
    let nothing_new = store::read(&store, path).await.unwrap();
    tokio::time::sleep(10 * WRITTEN).await;
    assert_eq!(store::read(&store, path).await.unwrap(), nothing_new);
}

/// A worker that ends writes its counts. One without statistics writes nothing, by construction or by its settings.
#[tokio::test(start_paused = true)]
async fn a_scorer_that_ends_writes_its_counts_and_one_without_statistics_none() {
    let (store, scorer) = with_champion(Settings::default()).await;
    let request = || with_ids([(1.0, "a".to_owned())].into_iter());
    ask_for(&scorer, request(), None).await.unwrap();
    scorer.ended().await;
    assert_eq!(tally(&store, "0").await.rides, 1);
    assert_eq!(paths(&store, "scored").await.len(), 1);

    let silent = [
        Scorer::new(Settings::default(), Arc::clone(&store)).without_statistics(),
        Scorer::new(Settings { served_write_ms: Some(0), ..Settings::default() }, Arc::clone(&store)),
    ];
    for scorer in silent {
        ask_for(&scorer, request(), None).await.unwrap();
        scorer.ended().await;
    }
    tokio::time::sleep(WRITTEN).await;
    assert_eq!((paths(&store, "served").await.len(), tally(&store, "0").await.rides), (1, 1));
}

/// Shadow scoring: the written differences equal those recomputed from both artefacts. The challenger is never in an answer, and one
/// that cannot be served changes nothing.
#[tokio::test(start_paused = true)]
async fn the_differences_of_a_challenger_equal_a_recomputation() {
    let (store, scorer) = with_champion(Settings::default()).await;
    let champion = artefact("0");
    let mut challenger = Model { threshold: 0.9, ..artefact("3") };
    challenger.coefficients[0].per_unit = 0.05;
    challenger.coefficients.remove(5);
    put_challenger(&store, &challenger).await;
    scorer.connected().await.unwrap();
    let distances: Vec<f64> = (0..60).map(|mile| f64::from(mile) - 0.5).collect();
    let rides = with_ids(distances.iter().map(|d| (*d, format!("{d}"))).collect::<Vec<_>>().into_iter());
    let response = ask_for(&scorer, rides, None).await.unwrap();
    assert_eq!(response.model_id.as_deref(), Some("0"));
    assert!(response.scores.iter().all(|score| !matches!(&score.outcome, ScoreOutcome::Scored { by: Some(_), .. })));
    tokio::time::sleep(WRITTEN).await;

    let counts = tally(&store, "0").await;
    let [shadow] = counts.shadows.as_slice() else { panic!("{counts:?}") };
    let (mut sum, mut absolute, mut largest, mut decisions) = (0.0, 0.0, 0.0f64, 0);
    // The first distance is impossible.
    for d in &distances[1..] {
        let (a, b) = (champion.probability(&[*d, 0., 0., 0., 0., 0.]), challenger.probability(&[*d, 0., 0., 0., 0.]));
        sum += b - a;
        absolute += (b - a).abs();
        largest = largest.max((b - a).abs());
        decisions += u64::from((a >= 0.5) != (b >= 0.9));
    }
    assert_eq!((shadow.model_id.as_str(), shadow.rides, shadow.unscored, shadow.decisions), ("3", 59, 0, decisions));
    for (difference, expected) in
        [(shadow.difference_sum, sum), (shadow.absolute_sum, absolute), (shadow.largest, largest)]
    {
        assert!((difference - expected).abs() < 1e-9, "{difference} {expected}");
    }
    assert_eq!(shadow.differences.iter().sum::<u64>(), 59);

    // A broken challenger, then one that is the champion.
    store::write(&store, &layout::alias(layout::GLOBAL_MODEL, AliasName::Challenger), b"{".to_vec()).await.unwrap();
    let fresh = Scorer::new(Settings::default(), Arc::clone(&store));
    fresh.connected().await.unwrap();
    assert_eq!(ask(&fresh, 1).await.unwrap().scores.len(), 1);
    put_challenger(&store, &champion).await;
    let fresh = Scorer::new(Settings::default(), Arc::clone(&store));
    fresh.connected().await.unwrap();
    ask(&fresh, 1).await.unwrap();
    tokio::time::sleep(WRITTEN).await;
    assert_eq!(tally(&store, "0").await.shadows, counts.shadows);
}

/// All rides name breeds that have models. They are counted for the global model too, in its own bins, with the returned decisions;
/// the challenger is compared with the returned scores. A ride that only its breed model can score is only in the number of rides.
#[tokio::test(start_paused = true)]
async fn rides_scored_by_breed_models_are_counted_for_the_global_model_too() {
    let (store, scorer) = with_champion(Settings::default()).await;
    let of_breed = |breed: &str, intercept: f64| {
        let model = layout::breed_model(layout::GLOBAL_MODEL, breed).unwrap();
        Model { model, intercept, threshold: 0.99, prior_mean: Some("0".to_owned()), ..artefact(breed) }
    };
    let mut mileage = Model { prior_mean: None, ..of_breed("nix", 0.0) };
    mileage.coefficients.truncate(3);
    let qilin = of_breed("qilin", -2.0);
    for model in [&qilin, &mileage] {
        store::write(&store, &layout::model(&model.model, &model.model_id), encoded(model)).await.unwrap();
        let body = serde_json::to_vec(&alias(AliasName::Champion, &[model])).unwrap();
        store::write(&store, &layout::champion(&model.model), body).await.unwrap();
    }
    let champion = artefact("0");
    let challenger = Model { threshold: 0.9, ..artefact("3") };
    put_challenger(&store, &challenger).await;
    scorer.connected().await.unwrap();

    let distances: Vec<f64> = (0..60).map(|mile| f64::from(mile) / 4.0).collect();
    let mut request = with_ids(distances.iter().map(|d| (*d, format!("{d}"))).collect::<Vec<_>>().into_iter());
    request.rides.iter_mut().for_each(|ride| ride.breed = Some("qilin".to_owned()));
    let dry = ScoreRide { breed: Some("nix".to_owned()), tmin: None, ..request.rides[0].clone() };
    request.rides.push(dry);
    // Only the model of its breed can score that ride: no feature is assumed.
    request.impute = false;
    let response = ask_for(&scorer, request, None).await.unwrap();
    assert!(response.scores.iter().all(|score| matches!(&score.outcome, ScoreOutcome::Scored { by: Some(_), .. })));
    scorer.ended().await;

    let counts = tally(&store, "0").await;
    let (mut sum, mut service, mut decisions, mut parts) = (0.0, 0, 0, vec![0; 20]);
    for distance in &distances {
        let by = |model: &Model| model.probability(&[*distance, 0., 0., 0., 0., 0.]);
        let (returned, in_shadow) = (by(&qilin), by(&challenger));
        sum += in_shadow - returned;
        service += u64::from(returned >= 0.99);
        decisions += u64::from((returned >= 0.99) != (in_shadow >= 0.9));
        parts[(by(&champion) * 20.0) as usize] += 1;
    }
    assert_eq!((counts.rides, counts.service), (61, service));
    let below_10 = distances.iter().filter(|distance| **distance < 10.0).count() as u64;
    assert_eq!(counts.features[0].rides, [below_10, 60 - below_10, 0]);
    assert!(counts.features.iter().all(|feature| feature.rides.iter().sum::<u64>() == 60), "{counts:?}");
    assert_eq!(counts.probabilities, parts, "scored by the global model");
    assert!(drift(&champion, &counts).features.iter().all(|shift| shift.psi.is_some()));
    let [shadow] = counts.shadows.as_slice() else { panic!("{counts:?}") };
    assert_eq!((shadow.rides, shadow.unscored, shadow.decisions), (60, 1, decisions));
    assert!((shadow.difference_sum - sum).abs() < 1e-9, "{} {sum}", shadow.difference_sum);
    let of_qilin = serving::read(&store, &qilin.model, "qilin", None).await.unwrap();
    assert_eq!((of_qilin.rides, of_qilin.service, of_qilin.shadows.len()), (60, service, 0));
    assert_eq!(serving::read(&store, &mileage.model, "nix", None).await.unwrap().rides, 1);
}

/// Rides with an id are written with their probability, each by the version that scored it: of more than may be kept a uniform sample,
/// independent of their order. An id that is scored again has its last score.
#[tokio::test(start_paused = true)]
async fn a_bounded_sample_of_rides_with_an_id_is_written() {
    let settings = || Settings { scored_rides_max: 100, ..Settings::default() };
    let (store, scorer) = with_champion(settings()).await;
    let all: Vec<(f64, String)> = (0..1_000).map(|i| (f64::from(i % 50), format!("ride, \"{i}\""))).collect();
    let mut kept = Vec::new();
    for backwards in [false, true] {
        let mut rides = all.clone();
        if backwards {
            rides.reverse();
        }
        let scorer = Scorer::new(settings(), Arc::clone(&store));
        for some in rides.chunks(70) {
            ask_for(&scorer, with_ids(some.iter().cloned()), None).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        scorer.ended().await;
        let written = paths(&store, "scored").await;
        let [path] = written.as_slice() else { panic!("{written:?}") };
        let csv = store::read(&store, path).await.unwrap().unwrap();
        kept.push(read_scored(&csv).unwrap());
        store.delete(&path.as_str().into()).await.unwrap();
    }
    assert_eq!((kept[0].len(), &kept[0]), (100, &kept[1]));
    let champion = artefact("0");
    for (id, probability) in &kept[0] {
        let (distance, _) = all.iter().find(|(_, known)| known == id).unwrap();
        assert_eq!(*probability, champion.probability(&[*distance, 0., 0., 0., 0., 0.]), "{id}");
    }

    for distance in [1.0, 2.0] {
        ask_for(&scorer, with_ids([(distance, "again".to_owned()), (0.0, "x".repeat(129))].into_iter()), None)
            .await
            .unwrap();
    }
    put_model(&store, "5").await;
    put_champion(&store, &["0", "5"]).await;
    promote(&scorer, "5").await;
    ask_for(&scorer, with_ids([(1.0, "again".to_owned())].into_iter()), None).await.unwrap();
    scorer.ended().await;
    let mut written = Vec::new();
    for path in paths(&store, "scored").await {
        written.extend(read_scored(&store::read(&store, &path).await.unwrap().unwrap()).unwrap());
    }
    let by_second = artefact("5").probability(&[1.0, 0., 0., 0., 0., 0.]);
    let expected = [champion.probability(&[2.0, 0., 0., 0., 0., 0.]), by_second].map(|p| ("again".to_owned(), p));
    assert_eq!(written, expected);
}

/// During an outage of the store requests are answered, and their counts are written afterwards. Counts evicted from memory are not
/// lost: a process adds to the snapshot that it wrote before.
#[tokio::test(start_paused = true)]
async fn counts_survive_an_outage_and_an_eviction() {
    let folder = tempfile::tempdir().unwrap();
    let url = folder.path().to_str().unwrap().to_owned();
    let store = store::open(&StoreSettings { url, ..StoreSettings::default() }).unwrap();
    put_model(&store, "0").await;
    put_champion(&store, &["0"]).await;
    let scorer = Scorer::new(Settings { breed_models_max: 1, ..Settings::default() }, Arc::clone(&store));
    scorer.connected().await.unwrap();
    // A file in place of the folder.
    std::fs::write(folder.path().join("served"), "").unwrap();
    ask(&scorer, 3).await.unwrap();
    scorer.ended().await;
    std::fs::remove_file(folder.path().join("served")).unwrap();
    ask(&scorer, 2).await.unwrap();
    scorer.ended().await;
    assert_eq!(tally(&store, "0").await.rides, 5);

    let breeds: Vec<String> = (0..200).map(|index| format!("b{index}")).collect();
    for breed in &breeds {
        let family = layout::breed_model(layout::GLOBAL_MODEL, breed).unwrap();
        let model = Model { model: family.clone(), ..artefact("1") };
        store::write(&store, &layout::model(&family, "1"), encoded(&model)).await.unwrap();
        let body = serde_json::to_vec(&alias(AliasName::Champion, &[&model])).unwrap();
        store::write(&store, &layout::champion(&family), body).await.unwrap();
    }
    for round in 1..=2 {
        for some in breeds.chunks(20) {
            let rides = some.iter().map(|breed| ScoreRide { breed: Some(breed.clone()), ..request(1).rides.remove(0) });
            let request = ScoreRequest { rides: rides.collect(), ..request(1) };
            let response = ask_for(&scorer, request, None).await.unwrap();
            let fell_back = |score: &common::message::Score| {
                matches!(score.outcome, ScoreOutcome::Scored { fallback: Some(Fallback::Loading), .. })
            };
            assert!(!response.scores.iter().any(fell_back));
            scorer.ended().await;
            assert!(scorer.stats.as_ref().unwrap().len() <= 65, "few versions are in memory");
        }
        for breed in &breeds {
            let family = layout::breed_model(layout::GLOBAL_MODEL, breed).unwrap();
            assert_eq!(serving::read(&store, &family, "1", None).await.unwrap().rides, round, "{breed}");
        }
    }
    assert_eq!(tally(&store, "0").await.uncounted, 0);
}

/// An artefact without histograms is served, and counted as far as possible.
#[tokio::test(start_paused = true)]
async fn a_model_without_histograms_is_counted_as_far_as_possible() {
    let store = memory();
    let mut model = Model { predicted: Vec::new(), ..artefact("0") };
    model.coefficients.iter_mut().for_each(|coefficient| coefficient.histogram = None);
    let edges = Histogram {
        edges: vec![0.0],
        rides: vec![1, 1],
        services: vec![0; 2],
        mean: vec![0.0; 2],
        mean_probability: vec![0.0; 2],
    };
    model.coefficients[3].histogram = Some(edges);
    store::write(&store, &layout::model(&model.model, "0"), encoded(&model)).await.unwrap();
    let body = serde_json::to_vec(&alias(AliasName::Champion, &[&model])).unwrap();
    store::write(&store, &layout::champion(layout::GLOBAL_MODEL), body).await.unwrap();
    let scorer = scorer(&store);
    ask(&scorer, 4).await.unwrap();
    scorer.ended().await;
    let counts = tally(&store, "0").await;
    let features: Vec<_> =
        counts.features.iter().map(|feature| (feature.feature.as_str(), feature.rides.as_slice())).collect();
    assert_eq!(features, [("tmin", &[0u64, 4][..])]);
    assert_eq!((counts.probabilities.len(), counts.probabilities[10]), (20, 4));
}

/// A ride with assumed features is counted as such; only its known values are in the histograms.
#[tokio::test(start_paused = true)]
async fn assumed_values_are_in_no_histogram() {
    let (store, scorer) = with_champion(Settings::default()).await;
    let mut request = request(2);
    (request.rides[0].distance, request.rides[0].prcp) = (None, Some(50.0));
    ask_for(&scorer, request, None).await.unwrap();
    scorer.ended().await;
    let counts = tally(&store, "0").await;
    assert_eq!((counts.rides, counts.imputed), (2, 1));
    let rides = |name: &str| counts.features.iter().find(|tally| tally.feature == name).unwrap().rides.clone();
    assert_eq!((rides("distance"), rides("prcp")), (vec![1, 0, 0], vec![1, 1, 0]));
    assert_eq!(counts.probabilities.iter().sum::<u64>(), 2);
}
