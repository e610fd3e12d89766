//! Builds the kernel programs, for another target than everything else and with a compiler that can.
//!
//! Two compilers can: a nightly of rustup with the component `rust-src`, which builds `core` on the way, or the distribution's with the
//! library of the BPF target (`setup.sh` installs what is missing). `setup.sh` looks in the same order.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

const TARGET: &str = "bpfel-unknown-none";
const PACKAGE: &str = "dataplane-ebpf";
const DISTRIBUTION: &str = "/usr/bin/rustc";

/// What the cargo that runs this script sets for it, and what would make the other build fail, wait for this one, or rebuild every time.
const NOT_INHERITED: [&str; 12] = [
    "CARGO_BUILD_BUILD_DIR",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "RUSTC",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTDOC",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
];

enum Compiler {
    /// A nightly of rustup, which has the source of `core`.
    Nightly,
    /// The distribution's, which has `core` built.
    Distribution,
}

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            println!("cargo::error={}", reason.replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let programs = Path::new(&variable("CARGO_MANIFEST_DIR")?).join("..").join(PACKAGE);
    for input in ["src", "Cargo.toml", "abi/src", "abi/Cargo.toml"] {
        println!("cargo::rerun-if-changed={}", programs.join(input).display());
    }
    println!("cargo::rerun-if-changed=build.rs");
    if variable("CARGO_CFG_TARGET_ENDIAN")? != "little" {
        return Err("meshd's kernel programs are for little-endian machines".to_owned());
    }

    let compiler = compiler()?;
    let out = PathBuf::from(variable("OUT_DIR")?);
    let target = out.join(PACKAGE);
    let status = command(&compiler, &programs, &target)?
        .status()
        .map_err(|error| format!("cannot run cargo for the kernel programs: {error}"))?;
    if !status.success() {
        return Err("the kernel programs do not build; the compiler's words are above".to_owned());
    }
    let built = target.join(TARGET).join("release").join(PACKAGE);
    let to = out.join("programs.o");
    fs::copy(&built, &to).map(drop).map_err(|error| format!("cannot copy {}: {error}", built.display()))
}

fn command(compiler: &Compiler, programs: &Path, target: &Path) -> Result<Command, String> {
    let mut cargo = match compiler {
        Compiler::Nightly => {
            let mut cargo = Command::new("rustup");
            cargo.args(["run", "nightly", "cargo"]);
            cargo
        }
        Compiler::Distribution => Command::new(variable("CARGO")?),
    };
    for name in NOT_INHERITED {
        cargo.env_remove(name);
    }
    match compiler {
        Compiler::Nightly => {
            cargo.args(["build", "-Z", "build-std=core"]);
        }
        Compiler::Distribution => {
            cargo.arg("build").env("RUSTC", DISTRIBUTION).env("RUSTC_BOOTSTRAP", "1");
        }
    }
    cargo
        .args(["--release", "--package", PACKAGE, "--target", TARGET, "--manifest-path"])
        .arg(programs.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(target)
        // The kernel wants type information, which is made of debug information; the linker does what LTO would.
        .envs([
            ("CARGO_PROFILE_RELEASE_DEBUG", "2"),
            ("CARGO_PROFILE_RELEASE_LTO", "off"),
            ("CARGO_PROFILE_RELEASE_PANIC", "abort"),
            ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
            ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3"),
        ])
        .env("CARGO_ENCODED_RUSTFLAGS", flags()?);
    Ok(cargo)
}

fn flags() -> Result<OsString, String> {
    let architecture = format!("bpf_target_arch={:?}", variable("CARGO_CFG_TARGET_ARCH")?);
    let linker = linker()?;
    // v3 has the atomics that return the old value (Linux 5.12). The second keeps small fills and copies from becoming loops over bytes.
    let flags =
        ["-Clink-arg=--btf", "-Clink-arg=--disable-expand-memcpy-in-order", "-Ctarget-cpu=v3", "--cfg", &architecture];
    let mut encoded = OsString::from("-Clinker=");
    encoded.push(linker);
    for flag in flags {
        encoded.push("\u{1f}");
        encoded.push(flag);
    }
    Ok(encoded)
}

fn compiler() -> Result<Compiler, String> {
    if nightly_has_source() {
        return Ok(Compiler::Nightly);
    }
    if has_core(DISTRIBUTION) {
        return Ok(Compiler::Distribution);
    }
    Err(format!(
        "no compiler for {TARGET}: neither rustup's nightly with rust-src nor {DISTRIBUTION} with that target's library is \
         there; run ./setup.sh, which installs what is missing"
    ))
}

fn nightly_has_source() -> bool {
    let list = output(Command::new("rustup").args(["toolchain", "list"])).unwrap_or_default();
    // Asking rustup to run a toolchain that it has not would make it fetch one.
    list.lines().any(|line| line.starts_with("nightly"))
        && output(Command::new("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"]))
            .is_some_and(|root| Path::new(root.trim()).join("lib/rustlib/src/rust/library/core/src/lib.rs").exists())
}

fn has_core(rustc: &str) -> bool {
    let Some(library) = output(Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET])) else {
        return false;
    };
    fs::read_dir(library.trim()).is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with("libcore-") && name.ends_with(".rlib")
        })
    })
}

fn linker() -> Result<PathBuf, String> {
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))
        .map(|home| home.join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(cargo_home)
        .map(|directory| directory.join("bpf-linker"))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| {
            "bpf-linker is neither on PATH nor in cargo's bin directory; run ./setup.sh, which builds it".to_owned()
        })
}

/// What a command prints, if it can be run and succeeds.
fn output(command: &mut Command) -> Option<String> {
    let output = command.env_remove("RUSTUP_TOOLCHAIN").output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}: {error}"))
}
