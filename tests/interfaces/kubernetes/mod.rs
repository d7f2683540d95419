//! Checks the Helm chart (`deploy/helm/wildrydes`) without a cluster: what it renders, and which values it refuses.
//!
//! Helm and the schemas of Kubernetes are tools that `tests/charts prepare` installs; without them a test prints that it
//! did not run.

mod refused;
mod rendered;
mod schemas;
mod values;

use saphyr::{LoadableYamlNode, Scalar, Yaml};
use serde_json::Value;
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
};

/// Release and namespace of every rendering.
const RELEASE: [&str; 2] = ["rides", "fleet"];

fn project() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn chart() -> PathBuf {
    project().join("deploy/helm/wildrydes")
}

/// Folder of the tools that `tests/charts prepare` installs.
fn tools() -> PathBuf {
    project().join("target/kubernetes")
}

/// The installed versions of helm, in ascending order. Without one, prints that the tests did not run and is empty.
fn helms() -> &'static [Helm] {
    static HELMS: LazyLock<Vec<Helm>> = LazyLock::new(|| {
        let installed = ["helm3", "helm4"].map(|name| tools().join(name)).to_vec();
        let candidates = if installed.iter().all(|file| file.exists()) { installed } else { vec!["helm".into()] };
        let helms: Vec<Helm> = candidates.into_iter().filter_map(Helm::detect).collect();
        let majors: Vec<&str> = helms.iter().map(|helm| helm.version.as_str()).collect();
        match majors.len() {
            0 => pipeline_tests::print_uncaptured("not run: no helm; tests/charts prepare installs both majors"),
            1 => pipeline_tests::print_uncaptured(format_args!(
                "only with {majors:?}: tests/charts prepare installs both majors"
            )),
            _ => {}
        }
        helms
    });
    &HELMS
}

/// One version of helm.
#[derive(Debug)]
struct Helm {
    program: PathBuf,
    version: String,
}

impl Helm {
    fn detect(program: PathBuf) -> Option<Self> {
        let output = Command::new(&program).args(["version", "--short"]).stdin(Stdio::null()).output().ok()?;
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then_some(Self { program, version })
    }

    /// Runs helm on the chart with these files of values, later ones over earlier ones. Returns its standard output, or what it complains about.
    fn run(&self, arguments: &[&str], values: &[&Path]) -> Result<String, String> {
        let mut command = Command::new(&self.program);
        // No configuration of the person who runs the tests, and nothing written to their home.
        command.env_clear().env("HOME", tools()).env("PATH", env::var_os("PATH").unwrap_or_default());
        command.args(arguments).arg(chart()).stdin(Stdio::null());
        for file in values {
            command.arg("--values").arg(file);
        }
        let ended = command.output().expect("helm starts");
        let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
        if ended.status.success() { Ok(out.into_owned()) } else { Err(format!("{out}{err}")) }
    }

    fn template(&self, values: &[&Path]) -> Result<String, String> {
        let [release, namespace] = RELEASE;
        self.run(&["template", release, "--namespace", namespace], values)
    }
}

/// The files of values in `ci/`, which stand for the ways to install the chart.
fn variants() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(chart().join("ci")).expect("the variants").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    assert!(files.len() >= 6, "{files:?}");
    files
}

/// What one helm makes of one variant.
struct Rendered {
    /// Name of the variant.
    name: String,
    text: String,
    resources: Vec<Value>,
}

/// Every variant, rendered by the newest helm; empty without helm.
fn rendered() -> &'static [Rendered] {
    static RENDERED: LazyLock<Vec<Rendered>> = LazyLock::new(|| {
        let Some(helm) = helms().last() else { return Vec::new() };
        let render = |file: PathBuf| {
            let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
            let text = helm.template(&[&file]).unwrap_or_else(|error| panic!("{name}: {error}"));
            let resources = resources(&text);
            Rendered { name, text, resources }
        };
        variants().into_iter().map(render).collect()
    });
    &RENDERED
}

/// The documents of a YAML text, without empty ones.
fn resources(text: &str) -> Vec<Value> {
    let documents = Yaml::load_from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    documents.iter().map(json).filter(|document| !document.is_null()).collect()
}

/// A YAML value as JSON.
fn json(yaml: &Yaml<'_>) -> Value {
    let key = |key: &Yaml<'_>| key.as_str().map_or_else(|| json(key).to_string(), str::to_owned);
    match yaml {
        Yaml::Value(Scalar::Boolean(value)) => (*value).into(),
        Yaml::Value(Scalar::Integer(value)) => (*value).into(),
        Yaml::Value(Scalar::FloatingPoint(value)) => value.into_inner().into(),
        Yaml::Value(Scalar::String(value)) => (**value).into(),
        Yaml::Sequence(items) => items.iter().map(json).collect(),
        Yaml::Mapping(entries) => Value::Object(entries.iter().map(|(name, value)| (key(name), json(value))).collect()),
        Yaml::Tagged(_, value) => json(value),
        _ => Value::Null,
    }
}

/// The items of a list; none if it is missing.
fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// The text of a value.
fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

fn is_kind(kind: &'static str) -> impl Fn(&&Value) -> bool {
    move |resource| resource["kind"] == kind
}
