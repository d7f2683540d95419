//! Uploads files and publishes them as batches, by reference.

use super::{input::Input, outcome::Submission};
use crate::{
    output::progress::{Step, Unit},
    session::Failed,
};
use anyhow::Context;
use common::{
    message::{BatchContent, Message, RideBatch},
    reading::Reading,
};
use records::{
    Store, batches, layout,
    store::{self, Writer},
};
use runtime::{
    broker::ConnectionState,
    client::{Client, ClientError},
    host,
};
use sha2::{Digest, Sha256};
use std::{io::Read, pin::pin};
use tokio::io::AsyncReadExt;

/// How the files of a command become batches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Form<'a> {
    /// Id of the only batch; `None` derives it from the bytes and the reading.
    pub(crate) batch_id: Option<&'a str>,
    /// How the documents are read.
    pub(crate) reading: &'a Reading,
}

/// Uploads every file that the store lacks, and publishes a reference to each.
pub(crate) async fn submit_all(
    client: &Client,
    store: &Store,
    inputs: Vec<Input>,
    form: Form<'_>,
    quiet: bool,
) -> Result<Vec<Submission>, Failed> {
    let mut submissions: Vec<Submission> = Vec::new();
    for input in inputs {
        let mut one = submit(client, store, input, form, quiet).await?;
        // If the same bytes occur twice in one command, the dataset of the first is not an earlier result.
        if let Some(same) = submissions.iter().find(|other| other.batch_id == one.batch_id) {
            one.was_there = same.was_there;
        }
        submissions.push(one);
    }
    Ok(submissions)
}

async fn submit(
    client: &Client,
    store: &Store,
    input: Input,
    form: Form<'_>,
    quiet: bool,
) -> Result<Submission, Failed> {
    let about = || input.shown.display().to_string();
    let sha256 = fingerprint(&input).await.with_context(about)?;
    let object = layout::raw_upload(&sha256, &input.source);
    keep(store, &input, &object, &sha256, quiet).await.with_context(about)?;
    let batch_id = form.batch_id.map_or_else(|| form.reading.batch_id(&sha256), str::to_owned);
    let batch = RideBatch {
        batch_id: form.batch_id.map(str::to_owned),
        source: Some(input.source),
        reading: form.reading.clone(),
        refresh: None,
        content: BatchContent::Reference { object, sha256: sha256.clone() },
    };
    batch.check().map_err(|violation| Failed::Misused(anyhow::anyhow!("{violation}")))?;
    let was_there = batches::is_complete(store, &batch_id).await?;
    let at = host::now();
    let trace_id = publish(client, &batch).await?;
    let reading = batch.reading;
    Ok(Submission {
        file: input.shown,
        batch_id,
        sha256,
        reading,
        refresh: None,
        trace_id,
        at,
        was_there,
        earlier: None,
    })
}

/// Publishes a batch. Reports when the broker blocks publishers because of an alarm.
async fn publish(client: &Client, batch: &RideBatch) -> Result<String, ClientError> {
    let mut state = client.state();
    let mut publishing = pin!(client.publish(batch));
    loop {
        tokio::select! {
            biased;
            done = &mut publishing => return done,
            Ok(blocked) = state.wait_for(|now| matches!(now, ConnectionState::Blocked(_))) => {
                if let ConnectionState::Blocked(reason) = &*blocked {
                    eprintln!("the broker blocks publishers ({reason}); waiting until it accepts messages again");
                }
            }
        }
        tokio::select! {
            biased;
            done = &mut publishing => return done,
            _ = state.wait_for(|now| !matches!(now, ConnectionState::Blocked(_))) => {}
        }
    }
}

/// Returns the SHA-256 of a file, 64 hex digits.
async fn fingerprint(input: &Input) -> anyhow::Result<String> {
    let mut reader = input.reader()?;
    tokio::task::spawn_blocking(move || {
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            match reader.read(&mut buffer)? {
                0 => return Ok(hex::encode(hasher.finalize())),
                read => hasher.update(&buffer[..read]),
            }
        }
    })
    .await?
}

/// Ensures that the store has the file with this SHA-256. Replaces a damaged copy and reports it.
pub(super) async fn keep(store: &Store, input: &Input, object: &str, sha256: &str, quiet: bool) -> anyhow::Result<()> {
    match store::sha256(store, object).await? {
        Some(stored) if stored == sha256 => return Ok(()),
        Some(stored) => {
            let damage = format!("{object} in the store is damaged (its sha256 is {stored})");
            eprintln!("{damage}: replacing it by {}", input.shown.display());
        }
        None => {}
    }
    upload(store, input, object, sha256, quiet).await.with_context(|| format!("uploading to {object}"))
}

/// Uploads the file. The object becomes visible only if its bytes have this SHA-256.
async fn upload(store: &Store, input: &Input, object: &str, sha256: &str, quiet: bool) -> anyhow::Result<()> {
    let step = Step::start(format!("uploading {}", input.source), Unit::Bytes, input.size, quiet);
    let mut reader = tokio::fs::File::from_std(input.reader()?);
    let mut writer = Writer::new(store, object);
    loop {
        let mut buffer = bytes::BytesMut::with_capacity(1 << 20);
        if reader.read_buf(&mut buffer).await? == 0 {
            break;
        }
        writer.put(buffer.freeze()).await?;
        step.at(writer.bytes());
    }
    let sent = writer.bytes();
    if writer.sha256() != sha256 {
        writer.abort().await;
        anyhow::bail!(
            "the file changed while it was read: {sent} bytes now, {} at first. Nothing was published; submit it once it is written completely",
            input.size
        );
    }
    writer.finish().await?;
    step.done(sent);
    Ok(())
}
