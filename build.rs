//! Compiles the C++ half of `src/ffi` against the libtorch that torch-sys found.

use std::{env, path::PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=src/ffi");
    if env::var_os("CARGO_FEATURE_DOC_ONLY").is_some() {
        return;
    }
    // Published by torch-sys (`links = "tch"`) to the crates that depend on it directly.
    let lib = PathBuf::from(
        env::var_os("DEP_TCH_LIBTORCH_LIB").expect("torch-sys did not say where libtorch lies"),
    );
    let include = lib.join("../include");
    let cxx11_abi = env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".to_owned());
    println!("cargo:rerun-if-env-changed=LIBTORCH_CXX11_ABI");

    let feature = |name: &str| env::var_os(format!("CARGO_FEATURE_{name}")).is_some();
    let mut parts = vec!["seam", "one_pass", "sweep", "optimizer", "autocast", "cuda", "random", "script"];
    if feature("DISTRIBUTED") && env::var_os("CARGO_CFG_UNIX").is_some() {
        parts.push("distributed");
    }
    let mut build = cc::Build::new();
    if feature("NCCL") {
        parts.push("nccl");
        build.define("SPIKETRACE_NCCL", None);
        // For nccl.h and CUDA's headers: the folders in CPLUS_INCLUDE_PATH, or the toolkit's.
        let cuda = env::var_os("CUDA_HOME").unwrap_or_else(|| "/usr/local/cuda".into());
        build.flag("-isystem").flag(PathBuf::from(cuda).join("include"));
    }

    build
        .cpp(true)
        .std("c++17")
        .opt_level(2)
        .debug(false)
        .files(parts.iter().map(|name| format!("src/ffi/{name}.cpp")))
        .define("_GLIBCXX_USE_CXX11_ABI", &*cxx11_abi)
        // System headers: libtorch's warnings are not ours, ours are errors.
        .flag("-isystem")
        .flag(&include)
        .flag("-isystem")
        .flag(include.join("torch/csrc/api/include"))
        // The names of gloo, whose headers libtorch comes without.
        .include("src/ffi")
        .warnings(true)
        .extra_warnings(true)
        .warnings_into_errors(true)
        .compile("spiketrace_seam");

    // Our own examples, tests and benches find libtorch without LD_LIBRARY_PATH.
    if env::var("CARGO_CFG_TARGET_FAMILY").as_deref() == Ok("unix") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    }
}
