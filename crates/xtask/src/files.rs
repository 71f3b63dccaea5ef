//! The files of the workspace, as git sees them.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// A text file.
#[derive(Debug)]
pub(crate) struct TextFile {
    /// Path from the root of the workspace, with `/`.
    pub path: String,
    pub text: String,
}

/// Every file that git tracks or would track. `paths` has all of them, `texts` those that are text.
pub(crate) struct Tree {
    pub paths: Vec<String>,
    pub texts: Vec<TextFile>,
}

/// Reads the tree. Files that were deleted but are still in the index are left out.
pub(crate) fn read_tree(root: &Path) -> Result<Tree> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .context("cannot run git")?;
    ensure!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr).trim());
    let listed = String::from_utf8(output.stdout).context("a file name is not UTF-8")?;
    let mut paths: Vec<String> = listed.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect();
    paths.sort_unstable();
    paths.dedup();
    paths.retain(|path| root.join(path).is_file());

    let mut texts = Vec::new();
    for path in &paths {
        let bytes = std::fs::read(root.join(path)).with_context(|| format!("cannot read {path}"))?;
        if let Some(text) = as_text(bytes) {
            texts.push(TextFile { path: path.clone(), text });
        }
    }
    Ok(Tree { paths, texts })
}

fn as_text(bytes: Vec<u8>) -> Option<String> {
    if bytes.contains(&0) { None } else { String::from_utf8(bytes).ok() }
}
