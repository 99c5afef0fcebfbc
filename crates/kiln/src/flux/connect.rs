//! The connection of a command to its broker.

use super::fail::Fail;
use kiln_jobs::proto::{Answer, Failure, FailureKind, Reply, Request, WAIT_MS_MAX};
use kiln_net::{CallOptions, Client};
use std::{env, io, path::PathBuf, time::Duration};

/// How much longer than it may hold its answer a broker gets, for a busy machine.
const ANSWER_SLACK: Duration = Duration::from_mins(1);

/// How long a restarting broker is waited for.
const RECONNECT: Duration = Duration::from_secs(20);

/// Pause between attempts to connect again.
const RETRY: Duration = Duration::from_millis(100);

/// Where a command finds its broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    socket: PathBuf,
    /// Whether `FLUX_URI` says so.
    given: bool,
}

impl Address {
    /// `FLUX_URI` when it is set, else the instance that runs on this machine.
    pub(super) fn from_environment() -> Result<Self, String> {
        match env::var("FLUX_URI") {
            Ok(uri) if !uri.is_empty() => Self::from_uri(&uri),
            _ => Ok(Self { socket: crate::paths::default_flux_socket(), given: false }),
        }
    }

    /// Reads `local:///path`.
    pub(super) fn from_uri(uri: &str) -> Result<Self, String> {
        let path = uri.strip_prefix("local://").filter(|path| path.starts_with('/'));
        path.map(|path| Self { socket: PathBuf::from(path), given: true })
            .ok_or_else(|| format!("FLUX_URI is '{uri}', but only local:///path/to/socket is supported"))
    }

    /// `local:///path`.
    pub(super) fn uri(&self) -> String {
        format!("local://{}", self.socket.display())
    }

    fn absent(&self) -> String {
        let socket = self.socket.display();
        let hint = if self.given {
            "FLUX_URI names a broker that is not there; unset it to use the instance of this machine"
        } else {
            "no instance runs here; start one with `kiln up`, or set FLUX_URI"
        };
        format!("Unable to connect to Flux: broker socket {socket} was not found\n({hint})")
    }
}

/// A broker, connected. Cheap to clone; calls may overlap.
#[derive(Clone)]
pub(super) struct Broker {
    address: Address,
    client: std::sync::Arc<tokio::sync::Mutex<Option<Client>>>,
}

impl Broker {
    /// Connects to the broker that the environment names.
    pub(super) async fn open(program: &str) -> Result<Self, Fail> {
        let address = Address::from_environment().map_err(|text| Fail::error(program, text))?;
        let client = Client::connect_unix(&address.socket).await.map_err(|error| {
            let absent = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused);
            let text = if absent { address.absent() } else { format!("Unable to connect to Flux: {error}") };
            Fail::error(program, text)
        })?;
        let client = std::sync::Arc::new(tokio::sync::Mutex::new(Some(client)));
        Ok(Self { address, client })
    }

    /// Asks once. A lost connection is a failure: whether the broker acted is not known then.
    pub(super) async fn ask(&self, request: &Request) -> Answer {
        let client = self.connected().await.map_err(|error| lost(&error.to_string()))?;
        call(&client, request).await.map_err(|error| lost(&error))?
    }

    /// Asks what changes nothing; tries again when the broker is being restarted meanwhile.
    pub(super) async fn ask_again(&self, request: &Request) -> Answer {
        let deadline = tokio::time::Instant::now() + RECONNECT;
        loop {
            let problem = match self.connected().await {
                Ok(client) => match call(&client, request).await {
                    Ok(answer) => return answer,
                    Err(error) => error,
                },
                Err(error) => error.to_string(),
            };
            if tokio::time::Instant::now() >= deadline {
                return Err(lost(&problem));
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn connected(&self) -> io::Result<Client> {
        let mut held = self.client.lock().await;
        if let Some(client) = held.as_ref().filter(|client| !client.is_closed()) {
            return Ok(client.clone());
        }
        let client = Client::connect_unix(&self.address.socket).await?;
        *held = Some(client.clone());
        Ok(client)
    }
}

async fn call(client: &Client, request: &Request) -> Result<Answer, String> {
    let deadline = Some(Duration::from_millis(u64::from(WAIT_MS_MAX)) + ANSWER_SLACK);
    let options = CallOptions { deadline, ..CallOptions::default() };
    client
        .call_with::<Request, Answer>(request, options)
        .await
        .map(|(answer, _)| answer)
        .map_err(|e| e.to_string())
}

fn lost(error: &str) -> Failure {
    Failure::new(FailureKind::Internal, format!("lost the connection to the broker: {error}"))
}

/// The failure for an answer to another question.
pub(super) fn unexpected(reply: &Reply) -> Failure {
    let text = format!("the broker gave an answer of another version: {reply:.60?}");
    Failure::new(FailureKind::Internal, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_local_uris_are_read() {
        assert_eq!(Address::from_uri("local:///run/x").unwrap().uri(), "local:///run/x");
        for uri in ["ssh://host/run/x", "local://run/x", "/run/x"] {
            assert!(Address::from_uri(uri).unwrap_err().contains("only local:///"), "{uri}");
        }
    }

    #[test]
    fn who_has_no_instance_is_told_what_to_do() {
        let nobody = Address { socket: "/nope".into(), given: false }.absent();
        assert!(
            nobody.starts_with("Unable to connect to Flux: broker socket /nope was not found"),
            "{nobody}"
        );
        assert!(nobody.contains("`kiln up`"), "{nobody}");
    }
}
