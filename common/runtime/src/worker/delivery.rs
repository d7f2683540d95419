//! One delivery: handled, judged, settled. Nothing is acknowledged before whatever replaces it is confirmed.

use super::{
    ErasedWorker, compressed,
    obstacles::{Obstacles, Waiting},
};
use crate::{
    backoff::Backoff,
    broker::{Delivery, MESSAGE_BYTES_MAX, MESSAGE_TOO_LARGE, PublishError, Publisher},
    host,
    shutdown::Shutdown,
    trace::TraceContext,
    waiting::Recorder,
};
use common::{
    envelope::{self, Header, Properties},
    exchange,
    outcome::{Failure, History, Outgoing, Outputs, RetryPolicy, Verdict, decide},
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

/// Publishes of one handler awaiting their confirms at the same time.
const CONFIRM_WINDOW: usize = 32;
/// First and longest pause before a refused publish (a full queue) is tried again.
const REFUSED_PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// First and longest pause before a publish that this user may not make is tried again, and how often that is told.
const DENIED_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How long to wait for a full queue, or for a permission, before the input is set aside: below the broker's `consumer_timeout` of 30 minutes,
/// which would end the consumer and count against the delivery limit.
const REFUSED_MAX: Duration = Duration::from_secs(20 * 60);

/// Bytes kept of one line of history: the reason, and which attempt it was.
const HISTORY_LINE_BYTES_MAX: usize = envelope::WHY_BYTES_MAX + 20;
/// Bytes of the name of an exchange and of a routing key at most (AMQP 0-9-1 §4.2.5.3, short strings).
const SHORT_BYTES_MAX: usize = 255;

/// The connection cannot be used any more; every unacknowledged message will be delivered again.
pub(super) struct SessionBroken(pub(super) String);

pub(super) struct Deliverer {
    pub(super) worker: Arc<dyn ErasedWorker>,
    pub(super) publisher: Box<dyn Publisher>,
    pub(super) policy: RetryPolicy,
    pub(super) app_id: String,
    pub(super) handle_timeout: Duration,
    pub(super) shutdown: Shutdown,
    pub(super) obstacles: Obstacles,
    pub(super) recorder: Recorder,
}

/// How one attempt can end short of success.
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
    /// For messages that must get out whatever happens: retries, dead letters, answers.
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
        let trace = TraceContext::of(&properties).unwrap_or_default();
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
            loop {
                let failure = match self.attempt(&mut received, trace).await {
                    Ok(published) => {
                        debug!(elapsed_ms = started.elapsed().as_millis() as u64, published, "done");
                        None
                    }
                    Err(AttemptError::Failed(failure)) => Some(failure),
                    Err(AttemptError::Broken(broken)) => return Err(broken),
                };
                let Some(held) = self.conclude(received, failure, trace).await? else { break };
                if started.elapsed() > REFUSED_MAX {
                    return Err(SessionBroken(format!("held for {} s beside full rungs", REFUSED_MAX.as_secs())));
                }
                self.wait(Duration::from_millis(held.delay_ms), "beside full retry queues").await?;
                held.waiting.over();
                received = held.message;
            }
            settle.ack().await.map_err(|error| SessionBroken(error.to_string()))
        }
        .instrument(span)
        .await
    }

    /// Decodes, handles and publishes; the number of messages published.
    async fn attempt(&self, received: &mut Received, trace: TraceContext) -> Result<u64, AttemptError> {
        let Received { properties, body, routing_key, batch_id, .. } = received;
        let wire_kind = properties.kind.as_deref().or_else(|| kind_in_routing_key(routing_key));
        let handled = async {
            if body.len() > MESSAGE_BYTES_MAX {
                return Err(too_large(&PublishError::TooLarge { bytes: body.len() }));
            }
            // Checked before the request is handled: a client must not make a worker publish elsewhere.
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
        let pulled = under_deadline(outputs.into_stream(), self.handle_timeout);
        let publishing = pulled
            .map_err(AttemptError::Failed)
            .map_ok(|outgoing| self.publish(outgoing, trace))
            .try_buffer_unordered(CONFIRM_WINDOW)
            .try_fold(0, |published, ()| async move { Ok(published + 1) });
        match AssertUnwindSafe(publishing).catch_unwind().await {
            Ok(published) => published,
            Err(panic) => Err(panicked(panic.as_ref()).into()),
        }
    }

    /// Does what [`decide`] says, but for the acknowledgement: that is due unless the message is held.
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
        let judged = failure.as_ref().map_or(Ok(()), Err);
        match decide(judged, history, &self.policy, host::random_range(0.0..1.0)) {
            Verdict::Ack => self.no_longer_waits(history),
            Verdict::Retry { rung, delay_ms, next } => {
                let (outages, attempt) = match failure {
                    Some(Failure::Outage { .. }) => (next.outages, None),
                    _ => (0, Some(history.attempt)),
                };
                let why = failure.map(|failure| failure.to_string()).unwrap_or_default();
                let why: &str = &shorten(&why, envelope::WHY_BYTES_MAX);
                self.recorder.set_aside(why, received.batch_id.as_deref(), outages, attempt);
                warn!(why, delay_ms, next_attempt = next.attempt, outages = next.outages, "set aside");
                let queue = topology::rung_queue(self.worker.name(), rung);
                let (exchange, routing_key) = (received.exchange.clone(), received.routing_key.clone());
                let batch_id = received.batch_id.clone();
                let outgoing = traced(received.retried(queue, delay_ms, history, next, why), trace);
                match self.publisher.publish(outgoing.clone()).await {
                    Ok(()) => {}
                    // Not waited for: what the rung holds comes back only if somebody reads the queue meanwhile.
                    Err(
                        error @ (PublishError::Refused | PublishError::Denied { .. } | PublishError::Unroutable { .. }),
                    ) => {
                        let waiting = self.obstacles.meet(outgoing.exchange, &outgoing.routing_key);
                        self.tell(&waiting, &outgoing, &error);
                        let Outgoing { mut properties, body, .. } = outgoing;
                        properties.expiration_ms = None;
                        let message = Received { properties, body, exchange, routing_key, batch_id };
                        return Ok(Some(Held { message, delay_ms, waiting }));
                    }
                    Err(error) => return Err(SessionBroken(error.to_string())),
                }
            }
            Verdict::DeadLetter { reason, why } => {
                let why: &str = &shorten(&why, envelope::WHY_BYTES_MAX);
                error!(reason, why, "dead letter");
                let batch_id = received.batch_id.clone();
                let letter = traced(received.dead(self.worker.name(), history, reason, why), trace);
                self.publish_as_it_is(letter, batch_id.as_deref()).await?;
                self.no_longer_waits(history);
            }
        }
        Ok(None)
    }

    /// Notes that a message is done with, if it was set aside before.
    fn no_longer_waits(&self, history: History) {
        if history.attempt > 1 || history.outages > 0 {
            self.recorder.progress();
        }
    }

    /// With what every message carries that this worker writes.
    fn stamped(&self, mut outgoing: Outgoing, trace: TraceContext) -> Outgoing {
        outgoing.properties.app_id.get_or_insert_with(|| self.app_id.clone());
        outgoing.properties.timestamp.get_or_insert_with(unix_seconds);
        outgoing.properties.set_text(envelope::TRACEPARENT, trace.child().to_string());
        outgoing
    }

    /// Waits, unless the worker is asked to end: then the message is delivered again elsewhere.
    async fn wait(&self, pause: Duration, why: &str) -> Result<(), SessionBroken> {
        tokio::select! {
            biased;
            () = tokio::time::sleep(pause) => Ok(()),
            () = self.shutdown.cancelled() => Err(SessionBroken(format!("shut down while waiting {why}"))),
        }
    }

    /// Publishes until the broker has it; a full queue is waited for, which is how a slow stage pushes back.
    async fn publish(&self, outgoing: Outgoing, trace: TraceContext) -> Result<(), AttemptError> {
        check_answer(outgoing.exchange, &outgoing.routing_key)?;
        self.publish_as_it_is(self.stamped(outgoing, trace), None).await
    }

    /// `batch_id`: the batch of the dead letter, where it is one and names one.
    async fn publish_as_it_is(&self, outgoing: Outgoing, batch_id: Option<&str>) -> Result<(), AttemptError> {
        let is_letter = outgoing.exchange == exchange::DEAD;
        let mut refusals = 0;
        let mut refused_pauses = Backoff::new(REFUSED_PAUSE.0, REFUSED_PAUSE.1);
        let mut denied_pauses = Backoff::new(DENIED_PAUSE.0, DENIED_PAUSE.1);
        let started = Instant::now();
        let mut waiting = None;
        loop {
            match self.publisher.publish(outgoing.clone()).await {
                Ok(()) => {
                    if let Some(waiting) = waiting {
                        Waiting::over(waiting);
                        if is_letter {
                            self.recorder.progress();
                        }
                    }
                    return Ok(());
                }
                Err(PublishError::Refused) if !outgoing.mandatory => {
                    // An event or an answer whose taker is full is the taker's loss: it must not hold up the others.
                    warn!(routing_key = outgoing.routing_key, "not taken: the queue is full");
                    return Ok(());
                }
                Err(PublishError::Refused) if is_letter && topology::holds_requests(self.worker.name()) => {
                    // A client expects no answer after its deadline. If the worker waited for room for the letter, any
                    // client could stop the answers to all others.
                    warn!(queue = topology::dead_queue(&outgoing.routing_key), "full: the request is dropped");
                    return Ok(());
                }
                Err(PublishError::Refused) if started.elapsed() > REFUSED_MAX => {
                    let why = format!("full for {} s", REFUSED_MAX.as_secs());
                    return Err(Failure::outage("the queue after this stage", why).into());
                }
                Err(error @ PublishError::Refused) => {
                    let waiting =
                        waiting.get_or_insert_with(|| self.obstacles.meet(outgoing.exchange, &outgoing.routing_key));
                    let pause = refused_pauses.full();
                    if pause == REFUSED_PAUSE.1 {
                        self.tell(waiting, &outgoing, &error);
                    }
                    if is_letter {
                        refusals += 1;
                        self.recorder.set_aside(&no_room_for_letters(&outgoing.routing_key), batch_id, refusals, None);
                    }
                    self.wait(pause, "for a full queue").await.map_err(AttemptError::Broken)?;
                }
                // Waited out here, where the input stays in hand: connecting anew would count as a delivery each time.
                // A binding is missing, which whoever looks after the fleet makes anew: meanwhile the input waits on a rung.
                Err(error @ PublishError::Unroutable { .. }) if outgoing.exchange != exchange::DEAD => {
                    return Err(Failure::outage("a part of the topology", error).into());
                }
                Err(error @ (PublishError::Denied { .. } | PublishError::Unroutable { .. })) => {
                    if started.elapsed() > REFUSED_MAX {
                        return Err(Failure::outage("the way to publish", error).into());
                    }
                    let waiting =
                        waiting.get_or_insert_with(|| self.obstacles.meet(outgoing.exchange, &outgoing.routing_key));
                    self.tell(waiting, &outgoing, &error);
                    self.wait(denied_pauses.full(), "for a permission or a binding")
                        .await
                        .map_err(AttemptError::Broken)?;
                }
                Err(error @ PublishError::TooLarge { .. }) => return Err(too_large(&error).into()),
                Err(error) => return Err(AttemptError::Broken(SessionBroken(error.to_string()))),
            }
        }
    }
}

impl Deliverer {
    /// Tells of what is in the way: a full queue once; a missing permission and full dead letters, of which somebody has to take
    /// care, again and again.
    fn tell(&self, waiting: &Waiting<'_>, outgoing: &Outgoing, error: &PublishError) {
        let Outgoing { exchange, routing_key, .. } = outgoing;
        match error {
            PublishError::Denied { why, .. } => {
                if waiting.is_news(Some(DENIED_PAUSE.1)) {
                    error!(
                        exchange,
                        routing_key,
                        why,
                        "this user may not publish there: `wildrydes topology users` prints what each user needs, `wildrydes \
                         doctor` checks it; nothing is lost, tried again with growing pauses"
                    );
                }
            }
            PublishError::Unroutable { .. } => {
                if waiting.is_news(Some(DENIED_PAUSE.1)) {
                    error!(why = %error, "nothing is lost, tried again with growing pauses");
                }
            }
            _ if *exchange == exchange::RETRY => {
                if waiting.is_news(None) {
                    warn!(exchange, routing_key, "the rung is full: held and tried again here");
                }
            }
            // An operator has to make room.
            _ if *exchange == exchange::DEAD => {
                if waiting.is_news(Some(DENIED_PAUSE.1)) {
                    let why = no_room_for_letters(routing_key);
                    error!(exchange, routing_key, why, "the queue is full; the message waits in its queue");
                }
            }
            _ => {
                if waiting.is_news(None) {
                    warn!(exchange, routing_key, "the queue is full; waiting until it has room");
                }
            }
        }
    }
}

/// Why a dead letter waits, and what makes room for it.
fn no_room_for_letters(queue: &str) -> String {
    format!(
        "{} is full: `wildrydes dead list --summary`, then `wildrydes dead replay` or `wildrydes dead drop`",
        topology::dead_queue(queue)
    )
}

/// What goes on as it came, but for a trace where it has none: nobody here wrote it.
fn traced(mut outgoing: Outgoing, trace: TraceContext) -> Outgoing {
    let headers = &mut outgoing.properties.headers;
    headers.entry(envelope::TRACEPARENT.to_owned()).or_insert_with(|| Header::Text(trace.child().to_string()));
    outgoing
}

type OutgoingStream = BoxStream<'static, Result<Outgoing, Failure>>;

/// A lazy stream, each pull of which is as much work as a handler does and has the same deadline.
fn under_deadline(outputs: OutgoingStream, deadline: Duration) -> OutgoingStream {
    let pull = move |mut outputs: OutgoingStream| async move {
        match tokio::time::timeout(deadline, outputs.next()).await {
            Ok(next) => Some((next?, outputs)),
            Err(_) => Some((Err(too_slow(deadline)), stream::empty().boxed())),
        }
    };
    stream::unfold(outputs, pull).boxed()
}

fn too_large(error: &PublishError) -> Failure {
    Failure::permanent(MESSAGE_TOO_LARGE, error)
}

fn too_slow(deadline: Duration) -> Failure {
    Failure::transient(format!("the handler took longer than {} s", deadline.as_secs()))
}

/// A message that no rung takes: it stays here, as it would have come back.
struct Held<'a> {
    message: Received,
    delay_ms: u64,
    waiting: Waiting<'a>,
}

/// A delivery without its settlement: what a retry or a dead letter is made of.
struct Received {
    properties: Properties,
    body: bytes::Bytes,
    exchange: String,
    routing_key: String,
    /// The batch id that the body names, once the body was read.
    batch_id: Option<String>,
}

impl Received {
    fn history(&self) -> History {
        History { attempt: self.properties.attempt(), outages: self.properties.count(envelope::OUTAGES, 0) }
    }

    fn retried(self, rung_queue: String, delay_ms: u64, now: History, next: History, why: &str) -> Outgoing {
        let mut outgoing = self.republished(exchange::RETRY, rung_queue, now, why);
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

    /// The same body and properties, with one more line of history and where it was first published.
    fn republished(self, exchange: &'static str, routing_key: String, now: History, why: &str) -> Outgoing {
        let mut properties = self.properties;
        let line = format!("attempt {}: {}", now.attempt, why.replace('\n', " "));
        let before = properties.text(envelope::HISTORY).unwrap_or_default();
        // Whoever published it may have put anything there.
        let mut lines: Vec<_> =
            before.lines().chain([line.as_str()]).map(|line| shorten(line, HISTORY_LINE_BYTES_MAX)).collect();
        let kept = lines.split_off(lines.len().saturating_sub(envelope::HISTORY_LINES_MAX)).join("\n");
        properties.set_text(envelope::HISTORY, kept);
        let original = [envelope::ORIGINAL_EXCHANGE, envelope::ORIGINAL_ROUTING_KEY].map(|name| properties.text(name));
        // Workers write these headers on what they send to a retry queue. From a publisher, they could make an operator's replay
        // publish elsewhere.
        // AMQP knows no longer names: whatever that is, no worker wrote it.
        let noted = self.exchange == exchange::RETRY;
        if !noted || original.iter().any(|name| name.is_none_or(|name| name.len() > SHORT_BYTES_MAX)) {
            properties.set_text(envelope::ORIGINAL_EXCHANGE, self.exchange);
            properties.set_text(envelope::ORIGINAL_ROUTING_KEY, self.routing_key);
        }
        if let Some(expiration_ms) = properties.expiration_ms
            && !properties.headers.contains_key(envelope::ORIGINAL_EXPIRATION)
        {
            let kept = Header::Text(expiration_ms.to_string());
            properties.headers.insert(envelope::ORIGINAL_EXPIRATION.to_owned(), kept);
        }
        properties.persistent = true;
        Outgoing { exchange, routing_key, properties, body: self.body, mandatory: true }
    }
}

/// A foreign publisher may leave the type out; a routing key like `ride-batch.v2` says it as well.
fn kind_in_routing_key(routing_key: &str) -> Option<&str> {
    let (name, major) = routing_key.rsplit_once(".v")?;
    (!name.is_empty() && !major.is_empty() && major.bytes().all(|byte| byte.is_ascii_digit())).then_some(routing_key)
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Failure {
    let said = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Failure::transient(format!("the handler panicked: {}", said.unwrap_or("without a message")))
}

fn unix_seconds() -> u64 {
    u64::try_from(host::now().as_second()).unwrap_or(0)
}
