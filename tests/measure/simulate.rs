//! Runs any number of seeds of the simulation, and prints what went wrong.

use clap::Parser;
use indicatif::ProgressBar;
use pipeline_tests::simulation::{Options, Outcome, Sabotage, first_broken};
use std::{
    collections::BTreeMap,
    process::ExitCode,
    sync::{Mutex, PoisonError},
    time::Instant,
};

/// Runs the fleet in a simulated world, once per seed, and checks its promises.
#[derive(Debug, Parser)]
#[command(after_help = "\
Examples:
  simulate --seeds 10000                    ten thousand seeds, on every core
  simulate --from 4711 --seeds 1 --trace    one seed, with everything that happened
  simulate --seeds 1000 --sabotage all      each promise broken on purpose: after how many seeds is it noticed?

Ends with 0 when every promise was kept (or every sabotage noticed), else with 1.")]
struct Arguments {
    /// Number of seeds
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// First seed
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Print the whole trace of every seed
    #[arg(long)]
    trace: bool,
    /// Break a promise on purpose, by name, or `all` in turn; stops at the first seed that detects it
    #[arg(long, value_name = "NAME")]
    sabotage: Option<String>,
    /// Number of lines to print from the end of a failing seed's trace
    #[arg(long, default_value_t = 60)]
    lines: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let sabotages: Vec<Option<Sabotage>> = match arguments.sabotage.as_deref() {
        None => vec![None],
        Some("all") => Sabotage::ALL.into_iter().map(Some).collect(),
        Some(name) => match Sabotage::ALL.into_iter().find(|sabotage| sabotage.to_string() == name) {
            Some(sabotage) => vec![Some(sabotage)],
            None => {
                let names: Vec<_> = Sabotage::ALL.iter().map(ToString::to_string).collect();
                eprintln!("error: there is no sabotage {name}; there are {}", names.join(", "));
                return ExitCode::from(2);
            }
        },
    };
    let mut well = true;
    for sabotage in sabotages {
        let broken = run(&arguments, sabotage);
        well &= broken.is_some() == sabotage.is_some();
        if let Some(outcome) = &broken
            && sabotage.is_none()
        {
            println!("\n{}", outcome.report(arguments.lines));
        }
    }
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs the seeds. Returns the outcome of the lowest seed that broke a promise.
fn run(arguments: &Arguments, sabotage: Option<Sabotage>) -> Option<Outcome> {
    let started = Instant::now();
    let totals: Mutex<(u64, u64, f64, BTreeMap<String, u64>)> = Mutex::default();
    let seeds = arguments.from..arguments.from.saturating_add(arguments.seeds);
    // Shown on a terminal only.
    let progress = ProgressBar::new(arguments.seeds);
    let broken = first_broken(seeds, Options { sabotage }, |outcome| {
        progress.inc(1);
        let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
        if arguments.trace {
            println!("seed {}\n{}", outcome.seed, outcome.trace.join("\n"));
        }
        totals.0 += 1;
        totals.1 += outcome.trace.len() as u64;
        totals.2 += outcome.took.as_secs_f64() / 3_600.0;
        for (fault, count) in &outcome.faults {
            *totals.3.entry(fault.to_string()).or_default() += count;
        }
    });
    progress.finish_and_clear();
    let (seeds, steps, hours, faults) = totals.into_inner().unwrap_or_else(PoisonError::into_inner);
    match (sabotage, &broken) {
        (None, _) => {
            let faults: Vec<_> = faults.iter().map(|(fault, count)| format!("{fault} {count}")).collect();
            println!(
                "{seeds} seeds in {:.1} s: {steps} steps in {hours:.0} simulated hours\nfaults: {}",
                started.elapsed().as_secs_f64(),
                faults.join(", ")
            );
        }
        (Some(sabotage), Some(outcome)) => {
            let broken = outcome.broken.first().map(String::as_str).unwrap_or_default();
            println!("{sabotage:<24} noticed at seed {:<5} promise {broken}", outcome.seed);
        }
        (Some(sabotage), None) => println!("{sabotage:<24} NOT noticed in {seeds} seeds"),
    }
    broken
}
