//! Takes a batch from a request's body to the splitter's queue: stores it in the object store, then publishes a reference.

use crate::{
    app::App,
    http::{
        extract::BodyPieces,
        problem::{Problem, error_chain, store_failed},
    },
};
use common::{
    dead_letter::BATCH_ID_CONFLICT,
    document::Upload,
    message::{BatchContent, Message, RideBatch},
    outcome::Failure,
};
use records::{
    layout,
    store::{Writer, Written},
    uploads::{self, KEY_REUSED, Request},
};
use runtime::host;

/// A batch that was accepted.
pub(crate) struct AcceptedUpload {
    pub(crate) upload: Upload,
    pub(crate) trace_id: String,
    /// Whether a damaged copy of these bytes in the store was replaced.
    pub(crate) repaired: bool,
}

/// Accepts a batch. Returns after the broker has confirmed the reference.
///
/// # Errors
/// Fails if the body is too large, too slow or empty, if the id or the idempotency key stands for another batch, or if the
/// broker or the store fails.
pub(crate) async fn accept(app: &App, request: Request<'_>, body: &mut BodyPieces) -> Result<AcceptedUpload, Problem> {
    // Checked first: no client should upload gigabytes before it learns that the broker is down.
    app.link.publisher()?;
    let incoming = receive(app, body).await?;
    let kept = uploads::keep(&app.store, &app.batch_log, &incoming, &request, host::now(), app.deadline()).await;
    let (mut upload, repaired) = kept.map_err(|failure| match failure {
        Failure::Permanent { reason: BATCH_ID_CONFLICT, why } => Problem::conflict(why),
        Failure::Permanent { reason: KEY_REUSED, why } => Problem::unprocessable("idempotency-key-reused", why),
        other => store_failed(other),
    })?;
    let published = publish(app, request, &upload).await;
    if !upload.confirmed {
        let recorded = match &published {
            // The batch is queued even if its record cannot be written.
            Ok(_) => uploads::confirm(&app.store, &mut upload).await,
            Err(_) => uploads::release(&app.store, &upload).await,
        };
        if let Err(failure) = recorded {
            let (batch_id, is_published) = (&upload.batch_id, published.is_ok());
            tracing::warn!(batch_id, is_published, "cannot update the record of this upload: {failure}");
        }
    }
    Ok(AcceptedUpload { upload, trace_id: published?, repaired })
}

/// Publishes the reference. Returns the trace id after the broker has confirmed it.
async fn publish(app: &App, request: Request<'_>, upload: &Upload) -> Result<String, Problem> {
    let batch = RideBatch {
        batch_id: request.batch_id,
        source: request.source,
        reading: request.reading,
        refresh: None,
        content: BatchContent::Reference { object: upload.object.clone(), sha256: upload.sha256.clone() },
    };
    batch.check().map_err(|why| Problem::unprocessable("invalid-batch", why.to_string()))?;
    let client = app.link.publisher()?;
    let published = tokio::time::timeout(app.deadline(), client.publish(&batch)).await;
    let detail =
        "the batch is stored, but the broker did not confirm it in time; submit it again, which changes nothing else";
    published.map_err(|_| Problem::no_answer(detail))?.map_err(|error| {
        let detail = format!("the broker did not accept the batch: {}; submit it again", error_chain(&error));
        Problem::unavailable("not-published", detail)
    })
}

/// Writes the body to the store under a temporary name.
async fn receive(app: &App, body: &mut BodyPieces) -> Result<Written, Problem> {
    body.take_slot().await?;
    let mut writer = Writer::new(&app.store, &layout::incoming(host::random_range(0..=u128::MAX)));
    match write_all(app, body, &mut writer).await {
        Ok(()) => writer.finish().await.map_err(store_failed),
        Err(problem) => {
            writer.abort().await;
            Err(problem)
        }
    }
}

async fn write_all(app: &App, body: &mut BodyPieces, writer: &mut Writer) -> Result<(), Problem> {
    let max = app.settings.upload_bytes_max;
    while let Some(piece) = body.next().await? {
        let bytes = piece.len() as u64;
        if writer.bytes() + bytes > max {
            return Err(Problem::too_large(format!(
                "the batch is larger than {max} bytes, the maximum (gateway.upload_bytes_max)"
            )));
        }
        app.metrics.uploaded(bytes);
        writer.put(piece).await.map_err(store_failed)?;
    }
    match writer.bytes() {
        0 => Err(Problem::unprocessable("empty-batch", "the body is empty: expected rides")),
        _ => Ok(()),
    }
}
