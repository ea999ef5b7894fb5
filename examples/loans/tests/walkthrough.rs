//! `docs/your-own-domain.md` shows the code as it stands.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::fs;
use std::path::Path;

/// Each block of code names its file, and stands in it line by line.
#[test]
fn the_walkthrough_shows_the_code_as_it_stands() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let document = fs::read_to_string(root.join("docs/your-own-domain.md")).unwrap();
    let mut compared = 0;
    for block in document.split("\n```").skip(1).step_by(2) {
        let (opening, code) = block.split_once('\n').unwrap();
        let Some((_, path)) = opening.split_once(' ') else {
            assert_eq!(opening, "sh", "a block of code names its file");
            continue;
        };
        let file = fs::read_to_string(root.join(path)).unwrap();
        assert!(format!("\n{file}").contains(&format!("\n{code}\n")), "{path} has no such lines:\n{code}");
        compared += 1;
    }
    assert!(compared > 15, "{compared}");
}
