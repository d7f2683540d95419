//! A service that stores objects, for the tests. One service of a kind serves the whole test process; each test has its own prefix.

use crate::rabbitmq::watch;
use records::{Store, StoreSettings, store};
use std::{
    process::{Child, ChildStdin},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

/// The bucket in a service that was started for the tests.
pub(crate) const BUCKET: &str = "wildrydes-tests";

/// A running service.
#[derive(Debug)]
pub struct Service {
    /// `s3://…` or `az://…`, without an end.
    url: String,
    /// Variables with which a process reaches it.
    pub environment: Vec<(String, String)>,
    /// How it was found, for messages.
    pub origin: String,
    /// Keeps the watcher waiting; closed at the latest by the end of this process.
    _watcher: Option<ChildStdin>,
}

impl Service {
    /// A service that somebody else runs, reached with the variables of this process that begin with `prefix`.
    pub(crate) fn given(url: &str, prefix: &str, variable: &str) -> Self {
        Self {
            url: url.trim_end_matches('/').to_owned(),
            environment: std::env::vars().filter(|(name, _)| name.starts_with(prefix)).collect(),
            origin: format!("{variable}, {url}"),
            _watcher: None,
        }
    }

    /// A service that was started for this process, and its bucket.
    pub(crate) fn started(scheme: &str, environment: &[(&str, &str)], origin: String, watcher: ChildStdin) -> Self {
        Self {
            url: format!("{scheme}://{BUCKET}"),
            environment: environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            origin,
            _watcher: Some(watcher),
        }
    }

    /// Returns a new address within the service.
    pub fn new_url(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        format!("{}/test-{}-{}", self.url, std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// Opens the store at an address within the service.
    ///
    /// # Panics
    /// If the settings are refused.
    pub fn open(&self, url: &str) -> Store {
        let settings = StoreSettings { url: url.to_owned(), ..StoreSettings::default() };
        store::open_with(&settings, &self.environment).expect("a store opens without a request")
    }

    /// Returns a new store within the service.
    pub fn store(&self) -> Store {
        self.open(&self.new_url())
    }

    /// The value of one of its variables.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.environment.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Variables with which the processes of a fleet have their store at `url`.
    pub fn of_fleet<'a>(&'a self, url: &'a str) -> Vec<(&'a str, &'a str)> {
        let mut variables = vec![("WILDRYDES__STORE__URL", url)];
        variables.extend(self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        variables
    }
}

/// Calls `find` once per process and returns its service. Prints where the service comes from; without one, prints the text `none`.
///
/// # Panics
/// If a service was given, but cannot be used.
pub(crate) fn found(
    service: &'static OnceLock<Result<Option<Service>, String>>,
    find: fn() -> anyhow::Result<Option<Service>>,
    none: &str,
) -> Option<&'static Service> {
    let service = service.get_or_init(|| {
        // Blocking clients have their own runtime, which must not start inside a test's runtime.
        let start = std::thread::spawn(move || find().map_err(|error| format!("{error:#}")));
        let service = start.join().unwrap_or_else(|_| Err("starting the service panicked".to_owned()));
        match &service {
            Ok(Some(service)) => crate::print_uncaptured(format_args!("store for the tests: {}", service.origin)),
            Ok(None) => crate::print_uncaptured(none),
            Err(_) => {}
        }
        service
    });
    match service {
        Ok(service) => service.as_ref(),
        Err(why) => panic!("{why}"),
    }
}

/// Ends a process with this one.
pub(crate) fn end_with_this(process: &Child) -> anyhow::Result<ChildStdin> {
    watch(&format!("kill {}", process.id()))
}

/// A variable of this process that is set and not empty.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
