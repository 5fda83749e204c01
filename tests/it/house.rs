//! The house's order: which file may use which, how long a file is, and that README names what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Modules by their paths, `neuron::kernel::sweep`; the root is the empty path.
type Files = BTreeMap<String, String>;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files under a folder whose names end so.
fn files_under(folder: &str, ends: &[&str]) -> Vec<PathBuf> {
    let (mut folders, mut found) = (vec![root().join(folder)], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false if ends.iter().any(|end| path.to_string_lossy().ends_with(end)) => found.push(path),
                false => {}
            }
        }
    }
    found.sort();
    found
}

/// The source files without comments, unit tests and strings, by their modules.
fn source_files() -> Files {
    let module = |path: &Path| {
        let path = path.strip_prefix(root().join("src")).unwrap().with_extension("");
        let mut parts: Vec<_> = path.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        if matches!(&*parts[parts.len() - 1], "mod" | "lib") {
            parts.pop();
        }
        parts.join("::")
    };
    let code = |path: &Path| {
        let text = fs::read_to_string(path).unwrap();
        let own = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let own = own.split("#[cfg(all(test").next().unwrap();
        let lines = own.lines().map(|line| line.split("//").next().unwrap());
        lines.collect::<Vec<_>>().join("\n").replace("$crate::", "crate::")
    };
    files_under("src", &[".rs"]).iter().map(|path| (module(path), code(path))).collect()
}

/// The paths that a `use` names: `a::{b, c::{self, d as e}}` is `a::b`, `a::c`, `a::c::d`.
fn expanded(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((front, rest)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap().trim();
        return vec![path.trim_end_matches("::self").to_owned()];
    };
    let inside = rest.rsplit_once('}').unwrap().0;
    let (mut depth, mut parts) = (0, vec![String::new()]);
    for letter in inside.chars() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().unwrap().push(letter);
    }
    let named = parts.iter().filter(|part| !part.trim().is_empty());
    named.flat_map(|part| expanded(part)).flat_map(|part| expanded(&format!("{front}{part}"))).collect()
}

/// The statements that begin with `use`, after `pub` or not.
fn uses(code: &str, public: bool) -> Vec<String> {
    let mut found = Vec::new();
    for statement in code.split(';') {
        let statement = statement.trim_start().rsplit("}\n").next().unwrap().trim();
        let Some((visibility, tree)) = statement.split_once("use ") else { continue };
        let visibility = visibility.rsplit(']').next().unwrap().trim();
        let is_public = visibility.starts_with("pub");
        if (is_public || visibility.is_empty()) && is_public == public {
            found.extend(expanded(tree));
        }
    }
    found
}

fn parent(module: &str) -> &str {
    module.rsplit_once("::").map_or("", |(parent, _)| parent)
}

fn joined(module: &str, name: &str) -> String {
    if module.is_empty() {
        name.to_owned()
    } else {
        format!("{module}::{name}")
    }
}

/// The module in which what `path`, seen from `module`, names is written.
fn home(files: &Files, module: &str, path: &str) -> Option<String> {
    let mut parts = path.split("::");
    let mut at = match parts.next()? {
        "crate" => String::new(),
        "super" => parent(module).to_owned(),
        "self" => module.to_owned(),
        child if files.contains_key(&joined(module, child)) => joined(module, child),
        _ => return None,
    };
    for part in parts {
        if part == "super" {
            at = parent(&at).to_owned();
            continue;
        }
        let child = joined(&at, part);
        if files.contains_key(&child) {
            at = child;
            continue;
        }
        // An item: of this file, or one that it hands on.
        let handed = uses(&files[&at], true).into_iter().find(|path| path.rsplit("::").next() == Some(part));
        return match handed {
            Some(path) => home(files, &at, &path),
            None => Some(at),
        };
    }
    Some(at)
}

/// The modules that each file uses.
fn imports(files: &Files) -> BTreeMap<&str, BTreeSet<String>> {
    let of = |module: &str, code: &str| {
        let mut paths = uses(code, false);
        // Paths in the middle of the code, and what a folder's own file calls in its children.
        let body: String =
            code.split(';').filter(|part| !part.contains("use ")).collect::<Vec<_>>().join(";");
        let words = body.split(|letter: char| !(letter.is_alphanumeric() || letter == '_' || letter == ':'));
        let inline = |word: &&str| word.contains("::") && !word.ends_with(':');
        paths.extend(
            words
                .filter(inline)
                .filter(|word| {
                    let first = word.split("::").next().unwrap();
                    first == "crate" || files.contains_key(&joined(module, first))
                })
                .map(str::to_owned),
        );
        let homes = paths.iter().filter_map(|path| home(files, module, path));
        homes.filter(|home| home != module && !home.is_empty()).collect()
    };
    files
        .iter()
        .filter(|(module, _)| !module.is_empty())
        .map(|(module, code)| (&**module, of(module, code)))
        .collect()
}

fn layer(module: &str) -> &str {
    module.split("::").next().unwrap()
}

#[test]
fn imports_run_downwards_in_the_order_of_lib_rs() {
    let files = source_files();
    let order: Vec<&str> = files[""]
        .lines()
        .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'))
        .collect();
    let place = |module: &str| {
        let found = order.iter().position(|name| *name == layer(module));
        found.unwrap_or_else(|| panic!("lib.rs has no module {module}"))
    };
    let mut wrong = Vec::new();
    for (module, used) in imports(&files) {
        let up = used.iter().filter(|used| place(used) > place(module));
        wrong.extend(up.map(|used| format!("{module} uses {used}, which comes after it")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(order.len() > 15, "{order:?}");
}

#[test]
fn no_file_uses_one_that_uses_it() {
    let files = source_files();
    let imports = imports(&files);
    assert!(imports["neuron::lif"].contains("neuron::rule"), "the reader of imports is blind: {imports:?}");
    // What uses nothing that is left, or is used by nothing that is left, is in no circle.
    let mut left: BTreeMap<&str, BTreeSet<&str>> =
        imports.iter().map(|(module, used)| (*module, used.iter().map(String::as_str).collect())).collect();
    loop {
        let used: BTreeSet<&str> = left.values().flatten().copied().collect();
        let is_bound =
            |module: &&str| used.contains(module) && left[*module].iter().any(|used| left.contains_key(used));
        let bound: BTreeSet<&str> = left.keys().copied().filter(is_bound).collect();
        if bound.len() == left.len() {
            break;
        }
        left.retain(|module, _| bound.contains(module));
        left.values_mut().for_each(|used| used.retain(|used| bound.contains(used)));
    }
    let circles: Vec<_> = left.iter().map(|(module, used)| format!("{module} uses {used:?}")).collect();
    assert!(circles.is_empty(), "a circle is among:\n{}", circles.join("\n"));
}

#[test]
fn no_file_has_more_than_400_lines() {
    let folders = ["src", "tests", "examples", "benches"];
    for path in folders.iter().flat_map(|folder| files_under(folder, &[".rs", ".cpp", ".h"])) {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= 400, "{} has {lines} lines", path.display());
    }
}

#[test]
fn what_readme_names_is_there() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let folders = ["src/", "tests/", "examples/", "benches/", "scripts/"];
    let words = readme.split(|letter: char| !(letter.is_alphanumeric() || "_-./".contains(letter)));
    let paths: Vec<&str> =
        words.filter(|word| folders.iter().any(|folder| word.starts_with(folder))).collect();
    assert!(paths.len() > 10);
    for path in paths {
        assert!(root().join(path.trim_end_matches('.')).exists(), "README.md names {path}");
    }
}
