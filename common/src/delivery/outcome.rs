//! What a handler may answer, and what is then done with the message: one pure, total function.
//!
//! ```text
//! Ok(outputs) ───────────────▶ publish all, await every confirm, acknowledge
//! Err(Transient) ── attempts left ──▶ next rung, attempt + 1, history + 1
//!                └─ none left ──────▶ <queue>.dead, reason attempts_exhausted
//! Err(Outage) ───────────────▶ a rung, attempts untouched: waited out
//! Err(Permanent) ────────────▶ <queue>.dead at once
//! ```

pub use super::{
    failure::Failure,
    outgoing::{Outgoing, Outputs},
};
use std::time::Duration;

/// How patient the fleet is: the rungs (from the topology) and the number of attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Delay of each rung in milliseconds, rising. Empty: nothing is retried.
    pub rungs_ms: Vec<u64>,
    /// Attempts in all, the first included.
    pub attempts_max: u32,
}

/// Where a message stands before this attempt is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History {
    /// Which attempt just ended, from 1.
    pub attempt: u32,
    /// How often it was set aside for an outage so far.
    pub outages: u32,
}

/// What is done with a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Everything is confirmed: acknowledge.
    Ack,
    /// To a rung, and back after `delay_ms`.
    Retry {
        /// Index into [`RetryPolicy::rungs_ms`].
        rung: usize,
        /// At most the rung's own delay; at least half of it.
        delay_ms: u64,
        /// What the next delivery carries.
        next: History,
    },
    /// To `<queue>.dead`.
    DeadLetter {
        /// Stable code.
        reason: &'static str,
        /// In words.
        why: String,
    },
}

/// Judges one attempt. `jitter` in [0, 1) spreads retries over the second half of a rung's delay.
///
/// Total: every result, history and policy has an answer. A `retry_after` beyond the longest rung takes the longest
/// rung; the dependency then says again how long.
pub fn decide(result: Result<(), &Failure>, history: History, policy: &RetryPolicy, jitter: f64) -> Verdict {
    let History { attempt, outages } = history;
    let retry = |step: u32, retry_after: Option<Duration>, next: History, why: &Failure| {
        let Some(last) = policy.rungs_ms.len().checked_sub(1) else {
            return Verdict::DeadLetter { reason: "no_retries", why: why.to_string() };
        };
        let wanted_ms = retry_after.map_or(0, |after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
        let by_step = usize::try_from(step.saturating_sub(1)).unwrap_or(last).min(last);
        let by_wish = policy.rungs_ms.iter().position(|&ms| ms >= wanted_ms).unwrap_or(last);
        let rung = by_step.max(by_wish);
        let full_ms = policy.rungs_ms[rung];
        let jittered_ms = full_ms / 2 + (full_ms as f64 / 2.0 * jitter.clamp(0.0, 1.0)) as u64;
        Verdict::Retry { rung, delay_ms: jittered_ms.max(wanted_ms.min(full_ms)), next }
    };
    match result {
        Ok(()) => Verdict::Ack,
        Err(Failure::Permanent { reason, why }) => Verdict::DeadLetter { reason, why: why.clone() },
        Err(failure @ Failure::Transient { retry_after, .. }) if attempt < policy.attempts_max => {
            retry(attempt, *retry_after, History { attempt: attempt.saturating_add(1), outages }, failure)
        }
        Err(Failure::Transient { why, .. }) => Verdict::DeadLetter {
            reason: "attempts_exhausted",
            why: format!("attempt {attempt} of {} failed: {why}", policy.attempts_max),
        },
        Err(failure @ Failure::Outage { retry_after, .. }) => {
            let next = History { attempt, outages: outages.saturating_add(1) };
            retry(next.outages, *retry_after, next, failure)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policy() -> RetryPolicy {
        RetryPolicy { rungs_ms: vec![1_000, 10_000, 60_000], attempts_max: 4 }
    }

    #[test]
    fn transient_failures_climb_the_rungs_and_then_die() {
        let failure = Failure::transient("busy");
        for (attempt, rung) in [(1, 0), (2, 1), (3, 2)] {
            let history = History { attempt, outages: 0 };
            assert_eq!(
                decide(Err(&failure), history, &policy(), 0.0),
                Verdict::Retry {
                    rung,
                    delay_ms: policy().rungs_ms[rung] / 2,
                    next: History { attempt: attempt + 1, outages: 0 }
                }
            );
        }
        let verdict = decide(Err(&failure), History { attempt: 4, outages: 0 }, &policy(), 0.0);
        assert_eq!(
            verdict,
            Verdict::DeadLetter { reason: "attempts_exhausted", why: "attempt 4 of 4 failed: busy".into() }
        );
    }

    #[test]
    fn an_outage_never_dies_and_spends_no_attempt() {
        let failure = Failure::outage("weather service", "connection refused");
        let mut history = History { attempt: 4, outages: 0 };
        for _ in 0..1_000 {
            match decide(Err(&failure), history, &policy(), 0.5) {
                Verdict::Retry { next, .. } => history = next,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(history, History { attempt: 4, outages: 1_000 });
    }

    #[test]
    fn a_wish_to_wait_is_kept_up_to_the_longest_rung() {
        let after = |secs| Failure::Transient { why: "429".into(), retry_after: Some(Duration::from_secs(secs)) };
        let delay = |secs| match decide(Err(&after(secs)), History { attempt: 1, outages: 0 }, &policy(), 0.0) {
            Verdict::Retry { rung, delay_ms, .. } => (rung, delay_ms),
            other => panic!("{other:?}"),
        };
        assert_eq!(delay(8), (1, 8_000));
        assert_eq!(delay(3_600), (2, 60_000));
    }

    fn failures() -> impl Strategy<Value = Result<(), Failure>> {
        let after = proptest::option::of(any::<u64>().prop_map(Duration::from_millis));
        prop_oneof![
            Just(Ok(())),
            after.clone().prop_map(|retry_after| Err(Failure::Transient { why: "w".into(), retry_after })),
            after.prop_map(|retry_after| Err(Failure::Outage { dependency: "d", why: "w".into(), retry_after })),
            Just(Err(Failure::permanent("r", "w"))),
        ]
    }

    proptest! {
        #[test]
        fn every_case_has_an_answer_within_its_bounds(
            result in failures(), attempt in any::<u32>(), outages in any::<u32>(), jitter in -1.0f64..2.0,
            rungs_ms in proptest::collection::vec(1u64..1_000_000, 0..5), attempts_max in any::<u32>(),
        ) {
            let policy = RetryPolicy { rungs_ms, attempts_max };
            let judged = match &result { Ok(()) => Ok(()), Err(failure) => Err(failure) };
            match decide(judged, History { attempt, outages }, &policy, jitter) {
                Verdict::Ack => prop_assert!(result.is_ok()),
                Verdict::Retry { rung, delay_ms, next } => {
                    prop_assert!(rung < policy.rungs_ms.len());
                    prop_assert!(delay_ms <= policy.rungs_ms[rung] && delay_ms >= policy.rungs_ms[rung] / 2);
                    prop_assert!(next.attempt >= attempt && next.outages >= outages);
                }
                Verdict::DeadLetter { .. } => prop_assert!(result.is_err()),
            }
        }
    }
}
