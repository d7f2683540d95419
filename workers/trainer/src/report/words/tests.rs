use super::{super::tests::trained, *};
use crate::promote::Verdict;
use common::model::{CalibrationBin, Confusion, Criterion, TrainingSettings};

fn around(value: f64, half: f64) -> Interval {
    Interval { value, lower: value - half, upper: value + half }
}

/// Every combination of a test where it was trained and a comparison where it was not, with what may be said of it.
#[test]
fn a_gain_is_judged_by_both_kinds_of_evidence() {
    use Judgement::*;
    let (clear, slight, open, worse) =
        (around(0.06, 0.01), around(0.001, 0.0005), around(0.001, 0.01), around(-0.02, 0.01));
    for (p, gain, expected) in [
        (None, None, Untested),
        (None, Some(clear), Clear),
        (None, Some(open), NoEvidence),
        (None, Some(worse), Worse),
        (Some(0.0), Some(clear), Clear),
        // A tiny effect among very many rides.
        (Some(1e-200), Some(slight), Slight),
        (Some(1e-9), Some(open), NotSeen),
        (Some(1e-9), Some(worse), Worse),
        (Some(1e-9), None, Unconfirmed),
        (Some(0.000_999), Some(clear), Clear),
        (Some(0.001), Some(open), Hint),
        (Some(0.049), None, Hint),
        (Some(0.05), Some(open), NoEvidence),
        (Some(0.62), None, NoEvidence),
        (Some(0.62), Some(worse), Worse),
        (Some(0.62), Some(clear), Contradiction),
        (Some(f64::NAN), Some(around(f64::NAN, 1.0)), Untested),
    ] {
        assert_eq!(judge(p, gain.as_ref(), 0.6), expected, "{p:?} {gain:?}");
    }
}

/// The same model with other evidence: what it says of its features and of the weather.
#[test]
fn signal_and_weather_are_told_as_they_are() {
    let mut model = trained(2_000, 0.8, 1.0, TrainingSettings::default());
    let told = |model: &Model| [signal(model), weather(model)].map(|finding| (finding.tone, finding.short));
    assert_eq!(told(&model), [(Tone::Good, "Yes.".to_owned()), (Tone::Good, "It helps clearly.".to_owned())]);
    let held_out = model.evidence.as_mut().unwrap().held_out.as_mut().unwrap();
    held_out.over_base_rate.log_loss = around(0.002, 0.001);
    held_out.over_mileage.as_mut().unwrap().log_loss = around(0.002, 0.001);
    assert_eq!(told(&model).map(|(_, short)| short), ["Yes, but very little.", "It helps a little."]);
    assert!(signal(&model).long.contains("95 % interval 0.0010 to 0.0030"), "{}", signal(&model).long);

    // The test split has one class, or there is none: what is said is of the rides trained on, and says so.
    model.evidence.as_mut().unwrap().held_out = None;
    let test = model.test.as_mut().unwrap();
    test.confusion = Confusion { true_negative: test.rides, ..Confusion::default() };
    assert_eq!(told(&model).map(|(_, short)| short), ["Yes, where it was trained.", "Yes, where it was trained."]);
    assert!(signal(&model).long.contains("None of the 400 rides held out ended"), "{}", signal(&model).long);
    model.test = None;
    assert!(signal(&model).long.contains("No ride was held out."));

    // No unpenalised model, as when the features separate the rides.
    let evidence = model.evidence.as_mut().unwrap();
    (evidence.any, evidence.weather) = (None, None);
    assert_eq!(told(&model).map(|(_, short)| short), ["Cannot be told.", "Cannot be told."]);
    model.evidence = None;
    assert_eq!(told(&model).map(|(tone, _)| tone), [Tone::Unknown, Tone::Unknown]);
    model.settings.features = FeatureSet::Mileage;
    assert_eq!(weather(&model).short, "Not asked.");
}

/// Probabilities that are off by more than chance are called so, others not, and few rides tell nothing.
#[test]
fn calibration_is_measured_against_chance() {
    let mut model = trained(2_000, 0.8, 1.0, TrainingSettings::default());
    assert_eq!(calibration(&model).tone, Tone::Good, "{:?}", calibration(&model));
    let mut set = |rides: u64, gap: f64| {
        let bin = |n: u32| {
            let from = f64::from(n) / 10.0;
            CalibrationBin {
                from,
                to: from + 0.1,
                rides: rides / 8,
                mean_probability: from + 0.05,
                service_share: from + 0.05 + gap,
            }
        };
        let test = model.test.as_mut().unwrap();
        (test.rides, test.calibration_error) = (rides, Some(gap.abs()));
        test.calibration = (1..9).map(bin).collect();
        let finding = calibration(&model);
        (finding.tone, finding.short)
    };
    assert_eq!(set(1_000, 0.01), (Tone::Good, "Yes, as far as can be told.".to_owned()));
    assert_eq!(set(1_000_000, 0.01), (Tone::Weak, "Nearly.".to_owned()));
    assert_eq!(set(1_000_000, -0.1), (Tone::Bad, "No.".to_owned()));
    assert_eq!(set(80, 0.1), (Tone::Unknown, "Too few rides to tell.".to_owned()));
}

/// By hand: two bins of 100 rides, 20 and 60 expected, 26 and 60 seen: (6² / 16) + 0 = 2.25 with 2 degrees of freedom.
#[test]
fn gaps_are_weighed_as_pearson_did() {
    let mut metrics = trained(600, 0.8, 1.0, TrainingSettings::default()).train;
    let bin = |from: f64, mean_probability, service_share| CalibrationBin {
        from,
        to: from + 0.1,
        rides: 100,
        mean_probability,
        service_share,
    };
    metrics.calibration = vec![bin(0.2, 0.2, 0.26), bin(0.6, 0.6, 0.6)];
    assert!((chance_of_gaps(&metrics).unwrap() - (-2.25f64 / 2.0).exp()).abs() < 1e-9);
    metrics.calibration = vec![CalibrationBin { rides: 3, ..bin(0.2, 0.2, 0.3) }];
    assert_eq!(chance_of_gaps(&metrics), None);
}

/// Decisions are worth what they are better than always deciding the same.
#[test]
fn decisions_are_measured_against_always_the_same() {
    let mut model = trained(2_000, 0.8, 1.0, TrainingSettings::default());
    let mut told = |[true_negative, false_positive, false_negative, true_positive]: [u64; 4], criterion| {
        model.settings.threshold = criterion;
        let test = model.test.as_mut().unwrap();
        test.rides = true_negative + false_positive + false_negative + true_positive;
        test.confusion = Confusion { true_negative, false_positive, false_negative, true_positive };
        decisions(&model).short
    };
    assert_eq!(told([600, 100, 100, 200], Criterion::Accuracy), "More often right than always the same.");
    assert_eq!(told([600, 100, 190, 110], Criterion::Accuracy), "Hardly more often right than always the same.");
    assert_eq!(told([430, 270, 50, 250], Criterion::F1), "Hardly more often right than always the same.");
    assert_eq!(told([300, 400, 50, 250], Criterion::F1), "Less often right than always the same.");
    assert_eq!(told([700, 0, 300, 0], Criterion::Accuracy), "It always says the same.");
    assert_eq!(told([0, 700, 0, 300], Criterion::Accuracy), "It always says the same.");
    assert_eq!(told([700, 300, 0, 0], Criterion::Accuracy), "Cannot be told.");
    let missed_is_dear = Criterion::Cost { false_positive: 1.0, false_negative: 10.0 };
    assert_eq!(told([300, 400, 10, 290], missed_is_dear), "They save something.");
    assert_eq!(told([600, 100, 100, 200], missed_is_dear), "They save nothing.");
}

/// The order of rides is told as good as it is, and as sure.
#[test]
fn ranking_is_no_better_than_its_interval() {
    let mut model = trained(2_000, 0.8, 1.0, TrainingSettings::default());
    let mut told = |area: Interval| {
        model.evidence.as_mut().unwrap().held_out.as_mut().unwrap().model.roc_auc = area;
        ranking(&model).short
    };
    assert_eq!(told(around(0.52, 0.03)), "Not better than guessing, as far as seen.");
    assert_eq!(told(around(0.56, 0.01)), "Barely.");
    assert_eq!(told(around(0.76, 0.02)), "Fairly well.");
    assert_eq!(told(around(f64::NAN, 0.0)), "Cannot be told.");
    model.evidence = None;
    model.test.as_mut().unwrap().roc_auc = None;
    assert_eq!(ranking(&model).short, "Cannot be told.");
}

/// What a feature does is said with its interval, and what chance explains is not said to matter.
#[test]
fn features_are_told_with_their_intervals() {
    let mut model = trained(4_000, 0.8, 1.0, TrainingSettings::default());
    let (doubtful, told) = effects(&model);
    assert_eq!(doubtful, None);
    let of = |words: &str| told.iter().find(|(_, told)| told.starts_with(words)).unwrap();
    let (matters_how, mile) = of("each mile farther");
    assert_eq!(*matters_how, Matters::Clearly);
    assert!(mile.starts_with("each mile farther multiplies the odds by 2.") && mile.ends_with(')'), "{mile}");
    assert!(of("each 10 health points more").1.ends_with("no evidence of a difference"));

    let distance = &mut model.coefficients[0];
    distance.standardised = 0.01;
    assert_eq!(matters(distance), Matters::Slightly);
    distance.inference.as_mut().unwrap().p_value = 0.02;
    assert_eq!(matters(distance), Matters::Perhaps);
    distance.inference = None;
    assert_eq!(matters(distance), Matters::Unknown);
    model.evidence.as_mut().unwrap().any.as_mut().unwrap().p_value = 0.4;
    assert!(effects(&model).0.is_some());
}

/// A promotion is told with its reason, and that of a first model is no praise.
#[test]
fn verdicts_are_told_with_their_reasons() {
    let told = |promoted, reason: &str, why: &str| {
        let finding = verdict(Some(&Verdict {
            promoted,
            reason: reason.to_owned(),
            why: why.to_owned(),
            comparison: None,
            rule: None,
        }));
        format!("{} {}", finding.short, finding.long)
    };
    assert!(told(true, "first", "the first model").contains("compared with none"));
    assert_eq!(told(false, "no_evidence", "no evidence that x."), "No: the champion stays. No evidence that x.");
    assert!(
        told(false, "worse_than_champion", "0.6 against 0.5").contains("worse than the champion: 0.6 against 0.5.")
    );
    assert!(told(false, "by_hand_only", "").contains("by hand"));
    assert_eq!(verdict(None).tone, Tone::Unknown);
}

/// How the threshold was chosen, and whether it could be.
#[test]
fn thresholds_are_told_with_their_criterion() {
    let criterion = Criterion::PrecisionAtRecall { recall_min: 0.8 };
    let mut model = trained(2_000, 0.8, 1.0, TrainingSettings { threshold: criterion, ..TrainingSettings::default() });
    assert!(threshold(&model).contains("a recall of at least 80.0"), "{}", threshold(&model));
    model.selection.as_mut().unwrap().threshold.reached = false;
    assert!(threshold(&model).ends_with("this one comes nearest."));
    model.settings.threshold = Criterion::Fixed { probability: 0.5 };
    assert!(threshold(&model).contains("given in the settings"));
}
