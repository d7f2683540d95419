//! A year of synthetic weather in and around New York, in NOAA's layout.

use self::Measures::{Everything, Nothing, Rain};
use super::draw::Draw;
use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::Path,
};

/// Maximum distance between a ride and its station.
const STATION_KM_MAX: f64 = 100.0;

/// Which weather to generate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeatherOptions {
    /// The same seed gives the same weather.
    pub seed: u64,
    /// The calendar year.
    pub year: i16,
}

impl Default for WeatherOptions {
    fn default() -> Self {
        Self { seed: 42, year: 2018 }
    }
}

/// A station of the network.
struct Station {
    id: &'static str,
    latitude: f64,
    longitude: f64,
    elevation_m: f64,
    state: &'static str,
    name: &'static str,
    measures: Measures,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Measures {
    /// Temperatures and precipitation. `warmer`: difference to the region in tenths of °C.
    Everything { warmer: i32 },
    /// Precipitation only.
    Rain,
    /// Nothing since the year `until`: listed without a file.
    Nothing { until: i16 },
}

const fn station(
    id: &'static str,
    (latitude, longitude): (f64, f64),
    elevation_m: f64,
    state: &'static str,
    name: &'static str,
    measures: Measures,
) -> Station {
    Station { id, latitude, longitude, elevation_m, state, name, measures }
}

/// Two real stations that measure everything, and some nearer ones that do not measure the temperature.
const STATIONS: [Station; 7] = [
    station("US1NJBG0018", (40.8481, -74.0002), 21.3, "NJ", "PALISADES PARK 0.2 WNW", Rain),
    station("US1NYKN0025", (40.6846, -73.9867), 5.5, "NY", "BROOKLYN 3.1 NW", Rain),
    station("US1NYNY0074", (40.7969, -73.933), 6.1, "NY", "NEW YORK 8.8 N", Rain),
    station("US1NYNY0078", (40.7339, -73.9844), -999.9, "", "", Rain),
    station("USC00305816", (40.7, -74.0167), 3.0, "NY", "NEW YORK WB CITY", Nothing { until: 1960 }),
    station("USW00094728", (40.7789, -73.9692), 39.6, "NY", "NEW YORK CNTRL PK TWR", Everything { warmer: 6 }),
    station("USW00094789", (40.6386, -73.7622), 3.4, "NY", "NEW YORK JFK INTL AP", Everything { warmer: -4 }),
];

/// Mean daily minimum of the region in the middle of each month, tenths of °C.
const TMIN_MEANS: [f64; 12] = [-25.0, -12.0, 15.0, 68.0, 124.0, 176.0, 208.0, 204.0, 168.0, 108.0, 56.0, 5.0];
/// Mean daily maximum of the region in the middle of each month, tenths of °C.
const TMAX_MEANS: [f64; 12] = [40.0, 56.0, 96.0, 162.0, 218.0, 266.0, 294.0, 286.0, 246.0, 180.0, 124.0, 68.0];

/// One element of a day, in tenths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    Good(i32),
    /// Failed a quality check.
    Flagged(i32),
    /// No row.
    Absent,
}

impl Reading {
    fn good(self) -> Option<f64> {
        match self {
            Self::Good(value) => Some(value.into()),
            Self::Flagged(_) | Self::Absent => None,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Day {
    tmin: Reading,
    tmax: Reading,
    prcp: Reading,
}

/// A year of weather at every station of [`STATIONS`].
pub(super) struct Weather {
    year: i16,
    /// Month and day of every day of the year.
    pub(super) calendar: Vec<(usize, usize)>,
    /// By station, then by day.
    days: Vec<Vec<Day>>,
}

impl Weather {
    pub(super) fn new(options: &WeatherOptions) -> Self {
        let calendar = calendar(options.year);
        let mut draw = Draw::new(options.seed, 2);
        let mut days = STATIONS.map(|_| Vec::with_capacity(calendar.len()));
        let mut anomaly = 0.0;
        for &(month, day) in &calendar {
            anomaly = 0.65 * anomaly + 35.0 * draw.normal();
            let wet = draw.unit() < 0.35;
            let heavy = draw.unit();
            let rain = if wet { 2.0 + 650.0 * heavy * heavy * heavy * heavy } else { 0.0 };
            // Clouds keep the night warm and the day cool.
            let clouds = if wet { 12.0 } else { -6.0 };
            let night = seasonal(&TMIN_MEANS, month, day) + anomaly + clouds;
            let noon = (seasonal(&TMAX_MEANS, month, day) + anomaly - clouds + 15.0 * draw.normal()).max(night + 10.0);
            for (station, days) in STATIONS.iter().zip(&mut days) {
                let warmer = match station.measures {
                    Everything { warmer } => f64::from(warmer),
                    Rain | Nothing { .. } => 0.0,
                };
                let near = warmer + 4.0 * draw.normal();
                let rain = rain * (0.7 + 0.6 * draw.unit());
                days.push(Day {
                    tmin: reading(&mut draw, night + near),
                    tmax: reading(&mut draw, noon + near),
                    prcp: reading(&mut draw, rain),
                });
            }
        }
        Self { year: options.year, calendar, days: days.into() }
    }

    /// Returns tmin, tmax and prcp on a day at the nearest station within [`STATION_KM_MAX`] that has all three.
    pub(super) fn near(&self, day: usize, latitude: f64, longitude: f64) -> Option<[f64; 3]> {
        let observed = STATIONS.iter().zip(&self.days).filter_map(|(station, days)| {
            let Everything { .. } = station.measures else { return None };
            let Day { tmin, tmax, prcp } = days.get(day)?;
            let all = [tmin.good()?, tmax.good()?, prcp.good()?];
            let km = haversine_km((latitude, longitude), (station.latitude, station.longitude));
            (km <= STATION_KM_MAX).then_some((km, all))
        });
        observed.min_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, all)| all)
    }
}

/// Rounds to whole tenths; some readings are flagged or absent.
fn reading(draw: &mut Draw, tenths: f64) -> Reading {
    let value = tenths.round() as i32;
    match draw.unit() {
        luck if luck < 0.004 => Reading::Absent,
        luck if luck < 0.008 => Reading::Flagged(value + 400),
        _ => Reading::Good(value),
    }
}

/// Returns month and day, from 1, of every day of a year of the Gregorian calendar.
fn calendar(year: i16) -> Vec<(usize, usize)> {
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    (1..).zip(lengths).flat_map(|(month, length)| (1..=length).map(move |day| (month, day))).collect()
}

/// Interpolates between the means of the two nearest months.
fn seasonal(means: &[f64; 12], month: usize, day: usize) -> f64 {
    let this = means[(month + 11) % 12];
    let off = (day as f64 - 15.5) / 30.5;
    let other = if off < 0.0 { means[(month + 10) % 12] } else { means[month % 12] };
    this + (other - this) * off.abs()
}

/// Returns the great-circle distance between two places, each latitude and longitude in degrees.
fn haversine_km(a: (f64, f64), b: (f64, f64)) -> f64 {
    const EARTH_RADIUS_KM: f64 = 6371.0088;
    let half_sine_squared = |degrees: f64| (degrees.to_radians() / 2.0).sin().powi(2);
    let chord =
        half_sine_squared(b.0 - a.0) + a.0.to_radians().cos() * b.0.to_radians().cos() * half_sine_squared(b.1 - a.1);
    2.0 * EARTH_RADIUS_KM * chord.sqrt().asin()
}

/// Writes a folder in the layout of NOAA's open-data bucket: `ghcnd-stations.txt`, `ghcnd-inventory.txt` and
/// `csv/by_station/<ID>.csv`.
///
/// # Errors
/// Fails if the folder cannot be created or a file cannot be written.
pub fn write_weather(dir: &Path, options: &WeatherOptions) -> io::Result<()> {
    let weather = Weather::new(options);
    let by_station = dir.join("csv").join("by_station");
    fs::create_dir_all(&by_station)?;
    fs::write(dir.join("ghcnd-stations.txt"), STATIONS.iter().map(station_line).collect::<String>())?;
    fs::write(dir.join("ghcnd-inventory.txt"), inventory(options.year))?;
    for (station, days) in STATIONS.iter().zip(&weather.days) {
        if let Nothing { .. } = station.measures {
            continue;
        }
        let mut out = BufWriter::new(File::create(by_station.join(format!("{}.csv", station.id)))?);
        writeln!(out, "ID,DATE,ELEMENT,DATA_VALUE,M_FLAG,Q_FLAG,S_FLAG,OBS_TIME")?;
        for (&(month, day), Day { tmin, tmax, prcp }) in weather.calendar.iter().zip(days) {
            let date = format!("{:04}{month:02}{day:02}", weather.year);
            let (elements, source): (&[_], _) = match station.measures {
                Everything { .. } => (&[("PRCP", prcp), ("TMAX", tmax), ("TMIN", tmin)], "W"),
                Rain | Nothing { .. } => (&[("PRCP", prcp)], "N"),
            };
            for (element, reading) in elements {
                let (value, flag) = match reading {
                    Reading::Good(value) => (value, ""),
                    Reading::Flagged(value) => (value, "I"),
                    Reading::Absent => continue,
                };
                writeln!(out, "{},{date},{element},{value},,{flag},{source},", station.id)?;
            }
        }
        out.flush()?;
    }
    Ok(())
}

/// Formats the 85 columns of a line of `ghcnd-stations.txt`.
fn station_line(station: &Station) -> String {
    let Station { id, latitude, longitude, elevation_m, state, name, .. } = station;
    format!(
        "{id:<11} {latitude:>8.4} {longitude:>9.4} {elevation_m:>6.1} {state:<2} {name:<30} {:<3} {:<3} {:<5}\n",
        "", "", ""
    )
}

/// Formats `ghcnd-inventory.txt`: the elements of each station, with first and last year.
fn inventory(year: i16) -> String {
    let mut lines = String::new();
    for Station { id, latitude, longitude, measures, .. } in &STATIONS {
        let (elements, first, last): (&[&str], _, _) = match *measures {
            Everything { .. } => (&["TMAX", "TMIN", "PRCP"], year, year),
            Rain => (&["PRCP"], year, year),
            Nothing { until } => (&["TMAX", "TMIN", "PRCP"], 1871, until),
        };
        for element in elements {
            lines += &format!("{id:<11} {latitude:>8.4} {longitude:>9.4} {element} {first:04} {last:04}\n");
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::{super::rides::MANHATTAN, *};
    use std::collections::BTreeMap;

    #[test]
    fn weather_files_have_noaas_layout_and_the_values_behind_the_labels() {
        let folder = tempfile::tempdir().unwrap();
        let options = WeatherOptions::default();
        write_weather(folder.path(), &options).unwrap();
        let read = |path: &str| fs::read_to_string(folder.path().join(path)).unwrap();
        let list = read("ghcnd-stations.txt");
        assert!(list.lines().all(|line| line.len() == 85));
        assert!(list.contains("USW00094728  40.7789  -73.9692   39.6 NY NEW YORK CNTRL PK TWR"));
        assert!(read("ghcnd-inventory.txt").contains("USW00094789  40.6386  -73.7622 TMAX 2018 2018"));
        assert!(!folder.path().join("csv/by_station/USC00305816.csv").exists());

        let weather = Weather::new(&options);
        let park = STATIONS.iter().position(|station| station.id == "USW00094728").unwrap();
        let mut good: BTreeMap<(String, String), f64> = BTreeMap::new();
        let (mut flagged, csv) = (0, read("csv/by_station/USW00094728.csv"));
        for line in csv.lines().skip(1) {
            let fields: Vec<&str> = line.split(',').collect();
            assert_eq!((fields.len(), fields[0]), (8, "USW00094728"));
            if fields[5].is_empty() {
                good.insert((fields[1].to_owned(), fields[2].to_owned()), fields[3].parse().unwrap());
            } else {
                flagged += 1;
            }
        }
        let absent = 3 * 365 - flagged - good.len();
        assert!(flagged > 0 && absent > 0, "{flagged} flagged, {absent} absent");
        for (&(month, day), observed) in weather.calendar.iter().zip(&weather.days[park]) {
            let of = |element: &str| good.get(&(format!("2018{month:02}{day:02}"), element.to_owned())).copied();
            assert_eq!(observed.tmin.good(), of("TMIN"));
            assert_eq!(observed.tmax.good(), of("TMAX"));
            assert_eq!(observed.prcp.good(), of("PRCP"));
            assert!(of("PRCP").is_none_or(|prcp| prcp >= 0.0));
            assert!(of("TMIN").zip(of("TMAX")).is_none_or(|(tmin, tmax)| tmin < tmax));
        }
    }

    #[test]
    fn some_stations_that_measure_only_rain_are_nearer() {
        let weather = Weather::new(&WeatherOptions::default());
        let far = weather.near(0, 37.0, -77.0);
        assert_eq!(far, None);
        let park = haversine_km(MANHATTAN, (40.7789, -73.9692));
        let decoys = STATIONS.iter().filter(|station| station.measures == Rain);
        let nearer = decoys.filter(|s| haversine_km(MANHATTAN, (s.latitude, s.longitude)) < park).count();
        assert!(nearer > 0);
    }

    #[test]
    fn leap_year_has_366_days() {
        assert_eq!([2018, 2020, 1900, 2000].map(|year| calendar(year).len()), [365, 366, 365, 366]);
        assert_eq!(calendar(2020)[59], (2, 29));
    }
}
