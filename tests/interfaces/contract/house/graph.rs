//! Finds import cycles: builds the graph of the modules of each crate from the paths in their code.
//!
//! A module depends on another one if its code names something that is defined there, in a `use` or in any other path. Names that
//! a module re-exports lead to where they are defined, so a parent that only re-exports its children depends on none of them. Tests
//! are left out.

use super::{
    super::project,
    sizes::{attributes, is_test},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};
use syn::{
    Item, UseTree, Visibility,
    visit::{self, Visit},
};

/// The path of a module from the root of its crate, or of a name in it.
type Names = Vec<String>;

/// One module.
#[derive(Default)]
struct Module {
    /// Names that a `use` brings into it, with the paths they stand for.
    imports: BTreeMap<String, Names>,
    /// Modules whose content a `use …::*` brings into it.
    globs: Vec<Names>,
    children: BTreeSet<String>,
    /// Every path in its code, absolute. Re-exports are left out.
    named: Vec<Names>,
}

/// The modules of one crate.
#[derive(Default)]
struct Crate(BTreeMap<Names, Module>);

impl Crate {
    /// Reads the library of a crate.
    fn read(folder: &Path) -> Self {
        let mut found = Self::default();
        found.read_file(&folder.join("lib.rs"), folder.to_owned(), Vec::new());
        found
    }

    /// Reads a module from `file`; `below` is the folder of its children.
    fn read_file(&mut self, file: &Path, below: PathBuf, module: Names) {
        let source = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let parsed = syn::parse_file(&source).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        self.read_items(&parsed.items, &below, module);
    }

    fn read_items(&mut self, items: &[Item], below: &Path, module: Names) {
        let mut found = Module::default();
        for item in items.iter().filter(|item| !is_test(attributes(item))) {
            match item {
                Item::Mod(child) => {
                    let name = child.ident.to_string();
                    let (path, folder) = ([module.clone(), vec![name.clone()]].concat(), below.join(&name));
                    match &child.content {
                        Some((_, items)) => self.read_items(items, &folder, path),
                        None => {
                            let file = folder.with_extension("rs");
                            let file = if file.exists() { file } else { folder.join("mod.rs") };
                            self.read_file(&file, folder, path);
                        }
                    }
                    found.children.insert(name);
                }
                Item::Use(item) => {
                    let is_private = matches!(item.vis, Visibility::Inherited);
                    found.take_use(&item.tree, &module, Vec::new(), is_private);
                }
                item => PathsOf { module: &module, found: &mut found }.visit_item(item),
            }
        }
        self.0.insert(module, found);
    }

    /// The module that defines the item that a path names.
    fn defines(&self, path: &[String], depth: usize) -> Option<Names> {
        let mut module: Names = Vec::new();
        for (at, name) in path.iter().enumerate() {
            let here = self.0.get(&module)?;
            if here.children.contains(name) {
                module.push(name.clone());
                continue;
            }
            let rest = &path[at + 1..];
            let imported = here.imports.get(name).map(|target| [target, rest].concat());
            let of_globs = here.globs.iter().map(|glob| [glob, &path[at..]].concat());
            return imported
                .into_iter()
                .chain(of_globs)
                .filter(|target| depth < 10 && target.as_slice() != path)
                .find_map(|target| self.defines(&target, depth + 1))
                .or(Some(module));
        }
        Some(module)
    }

    /// The modules that each module depends on.
    fn edges(&self) -> BTreeMap<&Names, BTreeSet<Names>> {
        let of = |(module, found): (_, &Module)| {
            let named = found.named.iter().filter_map(|path| self.defines(path, 0));
            (module, named.filter(|other| other != module).collect())
        };
        self.0.iter().map(of).collect()
    }

    /// The cycles: sets of modules that depend on one another.
    fn cycles(&self) -> Vec<String> {
        let edges = self.edges();
        let reached = |from: &Names| {
            let (mut reached, mut todo) = (BTreeSet::new(), vec![from.clone()]);
            while let Some(module) = todo.pop() {
                for next in edges.get(&module).into_iter().flatten() {
                    if reached.insert(next.clone()) {
                        todo.push(next.clone());
                    }
                }
            }
            reached
        };
        let reached: BTreeMap<&Names, BTreeSet<Names>> =
            edges.keys().map(|module| (*module, reached(module))).collect();
        let mut cycles = BTreeSet::new();
        for (module, these) in &reached {
            let others = these.iter().filter(|other| reached.get(other).is_some_and(|back| back.contains(*module)));
            let cycle: BTreeSet<&Names> = others.collect();
            if !cycle.is_empty() {
                cycles.insert(cycle);
            }
        }
        let describe = |cycle: &BTreeSet<&Names>| {
            let lines = cycle.iter().map(|module| {
                let inner: Vec<String> =
                    edges[*module].iter().filter(|other| cycle.contains(other)).map(|other| name(other)).collect();
                format!("    {} -> {}", name(module), inner.join(", "))
            });
            lines.collect::<Vec<_>>().join("\n")
        };
        cycles.iter().map(describe).collect()
    }
}

fn name(module: &[String]) -> String {
    if module.is_empty() { "lib".to_owned() } else { module.join("::") }
}

/// The absolute form of a path that a module names, if it leads into its own crate.
fn absolute(path: Names, module: &[String]) -> Option<Names> {
    let mut base = match path.first()?.as_str() {
        "crate" => return Some(path[1..].to_vec()),
        "self" | "super" => module.to_vec(),
        _ => return Some([module, &path].concat()),
    };
    let mut rest = path.as_slice();
    while let Some((first, more)) = rest.split_first() {
        match first.as_str() {
            "self" => {}
            "super" => drop(base.pop()),
            _ => break,
        }
        rest = more;
    }
    base.extend(rest.iter().cloned());
    Some(base)
}

impl Module {
    /// Takes a `use` tree; one that is no re-export counts as a dependency.
    fn take_use(&mut self, tree: &UseTree, module: &[String], before: Names, is_private: bool) {
        let with = |name: String| [before.clone(), vec![name]].concat();
        let (path, known_as) = match tree {
            UseTree::Path(tree) => {
                return self.take_use(&tree.tree, module, with(tree.ident.to_string()), is_private);
            }
            UseTree::Group(group) => {
                return group.items.iter().for_each(|tree| self.take_use(tree, module, before.clone(), is_private));
            }
            UseTree::Glob(_) => {
                let Some(path) = absolute(before, module) else { return };
                if is_private {
                    self.named.push(path.clone());
                }
                return self.globs.push(path);
            }
            UseTree::Name(name) if name.ident == "self" => (before.clone(), before.last().cloned()),
            UseTree::Name(name) => (with(name.ident.to_string()), Some(name.ident.to_string())),
            UseTree::Rename(rename) if rename.ident == "self" => (before.clone(), Some(rename.rename.to_string())),
            UseTree::Rename(rename) => (with(rename.ident.to_string()), Some(rename.rename.to_string())),
        };
        // A path without `crate`, `self` or `super` leads to a child or to another crate.
        let Some(path) = absolute(path, module) else { return };
        if is_private {
            self.named.push(path.clone());
        }
        if let Some(known_as) = known_as
            && path.last().is_some_and(|last| last != &known_as || path.len() != module.len() + 1)
        {
            self.imports.insert(known_as, path);
        }
    }
}

/// Collects the paths in an item.
struct PathsOf<'a> {
    module: &'a [String],
    found: &'a mut Module,
}

impl Visit<'_> for PathsOf<'_> {
    fn visit_path(&mut self, path: &syn::Path) {
        let names = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.found.named.extend(absolute(names, self.module));
        visit::visit_path(self, path);
    }

    fn visit_item_use(&mut self, item: &syn::ItemUse) {
        self.found.take_use(&item.tree, self.module, Vec::new(), true);
    }

    fn visit_vis_restricted(&mut self, _: &syn::VisRestricted) {}
}

/// Crates that still have cycles. Do not add to this list.
const KNOWN: [&str; 0] = [];

#[test]
fn no_module_depends_on_itself_through_others() {
    let workers = fs::read_dir(project().join("workers")).expect("workers").map(|entry| entry.expect("entry").path());
    let mut crates: Vec<PathBuf> = workers.collect();
    crates.extend(["common", "common/records", "common/runtime"].map(|folder| project().join(folder)));
    crates.sort();
    let mut found = Vec::new();
    for folder in crates {
        let known = folder.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        let of_crate = Crate::read(&folder.join("src"));
        assert!(!of_crate.0.is_empty());
        found.extend(of_crate.cycles().into_iter().map(|cycle| format!("{known}:\n{cycle}")));
    }
    found.retain(|cycle| !KNOWN.iter().any(|known| cycle.starts_with(&format!("{known}:"))));
    assert!(found.is_empty(), "import cycles:\n{}", found.join("\n\n"));
}
