//! Publishes that the broker does not take for now: told once for the place they go to, and not once for each of them.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;
use tracing::info;

/// Exchange and routing key.
type Place = (&'static str, String);

/// What stands in the way of one worker's publishes.
#[derive(Default)]
pub(super) struct Obstacles(Mutex<BTreeMap<Place, Obstacle>>);

struct Obstacle {
    since: Instant,
    /// Publishes that met it.
    messages: u64,
    /// … that still wait before it.
    waiting: u64,
    told_at: Option<Instant>,
    /// One of them was taken.
    gone: bool,
}

impl Obstacles {
    fn all(&self) -> MutexGuard<'_, BTreeMap<Place, Obstacle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more publish waits.
    pub(super) fn meet(&self, exchange: &'static str, routing_key: &str) -> Waiting<'_> {
        let place = (exchange, routing_key.to_owned());
        let mut all = self.all();
        let fresh = || Obstacle { since: Instant::now(), messages: 0, waiting: 0, told_at: None, gone: false };
        let obstacle = all.entry(place.clone()).or_insert_with(fresh);
        obstacle.messages += 1;
        obstacle.waiting += 1;
        Waiting { obstacles: self, place }
    }
}

/// A publish that waits; dropped when it does so no more.
pub(super) struct Waiting<'a> {
    obstacles: &'a Obstacles,
    place: Place,
}

impl Waiting<'_> {
    /// Whether it is time to tell of the obstacle: at first, and then `again_after` so long, if ever.
    pub(super) fn is_news(&self, again_after: Option<Duration>) -> bool {
        let mut all = self.obstacles.all();
        let Some(obstacle) = all.get_mut(&self.place) else { return false };
        let due = obstacle.told_at.is_none_or(|told| again_after.is_some_and(|after| told.elapsed() >= after));
        if due {
            obstacle.told_at = Some(Instant::now());
        }
        due
    }

    /// The publish was taken.
    pub(super) fn over(self) {
        if let Some(obstacle) = self.obstacles.all().get_mut(&self.place) {
            obstacle.gone = true;
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut all = self.obstacles.all();
        let Some(obstacle) = all.get_mut(&self.place) else { return };
        obstacle.waiting -= 1;
        if obstacle.waiting > 0 {
            return;
        }
        let Some(Obstacle { since, messages, told_at, gone, .. }) = all.remove(&self.place) else { return };
        if gone && told_at.is_some() {
            let (exchange, routing_key) = &self.place;
            let after_ms = since.elapsed().as_millis() as u64;
            info!(exchange, routing_key, after_ms, messages, "taken again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_obstacle_is_news_once_however_many_wait_and_anew_after_it_is_gone() {
        let obstacles = Obstacles::default();
        let waiting: Vec<Waiting<'_>> = (0..32).map(|_| obstacles.meet("work", "ride-chunk.v1")).collect();
        let elsewhere = obstacles.meet("work", "batch-split.v1");
        let news = |waiting: &[Waiting<'_>]| waiting.iter().filter(|one| one.is_news(None)).count();
        assert_eq!(news(&waiting), 1);
        assert!(elsewhere.is_news(None), "another place, another obstacle");
        let (first, rest) = waiting.split_at(1);
        assert!(!first[0].is_news(Some(Duration::from_secs(3_600))) && first[0].is_news(Some(Duration::ZERO)));
        assert_eq!(news(rest), 0);
        {
            let all = obstacles.all();
            let there = &all[&("work", "ride-chunk.v1".to_owned())];
            assert_eq!((there.messages, there.waiting), (32, 32));
        }
        waiting.into_iter().for_each(Waiting::over);
        assert_eq!(obstacles.all().len(), 1, "nobody waits there any more");
        assert!(obstacles.meet("work", "ride-chunk.v1").is_news(None), "full once more is news once more");
    }
}
