//! `/api/users`, `/api/vhosts` and `/api/permissions`: for the owner alone, also to look at.

use hyper::Method;
use kiln_amqp::Conditions;
use kiln_auth::Permissions;

use super::amqp::listing;
use super::{Answer, Routes, done, json, no_route};
use crate::api::ask::{Ask, Fault};
use crate::api::model::{Listing, NewPermission, NewUser};
use crate::wiring::exchanges;

impl Routes {
    pub(super) async fn accounts(&self, ask: &Ask, path: &[&str]) -> Answer {
        ask.owner_only()?;
        match (&ask.method, path) {
            (&Method::GET, ["users"]) => json(&self.user_list()?),
            (&Method::PUT, ["users", name]) => self.put_user(name, ask.json()?).await,
            (&Method::DELETE, ["users", name]) => {
                self.auth.delete_user(name).await.map_err(Fault::bad)?;
                done()
            }
            (&Method::GET, ["vhosts"]) => json(&self.vhost_list()?),
            (&Method::PUT, ["vhosts", name]) => {
                self.auth.add_vhost(name).await.map_err(Fault::bad)?;
                done()
            }
            (&Method::DELETE, ["vhosts", name]) => self.delete_vhost(name).await,
            (&Method::GET, ["permissions"]) => json(&self.permission_list()?),
            (&Method::PUT, ["permissions", user]) => {
                let new: NewPermission = ask.json()?;
                let permissions = Permissions { configure: new.configure, write: new.write, read: new.read };
                self.auth.set_permissions(user, &vhost(ask)?, permissions).await.map_err(Fault::bad)?;
                done()
            }
            (&Method::DELETE, ["permissions", user]) => {
                self.auth.clear_permissions(user, &vhost(ask)?).await.map_err(Fault::bad)?;
                done()
            }
            _ => Err(no_route(ask)),
        }
    }

    async fn put_user(&self, name: &str, user: NewUser) -> Answer {
        match user.tags {
            Some(tags) => self.auth.add_user(name, &user.password, tags).await.map_err(Fault::bad)?,
            None => self.auth.set_password(name, &user.password).await.map_err(Fault::bad)?,
        }
        done()
    }

    /// Deletes a virtual host after what is in it.
    async fn delete_vhost(&self, name: &str) -> Answer {
        if name == exchanges::VHOST {
            return Err(Fault::bad(format!("virtual host {name} stays: the queues of the tasks are in it")));
        }
        for queue in self.amqp.queues().into_iter().filter(|queue| queue.vhost == name) {
            self.amqp.delete(name, &queue.name, Conditions::default()).await.map_err(Fault::failed)?;
        }
        // Those that every virtual host has go with it.
        let of_clients = |name: &str| !name.is_empty() && !name.starts_with("amq.");
        for exchange in self.amqp.exchanges().into_iter().filter(|e| e.vhost == name && of_clients(&e.name)) {
            self.amqp.delete_exchange(name, &exchange.name, false).await.map_err(Fault::failed)?;
        }
        self.auth.delete_vhost(name).await.map_err(Fault::bad)?;
        done()
    }

    fn user_list(&self) -> Result<Listing, Fault> {
        let users = self.auth.users().map_err(Fault::failed)?;
        Ok(listing(&["NAME", "TAGS"], users.into_iter().map(|user| vec![user.name, user.tags.join(" ")])))
    }

    fn vhost_list(&self) -> Result<Listing, Fault> {
        let vhosts = self.auth.vhosts().map_err(Fault::failed)?;
        Ok(listing(&["NAME"], vhosts.into_iter().map(|(name, _)| vec![name])))
    }

    fn permission_list(&self) -> Result<Listing, Fault> {
        let permissions = self.auth.permissions().map_err(Fault::failed)?;
        let rows = permissions.into_iter().map(|entry| {
            let Permissions { configure, write, read } = entry.permissions;
            vec![entry.user, entry.vhost, configure, write, read]
        });
        Ok(listing(&["USER", "VHOST", "CONFIGURE", "WRITE", "READ"], rows))
    }
}

fn vhost(ask: &Ask) -> Result<String, Fault> {
    Ok(ask.query("vhost")?.unwrap_or_else(|| "/".to_owned()))
}
