//! Only the crate `records` knows the paths of objects: no other product code builds or parses one.

use super::{
    sizes::{attributes, is_test},
    sources,
};
use proc_macro2::{TokenStream, TokenTree};
use syn::{
    Attribute, Item,
    visit::{self, Visit},
};

/// The first parts of all paths in the store.
const ROOTS: [&str; 16] = [
    "batch-log",
    "batches",
    "cache",
    "control",
    "dataset",
    "dead",
    "idempotency",
    "models",
    "raw",
    "rejected",
    "scored",
    "scratch",
    "served",
    "staging",
    "uploads",
    "weather",
];
/// Methods of the object store's paths. Other types have `parts` as well: it counts for an object's `location`.
const METHODS: [&str; 4] = ["filename", "parts", "prefix_match", "prefix_matches"];

/// Collects what a file says about paths of objects, tests left out.
#[derive(Default)]
struct Paths(Vec<String>);

impl Paths {
    fn of(source: &str) -> Vec<String> {
        let mut found = Self::default();
        found.visit_file(&syn::parse_file(source).expect("Rust"));
        found.0
    }

    fn text(&mut self, text: &str) {
        let is_path = |rest: &str| !rest.is_empty() && !rest.contains(' ');
        if text.split_once('/').is_some_and(|(root, rest)| ROOTS.contains(&root) && is_path(rest)) {
            self.0.push(format!("{text:?}"));
        }
    }

    /// Looks for names that follow one another with `::` between them, and for texts.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut names: Vec<String> = Vec::new();
        for token in tokens {
            match token {
                TokenTree::Ident(name) => names.push(name.to_string()),
                TokenTree::Punct(punct) if punct.as_char() == ':' => continue,
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Literal(literal) => {
                    if let Ok(text) = syn::parse_str::<syn::LitStr>(&literal.to_string()) {
                        self.text(&text.value());
                    }
                    names.clear();
                }
                TokenTree::Punct(_) => names.clear(),
            }
            // A root in a macro: it is put together with something else.
            if let [.., module, root] = names.as_slice()
                && module == "layout"
                && root.chars().all(|c| c.is_ascii_uppercase() || c == '_')
            {
                self.0.push(format!("layout::{root} in a macro"));
            }
        }
    }
}

impl Visit<'_> for Paths {
    fn visit_item(&mut self, item: &Item) {
        if !is_test(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_attribute(&mut self, _: &Attribute) {}

    fn visit_use_path(&mut self, tree: &syn::UsePath) {
        if tree.ident == "object_store" && has_path(&tree.tree) {
            self.0.push("object_store::path".to_owned());
        }
        visit::visit_use_path(self, tree);
    }

    fn visit_path(&mut self, path: &syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if names.windows(2).any(|names| names == ["object_store", "path"]) {
            self.0.push("object_store::path".to_owned());
        }
        visit::visit_path(self, path);
    }

    fn visit_expr_method_call(&mut self, call: &syn::ExprMethodCall) {
        let of_location = matches!(&*call.receiver, syn::Expr::Field(field)
            if matches!(&field.member, syn::Member::Named(name) if name == "location"));
        if METHODS.iter().any(|method| call.method == method) && (call.method != "parts" || of_location) {
            self.0.push(format!(".{}()", call.method));
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_lit_str(&mut self, text: &syn::LitStr) {
        self.text(&text.value());
    }

    fn visit_macro(&mut self, called: &syn::Macro) {
        self.tokens(called.tokens.clone());
    }
}

/// Returns whether a `use` tree leads into a module `path`.
fn has_path(tree: &syn::UseTree) -> bool {
    match tree {
        syn::UseTree::Path(tree) => tree.ident == "path",
        syn::UseTree::Name(name) => name.ident == "path",
        syn::UseTree::Rename(rename) => rename.ident == "path",
        syn::UseTree::Group(group) => group.items.iter().any(has_path),
        syn::UseTree::Glob(_) => false,
    }
}

#[test]
fn paths_are_found_in_code_and_not_in_tests_and_comments() {
    for source in [
        "use object_store::{ObjectStore, path::Path};",
        "fn f(p: &object_store::path::Path) {}",
        "fn f(p: &P) -> Option<&str> { p.filename() }",
        "fn f(object: &Meta) -> usize { object.location.parts().count() }",
        r#"fn f() { read("models/m/champion.json") }"#,
        r#"fn f(id: &str) { read(&format!("dataset/{id}/manifest.json")) }"#,
        r#"fn f(id: &str) { read(&format!("{}/{id}", layout::STAGING)) }"#,
    ] {
        assert_eq!(Paths::of(source).len(), 1, "{source}");
    }
    for source in [
        "/// `models/m/champion.json`\nfn f() { list(layout::STAGING) }",
        r#"#[cfg(test)] mod tests { const PATH: &str = "models/m/champion.json"; }"#,
        r#"fn f() { println!("below dead/ and raw/: {}", layout::dropped(a, b)) }"#,
        r#"fn f() { route("/v1/models/{model}") }"#,
        "fn f(column: &Column) -> usize { column.path().parts().len() }",
    ] {
        assert_eq!(Paths::of(source), [""; 0], "{source}");
    }
}

#[test]
fn only_records_know_the_paths_of_objects() {
    let mut found = Vec::new();
    for (file, source) in [sources("common"), sources("workers")].concat() {
        let is_product = file.contains("/src/") && !file.contains("/tests/") && !file.ends_with("/tests.rs");
        if is_product && !file.starts_with("common/records/") {
            found.extend(Paths::of(&source).into_iter().map(|path| format!("{file}: {path}")));
        }
    }
    assert!(found.is_empty(), "code outside records that builds or parses paths of objects: {found:#?}");
}
