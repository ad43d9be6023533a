//! The engine, and what makes its time pass.
//!
//! There is one engine: code compiled for it is shared by all calls. Its settings are also those
//! of the process that compiles, or what that makes could not be loaded.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::limiter::{INSTANCES, MEMORIES, TABLES};

/// How often a computing plugin is looked at.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// Of native stack, for nested calls.
const STACK_BYTES: usize = 1 << 20;
/// What host functions get below it.
const FIBER_BYTES: usize = 2 << 20;

/// What a slot keeps of a call's memory and stack, put back as it was by copying: less than giving
/// pages back and faulting them in again at the next call costs, and bounded by the number of slots.
const KEEP_BYTES: usize = 256 << 10;

/// The largest memory that a limit may name.
const MEMORY_BYTES: usize = 512 << 20;
/// Elements of one table.
const POOL_TABLE_ELEMENTS: usize = 65_536;

/// Where memories come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allocator {
    /// Slots that were reserved at the start: quick, and as many as there may be calls.
    Pool,
    /// Asked for anew by each call, because the slots could not be reserved.
    OnDemand {
        /// Why not, as in an address space that is limited.
        because: String,
    },
}

/// Settings that compiled code depends on.
fn config() -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .epoch_interruption(true)
        .max_wasm_stack(STACK_BYTES)
        .async_stack_size(FIBER_BYTES)
        // A component that was composed of others has several memories: without them compiling
        // it panics.
        .wasm_multi_memory(true);
    config
}

/// The engine of the process that compiles: it runs nothing.
pub(crate) fn for_compiling() -> wasmtime::Result<Engine> {
    Engine::new(&config())
}

/// The engine that runs plugins, as many at once as there are `calls`.
///
/// Slots of memory take address space (4 GiB each, so that accesses need no check), not memory.
/// Where that is limited, memories are asked for as calls come, and what is returned says why.
pub(crate) fn for_running(calls: u32) -> wasmtime::Result<(Engine, Allocator)> {
    let each = |most: usize| calls.saturating_mul(u32::try_from(most).unwrap_or(u32::MAX));
    let most = |most: usize| u32::try_from(most).unwrap_or(u32::MAX);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(calls)
        .max_core_instances_per_component(most(INSTANCES))
        .total_core_instances(each(INSTANCES))
        .max_memories_per_component(most(MEMORIES))
        .max_memories_per_module(most(MEMORIES))
        .total_memories(each(MEMORIES))
        .max_memory_size(MEMORY_BYTES)
        .max_tables_per_component(most(TABLES))
        .max_tables_per_module(most(TABLES))
        .total_tables(each(TABLES))
        .table_elements(POOL_TABLE_ELEMENTS)
        .total_stacks(calls)
        // Only what a call wrote is put back, where the kernel (6.7) tells which pages those are.
        .pagemap_scan(Enabled::Auto)
        .linear_memory_keep_resident(KEEP_BYTES)
        .table_keep_resident(KEEP_BYTES / 8)
        .async_stack_keep_resident(KEEP_BYTES / 8);
    let mut pooled = config();
    pooled.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    match Engine::new(&pooled) {
        Ok(engine) => Ok((engine, Allocator::Pool)),
        Err(error) => {
            let because = format!("{error:#}");
            let engine = Engine::new(&config())?;
            Ok((engine, Allocator::OnDemand { because }))
        }
    }
}

/// Makes an engine's time pass, on a thread of its own: the runtime's threads may all be busy with
/// what is to be interrupted. Stops when dropped.
pub(crate) struct Ticker {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    pub(crate) fn start(engine: &Engine) -> std::io::Result<Self> {
        let (stop, stopped) = channel();
        let weak = engine.weak();
        let thread = std::thread::Builder::new()
            .name("plugin-epochs".into())
            .spawn(move || {
                while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(TICK) {
                    let Some(engine) = weak.upgrade() else { break };
                    engine.increment_epoch();
                }
            })?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It cannot panic, and takes no longer than an increment.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{DefaultHasher, Hash, Hasher};

    use super::*;

    #[test]
    fn what_compiles_and_what_runs_agree() {
        let hash = |engine: &Engine| {
            let mut hasher = DefaultHasher::new();
            engine.precompile_compatibility_hash().hash(&mut hasher);
            hasher.finish()
        };
        let (running, allocator) = for_running(2).expect("an engine");
        assert_eq!(allocator, Allocator::Pool);
        assert_eq!(hash(&running), hash(&for_compiling().expect("an engine")));
    }
}
