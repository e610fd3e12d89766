//! The system calls that are refused once everything is found and mounted.
//!
//! A list of what is refused, not of what is allowed: a C library or a kernel that does the usual in a new way does not stop the process.
//! Landlock, which could tell the bpf file system from others, also hides `/proc/PID/ns` of every process outside of the confined one's.

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

/// Running programs, and reaching into those that run.
const PROGRAMS: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
];

/// Changing files. (`mkdir`, `rmdir` and `unlink` remain: pins are made and removed with them.)
const FILES: &[i64] = &[
    libc::SYS_openat2,
    libc::SYS_truncate,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_mknodat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchmodat2,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
];

/// The same, by calls that only this machine's older programs make.
#[cfg(target_arch = "x86_64")]
const OLDER: &[i64] = &[
    libc::SYS_creat,
    libc::SYS_rename,
    libc::SYS_link,
    libc::SYS_symlink,
    libc::SYS_mknod,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[i64] = &[];

/// Seeing another tree of files, being root elsewhere; and `io_uring`, whose calls no filter sees.
const PLACES: &[i64] = &[
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_io_uring_setup,
];

/// Has the kernel refuse, on every thread and for good (EPERM): to run a program, to open a file for writing or change it otherwise, to mount,
/// and to enter another namespace than one of networks.
///
/// # Errors
/// The kernel has no such filters, or there is none for this machine.
pub fn confine() -> Result<()> {
    let filter = SeccompFilter::new(
        rules()?,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM as u32),
        TargetArch::try_from(std::env::consts::ARCH)?,
    );
    let program = BpfProgram::try_from(filter?)?;
    seccompiler::apply_filter_all_threads(&program).context("cannot filter system calls")
}

/// Tells whether the kernel can do what [`confine`] asks.
///
/// # Errors
/// Says that it can not.
pub fn filters() -> Result<()> {
    let actions = fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").context("the kernel has none")?;
    anyhow::ensure!(actions.split_whitespace().any(|action| action == "errno"), "the kernel offers only {actions}");
    Ok(())
}

/// By call: when it is refused; empty is always.
fn rules() -> Result<BTreeMap<i64, Vec<SeccompRule>>> {
    let refused = [PROGRAMS, FILES, OLDER, PLACES].into_iter().flatten();
    let mut rules: BTreeMap<_, _> = refused.map(|call| (*call, Vec::new())).collect();
    rules.insert(libc::SYS_openat, for_writing(2)?);
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_open, for_writing(1)?);
    let other = SeccompCondition::new(1, Dword, SeccompCmpOp::Ne, libc::CLONE_NEWNET as u64)?;
    rules.insert(libc::SYS_setns, vec![SeccompRule::new(vec![other])?]);
    // The same calls by the numbers of the x32 ABI, where a kernel has it; its own numbers begin at 512.
    #[cfg(target_arch = "x86_64")]
    {
        const X32: i64 = 0x4000_0000;
        const EXECVE: i64 = 520;
        let same: Vec<_> = rules.iter().map(|(call, when)| (call | X32, when.clone())).collect();
        let own = (EXECVE..=547).map(|call| (call | X32, Vec::new()));
        rules.extend(same.into_iter().chain(own));
    }
    Ok(rules)
}

/// The flags of an open, in that argument, ask for more than to read.
fn for_writing(argument: u8) -> Result<Vec<SeccompRule>> {
    let with = |mask: i32, value: i32| -> Result<_> {
        let flags = SeccompCondition::new(argument, Dword, SeccompCmpOp::MaskedEq(mask as u64), value as u64)?;
        Ok(SeccompRule::new(vec![flags])?)
    };
    Ok(vec![
        with(libc::O_ACCMODE, libc::O_WRONLY)?,
        with(libc::O_ACCMODE, libc::O_RDWR)?,
        with(libc::O_CREAT, libc::O_CREAT)?,
        with(libc::O_TRUNC, libc::O_TRUNC)?,
    ])
}
