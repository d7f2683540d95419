//! `model promote`, `rollback`, `retrain`: what changes which version is served.

use super::versions::{READS_AT_ONCE, resolve, store_of};
use crate::{
    arguments::Word,
    output::legible,
    session::{Failed, Session, user_and_host},
};
use anyhow::{Context, anyhow};
use common::{
    message::{Message, ModelPromoted, ModelRejected, decode},
    model::{Alias, AliasName, Model},
    outcome::Failure,
};
use futures::{StreamExt, TryStreamExt, stream};
use records::{Store, layout, store};
use runtime::client::Client;
use serde_json::json;
use std::time::Duration;
use trainer::{
    Trainer,
    breeds::Breeds,
    registry::{self, Version},
    release::{announcement, in_service, name_breeds},
};

/// `promote`
pub(super) async fn promote(session: &Session, meant: &str, word: &Word) -> Result<(), Failed> {
    let store = store_of(session)?;
    let (version, artefact) = resolve(&store, &word.family, meant).await?;
    check_release(&store, &version, &artefact).await?;
    name(session, &store, &version, word).await
}

/// `rollback`
pub(super) async fn rollback(session: &Session, to: Option<&str>, word: &Word) -> Result<(), Failed> {
    let store = store_of(session)?;
    let family = &word.family.model;
    // One that cannot be read is behind, too.
    let alias = match store::read_json::<Alias>(&store, &layout::champion(family)).await {
        Err(Failure::Permanent { .. }) => None,
        read => read?,
    };
    let champion = registry::current(&store, family, AliasName::Champion).await?;
    let Some(champion) = champion else {
        return Err(Failed::Broken(anyhow!("{family} has no champion: there is nothing to take back")));
    };
    let line: Vec<&str> = champion.history.iter().map(|past| past.model_id.as_str()).collect();
    // The one before it in the line; not one that came later and was taken back.
    let first = line.iter().position(|id| *id == champion.model_id).unwrap_or(line.len());
    let was_before = first < line.len();
    let is_behind = alias.is_none_or(|alias| alias.generation < champion.generation);
    if to.is_none() && was_before && (is_behind || !are_breeds_named(&store, &champion).await?) {
        let (version, _) = resolve(&store, &word.family, &champion.model_id).await?;
        if !session.shared.json {
            eprintln!(
                "a roll-back to {} was interrupted: it is finished now; the same command again goes further back",
                champion.model_id
            );
        }
        return name(session, &store, &version, word).await;
    }
    let meant = match (to, first.checked_sub(1).and_then(|before| line.get(before))) {
        (Some(meant), _) => meant.to_owned(),
        (None, Some(before)) => (*before).to_owned(),
        (None, None) => {
            let known = match champion.generation == line.len() as u64 + 1 {
                true => "is the first champion",
                false => "was champion before all that the alias remembers",
            };
            let why = format!(
                "{} {known} of {family}: there is none before it (--to names another version, `wildrydes model list` shows \
                 them)",
                champion.model_id
            );
            return Err(Failed::Broken(anyhow!(why)));
        }
    };
    let (version, artefact) = resolve(&store, &word.family, &meant).await?;
    check_release(&store, &version, &artefact).await?;
    name(session, &store, &version, word).await
}

/// Whether every breed that has a model beside the champion is answered by it.
async fn are_breeds_named(store: &Store, champion: &Alias) -> Result<bool, Failed> {
    let path = layout::breeds(&champion.model, &champion.model_id);
    let breeds = store::read_json::<Breeds>(store, &path).await?.map(|breeds| breeds.breeds).unwrap_or_default();
    let looking = stream::iter(breeds).map(|breed| async move {
        if in_service(store, &champion.model_id, &breed).await?.is_some() {
            return Ok::<_, Failed>(true);
        }
        // One that cannot be used is left out for good.
        Ok(registry::version(store, &breed.model, &breed.model_id).await?.is_err())
    });
    looking.buffer_unordered(READS_AT_ONCE).try_all(|named| async move { named }).await
}

/// A breed's model is of use only beside the model of all rides it was trained with.
async fn check_release(store: &Store, version: &Version, artefact: &Model) -> Result<(), Failed> {
    let Some(((all, _), centre)) = layout::of_breed(&version.model).zip(artefact.centre.as_deref()) else {
        return Ok(());
    };
    let champion = registry::current(store, all, AliasName::Champion).await?;
    match champion.is_some_and(|champion| champion.model_id == centre) {
        true => Ok(()),
        false => Err(Failed::Broken(anyhow!(
            "{} {} was trained beside {centre}, which is not the champion of {all}: scorers would not use it. Promote that one, \
             and its breeds follow: wildrydes model promote {centre}",
            version.model,
            version.model_id
        ))),
    }
}

async fn name(session: &Session, store: &Store, version: &Version, word: &Word) -> Result<(), Failed> {
    let before = registry::current(store, &version.model, AliasName::Champion).await?;
    let by = word.by.clone().unwrap_or_else(user_and_host);
    let champion = registry::name(store, AliasName::Champion, version, &by, &word.why).await?;
    let before = before.map(|before| before.model_id).filter(|before| *before != champion.model_id);
    if !session.shared.json {
        match &before {
            Some(before) => println!("{} is champion of {} now, after {before}", champion.model_id, champion.model),
            None => println!("{} is champion of {}", champion.model_id, champion.model),
        }
    }
    let named = name_breeds(store, champion.clone()).await.with_context(|| {
        "naming the models of breeds beside it: until they follow, the model of all rides scores theirs; the same command \
         again finishes it"
    })?;
    for (breed, why) in &named.left_out {
        eprintln!("the model of breed {} is left out: {why}", legible(breed, false));
    }
    let breeds = named.champions.len();
    let mut champions = vec![champion.clone()];
    champions.extend(named.champions);
    let announced = announce(session, &champions).await;
    if session.shared.json {
        println!("{}", serde_json::to_string_pretty(&json!({ "champion": champion, "announced": announced.is_ok() }))?);
        return Ok(());
    }
    if breeds > 0 {
        println!("and the {breeds} models of breeds that were trained with it");
    }
    match announced {
        Ok(()) => println!("scorers were told"),
        Err(why) => println!("scorers see it when they look next, within a second ({why})"),
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
        eprintln!("training on every dataset of {}", session.store_location()?);
    }
    let said = tokio::select! {
        said = trainer.retrain() => said?,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            return Err(Failed::Broken(anyhow!("interrupted; the same command goes on where this one was: `wildrydes model list` shows whether anything was promoted")));
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
