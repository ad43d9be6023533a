//! Golden files: what was reviewed once and must not change unnoticed.

use std::path::PathBuf;

/// Compares `actual` with `tests/golden/NAME`; with `UPDATE_GOLDEN=1` it is
/// written instead. Read the difference before you accept it.
pub fn check(name: &str, actual: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, actual).expect("write the golden file");
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        expected, actual,
        "tests/golden/{name} differs; review, then UPDATE_GOLDEN=1"
    );
}
