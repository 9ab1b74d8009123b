//! Lists the files of the pool's server-wide module and its scripts, so that the library carries them: a pool always
//! runs the module that its worker was built with.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// What of `image/` goes into a pool's control volume.
const SOURCES: [&str; 2] = ["image/addons/platform_pool", "image/pool"];

fn main() {
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let mut files = Vec::new();
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
        collect(&root.join(source), &mut files);
    }
    files.sort();
    let mut code = String::from("&[\n");
    for file in files {
        let name = file
            .strip_prefix(root.join("image"))
            .expect("every source is under image/");
        // What is in them, not where they are: builds of several checkouts may share a target directory.
        let content = fs::read(&file).expect("a source can be read");
        writeln!(code, "    ({name:?}, b\"{}\"),", content.escape_ascii())
            .expect("a string takes everything");
    }
    code.push(']');
    let target = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it")).join("control_files.rs");
    fs::write(target, code).expect("cargo's own directory can be written");
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries {
        let path = entry.expect("a source directory can be read").path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name.starts_with('.') || name == "__pycache__" || name == "tests" {
            continue;
        }
        if path.is_dir() {
            collect(&path, files);
        } else if !name.ends_with(".pyc") {
            files.push(path);
        }
    }
}
