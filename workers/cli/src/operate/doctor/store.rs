//! Checks that the object store can hold a fleet's objects.

use super::findings::{Findings, Severity};
use crate::session::{Failed, Session};
use anyhow::{Context, ensure};
use records::{
    Store, StoreSettings, layout,
    store::{self, LifecycleRule, Unfinished, Unproven},
};
use runtime::host;
use std::time::Duration;

/// Number of races of 16 writers for one object each.
const RACES: usize = 8;
/// Age of an unfinished upload that is reported: a worker should have aborted it.
const OLD: Duration = Duration::from_secs(2 * 24 * 60 * 60);

/// Runs the checks; returns the store if it can be opened. Fails if the configuration is invalid.
pub(super) async fn examine(session: &Session, findings: &mut Findings) -> Result<Option<Store>, Failed> {
    let (settings, location) = (session.store_settings()?, session.store_location()?);
    let store = match session.store() {
        Ok(store) => store,
        Err(Failed::Misused(error)) => {
            let remedy = "set store.url to a folder that all workers see, or to the bucket of a service";
            findings.broken("store", format!("{error:#}"), remedy);
            return Ok(None);
        }
        Err(other) => return Err(other),
    };
    match try_out(&store).await {
        Ok(()) => findings.ok("store", format!("{location}: write, read, conditional create and remove work")),
        Err(error) => findings.broken("store", format!("{location}: {error:#}"), remedy(&settings)),
    }
    races(&settings, &location, &store, findings).await;
    match store::unfinished_uploads(&settings) {
        Ok(Some(uploads)) => unfinished(&uploads, findings).await,
        Ok(None) => {}
        Err(error) => findings.not_checked("unfinished uploads", format!("{error:#}")),
    }
    Ok(Some(store))
}

fn remedy(settings: &StoreSettings) -> &'static str {
    match settings.is_remote() {
        true => {
            "check store.url, store.endpoint and store.region, the credentials in the environment, and that they allow to list, \
             read, write and delete the objects of this prefix"
        }
        false => {
            "check that there is space, that the folder is mounted, and that this user may write to it; a network file system \
             must support hard links"
        }
    }
}

/// Creates an object, tries to create it again, reads and removes it.
async fn try_out(store: &Store) -> anyhow::Result<()> {
    let path = layout::scratch(&format!("doctor-{:016x}", host::random_range(0..=u64::MAX)));
    let tried = async {
        ensure!(store::create(store, &path, "1").await.context("writing")?, "{path} existed before it was created");
        let again = store::create(store, &path, "2").await.context("writing conditionally")?;
        ensure!(!again, "conditional writes do not work: the same object was created twice");
        let read = store::read(store, &path).await.context("reading")?;
        ensure!(read.as_deref() == Some(b"1"), "the bytes read differ from the bytes written");
        Ok(())
    };
    let tried = tried.await;
    let removed = store::remove(store, &path).await.context("removing");
    tried.and(removed)
}

async fn races(settings: &StoreSettings, location: &str, store: &Store, findings: &mut Findings) {
    judge(settings, location, store::prove(store, RACES, host::random_range(0..=u128::MAX)).await, findings);
}

fn judge(settings: &StoreSettings, location: &str, proof: Result<(), Unproven>, findings: &mut Findings) {
    let check = "store races";
    match proof {
        Ok(()) => findings.ok(check, format!("one of 16 simultaneous writers creates an object, in each of {RACES} races")),
        Err(why @ Unproven::Conditions { .. }) => findings.broken(
            check,
            format!("{location}: {why}"),
            "use a service that supports If-None-Match: * for PUT (Amazon S3, Google Cloud Storage, Azure Blob Storage, Ceph, \
             MinIO, Cloudflare R2), or a file system with hard links; no worker starts with this store",
        ),
        Err(Unproven::Refused(why)) => findings.broken(check, format!("{location}: {why}"), remedy(settings)),
        Err(Unproven::Unavailable(why)) => findings.not_checked(check, format!("{location}: {why}")),
    }
}

/// Checks that uploads that nobody completes are removed: their parts are stored and billed, but in no listing.
async fn unfinished(uploads: &Unfinished, findings: &mut Findings) {
    let check = "unfinished uploads";
    match uploads.list().await {
        Ok(listed) => {
            let now = host::now();
            let is_old = |at: jiff::Timestamp| now.duration_since(at).unsigned_abs() > OLD && at < now;
            let old = listed.iter().filter(|upload| is_old(upload.begun_at));
            let complaints = old.map(|upload| format!("{} since {}", upload.key, upload.begun_at)).collect();
            let fine = format!("{} in progress, none older than two days", listed.len());
            let remedy = "a running merger or gateway aborts uploads that are a day old; it needs the right to list and to abort them \
                 (s3:ListBucketMultipartUploads, s3:AbortMultipartUpload)";
            findings.judge(check, fine, complaints, Severity::Warning, remedy);
        }
        Err(error) => findings.not_checked(check, format!("{error:#}")),
    }
    let check = "lifecycle rule";
    match uploads.lifecycle_rule().await {
        Ok(LifecycleRule::After(days)) => {
            findings.ok(check, format!("the bucket aborts unfinished uploads after {days} days"));
        }
        Ok(LifecycleRule::None) => findings.warn(
            check,
            "the bucket keeps unfinished uploads for ever: they are removed only while a merger or a gateway runs",
            "add a lifecycle rule to the bucket: AbortIncompleteMultipartUpload, DaysAfterInitiation = 7",
        ),
        Err(error) => findings.not_checked(check, format!("{error:#}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unfit_service_is_broken_by_name_and_an_outage_is_not_judged() {
        let settings = StoreSettings { url: "s3://rides".to_owned(), ..StoreSettings::default() };
        let finding = |proof| {
            let mut findings = Findings::default();
            judge(&settings, "s3://rides", proof, &mut findings);
            (findings.0[0].severity, findings.0[0].found.clone())
        };
        assert_eq!(finding(Ok(())).0, Severity::Ok);
        let (severity, found) = finding(Err(Unproven::Conditions { winners: 16 }));
        assert!(found.starts_with("s3://rides: 16 of 16") && severity == Severity::Broken, "{found}");
        assert_eq!(finding(Err(Unproven::Refused("403".to_owned()))).0, Severity::Broken);
        assert_eq!(finding(Err(Unproven::Unavailable("no route".to_owned()))).0, Severity::NotChecked);
    }
}
