//! Mounted file systems, from `mountinfo`, all of them: what is broken may be the odd
//! one. Which of them may be asked for their size without a risk is told here, too.

use model::diagnose::DiskView;

/// Mounts that are told.
pub const MAX_MOUNTS: usize = 1000;

/// What the kernel makes up: nothing is stored there, and a machine full of containers
/// has thousands.
const VIRTUAL: [&str; 22] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nsfs",
    "proc",
    "pstore",
    "ramfs",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "sysfs",
    "tracefs",
];

/// The mounts, without sizes, and how many had no room.
pub fn mounts(mountinfo: &str) -> (Vec<DiskView>, u64) {
    let mut found: Vec<DiskView> = Vec::new();
    let mut omitted = 0;
    for mount in mountinfo.lines().filter_map(mount) {
        if VIRTUAL.contains(&mount.kind.as_str()) {
            continue;
        }
        // What is mounted over another hides it.
        if let Some(hidden) = found.iter_mut().find(|it| it.mount == mount.mount) {
            *hidden = mount;
        } else if found.len() < MAX_MOUNTS {
            found.push(mount);
        } else {
            omitted += 1;
        }
    }
    (found, omitted)
}

/// `36 35 98:0 /root /mount options optional... - kind source options`.
fn mount(line: &str) -> Option<DiskView> {
    let (place, file_system) = line.split_once(" - ")?;
    let mut place = place.split(' ').skip(4);
    let path = unescape(place.next()?);
    let options = place.next()?;
    let mut file_system = file_system.split(' ');
    Some(DiskView {
        mount: path,
        kind: file_system.next()?.to_owned(),
        source: unescape(file_system.next().unwrap_or_default()),
        read_only: options.split(',').any(|option| option == "ro")
            || file_system.next()?.split(',').any(|option| option == "ro"),
        ..DiskView::default()
    })
}

/// The kernel writes blank, tab, line break and backslash as `\040` and so on.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) => {
                bytes.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                tail
            }
            _ => {
                bytes.push(*first);
                tail
            }
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_share_is_told_and_the_kernels_own_are_not() {
        let text = "\
36 35 98:0 / / rw,noatime shared:1 - ext4 /dev/vda1 rw
37 36 0:5 / /proc rw - proc proc rw
38 36 0:50 / /mnt/my\\040share rw shared:9 - nfs4 nas:/export rw,hard
39 36 8:1 / /boot ro - vfat /dev/sda1 rw
40 36 8:2 / /srv rw - ext4 /dev/sdb1 ro
nonsense
";
        let (found, omitted) = mounts(text);
        let told: Vec<_> = found
            .iter()
            .map(|it| {
                (
                    it.mount.as_str(),
                    it.kind.as_str(),
                    it.source.as_str(),
                    it.read_only,
                )
            })
            .collect();
        let expected = [
            ("/", "ext4", "/dev/vda1", false),
            ("/mnt/my share", "nfs4", "nas:/export", false),
            ("/boot", "vfat", "/dev/sda1", true),
            ("/srv", "ext4", "/dev/sdb1", true),
        ];
        assert_eq!((told.as_slice(), omitted), (&expected[..], 0));
        let many: String = (0..1500)
            .map(|place| format!("36 35 98:0 / /m{place} rw - ext4 /dev/vda1 rw\n"))
            .collect();
        let (found, omitted) = mounts(&many);
        assert_eq!((found.len(), omitted), (MAX_MOUNTS, 500));
        let over = "1 1 0:1 / /a rw - ext4 /dev/a rw\n2 1 0:2 / /a rw - xfs /dev/b rw\n";
        let (found, _) = mounts(over);
        assert_eq!((found.len(), found[0].kind.as_str()), (1, "xfs"));
    }
}
