//! Refreshes of stale batches at intervals, in a process that stays.

use super::refresh::begin_all;
use crate::session::{Failed, Session};
use records::{Store, refreshes};
use runtime::{Broker, client::Client, config::RunSettings};
use std::{sync::Arc, time::Duration};
use tokio::{task::JoinSet, time::MissedTickBehavior};

/// Refreshes the batches whose weather was not yet published, now and every `run.refresh_hours`, until the returned set is dropped.
/// Does nothing if the setting is 0.
pub(crate) fn refresh_stale(session: &Session, broker: &Arc<dyn Broker>, store: &Store) -> Result<JoinSet<()>, Failed> {
    let hours = session.section::<RunSettings>()?.refresh_hours;
    let mut tasks = JoinSet::new();
    if hours > 0 {
        let (broker, store) = (Arc::clone(broker), store.clone());
        let mut ticks = tokio::time::interval(Duration::from_secs(u64::from(hours) * 60 * 60));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tasks.spawn(async move {
            loop {
                ticks.tick().await;
                match refresh_once(broker.as_ref(), &store).await {
                    Ok(batches) => tracing::info!(batches, "refreshed the batches whose weather was not yet published"),
                    Err(Failed::Broken(error) | Failed::Misused(error)) => {
                        tracing::warn!(
                            error = format!("{error:#}"),
                            "stale batches were not refreshed; the next time is in {hours} h"
                        );
                    }
                    Err(_) => {}
                }
            }
        });
    }
    Ok(tasks)
}

/// Begins the refreshes and publishes them; returns their number.
async fn refresh_once(broker: &dyn Broker, store: &Store) -> Result<usize, Failed> {
    let ids: Vec<String> = refreshes::stale(store).await?.into_iter().map(|stale| stale.batch_id).collect();
    if ids.is_empty() {
        return Ok(0);
    }
    let client = Client::connect(broker, "wildrydes refresh").await?;
    let begun = begin_all(&client, store, &ids, true).await;
    client.close().await;
    Ok(begun?.len())
}
