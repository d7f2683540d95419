//! The two passes over a batch.

use crate::{
    document::{Document, Header, Options},
    failure::{read_failure, refused, too_many_ride_ids},
    ride::{Outline, Validation},
    source::{BatchReader, Fingerprint, Limits, Source},
    split::{RideIds, Split},
};
use bytes::Bytes;
use common::{
    outcome::{Failure, Outgoing},
    reading::Reading,
    topology::process::SPLITTER,
};
use futures::{Stream, stream};
use records::{Store, store::Writer};
use runtime::metrics::metrics;

/// Maximum number of buffered bytes of reject lines.
const REJECT_LINES_BYTES_MAX: usize = 1024 * 1024;

/// The result of the first pass.
pub(crate) struct Survey {
    pub header: Header,
    /// Number of elements, valid or not.
    pub rides: u64,
    pub ride_ids: RideIds,
    pub fingerprint: Fingerprint,
    /// The reading that was used: the requested one, or else the one in the document.
    pub reading: Reading,
}

/// The first pass: checks the batch from its first byte to its last and computes its SHA-256.
///
/// A document may have its own mapping, even after its rides. It applies if `requested` is the default reading; then the
/// document is surveyed again with it.
pub(crate) async fn survey(
    source: &Source,
    options: Options,
    limits: Limits,
    requested: &Reading,
) -> Result<Survey, Failure> {
    let first = survey_with(source, options, limits, requested).await?;
    let own = Reading { rides_at: None, map: first.header.reading.map.clone() };
    if requested.is_default() && !own.is_default() {
        survey_with(source, options, limits, &own).await
    } else {
        Ok(first)
    }
}

async fn survey_with(source: &Source, options: Options, limits: Limits, how: &Reading) -> Result<Survey, Failure> {
    let mut reader = source.open(limits).await.map_err(read_failure)?;
    let options = Options { records: reader.records(), ..options };
    let mut document = Document::new(options).with_reading(how.clone());
    let mut ride_ids = RideIds::default();
    loop {
        let piece = reader.next().await.map_err(read_failure)?;
        match &piece {
            Some(bytes) => document.push(bytes),
            None => document.end(),
        }
        while let Some(element) = document.next_element::<Outline>().map_err(refused)? {
            ride_ids.count(&element.content);
        }
        if piece.is_none() {
            break;
        }
        // An inline batch has no other await point that yields.
        tokio::task::yield_now().await;
    }
    let rides = document.elements();
    let fingerprint = reader.finish().await.map_err(read_failure)?;
    Ok(Survey { header: document.header().clone(), rides, ride_ids, fingerprint, reading: how.clone() })
}

/// The second pass, as a stream of messages to publish.
pub(crate) struct Splitting {
    /// `None` once the document is read to its end.
    reader: Option<BatchReader>,
    document: Document,
    split: Split,
    sha256: String,
    store: Store,
    /// Path of the rejects.
    rejects: String,
    reject_file: Option<Writer>,
    closing: Closing,
}

#[derive(PartialEq)]
enum Closing {
    Open,
    Summary,
    Done,
}

impl Splitting {
    /// Splits the bytes of `reader`, parsed by `document`, which has received no bytes yet.
    pub fn new(
        reader: BatchReader,
        document: Document,
        split: Split,
        sha256: String,
        store: Store,
        rejects: String,
    ) -> Self {
        let closing = Closing::Open;
        Self { reader: Some(reader), document, split, sha256, store, rejects, reject_file: None, closing }
    }

    /// Returns the messages: each chunk as soon as it is full, and the summary last.
    pub fn into_stream(self) -> impl Stream<Item = Result<Outgoing, Failure>> + Send {
        stream::try_unfold(self, |mut splitting| async move {
            match splitting.next().await {
                Ok(outgoing) => Ok(outgoing.map(|outgoing| (outgoing, splitting))),
                Err(failure) => {
                    if let Some(file) = splitting.reject_file.take() {
                        file.abort().await;
                    }
                    Err(failure)
                }
            }
        })
    }

    async fn next(&mut self) -> Result<Option<Outgoing>, Failure> {
        match self.closing {
            Closing::Open => {}
            Closing::Summary => return self.summary().map(Some),
            Closing::Done => return Ok(None),
        }
        loop {
            while let Some(element) = self.document.next_element::<Validation>().map_err(read_differently)? {
                self.split.take(element).map_err(too_many_ride_ids)?;
                if let Some(chunk) = self.split.full_chunk() {
                    return Outgoing::message(&chunk).map(Some);
                }
                if self.split.reject_lines().len() > REJECT_LINES_BYTES_MAX {
                    self.write_rejects().await?;
                }
            }
            let Some(reader) = &mut self.reader else { break };
            match reader.next().await.map_err(read_failure)? {
                Some(piece) => self.document.push(&piece),
                None => {
                    self.document.end();
                    self.finish_reader().await?;
                }
            }
            tokio::task::yield_now().await;
        }
        self.close_rejects().await?;
        self.closing = Closing::Summary;
        match self.split.last_chunk() {
            Some(chunk) => Outgoing::message(&chunk).map(Some),
            None => self.summary().map(Some),
        }
    }

    /// Checks that both passes read the same bytes.
    async fn finish_reader(&mut self) -> Result<(), Failure> {
        if let Some(reader) = self.reader.take() {
            let again = reader.finish().await.map_err(read_failure)?;
            if again.sha256 != self.sha256 {
                return Err(read_differently(format!("sha256 {} became {}", self.sha256, again.sha256)));
            }
        }
        Ok(())
    }

    async fn write_rejects(&mut self) -> Result<(), Failure> {
        let file = self.reject_file.get_or_insert_with(|| Writer::new(&self.store, &self.rejects));
        file.put(Bytes::copy_from_slice(self.split.reject_lines())).await?;
        self.split.clear_reject_lines();
        Ok(())
    }

    /// Completes the upload, so that the rejects become visible as a whole.
    async fn close_rejects(&mut self) -> Result<(), Failure> {
        if !self.split.reject_lines().is_empty() {
            self.write_rejects().await?;
        }
        match self.reject_file.take() {
            Some(file) => file.finish().await.map(drop),
            None => Ok(()),
        }
    }

    fn summary(&mut self) -> Result<Outgoing, Failure> {
        self.closing = Closing::Done;
        let summary = self.split.summary(&self.sha256);
        tracing::info!(
            batch_id = summary.batch_id,
            received = summary.received,
            accepted = summary.accepted,
            rejected = summary.rejected,
            chunks = summary.chunks,
            "batch split"
        );
        metrics().rides(SPLITTER.name, "accepted", summary.accepted);
        metrics().rides(SPLITTER.name, "rejected", summary.rejected);
        Outgoing::message(&summary)
    }
}

/// The next attempt starts with the first pass, which reports what changed.
fn read_differently(how: impl std::fmt::Display) -> Failure {
    Failure::transient(format!("the batch changed between two readings: {how}"))
}
