//! How far a batch is, as far as the store shows.

use common::{
    contract::{dataset::Claim, layout},
    runtime::{
        Store,
        staging::{self, Staged},
        store,
    },
};

/// Reads how far a batch is; `None` when it is not known.
pub(crate) async fn staged(store: &Store, batch_id: &str) -> Option<Staged> {
    let claim: Claim = store::read_json(store, &layout::claim(batch_id)).await.ok()??;
    staging::look(store, &claim).await.ok()
}
