//! What the writer writes is what the reader reads, however the bytes are cut; and nothing that is damaged is read.

use super::{
    columns::{
        BREED, FEATURE_COLUMNS, FIELDSERVICE, GROUNDSTATION, LATITUDE, LONGITUDE, NAME, RIDE_ID, STATUSTIME, WEATHER,
    },
    encode::tests::rides,
    read::whole_records,
    record::record_ends,
    *,
};
use crate::{
    layout,
    store::{self, Store},
};
use common::{
    dataset::{DatasetFile, FIRST_REVISION, Manifest},
    message::EnrichedRide,
    ride::{Counts, Weather},
    schema::Described,
};
use futures::{FutureExt, TryStreamExt, future};
use object_store::memory::InMemory;
use proptest::{collection::vec, prelude::*};
use std::{collections::BTreeMap, sync::Arc};

fn memory() -> Store {
    Arc::new(InMemory::new())
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn inline(work: Box<dyn FnOnce() + Send>) -> future::BoxFuture<'static, Result<(), common::outcome::Failure>> {
    work();
    future::ready(Ok(())).boxed()
}

fn manifest_of(files: Vec<DatasetFile>) -> Manifest {
    let accepted = files.iter().map(|file| file.rows).sum();
    Manifest {
        schema: Manifest::SCHEMA.name.to_owned(),
        batch_id: "b".to_owned(),
        revision: None,
        sha256: "0".repeat(64),
        columns: column_names().map(str::to_owned).to_vec(),
        received: accepted,
        accepted,
        rejected: 0,
        rejected_by_reason: Counts::default(),
        without_weather: Counts::default(),
        labelled: 0,
        trainable: 0,
        stations: BTreeMap::new(),
        files,
    }
}

/// Writes these chunks of rides; returns the manifest.
async fn write(store: &Store, chunks: &[&[EnrichedRide]], part_bytes_max: u64) -> Manifest {
    let mut writer = Writer::open(store, "b", FIRST_REVISION, part_bytes_max, 1_000);
    for rides in chunks {
        let mut rows = Vec::new();
        rides.iter().for_each(|ride| push_row(&mut rows, ride));
        writer.push(&rows, rides.len() as u64).await.unwrap();
    }
    let manifest = manifest_of(writer.finish().await.unwrap());
    create_manifest(store, &manifest).await.unwrap();
    manifest
}

/// Texts, time and numbers of a ride, as far as they are in a dataset.
type Values = (Vec<String>, String, Vec<Option<f64>>);

fn values(record: Record<'_>) -> Result<Values, RowError> {
    let texts: Result<_, RowError> =
        [RIDE_ID, NAME, BREED, GROUNDSTATION].iter().map(|&column| Ok(record.text(column)?.to_owned())).collect();
    let columns = [LATITUDE, LONGITUDE, FIELDSERVICE].into_iter().chain(FEATURE_COLUMNS.into_iter().take(6));
    let numbers: Result<_, RowError> = columns.map(|column| record.number(column)).collect();
    Ok((texts?, record.time(STATUSTIME)?.to_string(), numbers?))
}

fn expected(EnrichedRide { ride, weather }: &EnrichedRide) -> Values {
    let (station, weather) = match weather {
        Weather::Observed(o) => {
            (o.groundstation.to_string(), [o.tmin, o.tmax, o.prcp].map(|tenths| Some(tenths.into())))
        }
        Weather::Missing(_) => (String::new(), [None; 3]),
    };
    let breed = ride.breed.as_deref().unwrap_or_default();
    let texts = [ride.ride_id.as_str(), ride.name.as_str(), breed, &station].map(str::to_owned);
    let label = ride.fieldservice.map(|label| f64::from(u8::from(label.0)));
    let numbers = [ride.distance, ride.healthpoints, ride.magicpoints].map(Some);
    let numbers = [Some(ride.latitude), Some(ride.longitude), label].into_iter().chain(numbers).chain(weather);
    (texts.to_vec(), ride.statustime.to_string(), numbers.collect())
}

async fn read_all(
    store: &Store,
    manifest: &Manifest,
    parsers: usize,
    block_bytes: u64,
) -> Result<Vec<Values>, DatasetError> {
    let parse = |records: &mut Records<'_>| {
        let mut block = Vec::new();
        while let Some(record) = records.read()? {
            block.push(values(record)?);
        }
        Ok(block)
    };
    let mut reader = Reader::new(store, manifest, parsers, inline, parse);
    reader.block_bytes = block_bytes;
    let mut all = Vec::new();
    while let Some(block) = reader.next().await? {
        all.extend(block);
    }
    Ok(all)
}

proptest! {
    /// The files depend on the rides and not on the chunks; what is read depends neither on the files nor on the blocks.
    #[test]
    fn a_dataset_is_read_as_it_was_written(
        rides in vec(rides(), 0..40), part_bytes_max in 1u64..4000, sizes in (1usize..50, 1usize..50),
        parsers in 0usize..4, block_bytes in 1u64..900
    ) {
        let [store, other] = [memory(), memory()];
        let first: Vec<&[EnrichedRide]> = rides.chunks(sizes.0).collect();
        let second: Vec<&[EnrichedRide]> = rides.chunks(sizes.1).collect();
        let written = block_on(write(&store, &first, part_bytes_max));
        prop_assert_eq!(&written, &block_on(write(&other, &second, part_bytes_max)));

        let stored = block_on(manifest(&store, "b")).unwrap().unwrap();
        prop_assert_eq!(&stored.manifest, &written);
        prop_assert_eq!(block_on(list(&store)).unwrap(), BTreeMap::from([("b".to_owned(), FIRST_REVISION)]));
        let read = block_on(read_all(&store, &written, parsers, block_bytes)).unwrap();
        prop_assert_eq!(read, rides.iter().map(expected).collect::<Vec<_>>());

        let mut whole = header();
        rides.iter().for_each(|ride| push_row(&mut whole, ride));
        let (bytes, pieces) = document(&store, &written);
        let document = block_on(pieces.map_ok(|piece| piece.to_vec()).try_concat()).unwrap();
        prop_assert_eq!(bytes, document.len() as u64);
        prop_assert_eq!(document, whole);
        for (number, file) in (0..).zip(&written.files) {
            prop_assert_eq!(&file.path, &layout::dataset_part("b", FIRST_REVISION, number));
            prop_assert!(file.bytes <= part_bytes_max || file.rows <= 1);
            prop_assert!(file.rows > 0 || written.files.len() == 1);
        }
    }

    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..300)) {
        let _ = Header::parse(&bytes);
        let header = Header::default();
        let mut records = Records::new(&header, &bytes);
        while let Ok(Some(record)) = records.read() {
            let _ = values(record);
        }
        prop_assert_eq!(record_ends(&bytes).last().is_some(), whole_records(&bytes) > 0);
    }
}

#[tokio::test]
async fn a_file_has_at_least_one_row_and_a_quoted_line_feed_ends_no_row() {
    let store = memory();
    let mut writer = Writer::open(&store, "b", FIRST_REVISION, 1, 1_000);
    writer.push(b"a,\"1\n2\"\nbb,3\n", 2).await.unwrap();
    let files = writer.finish().await.unwrap();
    let sizes: Vec<_> = files.iter().map(|file| (file.rows, file.bytes - header().len() as u64)).collect();
    assert_eq!(sizes, [(1, 8), (1, 5)]);
}

#[tokio::test]
async fn a_dataset_without_rides_is_a_header() {
    let store = memory();
    let manifest = write(&store, &[], 10).await;
    assert_eq!(store::read(&store, &manifest.files[0].path).await.unwrap().unwrap(), header());
    assert_eq!(read_all(&store, &manifest, 1, BLOCK_BYTES).await, Ok(Vec::new()));
}

const RIDE: &str =
    "a-0,Twilight,Qilin,2018-04-25 17:03:05.722,40.6,-74.1,29.5,291,292,1,USW00094728,20.700000,111,156,241\n";

fn first(block: &str) -> Result<Values, RowError> {
    let header = Header::default();
    let mut records = Records::new(&header, block.as_bytes());
    values(records.read()?.unwrap())
}

#[test]
fn an_invalid_field_is_reported_with_its_ride_and_column() {
    assert!(first(RIDE).is_ok());
    for (from, to, expected) in [
        (",1,USW", ",2,USW", r#"ride "a-0": fieldservice is "2", expected 0 or 1"#),
        (",111,", ",11.5,", r#"ride "a-0": tmin is "11.5", expected whole number"#),
        (",29.5,", ",inf,", r#"ride "a-0": distance is "inf", expected number"#),
        (",29.5,", ",,", r#"ride "a-0": distance is "", expected number"#),
        ("2018-04", "2018-13", "statustime is \"2018-13-25 17:03:05.722\", expected YYYY-MM-DD HH:MM:SS.fff"),
        (",29.5,", ",", "a record has 14 fields, its header 15"),
    ] {
        let error = first(&RIDE.replace(from, to)).unwrap_err().to_string();
        assert!(error.ends_with(expected), "{error}");
    }
    let header = Header::default();
    let mut records = Records::new(&header, b"a\xff,,,\xff,,,,,,,,,,,\n");
    let record = records.read().unwrap().unwrap();
    assert!(record.text(RIDE_ID).unwrap_err().to_string().ends_with("expected UTF-8"));
}

#[test]
fn columns_are_found_by_name_in_any_order() {
    let line = b"prcp,tmin,x,tmax,fieldservice,magicpoints,distance,healthpoints,breed,groundstation,statustime,ride_id,station_km,\
        latitude,longitude,name\n";
    let header = Header::parse(line).unwrap();
    let mut records = Records::new(&header, b"6,4,?,5,1,3,1,2,b,s,2018-04-25,id,1,2,3,n\n");
    let record = records.read().unwrap().unwrap();
    let features = FEATURE_COLUMNS.map(|column| record.number(column).unwrap().unwrap());
    assert_eq!((&features[..6], record.field(RIDE_ID)), (&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0][..], &b"id"[..]));
    assert_eq!(WEATHER.map(|column| record.field(column)), [b"4", b"5", b"6"]);
    assert_eq!(Header::parse(&super::header()), Ok(Header::default()));
    assert_eq!(Header::parse(b"ride_id,name,distance\n"), Err(RowError::MissingColumn("breed")));
    assert_eq!(Header::parse(b""), Err(RowError::MissingHeader));
}

/// A damaged file is reported as changed even if it cannot be parsed any more; one that cannot be parsed although it is as its
/// manifest says is broken.
#[tokio::test]
async fn a_damaged_dataset_is_not_read() {
    let store = memory();
    let path = layout::dataset_part("b", FIRST_REVISION, 0);
    let put = async |body: &str| store::write(&store, &path, body.to_owned()).await.unwrap();
    let file = |body: &str, rows| DatasetFile {
        path: path.clone(),
        bytes: body.len() as u64,
        rows,
        sha256: hex::encode(<sha2::Sha256 as sha2::Digest>::digest(body)),
    };
    let head = String::from_utf8(header()).unwrap();
    let whole = format!("{head}{RIDE}{RIDE}");
    let manifest = manifest_of(vec![file(&whole, 2)]);
    let read = async |manifest: &Manifest| read_all(&store, manifest, 2, 50).await;
    let missing = read(&manifest).await.unwrap_err().to_string();
    assert!(missing.ends_with("part-00000.csv: the file is missing"), "{missing}");
    for (damaged, expected) in [
        (whole[..200].to_owned(), "200 bytes; its manifest says 342"),
        (whole.replacen("29.5", "29x5", 1), "its SHA-256 is"),
        (whole.replacen("breed", "breec", 1), "its SHA-256 is"),
        (whole.replacen("Twilight", "Moonstar", 1), "its SHA-256 is"),
    ] {
        put(&damaged).await;
        let error = read(&manifest).await.unwrap_err();
        assert!(matches!(&error, DatasetError::Changed { why, .. } if why.starts_with(expected)), "{error}");
    }
    for (body, rows, expected) in [
        (whole.replacen("29.5", "29x5", 1), 2, r#"ride "a-0": distance is "29x5", expected number"#),
        (whole.replacen("breed", "breec", 1), 2, "the header line has no column breed"),
        (whole.trim_end().to_owned(), 2, "the last record has no line end"),
        (String::new(), 0, "the last record has no line end"),
        (whole.clone(), 3, "2 rides; its manifest says 3"),
    ] {
        put(&body).await;
        let error = read(&manifest_of(vec![file(&body, rows)])).await.unwrap_err();
        assert!(matches!(&error, DatasetError::Broken { why, .. } if why == expected), "{error}");
    }
    put(&whole).await;
    assert_eq!(read(&manifest).await.unwrap().len(), 2);
    let error = read(&Manifest { accepted: 3, ..manifest }).await.unwrap_err().to_string();
    assert_eq!(error, "dataset/b/manifest.json: it lists 3 rides, but its files contain 2");
}

#[tokio::test]
async fn a_manifest_that_is_not_that_of_the_batch_is_refused() {
    let store = memory();
    let good = write(&store, &[], 10).await;
    assert_eq!(manifest(&store, "a").await, Ok(None));
    let mut elsewhere = good.clone();
    "dataset/bb/part-00000.csv".clone_into(&mut elsewhere.files[0].path);
    for (manifest, expected) in [
        (Manifest { schema: "dataset-manifest.v2".to_owned(), ..good.clone() }, "its schema is dataset-manifest.v2"),
        (Manifest { batch_id: "c".to_owned(), ..good.clone() }, "it is the manifest of c"),
        (elsewhere, "which is not below dataset/b/"),
    ] {
        let error =
            StoredManifest::decode("b", FIRST_REVISION, &store::pretty(&manifest).unwrap()).unwrap_err().to_string();
        assert!(error.starts_with("dataset/b/manifest.json: ") && error.contains(expected), "{error}");
    }
    assert!(StoredManifest::decode("b", FIRST_REVISION, b"{").is_err());
    assert_eq!(create_manifest(&store, &good).await, Ok(()), "the same again");
    let failure = create_manifest(&store, &Manifest { received: 9, ..good }).await.unwrap_err();
    assert!(failure.to_string().contains("dataset_differs"), "{failure}");
}
