//! Processors.

/// More than any machine has; a list that says otherwise is not one.
const MAX_CPUS: u32 = 1 << 16;

/// How many are in a list such as `0-3,6`.
pub(super) fn count(list: &str) -> Option<u32> {
    let mut total: u32 = 0;
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        if last < first || last >= MAX_CPUS {
            return None;
        }
        total = total
            .checked_add(last - first + 1)
            .filter(|&total| total <= MAX_CPUS)?;
    }
    Some(total)
}

/// How many `/proc/cpuinfo` describes, when `/sys` is not there.
pub(super) fn count_of_cpuinfo(cpuinfo: &str) -> Option<u32> {
    let count = values(cpuinfo, "processor").count();
    u32::try_from(count).ok().filter(|&count| count > 0)
}

/// The first processor's name. ARM kernels give no name, only numbers.
pub(super) fn model(cpuinfo: &str) -> String {
    let named = ["model name", "Model Name", "cpu model", "Hardware"]
        .iter()
        .find_map(|key| values(cpuinfo, key).find(|value| !value.is_empty()));
    if let Some(name) = named {
        return name.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    let number = |key| values(cpuinfo, key).next();
    match (number("CPU implementer"), number("CPU part")) {
        (Some(implementer), Some(part)) => format!("implementer {implementer} part {part}"),
        _ => String::new(),
    }
}

/// Whether the processor says that a hypervisor runs it.
pub(super) fn has_hypervisor(cpuinfo: &str) -> bool {
    values(cpuinfo, "flags")
        .next()
        .is_some_and(|flags| flags.split(' ').any(|f| f == "hypervisor"))
}

fn values<'a>(cpuinfo: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    cpuinfo.lines().filter_map(move |line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then_some(value.trim())
    })
}
