//! `topology`: shows and declares exchanges, queues and bindings.

use crate::{
    arguments::TopologyCommand,
    operate::{manifests::manifests, users::users},
    output::print_json,
    session::{Failed, Session},
};
use common::topology::{Argument, ExchangeKind, Role, Topology};
use runtime::{
    AmqpBroker, Broker,
    config::{BrokerSettings, Declare},
};
use std::fmt::Write;

/// `topology`
pub(crate) async fn topology(session: &Session, command: &TopologyCommand) -> Result<(), Failed> {
    let namespace = session.section::<BrokerSettings>()?.namespace;
    let topology = Topology::of_fleet(&namespace);
    match command {
        TopologyCommand::Show { dot: true } => print!("{}", dot(&topology)?),
        TopologyCommand::Show { dot: false } if session.shared.json => {
            print_json(&topology)?;
        }
        TopologyCommand::Show { dot: false } => print!("{}", table(&topology)?),
        TopologyCommand::Users(options) => users(session, options).await?,
        TopologyCommand::Manifests(options) => print!("{}", manifests(session, options)?),
        TopologyCommand::Apply => {
            // Declare even if everything exists, so that the broker compares the arguments.
            let settings = BrokerSettings { declare: Declare::Always, ..session.section()? };
            let broker = AmqpBroker::new(settings);
            let connection = broker.connect("wildrydes topology").await?;
            connection.declare().await?;
            connection.close().await;
            println!(
                "{} exchanges, {} queues and {} bindings exist on {}",
                topology.exchanges.len(),
                topology.queues.len(),
                topology.bindings.len(),
                broker.describe()
            );
        }
    }
    Ok(())
}

fn table(topology: &Topology) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    writeln!(text, "{:<26}kind", "exchange")?;
    for exchange in &topology.exchanges {
        let kind = match exchange.kind {
            ExchangeKind::Direct => "direct",
            ExchangeKind::Topic => "topic",
        };
        writeln!(text, "{:<26}{kind}", exchange.name)?;
    }
    writeln!(text, "\n{:<26}{:<34}arguments", "queue", "bound to (exchange: routing key)")?;
    for queue in &topology.queues {
        let sources: Vec<String> = topology
            .bindings
            .iter()
            .filter(|binding| binding.queue == queue.name)
            .map(|binding| format!("{}: {}", binding.exchange, binding.routing_key))
            .collect();
        let arguments: Vec<String> =
            queue.arguments.iter().map(|(name, value)| format!("{name}={}", argument_text(value))).collect();
        for line in 0..sources.len().max(arguments.len()) {
            let name = if line == 0 { queue.name.as_str() } else { "" };
            let cell = |cells: &[String]| cells.get(line).cloned().unwrap_or_default();
            writeln!(text, "{}", format!("{name:<26}{:<34}{}", cell(&sources), cell(&arguments)).trim_end())?;
        }
    }
    for subscription in &topology.subscriptions {
        let source = format!("{}: {}", subscription.exchange, subscription.routing_key);
        writeln!(text, "{:<26}{source:<34}one temporary queue per process", format!("(each {})", subscription.worker))?;
    }
    writeln!(text, "\n{:<26}{:<34}to", "publisher", "message")?;
    for publication in &topology.publications {
        let to = if publication.exchange.is_empty() { "the queue of the requester" } else { &publication.exchange };
        writeln!(text, "{:<26}{:<34}{to}", publication.by, publication.message)?;
    }
    Ok(text)
}

fn argument_text(argument: &Argument) -> String {
    match argument {
        Argument::Integer(value) => value.to_string(),
        Argument::Text(value) => value.clone(),
    }
}

fn dot(topology: &Topology) -> Result<String, std::fmt::Error> {
    let mut text = String::from(
        "digraph wildrydes {\n  rankdir=LR; node [fontname=\"sans-serif\"]; edge [fontname=\"sans-serif\", fontsize=10];\n",
    );
    for exchange in &topology.exchanges {
        writeln!(
            text,
            "  \"x:{0}\" [label=\"{0}\", shape=diamond, style=filled, fillcolor=\"#e8e0ff\"];",
            exchange.name
        )?;
    }
    for queue in &topology.queues {
        let (shape, colour) = match queue.role {
            Role::Work => ("box", "#d8f0e0"),
            Role::Retry { .. } => ("box", "#fff4d0"),
            Role::Dead { .. } => ("box", "#f8d8d8"),
        };
        writeln!(text, "  \"{0}\" [label=\"{0}\", shape={shape}, style=filled, fillcolor=\"{colour}\"];", queue.name)?;
        if let Role::Retry { of, delay_ms } = &queue.role {
            writeln!(text, "  \"{}\" -> \"{of}\" [style=dashed, label=\"after {} s\"];", queue.name, delay_ms / 1_000)?;
        }
    }
    for binding in &topology.bindings {
        writeln!(text, "  \"x:{}\" -> \"{}\" [label=\"{}\"];", binding.exchange, binding.queue, binding.routing_key)?;
    }
    for subscription in &topology.subscriptions {
        let node = format!("each {}", subscription.worker);
        writeln!(text, "  \"{node}\" [shape=box, style=\"dashed\"];")?;
        writeln!(text, "  \"x:{}\" -> \"{node}\" [label=\"{}\"];", subscription.exchange, subscription.routing_key)?;
    }
    text.push_str("}\n");
    Ok(text)
}
