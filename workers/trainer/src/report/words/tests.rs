use super::{
    effects::{Effect, effect},
    evidence::{Judgement, judge},
    quality::chance_of_gaps,
    *,
};
use crate::report::tests::trained;
use common::{
    document::Verdict,
    features::FeatureSet,
    model::{CalibrationBin, Confusion, Criterion, Interval, Model, TrainingSettings},
};

fn around(value: f64, half: f64) -> Interval {
    Interval { value, lower: value - half, upper: value + half }
}

/// Every combination of a test on the rides trained on and a comparison on held-out rides gives its judgement.
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
        (Some(1e-9), Some(open), Unseen),
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

/// One model with different evidence for its features and for the weather.
#[test]
fn findings_follow_the_evidence() {
    let mut model = trained(2_000, 0.8, 1.0, TrainingSettings::default());
    let answers = |model: &Model| [signal(model), weather(model)].map(|finding| (finding.tone, finding.short));
    assert_eq!(answers(&model), [(Tone::Good, "Yes.".to_owned()), (Tone::Good, "It helps clearly.".to_owned())]);
    let held_out = model.evidence.as_mut().unwrap().held_out.as_mut().unwrap();
    held_out.over_base_rate.log_loss = around(0.002, 0.001);
    held_out.over_mileage.as_mut().unwrap().log_loss = around(0.002, 0.001);
    assert_eq!(answers(&model).map(|(_, short)| short), ["Yes, but very little.", "It helps a little."]);
    assert!(signal(&model).long.contains("95 % interval 0.0010 to 0.0030"), "{}", signal(&model).long);

    // The held-out rides are of one class, or there are none: the findings are about the rides trained on and say so.
    model.evidence.as_mut().unwrap().held_out = None;
    let test = model.test.as_mut().unwrap();
    test.confusion = Confusion { true_negative: test.rides, ..Confusion::default() };
    assert_eq!(
        answers(&model).map(|(_, short)| short),
        ["Yes, for the rides trained on.", "Yes, for the rides trained on."]
    );
    assert!(signal(&model).long.contains("None of the 400 rides held out ended"), "{}", signal(&model).long);
    model.test = None;
    assert!(signal(&model).long.contains("No ride was held out."));

    // No unpenalised model, as when the features separate the rides.
    let evidence = model.evidence.as_mut().unwrap();
    (evidence.any, evidence.weather) = (None, None);
    assert_eq!(answers(&model).map(|(_, short)| short), ["Cannot be determined.", "Cannot be determined."]);
    model.evidence = None;
    assert_eq!(answers(&model).map(|(tone, _)| tone), [Tone::Unknown, Tone::Unknown]);
    model.settings.features = FeatureSet::Mileage;
    assert_eq!(weather(&model).short, "Not tested.");
}

/// Probabilities count as off only if chance does not explain it; few rides give no answer.
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
    assert_eq!(set(1_000, 0.01), (Tone::Good, "Yes, by the evidence there is.".to_owned()));
    assert_eq!(set(1_000_000, 0.01), (Tone::Weak, "Nearly.".to_owned()));
    assert_eq!(set(1_000_000, -0.1), (Tone::Bad, "No.".to_owned()));
    assert_eq!(set(80, 0.1), (Tone::Unknown, "Too few rides.".to_owned()));
}

/// By hand: two bins of 100 rides, 20 and 60 expected, 26 and 60 observed: (6² / 16) + 0 = 2.25 with 2 degrees of freedom.
#[test]
fn gaps_are_tested_with_pearsons_chi_square() {
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

#[test]
fn decisions_are_compared_with_a_constant_decision() {
    let mut model = trained(2_000, 0.8, 1.0, TrainingSettings::default());
    let mut decide = |[true_negative, false_positive, false_negative, true_positive]: [u64; 4], criterion| {
        model.settings.threshold = criterion;
        let test = model.test.as_mut().unwrap();
        test.rides = true_negative + false_positive + false_negative + true_positive;
        test.confusion = Confusion { true_negative, false_positive, false_negative, true_positive };
        decisions(&model).short
    };
    assert_eq!(decide([600, 100, 100, 200], Criterion::Accuracy), "More often right than a constant decision.");
    assert_eq!(decide([600, 100, 190, 110], Criterion::Accuracy), "Hardly more often right than a constant decision.");
    assert_eq!(decide([430, 270, 50, 250], Criterion::F1), "Hardly more often right than a constant decision.");
    assert_eq!(decide([300, 400, 50, 250], Criterion::F1), "Less often right than a constant decision.");
    assert_eq!(decide([700, 0, 300, 0], Criterion::Accuracy), "It always decides the same.");
    assert_eq!(decide([0, 700, 0, 300], Criterion::Accuracy), "It always decides the same.");
    assert_eq!(decide([700, 300, 0, 0], Criterion::Accuracy), "Cannot be determined.");
    let missed_is_dear = Criterion::Cost { false_positive: 1.0, false_negative: 10.0 };
    assert_eq!(decide([300, 400, 10, 290], missed_is_dear), "They save costs.");
    assert_eq!(decide([600, 100, 100, 200], missed_is_dear), "They save no costs.");
}

#[test]
fn the_ranking_is_judged_by_its_interval() {
    let mut model = trained(2_000, 0.8, 1.0, TrainingSettings::default());
    let mut rank = |area: Interval| {
        model.evidence.as_mut().unwrap().held_out.as_mut().unwrap().model.roc_auc = area;
        ranking(&model).short
    };
    assert_eq!(rank(around(0.52, 0.03)), "Not visibly better than guessing.");
    assert_eq!(rank(around(0.56, 0.01)), "Barely.");
    assert_eq!(rank(around(0.76, 0.02)), "Fairly well.");
    assert_eq!(rank(around(f64::NAN, 0.0)), "Cannot be determined.");
    model.evidence = None;
    model.test.as_mut().unwrap().roc_auc = None;
    assert_eq!(ranking(&model).short, "Cannot be determined.");
}

/// The effect of a feature comes with its interval; an effect that chance explains is no evidence.
#[test]
fn effects_have_intervals() {
    let mut model = trained(4_000, 0.8, 1.0, TrainingSettings::default());
    let (caution, effects_in_words) = effects(&model);
    assert_eq!(caution, None);
    let of = |words: &str| effects_in_words.iter().find(|(_, effect)| effect.starts_with(words)).unwrap();
    let (of_mile, mile) = of("each mile farther");
    assert_eq!(*of_mile, Effect::Clear);
    assert!(mile.starts_with("each mile farther multiplies the odds by 2.") && mile.ends_with(')'), "{mile}");
    assert!(of("each 10 health points more").1.ends_with("no evidence of a difference"));

    let distance = &mut model.coefficients[0];
    distance.standardised = 0.01;
    assert_eq!(effect(distance), Effect::Slight);
    distance.inference.as_mut().unwrap().p_value = 0.02;
    assert_eq!(effect(distance), Effect::Hint);
    distance.inference = None;
    assert_eq!(effect(distance), Effect::Unknown);
    model.evidence.as_mut().unwrap().any.as_mut().unwrap().p_value = 0.4;
    assert!(effects(&model).0.is_some());
}

/// A verdict comes with its reason; the promotion of a first model is no praise.
#[test]
fn verdicts_have_reasons() {
    let in_words = |promoted, reason: &str, why: &str| {
        let finding = verdict(Some(&Verdict {
            promoted,
            reason: reason.to_owned(),
            why: why.to_owned(),
            comparison: None,
            rule: None,
        }));
        format!("{} {}", finding.short, finding.long)
    };
    assert!(in_words(true, "first", "the first model").contains("compared with none"));
    assert_eq!(in_words(false, "no_evidence", "no evidence that x."), "No: the champion stays. No evidence that x.");
    assert!(
        in_words(false, "worse_than_champion", "0.6 against 0.5").contains("worse than the champion: 0.6 against 0.5.")
    );
    assert!(in_words(false, "by_hand_only", "").contains("only a person"));
    assert_eq!(verdict(None).tone, Tone::Unknown);
}

#[test]
fn a_threshold_has_its_criterion() {
    let criterion = Criterion::PrecisionAtRecall { recall_min: 0.8 };
    let mut model = trained(2_000, 0.8, 1.0, TrainingSettings { threshold: criterion, ..TrainingSettings::default() });
    assert!(threshold(&model).contains("a recall of at least 80.0"), "{}", threshold(&model));
    model.selection.as_mut().unwrap().threshold.reached = false;
    assert!(threshold(&model).ends_with("this one comes nearest."));
    model.settings.threshold = Criterion::Fixed { probability: 0.5 };
    assert!(threshold(&model).contains("the settings give it"));
}
