//! A wire between a client and the broker that can be cut.

use common::runtime::config::{AmqpUrl, BrokerSettings};
use std::{io, net::Ipv4Addr};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// What happens on the wire.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    /// Connections made through it.
    carried: u64,
    /// Connections hung up on.
    refused: u64,
}

/// Forwards a loopback port to the broker's; nothing gets through once it is dropped.
#[derive(Debug)]
pub struct Wire {
    cuts: watch::Sender<u64>,
    refuses: watch::Sender<bool>,
    counts: watch::Sender<Counts>,
    accepting: JoinHandle<()>,
}

impl Wire {
    /// A wire to where the settings lead, and settings that lead through it.
    ///
    /// # Errors
    /// When there is no free port.
    ///
    /// # Panics
    /// When the broker's URL has no host.
    pub async fn to(settings: &BrokerSettings) -> io::Result<(Self, BrokerSettings)> {
        let url = settings.url.reveal();
        let (scheme, rest) = url.split_once("://").expect("a URL has a scheme");
        let (authority, vhost) = rest.split_once('/').unwrap_or((rest, "%2f"));
        let (user, address) = authority.rsplit_once('@').unwrap_or(("guest:guest", authority));
        let target = if address.contains(':') { address.to_owned() } else { format!("{address}:5672") };

        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let (cuts, refuses) = (watch::Sender::new(0), watch::Sender::new(false));
        let counts = watch::Sender::new(Counts::default());
        let accepting = tokio::spawn(accept(listener, target, cuts.clone(), refuses.clone(), counts.clone()));
        let through = BrokerSettings {
            url: AmqpUrl::new(format!("{scheme}://{user}@127.0.0.1:{port}/{vhost}")),
            ..settings.clone()
        };
        Ok((Self { cuts, refuses, counts, accepting }, through))
    }

    /// Drops every connection it carries.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// From now on hangs up on whoever connects, or no longer does. Connections it carries stay.
    pub fn refuse(&self, refuses: bool) {
        self.refuses.send_replace(refuses);
    }

    /// Connections it has carried so far.
    pub fn carried(&self) -> u64 {
        self.counts.borrow().carried
    }

    /// Waits until that many connections were refused.
    pub async fn refused(&self, count: u64) {
        let mut counts = self.counts.subscribe();
        let _ = counts.wait_for(|counts| counts.refused >= count).await;
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn accept(
    listener: TcpListener,
    target: String,
    cuts: watch::Sender<u64>,
    refuses: watch::Sender<bool>,
    counts: watch::Sender<Counts>,
) {
    while let Ok((mut near, _)) = listener.accept().await {
        if *refuses.borrow() {
            counts.send_modify(|counts| counts.refused += 1);
            continue;
        }
        counts.send_modify(|counts| counts.carried += 1);
        let mut cut = cuts.subscribe();
        let target = target.clone();
        tokio::spawn(async move {
            let carry = async {
                let mut far = TcpStream::connect(target).await?;
                copy_bidirectional(&mut near, &mut far).await
            };
            tokio::select! {
                _ = carry => {}
                _ = cut.changed() => {}
            }
        });
    }
}
