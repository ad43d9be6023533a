//! Waiting for an end, with what happens on the way on standard error.

use std::thread;
use std::time::Duration;

use api::v1::power::{GetPowerBulk, GetPowerOperation, PowerBulk, PowerOperation};
use api::v1::{OfPowerBulk, OfPowerOperation};
use model::power::{Confirmation, PowerOperationState};

use super::{bulks, properties};
use crate::app::App;
use crate::client::Client;
use crate::failure::{CANCELLED, Failure, LOST, NOT_SUCCEEDED};
use crate::output::note;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(700);

/// Waits for the end of an operation; answers with what says how it ended.
pub(super) fn wait_for(
    app: &mut App,
    client: &Client,
    mut operation: PowerOperation,
) -> Result<u8, Failure> {
    let path = OfPowerOperation {
        workspace: operation.workspace,
        operation: operation.id,
    };
    let mut told = 0;
    loop {
        // The middle of a long history is not kept, so what was told may be gone.
        let new = operation
            .history
            .iter()
            .skip(told.min(operation.history.len()));
        for happened in new {
            let more = happened
                .message
                .as_deref()
                .map_or_else(String::new, |it| format!(": {it}"));
            note(&format!(
                "{}: {} {}{more}",
                operation.host_name, operation.action, happened.state
            ));
        }
        told = operation.history.len();
        if operation.state.is_final() {
            break;
        }
        thread::sleep(LOOK);
        operation = client.fetch::<GetPowerOperation>(&path)?;
    }
    if let Some(confirmation) = operation.confirmation {
        note(&format!("{}: {}", operation.host_name, proof(confirmation)));
    }
    app.out.write(&operation, properties)?;
    Ok(exit_code(operation.state))
}

fn proof(confirmation: Confirmation) -> &'static str {
    match confirmation {
        Confirmation::BootId => "the host came back with a new boot id",
        Confirmation::OffThenOn => "the provider saw it off, then on",
        Confirmation::Observed => "the provider says so, and was asked afterwards",
        Confirmation::Acknowledged => "the provider said so when it was told",
        Confirmation::Already => "it was so already",
    }
}

/// Waits for the end of what is done to many hosts.
pub(super) fn wait_for_many(
    app: &mut App,
    client: &Client,
    mut bulk: PowerBulk,
) -> Result<u8, Failure> {
    let path = OfPowerBulk {
        workspace: bulk.workspace,
        bulk: bulk.id,
    };
    let mut told = None;
    loop {
        let counts = (bulk.waiting, bulk.active, bulk.succeeded, bulk.failed);
        if told != Some(counts) {
            note(&format!(
                "{}: {} of {} done, {} active, {} waiting, {} failed",
                bulk.id,
                bulk.succeeded + bulk.failed,
                bulk.hosts,
                bulk.active,
                bulk.waiting,
                bulk.failed
            ));
            told = Some(counts);
        }
        if bulk.ended_at.is_some() {
            break;
        }
        thread::sleep(LOOK);
        bulk = client.fetch::<GetPowerBulk>(&path)?;
    }
    app.out
        .write(&bulk, |bulk, now| bulks(std::slice::from_ref(bulk), now))?;
    Ok(match bulk.state.as_str() {
        _ if bulk.failed > 0 => NOT_SUCCEEDED,
        "complete" => 0,
        "cancelled" => CANCELLED,
        _ => NOT_SUCCEEDED,
    })
}

fn exit_code(state: PowerOperationState) -> u8 {
    match state {
        PowerOperationState::Succeeded => 0,
        PowerOperationState::Cancelled | PowerOperationState::Superseded => CANCELLED,
        PowerOperationState::OutcomeUnknown => LOST,
        _ => NOT_SUCCEEDED,
    }
}
