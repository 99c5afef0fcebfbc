//! `kiln amqp`.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use hyper::Method;

use super::say;
use crate::api::client::{change, escape, get};
use crate::api::model::{Listing, NewPermission, NewUser};
use crate::cli::{Amqp, AmqpList, Permission, User, Vhost};
use crate::paths::DataDir;
use crate::table;

pub(super) async fn run(data: &DataDir, verb: Amqp) -> anyhow::Result<ExitCode> {
    match verb {
        Amqp::List { what, vhost, json } => {
            let what = match what {
                AmqpList::Queues => "queues",
                AmqpList::Exchanges => "exchanges",
                AmqpList::Bindings => "bindings",
                AmqpList::Connections => "connections",
                AmqpList::Consumers => "consumers",
            };
            list(data, &format!("/api/amqp/{what}?vhost={}", escape(&vhost)), json).await?;
        }
        Amqp::Purge { queue, vhost } => {
            let path = format!("/api/amqp/queues/{}/contents?vhost={}", escape(&queue), escape(&vhost));
            let dropped = change(data, Method::DELETE, &path, &()).await?;
            say(&format!("{} messages dropped", String::from_utf8_lossy(&dropped)))?;
        }
        Amqp::DeleteQueue { queue, vhost } => {
            let path = format!("/api/amqp/queues/{}?vhost={}", escape(&queue), escape(&vhost));
            change(data, Method::DELETE, &path, &()).await?;
        }
        Amqp::User(verb) => user(data, verb).await?,
        Amqp::Vhost(verb) => vhost(data, verb).await?,
        Amqp::Permission(verb) => permission(data, verb).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(data: &DataDir, path: &str, json: bool) -> anyhow::Result<()> {
    let listing: Listing = get(data, path).await?;
    let mut out = std::io::stdout().lock();
    if json {
        let objects: Vec<serde_json::Map<String, serde_json::Value>> = listing
            .rows
            .into_iter()
            .map(|row| {
                listing
                    .columns
                    .iter()
                    .map(|c| c.to_lowercase())
                    .zip(row.into_iter().map(Into::into))
                    .collect()
            })
            .collect();
        serde_json::to_writer_pretty(&mut out, &objects)?;
        writeln!(out)?;
    } else {
        let head: Vec<&str> = listing.columns.iter().map(String::as_str).collect();
        table::write(&mut out, &head, &listing.rows)?;
    }
    Ok(())
}

async fn user(data: &DataDir, verb: User) -> anyhow::Result<()> {
    let path = |name: &str| format!("/api/users/{}", escape(name));
    match verb {
        User::List => list(data, "/api/users", false).await?,
        User::Add { name, tags } => {
            let user = NewUser { password: password()?, tags: Some(tags) };
            change(data, Method::PUT, &path(&name), &user).await?;
        }
        User::Passwd { name } => {
            change(data, Method::PUT, &path(&name), &NewUser { password: password()?, tags: None }).await?;
        }
        User::Delete { name } => {
            change(data, Method::DELETE, &path(&name), &()).await?;
        }
    }
    Ok(())
}

/// One line of standard input. Typed at a terminal it is seen, which is said beforehand.
fn password() -> anyhow::Result<String> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        eprint!("Password (it will be visible): ");
    }
    let mut line = String::new();
    stdin.read_line(&mut line).context("failed to read the password from standard input")?;
    let password = line.trim_end_matches(['\r', '\n']);
    anyhow::ensure!(
        !password.is_empty(),
        "the password on standard input is empty; as in: echo secret | kiln amqp user add NAME"
    );
    Ok(password.to_owned())
}

async fn vhost(data: &DataDir, verb: Vhost) -> anyhow::Result<()> {
    match verb {
        Vhost::List => list(data, "/api/vhosts", false).await?,
        Vhost::Add { name } => {
            change(data, Method::PUT, &format!("/api/vhosts/{}", escape(&name)), &()).await?;
        }
        Vhost::Delete { name } => {
            change(data, Method::DELETE, &format!("/api/vhosts/{}", escape(&name)), &()).await?;
        }
    }
    Ok(())
}

async fn permission(data: &DataDir, verb: Permission) -> anyhow::Result<()> {
    match verb {
        Permission::List => list(data, "/api/permissions", false).await?,
        Permission::Set { user, configure, write, read, vhost } => {
            let path = format!("/api/permissions/{}?vhost={}", escape(&user), escape(&vhost));
            change(data, Method::PUT, &path, &NewPermission { configure, write, read }).await?;
        }
        Permission::Clear { user, vhost } => {
            let path = format!("/api/permissions/{}?vhost={}", escape(&user), escape(&vhost));
            change(data, Method::DELETE, &path, &()).await?;
        }
    }
    Ok(())
}
