//! Refreshes: the same batch again with other weather, in any order of messages and with crashes at any operation.

use super::*;
use common::{document::RefreshOutcome, message::new_split_id};
use jiff::Timestamp;
use records::refreshes::{self, Begun};

/// A store with the first revision of the batch, the claim on its id, and its bytes.
async fn joined() -> Store {
    let store = memory();
    assert_eq!(deliver_all(&small_parts(&store), &batch(24, 5)).await.len(), 1);
    let claim = serde_json::json!({ "batch_id": BATCH, "sha256": "a".repeat(64), "chunk_size": 5, "object": "raw/a" });
    store::write(&store, &layout::claim(BATCH), claim.to_string()).await.unwrap();
    store::write(&store, "raw/a", "[]").await.unwrap();
    store
}

async fn begin(store: &Store) -> Refresh {
    let Begun { attempt, .. } = refreshes::begin(store, BATCH, Timestamp::UNIX_EPOCH, "test").await.unwrap();
    attempt.refresh
}

/// The messages of one splitting of an attempt, in which the weather of each ride is what `weather` makes of it.
fn again(refresh: Refresh, random: u64, weather: impl Fn(u32, Weather) -> Weather) -> Vec<MergerIn> {
    let split_id = Some(new_split_id(&"a".repeat(64), Some(refresh), random));
    let mut index = 0;
    let mut messages = batch(24, 5);
    for message in &mut messages {
        match message {
            MergerIn::Chunk(chunk) => {
                (chunk.split_id, chunk.refresh) = (split_id.clone(), Some(refresh));
                for ride in &mut chunk.rides {
                    ride.weather = weather(index, ride.weather.clone());
                    index += 1;
                }
            }
            MergerIn::Split(split) => (split.split_id, split.refresh) = (split_id.clone(), Some(refresh)),
        }
    }
    messages
}

fn observed(prcp: i32) -> Weather {
    let groundstation = "USW00094728".into();
    Weather::Observed(Observation { groundstation, station_km: 1.0, tmin: -10, tmax: 20, prcp })
}

/// Rides 0 and 5 gain weather, ride 1 has other weather, ride 2 loses it.
fn changed(index: u32, weather: Weather) -> Weather {
    match index {
        0 | 1 | 5 => observed(7),
        2 => Weather::Missing(WeatherMissing::NotYetPublished),
        _ => weather,
    }
}

fn same(_: u32, weather: Weather) -> Weather {
    weather
}

async fn outcome(store: &Store, refresh: Refresh) -> RefreshOutcome {
    refreshes::ended(store, BATCH, refresh.attempt).await.unwrap().expect("the attempt has ended")
}

/// The objects of the dataset, or those of one revision from 2 on.
async fn below(store: &Store, folder: &str) -> BTreeMap<String, Vec<u8>> {
    let mut objects = objects(store).await;
    objects.retain(|path, _| path.starts_with(folder));
    objects
}

#[tokio::test]
async fn other_weather_becomes_the_next_revision_and_the_first_stays_as_it_is() {
    let store = joined().await;
    let first = below(&store, "dataset/").await;
    let refresh = begin(&store).await;
    let announced = deliver_all(&small_parts(&store), &again(refresh, 1, changed)).await;
    assert_eq!(announced.len(), 1);
    assert_eq!(announced[0].manifest, "dataset/b-1/r2/manifest.json");
    assert_eq!(announced[0].revision.map(|revision| revision.get()), Some(2));
    let RefreshOutcome { revision, gained, altered, lost, not_yet_published, .. } = outcome(&store, refresh).await;
    assert_eq!((revision.get(), gained, altered, lost, not_yet_published), (2, 2, 1, 1, 1));
    let mut all = below(&store, "dataset/").await;
    let second = below(&store, "dataset/b-1/r2/").await;
    all.retain(|path, _| !second.contains_key(path));
    assert_eq!(all, first);
    let stored = datasets::manifest(&store, BATCH).await.unwrap().unwrap();
    assert_eq!((stored.announcement(), stored.manifest.not_yet_published()), (announced[0].clone(), 1));
    assert!(below(&store, "staging/").await.is_empty());
}

#[tokio::test]
async fn unchanged_weather_makes_no_revision_and_no_announcement() {
    let store = joined().await;
    let before = below(&store, "dataset/").await;
    let refresh = begin(&store).await;
    assert!(deliver_all(&small_parts(&store), &again(refresh, 1, same)).await.is_empty());
    assert!(!outcome(&store, refresh).await.is_changed());
    assert_eq!(below(&store, "dataset/").await, before);
    assert!(below(&store, "staging/").await.is_empty());
    // Its late duplicates have no effect.
    assert!(deliver_all(&small_parts(&store), &again(refresh, 1, same)).await.is_empty());
    assert!(below(&store, "staging/").await.is_empty());
}

/// A refresh compares with the newest revision, here of weather that is back to that of the first one.
#[tokio::test]
async fn a_refresh_after_the_second_revision_makes_the_third() {
    let store = joined().await;
    let merger = small_parts(&store);
    for (random, weather) in [(1, changed as fn(u32, Weather) -> Weather), (2, same)] {
        let refresh = begin(&store).await;
        assert_eq!(deliver_all(&merger, &again(refresh, random, weather)).await.len(), 1);
        let revision = outcome(&store, refresh).await.revision.get();
        assert_eq!(u64::from(revision), random + 1);
    }
    let rows = |files: BTreeMap<String, Vec<u8>>| -> Vec<u8> {
        files.into_iter().filter(|(path, _)| path.ends_with(".csv")).flat_map(|(_, bytes)| bytes).collect()
    };
    assert_eq!(rows(below(&store, "dataset/b-1/r3/").await), rows(below(&store, "dataset/b-1/part-").await));
    assert_ne!(rows(below(&store, "dataset/b-1/r2/").await), rows(below(&store, "dataset/b-1/part-").await));
}

/// The attempt was split twice, and the weather changed in between: one of both makes the revision, whichever is complete first.
#[tokio::test]
async fn two_splittings_with_other_weather_make_one_revision() {
    let store = joined().await;
    let refresh = begin(&store).await;
    let (first, second) = (again(refresh, 1, changed), again(refresh, 2, |_, _| observed(9)));
    let (last_of_first, others) = first.split_last().unwrap();
    let merger = small_parts(&store);
    deliver_all(&merger, others).await;
    assert_eq!(deliver_all(&small_parts(&store), &second).await.len(), 1);
    let expected = below(&store, "dataset/").await;
    deliver_all(&merger, std::slice::from_ref(last_of_first)).await;
    deliver_all(&small_parts(&store), &first).await;
    assert_eq!(below(&store, "dataset/").await, expected);
    assert_eq!(outcome(&store, refresh).await.altered + outcome(&store, refresh).await.gained, 24);
    assert!(below(&store, "staging/").await.is_empty());
}

/// A late chunk of an earlier attempt, or of the first join, does not mix with an attempt in progress.
#[tokio::test]
async fn late_messages_of_an_earlier_attempt_change_nothing() {
    let store = joined().await;
    let merger = small_parts(&store);
    let first = begin(&store).await;
    let early = again(first, 1, changed);
    deliver_all(&merger, &early).await;
    let second = begin(&store).await;
    let messages = again(second, 2, |_, _| observed(3));
    let (last, others) = messages.split_last().unwrap();
    deliver_all(&merger, others).await;
    let staged = below(&store, "staging/").await;
    for late in early.iter().chain(&batch(24, 5)) {
        deliver(&small_parts(&store), late).await.unwrap();
        merger.tend().await.unwrap();
        assert_eq!(below(&store, "staging/").await, staged);
    }
    assert_eq!(deliver(&merger, last).await.unwrap().len(), 1);
    assert_eq!(outcome(&store, second).await.revision.get(), 3);
    assert!(below(&store, "staging/").await.is_empty());
}

/// A process dies at any operation, between the outcome and the manifest as well. The messages are delivered again to another one.
#[tokio::test]
async fn a_crash_at_any_operation_does_not_change_the_revision() {
    for weather in [changed as fn(u32, Weather) -> Weather, same] {
        let store = joined().await;
        let refresh = begin(&store).await;
        deliver_all(&small_parts(&store), &again(refresh, 1, weather)).await;
        let (expected, mut crashes) = (objects(&store).await, 0);
        for at in 1.. {
            let mut survived = 0;
            for dies in [Dies::Before(at), Dies::After(at)] {
                let store = joined().await;
                let messages = again(begin(&store).await, 1, weather);
                let faulty: Store = Arc::new(Faulty::new(Store::clone(&store), dies));
                let doomed = small_parts(&faulty);
                let mut handled = 0;
                for message in &messages {
                    if deliver(&doomed, message).await.is_err() {
                        break;
                    }
                    handled += 1;
                }
                survived += usize::from(handled == messages.len());
                let successor = small_parts(&store);
                deliver_all(&successor, &messages[handled..]).await;
                successor.tend().await.unwrap();
                assert_eq!(objects(&store).await, expected, "{dies:?}");
            }
            if survived == 2 {
                break;
            }
            crashes += 1;
        }
        assert!(crashes > 20, "{crashes}");
    }
}

/// A process dies at any operation, and its messages die with it. The attempt is split again, and the weather has changed: it ends with
/// the rows that were decided on, or with the new ones if none were.
#[tokio::test]
async fn an_attempt_ends_although_the_splitting_that_decided_it_is_lost() {
    let others = |_: u32, _: Weather| observed(9);
    let revision_by = async |random: u64, weather: fn(u32, Weather) -> Weather| {
        let store = joined().await;
        let refresh = begin(&store).await;
        deliver_all(&small_parts(&store), &again(refresh, random, weather)).await;
        below(&store, "dataset/").await
    };
    let (by_first, by_second) = (revision_by(1, changed).await, revision_by(2, others).await);
    let (mut decided, mut undecided) = (0, 0);
    for at in 1.. {
        let store = joined().await;
        let refresh = begin(&store).await;
        let faulty: Store = Arc::new(Faulty::new(Store::clone(&store), Dies::After(at)));
        let doomed = small_parts(&faulty);
        let mut survived = true;
        for message in &again(refresh, 1, changed) {
            survived = survived && deliver(&doomed, message).await.is_ok();
        }
        if survived {
            break;
        }
        let is_decided = refreshes::outcome(&store, BATCH, refresh.attempt).await.unwrap().is_some();
        let was_complete = refreshes::ended(&store, BATCH, refresh.attempt).await.unwrap().is_some();
        let successor = small_parts(&store);
        let announced = deliver_all(&successor, &again(refresh, 2, others)).await;
        successor.tend().await.unwrap();
        assert!(!announced.is_empty(), "{at}");
        assert_eq!(below(&store, "dataset/").await, if is_decided { &by_first } else { &by_second }.clone(), "{at}");
        assert!(below(&store, "staging/").await.is_empty(), "{at}");
        decided += usize::from(is_decided && !was_complete);
        undecided += usize::from(!is_decided);
    }
    assert!(decided > 3 && undecided > 10, "{decided} and {undecided}");
}

/// Whoever may publish to the merger cannot stage chunks into the folder of another attempt.
#[tokio::test]
async fn a_splitting_of_another_attempt_is_refused() {
    let store = joined().await;
    let refresh = begin(&store).await;
    let mut chunk = again(refresh, 1, same).remove(0);
    if let MergerIn::Chunk(chunk) = &mut chunk {
        chunk.refresh = None;
    }
    assert_eq!(permanent(deliver(&merger(&store), &chunk).await), "foreign_splitting");
}
