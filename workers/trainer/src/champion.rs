//! Which model the scorers follow.
//!
//! ```text
//! models/<model>/champion/0000000001.json   the first champion, for ever
//! models/<model>/champion/0000000002.json   the second, …
//! models/<model>/champion.json              a copy of the highest: the alias scorers read
//! ```
//!
//! Not every object store can replace an object on condition that nobody else has, but all can create one on condition
//! that there is none. So each generation is an object of its own: of several trainers that promote at once one creates
//! it, the others look again. The alias is overwritten afterwards; whoever writes it looks for a higher generation once
//! more, so that the slower of two writers repairs what it has put back. A trainer that dies in between leaves its
//! message unacknowledged, and the next delivery does it again.

use common::{
    contract::{
        layout,
        model::{CHAMPION_SCHEMA, Champion, Model, TrainedOn},
        outcome::Failure,
    },
    runtime::store::{self, Store},
};

/// Makes `model` the champion, unless it is outdated: the present champion was trained on all its datasets and on others
/// that are still there. Returns whoever is champion in the end; the alias says so, too.
///
/// # Errors
/// When the store is away.
pub async fn promote(store: &Store, model: &Model) -> Result<Champion, Failure> {
    loop {
        let current = current(store, &model.model).await?;
        if let Some(current) = &current
            && (current.model_id == model.model_id || is_outdated(store, model, current).await?)
        {
            return publish_alias(store, current.clone()).await;
        }
        let next = successor(current, model);
        if store::create(store, &layout::champion_generation(&next.model, generation(&next)), encode(&next)?).await? {
            return publish_alias(store, next).await;
        }
    }
}

/// How many champions there were up to this one.
fn generation(champion: &Champion) -> usize {
    champion.history.len() + 1
}

fn successor(current: Option<Champion>, model: &Model) -> Champion {
    let mut history = Vec::new();
    if let Some(current) = current {
        history = current.history;
        history.push(current.model_id);
    }
    Champion {
        schema: CHAMPION_SCHEMA.to_owned(),
        model: model.model.clone(),
        model_id: model.model_id.clone(),
        object: layout::model(&model.model, &model.model_id),
        history,
    }
}

/// The highest generation. The alias tells where to look for it; it may be behind, or unreadable.
async fn current(store: &Store, model: &str) -> Result<Option<Champion>, Failure> {
    let alias = readable(store::read_json(store, &layout::champion(model)).await)?;
    higher(store, model, alias).await
}

async fn higher(store: &Store, model: &str, mut known: Option<Champion>) -> Result<Option<Champion>, Failure> {
    loop {
        let next = known.as_ref().map_or(0, generation) + 1;
        match store::read_json(store, &layout::champion_generation(model, next)).await? {
            Some(champion) => known = Some(champion),
            None => return Ok(known),
        }
    }
}

async fn publish_alias(store: &Store, mut champion: Champion) -> Result<Champion, Failure> {
    let alias = layout::champion(&champion.model);
    loop {
        let body = encode(&champion)?;
        if store::read(store, &alias).await?.as_deref() != Some(body.as_slice()) {
            store::write(store, &alias, body).await?;
        }
        let found = higher(store, &champion.model.clone(), Some(champion.clone())).await?;
        match found.filter(|found| *found != champion) {
            Some(found) => champion = found,
            None => return Ok(champion),
        }
    }
}

/// A dataset that was removed since is no reason to keep a champion that knew it.
async fn is_outdated(store: &Store, model: &Model, champion: &Champion) -> Result<bool, Failure> {
    if !layout::is_below(layout::MODELS, &champion.object) {
        return Ok(false);
    }
    let Some(champion) = readable(store::read_json::<Model>(store, &champion.object).await)? else {
        return Ok(false);
    };
    if !model.datasets.iter().all(|dataset| champion.datasets.contains(dataset)) {
        return Ok(false);
    }
    let unknown_to_us = |dataset: &&TrainedOn| !model.datasets.contains(dataset);
    for dataset in champion.datasets.iter().filter(unknown_to_us) {
        if store::exists(store, &layout::manifest(&dataset.batch_id)).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Takes an object that is not the JSON it should be for one that is not there.
pub(crate) fn readable<T>(read: Result<Option<T>, Failure>) -> Result<Option<T>, Failure> {
    match read {
        Err(Failure::Permanent { why, .. }) => {
            tracing::warn!(%why, "an object cannot be read; it will be replaced");
            Ok(None)
        }
        other => other,
    }
}

fn encode(champion: &Champion) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec_pretty(champion).map_err(|error| Failure::permanent("unencodable", error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::memory::InMemory;
    use std::sync::Arc;

    #[tokio::test]
    async fn the_slower_of_two_writers_repairs_what_it_puts_back() {
        let store: Store = Arc::new(InMemory::new());
        let champion = |model_id: &str, history: &[&str]| Champion {
            schema: CHAMPION_SCHEMA.to_owned(),
            model: "m".to_owned(),
            model_id: model_id.to_owned(),
            object: layout::model("m", model_id),
            history: history.iter().map(|id| (*id).to_owned()).collect(),
        };
        let (first, second) = (champion("a", &[]), champion("b", &["a"]));
        for champion in [&first, &second] {
            let path = layout::champion_generation("m", generation(champion));
            assert!(store::create(&store, &path, encode(champion).unwrap()).await.unwrap());
        }
        // The first one's writer comes last; also when it dies before it looks again, the next reader finds the second.
        assert_eq!(publish_alias(&store, first.clone()).await.unwrap(), second);
        let alias: Champion = store::read_json(&store, &layout::champion("m")).await.unwrap().unwrap();
        assert_eq!(alias, second);
        store::write(&store, &layout::champion("m"), encode(&first).unwrap()).await.unwrap();
        assert_eq!(current(&store, "m").await.unwrap(), Some(second));
    }
}
