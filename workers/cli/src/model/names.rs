//! `model promote`, `rollback`, `retrain`: what changes which version is served.

use super::{resolve, store_of};
use crate::{
    Failed, Session,
    arguments::{Family, Word},
    control::somebody,
};
use anyhow::anyhow;
use common::{
    contract::{
        message::{Message, ModelPromoted, ModelRejected, decode},
        model::{Alias, AliasName},
    },
    runtime::{Store, client::Client},
};
use serde_json::json;
use std::time::Duration;
use trainer::{
    Trainer,
    registry::{self, Version},
    release::announcement,
};

/// `promote`
pub(super) async fn promote(session: &Session, meant: &str, word: &Word) -> Result<(), Failed> {
    let store = store_of(session)?;
    let (version, _) = resolve(&store, &word.family, meant).await?;
    name(session, &store, &version, word).await
}

/// `rollback`
pub(super) async fn rollback(session: &Session, to: Option<&str>, word: &Word) -> Result<(), Failed> {
    let store = store_of(session)?;
    let family = &word.family.model;
    let champion = registry::current(&store, family, AliasName::Champion).await?;
    let Some(champion) = champion else {
        return Err(Failed::Broken(anyhow!("{family} has no champion: there is nothing to take back")));
    };
    let before = champion.history.iter().rev().find(|past| past.model_id != champion.model_id);
    let meant = match (to, before) {
        (Some(meant), _) => meant.to_owned(),
        (None, Some(past)) => past.model_id.clone(),
        (None, None) => {
            let why = format!("{} is the first champion of {family}: there is none before it", champion.model_id);
            return Err(Failed::Broken(anyhow!(why)));
        }
    };
    let (version, _) = resolve(&store, &Family { model: family.clone() }, &meant).await?;
    name(session, &store, &version, word).await
}

async fn name(session: &Session, store: &Store, version: &Version, word: &Word) -> Result<(), Failed> {
    let before = registry::current(store, &version.model, AliasName::Champion).await?;
    let by = word.by.clone().unwrap_or_else(somebody);
    let champion = registry::name(store, AliasName::Champion, version, &by, &word.why).await?;
    let announced = announce(session, std::slice::from_ref(&champion)).await;
    let before = before.map(|before| before.model_id).filter(|before| *before != champion.model_id);
    if session.shared.json {
        println!("{}", serde_json::to_string_pretty(&json!({ "champion": champion, "announced": announced.is_ok() }))?);
    } else {
        match &before {
            Some(before) => println!("{} is champion of {} now, after {before}", champion.model_id, champion.model),
            None => println!("{} is champion of {}", champion.model_id, champion.model),
        }
        match announced {
            Ok(()) => println!("scorers were told"),
            Err(why) => println!("scorers see it when they look next, within a second ({why})"),
        }
    }
    Ok(())
}

/// Tells the scorers of the configured broker, which look by themselves as well; or why not.
async fn announce(session: &Session, champions: &[Alias]) -> Result<(), String> {
    /// How long a broker is waited for.
    const PATIENCE: Duration = Duration::from_secs(5);
    if session.shared.broker.is_none() && !session.configuration.sets("broker.url") {
        return Err("no broker is configured to tell them".to_owned());
    }
    let telling = async {
        let broker = session.broker().map_err(|_| "the broker's settings cannot be used".to_owned())?;
        let client = Client::connect(broker.as_ref(), "wildrydes model").await.map_err(|why| why.to_string())?;
        for champion in champions {
            client.publish(&announcement(champion)).await.map_err(|why| why.to_string())?;
        }
        client.close().await;
        Ok(())
    };
    tokio::time::timeout(PATIENCE, telling).await.unwrap_or_else(|_| Err("the broker does not answer".to_owned()))
}

/// `retrain`
pub(super) async fn retrain(session: &Session) -> Result<(), Failed> {
    let store = store_of(session)?;
    let trainer = Trainer::new(session.section()?, store.clone());
    if !session.shared.json {
        eprintln!("training on every dataset of {}", session.store_place()?);
    }
    let said = tokio::select! {
        said = trainer.retrain() => said?,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            return Err(Failed::Broken(anyhow!("interrupted: nothing was promoted; the same command begins anew")));
        }
    };
    let mut promoted: Vec<ModelPromoted> = Vec::new();
    for message in &said {
        if message.properties.kind.as_deref() == Some(&ModelRejected::KIND.to_string()) {
            let rejected: ModelRejected = decode(&message.body)?;
            if session.shared.json {
                println!("{}", serde_json::to_string_pretty(&json!({ "rejected": rejected }))?);
            } else if rejected.object.is_some() {
                println!("{} was trained and not promoted: {} ({})", rejected.model_id, rejected.why, rejected.reason);
                println!(
                    "`wildrydes model diff` compares it with the champion, `wildrydes model promote challenger` promotes it"
                );
            } else {
                println!("no model: {} ({})", rejected.why, rejected.reason);
                return Err(Failed::NoModel);
            }
            return Ok(());
        }
        promoted.push(decode(&message.body)?);
    }
    let mut champions = Vec::new();
    for promoted in &promoted {
        champions.extend(registry::current(&store, &promoted.model, AliasName::Champion).await?);
    }
    let announced = announce(session, &champions).await.is_ok();
    if session.shared.json {
        println!("{}", serde_json::to_string_pretty(&json!({ "promoted": promoted, "announced": announced }))?);
    } else if let [global, breeds @ ..] = promoted.as_slice() {
        println!("{} is champion of {}: {}", global.model_id, global.model, global.why.as_deref().unwrap_or_default());
        if !breeds.is_empty() {
            println!("and {} models of breeds with it", breeds.len());
        }
    }
    Ok(())
}
