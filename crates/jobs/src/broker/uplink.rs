//! The connection of an agent to the leader: made again for ever, and what goes over it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use kiln_net::{CallError, CallOptions, Client};
use kiln_types::Rank;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use crate::proto::{Answer, Failure, FailureKind, FromAgent, Hello, ToAgent};

/// First pause before a connection is tried again; it doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(10);
/// Longest pause before a connection is tried again.
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// How long a client's request waits for the leader to come back.
const FORWARD_PATIENCE: Duration = Duration::from_secs(20);

/// What a broker sends to the leader's socket for brokers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Upward {
    /// Begins a session; answered by a stream of [`ToAgent`] that lasts as long as the session.
    Hello {
        /// Random; names the session in what follows.
        session: u64,
        /// The agent's words.
        hello: Box<Hello>,
    },
    /// Messages of an agent in order; answered by `()` once the leader has taken them in.
    Tell {
        /// Whose.
        rank: Rank,
        /// The session; messages of an older one are refused.
        session: u64,
        /// What.
        messages: Vec<FromAgent>,
    },
    /// A client's request, encoded in the bulk part; answered by its encoded answer.
    Forward {
        /// The client's user, as the kernel named it to the broker that forwards.
        uid: u32,
    },
}

/// What the agent hears from its uplink.
#[derive(Debug)]
pub(crate) enum FromUplink {
    /// A connection stands; the agent says hello through the channel.
    Connected(oneshot::Sender<Box<Hello>>),
    /// The leader says something.
    Message(ToAgent),
    /// The connection is gone.
    Lost,
}

/// Messages of the agent, and the session (counted by the agent) that they are for.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) connection: u64,
    pub(crate) messages: Vec<FromAgent>,
}

/// Keeps a connection to the leader for as long as the agent lives.
pub(crate) struct Uplink {
    pub(crate) path: PathBuf,
    pub(crate) rank: Rank,
    pub(crate) to_agent: mpsc::Sender<FromUplink>,
    pub(crate) from_agent: mpsc::Receiver<Outgoing>,
    /// The connection, for [`forward`].
    pub(crate) connection: watch::Sender<Option<Client>>,
    pub(crate) random: Box<dyn FnMut() -> u64 + Send>,
}

/// The agent is gone.
struct AgentGone;

impl Uplink {
    /// Runs until the agent is gone.
    pub(crate) async fn run(mut self) {
        let mut backoff = BACKOFF_MIN;
        let mut count = 0;
        loop {
            match Client::connect_unix(&self.path).await {
                Ok(client) => {
                    count += 1;
                    match self.converse(client, count).await {
                        Err(AgentGone) => return,
                        Ok(true) => backoff = BACKOFF_MIN,
                        Ok(false) => {}
                    }
                }
                Err(error) => tracing::debug!(%error, path = %self.path.display(), "the leader is not there"),
            }
            tokio::select! {
                () = self.to_agent.closed() => return,
                () = tokio::time::sleep(backoff) => backoff = (backoff * 2).min(BACKOFF_MAX),
            }
        }
    }

    /// One connection, to its end; `true` when the leader welcomed us.
    async fn converse(&mut self, client: Client, connection: u64) -> Result<bool, AgentGone> {
        let (say, hello) = oneshot::channel();
        self.to_agent.send(FromUplink::Connected(say)).await.map_err(|_| AgentGone)?;
        let hello = hello.await.map_err(|_| AgentGone)?;
        let session = (self.random)();
        let outcome = self.session(&client, connection, session, hello).await;
        self.connection.send_replace(None);
        let welcomed = match outcome {
            Ok(()) => true,
            Err(SessionEnd::Agent) => return Err(AgentGone),
            Err(SessionEnd::Leader(welcomed, error)) => {
                tracing::debug!(%error, "the connection to the leader ended");
                welcomed
            }
        };
        self.to_agent.send(FromUplink::Lost).await.map_err(|_| AgentGone)?;
        Ok(welcomed)
    }

    async fn session(
        &mut self,
        client: &Client,
        connection: u64,
        session: u64,
        hello: Box<Hello>,
    ) -> Result<(), SessionEnd> {
        let refused = |error| SessionEnd::Leader(false, error);
        let mut stream =
            client.stream::<_, ToAgent>(&Upward::Hello { session, hello }).await.map_err(refused)?;
        let mut welcomed = false;
        let rank = self.rank;
        let telling = tell(client, rank, session, connection, &mut self.from_agent);
        tokio::pin!(telling);
        loop {
            tokio::select! {
                message = stream.next() => {
                    let message = match message {
                        None => return Ok(()),
                        Some(Ok((message, _))) => message,
                        Some(Err(error)) => return Err(SessionEnd::Leader(welcomed, error)),
                    };
                    if matches!(message, ToAgent::Welcome { .. }) {
                        welcomed = true;
                        self.connection.send_replace(Some(client.clone()));
                    }
                    let refused = matches!(message, ToAgent::Refused(_));
                    self.to_agent.send(FromUplink::Message(message)).await.map_err(|_| SessionEnd::Agent)?;
                    if refused {
                        // It may be meant for now only: the usual pause, and another try.
                        return Err(SessionEnd::Leader(false, CallError::Closed));
                    }
                }
                end = &mut telling => return Err(match end {
                    Some(error) => SessionEnd::Leader(welcomed, error),
                    None => SessionEnd::Agent,
                }),
            }
        }
    }
}

enum SessionEnd {
    Agent,
    Leader(bool, CallError),
}

/// Sends what the agent has to say, one call after the other, so that the order is kept; while a call is under way the
/// agent gathers more. Ends with the error of a call, or `None` when the agent is gone.
async fn tell(
    client: &Client,
    rank: Rank,
    session: u64,
    connection: u64,
    from_agent: &mut mpsc::Receiver<Outgoing>,
) -> Option<CallError> {
    while let Some(outgoing) = from_agent.recv().await {
        if outgoing.connection != connection {
            continue;
        }
        let messages = outgoing.messages;
        if let Err(error) = client.call::<_, ()>(&Upward::Tell { rank, session, messages }).await {
            return Some(error);
        }
    }
    None
}

/// Passes a client's request on to the leader and gives back its encoded answer. While the leader is away the request
/// waits. When the leader goes away before it answers, only a request that may be `repeated` is sent again: of another one
/// nobody knows whether the leader acted on it.
pub(crate) async fn forward(
    mut connection: watch::Receiver<Option<Client>>,
    uid: u32,
    request: Bytes,
    repeated: bool,
) -> Result<Bytes, Failure> {
    loop {
        let found = tokio::time::timeout(FORWARD_PATIENCE, connected(&mut connection)).await;
        let client = match found {
            Ok(Some(client)) => client,
            Ok(None) => return Err(busy("this broker is going down")),
            Err(_) => {
                return Err(busy("the leader of this instance does not answer; try again when it is back"));
            }
        };
        match forward_once(&client, uid, request.clone()).await {
            Err(CallError::Closed) if repeated => {
                // The uplink notices too; without this its old connection would be tried again and again.
                let _ = connection.wait_for(|now| now.as_ref().is_none_or(|now| !now.is_closed())).await;
            }
            Err(error) => return Err(busy(&format!("the leader went away before it answered: {error}"))),
            Ok(answer) => return Ok(answer),
        }
    }
}

fn busy(text: &str) -> Failure {
    Failure::new(FailureKind::Busy, text)
}

async fn forward_once(client: &Client, uid: u32, request: Bytes) -> Result<Bytes, CallError> {
    let body = postcard::to_stdvec(&Upward::Forward { uid })
        .map_err(|error| CallError::Encode(error.to_string()))?;
    let options = CallOptions { bulk: request, deadline: None };
    let mut stream = client.stream_raw::<Answer>(body.into(), options).await?;
    stream.next_raw().await.ok_or(CallError::Empty)?.map(|(answer, _)| answer)
}

/// The connection, once there is one; none when there will be none.
async fn connected(connection: &mut watch::Receiver<Option<Client>>) -> Option<Client> {
    connection.wait_for(Option::is_some).await.ok().and_then(|client| client.clone())
}

/// The socket for brokers beside the leader's socket for clients.
pub(crate) fn brokers_socket(leader_socket: &Path) -> PathBuf {
    let mut name = leader_socket.as_os_str().to_owned();
    name.push(".brokers");
    name.into()
}
