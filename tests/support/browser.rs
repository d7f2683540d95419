//! Chromium, driven through chromedriver, and a `wildrydes demo --serve` to open in it.

use crate::{processes::wildrydes, wait::SOON};
use anyhow::Context;
use std::{
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
};
use tempfile::TempDir;
use thirtyfour::{
    BrowserLogEntry, ChromeCapabilities, ChromiumLikeCapabilities, DesiredCapabilities, LoggingPrefsLogLevel, WebDriver,
};

/// The standard error of a process, line by line, while it runs.
struct Lines {
    all: Arc<Mutex<Vec<String>>>,
    next: mpsc::Receiver<String>,
}

impl Lines {
    fn of(output: impl Read + Send + 'static) -> Self {
        let all = Arc::new(Mutex::new(Vec::new()));
        let (lines, next) = mpsc::channel();
        let kept = Arc::clone(&all);
        // Read to the end, so that the process never waits for a reader.
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(line.clone());
                let _ = lines.send(line);
            }
        });
        Self { all, next }
    }

    /// Waits for a line with `start`. Returns the text after it, up to the next blank.
    fn word_after(&self, start: &str) -> String {
        loop {
            let line = self.next.recv_timeout(SOON);
            let line = line.unwrap_or_else(|why| panic!("{start:?} should have been printed ({why})\n{}", self.text()));
            if let Some((_, rest)) = line.split_once(start) {
                return rest.split_whitespace().next().unwrap_or_default().to_owned();
            }
        }
    }

    fn text(&self) -> String {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }
}

/// A chromedriver on its own port. Dropping it ends it, its browsers and their profiles.
pub struct Chromedriver {
    process: Child,
    url: String,
    chromium: PathBuf,
    profiles: TempDir,
}

impl Chromedriver {
    /// Starts chromedriver. Prints a line and returns `None` without chromedriver or Chromium.
    pub fn start() -> Option<Self> {
        let runs = |name: &str| {
            let mut version = Command::new(name);
            version.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            version.status().is_ok_and(|status| status.success())
        };
        let chromium = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| runs(name));
        let (Some(chromium), true) = (chromium, runs("chromedriver")) else {
            crate::print_uncaptured("not run: no browser (Debian has one: apt-get install chromium chromium-driver)");
            return None;
        };
        let path = std::env::var_os("PATH").unwrap_or_default();
        let program = std::env::split_paths(&path).map(|folder| folder.join(chromium)).find(|path| path.is_file());
        let mut chromedriver = Command::new("chromedriver");
        chromedriver.arg("--port=0").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = chromedriver.spawn().expect("chromedriver starts");
        let lines = Lines::of(process.stdout.take().expect("its output"));
        let port = lines.word_after("started successfully on port ");
        Some(Self {
            process,
            url: format!("http://127.0.0.1:{}", port.trim_end_matches('.')),
            chromium: program.expect("it was found on the PATH"),
            profiles: tempfile::tempdir().expect("a temporary folder"),
        })
    }

    /// A browser with a window of this size in CSS pixels; a small one is a phone.
    ///
    /// # Errors
    /// When the browser does not start.
    pub async fn browser(&self, width: u32, height: u32) -> anyhow::Result<WebDriver> {
        let mut capabilities: ChromeCapabilities = DesiredCapabilities::chrome();
        capabilities.set_binary(self.chromium.to_str().context("a path in UTF-8")?)?;
        let profile = self.profiles.path().join(format!("{width}x{height}"));
        // Through a pipe, the browser ends with its driver, however that ends.
        for argument in ["headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "remote-debugging-pipe"]
        {
            capabilities.add_arg(&format!("--{argument}"))?;
        }
        // No background requests of the browser.
        for argument in ["no-first-run", "disable-background-networking", "disable-component-update", "disable-sync"] {
            capabilities.add_arg(&format!("--{argument}"))?;
        }
        capabilities.add_arg("--disable-quic")?;
        capabilities.add_arg("--force-prefers-reduced-motion")?;
        capabilities.add_arg(&format!("--user-data-dir={}", profile.display()))?;
        capabilities.add_arg(&format!("--window-size={width},{height}"))?;
        if width < 500 {
            let metrics = serde_json::json!({ "width": width, "height": height, "pixelRatio": 2.0, "touch": true });
            capabilities.add_experimental_option("mobileEmulation", serde_json::json!({ "deviceMetrics": metrics }))?;
        }
        capabilities.set_browser_log_level(LoggingPrefsLogLevel::All)?;
        records::tls::install_cryptography();
        Ok(WebDriver::new(&self.url, capabilities).await?)
    }
}

impl Drop for Chromedriver {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Warnings and errors in the browser's console since the last call.
///
/// # Errors
/// When the browser does not answer.
pub async fn complaints(browser: &WebDriver) -> anyhow::Result<Vec<BrowserLogEntry>> {
    let mut log = browser.browser_log().await?;
    log.retain(|entry| entry.level == "WARNING" || entry.level == "SEVERE");
    Ok(log)
}

/// A `wildrydes demo --serve` on a free port, in its own folder.
pub struct Served {
    process: Child,
    lines: Lines,
    url: String,
    folder: TempDir,
}

impl Served {
    /// Starts it with that many generated rides, and waits until it prints the page's URL.
    pub fn demo(rides: u64) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut demo = wildrydes();
        demo.current_dir(folder.path()).args(["demo", "--serve=127.0.0.1:0", "--rides", &rides.to_string()]);
        let mut process =
            demo.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the demo starts");
        let lines = Lines::of(process.stderr.take().expect("its errors"));
        let url = lines.word_after("page and API: ");
        Self { process, lines, url, folder }
    }

    /// URL of the page.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A folder for more files, removed at the end.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its standard error so far.
    pub fn stderr(&self) -> String {
        self.lines.text()
    }

    /// Sends SIGINT, as Ctrl-C does, and checks that it ends with success.
    pub fn finish(mut self) {
        let asked = Command::new("kill").args(["-INT", &self.process.id().to_string()]).status().expect("kill runs");
        assert!(asked.success(), "it had ended by itself\n{}", self.stderr());
        let status = self.process.wait().expect("it ends");
        assert!(status.success(), "it ended with {status}\n{}", self.stderr());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
