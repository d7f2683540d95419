//! Weather files in unusual forms: padded, in other compressions, with other columns or names in lower case, or no files at
//! all.

use super::{
    broken::{LIST, compressed, file_of, permanent, source, warnings},
    noaa::Noaa,
    *,
};
use crate::formats::gzip::tests::gzip;
use axum::{Router, extract::State, http::header, response::IntoResponse};
use std::collections::BTreeMap;

async fn padded(padding: &[u8]) -> Data {
    let Data::Files(mut files) = compressed(new_york()).await else { unreachable!() };
    files.values_mut().for_each(|packed| packed.extend_from_slice(padding));
    Data::Files(files)
}

#[tokio::test]
async fn gzip_with_padding_is_read_from_a_folder_and_a_service() {
    for padding in [&[0; 512][..], b"\n", b"\r\n", b"\0\n"] {
        let data = padded(padding).await;
        let folder = folder_of(data.clone());
        assert_eq!(enrich_one(&fetcher(source(&folder), &memory_store())).await, Ok(park(111, 156, 241)));
        assert!(crate::inspect(&source(&folder), 5).await.unwrap().problems.is_empty());
        let noaa = Noaa::start(data).await.unwrap();
        assert_eq!(enrich_one(&fetcher(of(noaa.url()), &memory_store())).await, Ok(park(111, 156, 241)));
    }
    let folder = folder_of(padded(b"\0 more").await);
    let why = permanent(enrich_one(&fetcher(source(&folder), &memory_store())).await);
    assert!(why.contains(&format!("{LIST}.gz: 4 bytes that are not gzip data follow")), "{why}");
}

/// Some servers declare the compression of a file as that of the transfer.
#[tokio::test]
async fn gzip_with_padding_is_read_if_the_service_declares_it() {
    async fn answer(
        State((files, name)): State<(BTreeMap<String, Vec<u8>>, &'static str)>,
        uri: axum::http::Uri,
    ) -> axum::response::Response {
        match files.get(uri.path().trim_start_matches('/')) {
            Some(packed) => ([(header::CONTENT_ENCODING, name)], packed.clone()).into_response(),
            None => axum::http::StatusCode::NOT_FOUND.into_response(),
        }
    }
    for name in ["gzip", "X-GZIP"] {
        let Data::Files(files) = padded(&[0; 512]).await else { unreachable!() };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(answer).with_state((files, name));
        let server = tokio::spawn(async move { axum::serve(listener, app).await });
        assert_eq!(enrich_one(&fetcher(of(url), &memory_store())).await, Ok(park(111, 156, 241)), "{name}");
        server.abort();
    }
}

#[tokio::test]
async fn unsupported_compressions_are_reported_with_advice() {
    let twice = gzip(&gzip(b"ID,DATE\n").await).await;
    for (content, words) in [
        (&b"\x28\xb5\x2f\xfd\x04\0"[..], "zstd data: decompress it, or compress it with gzip"),
        (b"BZh91AY&SY", "bzip2 data: decompress it, or compress it with gzip"),
        (b"\xfd7zXZ\0", "xz data: decompress it, or compress it with gzip"),
        (b"PK\x03\x04\x14\0", "a zip archive: unpack it"),
        (&twice, "gzip data within gzip data: decompress it once"),
    ] {
        for path in [file_of(PARK), LIST.to_owned()] {
            let folder = folder_of(new_york().with_file(&path, content));
            let why = permanent(enrich_one(&fetcher(source(&folder), &memory_store())).await);
            assert!(why.contains(&path) && why.contains(words), "{words}: {why}");
        }
    }
    // Under a name that is not tried.
    let zst = format!("{}.zst", file_of(PARK));
    let data = new_york().without_file(&file_of(PARK)).without_file(&file_of(GAUGE));
    let folder = folder_of(data.with_station("USC00300000", 10.0, 10.0).with_file(&zst, "\x28"));
    let inspection = crate::inspect(&source(&folder), 5).await.unwrap();
    assert!(
        inspection.problems[0].contains(&format!("({PARK}.csv.zst exists but is not read")),
        "{:?}",
        inspection.problems
    );
    let store = memory_store();
    enrich(&fetcher(source(&folder), &store), vec![ride("2018-04-25 12:00:00", 40.7789, -73.9692)]).await.unwrap();
    let why = warnings(&store, PARK).await.unwrap().why.unwrap();
    assert!(why.contains(&zst) && why.contains("decompress it, or compress it with gzip"), "{why}");
    let folder = folder_of(new_york().without_file(LIST).with_file("ghcnd-stations.txt.xz", "x"));
    let error = format!("{:#}", WeatherFetcher::new(source(&folder), memory_store()).unwrap_err());
    assert!(error.contains("ghcnd-stations.txt.xz exists but is not read"), "{error}");
}

#[tokio::test]
async fn directories_and_devices_are_reported_as_such() {
    let folder = folder_of(new_york().without_file(LIST));
    std::fs::create_dir(folder.path().join(LIST)).unwrap();
    let error = format!("{:#}", WeatherFetcher::new(source(&folder), memory_store()).unwrap_err());
    assert!(error.contains(&format!("{LIST} is a directory")), "{error}");
    let of_file = of(folder.path().join(file_of(PARK)).to_str().unwrap().to_owned());
    let error = format!("{:#}", WeatherFetcher::new(of_file, memory_store()).unwrap_err());
    assert!(error.contains("is a file, not a folder"), "{error}");
    let folder = folder_of(new_york().without_file(&file_of(PARK)));
    let device = folder.path().join(file_of(PARK));
    std::os::unix::fs::symlink("/dev/null", &device).unwrap();
    let why = permanent(enrich_one(&fetcher(source(&folder), &memory_store())).await);
    assert!(why.contains(&format!("{}: it is a pipe or a device, not a file", device.display())), "{why}");
}

#[tokio::test]
async fn columns_line_ends_and_case_do_not_matter() {
    let Data::Files(files) = new_york() else { unreachable!() };
    let text = |path: &str| String::from_utf8(files[path].clone()).unwrap();
    let exchanged: String = text(&file_of(PARK))
        .lines()
        .map(|row| {
            let [id, date, element, value, m_flag, q_flag, rest @ ..] = &row.split(',').collect::<Vec<_>>()[..] else {
                panic!("{row}")
            };
            format!("{date},{id},{element},{q_flag},{m_flag},{value},{}\n", rest.join(","))
        })
        .collect();
    for (name, data) in [
        ("another order", new_york().with_file(&file_of(PARK), exchanged.replace("Q_FLAG,M_FLAG", "q_flag,M-Flag"))),
        ("carriage returns", new_york().with_file(&file_of(PARK), text(&file_of(PARK)).replace('\n', "\r"))),
        ("carriage returns in the list", new_york().with_file(LIST, text(LIST).replace('\n', "\r"))),
        ("a final blank", new_york().with_file(&file_of(PARK), text(&file_of(PARK)).replace('\n', "\r\n") + " \r\n ")),
        ("a list in lower case", new_york().with_file(LIST, text(LIST).to_lowercase())),
        ("a file in lower case", new_york().with_file(&file_of(PARK), text(&file_of(PARK)).to_lowercase())),
    ] {
        let store = memory_store();
        let folder = folder_of(data.clone());
        assert_eq!(enrich_one(&fetcher(source(&folder), &store)).await, Ok(park(111, 156, 241)), "{name}");
        assert_eq!(warnings(&store, PARK).await, None, "{name}");
        let noaa = Noaa::start(data).await.unwrap();
        assert_eq!(enrich_one(&fetcher(of(noaa.url()), &memory_store())).await, Ok(park(111, 156, 241)), "{name}");
    }
}

#[tokio::test]
async fn a_faulty_inventory_never_excludes_stations_silently() {
    let inventory = |years: &str| -> String {
        let row = |element| format!("{PARK}  40.7789  -73.9692 {element} {years}\n");
        ["TMIN", "TMAX", "PRCP"].map(row).concat()
    };
    for (text, left_out) in
        [(inventory("2010 2020").to_lowercase(), 0), (inventory("2010 2020") + &inventory("2020 2010"), 3)]
    {
        let store = memory_store();
        let folder = folder_of(new_york().with_file("ghcnd-inventory.txt", text));
        assert_eq!(enrich_one(&fetcher(source(&folder), &store)).await, Ok(park(111, 156, 241)));
        let document = warnings(&store, crate::almanac::INVENTORY).await;
        assert_eq!(document.map_or(0, |document| document.left_out["invalid_date"]), left_out);
    }
    let other = inventory("2010 2020").replace(PARK, "USW00014732");
    let folder = folder_of(new_york().with_file("ghcnd-inventory.txt", other));
    let inspection = crate::inspect(&source(&folder), 5).await.unwrap();
    assert!(inspection.problems[0].contains("none of the 3 listed stations"), "{:?}", inspection.problems);
}
