//! What a handler wants published.

use super::{envelope::Properties, failure::Failure, reply_address::reply_address};
use crate::message::Message;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use std::fmt;

/// A message on its way out, encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Exchange by its logical name; empty for the default exchange (replies).
    pub exchange: &'static str,
    /// `name.vN`, or the reply queue.
    pub routing_key: String,
    /// Properties; the runtime adds `app_id`, `timestamp` and `traceparent`.
    pub properties: Properties,
    /// JSON.
    pub body: Bytes,
    /// Whether a message that no queue takes is a failure. Events and replies may find nobody.
    pub mandatory: bool,
}

impl Outgoing {
    /// A message to the exchange its type belongs to, persistent, with its stable id.
    ///
    /// # Errors
    /// When it cannot be encoded, which is permanent: the same input would fail again.
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

    /// An answer to `request`, through the default exchange.
    ///
    /// # Errors
    /// As [`Outgoing::message`], and as [`reply_address`] if the request names no queue that a worker answers to.
    pub fn reply<M: Message>(message: &M, request: &Properties) -> Result<Self, Failure> {
        let reply_to = reply_address(request)?.to_owned();
        let correlation_id = request.correlation_id.clone().or_else(|| request.message_id.clone());
        let mut reply = Self::message(message)?;
        reply.exchange = "";
        reply.routing_key = reply_to;
        reply.properties.correlation_id = correlation_id;
        reply.properties.persistent = false;
        // 3.10 delivers a mandatory reply to direct reply-to *and* returns it.
        reply.mandatory = false;
        Ok(reply)
    }
}

fn encode<M: Message>(message: &M) -> Result<Bytes, Failure> {
    serde_json::to_vec(message).map(Bytes::from).map_err(|error| Failure::Permanent {
        reason: "unencodable",
        why: format!("{} cannot be written as JSON: {error}", M::KIND),
    })
}

/// What a handler wants published. Nothing is acknowledged before all of it is confirmed.
///
/// Either a handful of messages, or a stream of any length that the runtime pulls only as fast as the broker confirms,
/// so that a handler with gigabytes to say stays small.
pub struct Outputs(BoxStream<'static, Result<Outgoing, Failure>>);

impl Outputs {
    /// Nothing to say: the input is just acknowledged.
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

    /// A lazy stream; an error in it fails the attempt, whatever was already published (everything downstream is
    /// idempotent).
    pub fn streamed(stream: impl futures::Stream<Item = Result<Outgoing, Failure>> + Send + 'static) -> Self {
        Self(stream.boxed())
    }

    /// The messages, to be pulled.
    pub fn into_stream(self) -> BoxStream<'static, Result<Outgoing, Failure>> {
        self.0
    }
}

impl fmt::Debug for Outputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outputs")
    }
}
