//! The two passes over a batch.

use crate::{
    document::{Document, Header, Options},
    read_failure, refused,
    ride::{Judged, Outline},
    source::{Fingerprint, Limits, Reading, Source},
    split::{RideIds, Split},
    too_many_ride_ids,
};
use common::{
    outcome::{Failure, Outgoing},
    reading,
};
use futures::{Stream, stream};
use object_store::{buffered::BufWriter, path::Path};
use records::{Store, store};
use std::io;
use tokio::io::AsyncWriteExt;

/// Bytes of reject lines that may wait to be written.
const REJECT_LINES_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of one part of the upload of the rejects; S3 takes no less than 5 MiB.
const REJECT_PART_BYTES: usize = 8 * 1024 * 1024;

/// What the first pass found.
pub(crate) struct Survey {
    pub header: Header,
    /// Elements, good and bad.
    pub rides: u64,
    pub ride_ids: RideIds,
    pub fingerprint: Fingerprint,
    /// How the rides were read: as the caller asked, else as the document says.
    pub reading: reading::Reading,
}

/// The first pass: is it a batch from its first byte to its last, and which bytes are they?
///
/// A document may bring its own mapping, even after its rides. That mapping applies if `asked` is the default reading;
/// then the document is surveyed again with it.
pub(crate) async fn survey(
    source: &Source,
    options: Options,
    limits: Limits,
    asked: &reading::Reading,
) -> Result<Survey, Failure> {
    let first = survey_with(source, options, limits, asked).await?;
    let own = reading::Reading { rides_at: None, map: first.header.reading.map.clone() };
    if asked.is_default() && !own.is_default() { survey_with(source, options, limits, &own).await } else { Ok(first) }
}

async fn survey_with(
    source: &Source,
    options: Options,
    limits: Limits,
    how: &reading::Reading,
) -> Result<Survey, Failure> {
    let mut reading = source.open(limits).await.map_err(read_failure)?;
    let options = Options { records: reading.records(), ..options };
    let mut document = Document::new(options).with_reading(how.clone());
    let mut ride_ids = RideIds::default();
    loop {
        let piece = reading.next().await.map_err(read_failure)?;
        match &piece {
            Some(bytes) => document.push(bytes),
            None => document.end(),
        }
        while let Some(element) = document.pull::<Outline>().map_err(refused)? {
            ride_ids.count(&element.content);
        }
        if piece.is_none() {
            break;
        }
        // A batch that is in memory anyway never waits by itself.
        tokio::task::yield_now().await;
    }
    let rides = document.elements();
    let fingerprint = reading.finish().await.map_err(read_failure)?;
    Ok(Survey { header: document.header().clone(), rides, ride_ids, fingerprint, reading: how.clone() })
}

/// The second pass, pulled by whoever publishes what it makes.
pub(crate) struct Cutting {
    /// Given up when the document is read to its end.
    reading: Option<Reading>,
    document: Document,
    split: Split,
    sha256: String,
    store: Store,
    rejects: Path,
    reject_file: Option<BufWriter>,
    closing: Closing,
}

#[derive(PartialEq)]
enum Closing {
    Open,
    Accounting,
    Done,
}

impl Cutting {
    /// Splits `document`, to which no bytes were pushed yet, while `reading` delivers its bytes.
    pub fn new(
        reading: Reading,
        document: Document,
        split: Split,
        sha256: String,
        store: Store,
        rejects: Path,
    ) -> Self {
        let closing = Closing::Open;
        Self { reading: Some(reading), document, split, sha256, store, rejects, reject_file: None, closing }
    }

    /// The chunks, each as soon as it is full, and at the very end the account.
    pub fn into_stream(self) -> impl Stream<Item = Result<Outgoing, Failure>> + Send {
        stream::try_unfold(self, |mut cutting| async move {
            match cutting.next().await {
                Ok(outgoing) => Ok(outgoing.map(|outgoing| (outgoing, cutting))),
                Err(failure) => {
                    if let Some(mut file) = cutting.reject_file.take() {
                        // What is left behind of an upload is the store's to clean; the failure is what matters.
                        let _ = file.abort().await;
                    }
                    Err(failure)
                }
            }
        })
    }

    async fn next(&mut self) -> Result<Option<Outgoing>, Failure> {
        match self.closing {
            Closing::Open => {}
            Closing::Accounting => return self.account().map(Some),
            Closing::Done => return Ok(None),
        }
        loop {
            while let Some(element) = self.document.pull::<Judged>().map_err(read_differently)? {
                self.split.take(element).map_err(too_many_ride_ids)?;
                if let Some(chunk) = self.split.full_chunk() {
                    return Outgoing::message(&chunk).map(Some);
                }
                if self.split.reject_lines().len() > REJECT_LINES_BYTES_MAX {
                    self.write_rejects().await?;
                }
            }
            let Some(reading) = &mut self.reading else { break };
            match reading.next().await.map_err(read_failure)? {
                Some(piece) => self.document.push(&piece),
                None => {
                    self.document.end();
                    self.finish_reading().await?;
                }
            }
            tokio::task::yield_now().await;
        }
        self.close_rejects().await?;
        self.closing = Closing::Accounting;
        match self.split.last_chunk() {
            Some(chunk) => Outgoing::message(&chunk).map(Some),
            None => self.account().map(Some),
        }
    }

    /// Nothing is complete before it is certain that both passes read the same.
    async fn finish_reading(&mut self) -> Result<(), Failure> {
        if let Some(reading) = self.reading.take() {
            let again = reading.finish().await.map_err(read_failure)?;
            if again.sha256 != self.sha256 {
                return Err(read_differently(format!("sha256 {} became {}", self.sha256, again.sha256)));
            }
        }
        Ok(())
    }

    async fn write_rejects(&mut self) -> Result<(), Failure> {
        let file = self.reject_file.get_or_insert_with(|| {
            BufWriter::with_capacity(self.store.clone(), self.rejects.clone(), REJECT_PART_BYTES)
                .with_max_concurrency(1)
        });
        file.write_all(self.split.reject_lines()).await.map_err(write_failed)?;
        self.split.forget_reject_lines();
        Ok(())
    }

    /// With this the rejects become visible, whole.
    async fn close_rejects(&mut self) -> Result<(), Failure> {
        if !self.split.reject_lines().is_empty() {
            self.write_rejects().await?;
        }
        match self.reject_file.take() {
            Some(mut file) => file.shutdown().await.map_err(write_failed),
            None => Ok(()),
        }
    }

    fn account(&mut self) -> Result<Outgoing, Failure> {
        self.closing = Closing::Done;
        let account = self.split.account(&self.sha256);
        tracing::info!(
            batch_id = account.batch_id,
            received = account.received,
            accepted = account.accepted,
            rejected = account.rejected,
            chunks = account.chunks,
            "batch split"
        );
        Outgoing::message(&account)
    }
}

/// Read again from its start, the first pass will say what became of it.
fn read_differently(how: impl std::fmt::Display) -> Failure {
    Failure::transient(format!("the batch changed between two readings: {how}"))
}

fn write_failed(error: io::Error) -> Failure {
    match error.downcast::<object_store::Error>() {
        Ok(error) => store::outage(error),
        Err(error) => Failure::outage("object store", error),
    }
}
