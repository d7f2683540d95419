//! What both listeners do with every request: mark its connection as busy, and bound its time.

use super::{connections::Busy, listener::Peer, problem::Problem};
use crate::app::App;
use axum::{
    extract::{ConnectInfo, Request},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::{net::IpAddr, time::Duration};

/// How long after its deadline a request is ended in any case.
const GRACE: Duration = Duration::from_millis(500);

/// Marks the connection of a request as busy until the token is dropped.
pub(crate) fn mark_busy(request: &mut Request) -> Option<Busy> {
    // Removed, because a request that outlives its connection must not keep it open.
    let ConnectInfo(Peer(connection)) = request.extensions_mut().remove::<ConnectInfo<Peer>>()?;
    request.extensions_mut().insert(PeerNetwork(connection.network()));
    Some(connection.begins())
}

/// The address by which limits distinguish clients.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PeerNetwork(pub(crate) IpAddr);

/// Answers a request within its deadline.
pub(crate) async fn answer_in_time(app: &App, request: Request, next: Next) -> Response {
    let patience = app.deadline() + GRACE;
    tokio::time::timeout(patience, next.run(request)).await.unwrap_or_else(|_| {
        let detail = format!("the object store or the broker took longer than {} ms", patience.as_millis());
        Problem::no_answer(detail).into_response()
    })
}
