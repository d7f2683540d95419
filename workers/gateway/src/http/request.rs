//! What every listener does with a request: it marks its connection as busy, and bounds how long the answer may take.

use super::{connections::Busy, listener::Peer, problem::Problem};
use crate::app::App;
use axum::{
    extract::{ConnectInfo, Request},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::{net::IpAddr, time::Duration};

/// How much later than its own deadline a request is ended whatever it does.
const GRACE: Duration = Duration::from_millis(500);

/// A request of a connection begins.
pub(crate) fn begins(request: &mut Request) -> Option<Busy> {
    // Taken out: a request that outlives its connection must not keep it.
    let ConnectInfo(Peer(connection)) = request.extensions_mut().remove::<ConnectInfo<Peer>>()?;
    request.extensions_mut().insert(PeerNetwork(connection.network()));
    Some(connection.begins())
}

/// The address of a client, as limits tell clients apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PeerNetwork(pub(crate) IpAddr);

/// Answers a request within its deadline.
pub(crate) async fn bounded(app: &App, request: Request, next: Next) -> Response {
    let patience = app.deadline() + GRACE;
    tokio::time::timeout(patience, next.run(request)).await.unwrap_or_else(|_| {
        let detail = format!("the object store or the broker took longer than {} ms", patience.as_millis());
        Problem::no_answer(detail).into_response()
    })
}
