//! Which queues a worker answers to.
//!
//! An answer goes through the default exchange, which reaches every queue of the virtual host and which RabbitMQ cannot limit to
//! some of them. The client that sends a request writes its property `reply_to`. A user that may only publish requests could make a
//! worker publish into a work queue or into `<queue>.dead`. Hence a worker answers only to names that the broker alone gives:
//!
//! ```text
//! amq.gen-…                   a queue declared with an empty name: the temporary queues of this fleet's clients
//! amq.rabbitmq.reply-to.…     what RabbitMQ puts in the place of `amq.rabbitmq.reply-to` (direct reply-to)
//! ```
//!
//! RabbitMQ lets nobody declare a name that begins with `amq.`, and no namespace of a fleet begins so: no queue of any fleet is a
//! reply address. The permissions of this fleet's users ([`super::permissions`]) allow no other queues to its clients either.

use super::{envelope::Properties, failure::Failure};
use crate::text::shorten;

/// What RabbitMQ reserves for names that it gives itself; a fleet's namespace never begins so.
pub const RESERVED_PREFIX: &str = "amq.";
/// How the name of a queue begins that was declared with an empty name.
pub const TEMPORARY_PREFIX: &str = "amq.gen-";
/// How the address of a direct reply-to begins, as a worker sees it.
pub const DIRECT_PREFIX: &str = "amq.rabbitmq.reply-to.";

/// Reason of a dead letter: a request without a reply address.
pub const NO_REPLY_TO: &str = "no_reply_to";
/// Reason of a dead letter: a request whose `reply_to` is no reply address.
pub const FOREIGN_REPLY_TO: &str = "foreign_reply_to";

/// Bytes of a refused name that its reason quotes.
const QUOTED_BYTES_MAX: usize = 120;

/// Whether a worker may answer to the queue of that name.
pub fn is_reply_address(name: &str) -> bool {
    [TEMPORARY_PREFIX, DIRECT_PREFIX]
        .iter()
        .any(|prefix| name.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty()))
}

/// Where the answer to a request goes.
///
/// # Errors
/// Permanent, [`NO_REPLY_TO`] or [`FOREIGN_REPLY_TO`]: nobody can be told, the request becomes a dead letter.
pub fn reply_address(request: &Properties) -> Result<&str, Failure> {
    match request.reply_to.as_deref() {
        None => Err(Failure::permanent(NO_REPLY_TO, "the request names no queue to answer to (reply_to)")),
        Some(name) if is_reply_address(name) => Ok(name),
        Some(name) => Err(foreign(name)),
    }
}

/// Checks that a worker may publish to an exchange with a routing key: through the default exchange it may only answer.
///
/// # Errors
/// Permanent, [`FOREIGN_REPLY_TO`].
pub fn check_answer(exchange: &str, routing_key: &str) -> Result<(), Failure> {
    match exchange.is_empty() && !is_reply_address(routing_key) {
        true => Err(foreign(routing_key)),
        false => Ok(()),
    }
}

fn foreign(name: &str) -> Failure {
    let name = shorten(name, QUOTED_BYTES_MAX);
    Failure::permanent(
        FOREIGN_REPLY_TO,
        format!(
            "reply_to is {name:?}: expected amq.rabbitmq.reply-to, or a queue declared with an empty name, which the broker names \
             {TEMPORARY_PREFIX}…"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{delivery::envelope::WHY_BYTES_MAX, fleet::topology::Topology};
    use proptest::prelude::*;

    fn request(reply_to: &str) -> Properties {
        Properties { reply_to: Some(reply_to.to_owned()), ..Properties::default() }
    }

    fn reason(refused: Result<impl std::fmt::Debug, Failure>) -> (&'static str, String) {
        match refused {
            Err(Failure::Permanent { reason, why }) => (reason, why),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn names_that_the_broker_gives_are_answered_to_and_no_others() {
        for name in ["amq.gen-JzTY20BRgKO-HjmUJj0wLg", "amq.rabbitmq.reply-to.g1h2AA5yZXBseUAx.T5f"] {
            assert_eq!(reply_address(&request(name)), Ok(name));
        }
        for name in [
            "",
            "splitter",
            "merger.dead",
            "merger.retry.0",
            "n.scorer",
            "answers",
            "amq.gen",
            "amq.gen-",
            "amq.genuine",
            "Amq.gen-x",
            " amq.gen-x",
            "n.amq.gen-x",
            "amq.rabbitmq.reply-to",
            "amq.rabbitmq.reply-to.",
            "amq.rabbitmq.trace",
        ] {
            assert_eq!(reason(reply_address(&request(name))).0, FOREIGN_REPLY_TO, "{name:?}");
        }
        assert_eq!(reason(reply_address(&Properties::default())).0, NO_REPLY_TO);
    }

    proptest! {
        /// Whatever the namespace: no exchange and no queue of a fleet is a reply address, as a request or as what is published.
        #[test]
        fn no_name_of_a_fleet_is_a_reply_address(namespace in "[A-Za-z0-9_.-]{0,64}") {
            prop_assume!(!namespace.starts_with(RESERVED_PREFIX));
            let topology = Topology::of_fleet(&namespace);
            let exchanges = topology.exchanges.iter().map(|exchange| &exchange.name);
            for name in topology.queues.iter().map(|queue| &queue.name).chain(exchanges) {
                prop_assert!(!is_reply_address(name), "{}", name);
                prop_assert_eq!(reason(reply_address(&request(name))).0, FOREIGN_REPLY_TO);
            }
        }

        /// A name is a reply address exactly if RabbitMQ alone can give it, and a refusal is legible and short whatever it quotes.
        #[test]
        fn every_name_is_judged_by_who_can_give_it(
            prefix in prop_oneof![Just(""), Just("amq."), Just("amq.gen-"), Just("amq.rabbitmq.reply-to."), Just("n.")],
            rest in any::<String>(),
        ) {
            let name = format!("{prefix}{rest}");
            let given = name.len() > "amq.gen-".len() && name.starts_with("amq.gen-")
                || name.len() > "amq.rabbitmq.reply-to.".len() && name.starts_with("amq.rabbitmq.reply-to.");
            prop_assert_eq!(is_reply_address(&name), given);
            let request = request(&name);
            prop_assert_eq!(check_answer("", &name).is_ok(), given);
            prop_assert_eq!(check_answer("work", &name), Ok(()));
            if !given {
                let (code, why) = reason(reply_address(&request));
                prop_assert_eq!(code, FOREIGN_REPLY_TO);
                prop_assert!(why.len() <= WHY_BYTES_MAX * 2 && !why.contains(char::is_control), "{}", why);
            }
        }
    }
}
