//! Compiles the C++ shim against the headers that `faiss-sys` installed.

fn main() {
    let root = std::env::var("DEP_FAISS_C_ROOT").expect("faiss-sys with the feature `static` says where it installed");
    println!("cargo:rerun-if-changed=shim");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .flag("-fopenmp")
        .warnings(false)
        .include(format!("{root}/include"))
        .file("shim/graph.cpp")
        .file("shim/inverted.cpp")
        .compile("sagitta_faiss_shim");
}
