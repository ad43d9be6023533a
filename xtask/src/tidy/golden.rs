//! Golden files that no test reads any more: they look like a promise and hold nothing.

use crate::workspace::Source;

/// A complaint for each golden file that no Rust file about golden files names, by its file name
/// or by its quoted stem (tests that build names from a list).
pub(super) fn unreferenced(golden: &[&str], rust: &[Source]) -> Vec<String> {
    let readers: Vec<_> = rust
        .iter()
        .filter(|source| source.text.contains("golden"))
        .collect();
    golden
        .iter()
        .filter(|path| {
            let name = path.rsplit('/').next().unwrap_or(path);
            let stem = format!("\"{}\"", name.split('.').next().unwrap_or(name));
            !readers
                .iter()
                .any(|source| source.text.contains(name) || source.text.contains(&stem))
        })
        .map(|path| format!("{path} is read by no test"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_nobody_names_is_found() {
        let rust = [
            Source {
                path: "t.rs".into(),
                text: "golden(\"hello.hex\"); golden_list([\"matrix\"])".into(),
            },
            Source {
                path: "u.rs".into(),
                text: "forgotten.hex".into(),
            },
        ];
        let golden = [
            "tests/golden/hello.hex",
            "tests/golden/matrix.txt",
            "tests/golden/forgotten.hex",
        ];
        assert_eq!(
            unreferenced(&golden, &rust),
            ["tests/golden/forgotten.hex is read by no test"]
        );
    }
}
