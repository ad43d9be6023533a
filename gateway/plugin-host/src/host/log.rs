//! `loopback:base/log`.

use crate::contract::base::loopback::base::log::{Host, Level};
use crate::logs;
use crate::store::CallState;

impl Host for CallState {
    async fn write(
        &mut self,
        level: Level,
        message: String,
        fields: Vec<(String, String)>,
    ) -> wasmtime::Result<()> {
        self.enter()?;
        let level = match level {
            Level::Trace => logs::Level::Trace,
            Level::Debug => logs::Level::Debug,
            Level::Info => logs::Level::Info,
            Level::Warn => logs::Level::Warn,
            Level::Error => logs::Level::Error,
        };
        self.log.line(level, message, fields);
        Ok(())
    }
}
