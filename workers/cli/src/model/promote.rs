//! `model promote`, `rollback` and `retrain`: change which version is served.

use super::versions::resolve;
use crate::{
    arguments::AliasChange,
    output::{legible, print_json},
    session::{Failed, Session, user_and_host},
};
use anyhow::{Context, anyhow};
use common::{
    document::Breeds,
    message::{Message, ModelPromoted, ModelRejected, decode},
    model::{Alias, AliasName, Model},
};
use futures::{StreamExt, TryStreamExt, stream};
use records::{
    Store, layout,
    registry::{self, Change, Version, announcement},
    store::{self, unreadable_as_missing},
};
use runtime::{client::Client, host};
use serde_json::json;
use std::time::Duration;
use trainer::Trainer;

/// `promote`
pub(super) async fn promote(session: &Session, name: &str, change: &AliasChange) -> Result<(), Failed> {
    let store = session.existing_store()?;
    let (version, artefact) = resolve(&store, &change.family, name).await?;
    check_release(&store, &version, &artefact).await?;
    make_champion(session, &store, &version, change).await
}

/// `rollback`
pub(super) async fn rollback(session: &Session, to: Option<&str>, change: &AliasChange) -> Result<(), Failed> {
    let store = session.existing_store()?;
    let family = &change.family.model;
    // An unreadable alias document counts as outdated.
    let alias = unreadable_as_missing(store::read_json::<Alias>(&store, &layout::champion(family)).await)?;
    let champion = registry::current_alias(&store, family, AliasName::Champion).await?;
    let Some(champion) = champion else {
        return Err(Failed::Broken(anyhow!("{family} has no champion: there is nothing to roll back")));
    };
    let history: Vec<&str> = champion.history.iter().map(|past| past.model_id.as_str()).collect();
    // The predecessor of its first promotion, not a later version that was rolled back.
    let first = history.iter().position(|id| *id == champion.model_id).unwrap_or(history.len());
    let was_champion_before = first < history.len();
    let is_outdated = alias.is_none_or(|alias| alias.generation < champion.generation);
    if to.is_none() && was_champion_before && (is_outdated || !are_breeds_served(&store, &champion).await?) {
        let (version, _) = resolve(&store, &change.family, &champion.model_id).await?;
        if !session.shared.json {
            eprintln!(
                "a rollback to {} was interrupted: it is completed now; run the same command again to go further back",
                champion.model_id
            );
        }
        return make_champion(session, &store, &version, change).await;
    }
    let target = match (to, first.checked_sub(1).and_then(|before| history.get(before))) {
        (Some(target), _) => target.to_owned(),
        (None, Some(before)) => (*before).to_owned(),
        (None, None) => {
            let position = match champion.generation == history.len() as u64 + 1 {
                true => "is the first champion",
                false => "is the oldest champion in the history",
            };
            let why = format!(
                "{} {position} of {family}: it has no predecessor (--to names another version, `wildrydes model list` shows \
                 them)",
                champion.model_id
            );
            return Err(Failed::Broken(anyhow!(why)));
        }
    };
    let (version, artefact) = resolve(&store, &change.family, &target).await?;
    check_release(&store, &version, &artefact).await?;
    make_champion(session, &store, &version, change).await
}

/// Returns whether every usable breed model of the champion's release is served.
async fn are_breeds_served(store: &Store, champion: &Alias) -> Result<bool, Failed> {
    let breeds = registry::read::<Breeds>(store, &champion.model, &champion.model_id).await?;
    let breeds = breeds.map(|breeds| breeds.breeds).unwrap_or_default();
    let checks = stream::iter(breeds).map(|breed| async move {
        if registry::in_service(store, &champion.model_id, &breed).await?.is_some() {
            return Ok::<_, Failed>(true);
        }
        // An unusable breed model is left out permanently.
        Ok(registry::version(store, &breed.model, &breed.model_id).await?.is_err())
    });
    checks.buffer_unordered(registry::AT_ONCE).try_all(|is_served| async move { is_served }).await
}

/// Checks that a breed model belongs to the release of the present champion: scorers use it only with that global model.
async fn check_release(store: &Store, version: &Version, artefact: &Model) -> Result<(), Failed> {
    let Some(((global, _), prior_mean)) = layout::of_breed(&version.model).zip(artefact.prior_mean.as_deref()) else {
        return Ok(());
    };
    let champion = registry::current_alias(store, global, AliasName::Champion).await?;
    match champion.is_some_and(|champion| champion.model_id == prior_mean) {
        true => Ok(()),
        false => Err(Failed::Broken(anyhow!(
            "{} {} was trained with {prior_mean}, which is not the champion of {global}: scorers would not use it. Promote {prior_mean}, \
             and its breed models follow: wildrydes model promote {prior_mean}",
            version.model,
            version.model_id
        ))),
    }
}

/// Makes a version champion, its breed models with it, and announces them.
async fn make_champion(
    session: &Session,
    store: &Store,
    version: &Version,
    change: &AliasChange,
) -> Result<(), Failed> {
    let before = registry::current_alias(store, &version.model, AliasName::Champion).await?;
    let by = change.by.clone().unwrap_or_else(user_and_host);
    let at = host::now();
    let made = Change { by: &by, at, why: &change.why };
    let champion = registry::set_alias(store, AliasName::Champion, version, made).await?;
    let before = before.map(|before| before.model_id).filter(|before| *before != champion.model_id);
    if !session.shared.json {
        match &before {
            Some(before) => println!("{} is champion of {} now, after {before}", champion.model_id, champion.model),
            None => println!("{} is champion of {}", champion.model_id, champion.model),
        }
    }
    let named = registry::promote_breed_models(store, champion.clone(), at).await.with_context(|| {
        "promoting its breed models: until they follow, the global model scores their rides; run the same command again to \
         complete it"
    })?;
    for (breed, why) in &named.unusable {
        eprintln!("the breed model of {} is left out: {why}", legible(breed, false));
    }
    let breeds = named.champions.len();
    let mut champions = vec![champion.clone()];
    champions.extend(named.champions);
    let announced = announce(session, &champions).await;
    if session.shared.json {
        return print_json(&json!({ "champion": champion, "announced": announced.is_ok() }));
    }
    if breeds > 0 {
        println!("and the {breeds} breed models of its release");
    }
    match announced {
        Ok(()) => println!("the scorers were notified"),
        Err(why) => println!("the scorers notice it within a second ({why})"),
    }
    Ok(())
}

/// Notifies the scorers through the configured broker. The error tells a person why that failed; scorers also poll the store.
async fn announce(session: &Session, champions: &[Alias]) -> Result<(), String> {
    /// Deadline of the announcement.
    const TIMEOUT: Duration = Duration::from_secs(5);
    if session.shared.broker.is_none() && !session.configuration.sets("broker.url") {
        return Err("no broker is configured to notify them".to_owned());
    }
    let announcing = async {
        let broker = session.broker().map_err(|_| "the broker's settings cannot be used".to_owned())?;
        let client = Client::connect(broker.as_ref(), "wildrydes model").await.map_err(|why| why.to_string())?;
        for champion in champions {
            client.publish(&announcement(champion)).await.map_err(|why| why.to_string())?;
        }
        client.close().await;
        Ok(())
    };
    tokio::time::timeout(TIMEOUT, announcing).await.unwrap_or_else(|_| Err("the broker does not answer".to_owned()))
}

/// `retrain`
pub(super) async fn retrain(session: &Session) -> Result<(), Failed> {
    let store = session.existing_store()?;
    let trainer = Trainer::new(session.section()?, store.clone());
    if !session.shared.json {
        eprintln!("training on every dataset of {}", session.store_location()?);
    }
    let messages = tokio::select! {
        messages = trainer.retrain() => messages?,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            return Err(Failed::Broken(anyhow!("interrupted; the same command continues where it stopped: `wildrydes model list` shows whether a version was promoted")));
        }
    };
    let mut promoted: Vec<ModelPromoted> = Vec::new();
    for message in &messages {
        if message.properties.kind.as_deref() == Some(&ModelRejected::KIND.to_string()) {
            let rejected: ModelRejected = decode(&message.body)?;
            if session.shared.json {
                print_json(&json!({ "rejected": rejected }))?;
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
        champions.extend(registry::current_alias(&store, &promoted.model, AliasName::Champion).await?);
    }
    let announced = announce(session, &champions).await.is_ok();
    if session.shared.json {
        print_json(&json!({ "promoted": promoted, "announced": announced }))?;
    } else if let [global, breeds @ ..] = promoted.as_slice() {
        println!("{} is champion of {}: {}", global.model_id, global.model, global.why.as_deref().unwrap_or_default());
        if !breeds.is_empty() {
            println!("and {} breed models with it", breeds.len());
        }
    }
    Ok(())
}
