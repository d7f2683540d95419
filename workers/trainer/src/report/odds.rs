//! Formats odds ratios, with the same limits for the terminal and the report.

/// Maximum plausible odds ratio; its inverse is the minimum. Beyond, the features separate the rides, or a value is absurd.
const FACTOR_MAX: f64 = 1_000.0;

/// Returns whether an odds ratio is plausible: from 1/1000 to 1000.
pub fn is_plausible(odds_ratio: f64) -> bool {
    (1.0 / FACTOR_MAX..=FACTOR_MAX).contains(&odds_ratio)
}

/// `2.085`; `> 1000` or `< 0.001` if it is implausible.
pub fn factor(odds_ratio: f64) -> String {
    if odds_ratio > FACTOR_MAX {
        "> 1000".to_owned()
    } else if odds_ratio < 1.0 / FACTOR_MAX {
        "< 0.001".to_owned()
    } else {
        format!("{odds_ratio:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::factor;

    #[test]
    fn implausible_odds_ratios_are_limits() {
        for (odds_ratio, text) in [
            (2.085, "2.085"),
            (1.0, "1.000"),
            (0.00101, "0.001"),
            (1_000.0, "1000.000"),
            (10_284_821.86, "> 1000"),
            (f64::INFINITY, "> 1000"),
            (1e-9, "< 0.001"),
            (0.0, "< 0.001"),
        ] {
            assert_eq!(factor(odds_ratio), text);
        }
    }
}
