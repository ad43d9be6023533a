//! Memories and tables of a call, all together.
//!
//! A component may consist of many modules with a memory each, so a limit for one memory is none.
//! Growth beyond the limit is refused as a program expects it (`memory.grow` answers -1): an
//! interpreter can then raise its own error. Most programs abort, and what was refused before
//! tells why.

use wasmtime::ResourceLimiter;

/// Elements of all tables together: a large interpreter has about 20,000 functions.
pub(crate) const TABLE_ELEMENTS: usize = 200_000;
/// Core instances of one component, as componentize-py makes the most of them: some 40.
pub(crate) const INSTANCES: usize = 256;
/// Tables of one component.
pub(crate) const TABLES: usize = 64;
/// Memories of one component.
pub(crate) const MEMORIES: usize = 8;

/// Counts what one Store holds.
pub(crate) struct Limiter {
    memory: Sum,
    tables: Sum,
}

struct Sum {
    limit: usize,
    held: usize,
    /// What the last growth added, should it fail after all.
    last: usize,
    refused: bool,
}

impl Sum {
    fn new(limit: usize) -> Self {
        Self {
            limit,
            held: 0,
            last: 0,
            refused: false,
        }
    }

    fn grow(&mut self, current: usize, desired: usize) -> bool {
        let more = desired.saturating_sub(current);
        let fits = self
            .held
            .checked_add(more)
            .is_some_and(|sum| sum <= self.limit);
        self.last = if fits { more } else { 0 };
        self.held += self.last;
        self.refused |= !fits;
        fits
    }

    fn take_back(&mut self) {
        self.held -= std::mem::take(&mut self.last);
    }
}

impl Limiter {
    pub(crate) fn new(memory_bytes: u64) -> Self {
        Self {
            memory: Sum::new(usize::try_from(memory_bytes).unwrap_or(usize::MAX)),
            tables: Sum::new(TABLE_ELEMENTS),
        }
    }

    /// Whether memory was refused, ever.
    pub(crate) fn memory_refused(&self) -> bool {
        self.memory.refused
    }

    /// Whether table elements were refused, ever.
    pub(crate) fn table_refused(&self) -> bool {
        self.tables.refused
    }

    /// Bytes of all memories.
    pub(crate) fn memory_held(&self) -> usize {
        self.memory.held
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.memory.grow(current, desired))
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.memory.take_back();
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.tables.grow(current, desired))
    }

    fn table_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.tables.take_back();
        Ok(())
    }

    fn instances(&self) -> usize {
        INSTANCES
    }

    fn tables(&self) -> usize {
        TABLES
    }

    fn memories(&self) -> usize {
        MEMORIES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_are_summed() {
        let mut limiter = Limiter::new(300);
        let mut grow = |from, to| limiter.memory_growing(from, to, None).expect("decides");
        assert!(grow(0, 100));
        assert!(grow(0, 100));
        assert!(grow(100, 200));
        assert!(!grow(200, 201));
        assert!(limiter.memory_refused());
        assert_eq!(limiter.memory_held(), 300);
    }

    #[test]
    fn what_failed_after_all_is_taken_back_once() {
        let mut limiter = Limiter::new(300);
        assert!(limiter.memory_growing(0, 300, None).expect("decides"));
        for _ in 0..2 {
            let failed = wasmtime::Error::msg("no memory");
            limiter.memory_grow_failed(failed).expect("counts");
        }
        assert_eq!(limiter.memory_held(), 0);
    }
}
