//! What the host runs in. Containers are looked for first: inside of one, the
//! hardware seen is the machine's that runs it.

use super::{cpu, first_line};

/// Hints, as the kernel and container managers leave them; empty when absent.
#[derive(Clone, Debug, Default)]
pub struct Clues {
    /// `/run/systemd/container`: says what PID 1 was told.
    pub systemd_container: String,
    /// Whether `/.dockerenv` exists.
    pub dockerenv: bool,
    /// Whether `/run/.containerenv` exists.
    pub containerenv: bool,
    /// `/sys/class/dmi/id/sys_vendor`.
    pub dmi_vendor: String,
    /// `/sys/class/dmi/id/product_name`.
    pub dmi_product: String,
    /// `/sys/hypervisor/type`.
    pub hypervisor_type: String,
    /// `/proc/device-tree/hypervisor/compatible`.
    pub device_tree: String,
    /// Whether the firmware could be asked at all.
    pub dmi_present: bool,
}

/// Words that systemd uses, too; a name from elsewhere is `container-other`.
const CONTAINERS: [&str; 9] = [
    "systemd-nspawn",
    "lxc",
    "lxc-libvirt",
    "docker",
    "podman",
    "rkt",
    "wsl",
    "proot",
    "pouch",
];

/// (who says so, what begins like this, what it is).
const DMI: [(&str, &str); 16] = [
    ("KVM", "kvm"),
    ("OpenStack", "kvm"),
    ("KubeVirt", "kvm"),
    ("Amazon EC2", "amazon"),
    ("Google", "google"),
    ("QEMU", "qemu"),
    ("VMware", "vmware"),
    ("VMW", "vmware"),
    ("innotek GmbH", "oracle"),
    ("VirtualBox", "oracle"),
    ("Xen", "xen"),
    ("Parallels", "parallels"),
    ("BHYVE", "bhyve"),
    ("Hyper-V", "microsoft"),
    ("Virtual Machine", "microsoft"),
    ("Apple Virtualization", "apple"),
];

pub(super) fn name(clues: &Clues, cpuinfo: &str) -> &'static str {
    container(clues).unwrap_or_else(|| machine(clues, cpuinfo))
}

fn container(clues: &Clues) -> Option<&'static str> {
    let told = first_line(&clues.systemd_container);
    if !told.is_empty() {
        let known = CONTAINERS.iter().find(|&&name| name == told);
        return Some(known.copied().unwrap_or("container-other"));
    }
    match (clues.containerenv, clues.dockerenv) {
        (true, _) => Some("podman"),
        (_, true) => Some("docker"),
        (false, false) => None,
    }
}

fn machine(clues: &Clues, cpuinfo: &str) -> &'static str {
    let (vendor, product) = (
        first_line(&clues.dmi_vendor),
        first_line(&clues.dmi_product),
    );
    let bare_metal_cloud = vendor == "Amazon EC2" && product.ends_with(".metal");
    let by_dmi = [product, vendor]
        .iter()
        .find_map(|text| DMI.iter().find(|(prefix, _)| text.starts_with(prefix)))
        .map(|&(_, name)| name)
        .filter(|_| !bare_metal_cloud);
    if let Some(name) = by_dmi {
        return name;
    }
    if first_line(&clues.hypervisor_type) == "xen" {
        return "xen";
    }
    if clues.device_tree.contains("kvm") {
        return "kvm";
    }
    if cpu::has_hypervisor(cpuinfo) {
        return "vm-other";
    }
    // Only firmware that was asked can say that there is nothing to say.
    if clues.dmi_present { "none" } else { "" }
}
