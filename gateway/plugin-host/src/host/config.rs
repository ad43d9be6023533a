//! `loopback:base/config`. Where there is no configuration yet, it is the empty object.

use crate::contract::base::loopback::base::config::Host;
use crate::store::CallState;

impl Host for CallState {
    async fn json(&mut self) -> wasmtime::Result<String> {
        self.enter()?;
        Ok(match &self.surroundings {
            Some(around) => around.config.as_ref().to_owned(),
            None => "{}".to_owned(),
        })
    }

    async fn revision(&mut self) -> wasmtime::Result<u64> {
        self.enter()?;
        Ok(self
            .surroundings
            .as_ref()
            .map_or(0, |around| around.config_revision))
    }
}
