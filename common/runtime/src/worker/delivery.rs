//! Handles and settles one delivery. The input is acknowledged only after its outputs, its retry or its dead letter is
//! confirmed.

use super::{
    ErasedWorker, compressed,
    stalls::{Stalls, Waiting},
};
use crate::{
    backoff::Backoff,
    broker::{Delivery, MESSAGE_BYTES_MAX, MESSAGE_TOO_LARGE, PublishError, Publisher},
    host,
    metrics::metrics,
    shutdown::Shutdown,
    trace::{self, Kind, Span, TraceContext},
    waiting::Recorder,
};
use common::{
    envelope::{self, Header, Properties},
    exchange,
    outcome::{Decision, Failure, History, Outgoing, Outputs, RetryPolicy, decide},
    reply_address::{check_answer, reply_address},
    text::shorten,
    topology,
};
use futures::{
    FutureExt, StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tokio::time::Instant;
use tracing::{Instrument, debug, error, info_span, warn};

/// Maximum number of unconfirmed publishes of one handler.
const CONFIRM_WINDOW: usize = 32;
/// First and longest pause before the retry of a refused publish (a full queue).
const REFUSED_PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// First and longest pause before the retry of a publish that lacks a permission; the longest is also the interval
/// between its log lines.
const DENIED_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Maximum wait for a full queue or a permission before the input goes to a retry queue. Less than the broker's
/// `consumer_timeout` of 30 minutes, which would end the consumer and count towards the delivery limit.
const REFUSED_MAX: Duration = Duration::from_secs(20 * 60);

/// Maximum size in bytes of one line of history: the number of the attempt and the reason.
const HISTORY_LINE_BYTES_MAX: usize = envelope::WHY_BYTES_MAX + 20;
/// Maximum size in bytes of the name of an exchange and of a routing key (AMQP 0-9-1 §4.2.5.3, short strings).
const SHORT_BYTES_MAX: usize = 255;

/// The connection is unusable; the broker will redeliver every unacknowledged message.
pub(super) struct SessionBroken(pub(super) String);

pub(super) struct Deliverer {
    pub(super) worker: Arc<dyn ErasedWorker>,
    pub(super) publisher: Box<dyn Publisher>,
    pub(super) policy: RetryPolicy,
    pub(super) app_id: String,
    pub(super) handle_timeout: Duration,
    pub(super) shutdown: Shutdown,
    pub(super) stalls: Stalls,
    pub(super) recorder: Recorder,
}

/// Why one attempt did not succeed.
enum AttemptError {
    Failed(Failure),
    Broken(SessionBroken),
}

impl From<Failure> for AttemptError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<AttemptError> for SessionBroken {
    /// For messages that must be published: retries, dead letters and answers.
    fn from(error: AttemptError) -> Self {
        match error {
            AttemptError::Broken(broken) => broken,
            AttemptError::Failed(failure) => Self(failure.to_string()),
        }
    }
}

impl Deliverer {
    pub(super) async fn deliver(&self, delivery: Delivery) -> Result<(), SessionBroken> {
        let Delivery { properties, body, exchange, routing_key, redelivered, settle } = delivery;
        let cause = TraceContext::of(&properties);
        let mut traced = Span::start(Kind::Consumer, "process", cause, &[]);
        traced.set("messaging.system", "rabbitmq");
        traced.set("messaging.destination.name", self.worker.name());
        traced.set("messaging.message.id", properties.message_id.as_deref().unwrap_or_default());
        let trace = traced.context();
        let mut received = Received { properties, body, exchange, routing_key, batch_id: None };
        let properties = &received.properties;
        let span = info_span!(
            "delivery",
            worker = self.worker.name(),
            message_id = properties.message_id.as_deref().unwrap_or(""),
            batch_id = tracing::field::Empty,
            attempt = properties.attempt(),
            redelivered,
            trace_id = trace.trace_id(),
        );
        async {
            let started = Instant::now();
            metrics().consumed(self.worker.name());
            loop {
                let attempt = self.attempt(&mut received, trace);
                let failure = match trace::handling(&mut traced, cause, attempt).await {
                    Ok(published) => {
                        debug!(elapsed_ms = started.elapsed().as_millis() as u64, published, "done");
                        None
                    }
                    Err(AttemptError::Failed(failure)) => Some(failure),
                    Err(AttemptError::Broken(broken)) => return Err(broken),
                };
                let error = failure.as_ref().map_or("", Failure::code);
                metrics().handled(self.worker.name(), error, started.elapsed());
                traced.set("wildrydes.batch_id", received.batch_id.as_deref().unwrap_or_default());
                if let Some(failure) = &failure {
                    traced.fail(error, &failure.to_string());
                }
                let Some(held) = self.conclude(received, failure, trace).await? else { break };
                if started.elapsed() > REFUSED_MAX {
                    let why = format!("held for {} s because the retry queues are full", REFUSED_MAX.as_secs());
                    return Err(SessionBroken(why));
                }
                self.wait(Duration::from_millis(held.delay_ms), "for a full retry queue").await?;
                held.waiting.published();
                received = held.message;
            }
            settle.ack().await.map_err(|error| SessionBroken(error.to_string()))
        }
        .instrument(span)
        .await
    }

    /// Decodes, handles and publishes. Returns the number of published messages.
    async fn attempt(&self, received: &mut Received, trace: TraceContext) -> Result<u64, AttemptError> {
        let Received { properties, body, routing_key, batch_id, .. } = received;
        let wire_kind = properties.kind.as_deref().or_else(|| kind_in_routing_key(routing_key));
        let handled = async {
            if body.len() > MESSAGE_BYTES_MAX {
                return Err(too_large(&PublishError::TooLarge { bytes: body.len() }));
            }
            // Checked before the request is handled, so that a client cannot make a worker publish to other queues.
            if topology::holds_requests(self.worker.name()) && properties.reply_to.is_some() {
                reply_address(properties)?;
            }
            let decoded = match self.worker.decode(wire_kind, body) {
                Ok(decoded) => Ok(decoded),
                Err(why) => compressed::decode_again(&*self.worker, wire_kind, properties, body, why).await,
            };
            let decoded = match decoded {
                Ok(decoded) => decoded,
                Err(why) => match self.worker.answer_undecodable(properties, &why) {
                    Some(answer) => return Ok(Outputs::all(vec![answer])),
                    None => return Err(Failure::permanent(why.reason(), &why)),
                },
            };
            batch_id.clone_from(&decoded.batch_id);
            if let Some(batch_id) = batch_id {
                tracing::Span::current().record("batch_id", batch_id.as_str());
            }
            if decoded.kind.is_request() {
                reply_address(properties)?;
            }
            debug!(kind = %decoded.kind, "handling");
            (decoded.handle)(properties.clone()).await
        };
        let handled = tokio::time::timeout(self.handle_timeout, AssertUnwindSafe(handled).catch_unwind()).await;
        let outputs = match handled {
            Ok(Ok(outputs)) => outputs?,
            Ok(Err(panic)) => return Err(panicked(panic.as_ref()).into()),
            Err(_) => return Err(too_slow(self.handle_timeout).into()),
        };
        let limited = under_deadline(outputs.into_stream(), self.handle_timeout);
        let publishing = limited
            .map_err(AttemptError::Failed)
            .map_ok(|outgoing| self.publish(outgoing, trace))
            .try_buffer_unordered(CONFIRM_WINDOW)
            .try_fold(0, |published, ()| async move { Ok(published + 1) });
        match AssertUnwindSafe(publishing).catch_unwind().await {
            Ok(published) => published,
            Err(panic) => Err(panicked(panic.as_ref()).into()),
        }
    }

    /// Carries out what [`decide`] returns, except for the acknowledgement: the caller acknowledges unless the message
    /// is held.
    async fn conclude(
        &self,
        received: Received,
        failure: Option<Failure>,
        trace: TraceContext,
    ) -> Result<Option<Held<'_>>, SessionBroken> {
        if let Some(failure) = &failure
            && let Some(answer) = self.worker.answer_failure(&received.properties, failure)
            && check_answer(answer.exchange, &answer.routing_key).is_ok()
        {
            warn!(failure = %shorten(&failure.to_string(), envelope::WHY_BYTES_MAX), "answered with an error");
            self.publish(answer, trace).await?;
            return Ok(None);
        }
        let history = received.history();
        let outcome = failure.as_ref().map_or(Ok(()), Err);
        match decide(outcome, history, &self.policy, host::random_range(0.0..1.0)) {
            Decision::Ack => self.no_longer_waits(history),
            Decision::Retry { retry_queue, delay_ms, next } => {
                let reason = failure.as_ref().map_or("", Failure::code);
                let (outages, attempt, dependency) = match failure {
                    Some(Failure::Outage { dependency, .. }) => (next.outages, None, Some(dependency)),
                    _ => (0, Some(history.attempt), None),
                };
                let why = failure.map(|failure| failure.to_string()).unwrap_or_default();
                let why: &str = &shorten(&why, envelope::WHY_BYTES_MAX);
                self.recorder.set_aside(why, received.batch_id.as_deref(), outages, attempt);
                metrics().retry(self.worker.name(), reason);
                if let Some(dependency) = dependency {
                    metrics().outage(self.worker.name(), dependency);
                }
                warn!(why, delay_ms, next_attempt = next.attempt, outages = next.outages, "set aside");
                let queue = topology::retry_queue(self.worker.name(), retry_queue);
                let (exchange, routing_key) = (received.exchange.clone(), received.routing_key.clone());
                let batch_id = received.batch_id.clone();
                let outgoing = traced(received.retried(queue, delay_ms, history, next, why), trace);
                match self.publisher.publish(outgoing.clone()).await {
                    Ok(()) => {}
                    // Not awaited: a full retry queue has room again only if a worker reads the work queue meanwhile.
                    Err(
                        error @ (PublishError::Refused | PublishError::Denied { .. } | PublishError::Unroutable { .. }),
                    ) => {
                        let waiting = self.stalls.enter(outgoing.exchange, &outgoing.routing_key);
                        self.report(&waiting, &outgoing, &error);
                        let Outgoing { mut properties, body, .. } = outgoing;
                        properties.expiration_ms = None;
                        let message = Received { properties, body, exchange, routing_key, batch_id };
                        return Ok(Some(Held { message, delay_ms, waiting }));
                    }
                    Err(error) => return Err(SessionBroken(error.to_string())),
                }
            }
            Decision::DeadLetter { reason, why } => {
                let why: &str = &shorten(&why, envelope::WHY_BYTES_MAX);
                error!(reason, why, "dead letter");
                metrics().dead_letter(self.worker.name(), reason);
                let batch_id = received.batch_id.clone();
                let dead_letter = traced(received.dead(self.worker.name(), history, reason, why), trace);
                self.publish_unchanged(dead_letter, batch_id.as_deref()).await?;
                self.no_longer_waits(history);
            }
        }
        Ok(None)
    }

    /// Records that a message is finished, if it waited before.
    fn no_longer_waits(&self, history: History) {
        if history.attempt > 1 || history.outages > 0 {
            self.recorder.progress();
        }
    }

    /// Adds the properties that every message of this worker carries.
    fn stamped(&self, mut outgoing: Outgoing, published: &Span) -> Outgoing {
        outgoing.properties.app_id.get_or_insert_with(|| self.app_id.clone());
        outgoing.properties.timestamp.get_or_insert_with(unix_seconds);
        outgoing.properties.set_text(envelope::TRACEPARENT, published.context().to_string());
        outgoing
    }

    /// Waits; fails on a shutdown request, after which the message is delivered again elsewhere.
    async fn wait(&self, pause: Duration, why: &str) -> Result<(), SessionBroken> {
        tokio::select! {
            biased;
            () = tokio::time::sleep(pause) => Ok(()),
            () = self.shutdown.cancelled() => Err(SessionBroken(format!("shut down while waiting {why}"))),
        }
    }

    /// Publishes until the broker confirms. Waits for a full queue: in this way a slow stage exerts back-pressure.
    async fn publish(&self, outgoing: Outgoing, trace: TraceContext) -> Result<(), AttemptError> {
        check_answer(outgoing.exchange, &outgoing.routing_key)?;
        let published = Span::publish(outgoing.exchange, &outgoing.routing_key, &[trace]);
        self.publish_unchanged(self.stamped(outgoing, &published), None).await
    }

    /// As [`Self::publish`], without adding properties. `batch_id` is the batch of a dead letter that names one.
    async fn publish_unchanged(&self, outgoing: Outgoing, batch_id: Option<&str>) -> Result<(), AttemptError> {
        let is_dead_letter = outgoing.exchange == exchange::DEAD;
        // On its way to another worker, while a client waits: the client gets the error at once, and the slot is free for others.
        let is_request = outgoing.mandatory && !is_dead_letter && topology::holds_requests(self.worker.name());
        let mut refusals = 0;
        let mut refused_pauses = Backoff::new(REFUSED_PAUSE.0, REFUSED_PAUSE.1);
        let mut denied_pauses = Backoff::new(DENIED_PAUSE.0, DENIED_PAUSE.1);
        let started = Instant::now();
        let mut waiting = None;
        loop {
            match self.publisher.publish(outgoing.clone()).await {
                Ok(()) => {
                    if let Some(waiting) = waiting {
                        Waiting::published(waiting);
                        if is_dead_letter {
                            self.recorder.progress();
                        }
                    }
                    return Ok(());
                }
                Err(PublishError::Refused) if !outgoing.mandatory => {
                    // An event or answer for a full queue is lost, so that a slow reader does not delay the others.
                    warn!(routing_key = outgoing.routing_key, "not delivered: the queue is full");
                    return Ok(());
                }
                Err(PublishError::Refused) if is_dead_letter && topology::holds_requests(self.worker.name()) => {
                    // A client expects no answer after its deadline. If the worker waited for room for the dead letter,
                    // any client could stop the answers to all others.
                    warn!(queue = topology::dead_queue(&outgoing.routing_key), "full: the request is dropped");
                    return Ok(());
                }
                Err(PublishError::Refused) if is_request || started.elapsed() > REFUSED_MAX => {
                    let why =
                        if is_request { "full".to_owned() } else { format!("full for {} s", REFUSED_MAX.as_secs()) };
                    return Err(Failure::outage("the queue after this stage", why).into());
                }
                Err(error @ PublishError::Refused) => {
                    let waiting =
                        waiting.get_or_insert_with(|| self.stalls.enter(outgoing.exchange, &outgoing.routing_key));
                    let pause = refused_pauses.full();
                    if pause == REFUSED_PAUSE.1 {
                        self.report(waiting, &outgoing, &error);
                    }
                    if is_dead_letter {
                        refusals += 1;
                        let why = full_dead_letter_queue(&outgoing.routing_key);
                        self.recorder.set_aside(&why, batch_id, refusals, None);
                    }
                    self.wait(pause, "for a full queue").await.map_err(AttemptError::Broken)?;
                }
                // A binding is missing: the input waits in a retry queue until an operator restores it.
                Err(error @ PublishError::Unroutable { .. }) if outgoing.exchange != exchange::DEAD => {
                    return Err(Failure::outage("a part of the topology", error).into());
                }
                // Retried here while the input stays unacknowledged: each reconnect would count as a delivery.
                Err(error @ (PublishError::Denied { .. } | PublishError::Unroutable { .. })) => {
                    if is_request || started.elapsed() > REFUSED_MAX {
                        return Err(Failure::outage("the way to publish", error).into());
                    }
                    let waiting =
                        waiting.get_or_insert_with(|| self.stalls.enter(outgoing.exchange, &outgoing.routing_key));
                    self.report(waiting, &outgoing, &error);
                    self.wait(denied_pauses.full(), "for an operator").await.map_err(AttemptError::Broken)?;
                }
                Err(error @ PublishError::TooLarge { .. }) => return Err(too_large(&error).into()),
                Err(error) => return Err(AttemptError::Broken(SessionBroken(error.to_string()))),
            }
        }
    }
}

impl Deliverer {
    /// Logs why a publish stalls: a full queue once; a missing permission or binding and a full dead-letter queue
    /// repeatedly, because they need an operator.
    fn report(&self, waiting: &Waiting<'_>, outgoing: &Outgoing, error: &PublishError) {
        let Outgoing { exchange, routing_key, .. } = outgoing;
        match error {
            PublishError::Denied { why, .. } => {
                if waiting.is_due(Some(DENIED_PAUSE.1)) {
                    error!(
                        exchange,
                        routing_key,
                        why,
                        "this user may not publish there: `wildrydes topology users` prints what each user needs, `wildrydes \
                         doctor` checks it; nothing is lost, retries continue with growing pauses"
                    );
                }
            }
            PublishError::Unroutable { .. } => {
                if waiting.is_due(Some(DENIED_PAUSE.1)) {
                    error!(why = %error, "nothing is lost, retries continue with growing pauses");
                }
            }
            _ if *exchange == exchange::RETRY => {
                if waiting.is_due(None) {
                    warn!(exchange, routing_key, "the retry queue is full: the message waits in this process");
                }
            }
            // An operator has to make room.
            _ if *exchange == exchange::DEAD => {
                if waiting.is_due(Some(DENIED_PAUSE.1)) {
                    let why = full_dead_letter_queue(routing_key);
                    error!(exchange, routing_key, why, "the queue is full; the message waits in its queue");
                }
            }
            _ => {
                if waiting.is_due(None) {
                    warn!(exchange, routing_key, "the queue is full; waiting until it has room");
                }
            }
        }
    }
}

/// Returns why a dead letter waits, and how to make room for it.
fn full_dead_letter_queue(queue: &str) -> String {
    format!(
        "{} is full: `wildrydes dead list --summary`, then `wildrydes dead replay` or `wildrydes dead drop`",
        topology::dead_queue(queue)
    )
}

/// Forwards a foreign message unchanged, adding a trace context if it has none.
fn traced(mut outgoing: Outgoing, trace: TraceContext) -> Outgoing {
    let headers = &mut outgoing.properties.headers;
    headers.entry(envelope::TRACEPARENT.to_owned()).or_insert_with(|| Header::Text(trace.to_string()));
    outgoing
}

type OutgoingStream = BoxStream<'static, Result<Outgoing, Failure>>;

/// Applies the deadline of a handler to each output of a lazy stream, because an output takes as much work as a handler.
fn under_deadline(outputs: OutgoingStream, deadline: Duration) -> OutgoingStream {
    let next = move |mut outputs: OutgoingStream| async move {
        match tokio::time::timeout(deadline, outputs.next()).await {
            Ok(next) => Some((next?, outputs)),
            Err(_) => Some((Err(too_slow(deadline)), stream::empty().boxed())),
        }
    };
    stream::unfold(outputs, next).boxed()
}

fn too_large(error: &PublishError) -> Failure {
    Failure::permanent(MESSAGE_TOO_LARGE, error)
}

fn too_slow(deadline: Duration) -> Failure {
    Failure::transient(format!("the handler took longer than {} s", deadline.as_secs()))
}

/// A message that its retry queue refuses. It waits in this process and is then handled as if it had returned from the
/// retry queue.
struct Held<'a> {
    message: Received,
    delay_ms: u64,
    waiting: Waiting<'a>,
}

/// A delivery without its settlement, from which a retry or a dead letter is built.
struct Received {
    properties: Properties,
    body: bytes::Bytes,
    exchange: String,
    routing_key: String,
    /// Batch id that the body names, once it is decoded.
    batch_id: Option<String>,
}

impl Received {
    fn history(&self) -> History {
        History { attempt: self.properties.attempt(), outages: self.properties.count(envelope::OUTAGES, 0) }
    }

    fn retried(self, retry_queue: String, delay_ms: u64, now: History, next: History, why: &str) -> Outgoing {
        let mut outgoing = self.republished(exchange::RETRY, retry_queue, now, why);
        outgoing.properties.set_count(envelope::ATTEMPT, next.attempt);
        outgoing.properties.set_count(envelope::OUTAGES, next.outages);
        outgoing.properties.expiration_ms = Some(delay_ms);
        outgoing.properties.fit_headers();
        outgoing
    }

    fn dead(self, queue: &str, now: History, reason: &str, why: &str) -> Outgoing {
        let mut outgoing = self.republished(exchange::DEAD, queue.to_owned(), now, why);
        outgoing.properties.set_text(envelope::REASON, reason);
        outgoing.properties.set_text(envelope::WHY, why);
        outgoing.properties.set_text(envelope::DEAD_AT, host::now().strftime("%FT%TZ").to_string());
        outgoing.properties.expiration_ms = None;
        outgoing.properties.fit_headers();
        outgoing
    }

    /// Returns the same body and properties with one more line of history and the origin of the message.
    fn republished(self, exchange: &'static str, routing_key: String, now: History, why: &str) -> Outgoing {
        let mut properties = self.properties;
        let line = format!("attempt {}: {}", now.attempt, why.replace('\n', " "));
        let before = properties.text(envelope::HISTORY).unwrap_or_default();
        // A publisher may have set the header to any text.
        let mut lines: Vec<_> =
            before.lines().chain([line.as_str()]).map(|line| shorten(line, HISTORY_LINE_BYTES_MAX)).collect();
        let history = lines.split_off(lines.len().saturating_sub(envelope::HISTORY_LINES_MAX)).join("\n");
        properties.set_text(envelope::HISTORY, history);
        let original = [envelope::ORIGINAL_EXCHANGE, envelope::ORIGINAL_ROUTING_KEY].map(|name| properties.text(name));
        // Only workers set these headers, on messages to a retry queue. Headers from a publisher could make an
        // operator's replay publish elsewhere. Longer names are invalid in AMQP, so no worker wrote them.
        let is_retry = self.exchange == exchange::RETRY;
        if !is_retry || original.iter().any(|name| name.is_none_or(|name| name.len() > SHORT_BYTES_MAX)) {
            properties.set_text(envelope::ORIGINAL_EXCHANGE, self.exchange);
            properties.set_text(envelope::ORIGINAL_ROUTING_KEY, self.routing_key);
        }
        if let Some(expiration_ms) = properties.expiration_ms
            && !properties.headers.contains_key(envelope::ORIGINAL_EXPIRATION)
        {
            let original = Header::Text(expiration_ms.to_string());
            properties.headers.insert(envelope::ORIGINAL_EXPIRATION.to_owned(), original);
        }
        properties.persistent = true;
        Outgoing { exchange, routing_key, properties, body: self.body, mandatory: true }
    }
}

/// Returns a routing key that has the form of a message kind, for example `ride-batch.v2`: a foreign publisher may omit
/// the type.
fn kind_in_routing_key(routing_key: &str) -> Option<&str> {
    let (name, major) = routing_key.rsplit_once(".v")?;
    (!name.is_empty() && !major.is_empty() && major.bytes().all(|byte| byte.is_ascii_digit())).then_some(routing_key)
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Failure {
    let message = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Failure::transient(format!("the handler panicked: {}", message.unwrap_or("without a message")))
}

fn unix_seconds() -> u64 {
    u64::try_from(host::now().as_second()).unwrap_or(0)
}
