//! Rides are read back unchanged, and other bytes are rejected.

use super::*;
use crate::data::rows::{NO_BREED, Row};
use common::features::FEATURE_COUNT;
use object_store::{ObjectStoreExt, memory::InMemory, path::Path};
use proptest::{collection::vec, prelude::*};
use records::datasets::{Header, Records};
use std::{collections::BTreeMap, sync::Arc};

/// A number typical of rides, or any finite number.
fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        (-400i32..40_000).prop_map(f64::from),
        (0i32..400_000_000).prop_map(|millionths| f64::from(millionths) / 1e6),
        prop_oneof![Just(-0.0), Just(0.1 + 0.2), Just(f64::MIN_POSITIVE), Just(1e9), Just(-2_147_483_649.0)],
        any::<f64>().prop_filter("finite", |number| number.is_finite()),
    ]
}

fn row(breeds: u32) -> impl Strategy<Value = Row> {
    let features = vec(number(), FEATURE_COUNT).prop_map(|numbers| std::array::from_fn(|j| numbers[j]));
    let breed = prop_oneof![Just(NO_BREED), 0..breeds.max(1)];
    (features, any::<(bool, bool, u8, u128)>(), breed).prop_map(
        move |(features, (service, test, spread, ride), breed)| Row {
            features,
            service,
            test,
            spread,
            breed: if breeds == 0 { NO_BREED } else { breed },
            ride,
        },
    )
}

fn parsed() -> impl Strategy<Value = ParsedBlock> {
    let coverage = vec((".{0,12}", ".{0,7}", any::<u64>()), 0..6);
    (vec(".{0,9}", 0..300), coverage, any::<[u32; 4]>()).prop_flat_map(|(breeds, coverage, counts)| {
        let [rides, unlabelled, without_weather, out_of_range] = counts.map(u64::from);
        let coverage: BTreeMap<_, _> = coverage.into_iter().map(|(s, m, n)| ((s, m), n)).collect();
        vec(row(u32::try_from(breeds.len()).unwrap()), 0..40).prop_map(move |rows| ParsedBlock {
            rides,
            unlabelled,
            without_weather,
            out_of_range,
            rows,
            breeds: breeds.clone(),
            coverage: coverage.clone(),
        })
    })
}

fn bits(parsed: &ParsedBlock) -> Vec<[u64; FEATURE_COUNT]> {
    parsed.rows.iter().map(|row| row.features.map(f64::to_bits)).collect()
}

/// A block of one ride, with the id hash `ride`.
fn one(ride: u128) -> ParsedBlock {
    let row = Row { features: [29.5; FEATURE_COUNT], service: true, test: false, spread: 7, breed: 0, ride };
    ParsedBlock { rides: 1, rows: vec![row], breeds: vec!["qilin".to_owned()], ..ParsedBlock::default() }
}

proptest! {
    #[test]
    fn rides_are_read_back_to_the_last_bit(parsed in parsed()) {
        let bytes = piece::encode(&parsed);
        let read = piece::decode(&bytes).unwrap();
        prop_assert_eq!(bits(&read), bits(&parsed));
        prop_assert_eq!(read, parsed);
    }

    /// Nearly valid bytes do not panic either, and decoding uses no more memory than their size justifies.
    #[test]
    fn no_bytes_panic(parsed in parsed(), at in any::<prop::sample::Index>(), byte: u8, noise in vec(any::<u8>(), 0..300)) {
        let mut bytes = piece::encode(&parsed);
        let index = at.index(bytes.len());
        bytes[index] = byte;
        for bytes in [&bytes[..], &bytes[..index], &noise] {
            if let Ok(read) = piece::decode(bytes) {
                prop_assert!(read.rows.len() * 16 <= bytes.len());
                prop_assert!(read.breeds.len() <= bytes.len() && read.coverage.len() <= bytes.len());
                prop_assert!(read.rows.iter().all(|row| row.breed == NO_BREED || (row.breed as usize) < read.breeds.len()));
            }
        }
        let size = noise.len() as u64;
        if let Ok(end) = pack::index_end(&noise, size) {
            prop_assert!(end <= size);
        }
        let _ = pack::read_index(&noise, size);
    }

    /// A pack whose index is damaged, or that is cut short, is rejected.
    #[test]
    fn a_damaged_index_is_noticed(rides in 1u128..20, at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let piece = |ride| {
            let bytes: Bytes = piece::encode(&one(ride)).into();
            let checksum = xxh3_64(&bytes);
            let bytes_len = u32::try_from(bytes.len()).unwrap();
            let entry = Entry { manifest: [3; 32], number: 0, bytes: bytes_len, checksum, rides: 1, trainable: 1, seal: None };
            (entry, bytes)
        };
        let pieces: Vec<_> = (0..rides).map(piece).collect();
        let (_, mut bytes) = pack::write(&pieces);
        let size = bytes.len() as u64;
        let end = usize::try_from(pack::index_end(&bytes, size).unwrap()).unwrap();
        let read = pack::read_index(&bytes[..end], size).unwrap();
        for ((entry, place), (expected, piece)) in read.iter().zip(&pieces) {
            prop_assert_eq!(entry, expected);
            prop_assert_eq!(&bytes[usize::try_from(place.start).unwrap()..usize::try_from(place.end).unwrap()], &piece[..]);
        }
        prop_assert_eq!(read.len(), pieces.len());
        let read = |bytes: &[u8], size: u64| {
            let end = usize::try_from(pack::index_end(bytes, size)?).unwrap();
            pack::read_index(&bytes[..end], size)
        };
        prop_assert!(read(&bytes, size - 1).is_err());
        bytes[at.index(end)] ^= 1 << bit;
        prop_assert!(read(&bytes, size).is_err());
    }
}

/// The bytes of a format never change. Raise [`FORMAT`] with any change of them, or of what a block is parsed to.
#[test]
fn the_format_is_pinned() {
    let rows = "a-0,Twilight,Qilin,2018-04-25 17:03:05.722,40.6,-74.1,29.514263,291,292,1,USW00094728,20.7,111,156,241\n\
                a-1,,,2018-04-26 17:03:05.722,40.6,-74.1,0.1234567,-1,100000,0,USW00094728,20.7,-11,156,0\n\
                a-2,,,2018-04-26 17:03:05.722,40.6,-74.1,29.5,291,292,,,,,,\n";
    let header = Header::default();
    let parsed = crate::data::rows::parse(&mut Records::new(&header, rows.as_bytes())).unwrap();
    let encoded = piece::encode(&parsed);
    assert_eq!((format().as_str(), format!("{:016x}", xxh3_64(&encoded)).as_str()), ("1", "fe2e6e2fb2665fa3"));
}

fn manifest(rides: u64) -> Manifest {
    let dataset = serde_json::json!({
        "schema": "dataset-manifest.v1", "batch_id": "a", "sha256": "", "columns": [], "received": rides, "accepted": rides,
        "rejected": 0, "rejected_by_reason": {}, "without_weather": {}, "labelled": rides, "trainable": rides, "stations": {},
        "files": []
    });
    serde_json::from_value(dataset).unwrap()
}

fn trained_on(hash: u8) -> TrainedOn {
    TrainedOn { batch_id: format!("{hash:02x}"), manifest_sha256: format!("{hash:02x}").repeat(32), revision: None }
}

async fn replayed(cache: &mut Cache<'_>, dataset: usize) -> (Result<(), usize>, Vec<u128>) {
    let mut rides = Vec::new();
    let added = cache.replay(dataset, |parsed| rides.extend(parsed.rows.iter().map(|row| row.ride))).await;
    (added, rides)
}

async fn paths(store: &Store) -> Vec<Path> {
    use futures::TryStreamExt;
    store.list(Some(&layout::TRAINER_CACHE.into())).map_ok(|meta| meta.location).try_collect().await.unwrap()
}

/// Pieces that were written before their dataset turned out to be damaged are never read, even if the right ones follow
/// later.
#[tokio::test]
async fn pieces_without_a_seal_are_never_read() {
    let store: Store = Arc::new(InMemory::new());
    let (manifests, datasets) = ([manifest(3)], [trained_on(1)]);
    for (rides, is_right) in [([7, 8, 9], false), ([1, 2, 3], true)] {
        let mut cache = Cache::open(&store, &manifests, &datasets).await;
        cache.pack_bytes_max = 1;
        assert_eq!(replayed(&mut cache, 0).await, (Err(0), vec![]));
        for ride in rides {
            cache.keep(0, EncodedPiece::of(&one(ride))).await;
        }
        if is_right {
            cache.seal().await;
        }
        cache.finish().await;
        assert!(!paths(&store).await.is_empty(), "pieces of a large dataset are written before it is complete");
    }
    let mut cache = Cache::open(&store, &manifests, &datasets).await;
    assert_eq!(replayed(&mut cache, 0).await, (Ok(()), vec![1, 2, 3]));
    cache.finish().await;
    assert_eq!(paths(&store).await.len(), 3, "pieces without a seal are removed");
}

/// With one more dataset in each training, packs stay few and every piece is found.
#[tokio::test]
async fn packs_stay_few() {
    let store: Store = Arc::new(InMemory::new());
    let manifests: Vec<Manifest> = (0..200).map(|_| manifest(1)).collect();
    let datasets: Vec<TrainedOn> = (0..200).map(trained_on).collect();
    let mut most = 0;
    for count in 1..=200 {
        let mut cache = Cache::open(&store, &manifests[..count], &datasets[..count]).await;
        let new = count - 1;
        for dataset in 0..count {
            let rides = replayed(&mut cache, dataset).await;
            if dataset == new {
                assert_eq!(rides, (Err(0), vec![]));
                cache.keep(new, EncodedPiece::of(&one(new as u128))).await;
                cache.seal().await;
            } else {
                assert_eq!(rides, (Ok(()), vec![dataset as u128]));
            }
        }
        cache.finish().await;
        most = most.max(paths(&store).await.len());
    }
    assert!(most <= 9, "{most} packs");
}

/// Pieces that no dataset needs any more are removed; packs of another format stay until they are old.
#[tokio::test]
async fn unused_packs_are_removed() {
    let store: Store = Arc::new(InMemory::new());
    let manifests = [manifest(1), manifest(1)];
    let write = async |datasets: &[TrainedOn]| {
        let manifests = &manifests[..datasets.len()];
        let mut cache = Cache::open(&store, manifests, datasets).await;
        for dataset in 0..datasets.len() {
            if replayed(&mut cache, dataset).await.0.is_err() {
                cache.keep(dataset, EncodedPiece::of(&one(1))).await;
                cache.seal().await;
            }
        }
        cache.finish().await;
        paths(&store).await
    };
    let before = write(&[trained_on(1)]).await;
    let other: Path = layout::trainer_cache("0", "of-another-version").into();
    store.put(&other, "x".into()).await.unwrap();
    let after = write(&[trained_on(2)]).await;
    assert_eq!(after.len(), 2, "{after:?}");
    assert!(after.contains(&other) && !after.contains(&before[0]), "{after:?}");
}
