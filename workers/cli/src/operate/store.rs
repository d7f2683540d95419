//! `store`: copies a fleet's object store.

use crate::{
    arguments::{CopyStore, StoreCommand},
    output::progress::{Step, Unit},
    session::{Failed, Session},
};
use anyhow::anyhow;
use indicatif::HumanBytes;
use records::store::{self, Copied, CopyError, Extent, Unproven};
use runtime::host;
use serde_json::json;

/// Number of races that a service must pass before anything is copied to it.
const RACES: usize = 4;

/// `store`
pub(crate) async fn store(session: &Session, command: &StoreCommand) -> Result<(), Failed> {
    let StoreCommand::Copy(options) = command;
    copy(session, options).await
}

/// `store copy`
async fn copy(session: &Session, CopyStore { from, to }: &CopyStore) -> Result<(), Failed> {
    let settings = session.store_settings()?;
    let (source, target) = (settings.at(from), settings.at(to));
    let Some(source) = store::open_existing(&source).map_err(Failed::Misused)? else {
        return Err(Failed::Broken(anyhow!("there is no store {from}")));
    };
    let is_remote = target.is_remote();
    let target = store::open(&target).map_err(Failed::Misused)?;
    let random = host::random_range(0..=u128::MAX);
    if is_remote {
        store::prove(&target, RACES, random).await.map_err(|why| unproven(to, why))?;
    }
    let checked = store::check_copy(&source, &target, random).await.map_err(|error| failed(error, from, to))?;
    let step = Step::start(format!("copying to {to}"), Unit::Bytes, checked.extent.bytes, session.shared.json);
    let copied = store::copy(&source, &target, &checked, |bytes| step.at(bytes)).await;
    let copied = copied.map_err(|error| failed(error, from, to))?;
    step.done(checked.extent.bytes);
    print(session, from, to, &copied)
}

fn print(session: &Session, from: &str, to: &str, copied: &Copied) -> Result<(), Failed> {
    if session.shared.json {
        let extent = |Extent { objects, bytes }: Extent| json!({ "objects": objects, "bytes": bytes });
        let done =
            json!({ "from": from, "to": to, "written": extent(copied.written), "present": extent(copied.present) });
        println!("{}", serde_json::to_string_pretty(&done)?);
        return Ok(());
    }
    let text = |Extent { objects, bytes }: Extent| format!("{objects} objects, {}", HumanBytes(bytes));
    println!("written   {}", text(copied.written));
    println!("present   {}", text(copied.present));
    println!(
        "\n{to} has every object of {from}, compared by SHA-256. Set store.url = \"{to}\" for every process of the fleet."
    );
    Ok(())
}

fn unproven(to: &str, why: Unproven) -> Failed {
    let is_temporary = why.is_temporary();
    let error = anyhow::Error::from(why).context(to.to_owned());
    if is_temporary { Failed::Broken(error) } else { Failed::Misused(error) }
}

fn failed(error: CopyError, from: &str, to: &str) -> Failed {
    let is_misuse = matches!(error, CopyError::SameStore | CopyError::NotEmpty { .. });
    let error = anyhow::Error::from(error).context(format!("copying {from} to {to}"));
    if is_misuse { Failed::Misused(error) } else { Failed::Broken(error) }
}
