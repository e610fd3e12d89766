//! Generates the messages of `proto/`, and for the tests a server of the same.

use std::{env, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["discovery.proto", "workload.proto", "authorization.proto"], ["proto"])?;
    generate().build_server(false).compile_fds(files.clone())?;

    let server = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?).join("server");
    fs::create_dir_all(&server)?;
    generate().build_transport(false).out_dir(server).compile_fds(files)?;
    Ok(())
}

fn generate() -> tonic_prost_build::Builder {
    tonic_prost_build::configure().build_client(false).bytes(".").btree_map(".")
}
