//! The steps of a power provider, see `loopback:power`.

use super::Plugin;
use crate::Diagnostic;
use crate::contract::power::{Begin, Cancel, Check, Discover, Inspect, Observe, Poll, Resume};
use crate::power::{
    Begun, Cancelled, FoundPage, Observation, Operation, Resumed, Step, Support, Target,
};
use crate::reason::CallError;
use crate::surroundings::Invocation;

impl Plugin {
    /// Asks a power provider what can be done for a target.
    pub async fn power_inspect(
        &self,
        invocation: Invocation,
        target: Target,
    ) -> Result<Support, CallError> {
        self.call(invocation, Inspect { target }).await
    }

    /// Asks a power provider for findings about a target.
    pub async fn power_check(
        &self,
        invocation: Invocation,
        target: Target,
    ) -> Result<Vec<Diagnostic>, CallError> {
        self.call(invocation, Check { target }).await
    }

    /// Asks a power provider how a target is.
    pub async fn power_observe(
        &self,
        invocation: Invocation,
        target: Target,
    ) -> Result<Observation, CallError> {
        self.call(invocation, Observe { target }).await
    }

    /// Has a power provider submit an action.
    pub async fn power_begin(
        &self,
        invocation: Invocation,
        operation: Operation,
        target: Target,
    ) -> Result<Begun, CallError> {
        let begin = Begin { operation, target };
        self.call(invocation, begin).await
    }

    /// Asks a power provider how something that was submitted goes on.
    pub async fn power_poll(
        &self,
        invocation: Invocation,
        operation: Operation,
        target: Target,
        cursor: Vec<u8>,
    ) -> Result<Step, CallError> {
        let poll = Poll {
            operation,
            target,
            cursor,
        };
        self.call(invocation, poll).await
    }

    /// Has a power provider find out what became of something that may have been submitted.
    pub async fn power_resume(
        &self,
        invocation: Invocation,
        operation: Operation,
        target: Target,
    ) -> Result<Resumed, CallError> {
        let resume = Resume { operation, target };
        self.call(invocation, resume).await
    }

    /// Has a power provider call off what was submitted.
    pub async fn power_cancel(
        &self,
        invocation: Invocation,
        operation: Operation,
        target: Target,
        cursor: Vec<u8>,
    ) -> Result<Cancelled, CallError> {
        let cancel = Cancel {
            operation,
            target,
            cursor,
        };
        self.call(invocation, cancel).await
    }

    /// Asks a power provider for machines that it knows.
    pub async fn power_discover(
        &self,
        invocation: Invocation,
        cursor: Option<String>,
    ) -> Result<FoundPage, CallError> {
        self.call(invocation, Discover { cursor }).await
    }
}
