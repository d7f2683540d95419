//! Vocabulary: words that stand for a term of `common/README.md` but are not the term.

use super::{files, project};
use std::fs;

/// Words and the term to write. A word matches whole, in any case, also as a part of a name in snake case.
const NOT_OUR_WORDS: [(&str, &str); 13] = [
    ("came true", "delayed labels"),
    ("centre", "prior mean"),
    ("drawn to", "partial pooling"),
    ("model of all rides", "global model"),
    ("names that move", "alias"),
    ("own model", "breed model"),
    ("own models", "breed models"),
    ("pull", "pooling strength"),
    ("pulled", "pooling strength"),
    ("realised", "delayed labels"),
    ("rung", "retry queue"),
    ("rungs", "retry queues"),
    ("unheard", "shadow scoring"),
];

/// Uses that stay: names on the wire, in the store and on the command line, and other programs' words.
const ALLOWED: [&str; 10] = [
    "rename = \"centre\"",
    "\"centre\"",
    "`centre`",
    "rename = \"pull\"",
    "\"pull\"",
    "rename = \"rung\"",
    "realised.json",
    "\"realised\"",
    "docker pull",
    "git lfs pull",
];

/// Replaces what may stay by blanks.
fn without_allowed(text: &str) -> String {
    ALLOWED.iter().fold(text.to_lowercase(), |text, allowed| text.replace(allowed, ""))
}

/// Positions at which `word` stands whole in `text`; `_` separates words.
fn positions<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_letter = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    text.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        !is_letter(text[..at].chars().next_back()) && !is_letter(text[at + word.len()..].chars().next())
    })
}

#[test]
fn one_vocabulary_is_used() {
    let folders = ["common", "workers", "tests", "deploy", "schemas"];
    let own = file!().rsplit('/').next().expect("a name");
    let all = folders.into_iter().flat_map(files).chain([("README.md".to_owned(), project().join("README.md"))]);
    let mut found = Vec::new();
    for (name, path) in all {
        // Examples are frozen, and the table of vocabulary names the words to avoid.
        if name.starts_with("schemas/examples/") || name.ends_with(own) {
            continue;
        }
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let text = without_allowed(&text);
        for (word, term) in NOT_OUR_WORDS {
            for at in positions(&text, word) {
                let line = text[..at].lines().count().max(1);
                found.push(format!("{name}:{line}: {word:?}; write {term:?}"));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn whole_words_are_found() {
    assert_eq!(positions("pull pulley a_pull_b unpull", "pull").collect::<Vec<_>>(), [0, 14]);
    assert_eq!(without_allowed("Run `git lfs pull`, then pull."), "run ``, then pull.");
}
