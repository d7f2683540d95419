//! `dead restore`: publishes copies of letters again.

use super::{
    act::{pace, publish},
    letters::Letters,
};
use crate::session::{Failed, Session};
use anyhow::{Context, bail};
use common::{dead_letter::from_copy, outcome::Outgoing, topology::queue};
use records::{Store, layout, store};
use serde_json::{Value, json};
use std::{num::NonZeroU32, path::Path};

/// `dead restore`
pub(super) async fn restore(
    session: &Session,
    letters: &Letters<'_>,
    copies: &[String],
    rate: NonZeroU32,
    dry_run: bool,
) -> Result<(), Failed> {
    // Read every copy before anything is published, so that a missing or invalid one is reported first.
    let mut letters_read = Vec::new();
    for name in copies {
        let read = match Path::new(name).is_file() {
            true => std::fs::read(name).context("reading the file").and_then(|bytes| parse(&bytes)),
            false => match session.store_if_there()? {
                Some(store) => dropped_copy(&store, name).await,
                None => Err(anyhow::anyhow!(session.no_store()?)),
            },
        };
        letters_read.extend(read.with_context(|| name.clone())?);
    }
    let publisher = letters.connection.publisher().await?;
    let (mut tick, mut ids) = (pace(rate), Vec::new());
    for (id, queue, outgoing) in letters_read {
        let Outgoing { exchange, routing_key, .. } = &outgoing;
        let line = format!("{id}  {queue:<15}  to {exchange:?} with {routing_key:?}");
        if !dry_run {
            tick.tick().await;
            let published = publish(publisher.as_ref(), outgoing).await;
            published.with_context(|| format!("restoring {id}; {} before it were restored", ids.len()))?;
        }
        if !session.shared.json {
            println!("{line}");
        }
        ids.push(id);
    }
    match session.shared.json {
        true => println!("{}", json!({ "restored": ids.len(), "dry_run": dry_run, "ids": ids })),
        false => println!("{} {}restored", ids.len(), if dry_run { "would be " } else { "" }),
    }
    Ok(())
}

/// Id, queue and message of a letter.
type Copy = (String, String, Outgoing);

/// Parses one copy, or one per line.
fn parse(bytes: &[u8]) -> anyhow::Result<Vec<Copy>> {
    let copies = serde_json::Deserializer::from_slice(bytes).into_iter::<Value>();
    let copies: Vec<Copy> =
        copies.map(|copy| Ok(from_copy(&copy.context("not JSON")?)?)).collect::<anyhow::Result<_>>()?;
    if copies.is_empty() {
        bail!("the file is empty");
    }
    Ok(copies)
}

/// Reads the copy that `dead drop` wrote.
async fn dropped_copy(store: &Store, id: &str) -> anyhow::Result<Vec<Copy>> {
    if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        bail!("there is no such file, and this is not an id as `dead drop` prints them");
    }
    for name in queue::ALL {
        if let Some(bytes) = store::read(store, &layout::dropped(name, id)).await? {
            return parse(&bytes);
        }
    }
    bail!(
        "no letter with this id was dropped: there is no dead/<queue>/{id}.json in the store (--store names the store)"
    )
}
