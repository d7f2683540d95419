//! Uploads in parts that were begun and neither completed nor aborted, because their writer was killed. They are in no listing of
//! objects, but their parts are stored, and billed.
//!
//! The client of the service cannot list them, so this module requests the list itself, with addresses that the client signs.

use super::legible::legible;
use crate::store::location::Bucket;
use anyhow::{Context, bail};
use jiff::Timestamp;
use object_store::{
    ClientOptions,
    aws::AmazonS3,
    client::{HttpClient, HttpConnector, HttpRequest, HttpRequestBody, ReqwestConnector},
    multipart::MultipartStore,
    path::Path,
    signer::{SignedUrlOptions, Signer},
};
use serde::Deserialize;
use std::{fmt, sync::Arc, time::Duration};

/// Age at which an upload counts as abandoned; no upload takes that long.
const ABANDONED_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// Interval between two sweeps.
const EVERY: Duration = Duration::from_secs(60 * 60);
/// How long a signed address is valid.
const SIGNED_FOR: Duration = Duration::from_secs(60);
/// Maximum number of pages of a list, of 1,000 uploads each.
const PAGES_MAX: usize = 100;

/// Access to the unfinished uploads of an S3 bucket.
pub struct Unfinished {
    name: String,
    prefix: Path,
    s3: Arc<AmazonS3>,
    client: HttpClient,
}

impl fmt::Debug for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Unfinished").field(&self.name).finish()
    }
}

/// An unfinished upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnfinishedUpload {
    /// Key of the object, with the prefix of the store.
    pub key: String,
    /// When it was begun, by the store's clock.
    pub begun_at: Timestamp,
    id: String,
}

/// What the bucket does with unfinished uploads by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LifecycleRule {
    /// It aborts them after this number of days.
    After(u32),
    /// It keeps them.
    None,
}

impl Unfinished {
    pub(in crate::store) fn new(bucket: &Bucket, (s3, options): (AmazonS3, ClientOptions)) -> anyhow::Result<Self> {
        let client = ReqwestConnector::default().connect(&options)?;
        Ok(Self { name: bucket.to_string(), prefix: bucket.prefix.clone(), s3: Arc::new(s3), client })
    }

    /// Lists the unfinished uploads of the store.
    ///
    /// # Errors
    /// Fails if the service refuses the request or cannot be reached.
    pub async fn list(&self) -> anyhow::Result<Vec<UnfinishedUpload>> {
        let mut uploads = Vec::new();
        let mut after: Option<(String, String)> = None;
        for _ in 0..PAGES_MAX {
            let page = self.page(after.as_ref()).await?;
            uploads.extend(page.upload.into_iter().map(|upload| UnfinishedUpload {
                key: upload.key,
                begun_at: upload.initiated.parse().unwrap_or(Timestamp::MAX),
                id: upload.upload_id,
            }));
            match page.is_truncated {
                true => after = Some((page.next_key_marker, page.next_upload_id_marker)),
                false => break,
            }
        }
        Ok(uploads)
    }

    async fn page(&self, after: Option<&(String, String)>) -> anyhow::Result<Page> {
        let mut query = vec![("uploads", "")];
        let prefix = format!("{}/", self.prefix);
        if !self.prefix.as_ref().is_empty() {
            query.push(("prefix", &prefix));
        }
        if let Some((key, id)) = after {
            query.extend([("key-marker", key.as_str()), ("upload-id-marker", id.as_str())]);
        }
        let (status, body) = self.get(&query).await.context("listing unfinished uploads")?;
        if status != 200 {
            bail!("listing unfinished uploads: status {status}: {}", code(&body));
        }
        quick_xml::de::from_str(&body).context("the list of unfinished uploads")
    }

    /// Aborts the uploads that were begun more than a day before `now`. Returns their number.
    ///
    /// # Errors
    /// Fails if the service refuses a request or cannot be reached.
    pub async fn abort_abandoned(&self, now: Timestamp) -> anyhow::Result<usize> {
        self.abort_older(now, ABANDONED_AFTER).await
    }

    async fn abort_older(&self, now: Timestamp, age: Duration) -> anyhow::Result<usize> {
        let (mut aborted, mut failed) = (0, None);
        for upload in self.list().await? {
            if now.duration_since(upload.begun_at) < age.try_into()? {
                continue;
            }
            // The fleet writes no such name; somebody else shares the bucket.
            let Ok(path) = Path::parse(&upload.key) else { continue };
            match self.s3.abort_multipart(&path, &upload.id).await {
                Ok(()) => aborted += 1,
                // Completed or aborted meanwhile.
                Err(object_store::Error::NotFound { .. }) => {}
                // The others are still aborted.
                Err(error) => {
                    let error = anyhow::Error::from(legible(error));
                    failed = Some(error.context(format!("aborting the upload of {}", upload.key)));
                }
            }
        }
        failed.map_or(Ok(aborted), Err)
    }

    /// Aborts abandoned uploads now and every hour. Logs a failure.
    pub(in crate::store) async fn sweep_forever(self) {
        loop {
            // As the sweep of a folder, this reads the clock of the machine.
            match self.abort_abandoned(Timestamp::now()).await {
                Ok(0) => {}
                Ok(uploads) => tracing::info!(uploads, "aborted unfinished uploads of killed writers in the store"),
                Err(error) => {
                    tracing::warn!("cannot abort unfinished uploads of killed writers in the store: {error:#}")
                }
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Returns the bucket's rule for unfinished uploads of this store.
    ///
    /// # Errors
    /// Fails if the service refuses the request or cannot be reached.
    pub async fn lifecycle_rule(&self) -> anyhow::Result<LifecycleRule> {
        let (status, body) = self.get(&[("lifecycle", "")]).await.context("reading the bucket's lifecycle rules")?;
        match status {
            200 => rule(&body, self.prefix.as_ref()),
            404 if body.contains("NoSuchLifecycleConfiguration") => Ok(LifecycleRule::None),
            _ => bail!("reading the bucket's lifecycle rules: status {status}: {}", code(&body)),
        }
    }

    /// Requests the bucket itself with a query.
    async fn get(&self, query: &[(&str, &str)]) -> anyhow::Result<(u16, String)> {
        let options = SignedUrlOptions::new().with_query(query.iter().copied());
        let the_bucket = Path::default();
        let signed = self.s3.signed_url_opts("GET".parse()?, &the_bucket, SIGNED_FOR, &options);
        let url = signed.await.map_err(legible)?;
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.uri_mut() = url.as_str().parse()?;
        // Its errors do not repeat the address, which is a credential.
        let response = self.client.execute(request).await?;
        let status = response.status().as_u16();
        Ok((status, String::from_utf8_lossy(&response.into_body().bytes().await?).into_owned()))
    }
}

/// Returns the code of an error document.
fn code(body: &str) -> &str {
    let code = body.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
    code.map_or("no reason given", |(code, _)| code)
}

/// `ListMultipartUploadsResult`
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Page {
    #[serde(default)]
    upload: Vec<Upload>,
    #[serde(default)]
    is_truncated: bool,
    #[serde(default)]
    next_key_marker: String,
    #[serde(default)]
    next_upload_id_marker: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Upload {
    key: String,
    upload_id: String,
    initiated: String,
}

/// `LifecycleConfiguration`
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Lifecycle {
    #[serde(default)]
    rule: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Rule {
    status: String,
    prefix: Option<String>,
    filter: Option<Filter>,
    abort_incomplete_multipart_upload: Option<Abort>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Filter {
    prefix: Option<String>,
    and: Option<Box<Filter>>,
}

impl Filter {
    fn prefix(&self) -> Option<&str> {
        self.prefix.as_deref().or_else(|| self.and.as_deref().and_then(Self::prefix))
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Abort {
    days_after_initiation: u32,
}

/// Returns the first rule of a lifecycle configuration that aborts unfinished uploads of every object below `prefix`.
fn rule(body: &str, prefix: &str) -> anyhow::Result<LifecycleRule> {
    let lifecycle: Lifecycle = quick_xml::de::from_str(body).context("the bucket's lifecycle rules")?;
    let covers = |rule: &Rule| {
        let of_filter = rule.filter.as_ref().and_then(Filter::prefix);
        let covered = rule.prefix.as_deref().or(of_filter).unwrap_or_default();
        rule.status == "Enabled" && format!("{prefix}/").starts_with(covered)
    };
    let mut aborting = lifecycle.rule.iter().filter(|rule| covers(rule));
    let abort = aborting.find_map(|rule| rule.abort_incomplete_multipart_upload.as_ref());
    Ok(abort.map_or(LifecycleRule::None, |abort| LifecycleRule::After(abort.days_after_initiation)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_uploads_is_read() {
        let body = r#"<?xml version="1.0" encoding="UTF-8"?><ListMultipartUploadsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
            <Bucket>b</Bucket><KeyMarker/><NextKeyMarker>k2</NextKeyMarker><NextUploadIdMarker>i2</NextUploadIdMarker>
            <IsTruncated>true</IsTruncated>
            <Upload><Key>p/raw/1</Key><UploadId>i1</UploadId><Initiated>2026-12-01T10:00:00.000Z</Initiated></Upload>
            <Upload><Key>p/raw/2</Key><UploadId>i2</UploadId><Initiated>2026-12-02T10:00:00.000Z</Initiated></Upload>
            </ListMultipartUploadsResult>"#;
        let page: Page = quick_xml::de::from_str(body).unwrap();
        let ids: Vec<&str> = page.upload.iter().map(|upload| upload.upload_id.as_str()).collect();
        assert_eq!((ids, page.is_truncated, page.next_key_marker.as_str()), (vec!["i1", "i2"], true, "k2"));
        assert_eq!(page.upload[0].initiated.parse::<Timestamp>().unwrap().to_string(), "2026-12-01T10:00:00Z");
        let empty: Page = quick_xml::de::from_str(
            "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>",
        )
        .unwrap();
        assert!(empty.upload.is_empty() && !empty.is_truncated);
    }

    #[test]
    fn a_rule_counts_if_it_is_enabled_and_covers_the_store() {
        let with = |rules: &str| {
            let body = format!("<LifecycleConfiguration>{rules}</LifecycleConfiguration>");
            rule(&body, "fleet/a").unwrap()
        };
        let abort = "<AbortIncompleteMultipartUpload><DaysAfterInitiation>7</DaysAfterInitiation></AbortIncompleteMultipartUpload>";
        let one = |filter: &str, status: &str, action: &str| {
            format!("<Rule><ID>x</ID>{filter}<Status>{status}</Status>{action}</Rule>")
        };
        assert_eq!(with(&one("<Filter/>", "Enabled", abort)), LifecycleRule::After(7));
        assert_eq!(with(&one("<Prefix></Prefix>", "Enabled", abort)), LifecycleRule::After(7));
        assert_eq!(with(&one("<Filter><Prefix>fleet/</Prefix></Filter>", "Enabled", abort)), LifecycleRule::After(7));
        assert_eq!(with(&one("<Filter><Prefix>fleet/b</Prefix></Filter>", "Enabled", abort)), LifecycleRule::None);
        let both =
            "<Filter><And><Prefix>weather/</Prefix><ObjectSizeGreaterThan>9</ObjectSizeGreaterThan></And></Filter>";
        assert_eq!(with(&one(both, "Enabled", abort)), LifecycleRule::None);
        assert_eq!(with(&one("<Filter/>", "Disabled", abort)), LifecycleRule::None);
        assert_eq!(with(&one("<Filter/>", "Enabled", "<Expiration><Days>1</Days></Expiration>")), LifecycleRule::None);
        assert_eq!(with(""), LifecycleRule::None);
    }
}
