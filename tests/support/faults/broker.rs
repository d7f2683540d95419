//! Faults of the broker itself.

use crate::{
    containers::Container,
    disturbed::{Disturbed, Observed, Plan},
};

/// Restarts the broker in order in the middle of a batch.
pub async fn restarted(plan: &Plan, broker: &Container) -> Observed {
    strike(plan, broker, |broker| broker.restart()).await
}

/// Kills the broker (SIGKILL) in the middle of a batch, and starts it again.
pub async fn killed(plan: &Plan, broker: &Container) -> Observed {
    strike(plan, broker, |broker| {
        broker.kill();
        broker.start_again();
    })
    .await
}

/// Suspends every process of the broker in the middle of a batch; its connections stay open and silent.
pub async fn stopped(plan: &Plan, broker: &Container) -> Observed {
    let away = plan.away;
    strike(plan, broker, |broker| {
        broker.pause();
        // The planned duration of the fault.
        std::thread::sleep(away);
        broker.go_on();
    })
    .await
}

async fn strike(plan: &Plan, broker: &Container, fault: impl Fn(&Container)) -> Observed {
    let mut batch = Disturbed::begin(plan, broker.settings());
    for time in 0..plan.times {
        batch.until((time + 1) as f64 / (plan.times + 2) as f64);
        batch.count_fault();
        fault(broker);
    }
    batch.end("").await
}
