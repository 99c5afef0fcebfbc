//! How the agents log in to the broker: a user of their own, whose password only the instance's owner can read.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;

use anyhow::Context as _;
use kiln_amqp::client::Endpoint;
use kiln_auth::{Auth, Permissions};
use kiln_world::Rng;

use super::Node;
use crate::paths::DataDir;

/// The agents' user.
const USER: &str = "kiln-agent";
/// Random bytes in its password.
const SECRET_BYTES: usize = 16;

/// Makes sure that the agents' user is there, may read the task queues and nothing else, and that agents know its password.
pub(super) async fn provide(data: &DataDir, auth: &Auth, rng: &dyn Rng) -> anyhow::Result<()> {
    let kept = read(data).ok();
    if kept.is_some_and(|password| auth.check_password(USER, &password).is_some()) {
        return Ok(());
    }
    let mut bytes = [0; SECRET_BYTES];
    rng.fill(&mut bytes);
    let password = u128::from_be_bytes(bytes).to_string();
    write(data, &password)?;
    let known = auth.users()?.iter().any(|user| user.name == USER);
    if known {
        auth.set_password(USER, &password).await?;
    } else {
        auth.add_user(USER, &password, Vec::new()).await?;
    }
    let permissions =
        Permissions { configure: String::new(), write: String::new(), read: r"^kiln\.tasks\.".to_owned() };
    auth.set_permissions(USER, crate::wiring::exchanges::VHOST, permissions).await?;
    Ok(())
}

/// Where and as whom the agent of `node` connects.
pub(super) fn endpoint(node: &Node, address: String) -> anyhow::Result<Endpoint> {
    let password = read(&node.data)?;
    Ok(Endpoint {
        user: USER.to_owned(),
        password,
        name: format!("agent of {}", node.host),
        ..Endpoint::guest(address)
    })
}

fn read(data: &DataDir) -> anyhow::Result<String> {
    let path = data.agent_secret();
    std::fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))
}

fn write(data: &DataDir, password: &str) -> anyhow::Result<()> {
    let path = data.agent_secret();
    let fresh = path.with_extension("new");
    let _ = std::fs::remove_file(&fresh);
    let open = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh);
    open.and_then(|mut file| file.write_all(password.as_bytes()))
        .and_then(|()| std::fs::rename(&fresh, &path))
        .with_context(|| format!("failed to write {}", path.display()))
}
