//! A stub of two forecast services on a loopback port, the US National Weather Service and Open-Meteo, with their paths and
//! formats, able to be slow, silent, down, rate-limiting, or wrong.

use axum::{
    Router,
    extract::State,
    http::{StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

/// A way in which the stub answers requests whose path contains a text.
#[derive(Debug, Clone)]
pub enum Mood {
    /// Answers with this status, and with this `Retry-After` when given.
    Status(u16, Option<String>),
    /// Accepts requests and never answers.
    Silent,
    /// Answers after [`Forecasts::release`].
    Slow,
    /// Answers 200 with this text.
    Text(String),
    /// Sends the client to another address.
    Redirect(String),
    /// Answers the JSON document after these changes: JSON pointers with their new values.
    Changed(Vec<(String, Value)>),
}

#[derive(Debug, Default)]
struct Log {
    requests: Vec<String>,
    user_agents: BTreeSet<String>,
    moods: BTreeMap<String, Mood>,
}

#[derive(Debug)]
struct Shared {
    today: String,
    log: Mutex<Log>,
    released: watch::Sender<bool>,
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The running stub; it ends when dropped.
#[derive(Debug)]
pub struct Forecasts {
    shared: Arc<Shared>,
    address: SocketAddr,
    server: JoinHandle<()>,
}

/// The forecast of each day, as a dataset has it: tenths of °C, °C and mm.
pub const FORECAST: [i32; 3] = [22, 89, 31];
/// The grid cell of every place in the United States.
pub const CELL: &str = "OKX/33,35";

impl Forecasts {
    /// Starts on a free loopback port. `today`: the current UTC date, `YYYY-MM-DD`.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start(today: &str) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Shared { today: today.to_owned(), log: Mutex::default(), released: watch::Sender::new(false) };
        let shared = Arc::new(shared);
        let app = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, app).await;
        });
        Ok(Self { shared, address, server })
    }

    /// The base URL of both services.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers requests whose path and query contain `part` in this way from now on.
    pub fn be(&self, part: &str, mood: Mood) {
        self.shared.log().moods.insert(part.to_owned(), mood);
    }

    /// Answers such requests properly again.
    pub fn recover(&self, part: &str) {
        self.shared.log().moods.remove(part);
    }

    /// Answers what [`Mood::Slow`] held back, and holds back nothing from now on.
    pub fn release(&self) {
        self.shared.released.send_replace(true);
    }

    /// Number of requests so far whose path and query contain `part`; all requests if it is empty.
    pub fn requests(&self, part: &str) -> usize {
        self.shared.log().requests.iter().filter(|request| request.contains(part)).count()
    }

    /// Every `User-Agent` seen.
    pub fn user_agents(&self) -> BTreeSet<String> {
        self.shared.log().user_agents.clone()
    }
}

impl Drop for Forecasts {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(State(shared): State<Arc<Shared>>, uri: Uri, headers: header::HeaderMap) -> Response {
    let asked = uri.path_and_query().map_or("", |asked| asked.as_str()).to_owned();
    let mood = {
        let mut log = shared.log();
        if let Some(agent) = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()) {
            log.user_agents.insert(agent.to_owned());
        }
        let mood = log.moods.iter().find(|(part, _)| asked.contains(part.as_str())).map(|(_, mood)| mood.clone());
        log.requests.push(asked);
        mood
    };
    let document = document(&shared.today, &uri);
    match mood {
        None => proper(document),
        Some(Mood::Status(status, retry_after)) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let headers = retry_after.map(|after| [(header::RETRY_AFTER, after)]);
            headers.map_or_else(|| status.into_response(), |headers| (status, headers).into_response())
        }
        Some(Mood::Silent) => std::future::pending().await,
        Some(Mood::Slow) => {
            let mut released = shared.released.subscribe();
            let _ = released.wait_for(|released| *released).await;
            proper(document)
        }
        Some(Mood::Text(text)) => text.into_response(),
        Some(Mood::Redirect(to)) => (StatusCode::FOUND, [(header::LOCATION, to)]).into_response(),
        Some(Mood::Changed(changes)) => {
            let Some(mut document) = document else { return proper(None) };
            for (pointer, value) in changes {
                *document.pointer_mut(&pointer).expect("a member of the document") = value;
            }
            proper(Some(document))
        }
    }
}

fn proper(document: Option<Value>) -> Response {
    match document {
        Some(document) => ([(header::CONTENT_TYPE, "application/geo+json")], document.to_string()).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn document(today: &str, uri: &Uri) -> Option<Value> {
    if let Some(place) = uri.path().strip_prefix("/points/") {
        let (latitude, longitude) = place.split_once(',')?;
        let (latitude, longitude): (f64, f64) = (latitude.parse().ok()?, longitude.parse().ok()?);
        // The contiguous United States, roughly.
        let inside = (24.0..=49.0).contains(&latitude) && (-125.0..=-66.0).contains(&longitude);
        // The real address of the service: clients stay with the one they are configured with.
        let grid_data = format!("https://api.weather.gov/gridpoints/{CELL}");
        return inside.then(|| json!({ "properties": { "gridId": "OKX", "forecastGridData": grid_data } }));
    }
    if uri.path() == format!("/gridpoints/{CELL}") {
        return Some(gridpoint(today));
    }
    let query: BTreeMap<&str, &str> = uri.query()?.split('&').filter_map(|pair| pair.split_once('=')).collect();
    (uri.path() == "/v1/forecast").then(|| daily(today, &query)).flatten()
}

/// A week in New York: minima at night, maxima by day, which end after midnight UTC, and precipitation by quarters of a day.
fn gridpoint(today: &str) -> Value {
    let [tmin, tmax, prcp] = FORECAST.map(|tenths| f64::from(tenths) / 10.0);
    let over_days = |hour: &str, duration: &str, value: f64| -> Vec<Value> {
        (0..7).map(|day| json!({ "validTime": format!("{}T{hour}:00:00+00:00/{duration}", later(today, day)), "value": value })).collect()
    };
    let quarters = ["00", "06", "12", "18"].map(|hour| over_days(hour, "PT6H", prcp / 4.0)).concat();
    json!({
        "geometry": { "type": "Polygon", "coordinates":
            [[[-73.98, 40.77], [-73.95, 40.77], [-73.95, 40.79], [-73.98, 40.79], [-73.98, 40.77]]] },
        "properties": {
            "updateTime": format!("{today}T00:24:41+00:00"),
            "maxTemperature": { "uom": "wmoUnit:degC", "values": over_days("12", "PT13H", tmax) },
            "minTemperature": { "uom": "wmoUnit:degC", "values": over_days("00", "PT14H", tmin) },
            "quantitativePrecipitation": { "uom": "wmoUnit:mm", "values": quarters },
        }
    })
}

fn daily(today: &str, query: &BTreeMap<&str, &str>) -> Option<Value> {
    let [tmin, tmax, prcp] = FORECAST.map(|tenths| f64::from(tenths) / 10.0);
    let (latitude, longitude): (f64, f64) =
        (query.get("latitude")?.parse().ok()?, query.get("longitude")?.parse().ok()?);
    let is_asked = query.get("daily") == Some(&"temperature_2m_max,temperature_2m_min,precipitation_sum")
        && query.get("timezone") == Some(&"UTC")
        && query.get("start_date")? <= &today
        && query.get("end_date")? >= &today;
    is_asked.then(|| {
        json!({
            "latitude": latitude + 0.02, "longitude": longitude,
            "daily_units": { "temperature_2m_max": "°C", "temperature_2m_min": "°C", "precipitation_sum": "mm" },
            "daily": {
                "time": [today], "temperature_2m_max": [tmax], "temperature_2m_min": [tmin], "precipitation_sum": [prcp]
            },
        })
    })
}

/// The date `days` after a date, both `YYYY-MM-DD`.
fn later(date: &str, days: u32) -> String {
    let date: jiff::civil::Date = date.parse().expect("a date");
    date.saturating_add(jiff::Span::new().days(days)).to_string()
}
