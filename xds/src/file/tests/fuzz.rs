//! Whatever a mesh file says: it is taken or refused in one line, never worse.

use std::{sync::Arc, time::Duration};

use ::tests::fuzz::fuzz;
use cache::Node;
use proptest::{collection::vec, sample::Index};

use super::*;

/// What means something to YAML, or to who reads it.
const WORDS: [&str; 40] = [
    "&a ",
    "*a",
    "<<: *a\n",
    "- ",
    ": ",
    "? ",
    "{",
    "}",
    "[",
    "]",
    ",",
    "\"",
    "'",
    "|\n",
    ">\n",
    "!!binary ",
    "!x ",
    "---\n",
    "...\n",
    "%YAML 1.2\n",
    "#",
    "\t",
    "\r",
    "\n",
    "  ",
    "\0",
    "\u{85}",
    "\u{feff}",
    "null",
    "~",
    "1e999",
    "-1",
    "0x7f",
    "70000",
    "true",
    "workloads:\n",
    "services:\n",
    "vips: [\"/10.0.0.1\"]\n",
    "uid: a\n",
    "policies: [{}]\n",
];
/// Far above what a file of a few KiB takes.
const TIME: Duration = Duration::from_secs(10);

/// A good file with pieces cut out, words put in, and parts of itself repeated.
fn changed() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        4 => prop::sample::select(WORDS.to_vec()).prop_map(str::to_owned),
        1 => any::<String>(),
        1 => (prop::sample::select(WORDS.to_vec()), 1..3000_usize).prop_map(|(word, times)| word.repeat(times)),
    ];
    vec((any::<Index>(), 0..30_usize, word, any::<Option<Index>>()), 0..10).prop_map(|changes| {
        let mut text: Vec<char> = LOCAL.chars().collect();
        for (at, cut, word, copy) in changes {
            let at = at.index(text.len() + 1);
            let cut = at..(at + cut).min(text.len());
            let copied =
                copy.map_or(0..0, |from| from.index(text.len() + 1)..(text.len().min(from.index(text.len() + 1) + 40)));
            let put: Vec<char> = word.chars().chain(text[copied].iter().copied()).collect();
            text.splice(cut, put);
            if text.is_empty() {
                text.push(' ');
            }
        }
        text.into_iter().collect()
    })
}

fn property(text: &str) -> Result<(), TestCaseError> {
    let begin = std::time::Instant::now();
    match parse(text) {
        Err(error) => {
            let line = error.to_string();
            prop_assert!(line.starts_with("mesh.yaml"), "{line}");
            prop_assert!(!line.contains(|c: char| c.is_control()) && line.len() < 4096, "{line:?}");
        }
        Ok(mesh) => {
            prop_assert!(
                mesh.warnings.iter().all(|line| !line.contains(|c: char| c.is_control())),
                "{:?}",
                mesh.warnings
            );
            let (workloads, services) = (mesh.workloads.len(), mesh.services.len());
            prop_assert!(workloads + services + mesh.policies.len() <= text.len());
            let cache = Arc::new(Cache::new(Node::default()));
            cache.replace_policies(mesh.policies);
            cache.replace(mesh.workloads, mesh.services);
            let now = cache.load();
            prop_assert_eq!((now.workload_count(), now.service_count()), (workloads, services));
        }
    }
    prop_assert!(begin.elapsed() < TIME, "{:?}", begin.elapsed());
    Ok(())
}

#[test]
fn fuzz_mesh_file() {
    fuzz("mesh file", &prop_oneof![9 => changed(), 1 => any::<String>()], |text| property(&text));
}
