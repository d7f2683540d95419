//! The layouts of weather sources: which file or request has the weather of a station.

use crate::sources::location::Location;
use std::{collections::BTreeSet, path::Path};

/// Path of the NCEI access service on its host.
const ACCESS_PATH: &str = "/access/services/data/v1";
/// Scheme prefix that declares a URL as the NCEI access service, whatever its path.
const ACCESS_PREFIX: &str = "ncei+";
/// Default location of the station list for the access service, which has none itself.
const NCEI_STATIONS: &str = "https://www.ncei.noaa.gov/pub/data/ghcn/daily/ghcnd-stations.txt";
/// Folder of the station files in a bucket.
pub const BY_STATION: &str = "csv/by_station";
const STATIONS: &str = "ghcnd-stations.txt";
const INVENTORY: &str = "ghcnd-inventory.txt";

/// A service or folder with the daily observations of stations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// NOAA's open-data bucket, or a folder with the same layout: `csv/by_station/<ID>.csv` holds every year of a station.
    Bucket(Location),
    /// The NCEI access service: one request per station and year. The URL is that of `…/access/services/data/v1`.
    Access(String),
}

impl Source {
    /// Parses a folder, the URL of a bucket, or the URL of the NCEI access service, which is recognised by its path or by the
    /// scheme `ncei+https`.
    ///
    /// # Errors
    /// Returns what is expected if the text is none of these.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (url, marked) = text.strip_prefix(ACCESS_PREFIX).map_or((text, false), |url| (url, true));
        match Location::parse(url)? {
            Location::Url(url) => match url.split_once(ACCESS_PATH) {
                Some((host, _)) => Ok(Self::Access(format!("{host}{ACCESS_PATH}"))),
                None if marked => Ok(Self::Access(format!("{url}{ACCESS_PATH}"))),
                None => Ok(Self::Bucket(Location::Url(url))),
            },
            Location::File(_) if marked => Err("ncei+http:// or ncei+https:// with a host"),
            folder => Ok(Self::Bucket(folder)),
        }
    }

    /// Returns whether the source is a folder, which needs no cache in the object store.
    pub fn is_folder(&self) -> bool {
        self.folder().is_some()
    }

    /// Returns the folder if the source is one.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Bucket(Location::File(folder)) => Some(folder),
            _ => None,
        }
    }

    /// Groups the years of a station by request.
    pub fn years_by_request(&self, years: BTreeSet<i16>) -> Vec<BTreeSet<i16>> {
        match self {
            _ if years.is_empty() => Vec::new(),
            Self::Bucket(_) => vec![years],
            Self::Access(_) => years.into_iter().map(|year| BTreeSet::from([year])).collect(),
        }
    }

    /// Returns where the file with all years of a station may be, plain and compressed; `None` for the access service.
    pub fn by_station(&self, station: &str) -> Option<[Location; 2]> {
        match self {
            Self::Bucket(base) => Some(base.join(&format!("{BY_STATION}/{station}.csv")).or_gzipped()),
            Self::Access(_) => None,
        }
    }

    /// Returns whether a URL belongs to this bucket or access service.
    pub fn contains(&self, location: &Location) -> bool {
        match (self, location) {
            (Self::Bucket(Location::Url(base)), Location::Url(url)) => {
                url.strip_prefix(base.as_str()).is_some_and(|rest| rest.starts_with('/'))
            }
            (Self::Access(endpoint), Location::Url(url)) => {
                url.strip_prefix(endpoint.as_str()).is_some_and(|rest| rest.starts_with('?'))
            }
            _ => false,
        }
    }

    /// Returns the request for one year of a station; `None` for a source that has one file per station.
    pub fn by_year(&self, station: &str, year: i16) -> Option<Location> {
        match self {
            Self::Bucket(_) => None,
            Self::Access(endpoint) => Some(Location::Url(format!(
                "{endpoint}?dataset=daily-summaries&stations={station}&startDate={year:04}-01-01&endDate={year:04}-12-31\
                 &dataTypes=TMIN,TMAX,PRCP&format=json&includeAttributes=true"
            ))),
        }
    }

    /// Returns the first location to try for the weather of a station.
    pub fn first_location(&self, station: &str, year: i16) -> Option<Location> {
        self.by_station(station).map(|[plain, _]| plain).or_else(|| self.by_year(station, year))
    }

    /// Returns where the station list may be. The first location that exists is read.
    pub fn station_list_locations(&self, configured: Option<&Location>) -> Vec<Location> {
        match (configured, self) {
            (Some(location), _) => vec![location.clone()],
            (None, Self::Bucket(base)) => base.join(STATIONS).or_gzipped().into(),
            (None, Self::Access(_)) => vec![Location::Url(NCEI_STATIONS.to_owned())],
        }
    }

    /// Returns where the inventory may be: in the bucket or folder, or else beside the station list.
    pub fn inventory_locations(&self, given_stations: Option<&Location>) -> Vec<Location> {
        match self {
            Self::Bucket(base) => base.join(INVENTORY).or_gzipped().into(),
            Self::Access(_) => {
                let stations = self.station_list_locations(given_stations);
                stations.into_iter().flat_map(|location| location.sibling(INVENTORY).or_gzipped()).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::location::redacted_url;

    #[test]
    fn a_password_in_an_address_is_refused_and_redacted() {
        for text in ["https://u:secret@h/w", "ncei+https://u:secret@h", "http://secret@h:8080/w?x=y"] {
            assert!(Source::parse(text).unwrap_err().contains("without a user"), "{text}");
            assert!(!redacted_url(text).contains("secret"), "{}", redacted_url(text));
        }
        assert_eq!(redacted_url("ftp://u:s/e@cret@h/w"), "ftp://…@h/w");
        assert_eq!(redacted_url("https://h/w"), "https://h/w");
        assert!(Source::parse("https://h/a@b").is_ok(), "an @ in the path marks no user");
    }

    fn url(text: &str) -> Location {
        Location::Url(text.to_owned())
    }

    #[test]
    fn the_kind_of_a_source_follows_from_its_address() {
        let ncei = "https://www.ncei.noaa.gov/access/services/data/v1";
        for (text, source) in [
            ("https://noaa-ghcn-pds.s3.amazonaws.com/", Source::Bucket(url("https://noaa-ghcn-pds.s3.amazonaws.com"))),
            (ncei, Source::Access(ncei.to_owned())),
            ("https://www.ncei.noaa.gov/access/services/data/v1?format=json", Source::Access(ncei.to_owned())),
            ("ncei+https://www.ncei.noaa.gov", Source::Access(ncei.to_owned())),
            ("ncei+http://[::1]:8080/x", Source::Access("http://[::1]:8080/x/access/services/data/v1".to_owned())),
            ("weather/noaa", Source::Bucket(Location::File("weather/noaa".into()))),
            ("file:///srv/noaa", Source::Bucket(Location::File("/srv/noaa".into()))),
        ] {
            assert_eq!(Source::parse(text), Ok(source), "{text}");
        }
        for text in ["", " ", "s3://noaa-ghcn-pds", "https://", "ncei+folder", "ftp://x"] {
            assert!(Source::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn locations_follow_the_layout_of_noaa() {
        let folder = Source::parse("/noaa").unwrap();
        let [plain, gzipped] = folder.by_station("USW00094728").unwrap();
        assert_eq!(plain, Location::File("/noaa/csv/by_station/USW00094728.csv".into()));
        assert_eq!(gzipped, Location::File("/noaa/csv/by_station/USW00094728.csv.gz".into()));
        let bucket = Source::parse("https://h/noaa").unwrap();
        assert!(bucket.contains(&url("https://h/noaa/x")) && !bucket.contains(&url("https://h/noaa2")));
        assert!(!folder.contains(&plain) && !bucket.contains(&plain));
        let names: Vec<String> = folder.station_list_locations(None).iter().map(Location::to_string).collect();
        assert_eq!(names, ["/noaa/ghcnd-stations.txt", "/noaa/ghcnd-stations.txt.gz"]);
        let configured = Location::parse("/lists/ghcnd-stations.txt.gz").unwrap();
        assert_eq!(folder.station_list_locations(Some(&configured)), std::slice::from_ref(&configured));
        assert_eq!(folder.inventory_locations(Some(&configured))[0].to_string(), "/noaa/ghcnd-inventory.txt");
        let access = Source::parse("ncei+https://www.ncei.noaa.gov").unwrap();
        let beside = "https://www.ncei.noaa.gov/pub/data/ghcn/daily/ghcnd-inventory.txt";
        assert_eq!(access.inventory_locations(None)[0].to_string(), beside);
        assert!(
            access.contains(&access.by_year("USW00094728", 2018).unwrap())
                && !access.contains(&access.station_list_locations(None)[0])
        );
        assert_eq!(
            access.by_year("USW00094728", 2018).unwrap().to_string(),
            "https://www.ncei.noaa.gov/access/services/data/v1?dataset=daily-summaries&stations=USW00094728\
             &startDate=2018-01-01&endDate=2018-12-31&dataTypes=TMIN,TMAX,PRCP&format=json&includeAttributes=true"
        );
    }
}
