//! Decisions that were made before.

use common::{
    document::{BY_HAND_ONLY, Rule, Verdict},
    model::AliasName,
    outcome::{Failure, Outgoing},
};
use records::{
    registry::{self, announcement, rejection},
    store::{Store, unreadable_as_missing},
};

/// Returns the messages about a version that was judged before: the present champion, or the rejection. `None` if the version has to be
/// judged: it was not yet, or it was rejected under another rule and nobody promoted it since.
pub(crate) async fn known_decision(
    store: &Store,
    model: &str,
    model_id: &str,
    rule: Rule,
) -> Result<Option<Vec<Outgoing>>, Failure> {
    let verdict = unreadable_as_missing(registry::read::<Verdict>(store, model, model_id).await)?;
    let champion = registry::current_alias(store, model, AliasName::Champion).await?;
    let is_champion = champion.as_ref().is_some_and(|champion| champion.model_id == model_id);
    let verdict = verdict.filter(|verdict| verdict.promoted || is_champion || verdict.rule == Some(rule));
    let (Some(verdict), Ok(_)) = (verdict, registry::version(store, model, model_id).await?) else { return Ok(None) };
    let rejected = || Outgoing::message(&rejection(model, model_id, verdict.clone()));
    Ok(match champion {
        Some(champion) if verdict.promoted || champion.model_id == model_id => {
            let champion = registry::publish_alias(store, champion).await?;
            Some(vec![Outgoing::message(&announcement(&champion))?])
        }
        Some(_) => Some(vec![rejected()?]),
        None if verdict.reason == BY_HAND_ONLY => Some(vec![rejected()?]),
        // The aliases are gone: judge again.
        None => None,
    })
}
