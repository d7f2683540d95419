//! Shutdown as a token: every task that holds the token learns of the shutdown request.

pub use tokio_util::sync::CancellationToken as Shutdown;

/// Returns a token that SIGTERM or SIGINT (Ctrl-C) cancels. A second signal ends the process at once.
///
/// # Errors
/// Fails if the signal handlers cannot be installed.
pub fn on_signal() -> std::io::Result<Shutdown> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let shutdown = Shutdown::new();
    let token = shutdown.clone();
    tokio::spawn(async move {
        let name = tokio::select! { _ = terminate.recv() => "SIGTERM", _ = interrupt.recv() => "SIGINT" };
        tracing::info!(signal = name, "shutting down; a second signal ends at once");
        token.cancel();
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        std::process::exit(130);
    });
    Ok(shutdown)
}
