//! A stub of NOAA's two services on a loopback port: the open-data bucket and the NCEI access service, with their paths
//! and formats, able to be slow, down, rate-limiting or wrong.

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use futures::stream;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt::Write,
    io,
    net::SocketAddr,
    path::{Component, Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

/// What the stub serves: files by their path in the bucket.
#[derive(Debug, Clone)]
pub enum Data {
    /// From memory: path without a leading slash, and content.
    Files(BTreeMap<String, Vec<u8>>),
    /// From a folder in the bucket's layout.
    Folder(PathBuf),
}

impl Data {
    /// No files.
    pub fn empty() -> Self {
        Self::Files(BTreeMap::new())
    }

    /// With this file, in memory.
    pub fn with_file(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        if let Self::Files(files) = &mut self {
            files.insert(path.to_owned(), content.into());
        }
        self
    }

    /// Without this file, in memory.
    pub fn without_file(mut self, path: &str) -> Self {
        if let Self::Files(files) = &mut self {
            files.remove(path);
        }
        self
    }

    /// With one more station in the list, in memory.
    pub fn with_station(self, id: &str, latitude: f64, longitude: f64) -> Self {
        let mut list = self.read("ghcnd-stations.txt").unwrap_or_default();
        let line = format!("{id:<11} {latitude:>8.4} {longitude:>9.4} {:>6}", "-999.9");
        list.extend_from_slice(format!("{line:<85}\n").as_bytes());
        self.with_file("ghcnd-stations.txt", list)
    }

    /// With this observation of all three elements, in memory: date as `YYYYMMDD`, tenths of °C, °C and mm.
    pub fn with_day(self, station: &str, date: &str, (tmin, tmax, prcp): (i32, i32, i32)) -> Self {
        let path = format!("csv/by_station/{station}.csv");
        let mut text =
            self.read(&path).unwrap_or_else(|| b"ID,DATE,ELEMENT,DATA_VALUE,M_FLAG,Q_FLAG,S_FLAG,OBS_TIME\n".to_vec());
        for (element, value) in [("PRCP", prcp), ("TMAX", tmax), ("TMIN", tmin)] {
            text.extend_from_slice(format!("{station},{date},{element},{value},,,W,2400\n").as_bytes());
        }
        self.with_file(&path, text)
    }

    fn read(&self, path: &str) -> Option<Vec<u8>> {
        match self {
            Self::Files(files) => files.get(path).cloned(),
            Self::Folder(folder) => {
                let inside = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
                inside.then(|| std::fs::read(folder.join(path)).ok()).flatten()
            }
        }
    }

    /// The answer of the access service: the days of one station between two dates, values padded with blanks.
    fn daily_summaries(&self, query: &BTreeMap<&str, &str>) -> Option<String> {
        let station = query.get("stations")?;
        let digits = |name: &str| query.get(name).map(|date| date.replace('-', ""));
        let (first, last) = (digits("startDate")?, digits("endDate")?);
        let elements: BTreeSet<&str> = query.get("dataTypes")?.split(',').collect();
        if query.get("dataset") != Some(&"daily-summaries") || query.get("format") != Some(&"json") {
            return None;
        }
        let csv = self.read(&format!("csv/by_station/{station}.csv")).unwrap_or_default();
        let mut days: BTreeMap<String, String> = BTreeMap::new();
        for line in String::from_utf8_lossy(&csv).lines() {
            if let [id, date, element, value, m, q, s, time] = line.split(',').collect::<Vec<_>>()[..]
                && id == *station
                && elements.contains(element)
                && (first.as_str()..=last.as_str()).contains(&date)
            {
                let day = days.entry(date.to_owned()).or_default();
                let attributes = if time.is_empty() { format!("{m},{q},{s}") } else { format!("{m},{q},{s},{time}") };
                let _ = write!(day, r#","{element}":"{value:>5}","{element}_ATTRIBUTES":"{attributes}""#);
            }
        }
        let row = |(date, values): (&String, &String)| {
            let (year, rest) = date.split_at(4);
            let (month, day) = rest.split_at(2);
            format!(r#"{{"DATE":"{year}-{month}-{day}","STATION":"{station}"{values}}}"#)
        };
        Some(format!("[{}]", days.iter().map(row).collect::<Vec<_>>().join(",")))
    }
}

/// A fault of the stub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Answers with this status, and with this `Retry-After` when given.
    Status(u16, Option<String>),
    /// Holds the answer back until [`Noaa::release`]; then answers properly.
    Hold,
    /// Sends half of the answer and breaks off.
    Truncated,
    /// Answers 200 with something else.
    Garbage,
    /// Answers with the data of a station that was not asked for.
    WrongStation,
    /// Sends the client to another host.
    Redirect(String),
}

#[derive(Debug, Default)]
struct Log {
    requests: Vec<String>,
    user_agents: BTreeSet<String>,
    faults: Vec<(String, VecDeque<Fault>)>,
}

#[derive(Debug)]
struct Shared {
    data: Mutex<Data>,
    forbids_missing: AtomicBool,
    log: Mutex<Log>,
    held: watch::Sender<usize>,
    released: watch::Sender<bool>,
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The running stub; it ends when dropped.
#[derive(Debug)]
pub struct Noaa {
    shared: Arc<Shared>,
    address: SocketAddr,
    server: JoinHandle<()>,
}

impl Noaa {
    /// Starts on a free loopback port.
    ///
    /// # Errors
    /// When there is none.
    pub async fn start(data: Data) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let log = Mutex::new(Log::default());
        let (held, released) = (watch::Sender::new(0), watch::Sender::new(false));
        let data = Mutex::new(data);
        let shared = Arc::new(Shared { data, forbids_missing: AtomicBool::new(false), log, held, released });
        let app = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, app).await;
        });
        Ok(Self { shared, address, server })
    }

    /// Serves other data from now on.
    pub fn publish(&self, data: Data) {
        *self.shared.data.lock().unwrap_or_else(PoisonError::into_inner) = data;
    }

    /// The bucket's base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers 403 for missing files from now on, like a bucket that may not be listed.
    pub fn forbid_missing(&self) {
        self.shared.forbids_missing.store(true, Ordering::Relaxed);
    }

    /// The URL of the access service.
    pub fn ncei_url(&self) -> String {
        format!("http://{}/access/services/data/v1", self.address)
    }

    /// Number of requests so far whose path and query contain `part`; all requests if it is empty.
    pub fn requests(&self, part: &str) -> usize {
        self.shared.log().requests.iter().filter(|request| request.contains(part)).count()
    }

    /// Every `User-Agent` seen.
    pub fn user_agents(&self) -> BTreeSet<String> {
        self.shared.log().user_agents.clone()
    }

    /// The next `count` requests whose path and query contain `part` get `fault`.
    pub fn fail_next(&self, part: &str, count: usize, fault: Fault) {
        let faults = std::iter::repeat_n(fault, count).collect();
        self.shared.log().faults.push((part.to_owned(), faults));
    }

    /// Waits until `count` requests are being, or have been, held back.
    pub async fn held(&self, count: usize) {
        let mut held = self.shared.held.subscribe();
        let _ = held.wait_for(|held| *held >= count).await;
    }

    /// Answers every held request, and holds none from now on.
    pub fn release(&self) {
        self.shared.released.send_replace(true);
    }
}

impl Drop for Noaa {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(State(shared): State<Arc<Shared>>, uri: Uri, headers: header::HeaderMap) -> Response {
    let asked = uri.path_and_query().map_or("", |asked| asked.as_str()).to_owned();
    let fault = {
        let mut log = shared.log();
        if let Some(agent) = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()) {
            log.user_agents.insert(agent.to_owned());
        }
        let matching = log.faults.iter_mut().filter(|(part, _)| asked.contains(part.as_str()));
        let fault = matching.filter_map(|(_, faults)| faults.pop_front()).next();
        log.requests.push(asked);
        fault
    };
    let file = content(&shared.data.lock().unwrap_or_else(PoisonError::into_inner), &uri);
    match fault {
        None if file.is_none() && shared.forbids_missing.load(Ordering::Relaxed) => {
            StatusCode::FORBIDDEN.into_response()
        }
        None => proper(file),
        Some(Fault::Status(status, retry_after)) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let headers = retry_after.map(|after| [(header::RETRY_AFTER, after)]);
            headers.map_or_else(|| status.into_response(), |headers| (status, headers).into_response())
        }
        Some(Fault::Hold) => {
            shared.held.send_modify(|held| *held += 1);
            let mut released = shared.released.subscribe();
            let _ = released.wait_for(|released| *released).await;
            proper(file)
        }
        Some(Fault::Truncated) => {
            let whole = file.unwrap_or_default();
            let half = Bytes::copy_from_slice(whole.get(..whole.len() / 2).unwrap_or_default());
            let pieces = [Ok(half), Err(io::Error::from(io::ErrorKind::ConnectionReset))];
            ([(header::CONTENT_LENGTH, whole.len())], Body::from_stream(stream::iter(pieces))).into_response()
        }
        Some(Fault::Garbage) => "<html><body>We will be back soon.</body></html>\n".into_response(),
        Some(Fault::WrongStation) => {
            let text = String::from_utf8_lossy(&file.unwrap_or_default()).replace("USW", "XXW");
            text.into_response()
        }
        Some(Fault::Redirect(to)) => (StatusCode::FOUND, [(header::LOCATION, to)]).into_response(),
    }
}

fn content(data: &Data, uri: &Uri) -> Option<Vec<u8>> {
    if uri.path() != "/access/services/data/v1" {
        return data.read(uri.path().trim_start_matches('/'));
    }
    let query = uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('=')).collect();
    data.daily_summaries(&query).map(String::into_bytes)
}

fn proper(file: Option<Vec<u8>>) -> Response {
    file.map_or_else(|| StatusCode::NOT_FOUND.into_response(), IntoResponse::into_response)
}
