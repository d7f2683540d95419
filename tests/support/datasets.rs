//! Complete datasets, as the merger writes them, made without a fleet.

use common::{
    dataset::{DatasetFile, FIRST_REVISION, Manifest},
    message::DatasetReady,
    schema::Described,
};
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use records::{datasets::column_names, layout};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fmt::Write};

/// A number from 0 to 1 that is derived from two others, evenly distributed.
pub fn spread(ride: u64, salt: u64) -> f64 {
    let mixed = (ride + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ salt.wrapping_mul(0xD6E8_FEB8_6659_FD93);
    let mixed = (mixed ^ (mixed >> 31)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    ((mixed ^ (mixed >> 29)).wrapping_mul(0x94D0_49BB_1331_11EB) >> 11) as f64 / (1u64 << 53) as f64
}

/// Writes a dataset of labelled rides with weather, in which the rate of service requests rises with the distance. Returns its
/// announcement.
pub async fn write(store: &impl ObjectStore, batch_id: &str, rides: u64) -> DatasetReady {
    let mut rows = String::new();
    for ride in 0..rides {
        let distance = 20.0 + 20.0 * spread(ride, 1);
        let service = spread(ride, 2) < 1.0 / (1.0 + f64::exp(0.3 * (30.0 - distance)));
        let points = |salt| 290.0 + 80.0 * spread(ride, salt);
        let weather = |salt| (200.0 * spread(ride, salt)) as i32;
        writeln!(
            rows,
            "{batch_id}-{ride},,,2018-04-25 17:03:05.722,40.6,-74.1,{distance},{},{},{},USW00094728,1.0,{},{},{}",
            points(3),
            points(4),
            u8::from(service),
            weather(5),
            200 + weather(6),
            weather(7)
        )
        .expect("a text can be written to");
    }
    write_rows(store, batch_id, &rows, rides).await
}

/// Writes a dataset of one file with `rows`, which are `rides` lines, all with a label and with weather of one station.
pub async fn write_rows(store: &impl ObjectStore, batch_id: &str, rows: &str, rides: u64) -> DatasetReady {
    let body = column_names().join(",") + "\n" + rows;
    let file = DatasetFile {
        path: layout::dataset_part(batch_id, FIRST_REVISION, 0),
        bytes: body.len() as u64,
        rows: rides,
        sha256: hex::encode(Sha256::digest(&body)),
    };
    store.put(&Path::from(file.path.as_str()), body.into()).await.expect("the store takes it");
    let manifest = Manifest {
        schema: Manifest::SCHEMA.name.to_owned(),
        batch_id: batch_id.to_owned(),
        revision: None,
        sha256: "0".repeat(64),
        columns: column_names().map(str::to_owned).to_vec(),
        received: rides,
        accepted: rides,
        rejected: 0,
        rejected_by_reason: BTreeMap::new(),
        without_weather: BTreeMap::new(),
        labelled: rides,
        trainable: rides,
        stations: BTreeMap::from([("USW00094728".to_owned(), rides)]),
        files: vec![file],
    };
    let bytes = serde_json::to_vec_pretty(&manifest).expect("a manifest is JSON");
    let manifest_sha256 = hex::encode(Sha256::digest(&bytes));
    let path = layout::manifest(batch_id, FIRST_REVISION);
    store.put(&Path::from(path.as_str()), bytes.into()).await.expect("the store takes it");
    DatasetReady { batch_id: batch_id.to_owned(), manifest: path, manifest_sha256, rides, revision: None }
}
