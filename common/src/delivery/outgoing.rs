//! The messages that a handler returns to be published.

use super::{envelope::Properties, failure::Failure, reply_address::reply_address};
use crate::message::{Message, Route};
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use std::fmt;

/// An encoded message to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Name of the exchange without the namespace; empty for the default exchange (answers).
    pub exchange: &'static str,
    /// `name.vN`, or the name of the reply queue.
    pub routing_key: String,
    /// The runtime adds `app_id`, `timestamp` and `traceparent`.
    pub properties: Properties,
    /// The message as JSON.
    pub body: Bytes,
    /// Whether the publish fails if no queue takes the message. False for events and answers, which may have no reader.
    pub mandatory: bool,
}

impl Outgoing {
    /// Returns a persistent message to the exchange of its type, with its stable id.
    ///
    /// # Errors
    /// Fails permanently if the message cannot be encoded: the same input would fail again.
    pub fn message<M: Message>(message: &M) -> Result<Self, Failure> {
        Ok(Self {
            exchange: M::EXCHANGE,
            routing_key: M::KIND.to_string(),
            properties: Properties {
                kind: Some(M::KIND.to_string()),
                message_id: Some(message.message_id()),
                content_type: Some("application/json".to_owned()),
                persistent: true,
                ..Properties::default()
            },
            body: encode(message)?,
            mandatory: M::MANDATORY,
        })
    }

    /// Returns a request on its way to another worker: it keeps the reply address and the correlation id, so that the worker
    /// at the end of its way answers the client.
    ///
    /// # Errors
    /// As [`Outgoing::message`], and as [`reply_address`] if the request has no valid reply address.
    pub fn forward<M: Message>(
        message: &M,
        request: &Properties,
        route: &Route,
        expiration_ms: Option<u64>,
    ) -> Result<Self, Failure> {
        let reply_to = reply_address(request)?.to_owned();
        let mut forwarded = Self::message(message)?;
        forwarded.exchange = route.exchange;
        forwarded.properties.reply_to = Some(reply_to);
        forwarded.properties.correlation_id = correlation_id(request).map(str::to_owned);
        forwarded.properties.expiration_ms = expiration_ms;
        forwarded.properties.persistent = false;
        Ok(forwarded)
    }

    /// Returns the answer to a request `R` that was not read or not handled. `answer` makes it from the request's id, as far as
    /// the properties of the request tell it; `None` if the request has no valid reply address.
    pub fn refusal<R: Message, A: Message>(request: &Properties, answer: impl FnOnce(&str) -> A) -> Option<Self> {
        let named = correlation_id(request).unwrap_or_default();
        let request_id = named.strip_suffix(&format!("/{}", R::KIND.name)).unwrap_or(named);
        Self::reply(&answer(request_id), request).ok()
    }

    /// Returns an answer to `request`, through the default exchange.
    ///
    /// # Errors
    /// As [`Outgoing::message`], and as [`reply_address`] if the request has no valid reply address.
    pub fn reply<M: Message>(message: &M, request: &Properties) -> Result<Self, Failure> {
        let reply_to = reply_address(request)?.to_owned();
        let mut reply = Self::message(message)?;
        reply.exchange = "";
        reply.routing_key = reply_to;
        reply.properties.correlation_id = correlation_id(request).map(str::to_owned);
        reply.properties.persistent = false;
        // RabbitMQ 3.10 delivers a mandatory answer to direct reply-to *and* returns it.
        reply.mandatory = false;
        Ok(reply)
    }
}

/// Returns what an answer to the request has as correlation id: that of the request, or else its message id.
fn correlation_id(request: &Properties) -> Option<&str> {
    request.correlation_id.as_deref().or(request.message_id.as_deref())
}

fn encode<M: Message>(message: &M) -> Result<Bytes, Failure> {
    serde_json::to_vec(message).map(Bytes::from).map_err(|error| Failure::Permanent {
        reason: "unencodable",
        why: format!("{} cannot be written as JSON: {error}", M::KIND),
    })
}

/// The messages that a handler returns to be published. The runtime acknowledges the input after the last confirm.
///
/// Either a few messages, or a stream of any length. The runtime pulls the stream only as fast as the broker confirms,
/// so that a handler with gigabytes of output needs little memory.
pub struct Outputs(BoxStream<'static, Result<Outgoing, Failure>>);

impl Outputs {
    /// No message: the runtime only acknowledges the input.
    pub fn none() -> Self {
        Self::all(Vec::new())
    }

    /// One message.
    ///
    /// # Errors
    /// As [`Outgoing::message`].
    pub fn one<M: Message>(message: &M) -> Result<Self, Failure> {
        Ok(Self::all(vec![Outgoing::message(message)?]))
    }

    /// These messages, in this order.
    pub fn all(outgoing: Vec<Outgoing>) -> Self {
        Self(stream::iter(outgoing.into_iter().map(Ok)).boxed())
    }

    /// A lazy stream. An error in it fails the attempt, even if earlier messages are already published; everything
    /// downstream is idempotent.
    pub fn streamed(stream: impl futures::Stream<Item = Result<Outgoing, Failure>> + Send + 'static) -> Self {
        Self(stream.boxed())
    }

    /// Returns the messages as a stream.
    pub fn into_stream(self) -> BoxStream<'static, Result<Outgoing, Failure>> {
        self.0
    }
}

impl fmt::Debug for Outputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outputs")
    }
}
