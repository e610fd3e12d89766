//! The cgroup v2 directory that programs attach to.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

/// `CGROUP2_SUPER_MAGIC`.
const MAGIC: i64 = 0x6367_7270;

/// Finds where cgroup v2 is mounted, from `mounts` of `proc`: `/sys/fs/cgroup` on most hosts.
///
/// # Errors
/// It is mounted nowhere, or `proc` can not be read.
pub fn find_cgroup_root(proc: &Path) -> Result<PathBuf> {
    let path = proc.join("mounts");
    let mounts = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    first_mount(&mounts).context(
        "cgroup v2 is not mounted; mount it (mount -t cgroup2 none /sys/fs/cgroup/unified) or name its directory with --cgroup",
    )
}

fn first_mount(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, at, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(unescape(at)))
    })
}

/// In `mounts` a space, tab, newline or backslash is its octal number.
fn unescape(at: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(at.to_owned(), |at, (number, is)| at.replace(number, is))
}

/// Opens the directory after making sure of what it is.
pub(super) fn open(path: &Path) -> Result<File> {
    let file = File::open(path).with_context(|| format!("cannot open the cgroup {}", path.display()))?;
    let kind = super::sys::filesystem(&file).with_context(|| format!("cannot examine {}", path.display()))?;
    ensure!(
        kind == MAGIC && file.metadata().is_ok_and(|found| found.is_dir()),
        "{} is not a cgroup v2 directory; --cgroup names one, without it the root is found",
        path.display()
    );
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cgroup2_mount_is_the_root() {
        let mounts = "proc /proc proc rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n\
                      cgroup2 /sys/fs/my\\040own cgroup2 rw 0 0\ncgroup2 /other cgroup2 rw 0 0\n";
        assert_eq!(first_mount(mounts), Some(PathBuf::from("/sys/fs/my own")));
        assert_eq!(first_mount("tmpfs /sys/fs/cgroup tmpfs rw 0 0\n"), None);
    }

    #[test]
    fn an_ordinary_directory_is_refused() {
        let error = open(Path::new("/tmp")).expect_err("not a cgroup").to_string();
        assert!(error.contains("/tmp is not a cgroup v2 directory"), "{error}");
    }
}
