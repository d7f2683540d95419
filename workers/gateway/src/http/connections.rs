//! The open connections, and which one is closed for a new one.

use crate::{
    limits::{Limit, LogThrottle},
    metrics::Metrics,
};
use futures::task::AtomicWaker;
use parking_lot::Mutex;
use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// How long a client may take for the head of a request, from its first byte or from the previous answer.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an idle connection stays open. HTTP/1 connections end earlier, with [`HEAD_TIMEOUT`].
const IDLE_MAX: Duration = Duration::from_secs(75);
/// Maximum number of connections beyond the limit that hold their descriptor while they are being closed.
const CLOSING_MAX: usize = 64;

/// Why a new connection is refused: every other connection, of all or of its peer, has a request in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Full {
    Total,
    Peer,
}

/// The stage of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It has not sent the complete head of a request yet.
    Headless,
    /// This many requests are in progress.
    Busy(u32),
    /// Every request was answered.
    Idle,
    /// It is being closed and no longer counts.
    Closing,
}

/// Order in which connections may be closed for another one: first those without a head, then idle ones; the oldest first.
type Turn = (bool, u64, u64);

struct Entry {
    peer: IpAddr,
    stage: Stage,
    since: Instant,
    turn: Turn,
}

#[derive(Default)]
struct PeerConnections {
    open: usize,
    closable: BTreeSet<Turn>,
}

/// The pure state of all connections: no socket, no clock.
struct Table {
    total_max: usize,
    per_peer_max: usize,
    /// Connections that count.
    open: usize,
    next: u64,
    entries: HashMap<u64, Entry>,
    closable: BTreeSet<Turn>,
    peers: HashMap<IpAddr, PeerConnections>,
}

impl Table {
    fn new(total_max: usize, per_peer_max: usize) -> Self {
        let (entries, closable, peers) = (HashMap::new(), BTreeSet::new(), HashMap::new());
        Self { total_max, per_peer_max, open: 0, next: 0, entries, closable, peers }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Accepts a connection of this peer. Returns its id, and the connection that must be closed for it.
    fn admit(&mut self, peer: IpAddr, now: Instant) -> Result<(u64, Option<(u64, Limit)>), Full> {
        let peer = network(peer);
        let of_peer = self.peers.get(&peer);
        // If one peer may have all connections, only the total counts.
        let is_bounded = self.per_peer_max < self.total_max;
        let closed = if is_bounded && of_peer.is_some_and(|of_peer| of_peer.open >= self.per_peer_max) {
            let first = of_peer.and_then(|of_peer| of_peer.closable.first().copied());
            Some((first.ok_or(Full::Peer)?, Limit::ConnectionsPerPeer))
        } else if self.open >= self.total_max {
            Some((self.closable.first().copied().ok_or(Full::Total)?, Limit::Connections))
        } else {
            None
        };
        if let Some(((.., id), _)) = closed {
            self.close(id);
        }
        let id = self.number();
        let turn = (false, id, id);
        self.entries.insert(id, Entry { peer, stage: Stage::Headless, since: now, turn });
        self.open += 1;
        let of_peer = self.peers.entry(peer).or_default();
        of_peer.open += 1;
        of_peer.closable.insert(turn);
        self.closable.insert(turn);
        Ok((id, closed.map(|((.., closed), limit)| (closed, limit))))
    }

    /// Records that a request begins.
    fn begins(&mut self, id: u64) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        match &mut entry.stage {
            Stage::Closing => return,
            Stage::Busy(requests) => *requests += 1,
            stage => *stage = Stage::Busy(1),
        }
        self.closable.remove(&entry.turn);
        if let Some(of_peer) = self.peers.get_mut(&entry.peer) {
            of_peer.closable.remove(&entry.turn);
        }
    }

    /// Records that a request ends, after its complete answer.
    fn ends(&mut self, id: u64, now: Instant) {
        let number = self.number();
        let Some(entry) = self.entries.get_mut(&id) else { return };
        match &mut entry.stage {
            Stage::Busy(requests) if *requests > 1 => *requests -= 1,
            Stage::Busy(_) => {
                (entry.stage, entry.since, entry.turn) = (Stage::Idle, now, (true, number, id));
                self.closable.insert(entry.turn);
                if let Some(of_peer) = self.peers.get_mut(&entry.peer) {
                    of_peer.closable.insert(entry.turn);
                }
            }
            Stage::Headless | Stage::Idle | Stage::Closing => {}
        }
    }

    /// Stops counting a connection; it stays in the table until [`Self::release`].
    fn close(&mut self, id: u64) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if entry.stage == Stage::Closing {
            return;
        }
        entry.stage = Stage::Closing;
        self.open -= 1;
        self.closable.remove(&entry.turn);
        if let Some(of_peer) = self.peers.get_mut(&entry.peer) {
            of_peer.open -= 1;
            of_peer.closable.remove(&entry.turn);
            if of_peer.open == 0 {
                self.peers.remove(&entry.peer);
            }
        }
    }

    /// Removes a connection that is gone. Returns when it was opened, if it never sent a head.
    fn release(&mut self, id: u64) -> Option<Instant> {
        let stage = self.entries.get(&id)?.stage;
        self.close(id);
        let entry = self.entries.remove(&id)?;
        (stage == Stage::Headless).then_some(entry.since)
    }

    /// Returns the connections that have been idle since before `then`.
    fn idle_since(&self, then: Instant) -> Vec<u64> {
        let idle = self.closable.range((true, 0, 0)..).map(|&(.., id)| id);
        idle.take_while(|id| self.entries.get(id).is_some_and(|entry| entry.since < then)).collect()
    }

    /// Returns when the oldest connection without a head was opened.
    fn oldest_headless(&self) -> Option<Instant> {
        let &(is_idle, _, id) = self.closable.first()?;
        self.entries.get(&id).filter(|_| !is_idle).map(|entry| entry.since)
    }
}

/// Returns the address that identifies a peer: for IPv6 its /64, because one client usually has all of it.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        address => address,
    }
}

/// What the table tells the task of a connection.
#[derive(Default)]
struct Line {
    closed: AtomicBool,
    waker: AtomicWaker,
    /// When the waiting write began, in milliseconds since [`Connections::start`] plus one; 0 if no write waits.
    blocked_since: AtomicU64,
}

impl Line {
    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.waker.wake();
    }
}

struct Inner {
    table: Table,
    lines: HashMap<u64, Arc<Line>>,
}

/// All connections of one listener.
pub(crate) struct Connections {
    inner: Mutex<Inner>,
    total: Limit,
    start: Instant,
    released: Notify,
    metrics: Arc<Metrics>,
    log: LogThrottle,
}

/// Current use of the limits.
#[derive(Debug, PartialEq)]
pub(crate) struct Usage {
    pub(crate) total_max: usize,
    pub(crate) per_peer_max: usize,
    pub(crate) open: usize,
    /// Number of connections of the peer that has the most.
    pub(crate) open_of_a_peer: usize,
    /// Age of the oldest connection without the head of its first request.
    pub(crate) headless: Duration,
    /// How long the longest waiting write has waited.
    pub(crate) write: Duration,
}

impl Connections {
    /// Creates an empty table. `total` is the limit that counts connections beyond `total_max`.
    pub(crate) fn new(total_max: usize, per_peer_max: usize, total: Limit, metrics: &Arc<Metrics>) -> Arc<Self> {
        let inner = Mutex::new(Inner { table: Table::new(total_max, per_peer_max), lines: HashMap::new() });
        let (released, metrics, log) = (Notify::new(), Arc::clone(metrics), LogThrottle::default());
        Arc::new(Self { inner, total, start: Instant::now(), released, metrics, log })
    }

    /// Accepts a connection, and closes another one for it if the limit is reached. Returns `None` if every other connection has a
    /// request in progress: the new one is refused.
    pub(crate) fn admit(self: &Arc<Self>, peer: IpAddr) -> Option<Arc<Connection>> {
        let mut inner = self.inner.lock();
        let (admitted, limit) = match inner.table.admit(peer, Instant::now()) {
            Ok((id, closed)) => {
                if let Some(line) = closed.and_then(|(closed, _)| inner.lines.get(&closed)) {
                    line.close();
                }
                let line = Arc::new(Line::default());
                inner.lines.insert(id, Arc::clone(&line));
                let connection =
                    Arc::new(Connection { id, network: network(peer), line, connections: Arc::clone(self) });
                (Some(connection), closed.map(|(_, limit)| limit))
            }
            Err(Full::Total) => (None, Some(Limit::Connections)),
            Err(Full::Peer) => (None, Some(Limit::ConnectionsPerPeer)),
        };
        drop(inner);
        if let Some(limit) = limit {
            let limit = if limit == Limit::Connections { self.total } else { limit };
            self.metrics.limits().refused(limit);
            if let Some(count) = self.log.due(Instant::now()) {
                let limit = limit.into_str();
                tracing::warn!(limit, count, %peer, "a limit on connections is reached: idle ones are closed, or new ones refused");
            }
        }
        admitted
    }

    /// Waits until connections that are being closed have released their descriptors.
    pub(crate) async fn room(&self) {
        loop {
            let released = self.released.notified();
            let is_full = {
                let inner = self.inner.lock();
                inner.table.entries.len() > inner.table.total_max + CLOSING_MAX
            };
            // A blocked task must not stop the others.
            if !is_full || tokio::time::timeout(Duration::from_secs(1), released).await.is_err() {
                return;
            }
        }
    }

    /// Closes the connection that is first in the order of closing.
    pub(crate) fn close_one(&self) {
        let mut inner = self.inner.lock();
        if let Some((.., id)) = inner.table.closable.first().copied() {
            inner.table.close(id);
            if let Some(line) = inner.lines.get(&id) {
                line.close();
            }
        }
    }

    /// Closes connections that have been idle for too long.
    pub(crate) fn close_idle(&self, now: Instant) {
        let Some(then) = now.checked_sub(IDLE_MAX) else { return };
        let mut inner = self.inner.lock();
        for id in inner.table.idle_since(then) {
            inner.table.close(id);
            if let Some(line) = inner.lines.get(&id) {
                line.close();
            }
        }
    }

    /// Returns the current use of the limits.
    pub(crate) fn usage(&self) -> Usage {
        let inner = self.inner.lock();
        let table = &inner.table;
        let blocked = inner.lines.values().map(|line| line.blocked_since.load(Ordering::Relaxed)).filter(|&at| at > 0);
        let write = blocked.min().map(|at| self.start.elapsed().saturating_sub(Duration::from_millis(at - 1)));
        Usage {
            total_max: table.total_max,
            per_peer_max: table.per_peer_max,
            open: table.open,
            open_of_a_peer: table.peers.values().map(|of_peer| of_peer.open).max().unwrap_or_default(),
            headless: table.oldest_headless().map(|since| since.elapsed()).unwrap_or_default(),
            write: write.unwrap_or_default(),
        }
    }

    fn release(&self, id: u64, head_timeout: Duration) {
        let headless_since = {
            let mut inner = self.inner.lock();
            inner.lines.remove(&id);
            inner.table.release(id)
        };
        if headless_since.is_some_and(|since| since.elapsed() >= head_timeout) {
            self.metrics.limits().refused(Limit::Head);
        }
        self.released.notify_one();
    }
}

/// One open connection.
pub(crate) struct Connection {
    id: u64,
    network: IpAddr,
    line: Arc<Line>,
    connections: Arc<Connections>,
}

impl Connection {
    /// Returns the address that identifies its client.
    pub(crate) fn network(&self) -> IpAddr {
        self.network
    }

    /// Records that a request begins; it ends when the token is dropped.
    pub(crate) fn begins(self: &Arc<Self>) -> Busy {
        self.connections.inner.lock().table.begins(self.id);
        Busy(Arc::clone(self))
    }

    /// Returns whether the connection must end.
    pub(crate) fn is_closed(&self) -> bool {
        self.line.closed.load(Ordering::Acquire)
    }

    /// Wakes this task when the connection must end.
    pub(crate) fn wake_when_closed(&self, waker: &std::task::Waker) {
        self.line.waker.register(waker);
    }

    /// Records whether a write waits for the client.
    pub(crate) fn blocked(&self, is_blocked: bool) {
        let millis = u64::try_from(self.connections.start.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.line.blocked_since.store(if is_blocked { millis + 1 } else { 0 }, Ordering::Relaxed);
    }

    /// Closes the connection in any stage, because its client does not read its answer.
    pub(crate) fn close_unread(&self) {
        if !self.is_closed() {
            self.count_unread();
            self.connections.inner.lock().table.close(self.id);
            self.line.close();
        }
    }

    /// Counts a client that does not read its answer.
    pub(crate) fn count_unread(&self) {
        self.connections.metrics.limits().refused(Limit::Write);
        tracing::debug!("a client did not read its answer in time: closing its connection");
    }

    /// Removes the connection.
    pub(crate) fn release(&self, head_timeout: Duration) {
        self.connections.release(self.id, head_timeout);
    }
}

/// Counts a request of a connection as in progress while it lives.
pub(crate) struct Busy(Arc<Connection>);

impl Busy {
    /// Returns the connection of the request.
    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.0
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.connections.inner.lock().table.ends(self.0.id, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn the_oldest_connection_without_a_head_is_the_first_to_be_closed() {
        let (mut table, now) = (Table::new(3, 3), Instant::now());
        let ids: Vec<u64> = (0..3).map(|_| table.admit(peer(1), now).unwrap().0).collect();
        table.begins(ids[0]);
        assert_eq!(table.admit(peer(2), now).unwrap().1, Some((ids[1], Limit::Connections)));
        assert_eq!(table.admit(peer(3), now).unwrap().1, Some((ids[2], Limit::Connections)));
        assert_eq!(table.open, 3);
        assert_eq!(table.entries.len(), 5, "two of them are being closed");
    }

    #[test]
    fn idle_connections_are_closed_next_and_those_with_a_request_stay() {
        let (mut table, now) = (Table::new(3, 3), Instant::now());
        let ids: Vec<u64> = (0..3).map(|n| table.admit(peer(n), now).unwrap().0).collect();
        for id in &ids {
            table.begins(*id);
        }
        table.ends(ids[2], now);
        table.ends(ids[0], now);
        assert_eq!(
            table.admit(peer(9), now).unwrap().1,
            Some((ids[2], Limit::Connections)),
            "idle for the longest time"
        );
        let newest = table.next;
        table.begins(newest);
        assert_eq!(table.admit(peer(9), now).unwrap().1, Some((ids[0], Limit::Connections)));
        table.begins(table.next);
        assert_eq!(table.admit(peer(9), now), Err(Full::Total));
        table.release(ids[1]);
        assert_eq!(table.admit(peer(9), now).unwrap().1, None);
    }

    #[test]
    fn a_peer_at_its_limit_loses_one_of_its_own_connections() {
        let (mut table, now) = (Table::new(100, 2), Instant::now());
        let other = table.admit(peer(1), now).unwrap().0;
        let first = table.admit(peer(2), now).unwrap().0;
        let second = table.admit(peer(2), now).unwrap().0;
        assert_eq!(table.admit(peer(2), now).unwrap().1, Some((first, Limit::ConnectionsPerPeer)));
        table.begins(second);
        table.begins(table.next);
        assert_eq!(table.admit(peer(2), now), Err(Full::Peer));
        assert_eq!(table.admit(peer(1), now).unwrap().1, None);
        assert!(table.entries.contains_key(&other));
    }

    #[test]
    fn an_ipv6_network_is_one_peer() {
        let address = |text: &str| network(text.parse().unwrap());
        assert_eq!(address("2001:db8::1"), address("2001:db8::ffff:2"));
        assert_ne!(address("2001:db8:0:1::1"), address("2001:db8::1"));
        assert_eq!(address("::ffff:192.0.2.1"), address("192.0.2.1"));
    }

    #[test]
    fn idle_connections_are_found_after_their_time() {
        let (mut table, start) = (Table::new(10, 10), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let (silent, early, late) = (
            table.admit(peer(1), start).unwrap().0,
            table.admit(peer(1), start).unwrap().0,
            table.admit(peer(1), start).unwrap().0,
        );
        for (id, second) in [(early, 1), (late, 5)] {
            table.begins(id);
            table.ends(id, at(second));
        }
        assert_eq!(table.idle_since(at(3)), [early]);
        assert_eq!(table.oldest_headless(), Some(start));
        assert_eq!(table.release(silent), Some(start));
        assert_eq!(table.oldest_headless(), None);
    }

    #[test]
    fn a_closed_connection_is_woken_and_counted() {
        let metrics = Arc::new(Metrics::new());
        let connections = Connections::new(1, 1, Limit::Connections, &metrics);
        let first = connections.admit(peer(1)).unwrap();
        let second = connections.admit(peer(2)).unwrap();
        assert!(first.is_closed() && !second.is_closed());
        assert_eq!(metrics.limits().refusals(Limit::Connections), 1);
        let busy = second.begins();
        assert!(connections.admit(peer(3)).is_none());
        assert_eq!(metrics.limits().refusals(Limit::Connections), 2);
        drop(busy);
        assert!(connections.admit(peer(3)).is_some() && second.is_closed());
        second.close_unread();
        assert_eq!(metrics.limits().refusals(Limit::Write), 0, "it was closed before");
    }

    proptest! {
        /// After any steps, the counts equal those of the entries, and no limit is exceeded.
        #[test]
        fn counts_match_the_entries_and_stay_within_the_limits(steps in prop::collection::vec((0..5u8, 0..4u8, any::<prop::sample::Index>()), 1..200)) {
            let (mut table, now) = (Table::new(6, 3), Instant::now());
            for (step, of, at) in steps {
                let ids: Vec<u64> = table.entries.keys().copied().collect();
                let id = (!ids.is_empty()).then(|| ids[at.index(ids.len())]);
                match (step, id) {
                    (0, _) | (_, None) => drop(table.admit(peer(of), now)),
                    (1, Some(id)) => table.begins(id),
                    (2, Some(id)) => table.ends(id, now),
                    (3, Some(id)) => table.close(id),
                    (_, Some(id)) => drop(table.release(id)),
                }
                let open: Vec<&Entry> = table.entries.values().filter(|entry| entry.stage != Stage::Closing).collect();
                let closable = open.iter().filter(|entry| matches!(entry.stage, Stage::Headless | Stage::Idle)).count();
                prop_assert_eq!((table.open, table.closable.len()), (open.len(), closable));
                prop_assert!(table.open <= 6);
                for (peer, of_peer) in &table.peers {
                    let own = open.iter().filter(|entry| entry.peer == *peer).count();
                    prop_assert!(of_peer.open == own && own <= 3 && own > 0);
                }
                prop_assert_eq!(table.peers.values().map(|of_peer| of_peer.closable.len()).sum::<usize>(), closable);
            }
        }
    }
}
