//! A service that answers, but never with weather.

use super::{
    broken::{LIST, file_of, permanent},
    noaa::Noaa,
    *,
};

const INVENTORY: &str = "ghcnd-inventory.txt";

fn impatient(settings: Settings) -> WeatherFetcher {
    fetcher(Settings { unusable_patience_ms: 0, ..settings }, &memory_store())
}

#[tokio::test]
async fn waiting_for_a_station_list_that_is_never_sent_is_limited() {
    for (fault, part) in [
        (Fault::Status(202, None), "answered 202 Accepted: not a text"),
        (Fault::Status(204, None), "answered 204 No Content: not a text"),
        (Fault::Status(304, None), "answered 304 Not Modified: a redirect that names no address"),
        (Fault::Status(400, None), "answered 400"),
        (Fault::Status(401, None), "access is refused"),
        (Fault::Status(403, None), "access is refused"),
        (Fault::Status(410, None), "no station list at"),
        (Fault::Redirect(format!("/{LIST}")), "answered 302 Found: a redirect loop"),
        (Fault::Redirect("https://elsewhere.test/login".to_owned()), "a redirect to https://elsewhere.test/login"),
    ] {
        let noaa = Noaa::start(new_york()).await.unwrap();
        noaa.fail_next(LIST, 100, fault.clone());
        for settings in each_service(&noaa) {
            let (waiting, _) = why(enrich_one(&fetcher(settings.clone(), &memory_store())).await);
            assert!(waiting.contains(part), "{fault:?}: {waiting}");
            let text = permanent(enrich_one(&impatient(settings)).await);
            assert!(text.contains(part) && text.contains("weather.unusable_patience_ms"), "{fault:?}: {text}");
        }
    }
}

/// A temporary outage of a service makes no dead letter.
#[tokio::test]
async fn waiting_for_a_service_with_an_outage_is_unlimited() {
    for status in [408, 429, 500, 503] {
        let noaa = Noaa::start(new_york()).await.unwrap();
        noaa.fail_next(LIST, 3, Fault::Status(status, None));
        let (text, _) = why(enrich_one(&impatient(of(noaa.url()))).await);
        assert!(text.contains(&status.to_string()), "{text}");
    }
    let noaa = Noaa::start(new_york()).await.unwrap();
    noaa.fail_next(LIST, 1, Fault::Status(401, Some("1000".to_owned())));
    why(enrich_one(&impatient(of(noaa.url()))).await);
}

/// `weather.stations` is then the only location that is tried.
#[tokio::test]
async fn waiting_for_a_missing_list_at_its_own_address_is_limited() {
    let noaa = Noaa::start(Data::empty()).await.unwrap();
    let stations = Some(format!("{}/{LIST}", noaa.url()));
    let settings = Settings { stations, unusable_patience_ms: 50, ..of(noaa.url()) };
    let fetcher = fetcher(settings, &memory_store());
    why(enrich_one(&fetcher).await);
    let ended = async {
        loop {
            match enrich_one(&fetcher).await {
                Err(Failure::Outage { .. }) => {}
                other => return permanent(other),
            }
        }
    };
    let text = tokio::time::timeout(Duration::from_secs(60), ended).await.expect("the wait is limited");
    assert!(text.contains("no station list at"), "{text}");
}

#[tokio::test]
async fn waiting_for_a_refused_inventory_is_limited_unless_it_counts_as_missing() {
    let noaa = Noaa::start(new_york()).await.unwrap();
    let [bucket, access] = each_service(&noaa);
    noaa.fail_next(INVENTORY, 2, Fault::Status(403, None));
    assert_eq!(enrich_one(&impatient(bucket)).await, Ok(park(111, 156, 241)), "the list was read there");
    noaa.fail_next(INVENTORY, 2, Fault::Status(403, None));
    assert!(permanent(enrich_one(&impatient(access)).await).contains(INVENTORY));
}

/// A refused station file is missing if other files exist, an outage if other files existed before, and otherwise a wrong
/// address.
#[tokio::test]
async fn waiting_for_refused_station_files_is_limited_if_the_source_never_had_one() {
    let folder = folder_of(new_york());
    let stations = Some(folder.path().join(LIST).to_str().unwrap().to_owned());
    for is_access in [false, true] {
        let noaa = Noaa::start(new_york()).await.unwrap();
        [PARK, GAUGE].into_iter().for_each(|station| noaa.fail_next(station, 100, Fault::Status(403, None)));
        let source = if is_access { noaa.ncei_url() } else { noaa.url() };
        let settings = Settings { stations: stations.clone(), ..of(source) };
        why(enrich_one(&fetcher(settings.clone(), &memory_store())).await);
        assert!(permanent(enrich_one(&impatient(settings)).await).contains("access is refused"));
    }
    let noaa = Noaa::start(new_york()).await.unwrap();
    noaa.fail_next(PARK, 1, Fault::Status(401, None));
    assert!(permanent(enrich_one(&impatient(of(noaa.url()))).await).contains("401"));
    // 410 (gone) counts as missing.
    let noaa = Noaa::start(new_york().without_file(&file_of(GAUGE))).await.unwrap();
    noaa.fail_next(GAUGE, 2, Fault::Status(410, None));
    assert_eq!(enrich_one(&impatient(of(noaa.url()))).await, Ok(park(111, 156, 241)));
}
