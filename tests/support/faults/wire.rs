//! Faults of the network between the fleet and the broker.

use crate::{
    disturbed::{Disturbed, Observed, Plan},
    proxy::{Direction, Proxy},
};
use common::topology::queue;
use runtime::config::{AmqpUrl, BrokerSettings};
use std::time::{Duration, Instant};

/// Resets every connection (TCP RST), repeatedly.
pub async fn reset(plan: &Plan, broker: BrokerSettings) -> Observed {
    let (proxy, through) = Proxy::to(&broker).await.expect("a free port");
    let mut batch = Disturbed::begin(plan, through);
    for time in 0..plan.times {
        batch.until((time + 1) as f64 / (plan.times + 2) as f64);
        batch.count_fault();
        proxy.reset();
        batch.fleet.wait_for_sessions(&queue::ALL, time + 2);
    }
    batch.end(format!("{} connections", proxy.carried())).await
}

/// Makes connections carry nothing while both sides keep them open: in both directions, then only from the broker, then only to
/// it. The fleet notices by the heartbeat, or by a missing confirm.
pub async fn half_open(plan: &Plan, broker: BrokerSettings, heartbeat_s: Option<u16>) -> Observed {
    let broker = match heartbeat_s {
        Some(seconds) => {
            let url = AmqpUrl::new(format!("{}?heartbeat={seconds}", broker.url.reveal()));
            BrokerSettings { url, ..broker }
        }
        None => broker,
    };
    let (proxy, through) = Proxy::to(&broker).await.expect("a free port");
    let mut batch = Disturbed::begin(plan, through);
    let mut notes = Vec::new();
    let ways: [(&str, &[Direction]); 3] = [
        ("both ways", &[Direction::Up, Direction::Down]),
        ("from the broker", &[Direction::Down]),
        ("to the broker", &[Direction::Up]),
    ];
    for (time, (name, directions)) in ways.into_iter().enumerate() {
        batch.until((time + 1) as f64 / (ways.len() + 2) as f64);
        for direction in directions {
            proxy.silence(*direction);
        }
        batch.count_fault();
        let silent = Instant::now();
        batch.fleet.wait_for_sessions(&queue::ALL, time + 2);
        notes.push(format!("{name} {:.0} s", silent.elapsed().as_secs_f64()));
    }
    batch.end(format!("all connected anew after: {}", notes.join(", "))).await
}

/// A slow network: 50 ms each way, 4 MB/s per connection.
pub async fn latency(plan: &Plan, broker: BrokerSettings) -> Observed {
    let (proxy, through) = Proxy::to(&broker).await.expect("a free port");
    proxy.delay(Duration::from_millis(50));
    proxy.limit(Some(4_000_000));
    let mut batch = Disturbed::begin(plan, through);
    batch.until(0.0);
    batch.count_fault();
    batch.end("50 ms each way").await
}
