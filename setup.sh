#!/usr/bin/env bash
# Makes this machine able to build, test and show meshd. Does nothing, quickly, where everything is there already.
#
#   ./setup.sh            what building needs, and what the tests and the demo need
#   ./setup.sh --build    only what building needs
#   ./setup.sh --kernels  what the tests need, and what boots other kernels
#   ./setup.sh --check    installs nothing: says what is missing and fails if anything is
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

BPF_LINKER=0.13.0
NIGHTLY="rustup toolchain install nightly --profile minimal --component rust-src"
READY_MADE_LINKER="cargo binstall bpf-linker@$BPF_LINKER"

want_tests=1 want_kernels=0 check_only=0
lists_are_old=1 # of apt-get; updated once a run, and only where something is installed
for argument in "$@"; do
    case $argument in
        --build) want_tests=0 ;;
        --kernels) want_kernels=1 ;;
        --check) check_only=1 ;;
        *) echo "setup: unknown argument $argument (--build, --kernels, --check)" >&2; exit 2 ;;
    esac
done

say() { echo "setup: $*" >&2; }
fail() { say "$1"; shift; [ $# = 0 ] || printf '  %s\n' "$@" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

main() {
    [ "$(uname -s)" = Linux ] || fail "meshd is made of Linux kernel programs, this is $(uname -s)"
    # iptables and ip are not on an ordinary user's path in Debian, a program that cargo installed not on every path.
    PATH="$PATH:/usr/sbin:/sbin:${CARGO_HOME:-$HOME/.cargo}/bin"
    rust_toolchain
    look_for_packages
    have apt-get || without_apt
    [ ${#missing[@]} = 0 ] || install_packages "${missing[@]}"
    bpf_compiler
    bpf_linker
}

# The Rust toolchain is the user's own choice: it is checked, never installed.
rust_toolchain() {
    local wanted found
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    have cargo || fail "cargo is missing: meshd is built with Rust $wanted or newer" \
        "install it with rustup (the 'Install' page of the Rust project), then open a new shell" \
        "already installed, but root does not see it? then: sudo env \"PATH=\$PATH\" make ..."
    found=$(cargo --version | cut -d' ' -f2)
    at_least "$found" "$wanted" || fail "Rust $wanted or newer is needed, this is $found" "rustup update stable"
    cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 ||
        fail "rustfmt or clippy is missing" "rustup component add rustfmt clippy"
}

at_least() { [ "$(printf '%s\n%s\n' "${1%%-*}" "$2" | sort -V | head -n 1)" = "$2" ]; }

# Packages of the distribution. What decides is the program, so that one that came another way is as good.
look_for_packages() {
    missing=()
    have cc && have c++ || missing+=(g++)
    have make || missing+=(make)
    if [ $want_tests = 1 ]; then
        have ip || missing+=(iproute2)
        have iptables || missing+=(iptables)
        have nsenter || missing+=(util-linux)
        have prometheus && have promtool || missing+=(prometheus)
    fi
    if [ $want_kernels = 1 ]; then
        have qemu-system-x86_64 || missing+=(qemu-system-x86)
        # The shell's of a kernel without libraries; another busybox may need some.
        have busybox && ! ldd "$(command -v busybox)" >/dev/null 2>&1 || missing+=(busybox-static)
        have cpio || missing+=(cpio)
        have xz || missing+=(xz-utils)
        have strip || missing+=(binutils)
    fi
}

# On another system than Debian and its kin: everything that is missing, at once.
without_apt() {
    local wanted=()
    [ ${#missing[@]} = 0 ] || wanted+=("what Debian calls ${missing[*]}")
    rustup_nightly || distribution_rustc || wanted+=("a compiler for kernel programs: $NIGHTLY")
    [ "$(bpf-linker --version 2>/dev/null)" = "bpf-linker $BPF_LINKER" ] || compgen -G "/usr/lib/llvm-*/lib/libLLVM*" >/dev/null ||
        wanted+=("their linker: $READY_MADE_LINKER")
    [ ${#wanted[@]} = 0 ] || fail "this system has no apt-get; install this yourself, then run this again:" "${wanted[@]}"
}

install_packages() {
    local sudo=()
    [ $check_only = 0 ] || fail "these packages are missing" "$*"
    if [ "$(id -u)" != 0 ]; then
        have sudo || fail "these packages are missing; as root:" "apt-get install --no-install-recommends $*"
        sudo=(sudo)
    fi
    say "installing $*"
    "${sudo[@]}" bash -euc "$(declare -f install_as_root); install_as_root $lists_are_old $*" >&2
    lists_are_old=0
}

# A distribution starts the services that it installs. Here they are tools: a policy that says no stands for as long as the
# installation runs, and a Prometheus that this brought stays off at the next boot too.
install_as_root() {
    local update=$1 policy=/usr/sbin/policy-rc.d log fresh=0
    shift
    log=$(mktemp)
    case " $* " in *" prometheus "*) fresh=1 ;; esac
    if [ ! -e $policy ]; then
        trap "rm -f $policy $log" EXIT
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod 755 $policy
    else
        trap "rm -f $log" EXIT
    fi
    export DEBIAN_FRONTEND=noninteractive
    { { [ "$update" = 0 ] || apt-get update -q; } && apt-get install -q -y --no-install-recommends "$@"; } >"$log" 2>&1 || {
        tail -n 20 "$log"
        echo "setup: apt-get could not install $*"
        return 1
    }
    if [ $fresh = 1 ] && command -v systemctl >/dev/null; then
        systemctl disable prometheus.service >/dev/null 2>&1 || echo "setup: prometheus.service stays enabled"
    fi
}

# The kernel programs need a compiler that has `core` for the BPF target, or its source: a nightly with rust-src, or the
# distribution's compiler with that target's library. `dataplane/build.rs` looks in the same order.
bpf_compiler() {
    local llvm
    if rustup_nightly; then
        bpf_llvm=$(llvm_major rustup run nightly rustc)
        return
    fi
    if ! distribution_rustc; then
        have apt-get && apt_knows libstd-rust-web-dev-bpf ||
            fail "no Rust compiler that can build kernel programs was found" \
                "$NIGHTLY"
        install_packages rustc-web libstd-rust-web-dev-bpf rust-web-llvm
        distribution_rustc || fail "/usr/bin/rustc still lacks the library of bpfel-unknown-none" \
            "$NIGHTLY"
    fi
    bpf_llvm=$(llvm_major /usr/bin/rustc)
}

rustup_nightly() {
    local sysroot
    have rustup || return 1
    rustup toolchain list 2>/dev/null | grep -q '^nightly' || return 1
    sysroot=$(rustup run nightly rustc --print sysroot 2>/dev/null) || return 1
    [ -e "$sysroot/lib/rustlib/src/rust/library/core/src/lib.rs" ]
}

distribution_rustc() {
    local library
    library=$(/usr/bin/rustc --print target-libdir --target bpfel-unknown-none 2>/dev/null) || return 1
    compgen -G "$library/libcore-*.rlib" >/dev/null
}

# On a new machine apt-get knows no package before its first update.
apt_knows() {
    apt-cache show "$1" >/dev/null 2>&1 && return
    [ $check_only = 0 ] || return 0
    if [ "$(id -u)" = 0 ]; then apt-get update -q >/dev/null 2>&1; elif have sudo; then sudo apt-get update -q >/dev/null 2>&1; fi
    apt-cache show "$1" >/dev/null 2>&1
}

llvm_major() { "$@" -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p'; }

# The linker reads what the compiler's LLVM wrote, so it is built with that LLVM or a newer one.
bpf_linker() {
    local prefix
    linker_fits && return
    [ $check_only = 0 ] || fail "bpf-linker $BPF_LINKER for LLVM $bpf_llvm is missing"
    prefix=/usr/lib/llvm-$bpf_llvm
    # Debian has llvm-config in one package and the library to link with in another.
    if [ ! -x "$prefix/bin/llvm-config" ] || ! compgen -G "$prefix/lib/libLLVM*" >/dev/null; then
        have apt-get && apt_knows "llvm-$bpf_llvm-dev" ||
            fail "bpf-linker is missing, and LLVM $bpf_llvm to build it with" \
                "install the development files of LLVM $bpf_llvm under $prefix and run this again, or" \
                "$READY_MADE_LINKER"
        install_packages "llvm-$bpf_llvm-dev"
    fi
    say "building bpf-linker $BPF_LINKER for LLVM $bpf_llvm (about a minute)"
    LLVM_PREFIX=$prefix cargo install --quiet --locked bpf-linker --version "$BPF_LINKER" --force \
        --no-default-features --features "llvm-$bpf_llvm" >&2
    hash -r
    linker_fits || fail "the bpf-linker just built does not run" "$(bpf-linker --version 2>&1 || true)"
}

# A linker linked with LLVM statically shows no library; the ready-made ones are, and have the newest LLVM of their version.
linker_fits() {
    local library
    [ "$(bpf-linker --version 2>/dev/null)" = "bpf-linker $BPF_LINKER" ] || return 1
    library=$(ldd "$(command -v bpf-linker)" 2>/dev/null | sed -n 's/.*libLLVM[.-]*\(so\.\)\?\([0-9]*\).*/\2/p' | head -n 1)
    [ -z "$library" ] || [ "$library" -ge "$bpf_llvm" ]
}

main
