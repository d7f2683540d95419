//! Arguments of `topology`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `topology`
#[derive(Debug, Subcommand)]
pub enum TopologyCommand {
    /// Print every exchange, queue, binding and retry queue (--json for machines)
    #[command(after_help = "\
Examples:
  wildrydes topology show
  wildrydes topology show --json
  wildrydes topology show --dot | dot -Tsvg > topology.svg")]
    Show {
        /// As a graph, for Graphviz: wildrydes topology show --dot | dot -Tsvg > topology.svg
        #[arg(long)]
        dot: bool,
    },
    /// Declare what is missing on the broker
    Apply,
    /// Print one RabbitMQ user per worker and external role, with the least permissions (--json for machines)
    Users(Users),
    /// Print queues, exchanges, bindings, users and permissions as resources of RabbitMQ's messaging topology operator
    #[command(after_help = "\
Examples:
  wildrydes topology manifests --cluster rabbitmq | kubectl apply --server-side -f -
  wildrydes topology manifests --cluster rabbitmq --cluster-namespace messaging --secrets fleet-broker-

A User reads the keys username and password of the Secret PREFIX and role. The operator keeps a queue whose resource is
deleted, but it cannot change arguments or permissions: delete such a resource and apply it again.")]
    Manifests(Manifests),
}

/// `topology manifests`
#[derive(Debug, Args)]
pub struct Manifests {
    /// Name of the RabbitmqCluster
    #[arg(long, value_name = "NAME")]
    pub cluster: String,
    /// Namespace of the RabbitmqCluster [default: that of the resources]
    #[arg(long, value_name = "NAME")]
    pub cluster_namespace: Option<String>,
    /// Prefix of the names of the users' Secrets
    #[arg(long, value_name = "PREFIX", default_value = "wildrydes-broker-")]
    pub secrets: String,
}

/// `topology users`
#[derive(Debug, Args)]
pub struct Users {
    /// As definitions for RabbitMQ (load_definitions, rabbitmqctl import_definitions), with hashed passwords
    #[arg(long, requires = "passwords", conflicts_with = "rabbitmqctl")]
    pub definitions: bool,
    /// As commands that create the users
    #[arg(long)]
    pub rabbitmqctl: bool,
    /// Import them into RabbitMQ through its management API, as the administrator of broker.url
    #[arg(long, requires = "passwords", conflicts_with_all = ["definitions", "rabbitmqctl"])]
    pub import: bool,
    /// Folder of the passwords, in one file USER/password per user
    #[arg(long, value_name = "DIR")]
    pub passwords: Option<PathBuf>,
    /// Generate the missing passwords
    #[arg(long, requires = "passwords")]
    pub generate: bool,
}
