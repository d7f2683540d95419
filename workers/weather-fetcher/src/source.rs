//! Where weather comes from.

use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
};

/// Path of the NCEI access service on its host.
const ACCESS_PATH: &str = "/access/services/data/v1";
/// Scheme prefix that marks a URL as the NCEI access service whatever its path.
const ACCESS_PREFIX: &str = "ncei+";
/// The station list when the source itself has none.
const NCEI_STATIONS: &str = "https://www.ncei.noaa.gov/pub/data/ghcn/daily/ghcnd-stations.txt";
/// Where the bucket has the files of the stations.
pub const BY_STATION: &str = "csv/by_station";
const STATIONS: &str = "ghcnd-stations.txt";
const INVENTORY: &str = "ghcnd-inventory.txt";

/// An address as it may be told: what stands before the host may be a password.
pub fn told(text: &str) -> String {
    match text.split_once("://").zip(text.rsplit_once('@')) {
        Some(((scheme, _), (_, host))) => format!("{scheme}://…@{host}"),
        None => text.to_owned(),
    }
}

/// A text that can be read: a URL or a local file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// `http://…` or `https://…`.
    Url(String),
    /// A path.
    File(PathBuf),
}

impl Place {
    /// A URL or a path, as one writes it; `file:///…` is a path.
    ///
    /// # Errors
    /// A scheme that cannot be read, with what can.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        match text.split_once("://") {
            // It would stand in every log and every complaint.
            Some(("http" | "https", rest)) if rest.split(['/', '?', '#']).next().is_some_and(|at| at.contains('@')) => {
                Err("an address without a user or a password: weather is public, and nothing else is asked for it")
            }
            Some(("http" | "https", rest)) if !rest.trim_start_matches('/').is_empty() => {
                Ok(Self::Url(text.trim_end_matches('/').to_owned()))
            }
            Some(("file", path)) => Ok(Self::File(path.into())),
            Some(_) => Err("an http:// or https:// URL with a host, or a path"),
            None if text.trim().is_empty() => Err("an http:// or https:// URL, or a path"),
            None => Ok(Self::File(text.into())),
        }
    }

    fn join(&self, name: &str) -> Self {
        match self {
            Self::Url(base) => Self::Url(format!("{base}/{name}")),
            Self::File(base) => Self::File(base.join(name)),
        }
    }

    fn sibling(&self, name: &str) -> Self {
        match self {
            Self::Url(url) => Self::Url(format!("{}/{name}", url.rsplit_once('/').map_or("", |(folder, _)| folder))),
            Self::File(path) => Self::File(path.with_file_name(name)),
        }
    }

    /// The place itself and the same file compressed.
    fn or_gzipped(self) -> [Self; 2] {
        let gzipped = match &self {
            Self::Url(url) => Self::Url(format!("{url}.gz")),
            Self::File(path) => {
                let mut path = path.clone().into_os_string();
                path.push(".gz");
                Self::File(path.into())
            }
        };
        [self, gzipped]
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => f.write_str(url),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A service, or a folder, that has the daily observations of stations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// NOAA's open-data bucket, or a folder with the same layout: `csv/by_station/<ID>.csv` holds every year of a station.
    Bucket(Place),
    /// The NCEI access service: one request per station and year. The URL is that of `…/access/services/data/v1`.
    Access(String),
}

impl Source {
    /// A folder, the URL of a bucket, or the URL of the NCEI access service, which is known by its path or by the scheme
    /// `ncei+https`.
    ///
    /// # Errors
    /// What would have been right.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (url, marked) = match text.strip_prefix(ACCESS_PREFIX) {
            Some(url) => (url, true),
            None => (text, false),
        };
        match Place::parse(url)? {
            Place::Url(url) => match url.split_once(ACCESS_PATH) {
                Some((host, _)) => Ok(Self::Access(format!("{host}{ACCESS_PATH}"))),
                None if marked => Ok(Self::Access(format!("{url}{ACCESS_PATH}"))),
                None => Ok(Self::Bucket(Place::Url(url))),
            },
            Place::File(_) if marked => Err("ncei+http:// or ncei+https:// with a host"),
            folder => Ok(Self::Bucket(folder)),
        }
    }

    /// Whether it is a folder: a copy of the weather that needs no other cache.
    pub fn is_folder(&self) -> bool {
        self.folder().is_some()
    }

    /// The folder, if the source is one.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Bucket(Place::File(folder)) => Some(folder),
            _ => None,
        }
    }

    /// Which years of a station come with one request.
    pub fn at_once(&self, years: BTreeSet<i16>) -> Vec<BTreeSet<i16>> {
        match self {
            _ if years.is_empty() => Vec::new(),
            Self::Bucket(_) => vec![years],
            Self::Access(_) => years.into_iter().map(|year| BTreeSet::from([year])).collect(),
        }
    }

    /// Where all years of one station are, plain and compressed; `None` for a source without such files.
    pub fn by_station(&self, station: &str) -> Option<[Place; 2]> {
        match self {
            Self::Bucket(base) => Some(base.join(&format!("{BY_STATION}/{station}.csv")).or_gzipped()),
            Self::Access(_) => None,
        }
    }

    /// Whether a URL lies in the bucket, or is a request to the access service, that is this source.
    pub fn holds(&self, place: &Place) -> bool {
        match (self, place) {
            (Self::Bucket(Place::Url(base)), Place::Url(url)) => {
                url.strip_prefix(base.as_str()).is_some_and(|rest| rest.starts_with('/'))
            }
            (Self::Access(endpoint), Place::Url(url)) => {
                url.strip_prefix(endpoint.as_str()).is_some_and(|rest| rest.starts_with('?'))
            }
            _ => false,
        }
    }

    /// Where one year of one station is, for a source that answers year by year.
    pub fn by_year(&self, station: &str, year: i16) -> Option<Place> {
        match self {
            Self::Bucket(_) => None,
            Self::Access(endpoint) => Some(Place::Url(format!(
                "{endpoint}?dataset=daily-summaries&stations={station}&startDate={year:04}-01-01&endDate={year:04}-12-31\
                 &dataTypes=TMIN,TMAX,PRCP&format=json&includeAttributes=true"
            ))),
        }
    }

    /// Where the weather of a station is looked for first.
    pub fn file_of(&self, station: &str, year: i16) -> Option<Place> {
        self.by_station(station).map(|[plain, _]| plain).or_else(|| self.by_year(station, year))
    }

    /// Where the station list may be: the first of these that is there.
    pub fn stations(&self, given: Option<&Place>) -> Vec<Place> {
        match (given, self) {
            (Some(place), _) => vec![place.clone()],
            (None, Self::Bucket(base)) => base.join(STATIONS).or_gzipped().into(),
            (None, Self::Access(_)) => vec![Place::Url(NCEI_STATIONS.to_owned())],
        }
    }

    /// Where the inventory may be: in the bucket or folder, else beside the station list.
    pub fn inventory(&self, given_stations: Option<&Place>) -> Vec<Place> {
        match self {
            Self::Bucket(base) => base.join(INVENTORY).or_gzipped().into(),
            Self::Access(_) => {
                let stations = self.stations(given_stations);
                stations.into_iter().flat_map(|place| place.sibling(INVENTORY).or_gzipped()).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_an_address_is_refused_and_not_told() {
        for text in ["https://u:secret@h/w", "ncei+https://u:secret@h", "http://secret@h:8080/w?x=y"] {
            assert!(Source::parse(text).unwrap_err().contains("without a user"), "{text}");
            assert!(!told(text).contains("secret"), "{}", told(text));
        }
        assert_eq!(told("ftp://u:s/e@cret@h/w"), "ftp://…@h/w");
        assert_eq!(told("https://h/w"), "https://h/w");
        assert!(Source::parse("https://h/a@b").is_ok(), "what stands in the path is no user");
    }

    fn url(text: &str) -> Place {
        Place::Url(text.to_owned())
    }

    #[test]
    fn a_source_is_known_by_how_it_is_written() {
        let ncei = "https://www.ncei.noaa.gov/access/services/data/v1";
        for (text, source) in [
            ("https://noaa-ghcn-pds.s3.amazonaws.com/", Source::Bucket(url("https://noaa-ghcn-pds.s3.amazonaws.com"))),
            (ncei, Source::Access(ncei.to_owned())),
            ("https://www.ncei.noaa.gov/access/services/data/v1?format=json", Source::Access(ncei.to_owned())),
            ("ncei+https://www.ncei.noaa.gov", Source::Access(ncei.to_owned())),
            ("ncei+http://[::1]:8080/x", Source::Access("http://[::1]:8080/x/access/services/data/v1".to_owned())),
            ("weather/noaa", Source::Bucket(Place::File("weather/noaa".into()))),
            ("file:///srv/noaa", Source::Bucket(Place::File("/srv/noaa".into()))),
        ] {
            assert_eq!(Source::parse(text), Ok(source), "{text}");
        }
        for text in ["", " ", "s3://noaa-ghcn-pds", "https://", "ncei+folder", "ftp://x"] {
            assert!(Source::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn files_are_where_noaa_has_them() {
        let folder = Source::parse("/noaa").unwrap();
        let [plain, gzipped] = folder.by_station("USW00094728").unwrap();
        assert_eq!(plain, Place::File("/noaa/csv/by_station/USW00094728.csv".into()));
        assert_eq!(gzipped, Place::File("/noaa/csv/by_station/USW00094728.csv.gz".into()));
        let bucket = Source::parse("https://h/noaa").unwrap();
        assert!(bucket.holds(&url("https://h/noaa/x")) && !bucket.holds(&url("https://h/noaa2")));
        assert!(!folder.holds(&plain) && !bucket.holds(&plain));
        let names: Vec<String> = folder.stations(None).iter().map(Place::to_string).collect();
        assert_eq!(names, ["/noaa/ghcnd-stations.txt", "/noaa/ghcnd-stations.txt.gz"]);
        let given = Place::parse("/lists/ghcnd-stations.txt.gz").unwrap();
        assert_eq!(folder.stations(Some(&given)), std::slice::from_ref(&given));
        assert_eq!(folder.inventory(Some(&given))[0].to_string(), "/noaa/ghcnd-inventory.txt");
        let access = Source::parse("ncei+https://www.ncei.noaa.gov").unwrap();
        let beside = "https://www.ncei.noaa.gov/pub/data/ghcn/daily/ghcnd-inventory.txt";
        assert_eq!(access.inventory(None)[0].to_string(), beside);
        assert!(
            access.holds(&access.by_year("USW00094728", 2018).unwrap()) && !access.holds(&access.stations(None)[0])
        );
        assert_eq!(
            access.by_year("USW00094728", 2018).unwrap().to_string(),
            "https://www.ncei.noaa.gov/access/services/data/v1?dataset=daily-summaries&stations=USW00094728\
             &startDate=2018-01-01&endDate=2018-12-31&dataTypes=TMIN,TMAX,PRCP&format=json&includeAttributes=true"
        );
    }
}
