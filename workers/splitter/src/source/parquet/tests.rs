use super::*;
use crate::source::{
    Source,
    tests::{LIMITS, block_on, read, read_in},
};
use parquet::{
    basic::{BrotliLevel, Compression, Encoding, GzipLevel, ZstdLevel},
    data_type::{
        BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FixedLenByteArray, FixedLenByteArrayType, FloatType,
        Int32Type, Int64Type, Int96, Int96Type,
    },
    file::{
        properties::WriterProperties,
        writer::{SerializedFileWriter, SerializedRowGroupWriter},
    },
    schema::parser::parse_message_type,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::Arc;

type Group<'a, 'b> = SerializedRowGroupWriter<'a, &'b mut Vec<u8>>;
/// Writes a row group.
type Write<'a> = &'a dyn for<'b, 'c, 'd> Fn(&'b mut Group<'c, 'd>);

/// Writes one column: `None` is null.
fn column<T: DataType>(group: &mut Group<'_, '_>, values: &[Option<T::T>]) {
    let mut writer = group.next_column().unwrap().unwrap();
    let levels: Vec<i16> = values.iter().map(|value| i16::from(value.is_some())).collect();
    let present: Vec<T::T> = values.iter().flatten().cloned().collect();
    writer.typed::<T>().write_batch(&present, Some(&levels), None).unwrap();
    writer.close().unwrap();
}

fn file(schema: &str, properties: WriterProperties, groups: &[Write<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::new(properties)).unwrap();
    for write in groups {
        let mut group = writer.next_row_group().unwrap();
        write(&mut group);
        group.close().unwrap();
    }
    writer.close().unwrap();
    bytes
}

/// A file of rides in row groups of this size.
fn rides(rides: usize, group_rows: usize, properties: WriterProperties) -> Vec<u8> {
    let schema =
        "message rides { OPTIONAL BYTE_ARRAY name (UTF8); OPTIONAL DOUBLE latitude; OPTIONAL INT64 fieldservice; }";
    let numbers: Vec<usize> = (0..rides).collect();
    let groups: Vec<_> = numbers
        .chunks(group_rows.max(1))
        .map(|rows| {
            move |group: &mut Group<'_, '_>| {
                let rows = || rows.iter().copied();
                column::<ByteArrayType>(
                    group,
                    &rows().map(|n| Some(format!("ride {n}").as_str().into())).collect::<Vec<_>>(),
                );
                column::<DoubleType>(group, &rows().map(|n| Some(n as f64 / 2.0)).collect::<Vec<_>>());
                column::<Int64Type>(group, &rows().map(|n| (n % 3 == 0).then_some(1)).collect::<Vec<_>>());
            }
        })
        .collect();
    let groups: Vec<_> = groups.iter().map(|group| group as Write<'_>).collect();
    file(schema, properties, &groups)
}

async fn records(bytes: &[u8]) -> Vec<Value> {
    let (lines, records) = read(bytes).await.unwrap();
    assert!(records);
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn rides_of_all_row_groups_are_read_in_order() {
    for (count, group_rows) in [(0, 1), (1, 1), (25, 10), (2_500, 1_100)] {
        let bytes = rides(count, group_rows, WriterProperties::builder().build());
        let (lines, records) = read_in(&bytes, None, LIMITS).await.unwrap();
        assert!(records);
        let values: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let expected: Vec<Value> = (0..count)
            .map(|n| {
                let mut ride = json!({"name": format!("ride {n}"), "latitude": n as f64 / 2.0});
                if n % 3 == 0 {
                    ride["fieldservice"] = json!(1);
                }
                ride
            })
            .collect();
        assert_eq!(values, expected);
    }
}

#[tokio::test]
async fn every_supported_compression_gives_the_same_rides() {
    let plain = records(&rides(50, 20, WriterProperties::builder().build())).await;
    for compression in [
        Compression::SNAPPY,
        Compression::GZIP(GzipLevel::default()),
        Compression::ZSTD(ZstdLevel::default()),
        Compression::BROTLI(BrotliLevel::default()),
    ] {
        let properties = || WriterProperties::builder().set_compression(compression);
        assert_eq!(records(&rides(50, 20, properties().build())).await, plain, "{compression}");
        let second = properties().set_writer_version(parquet::file::properties::WriterVersion::PARQUET_2_0);
        let second = second.set_column_encoding("name".into(), Encoding::PLAIN).build();
        assert_eq!(records(&rides(50, 20, second)).await, plain, "{compression}, pages of version 2");
    }
    assert_eq!(
        records(&crate::source::tests::gzip(&rides(50, 20, WriterProperties::builder().build())).await).await,
        plain
    );
}

#[tokio::test]
async fn values_of_every_type_become_json() {
    let schema = "message rides {
        OPTIONAL BOOLEAN truth;
        OPTIONAL INT32 small (INTEGER(8, true));
        OPTIONAL INT32 unsigned (INTEGER(32, false));
        OPTIONAL INT64 millis (TIMESTAMP(MILLIS, true));
        OPTIONAL INT64 micros (TIMESTAMP(MICROS, false));
        OPTIONAL INT64 nanos (TIMESTAMP(NANOS, true));
        OPTIONAL INT96 spark;
        OPTIONAL INT32 day (DATE);
        OPTIONAL INT64 decimal (DECIMAL(18, 3));
        OPTIONAL FIXED_LEN_BYTE_ARRAY (5) fixed (DECIMAL(10, 2));
        OPTIONAL FLOAT single;
        OPTIONAL DOUBLE not_finite;
        OPTIONAL BYTE_ARRAY text (STRING);
        OPTIONAL BYTE_ARRAY old_text;
        OPTIONAL BYTE_ARRAY picture;
        OPTIONAL GROUP nested { OPTIONAL DOUBLE latitude; }
        OPTIONAL DOUBLE last;
    }";
    let moment = 1_524_675_785_722i64;
    let nanos: i64 = 61_385_722_000_000;
    let mut spark = Int96::new();
    spark.set_data(nanos as u32, (nanos >> 32) as u32, 2_458_234);
    let write = |group: &mut Group<'_, '_>| {
        column::<BoolType>(group, &[Some(true), None]);
        column::<Int32Type>(group, &[Some(-7), None]);
        column::<Int32Type>(group, &[Some(-1), None]);
        column::<Int64Type>(group, &[Some(moment), None]);
        column::<Int64Type>(group, &[Some(moment * 1_000), None]);
        column::<Int64Type>(group, &[Some(moment * 1_000_000), None]);
        column::<Int96Type>(group, &[Some(spark), None]);
        column::<Int32Type>(group, &[Some(17_646), None]);
        column::<Int64Type>(group, &[Some(-29_500), None]);
        column::<FixedLenByteArrayType>(
            group,
            &[Some(FixedLenByteArray::from(vec![0xFF, 0xFF, 0xFF, 0xFF, 0x85])), None],
        );
        column::<FloatType>(group, &[Some(40.6), None]);
        column::<DoubleType>(group, &[Some(f64::NAN), Some(f64::INFINITY)]);
        column::<ByteArrayType>(group, &[Some("Qilin \"ü\"\n".into()), Some("".into())]);
        column::<ByteArrayType>(group, &[Some("Impala".into()), None]);
        column::<ByteArrayType>(group, &[Some(ByteArray::from(vec![0xFF, 0xD8])), None]);
        let mut nested = group.next_column().unwrap().unwrap();
        nested.typed::<DoubleType>().write_batch(&[1.5], Some(&[2, 0]), None).unwrap();
        nested.close().unwrap();
        column::<DoubleType>(group, &[Some(1e300), Some(-0.5)]);
    };
    let values = records(&file(schema, WriterProperties::builder().build(), &[&write])).await;
    let time = "2018-04-25T17:03:05.722Z";
    let expected = [
        json!({
            "truth": true, "small": -7, "unsigned": 4_294_967_295u32, "millis": time, "micros": time, "nanos": time, "spark": time,
            "day": "2018-04-25", "decimal": -29.5, "fixed": -1.23, "single": 40.6, "not_finite": "NaN", "text": "Qilin \"ü\"\n",
            "old_text": "Impala", "last": 1e300,
        }),
        json!({"not_finite": "Infinity", "text": "", "last": -0.5}),
    ];
    assert_eq!(values, expected);
}

#[tokio::test]
async fn a_truncated_or_broken_file_is_refused_with_the_reason() {
    let whole = rides(20, 10, WriterProperties::builder().build());
    for length in 4..whole.len() {
        let error = read_in(&whole[..length], None, LIMITS).await.unwrap_err();
        assert!(matches!(&error, ReadError::Parquet(invalid) if invalid.code() == "cut_short"), "{length}: {error}");
    }
    let longer = [&whole[..], b"\nx"].concat();
    assert!(read_in(&longer, None, LIMITS).await.unwrap_err().to_string().contains("no footer at its end"));
    let padded = [&whole[..], b"\r\n\0"].concat();
    assert_eq!(read_in(&padded, None, LIMITS).await.unwrap(), read_in(&whole, None, LIMITS).await.unwrap());
    let mut lies = whole.clone();
    let at = lies.len() - 8;
    lies[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(read_in(&lies, None, LIMITS).await.unwrap_err().to_string().contains("footer is longer than the file"));
    lies[at..at + 4].copy_from_slice(&3u32.to_le_bytes());
    assert!(read_in(&lies, None, LIMITS).await.unwrap_err().to_string().contains("the Parquet file is broken"));
    let mut encrypted = whole;
    let at = encrypted.len() - 4;
    encrypted[at..].copy_from_slice(b"PARE");
    let error = read_in(&encrypted, None, LIMITS).await.unwrap_err().to_string();
    assert!(error.contains("encrypted") && error.contains("without encryption"), "{error}");
}

#[tokio::test]
async fn unsupported_columns_are_refused_by_name() {
    let properties = WriterProperties::builder().set_dictionary_enabled(false);
    for encoding in [Encoding::DELTA_BYTE_ARRAY, Encoding::DELTA_LENGTH_BYTE_ARRAY] {
        let properties = properties.clone().set_column_encoding("name".into(), encoding).build();
        let error = read(&rides(9, 9, properties)).await.unwrap_err();
        let expected = format!("column \"name\" encoded as {encoding}, which is not read: write it with plain");
        assert!(error.contains(&expected), "{error}");
    }
    let nested = "message rides { REQUIRED GROUP ride { REQUIRED DOUBLE latitude; } }";
    let nothing: &[Write<'_>] = &[];
    let error = read(&file(nested, WriterProperties::builder().build(), nothing)).await.unwrap_err();
    assert!(error.contains("no column that is not nested"), "{error}");
    let text = "message rides { OPTIONAL BYTE_ARRAY name (UTF8); }";
    let write = |group: &mut Group<'_, '_>| {
        column::<ByteArrayType>(group, &[Some(ByteArray::from(vec![0xEF, b'n']))]);
    };
    let error = read(&file(text, WriterProperties::builder().build(), &[&write])).await.unwrap_err();
    assert!(error.contains("column \"name\" has a text that is not UTF-8"), "{error}");
}

#[tokio::test]
async fn files_beyond_the_limits_are_refused() {
    let bytes = rides(5_000, 5_000, WriterProperties::builder().build());
    let limits = crate::source::Limits { decompressed_bytes_max: bytes.len() as u64 - 1, ..LIMITS };
    let error = read_in(&bytes, None, limits).await.unwrap_err().to_string();
    assert!(error.contains("larger than splitter.decompressed_bytes_max"), "{error}");
    // A billion null rows in a few bytes.
    let schema = "message rides { OPTIONAL DOUBLE latitude; }";
    let nulls = vec![None; 4_000_000];
    let write = |group: &mut Group<'_, '_>| column::<DoubleType>(group, &nulls);
    let bytes = file(schema, WriterProperties::builder().build(), &[&write, &write]);
    let error = read_in(&bytes, None, crate::source::Limits { piece_bytes: 1 << 20, ..LIMITS }).await.unwrap_err();
    assert!(matches!(error, ReadError::Expands(_)), "{error}");
}

#[tokio::test]
async fn a_large_file_is_spooled_to_disk() {
    let schema = "message rides { OPTIONAL BYTE_ARRAY name (UTF8); }";
    let text: String =
        (0..40_000u32).map(|n| char::from(b'a' + (n.wrapping_mul(2_654_435_761) >> 24) as u8 % 26)).collect();
    let names: Vec<_> = (0..300).map(|n| Some(format!("{n} {text}").as_str().into())).collect();
    let write = |group: &mut Group<'_, '_>| column::<ByteArrayType>(group, &names);
    let properties = WriterProperties::builder().set_dictionary_enabled(false).build();
    let bytes = file(schema, properties, &[&write]);
    assert!(bytes.len() > 10 << 20);
    let source = Source::Inline { body: Bytes::from(bytes), coding: None };
    for _ in 0..2 {
        let mut reading = source.open(crate::source::Limits { piece_bytes: 1 << 20, ..LIMITS }).await.unwrap();
        let mut lines = 0;
        while let Some(piece) = reading.next().await.unwrap() {
            lines += piece.iter().filter(|byte| **byte == b'\n').count();
            assert!(piece.len() < 2 << 20);
        }
        assert_eq!(lines, 300);
    }
}

#[test]
fn a_page_whose_header_states_a_huge_size_is_refused() {
    let bytes = rides(20, 20, WriterProperties::builder().set_compression(Compression::SNAPPY).build());
    // The first page follows the magic number: its decompressed size becomes 1 GiB.
    let header = super::thrift::page_header(&bytes[4..]).unwrap();
    assert!(header.decompressed < 1 << 20);
    let patched = bytes[4..].iter().position(|byte| *byte == 0x15).unwrap() + 4 + 2;
    assert_eq!(bytes[patched], 0x15, "the second field");
    let mut lies = bytes[..=patched].to_vec();
    lies.extend([0x80, 0x80, 0x80, 0x80, 0x08]);
    let rest = bytes[patched + 1..].iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
    lies.extend(&bytes[patched + 1 + rest..]);
    let error = block_on(read_in(&lies, None, LIMITS)).unwrap_err().to_string();
    assert!(error.contains("pages of more than") || error.contains("broken"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// A file with a wrong byte is read or refused.
    #[test]
    fn no_byte_panics(at in 4..2_000usize, byte in any::<u8>(), more in 0..3usize, version in any::<bool>()) {
        let version = if version {
            parquet::file::properties::WriterVersion::PARQUET_2_0
        } else {
            parquet::file::properties::WriterVersion::PARQUET_1_0
        };
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).set_writer_version(version);
        let mut bytes = rides(12, 5, properties.set_column_encoding("name".into(), Encoding::PLAIN).build());
        let length = bytes.len();
        for nth in 0..=more {
            bytes[4 + (at + nth * 97) % (length - 4)] = byte.wrapping_add(nth as u8);
        }
        if let Err(error) = block_on(read_in(&bytes, None, LIMITS)) {
            prop_assert!(matches!(error, ReadError::Parquet(_) | ReadError::Expands(_)), "{}", error);
        }
    }
}

/// A full file system is an outage, unless the file alone fills it.
#[cfg(unix)]
#[test]
fn a_file_that_fills_the_temporary_folder_alone_is_refused() {
    let folder = std::env::temp_dir();
    let capacity = super::capacity(&folder).unwrap();
    let full = |bytes| super::spool_error(std::io::ErrorKind::StorageFull.into(), bytes, &folder);
    let refused = full(capacity / 100 * 95);
    assert!(
        matches!(&refused, ReadError::Parquet(why) if why.code() == "expands_too_much" && why.to_string().contains(&capacity.to_string())),
        "{refused}"
    );
    assert!(matches!(full(capacity / 2), ReadError::Spool(_)), "other files fill it");
    let broken = super::spool_error(std::io::ErrorKind::Other.into(), capacity, &folder);
    assert!(matches!(broken, ReadError::Spool(_)), "{broken}");
}
