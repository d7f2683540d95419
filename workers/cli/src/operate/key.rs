//! `key`: creates a key for the HTTP API.

use crate::{
    arguments::{KeyScope, NewKey},
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
    let scopes: Vec<&str> = options
        .scopes
        .iter()
        .map(|scope| match scope {
            KeyScope::Read => "read",
            KeyScope::Write => "write",
        })
        .collect();
    if session.shared.json {
        let NewKey { name, requests_per_second, .. } = options;
        println!(
            "{}",
            json!({ "key": key, "name": name, "sha256": sha256, "scopes": scopes, "requests_per_second": requests_per_second })
        );
        return Ok(());
    }
    println!("# The key, for {} only; it is stored nowhere else:\n#   {key}", options.name);
    println!("# For the gateway's configuration file:");
    println!("[[gateway.keys]]\nname = {}\nsha256 = \"{sha256}\"", json!(options.name));
    println!("scopes = {}", json!(scopes));
    if let Some(rate) = options.requests_per_second {
        println!("requests_per_second = {rate}");
    }
    Ok(())
}
