//! `loopback:base/task`. A plugin that is only asked about itself is told no time: its answer must
//! be the same tomorrow.

use crate::contract::base::loopback::base::task::Host;
use crate::store::CallState;

impl Host for CallState {
    async fn call_id(&mut self) -> wasmtime::Result<String> {
        self.enter()?;
        Ok(self.call.clone())
    }

    async fn operation_id(&mut self) -> wasmtime::Result<String> {
        self.enter()?;
        Ok(match &self.surroundings {
            Some(around) => around.operation.clone(),
            None => self.call.clone(),
        })
    }

    async fn remaining_ms(&mut self) -> wasmtime::Result<u64> {
        self.enter()?;
        let actual = u64::try_from(self.remaining().as_millis()).unwrap_or(u64::MAX);
        Ok(match &self.surroundings {
            Some(around) => around.clock.remaining_ms(actual),
            None => actual,
        })
    }

    async fn cancelled(&mut self) -> wasmtime::Result<bool> {
        self.enter()?;
        Ok(self
            .surroundings
            .as_ref()
            .is_some_and(|around| around.cancel.is_cancelled()))
    }

    async fn now_ms(&mut self) -> wasmtime::Result<u64> {
        self.enter()?;
        Ok(self
            .surroundings
            .as_ref()
            .map_or(0, |around| around.clock.now_ms()))
    }
}
