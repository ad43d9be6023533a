//! Facts between the wire and the model. What arrives is cleaned on the way in,
//! so that nothing past this point has to think of terminal escapes.

use crate::v1;

impl From<v1::Facts> for model::facts::Facts {
    fn from(wire: v1::Facts) -> Self {
        Self {
            hostname: wire.hostname,
            os: wire.os,
            os_version: wire.os_version,
            kernel: wire.kernel,
            arch: wire.arch,
            addresses: wire.addresses,
            cpus: wire.cpus,
            cpu_model: wire.cpu_model,
            memory_bytes: wire.memory_bytes,
            disks: wire
                .disks
                .into_iter()
                .map(|disk| model::facts::Disk {
                    mount: disk.mount,
                    kind: disk.kind,
                    size_bytes: disk.size_bytes,
                    free_bytes: disk.free_bytes,
                })
                .collect(),
            virtualization: wire.virtualization,
            machine_id: wire.machine_id,
            agent_version: wire.agent_version,
            booted_at_secs: wire.booted_at_secs,
            exporters: wire.exporters,
            macs: wire.macs,
            serial: wire.serial,
            system_uuid: wire.system_uuid,
            asset_tag: wire.asset_tag,
        }
        .cleaned()
    }
}

impl From<model::facts::Facts> for v1::Facts {
    fn from(facts: model::facts::Facts) -> Self {
        Self {
            hostname: facts.hostname,
            os: facts.os,
            os_version: facts.os_version,
            kernel: facts.kernel,
            arch: facts.arch,
            addresses: facts.addresses,
            cpus: facts.cpus,
            cpu_model: facts.cpu_model,
            memory_bytes: facts.memory_bytes,
            disks: facts
                .disks
                .into_iter()
                .map(|disk| v1::Disk {
                    mount: disk.mount,
                    kind: disk.kind,
                    size_bytes: disk.size_bytes,
                    free_bytes: disk.free_bytes,
                })
                .collect(),
            virtualization: facts.virtualization,
            machine_id: facts.machine_id,
            agent_version: facts.agent_version,
            booted_at_secs: facts.booted_at_secs,
            exporters: facts.exporters,
            macs: facts.macs,
            serial: facts.serial,
            system_uuid: facts.system_uuid,
            asset_tag: facts.asset_tag,
        }
    }
}
