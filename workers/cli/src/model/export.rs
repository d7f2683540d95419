//! `model export`: writes a version in a format that works without this software.

use super::versions::resolve;
use crate::{
    arguments::{Family, ModelFormat},
    output::refuse_to_replace,
    session::{Failed, Session},
};
use anyhow::Context;
use common::model::Model;
use std::{fmt::Write, path::Path};

/// `export`
pub(super) async fn export(
    session: &Session,
    version: &str,
    format: ModelFormat,
    (out, force): (Option<&Path>, bool),
    family: &Family,
) -> Result<(), Failed> {
    let store = session.existing_store()?;
    let (_, model) = resolve(&store, family, version).await?;
    let text = formatted(&model, format)?;
    match out {
        None => print!("{text}"),
        Some(file) => {
            refuse_to_replace(file, force)?;
            std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
            eprintln!("{} of {} as {}", file.display(), model.model_id, name_of(format));
        }
    }
    Ok(())
}

fn name_of(format: ModelFormat) -> &'static str {
    match format {
        ModelFormat::Formula => "formula",
        ModelFormat::Json => "JSON",
        ModelFormat::Python => "Python",
        ModelFormat::Sql => "SQL",
        ModelFormat::Pmml => "PMML",
    }
}

/// Returns the model in this format, with a line end.
fn formatted(model: &Model, format: ModelFormat) -> Result<String, Failed> {
    let mut text = String::new();
    match format {
        ModelFormat::Json => text = serde_json::to_string_pretty(model)? + "\n",
        ModelFormat::Formula => formula(&mut text, model)?,
        ModelFormat::Python => python(&mut text, model)?,
        ModelFormat::Sql => sql(&mut text, model)?,
        ModelFormat::Pmml => pmml(&mut text, model)?,
    }
    Ok(text)
}

fn formula(text: &mut String, model: &Model) -> std::fmt::Result {
    let Model { model: family, model_id, intercept, threshold, .. } = model;
    writeln!(text, "Model {family} {model_id}\n\nz = {intercept:?}")?;
    for c in &model.coefficients {
        writeln!(text, "  {} {:?} · {:<14} in units of one {}", sign(c.per_unit), c.per_unit.abs(), c.feature, c.unit)?;
    }
    writeln!(text, "\nprobability of a service request = 1 / (1 + exp(-z))")?;
    writeln!(text, "service is predicted from a probability of {threshold:?} on")?;
    writeln!(text, "\ntmin, tmax and prcp are in tenths, as in NOAA's files: 25.4 °C is 254, 1 mm of rain is 10.")
}

fn sign(number: f64) -> char {
    if number < 0.0 { '-' } else { '+' }
}

fn python(text: &mut String, model: &Model) -> std::fmt::Result {
    let arguments: Vec<&str> = model.coefficients.iter().map(|c| c.feature.as_str()).collect();
    writeln!(
        text,
        "\"\"\"Model {} {}: probability that a ride ends in a service request.\"\"\"",
        model.model, model.model_id
    )?;
    writeln!(text, "from math import exp\n\nMODEL_ID = \"{}\"\nTHRESHOLD = {:?}\n\n", model.model_id, model.threshold)?;
    writeln!(text, "def probability({}):", arguments.join(", "))?;
    let units: Vec<String> = model.coefficients.iter().map(|c| format!("{} [{}]", c.feature, c.unit)).collect();
    writeln!(
        text,
        "    \"\"\"Return the probability of a service request, 0 to 1. Units: {}.\"\"\"",
        units.join(", ")
    )?;
    let terms: Vec<String> = model.coefficients.iter().map(|c| format!("{:?} * {}", c.per_unit, c.feature)).collect();
    let sum = if terms.is_empty() { "0.0".to_owned() } else { terms.join(" + ") };
    writeln!(text, "    z = {:?} + ({sum})", model.intercept)?;
    writeln!(text, "    if z >= 0:\n        return 1 / (1 + exp(-z))\n    return exp(z) / (1 + exp(z))\n\n")?;
    writeln!(text, "def service({}):", arguments.join(", "))?;
    writeln!(text, "    \"\"\"Return whether service is predicted.\"\"\"")?;
    writeln!(text, "    return probability({}) >= THRESHOLD", arguments.join(", "))
}

fn sql(text: &mut String, model: &Model) -> std::fmt::Result {
    writeln!(
        text,
        "-- Model {} {}: probability of a service request, over the columns of the dataset",
        model.model, model.model_id
    )?;
    write!(text, "1.0 / (1.0 + EXP(-({:?}", model.intercept)?;
    for c in &model.coefficients {
        write!(text, " {} {:?} * {}", sign(c.per_unit), c.per_unit.abs(), c.feature)?;
    }
    writeln!(text, ")))")
}

/// Writes PMML's RegressionModel with the logit link: <https://dmg.org/pmml/v4-4-1/Regression.html>.
fn pmml(text: &mut String, model: &Model) -> std::fmt::Result {
    let escaped = |name: &str| name.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
    let features = || model.coefficients.iter().map(|c| (escaped(&c.feature), c));
    writeln!(text, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>")?;
    writeln!(text, "<PMML xmlns=\"http://www.dmg.org/PMML-4_4\" version=\"4.4\">")?;
    let description = format!("{} {}", escaped(&model.model), escaped(&model.model_id));
    writeln!(
        text,
        "  <Header description=\"{description}\"><Application name=\"wildrydes\" version=\"{}\"/></Header>",
        escaped(&model.trainer)
    )?;
    writeln!(text, "  <DataDictionary numberOfFields=\"{}\">", model.coefficients.len() + 1)?;
    for (name, _) in features() {
        writeln!(text, "    <DataField name=\"{name}\" optype=\"continuous\" dataType=\"double\"/>")?;
    }
    writeln!(
        text,
        "    <DataField name=\"fieldservice\" optype=\"categorical\" dataType=\"string\"><Value value=\"1\"/><Value value=\"0\"/></DataField>"
    )?;
    writeln!(text, "  </DataDictionary>")?;
    writeln!(
        text,
        "  <RegressionModel modelName=\"{description}\" functionName=\"classification\" normalizationMethod=\"logit\">"
    )?;
    writeln!(text, "    <MiningSchema>")?;
    for (name, _) in features() {
        writeln!(text, "      <MiningField name=\"{name}\"/>")?;
    }
    writeln!(text, "      <MiningField name=\"fieldservice\" usageType=\"target\"/>\n    </MiningSchema>")?;
    writeln!(
        text,
        "    <Output>\n      <OutputField name=\"probability\" optype=\"continuous\" dataType=\"double\" feature=\"probability\" value=\"1\"/>\n    </Output>"
    )?;
    writeln!(text, "    <RegressionTable intercept=\"{:?}\" targetCategory=\"1\">", model.intercept)?;
    for (name, c) in features() {
        writeln!(text, "      <NumericPredictor name=\"{name}\" coefficient=\"{:?}\"/>", c.per_unit)?;
    }
    writeln!(text, "    </RegressionTable>\n    <RegressionTable intercept=\"0.0\" targetCategory=\"0\"/>")?;
    writeln!(text, "  </RegressionModel>\n</PMML>")
}
