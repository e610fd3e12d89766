//! Every test that `tests/README.md` names is there.

use std::{fs, path::Path};

#[test]
fn every_test_that_the_readme_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let readme = fs::read_to_string(root.join("tests/README.md")).expect("it is there");
    let (_, defects) = readme.split_once("## Defects").expect("a section of that name");
    let mut named = 0;
    for row in defects.lines().filter_map(|line| line.strip_suffix("` |")) {
        let mut ends = row.rsplit('`');
        let (test, file) = (ends.next().expect("a name"), ends.nth(1).unwrap_or_default());
        let source = fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{row}: {file}: {error}"));
        assert!(source.contains(&format!("fn {test}(")), "{row}");
        named += 1;
    }
    assert!(named >= 20, "{named} tests are named");
}
