//! Generates the server of delta discovery, for a control plane of the benchmark's own; its messages are those of `xds`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=../xds/proto");
    let files = protox::compile(["discovery.proto"], ["../xds/proto"])?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        .extern_path(".envoy.service.discovery.v3", "::xds::proto::discovery")
        .compile_fds(files)?;
    Ok(())
}
