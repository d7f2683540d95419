//! Connects to RabbitMQ with the configured settings.

use super::{
    connection::AmqpConnection,
    convert::short,
    operation::{self, translate, within},
    tls,
};
use crate::{
    broker::{Broker, BrokerError, Connection},
    config::BrokerSettings,
};
use async_trait::async_trait;
use common::topology::Topology;
use lapin::{
    ConnectionProperties,
    options::{ExchangeDeleteOptions, QueueDeleteOptions},
    uri::{AMQPScheme, AMQPUri},
};
use std::time::Duration;

/// Interval between heartbeats in seconds, unless the URL sets another (`?heartbeat=30`). After two missed heartbeats
/// either side closes the connection. The broker's default of 60 would leave a consumer on a dead connection for two
/// minutes.
const HEARTBEAT_S: u16 = 10;

/// A RabbitMQ broker.
#[derive(Debug, Clone)]
pub struct AmqpBroker {
    pub(super) settings: BrokerSettings,
}

impl AmqpBroker {
    /// Returns the configured broker. Does not connect.
    pub fn new(settings: BrokerSettings) -> Self {
        Self { settings }
    }

    pub(super) async fn open(&self, name: &str) -> Result<lapin::Connection, BrokerError> {
        let deadline = Duration::from_millis(self.settings.connect_timeout_ms);
        let properties = ConnectionProperties::default()
            .with_connection_name(name.into())
            .configure_backoff(|backoff| backoff.with_max_times(0));
        let uri = self.uri()?;
        let connector = match uri.scheme {
            AMQPScheme::AMQPS => Some(tls::connector(&self.settings)?),
            AMQPScheme::AMQP => None,
        };
        let connecting = tls::connect(uri, connector, properties);
        let error = match tokio::time::timeout(deadline, connecting).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => match tls::refusal(&error) {
                Some(why) => BrokerError::Refused(why),
                None => translate("connecting", error),
            },
            Err(_) => BrokerError::Lost(format!("connecting: no answer within {} ms", deadline.as_millis())),
        };
        let url = &self.settings.url;
        Err(match error {
            BrokerError::Lost(why) => BrokerError::Lost(format!("{url}: {why}")),
            BrokerError::Refused(why) => BrokerError::Refused(format!("{url}: {why}")),
            other => other,
        })
    }

    /// Returns the URL, with the password from the password file if one is configured.
    fn uri(&self) -> Result<AMQPUri, BrokerError> {
        let mut uri = self.uri_as_given()?;
        if let Some(file) = &self.settings.password_file {
            let wrong = |why: String| BrokerError::Refused(format!("broker.password_file = {file}: {why}"));
            let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
            let password = text.trim_end_matches(['\r', '\n']);
            if password.is_empty() || password.contains('\n') {
                return Err(wrong("expected the password in its one line".to_owned()));
            }
            password.clone_into(&mut uri.authority.userinfo.password);
        }
        Ok(uri)
    }

    /// Returns the virtual host that the URL names.
    ///
    /// # Errors
    /// Fails if the URL is invalid.
    pub fn virtual_host(&self) -> Result<String, BrokerError> {
        Ok(self.uri_as_given()?.vhost)
    }

    fn uri_as_given(&self) -> Result<AMQPUri, BrokerError> {
        let url = &self.settings.url;
        // The parser's message may contain the password.
        let unreadable = |_| BrokerError::Refused(format!("broker.url = {url}: expected amqp://user@host:5672/vhost"));
        let mut uri: AMQPUri = url.reveal().parse().map_err(unreadable)?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT_S);
        Ok(uri)
    }

    /// Deletes the fleet's exchanges and queues with their messages. For benchmarks and tests that use a namespace of
    /// their own.
    ///
    /// # Errors
    /// Fails if the broker cannot be used.
    pub async fn remove_topology(&self) -> Result<(), BrokerError> {
        let connection = self.open("removing a topology").await?;
        let deadline = Duration::from_millis(self.settings.confirm_timeout_ms);
        let channel = operation::channel(&connection, deadline).await?;
        let topology = Topology::of_fleet(&self.settings.namespace);
        for queue in &topology.queues {
            let deleted = channel.queue_delete(short(&queue.name), QueueDeleteOptions::default());
            within(deadline, &format!("deleting queue {}", queue.name), deleted).await?;
        }
        for exchange in &topology.exchanges {
            let deleted = channel.exchange_delete(short(&exchange.name), ExchangeDeleteOptions::default());
            within(deadline, &format!("deleting exchange {}", exchange.name), deleted).await?;
        }
        within(deadline, "closing", connection.close(200, short("goodbye"))).await
    }
}

#[async_trait]
impl Broker for AmqpBroker {
    async fn connect(&self, name: &str) -> Result<Box<dyn Connection>, BrokerError> {
        let publishing = self.open(&format!("{name} (publishing)")).await?;
        let consuming = self.open(&format!("{name} (consuming)")).await?;
        Ok(Box::new(AmqpConnection::new(publishing, consuming, &self.settings)))
    }

    fn describe(&self) -> String {
        self.settings.url.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::{AmqpBroker, BrokerSettings};
    use crate::config::AmqpUrl;

    #[test]
    fn a_url_keeps_the_heartbeat_it_names() {
        for (url, expected) in [
            ("amqp://host", 10),
            ("amqp://host/%2f?frame_max=8192", 10),
            ("amqp://host/%2f?frame_max=8192&heartbeat=3", 3),
        ] {
            let settings = BrokerSettings { url: AmqpUrl::new(url), ..BrokerSettings::default() };
            assert_eq!(AmqpBroker::new(settings).uri().unwrap().query.heartbeat, Some(expected), "{url}");
        }
    }
}
