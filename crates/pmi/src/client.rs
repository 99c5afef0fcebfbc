//! The calling side of PMI-1.

use std::env;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use crate::mapping;
use crate::wire::{LINE_BYTES_MAX, Request, Response, WireError};

/// Why a PMI call failed.
#[derive(Debug)]
pub enum ClientError {
    /// A variable that the launcher sets is missing or no number.
    Environment(&'static str),
    /// The socket failed or the launcher is gone.
    Io(io::Error),
    /// The server's line is no response.
    Wire(WireError),
    /// The server's response answers another request.
    OutOfTurn(&'static str),
    /// The server refused.
    Refused {
        /// What was asked.
        request: &'static str,
        /// The server's result code.
        rc: i32,
    },
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Environment(variable) => {
                write!(
                    f,
                    "{variable} is not set to a number: this program was not started by a launcher that speaks PMI-1"
                )
            }
            ClientError::Io(error) => write!(f, "PMI socket: {error}"),
            ClientError::Wire(error) => write!(f, "PMI server: {error}"),
            ClientError::OutOfTurn(what) => write!(f, "PMI server answered {what} out of turn"),
            ClientError::Refused { request, rc } => write!(f, "PMI server refused {request} with rc={rc}"),
        }
    }
}

impl std::error::Error for ClientError {}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> ClientError {
        ClientError::Io(error)
    }
}

impl From<WireError> for ClientError {
    fn from(error: WireError) -> ClientError {
        ClientError::Wire(error)
    }
}

/// A task's conversation with its launcher.
#[derive(Debug)]
pub struct Client {
    lines: BufReader<UnixStream>,
    rank: u32,
    size: u32,
    kvsname: String,
}

fn variable(name: &'static str) -> Result<i32, ClientError> {
    env::var(name).ok().and_then(|text| text.parse().ok()).ok_or(ClientError::Environment(name))
}

impl Client {
    /// Opens the conversation on the descriptor that `PMI_FD` names, which is this object's from then on.
    pub fn from_environment() -> Result<Client, ClientError> {
        let fd = variable("PMI_FD")?;
        let (rank, size) = (variable("PMI_RANK")?, variable("PMI_SIZE")?);
        Client::over(adopt(fd)?, rank.unsigned_abs(), size.unsigned_abs())
    }

    /// Opens the conversation on a connected socket.
    pub fn over(stream: UnixStream, rank: u32, size: u32) -> Result<Client, ClientError> {
        let mut client = Client { lines: BufReader::new(stream), rank, size, kvsname: String::new() };
        match client.ask(&Request::Init { version: 1, subversion: 1 })? {
            Response::Init { rc: 0 } => {}
            Response::Init { rc } => return Err(ClientError::Refused { request: "init", rc }),
            _ => return Err(ClientError::OutOfTurn("init")),
        }
        client.kvsname = match client.ask(&Request::GetMyKvsname)? {
            Response::MyKvsname(name) => name,
            _ => return Err(ClientError::OutOfTurn("get_my_kvsname")),
        };
        Ok(client)
    }

    /// This task's rank.
    pub fn rank(&self) -> u32 {
        self.rank
    }

    /// Number of tasks of the job.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// Name of the job's key-value space.
    pub fn kvsname(&self) -> &str {
        &self.kvsname
    }

    /// Number of tasks that may ever be.
    pub fn universe_size(&mut self) -> Result<u32, ClientError> {
        match self.ask(&Request::GetUniverseSize)? {
            Response::UniverseSize(size) => Ok(size),
            _ => Err(ClientError::OutOfTurn("get_universe_size")),
        }
    }

    /// Number of the application.
    pub fn appnum(&mut self) -> Result<u32, ClientError> {
        match self.ask(&Request::GetAppnum)? {
            Response::Appnum(appnum) => Ok(appnum),
            _ => Err(ClientError::OutOfTurn("get_appnum")),
        }
    }

    /// Publishes a pair; others see it after the next barrier.
    pub fn put(&mut self, kvsname: &str, key: &str, value: &str) -> Result<(), ClientError> {
        let request = Request::Put { kvsname: kvsname.into(), key: key.into(), value: value.into() };
        match self.ask(&request)? {
            Response::PutResult { rc: 0 } => Ok(()),
            Response::PutResult { rc } => Err(ClientError::Refused { request: "put", rc }),
            _ => Err(ClientError::OutOfTurn("put")),
        }
    }

    /// Reads a pair; `None` when there is no such key.
    pub fn get(&mut self, kvsname: &str, key: &str) -> Result<Option<String>, ClientError> {
        match self.ask(&Request::Get { kvsname: kvsname.into(), key: key.into() })? {
            Response::GetResult(value) => Ok(value),
            _ => Err(ClientError::OutOfTurn("get")),
        }
    }

    /// Waits until every task has called it.
    pub fn barrier(&mut self) -> Result<(), ClientError> {
        match self.ask(&Request::BarrierIn)? {
            Response::BarrierOut { rc: 0 } => Ok(()),
            Response::BarrierOut { rc } => Err(ClientError::Refused { request: "barrier", rc }),
            _ => Err(ClientError::OutOfTurn("barrier_in")),
        }
    }

    /// The ranks on this task's node, itself among them; all alone where the launcher gives no mapping.
    pub fn clique(&mut self) -> Result<Vec<u32>, ClientError> {
        let kvsname = self.kvsname.clone();
        let blocks =
            self.get(&kvsname, mapping::KEY)?.and_then(|text| mapping::parse(&text)).unwrap_or_default();
        let nodes = mapping::nodes(&blocks, self.size as usize);
        let Some(mine) = nodes.get(self.rank as usize) else { return Ok(vec![self.rank]) };
        Ok((0..self.size).filter(|rank| nodes.get(*rank as usize) == Some(mine)).collect())
    }

    /// Asks for the end of the whole job. There is no response.
    pub fn abort(&mut self, exitcode: i32) -> Result<(), ClientError> {
        Ok(self.lines.get_mut().write_all(Request::Abort { exitcode }.to_string().as_bytes())?)
    }

    /// Ends the conversation.
    pub fn finalize(mut self) -> Result<(), ClientError> {
        match self.ask(&Request::Finalize)? {
            Response::FinalizeAck => Ok(()),
            _ => Err(ClientError::OutOfTurn("finalize")),
        }
    }

    fn ask(&mut self, request: &Request) -> Result<Response, ClientError> {
        self.lines.get_mut().write_all(request.to_string().as_bytes())?;
        let mut line = String::new();
        self.lines.by_ref().take(LINE_BYTES_MAX as u64).read_line(&mut line)?;
        match line.strip_suffix('\n') {
            Some(line) => Ok(Response::parse(line)?),
            None => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }
}

#[expect(unsafe_code, reason = "an inherited descriptor is known only by its number")]
fn adopt(fd: i32) -> Result<UnixStream, ClientError> {
    use std::os::fd::FromRawFd;
    if fd < 0 {
        return Err(ClientError::Environment("PMI_FD"));
    }
    // SAFETY: the launcher opened this descriptor for us before exec and named it in our environment; nothing else in
    // this process owns it, and we take it once, since the conversation can be opened only once.
    let inherited = unsafe { UnixStream::from_raw_fd(fd) };
    // The copy is closed on exec, so that programs started from here do not hold the launcher's socket.
    Ok(inherited.try_clone()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    /// A server that plays back `script`: what it expects, what it answers.
    fn scripted(script: Vec<(&'static str, &'static str)>) -> (UnixStream, thread::JoinHandle<()>) {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        let server = thread::spawn(move || {
            let mut lines = BufReader::new(theirs);
            for (expected, answer) in script {
                let mut line = String::new();
                lines.read_line(&mut line).expect("read");
                assert_eq!(line.trim_end(), expected);
                lines.get_mut().write_all(answer.as_bytes()).expect("write");
            }
        });
        (ours, server)
    }

    const OPENING: [(&str, &str); 2] = [
        (
            "cmd=init pmi_version=1 pmi_subversion=1",
            "cmd=response_to_init rc=0 pmi_version=1 pmi_subversion=1\n",
        ),
        ("cmd=get_my_kvsname", "cmd=my_kvsname rc=0 kvsname=f7\n"),
    ];

    #[test]
    fn a_whole_conversation() {
        let mut script = OPENING.to_vec();
        script.extend([
            ("cmd=put kvsname=f7 key=a value=b c", "cmd=put_result rc=0\n"),
            ("cmd=barrier_in", "cmd=barrier_out rc=0\n"),
            ("cmd=get kvsname=f7 key=a", "cmd=get_result rc=0 value=b c\n"),
            ("cmd=get kvsname=f7 key=none", "cmd=get_result rc=4\n"),
            ("cmd=get kvsname=f7 key=PMI_process_mapping", "cmd=get_result rc=0 value=(vector,(0,2,2))\n"),
            ("cmd=finalize", "cmd=finalize_ack rc=0\n"),
        ]);
        let (stream, server) = scripted(script);
        let mut client = Client::over(stream, 3, 4).expect("init");
        assert_eq!((client.rank(), client.size(), client.kvsname()), (3, 4, "f7"));
        client.put("f7", "a", "b c").expect("put");
        client.barrier().expect("barrier");
        assert_eq!(client.get("f7", "a").expect("get").as_deref(), Some("b c"));
        assert_eq!(client.get("f7", "none").expect("get"), None);
        assert_eq!(client.clique().expect("clique"), [2, 3]);
        client.finalize().expect("finalize");
        server.join().expect("the script was followed");
    }

    #[test]
    fn a_server_that_goes_away_or_babbles_is_an_error() {
        let (stream, _server) = scripted(vec![(OPENING[0].0, "cmd=resp")]);
        assert!(matches!(Client::over(stream, 0, 1), Err(ClientError::Io(_))));
        let (stream, _server) = scripted(vec![(OPENING[0].0, "cmd=maxes\n")]);
        assert!(matches!(Client::over(stream, 0, 1), Err(ClientError::OutOfTurn("init"))));
    }
}
