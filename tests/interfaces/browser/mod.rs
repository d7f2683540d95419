//! Tests of the page in Chromium.

use anyhow::ensure;
use pipeline_tests::{
    browser::{Chromedriver, Served, complaints},
    processes::{succeed, wildrydes},
    wait::{self, SOON},
};
use serde::de::DeserializeOwned;
use thirtyfour::{By, WebDriver};

/// Runs a script until it returns something other than null.
async fn eventually<T: DeserializeOwned>(browser: &WebDriver, what: &str, script: &str) -> anyhow::Result<T> {
    let look = async || browser.execute(script, []).await.and_then(|value| value.convert()).transpose();
    match wait::within(SOON, what, look).await {
        Ok(value) => Ok(value?),
        Err(failure) => {
            let page: String = browser.execute("return document.body.innerText", []).await?.convert()?;
            anyhow::bail!("{failure}; the page shows\n{page}")
        }
    }
}

/// Waits until the batch of a file is in a state. Returns the row's text.
async fn batch(browser: &WebDriver, file: &str, state: &str) -> anyhow::Result<String> {
    let script = format!(
        "return [...document.querySelectorAll('.batch[data-state=\"{state}\"]')]
             .find((batch) => batch.querySelector('h3').textContent === '{file}')?.innerText ?? null"
    );
    eventually(browser, &format!("{file} to be {state}"), &script).await
}

const PROBABILITY: &str = "return Number(document.querySelector('#probability')?.dataset.value) || null";

/// Waits until the page shows another probability than `before`.
async fn changed_from(browser: &WebDriver, before: f64) -> anyhow::Result<f64> {
    let script = format!(
        "const shown = Number(document.querySelector('#probability')?.dataset.value);
         return shown && shown !== {before:?} ? shown : null"
    );
    eventually(browser, "another probability", &script).await
}

async fn no_complaints(browser: &WebDriver) -> anyhow::Result<()> {
    let problems = complaints(browser).await?;
    ensure!(problems.is_empty(), "the browser's console is not silent: {problems:?}");
    Ok(())
}

async fn fits(browser: &WebDriver) -> anyhow::Result<()> {
    let script = "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]";
    let (expected, has): (u32, u32) = browser.execute(script, []).await?.convert()?;
    ensure!(expected <= has, "the page wants {expected} points of width, the window has {has}");
    Ok(())
}

/// A dropped file becomes a dataset, an invalid one shows what to do, more rain raises the probability, the weather of a place
/// is looked up, and the console has no error.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_takes_rides_and_scores_them() {
    let Some(chromedriver) = Chromedriver::start() else { return };
    let served = Served::demo(4_000);
    let (rides, broken) = (served.folder().join("more.json"), served.folder().join("cut.json"));
    succeed(wildrydes().args(["generate", "rides", "--rides", "1500", "--seed", "7"]).arg(&rides));
    let whole = std::fs::read(&rides).unwrap();
    std::fs::write(&broken, &whole[..whole.len() / 2]).unwrap();
    let browser = chromedriver.browser(1280, 800).await.unwrap();
    let used = browser.run_and_quit(async |browser: WebDriver| -> anyhow::Result<()> {
        browser.goto(served.url()).await?;
        let live = "return document.querySelector('#live-state').dataset.live === 'yes' || null";
        eventually::<bool>(&browser, "the stream of events", live).await?;
        let stages = "return document.querySelectorAll('.stage[data-queue]').length || null";
        ensure!(eventually::<u32>(&browser, "the stages", stages).await? == 6, "six queues are drawn");

        // The demo's rides first, then an uploaded file.
        let demo = "return document.querySelector('.batch[data-state=\"ready\"]')?.innerText ?? null";
        eventually::<String>(&browser, "the demo's batch", demo).await?;
        let champion = "return document.querySelector('#champion-id')?.textContent ?? null";
        let first: String = eventually(&browser, "the first champion", champion).await?;
        let report = "return document.querySelector('#report-link')?.getAttribute('href') ?? null";
        let report: String = eventually(&browser, "a link to its report", report).await?;
        ensure!(report == format!("/v1/models/service-request/versions/{first}/report"), "{report}");
        let upload = browser.find(By::Id("upload")).await?;
        upload.send_keys(rides.to_string_lossy()).await?;
        let ready = batch(&browser, "more.json", "ready").await?;
        for part in ["1\u{202f}500 rides", "to train on", "rejected", "Dataset, CSV"] {
            ensure!(ready.contains(part), "{part} is missing in\n{ready}");
        }
        let another = format!(
            "const id = document.querySelector('#champion-id')?.textContent; return id && id !== '{first}' ? id : null"
        );
        let second: String = eventually(&browser, "a champion that knows both", &another).await?;

        upload.send_keys(broken.to_string_lossy()).await?;
        let refused = batch(&browser, "cut.json", "refused").await?;
        ensure!(refused.contains("cut short") && refused.contains("Upload the complete file"), "{refused}");
        let letter = "return document.querySelector('#dead-list tr[data-id]')?.innerText ?? null";
        let letter: String = eventually(&browser, "the dead letter", letter).await?;
        ensure!(letter.contains("splitter") && letter.contains("wildrydes dead show "), "{letter}");

        let by = format!("return document.querySelector('#scored-by')?.textContent === '{second}' || null");
        eventually::<bool>(&browser, "a score by the new champion", &by).await?;
        let some: f64 = eventually(&browser, "a probability", PROBABILITY).await?;
        let rain = browser.find(By::Id("score-prcp")).await?;
        rain.clear().await?;
        rain.send_keys("60").await?;
        let more = changed_from(&browser, some).await?;
        ensure!(more > some, "with 60 mm of rain it is {more}, with less it was {some}");
        let message: String = browser.find(By::Id("probability")).await?.text().await?;
        ensure!(message.starts_with(&format!("{:.1}", more * 100.0)), "{more} is shown as {message}");
        let why = "return document.querySelector('.contributions tbody tr')?.innerText ?? null";
        let why: String = eventually(&browser, "the reasons", why).await?;
        ensure!(why.contains("Precipitation") && why.contains("60 mm"), "rain comes first: {why}");

        // The mean instead of both temperatures: what was assumed is named.
        for name in ["tmin", "tmax"] {
            browser.find(By::Id(format!("score-{name}"))).await?.clear().await?;
        }
        browser.find(By::Id("score-tavg")).await?.send_keys("8.5").await?;
        let assumed = "return document.querySelector('#interval')?.textContent ?? null";
        let assumed: String = eventually(&browser, "what was assumed", assumed).await?;
        ensure!(assumed.contains("lowest temperature") && assumed.contains("highest temperature"), "{assumed}");

        browser.find(By::Css(".ways label:last-child")).await?.click().await?;
        let looked = "return document.querySelector('.looked')?.textContent ?? null";
        let looked: String = eventually(&browser, "the weather of a place", looked).await?;
        ensure!(looked.contains("USW000") && looked.contains("km away"), "{looked}");
        for name in ["latitude", "longitude"] {
            let place = browser.find(By::Id(format!("score-{name}"))).await?;
            place.clear().await?;
            place.send_keys("0").await?;
        }
        let caution = "return document.querySelector('#warnings')?.textContent ?? null";
        let caution: String = eventually(&browser, "a caution", caution).await?;
        ensure!(caution.contains("the weather is assumed: no station"), "{caution}");

        // Nothing was published since.
        eventually::<bool>(&browser, "a batch with rides without weather", "document.querySelector('.rejoin')?.click(); return true").await?;
        let outcome = "return [...document.querySelectorAll('.rejoined')].map((said) => said.textContent).find((said) => !said.startsWith('Being')) ?? null";
        let outcome: String = eventually(&browser, "the outcome of a refresh", outcome).await?;
        ensure!(outcome == "Joined again: nothing changed.", "{outcome}");
        fits(&browser).await?;
        no_complaints(&browser).await?;

        browser.goto(format!("{}/docs", served.url())).await?;
        let operations = "return document.querySelectorAll('.operation').length || null";
        ensure!(eventually::<u32>(&browser, "the operations", operations).await? > 15, "every operation is there");
        no_complaints(&browser).await
    });
    used.await.unwrap_or_else(|why| panic!("{why:#}\n{}", served.stderr()));

    // On a phone, the page does not scroll sideways.
    let phone = chromedriver.browser(390, 844).await.unwrap();
    let used = phone.run_and_quit(async |phone: WebDriver| -> anyhow::Result<()> {
        for (path, drawn) in [("/", "#probability"), ("/docs", ".operation")] {
            phone.goto(format!("{}{path}", served.url())).await?;
            let script = format!("return document.querySelector('{drawn}') ? innerWidth : null");
            ensure!(eventually::<u32>(&phone, drawn, &script).await? == 390, "it is a phone");
            fits(&phone).await?;
            no_complaints(&phone).await?;
        }
        Ok(())
    });
    used.await.unwrap_or_else(|why| panic!("{why:#}\n{}", served.stderr()));
    served.finish();
}
