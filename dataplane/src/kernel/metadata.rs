//! What waypoints are told of what was dialled.

use std::{fs::File, os::fd::AsFd as _};

use abi::{
    maps::{SETTINGS, SOCKETS, setting::METADATA},
    steering::metadata,
};
use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{Array, MapData},
    programs::SkMsg,
};

use super::{Metadata, accelerate, bpf, links, map::Handle, object, pins::Pins};

/// The program that sees connections to waypoints as they are established.
pub(super) const PROGRAM: &str = "waypoint";

/// Has waypoints told so from now on, or not any more.
pub(super) fn attach(ebpf: &mut Ebpf, cgroup: &File, pins: &Pins, wanted: Metadata) -> Result<()> {
    let mut settings: Array<MapData, u64> = Handle::of(ebpf, SETTINGS)?.open()?;
    let form = match wanted {
        Metadata::None => metadata::NONE,
        Metadata::Proxy => metadata::PROXY,
        Metadata::Tlv => metadata::TLV,
    };
    if wanted == Metadata::None {
        links::remove(pins, PROGRAM).context("cannot detach what tells waypoints")?;
    } else {
        accelerate::load_message(ebpf)?;
        let message: &SkMsg = ebpf.program(accelerate::MESSAGE).context("it was loaded just now")?.try_into()?;
        bpf::attach_to_sockets(message.fd()?.as_fd(), Handle::of(ebpf, SOCKETS)?.duplicate()?.as_fd())
            .context("cannot attach the program that tells waypoints")?;
        object::attach(ebpf, PROGRAM, cgroup, pins)?;
    }
    settings.set(METADATA, form, 0).context("cannot say what waypoints are told")
}
