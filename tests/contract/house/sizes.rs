//! Sizes: lines of code of a file without its tests, and lines of a function.

use super::sources;
use syn::{
    Attribute, ImplItemFn, Item, ItemFn, TraitItemFn,
    spanned::Spanned,
    visit::{self, Visit},
};

/// Maximum number of lines of one source file, its tests left out.
const FILE_LINES_MAX: usize = 600;
/// Maximum number of lines of one function, from its signature to its end.
const FUNCTION_LINES_MAX: usize = 70;
/// Functions that are longer today. Do not add to this list.
const LONG_FUNCTIONS: [&str; 13] = [
    "common/runtime/src/worker/session.rs: run_erased",
    "common/runtime/src/worker/session.rs: session",
    "tests/poison/corpus.rs: poison",
    "tests/security/permissions.rs: attempts_of",
    "tests/security/secrets.rs: print_everything",
    "tests/soak.rs: soak",
    "tests/support/faults/kills.rs: random",
    "workers/merger/src/arrivals/tests.rs: step",
    "workers/trainer/src/breeds.rs: train",
    "workers/trainer/src/report/effects.rs: odds",
    "workers/trainer/src/report/rivals.rs: weather",
    "workers/trainer/src/report/words.rs: weather",
    "workers/trainer/src/select.rs: cross_validate",
];

/// Whether an item exists in tests only.
pub(super) fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let path = attribute.path();
        path.segments.last().is_some_and(|last| last.ident == "test")
            || path.is_ident("cfg")
                && attribute.meta.require_list().is_ok_and(|list| list.tokens.to_string().contains("test"))
    })
}

/// The attributes of an item that can be a test.
pub(super) fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn lines(of: &impl Spanned) -> usize {
    let span = of.span();
    span.end().line - span.start().line + 1
}

/// Collects the lengths of functions that are no tests.
#[derive(Default)]
struct Functions(Vec<(String, usize)>);

impl Visit<'_> for Functions {
    fn visit_item(&mut self, item: &Item) {
        if !is_test(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_fn(&mut self, function: &ItemFn) {
        self.0.push((function.sig.ident.to_string(), lines(&function.sig).max(1) + lines(&function.block) - 1));
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &ImplItemFn) {
        self.0.push((function.sig.ident.to_string(), lines(&function.sig) + lines(&function.block) - 1));
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &TraitItemFn) {
        self.0.push((function.sig.ident.to_string(), lines(function)));
        visit::visit_trait_item_fn(self, function);
    }
}

#[test]
fn files_are_short() {
    for (name, source) in [sources("common"), sources("workers"), sources("tests")].concat() {
        let file = syn::parse_file(&source).unwrap_or_else(|error| panic!("{name}: {error}"));
        let tests: usize = file.items.iter().filter(|item| is_test(attributes(item))).map(lines).sum();
        let count = source.lines().count() - tests;
        assert!(
            count <= FILE_LINES_MAX,
            "{name} has {count} lines without its tests, at most {FILE_LINES_MAX} are fine"
        );
    }
}

#[test]
fn functions_are_short() {
    let mut long = Vec::new();
    for (name, source) in [sources("common"), sources("workers"), sources("tests")].concat() {
        let file = syn::parse_file(&source).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut functions = Functions::default();
        functions.visit_file(&file);
        let these = functions.0.into_iter().filter(|(_, lines)| *lines > FUNCTION_LINES_MAX);
        long.extend(these.map(|(function, lines)| (format!("{name}: {function}"), lines)));
    }
    long.retain(|(function, _)| !LONG_FUNCTIONS.contains(&function.as_str()));
    assert!(long.is_empty(), "functions of more than {FUNCTION_LINES_MAX} lines: {long:#?}");
}
