//! A file that changes while it is watched.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use cache::{Cache, Node};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::file::{FileReport, FileStatus, MeshFile, stamp::Stamp};

/// What a change may take to show, with room for a busy machine; the median is asserted on apart.
const DEADLINE: Duration = Duration::from_secs(10);

fn mesh(names: &[&str]) -> String {
    let pods = names.iter().enumerate();
    let pods = pods.map(|(i, n)| format!("- {{name: {n}, namespace: ns, workloadIps: [\"10.0.0.{}\"]}}\n", i + 1));
    if names.is_empty() { "workloads: []\n".into() } else { format!("workloads:\n{}", pods.collect::<String>()) }
}

struct Watched {
    cache: Arc<Cache>,
    status: Arc<FileStatus>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Watched {
    fn start(path: impl Into<PathBuf>) -> Self {
        let cache = Arc::new(Cache::new(Node::default()));
        let file = MeshFile::load(path, cache.clone()).unwrap();
        let (status, shutdown) = (file.status(), CancellationToken::new());
        let task = TaskTracker::new().spawn(file.run(shutdown.clone()));
        Self { cache, status, shutdown, task }
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.cache.load().workloads().map(|w| w.name.to_string()).collect();
        names.sort();
        names
    }

    /// Waits for these workloads and returns how long it took.
    async fn shows(&self, names: &[&str]) -> Duration {
        let start = Instant::now();
        while self.names() != names {
            assert!(start.elapsed() < DEADLINE, "{names:?} {:?} {:?}", self.names(), self.status.report());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        start.elapsed()
    }

    async fn reports(&self, is: impl Fn(&FileReport) -> bool) -> FileReport {
        let start = Instant::now();
        loop {
            let report = self.status.report();
            if is(&report) {
                return report;
            }
            assert!(start.elapsed() < DEADLINE, "{report:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(DEADLINE, self.task).await.unwrap().unwrap();
    }
}

fn written(names: &[&str]) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mesh.yaml");
    fs::write(&path, mesh(names)).unwrap();
    (directory, path)
}

fn rename_over(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

#[tokio::test]
async fn a_file_written_in_place_or_renamed_over_shows_within_a_second() {
    let (_directory, path) = written(&["a"]);
    let watched = Watched::start(&path);
    assert_eq!(watched.names(), ["a"]);
    let mut took = Vec::new();
    for round in 0..3 {
        let name = format!("in-place-{round}");
        fs::write(&path, mesh(&["a", &name])).unwrap();
        took.push(watched.shows(&["a", &name]).await);
        let name = format!("renamed-{round}");
        rename_over(&path, &mesh(&["a", &name]));
        took.push(watched.shows(&["a", &name]).await);
    }
    took.sort();
    assert!(took[took.len() / 2] < Duration::from_secs(1), "{took:?}");
    assert_eq!(watched.status.report(), FileReport { good: true, loads: 7, ..FileReport::default() });
    watched.stop().await;
}

#[tokio::test]
async fn a_config_map_whose_link_is_swapped_shows() {
    let directory = tempfile::tempdir().unwrap();
    let volume = |version: &str, names: &[&str]| {
        let data = directory.path().join(version);
        fs::create_dir(&data).unwrap();
        fs::write(data.join("mesh.yaml"), mesh(names)).unwrap();
        let link = directory.path().join("..data_tmp");
        symlink(version, &link).unwrap();
        fs::rename(link, directory.path().join("..data")).unwrap();
    };
    volume("..1", &["a"]);
    let path = directory.path().join("mesh.yaml");
    symlink("..data/mesh.yaml", &path).unwrap();
    let watched = Watched::start(&path);
    volume("..2", &["b"]);
    fs::remove_dir_all(directory.path().join("..1")).unwrap();
    watched.shows(&["b"]).await;
    watched.stop().await;
}

#[tokio::test]
async fn a_bad_file_keeps_the_last_good_state_until_it_is_good_again() {
    let (_directory, path) = written(&["a"]);
    let watched = Watched::start(&path);
    rename_over(&path, "workloads: [\n");
    let report = watched.reports(|r| r.errors == 1).await;
    assert!(!report.good && report.last_error.as_ref().is_some_and(|e| e.contains("mesh.yaml:1:")), "{report:?}");
    rename_over(&path, "- old: form\n");
    let report = watched.reports(|r| r.errors == 2).await;
    assert!(report.last_error.is_some_and(|e| e.contains("old form")));
    assert_eq!(watched.names(), ["a"]);
    rename_over(&path, &mesh(&["a", "b"]));
    watched.shows(&["a", "b"]).await;
    assert!(watched.reports(|r| r.good).await.last_error.is_some());
    watched.stop().await;
}

#[tokio::test]
async fn a_file_that_vanishes_for_a_while_keeps_its_state() {
    let (_directory, path) = written(&["a"]);
    let watched = Watched::start(&path);
    fs::remove_file(&path).unwrap();
    let report = watched.reports(|r| !r.good).await;
    assert!(report.last_error.is_some_and(|e| e.contains("cannot read the mesh file")));
    assert_eq!(watched.names(), ["a"]);
    let swaps = watched.cache.state().swaps;
    fs::write(&path, mesh(&["a"])).unwrap();
    watched.reports(|r| r.good).await;
    assert_eq!(watched.cache.state().swaps, swaps, "the same content is no change");
    fs::write(&path, mesh(&["b"])).unwrap();
    watched.shows(&["b"]).await;
    watched.stop().await;
}

/// One that is looked at by the test itself.
struct Looked {
    file: MeshFile,
    unsettled: Option<(Stamp, u32)>,
}

impl Looked {
    fn start(path: &Path) -> Self {
        Self { file: MeshFile::load(path, Arc::new(Cache::new(Node::default()))).unwrap(), unsettled: None }
    }

    fn look(&mut self) -> usize {
        self.file.look(&mut self.unsettled);
        self.file.cache.load().workload_count()
    }
}

#[test]
fn a_file_that_is_being_written_is_read_when_it_is_whole() {
    let (_directory, path) = written(&["a"]);
    let mut looked = Looked::start(&path);
    // Each is a mesh of its own, with fewer workloads.
    fs::write(&path, mesh(&["b", "c"])).unwrap();
    assert_eq!(looked.look(), 1);
    fs::write(&path, mesh(&["b", "c", "d"])).unwrap();
    assert_eq!(looked.look(), 1);
    assert_eq!(looked.look(), 3);
    assert_eq!((looked.look(), looked.file.status.report().loads), (3, 2));
}

#[test]
fn a_file_that_is_never_quiet_is_read_all_the_same() {
    let (_directory, path) = written(&["a"]);
    let mut looked = Looked::start(&path);
    let names = ["b", "c", "d", "e", "f"];
    let seen: Vec<_> = (1..=names.len())
        .map(|n| {
            rename_over(&path, &mesh(&names[..n]));
            looked.look()
        })
        .collect();
    assert_eq!(seen, [1, 1, 1, 4, 4]);
}

#[test]
fn the_same_bad_content_is_said_and_counted_once() {
    let (_directory, path) = written(&["a"]);
    let mut looked = Looked::start(&path);
    for text in ["workloads: [\n", "workloads: [\n", "# again\nworkloads: [\n"] {
        rename_over(&path, text);
        assert_eq!((looked.look(), looked.look()), (1, 1));
    }
    let report = looked.file.status.report();
    assert_eq!((report.errors, report.loads, report.good), (2, 1, false));
    rename_over(&path, &mesh(&["a"]));
    looked.look();
    looked.look();
    assert!(looked.file.status.report().good);
}

#[tokio::test]
async fn a_bad_file_at_the_start_is_the_callers_to_report() {
    let (_directory, path) = written(&["a", "a"]);
    let cache = Arc::new(Cache::new(Node::default()));
    let error = MeshFile::load(&path, cache.clone()).unwrap_err().to_string();
    assert!(error.contains("mesh.yaml:3: workload ns/a: uid:"), "{error}");
    assert!(!cache.state().complete);
    fs::write(&path, mesh(&[])).unwrap();
    MeshFile::load(&path, cache.clone()).unwrap();
    assert!(cache.state().complete && cache.state().source == "file");
}
