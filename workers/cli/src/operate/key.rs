//! `key`: creates a key for the HTTP API.

use crate::{
    arguments::NewKey,
    session::{Failed, Session},
};
use rand::RngExt;
use serde_json::json;
use sha2::{Digest, Sha256};

/// `key`
pub(crate) fn key(session: &Session, options: &NewKey) -> Result<(), Failed> {
    let bytes: [u8; 32] = rand::rng().random();
    let key = format!("wr_{}", hex::encode(bytes));
    let sha256 = hex::encode(Sha256::digest(&key));
    let NewKey { name, scopes, requests_per_second } = options;
    if session.shared.json {
        println!(
            "{}",
            json!({ "key": key, "name": name, "sha256": sha256, "scopes": scopes, "requests_per_second": requests_per_second })
        );
        return Ok(());
    }
    println!("# The key, for {} only; it is stored nowhere else:\n#   {key}", name);
    println!("# For the gateway's configuration file:");
    println!("[[gateway.keys]]\nname = {}\nsha256 = \"{sha256}\"", json!(name));
    println!("scopes = {}", json!(scopes));
    if let Some(rate) = requests_per_second {
        println!("requests_per_second = {rate}");
    }
    Ok(())
}
