//! `run`: the whole job in this process.

use super::{
    in_process::{Files, in_process, reading},
    report, serve,
};
use crate::{
    arguments::Run,
    session::{Failed, Session},
};

/// `run`
pub(crate) async fn run(session: &Session, options: &Run) -> Result<(), Failed> {
    let (store, reading) = (session.store()?, reading(&options.reading)?);
    session.prove(&store).await?;
    let files = Files { paths: &options.files, reading: &reading, refresh: options.refresh };
    if options.serve.serve.is_some() {
        return serve::run(session, &store, files, None).await;
    }
    let outcome = in_process(session, &store, files).await?;
    report::print(session, &store, &outcome, None).await
}
