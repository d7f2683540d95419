//! The queues to which a worker may send an answer.
//!
//! An answer goes through the default exchange. It reaches every queue of the virtual host, and RabbitMQ cannot
//! restrict it to some of them. The client chooses the property `reply_to` of its request. Without a check, a user that
//! may only publish requests could make a worker publish into a work queue or into `<queue>.dead`. So a worker answers
//! only to names that the broker alone assigns:
//!
//! ```text
//! amq.gen-…                   a queue declared with an empty name: the temporary queues of this fleet's clients
//! amq.rabbitmq.reply-to.…     the address that RabbitMQ substitutes for `amq.rabbitmq.reply-to` (direct reply-to)
//! ```
//!
//! RabbitMQ reserves names that begin with `amq.`, and no namespace of a fleet begins with it. So no queue of any fleet
//! is a reply address. The permissions of the fleet's users ([`super::permissions`]) allow no other queues to its
//! clients either.

use super::{envelope::Properties, failure::Failure};
use crate::text::shorten;

/// Prefix that RabbitMQ reserves for names that it assigns; a fleet's namespace never begins with it.
pub const RESERVED_PREFIX: &str = "amq.";
/// Prefix of the name of a queue that was declared with an empty name.
pub const TEMPORARY_PREFIX: &str = "amq.gen-";
/// Prefix of a direct reply-to address, as a worker receives it.
pub const DIRECT_PREFIX: &str = "amq.rabbitmq.reply-to.";

/// Reason of a dead letter: the request has no `reply_to`.
pub const NO_REPLY_TO: &str = "no_reply_to";
/// Reason of a dead letter: the request's `reply_to` is not a reply address.
pub const FOREIGN_REPLY_TO: &str = "foreign_reply_to";

/// Maximum number of bytes of a refused name that the failure quotes.
const QUOTED_BYTES_MAX: usize = 120;

/// Returns whether a worker may send an answer to the queue `name`.
pub fn is_reply_address(name: &str) -> bool {
    [TEMPORARY_PREFIX, DIRECT_PREFIX]
        .iter()
        .any(|prefix| name.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty()))
}

/// Returns the queue to which the answer to a request goes.
///
/// # Errors
/// Fails permanently with [`NO_REPLY_TO`] or [`FOREIGN_REPLY_TO`]: without an address the request becomes a dead
/// letter.
pub fn reply_address(request: &Properties) -> Result<&str, Failure> {
    match request.reply_to.as_deref() {
        None => Err(Failure::permanent(NO_REPLY_TO, "the request names no queue to answer to (reply_to)")),
        Some(name) if is_reply_address(name) => Ok(name),
        Some(name) => Err(foreign(name)),
    }
}

/// Checks that a worker may publish to an exchange with a routing key: through the default exchange it may only send
/// answers.
///
/// # Errors
/// Fails permanently with [`FOREIGN_REPLY_TO`].
pub fn check_answer(exchange: &str, routing_key: &str) -> Result<(), Failure> {
    if exchange.is_empty() && !is_reply_address(routing_key) { Err(foreign(routing_key)) } else { Ok(()) }
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
    fn only_names_that_the_broker_assigns_are_reply_addresses() {
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
        /// For every namespace: no exchange and no queue of a fleet is a reply address.
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

        /// A name is a reply address exactly if RabbitMQ alone can assign it, and a refusal is printable and short
        /// whatever it quotes.
        #[test]
        fn a_name_is_a_reply_address_if_only_the_broker_can_assign_it(
            prefix in prop_oneof![Just(""), Just("amq."), Just("amq.gen-"), Just("amq.rabbitmq.reply-to."), Just("n.")],
            rest in any::<String>(),
        ) {
            let name = format!("{prefix}{rest}");
            let is_assigned = name.len() > "amq.gen-".len() && name.starts_with("amq.gen-")
                || name.len() > "amq.rabbitmq.reply-to.".len() && name.starts_with("amq.rabbitmq.reply-to.");
            prop_assert_eq!(is_reply_address(&name), is_assigned);
            let request = request(&name);
            prop_assert_eq!(check_answer("", &name).is_ok(), is_assigned);
            prop_assert_eq!(check_answer("work", &name), Ok(()));
            if !is_assigned {
                let (code, why) = reason(reply_address(&request));
                prop_assert_eq!(code, FOREIGN_REPLY_TO);
                prop_assert!(why.len() <= WHY_BYTES_MAX * 2 && !why.contains(char::is_control), "{}", why);
            }
        }
    }
}
