//! What a handler may return, and the decision about the message that follows: one pure, total function.
//!
//! ```text
//! Ok(outputs) ───────────────▶ publish all, await every confirm, acknowledge
//! Err(Transient) ── attempts left ──▶ next retry queue, attempt + 1, history + 1
//!                └─ none left ──────▶ <queue>.dead, reason attempts_exhausted
//! Err(Outage) ───────────────▶ a retry queue, attempts unchanged
//! Err(Permanent) ────────────▶ <queue>.dead at once
//! ```

pub use super::{
    failure::Failure,
    outgoing::{Outgoing, Outputs},
};
use std::time::Duration;

/// The delays of the retry queues (from the topology) and the number of attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Delay of each retry queue in milliseconds, ascending. Empty: nothing is retried.
    pub delays_ms: Vec<u64>,
    /// Maximum number of attempts, the first included.
    pub attempts_max: u32,
}

/// The attempts and outages of a message so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History {
    /// Number of the attempt that just ended, from 1.
    pub attempt: u32,
    /// Number of times the message waited because of an outage.
    pub outages: u32,
}

/// How the runtime treats a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Acknowledge: every output is confirmed.
    Ack,
    /// Publish to a retry queue, from which the message returns after `delay_ms`.
    Retry {
        /// Index into [`RetryPolicy::delays_ms`].
        retry_queue: usize,
        /// Milliseconds; between half of the queue's delay and all of it.
        delay_ms: u64,
        /// History that the next delivery carries.
        next: History,
    },
    /// Publish to `<queue>.dead`.
    DeadLetter {
        /// Stable code in snake case.
        reason: &'static str,
        /// The cause in words.
        why: String,
    },
}

/// Decides how a message is treated after one attempt. `jitter` in [0, 1) spreads retries over the second half of a
/// delay.
///
/// Total: every result, history and policy has a decision. A `retry_after` beyond the longest delay uses the longest
/// delay; the dependency can then ask for more time again.
pub fn decide(result: Result<(), &Failure>, history: History, policy: &RetryPolicy, jitter: f64) -> Decision {
    let History { attempt, outages } = history;
    let retry = |step: u32, retry_after: Option<Duration>, next: History, why: &Failure| {
        let Some(last) = policy.delays_ms.len().checked_sub(1) else {
            return Decision::DeadLetter { reason: "no_retries", why: why.to_string() };
        };
        let requested_ms = retry_after.map_or(0, |after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
        let by_step = usize::try_from(step.saturating_sub(1)).unwrap_or(last).min(last);
        let by_request = policy.delays_ms.iter().position(|&ms| ms >= requested_ms).unwrap_or(last);
        let retry_queue = by_step.max(by_request);
        let full_ms = policy.delays_ms[retry_queue];
        let jittered_ms = full_ms / 2 + (full_ms as f64 / 2.0 * jitter.clamp(0.0, 1.0)) as u64;
        Decision::Retry { retry_queue, delay_ms: jittered_ms.max(requested_ms.min(full_ms)), next }
    };
    match result {
        Ok(()) => Decision::Ack,
        Err(Failure::Permanent { reason, why }) => Decision::DeadLetter { reason, why: why.clone() },
        Err(failure @ Failure::Transient { retry_after, .. }) if attempt < policy.attempts_max => {
            retry(attempt, *retry_after, History { attempt: attempt.saturating_add(1), outages }, failure)
        }
        Err(Failure::Transient { why, .. }) => Decision::DeadLetter {
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
        RetryPolicy { delays_ms: vec![1_000, 10_000, 60_000], attempts_max: 4 }
    }

    #[test]
    fn transient_failures_use_longer_retry_queues_and_then_become_dead_letters() {
        let failure = Failure::transient("busy");
        for (attempt, retry_queue) in [(1, 0), (2, 1), (3, 2)] {
            let history = History { attempt, outages: 0 };
            assert_eq!(
                decide(Err(&failure), history, &policy(), 0.0),
                Decision::Retry {
                    retry_queue,
                    delay_ms: policy().delays_ms[retry_queue] / 2,
                    next: History { attempt: attempt + 1, outages: 0 }
                }
            );
        }
        let decision = decide(Err(&failure), History { attempt: 4, outages: 0 }, &policy(), 0.0);
        assert_eq!(
            decision,
            Decision::DeadLetter { reason: "attempts_exhausted", why: "attempt 4 of 4 failed: busy".into() }
        );
    }

    #[test]
    fn an_outage_spends_no_attempt_and_never_becomes_a_dead_letter() {
        let failure = Failure::outage("weather service", "connection refused");
        let mut history = History { attempt: 4, outages: 0 };
        for _ in 0..1_000 {
            match decide(Err(&failure), history, &policy(), 0.5) {
                Decision::Retry { next, .. } => history = next,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(history, History { attempt: 4, outages: 1_000 });
    }

    #[test]
    fn retry_after_is_kept_up_to_the_longest_delay() {
        let after = |secs| Failure::Transient { why: "429".into(), retry_after: Some(Duration::from_secs(secs)) };
        let delay = |secs| match decide(Err(&after(secs)), History { attempt: 1, outages: 0 }, &policy(), 0.0) {
            Decision::Retry { retry_queue, delay_ms, .. } => (retry_queue, delay_ms),
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
        fn every_case_has_a_decision_within_its_bounds(
            result in failures(), attempt in any::<u32>(), outages in any::<u32>(), jitter in -1.0f64..2.0,
            delays_ms in proptest::collection::vec(1u64..1_000_000, 0..5), attempts_max in any::<u32>(),
        ) {
            let policy = RetryPolicy { delays_ms, attempts_max };
            let outcome = match &result { Ok(()) => Ok(()), Err(failure) => Err(failure) };
            match decide(outcome, History { attempt, outages }, &policy, jitter) {
                Decision::Ack => prop_assert!(result.is_ok()),
                Decision::Retry { retry_queue, delay_ms, next } => {
                    prop_assert!(retry_queue < policy.delays_ms.len());
                    prop_assert!(delay_ms <= policy.delays_ms[retry_queue] && delay_ms >= policy.delays_ms[retry_queue] / 2);
                    prop_assert!(next.attempt >= attempt && next.outages >= outages);
                }
                Decision::DeadLetter { .. } => prop_assert!(result.is_err()),
            }
        }
    }
}
