//! Revisions: the newest one is trained on, once.

use super::*;

fn second() -> NonZeroU32 {
    FIRST_REVISION.saturating_add(1)
}

/// Number of model versions with an artefact.
async fn versions(store: &Store) -> usize {
    everything(store).await.keys().filter(|path| path.ends_with("/model.json")).count()
}

#[tokio::test]
async fn a_revision_is_trained_on_once_and_named() {
    let store = memory();
    let other = put_dataset(&store, "b", &[lines("b", 1_000, 6)]).await;
    let first = put_dataset(&store, "a", &[lines("a", 900, 6)]).await;
    let trainer = trainer(&store);
    let old = promoted(&trainer, &first).await;
    let newer = put_revision(&store, "a", second(), &[lines("a", 1_000, 6)]).await;
    let new = promoted(&trainer, &newer).await;
    assert_eq!(new.previous_model_id, Some(old.model_id));
    let revisions: Vec<_> =
        model(&store, &new).await.datasets.into_iter().map(|dataset| (dataset.batch_id, dataset.revision)).collect();
    assert_eq!(revisions, [("a".to_owned(), Some(second())), ("b".to_owned(), None)]);
    assert_eq!(versions(&store).await, 2);
    // Late and repeated announcements, of the earlier revision as well, train nothing and go back to nothing.
    for late in [&first, &newer, &other] {
        assert_eq!(promoted(&trainer, late).await, new);
    }
    assert_eq!(versions(&store).await, 2);
}

/// The announcement of an earlier revision may arrive first: the training uses the newest one, which is not trained on again.
#[tokio::test]
async fn an_announcement_that_is_overtaken_trains_on_the_newest_revision() {
    let store = memory();
    let first = put_dataset(&store, "a", &[lines("a", 900, 6)]).await;
    let newer = put_revision(&store, "a", second(), &[lines("a", 1_000, 6)]).await;
    let trainer = trainer(&store);
    let new = promoted(&trainer, &first).await;
    assert_eq!(model(&store, &new).await.datasets[0].manifest_sha256, newer.manifest_sha256);
    assert_eq!(promoted(&trainer, &newer).await, new);
    assert_eq!(versions(&store).await, 1);
    // A revision that the store does not show yet.
    let missing = DatasetReady { revision: Some(second().saturating_add(1)), ..newer };
    assert!(matches!(handle(&trainer, &missing).await, Err(Failure::Transient { .. })));
}

/// A model that was trained on an earlier revision, and is complete only now, does not replace that of the newer one.
#[tokio::test]
async fn a_late_model_of_an_earlier_revision_is_no_champion() {
    let store = memory();
    let first = put_dataset(&store, "a", &[lines("a", 900, 6)]).await;
    let slow = memory();
    put_dataset(&slow, "a", &[lines("a", 900, 6)]).await;
    let old = promoted(&trainer(&slow), &first).await;
    let newer = put_revision(&store, "a", second(), &[lines("a", 1_000, 6)]).await;
    let new = promoted(&trainer(&store), &newer).await;
    // The process that planned on the first revision writes its model now.
    let manifest = layout::manifest("a", second());
    let bytes = store::read(&store, &manifest).await.unwrap().unwrap();
    store::remove(&store, &manifest).await.unwrap();
    let shared = Shared::new(always(), Arc::clone(&store), 1);
    let plan = Plan::read(&store, shared.settings.training(), "a").await.unwrap();
    assert_eq!(plan.model_id, old.model_id);
    store::write(&store, &manifest, bytes).await.unwrap();
    let messages = shared.train(&plan, "a").await.unwrap();
    assert_eq!(messages[0].routing_key, "model-rejected.v1");
    assert_eq!(alias(&store).await.unwrap().model_id, new.model_id);
}
