//! Compiles the protocol descriptions under `proto/` without a system `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = ["discovery", "workload", "security", "ca", "zds", "meltemi/extensions", "meltemi/l7"]
        .map(|name| format!("proto/{name}.proto"));
    let descriptors = protox::compile(files, ["proto"])?;
    // Sorted maps: equal messages must serialise to equal bytes, since versions are content hashes.
    tonic_prost_build::configure()
        .btree_map(".istio.workload")
        .btree_map(".meltemi.l7")
        .btree_map(".meltemi.v1")
        .compile_fds(descriptors)?;
    Ok(())
}
