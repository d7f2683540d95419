//! Every format through the whole splitter, inline and by reference: all give the same rides.

use super::*;
use async_compression::tokio::write::{BrotliEncoder, ZlibEncoder};

const COLUMNS: &str = "Name,StatusTime,Latitude,Longitude,Distance,HealthPoints,MagicPoints,FieldService";

/// Rides as CSV: the second is out of range.
fn csv() -> String {
    let rows = [
        "\"Twilight, S.\",2018-04-25 17:03:05,40.5,-74,29.5,291,292,1",
        "Nightmare,2018-04-25 17:03:05,140.5,-74,29.5,291,292,0",
        "Qilin,2018-04-25T17:03:05.722Z,40.6,-74.1,1e1,291,292,",
    ];
    format!("{COLUMNS}\n{}\n", rows.join("\n"))
}

/// The same rides as JSON.
fn json() -> String {
    json!([
        {"Name": "Twilight, S.", "StatusTime": "2018-04-25 17:03:05", "Latitude": 40.5, "Longitude": -74, "Distance": 29.5,
         "HealthPoints": 291, "MagicPoints": 292, "FieldService": 1},
        {"Name": "Nightmare", "StatusTime": "2018-04-25 17:03:05", "Latitude": 140.5, "Longitude": -74, "Distance": 29.5,
         "HealthPoints": 291, "MagicPoints": 292, "FieldService": 0},
        {"Name": "Qilin", "StatusTime": "2018-04-25T17:03:05.722Z", "Latitude": 40.6, "Longitude": -74.1, "Distance": 10,
         "HealthPoints": 291, "MagicPoints": 292},
    ])
    .to_string()
}

fn encoded_as(content_encoding: &str) -> Properties {
    Properties { content_encoding: Some(content_encoding.to_owned()), ..Properties::default() }
}

async fn zlib(plain: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new());
    encoder.write_all(plain).await.unwrap();
    encoder.shutdown().await.unwrap();
    encoder.into_inner()
}

async fn brotli(plain: &[u8]) -> Vec<u8> {
    let mut encoder = BrotliEncoder::new(Vec::new());
    encoder.write_all(plain).await.unwrap();
    encoder.shutdown().await.unwrap();
    encoder.into_inner()
}

fn utf16(text: &str) -> Vec<u8> {
    std::iter::once(0xFEFF).chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
}

/// A Parquet file of the same rides, as `wildrydes export` writes it.
fn parquet() -> Vec<u8> {
    use ::parquet::{
        data_type::{ByteArrayType, DataType, DoubleType, Int32Type, Int64Type},
        file::{
            properties::WriterProperties,
            writer::{SerializedFileWriter, SerializedRowGroupWriter},
        },
        schema::parser::parse_message_type,
    };
    fn column<T: DataType>(
        group: &mut SerializedRowGroupWriter<'_, &mut Vec<u8>>,
        values: &[T::T],
        levels: Option<&[i16]>,
    ) {
        let mut writer = group.next_column().unwrap().unwrap();
        writer.typed::<T>().write_batch(values, levels, None).unwrap();
        writer.close().unwrap();
    }
    let schema = "message rides {
        REQUIRED BYTE_ARRAY name (UTF8);
        REQUIRED INT64 statustime (TIMESTAMP(MILLIS, true));
        REQUIRED DOUBLE latitude;
        REQUIRED DOUBLE longitude;
        REQUIRED DOUBLE distance;
        REQUIRED DOUBLE healthpoints;
        REQUIRED DOUBLE magicpoints;
        OPTIONAL INT32 fieldservice;
    }";
    let mut bytes = Vec::new();
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut file =
        SerializedFileWriter::new(&mut bytes, schema, Arc::new(WriterProperties::builder().build())).unwrap();
    let mut group = file.next_row_group().unwrap();
    column::<ByteArrayType>(&mut group, &["Twilight, S.".into(), "Nightmare".into(), "Qilin".into()], None);
    column::<Int64Type>(&mut group, &[1_524_675_785_000, 1_524_675_785_000, 1_524_675_785_722], None);
    for values in [[40.5, 140.5, 40.6], [-74.0, -74.0, -74.1], [29.5, 29.5, 10.0], [291.0; 3], [292.0; 3]] {
        column::<DoubleType>(&mut group, &values, None);
    }
    column::<Int32Type>(&mut group, &[1, 0], Some(&[1, 1, 0]));
    group.close().unwrap();
    file.close().unwrap();
    bytes
}

/// The rides without their ids, which depend on the bytes.
fn values(published: &Publication) -> Vec<Ride> {
    published.rides().into_iter().map(|ride| Ride { ride_id: "".into(), ..ride.clone() }).collect()
}

#[tokio::test]
async fn every_format_gives_the_same_rides_inline_and_by_reference_under_any_name() {
    let expected = publish(&splitter(&memory(), 2), json()).await.unwrap();
    assert_eq!((expected.summary.received, expected.summary.rejected), (3, 1));
    let excel = format!(
        "\u{FEFF}sep=;\r\n{}",
        csv().replace("\"Twilight, S.\"", "Twilight@ S.").replace(',', ";").replace('\n', "\r\n")
    );
    let excel = excel.replace('@', ",");
    let tabs = csv().replace("\"Twilight, S.\"", "Twilight@ S.").replace(',', "\t").replace('@', ",");
    let bodies = [
        ("rides.csv", csv().into_bytes()),
        ("rides.csv.gz", gzip(csv().as_bytes()).await),
        ("rides.json", csv().into_bytes()),
        ("excel.csv", excel.into_bytes()),
        ("unicode.txt", utf16(&tabs)),
        ("powershell.json", utf16(&json())),
        ("rides.parquet", parquet()),
        ("rides.ndjson", parquet()),
        ("rides.parquet.zst", zstd(&parquet()).await),
        ("rides.json.br", brotli(json().as_bytes()).await),
        ("rides.csv.deflate", zlib(csv().as_bytes()).await),
        ("wrong.csv.br", json().into_bytes()),
        ("padded.json.gz", [&gzip(json().as_bytes()).await[..], &[0; 512]].concat()),
    ];
    for (name, body) in bodies {
        let store = memory();
        let reference = upload(&store, &format!("raw/{name}"), &body).await;
        let published = publish(&splitter(&store, 2), reference).await.unwrap();
        assert_eq!(values(&published), values(&expected), "{name}");
        assert_eq!((published.summary.received, published.summary.rejected), (3, 1), "{name}");
        assert_eq!(published.summary.sha256, sha256(&body), "{name}: the bytes as they came");
        let ids: Vec<_> = published.rides().iter().map(|ride| ride.ride_id.rsplit_once('-').unwrap().1).collect();
        assert_eq!(ids, ["0", "2"], "{name}");
        if !name.ends_with(".br") && !name.ends_with(".deflate") {
            let inline = publish(&splitter(&memory(), 2), &body).await.unwrap();
            assert_eq!(inline, published, "{name}");
        }
    }
}

#[tokio::test]
async fn a_content_encoding_that_is_no_compression_is_ignored() {
    let expected = publish(&splitter(&memory(), 2), json()).await.unwrap();
    for name in ["utf-8", "UTF-8", "utf8", "us-ascii", "binary", "8bit", "7bit", "identity", "", "iso-8859-1"] {
        let published = publish_with(&splitter(&memory(), 2), json().as_bytes(), encoded_as(name)).await.unwrap();
        assert_eq!(published, expected, "{name:?}");
    }
    let zipped = gzip(json().as_bytes()).await;
    for name in ["gzip, utf-8", "gzip:UTF-8", "gzip;utf-8", "GZIP", "utf-8"] {
        let published = publish_with(&splitter(&memory(), 2), &zipped, encoded_as(name)).await.unwrap();
        assert_eq!(values(&published), values(&expected), "{name:?}");
    }
    let failure = publish_with(&splitter(&memory(), 2), json().as_bytes(), encoded_as("gzip")).await.unwrap_err();
    assert!(
        failure
            .to_string()
            .starts_with("bad_compression: content_encoding declares gzip, but the body starts like JSON: leave")
    );
    for name in ["gzip, gzip", "snappy"] {
        let failure = publish_with(&splitter(&memory(), 2), &zipped, encoded_as(name)).await.unwrap_err().to_string();
        assert!(failure.starts_with(&format!("bad_compression: content_encoding {name:?}")), "{failure}");
    }
}

/// The stored copy of an inline batch is read as the message was, without the message's properties.
#[tokio::test]
async fn an_inline_batch_of_any_compression_replays_from_its_stored_copy() {
    for (name, body) in [("br", brotli(json().as_bytes()).await), ("deflate", zlib(csv().as_bytes()).await)] {
        let store = memory();
        let properties = Properties { content_type: Some("application/x-ndjson".into()), ..encoded_as(name) };
        let first = publish_with(&splitter(&store, 2), &body, properties).await.unwrap();
        assert_eq!(first.summary.accepted, 2);
        let claim: Claim = store::read_json(&store, &layout::claim(&first.summary.batch_id)).await.unwrap().unwrap();
        let reference = json!({"object": claim.object, "sha256": claim.sha256}).to_string();
        assert_eq!(publish(&splitter(&store, 2), reference).await.unwrap(), first, "{name}");
    }
}

#[tokio::test]
async fn invalid_rows_are_rejected_and_the_others_accepted() {
    let store = memory();
    let giant = "x".repeat(200_000);
    let body = format!("{}A,1\n{giant},2018-04-25 17:03:05,40.5,-74,29.5,291,292,1\nB,never,1,2,3,4,5,\n", csv());
    let published = publish(&splitter(&store, 10), &body).await.unwrap();
    assert_eq!((published.summary.received, published.summary.accepted), (6, 2));
    let lines = rejects(&store, &published.summary.batch_id).await;
    let reasons: Vec<_> =
        lines.iter().map(|line| (line["index"].as_u64().unwrap(), line["reason"].as_str().unwrap())).collect();
    assert_eq!(
        reasons,
        [(1, "latitude_out_of_range"), (3, "not_an_object"), (4, "ride_too_large"), (5, "invalid_statustime")]
    );
    assert_eq!(lines[1]["ride"], "line 5 has 2 cells, the header 8: A,1");
}

/// Placeholders as ids would make all rides but one a duplicate.
#[tokio::test]
async fn placeholders_in_a_column_of_ids_are_absent_ids() {
    for placeholder in ["NaN", "NA", "null", "NULL", " ", "None", "#N/A"] {
        let row = format!("A,2018-04-25 17:03:05,40.5,-74,29.5,291,292,1,{placeholder},{placeholder}\n");
        let body = format!("{COLUMNS},ride_id,breed\n{}", row.repeat(3));
        let published = publish(&splitter(&memory(), 10), &body).await.unwrap();
        assert_eq!((published.summary.received, published.summary.accepted), (3, 3), "{placeholder:?}");
        assert!(published.rides().iter().all(|ride| ride.breed.is_none()), "{placeholder:?}");
    }
}

/// Editors and transports append such endings.
#[tokio::test]
async fn padding_after_a_parquet_file_is_ignored() {
    let expected = values(&publish(&splitter(&memory(), 2), parquet()).await.unwrap());
    for padding in [&b"\n"[..], b"\r\n", &[0; 512]] {
        let published = publish(&splitter(&memory(), 2), [&parquet()[..], padding].concat()).await.unwrap();
        assert_eq!(values(&published), expected, "{padding:?}");
    }
    let failure = publish(&splitter(&memory(), 2), [&parquet()[..], b"x"].concat()).await.unwrap_err().to_string();
    assert!(failure.starts_with("cut_short"), "{failure}");
}

#[tokio::test]
async fn a_header_without_rows_is_a_batch_without_rides() {
    let published = publish(&splitter(&memory(), 10), COLUMNS).await.unwrap();
    assert_eq!((published.summary.received, published.summary.chunks), (0, 0));
}

#[tokio::test]
async fn columns_are_mapped_to_fields() {
    let store = memory();
    let csv = csv().replace("Latitude", "breite").replace("Distance", "km");
    let object = upload(&store, "raw/rides.csv", csv.as_bytes()).await;
    let mut reference: Value = serde_json::from_str(&object).unwrap();
    reference["map"] = json!({"latitude": "breite", "distance": "km/2"});
    let published = publish(&splitter(&store, 10), reference.to_string()).await.unwrap();
    let values: Vec<_> = published.rides().iter().map(|ride| (ride.latitude, ride.distance)).collect();
    assert_eq!(values, [(40.5, 14.75), (40.6, 5.0)]);
}

/// Exports of `wildrydes export` and dataset files are read with their ids.
#[tokio::test]
async fn datasets_of_the_fleet_are_batches() {
    let columns = records::datasets::column_names().join(",");
    let row = |ride: &str, label: &str| {
        format!(
            "{ride},Twilight,Qilin,2018-04-25 17:03:05.722,40.6,-74.1,29.5,291,292.25,{label},USW00094728,1.5,-5,111,0\n"
        )
    };
    let part = format!("{columns}\n{}{}", row("r-1", "1"), row("r-2", ""));
    let export = part.replace("ride_id,", "batch_id,ride_id,").replace("\nr-", "\na batch,r-");
    for csv in [part, export] {
        let published = publish(&splitter(&memory(), 10), &csv).await.unwrap();
        let ids: Vec<_> =
            published.rides().iter().map(|ride| (ride.ride_id.as_str(), ride.fieldservice.is_some())).collect();
        assert_eq!(ids, [("r-1", true), ("r-2", false)], "{csv}");
    }
}

#[tokio::test]
async fn an_unreadable_batch_is_refused_with_a_code_and_advice() {
    let store = memory();
    let worker = splitter(&store, 10);
    let open = csv().replace("Qilin", "\"Qilin");
    for (body, code, advice) in [
        (b"PK\x03\x04\x14\0\0\0\x08\0".to_vec(), "unsupported_format", "unzip it"),
        (b"BZh91AY&SY\0\0".to_vec(), "unsupported_format", "decompress it"),
        (b"version https://git-lfs.github.com/spec/v1\n".to_vec(), "unsupported_format", "git lfs pull"),
        (b"<html><body>404</body></html>".to_vec(), "unsupported_format", "download the file itself"),
        (utf16(&json())[2..].to_vec(), "unsupported_format", "iconv -f UTF-16LE -t UTF-8"),
        (b"rides:\n  - name: Twilight\n".to_vec(), "unsupported_format", "convert it to JSON"),
        (b"A,2018-04-25 17:03:05,40.5\n".to_vec(), "not_a_batch", "must name the columns"),
        (open.into_bytes(), "invalid_csv", "line 4"),
        (csv().replace("Latitude", "NAME").into_bytes(), "invalid_csv", "rename or remove"),
        (parquet()[..500].to_vec(), "cut_short", "copy it again"),
        (gzip(&gzip(b"[]").await).await, "bad_compression", "compressed twice"),
        ([&gzip(b"[]").await[..], b"tail"].concat(), "bad_compression", "4 bytes follow after a complete gzip stream"),
        ([&utf16("[]")[..], &[0, 0xD8, b']', 0]].concat(), "invalid_text", "write it again"),
    ] {
        let inline = publish(&worker, &body).await.unwrap_err().to_string();
        assert!(inline.starts_with(code) && inline.contains(advice), "{inline}");
        let reference = upload(&store, "raw/rides.json", &body).await;
        assert_eq!(publish(&worker, reference).await.unwrap_err().to_string(), inline);
    }
    assert_eq!(stored_objects(&store).await, ["raw/rides.json"], "no trace is left");
}

/// Runs the cases of bug reports, if their folder exists.
#[tokio::test]
async fn reported_cases_end_well() {
    let cases = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/cases");
    if !cases.is_dir() {
        eprintln!("skipped: {} is absent", cases.display());
        return;
    }
    let read = |name: &str| std::fs::read(cases.join(name)).unwrap();
    for (name, rides) in [
        ("07-not-json-at-all/rides.csv", 12),
        ("07-not-json-at-all/rides-utf16.json", 12),
        ("08-gzip-with-padding/padded.json.gz", 12),
        ("08-gzip-with-padding/newline.json.gz", 12),
    ] {
        let summary = publish(&splitter(&memory(), 10), read(name)).await.unwrap().summary;
        assert_eq!((summary.received, summary.rejected), (rides, 0), "{name}");
    }
    let zip = publish(&splitter(&memory(), 10), read("07-not-json-at-all/rides.zip")).await.unwrap_err().to_string();
    assert!(zip.contains("a zip archive") && zip.contains("unzip it"), "{zip}");
    let rides = read("16-content-encoding-utf-8/rides.json");
    let summary = publish_with(&splitter(&memory(), 10), &rides, encoded_as("utf-8")).await.unwrap().summary;
    assert_eq!((summary.received, summary.rejected), (6, 0));
}
