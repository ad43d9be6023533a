//! `loopback:base/secrets` and `loopback:base/reveal`.
//!
//! From the moment on that a secret was opened, its value is taken out of all that leaves the
//! call, whether the plugin can have seen it or not.

use model::names::Name;
use wasmtime::component::Resource;

use super::{Answer, denied};
use crate::contract::base::loopback::base::{reveal, secrets};
use crate::ports::{ErrorKind, GuestError, Secret};
use crate::store::{CallState, Stop};

impl CallState {
    async fn secret_open(&mut self, name: &str) -> Result<Secret, GuestError> {
        let around = self.surroundings()?;
        let unbound = || {
            let what = format!("no secret is granted by the name `{}`", short(name));
            denied("denied.secret", what)
        };
        let name: Name = name.parse().map_err(|_| unbound())?;
        if !around.context.grant.secrets.contains_key(&name) {
            return Err(unbound());
        }
        around.services.secrets.open(&around.context, &name).await
    }

    /// Notes that a credential was shown to somebody, unless it was refused too often.
    pub(super) fn secret_use(&mut self, secret: &Secret) -> Result<(), GuestError> {
        let around = self.surroundings()?;
        let binding = around.context.grant.secrets.get(&secret.name);
        let binding = binding.ok_or_else(|| {
            let what = format!("no secret is granted by the name `{}`", secret.name);
            denied("denied.secret", what)
        })?;
        let key = (binding.workspace, binding.secret.clone(), secret.version);
        let asked = around
            .guards
            .credentials()
            .ask(&key, std::time::Instant::now());
        if let Err(rest) = asked {
            let what = format!(
                "the secret `{}` was refused and is not shown again yet",
                secret.name
            );
            let mut error = GuestError::new(ErrorKind::Auth, "breaker.credential", what);
            error.retry_after = Some(rest);
            return Err(error);
        }
        if !self.used_secrets.contains(&key) {
            self.used_secrets.push(key);
        }
        Ok(())
    }
}

fn short(name: &str) -> String {
    model::names::clean(name, Name::MAX_LEN)
}

impl secrets::Host for CallState {
    async fn open(&mut self, name: String) -> Answer<Resource<Secret>> {
        self.enter()?;
        let opened = self.secret_open(&name).await;
        match opened {
            Ok(secret) => {
                self.hide(secret.name.as_str(), secret.value.expose());
                let handle = self.table.push(secret).map_err(|_| Stop::Handles)?;
                Ok(Ok(handle))
            }
            Err(error) => self.tell(Err(error)),
        }
    }
}

impl secrets::HostSecret for CallState {
    async fn name(&mut self, secret: Resource<Secret>) -> wasmtime::Result<String> {
        self.enter()?;
        Ok(self.table.get(&secret)?.name.to_string())
    }

    async fn version(&mut self, secret: Resource<Secret>) -> wasmtime::Result<u64> {
        self.enter()?;
        Ok(self.table.get(&secret)?.version)
    }

    async fn drop(&mut self, secret: Resource<Secret>) -> wasmtime::Result<()> {
        self.table.delete(secret)?;
        Ok(())
    }
}

impl reveal::Host for CallState {
    async fn bytes(&mut self, secret: Resource<Secret>) -> Answer<Vec<u8>> {
        self.enter()?;
        let secret = self.table.get(&secret)?;
        let may = self.surroundings().map(|around| {
            around
                .context
                .grant
                .secrets
                .get(&secret.name)
                .is_some_and(|binding| binding.reveal)
        });
        let answer = match may {
            Ok(true) => Ok(secret.value.expose().to_vec()),
            Ok(false) => Err(denied(
                "denied.reveal",
                format!("the secret `{}` may be used and not read", secret.name),
            )),
            Err(error) => Err(error),
        };
        self.tell(answer)
    }
}
