//! Distribution, memory, boot time, machine id.

/// `PRETTY_NAME` of os-release, else `NAME` and `VERSION_ID`.
pub(super) fn os_name(os_release: &str) -> String {
    let value = |key| {
        os_release.lines().find_map(|line| {
            let (name, value) = line.trim().split_once('=')?;
            (name == key)
                .then(|| unquote(value))
                .filter(|value| !value.is_empty())
        })
    };
    value("PRETTY_NAME")
        .or_else(|| {
            let name = value("NAME")?;
            Some(value("VERSION_ID").map_or(name.clone(), |version| format!("{name} {version}")))
        })
        .unwrap_or_default()
}

/// Takes the quotes of shell assignments away; what they escape is rare enough that
/// dropping the backslash says it all.
fn unquote(value: &str) -> String {
    let value = value.trim();
    let bare = ['"', '\'']
        .iter()
        .find_map(|&quote| value.strip_prefix(quote)?.strip_suffix(quote))
        .unwrap_or(value);
    bare.replace('\\', "")
}

/// `MemTotal` in bytes.
pub(super) fn memory(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// `btime`: seconds since the epoch.
pub(super) fn boot_time(stat: &str) -> Option<i64> {
    stat.lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()
}

/// 32 hex digits, or nothing: before first boot the file says `uninitialized`.
pub(super) fn machine_id(text: &str) -> &str {
    let id = super::first_line(text);
    let valid = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
    if valid { id } else { "" }
}

/// What identifies a machine from outside: hardware addresses of real cards. In a container, where
/// there are none, those of what is there.
pub(super) fn macs(cards: &[(String, bool)]) -> Vec<String> {
    let addresses = |virtual_ones: bool| {
        let mut found: Vec<_> = cards
            .iter()
            .filter(|(_, is_virtual)| *is_virtual == virtual_ones)
            .map(|(address, _)| address.trim().to_ascii_lowercase())
            .filter(|address| address.len() == 17 && address != "00:00:00:00:00:00")
            .collect();
        found.sort();
        found.dedup();
        found
    };
    let real = addresses(false);
    if real.is_empty() {
        addresses(true)
    } else {
        real
    }
}

/// A text of the firmware, unless its vendor forgot to fill it in.
pub(super) fn firmware_text(text: &str) -> &str {
    let text = text.trim();
    let placeholder = [
        "to be filled by o.e.m.",
        "default string",
        "not specified",
        "none",
        "system serial number",
        "0123456789",
        "00000000-0000-0000-0000-000000000000",
    ];
    if placeholder.iter().any(|it| text.eq_ignore_ascii_case(it)) {
        ""
    } else {
        text
    }
}
