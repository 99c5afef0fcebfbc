//! `/api/users`, `/api/vhosts` and `/api/permissions`: for the owner alone, also to look at.

use hyper::Method;
use kiln_auth::Permissions;

use super::amqp::listing;
use super::{Answer, Routes, done, json, no_route};
use crate::api::ask::{Ask, Fault};
use crate::api::model::{Listing, NewPermission, NewUser};

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
            (&Method::DELETE, ["vhosts", name]) => {
                self.auth.delete_vhost(name).await.map_err(Fault::bad)?;
                done()
            }
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
