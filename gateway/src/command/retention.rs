//! Commands that are old enough to be forgotten, with their runs and output.

use std::time::Duration;

use model::ids::CommandId;

use super::actor::{runs_of, targets_of};
use crate::app::App;
use crate::error::Result;
use crate::reconcile::housekeeping;
use crate::state::command_records::{
    CommandDefinitionRecordV1, CommandRecordV1, CommandTargetsRecordV1, RunRecordV1, TARGETS_IN_ONE,
};
use crate::state::records::key_of;

/// How long a command is kept once it is finished.
pub const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
/// Commands forgotten in one go: others want the disk as well.
const AT_ONCE: usize = 100;

/// Forgets commands that finished long ago.
pub async fn forget_old(app: &App) -> Result<()> {
    let now = app.now();
    let old: Vec<CommandId> = {
        let tables = app.catalog.read();
        let commands = tables.commands.values();
        commands
            .filter(|record| {
                let finished = record.finished.as_ref();
                finished.is_some_and(|finished| now.since(finished.at) >= KEPT)
            })
            .map(|record| record.id)
            .take(AT_ONCE)
            .collect()
    };
    for command in old {
        forget(app, command).await?;
    }
    Ok(())
}

/// Forgets one: the command's own record last, so that what a crash leaves is found again.
pub async fn forget(app: &App, command: CommandId) -> Result<()> {
    let mut keys = Vec::new();
    for run in runs_of(app, command).await? {
        if let Some(object) = run.output.object()
            && let Err(error) = app.commands.objects.delete(&object).await
        {
            tracing::warn!(error = %model::error_chain(&error), command.id = %command, "output of an old command cannot be deleted; it is tried again");
            return Ok(());
        }
        keys.push(RunRecordV1::key(command, run.host));
    }
    let parts = targets_of(app, command)
        .await?
        .len()
        .div_ceil(TARGETS_IN_ONE);
    keys.extend((0..parts).map(|part| CommandTargetsRecordV1::key(command, part)));
    keys.push(key_of::<CommandDefinitionRecordV1>(command));
    keys.push(key_of::<CommandRecordV1>(command));
    housekeeping::delete(app, &keys).await
}
