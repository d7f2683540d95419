use super::*;
use crate::{
    artefact,
    data::{
        Plan, TrainingData,
        rows::{NO_BREED, Rides},
    },
    fit::{Cancel, padded},
};
use common::document::{BreedSummary, BreedsHeldOut, Comparison, Coverage, Metric};
use common::model::{
    BrierDecomposition, CalibrationBin, Candidate, Coefficient, Confusion, Criterion, Evidence, Gain, HeldOut,
    Histogram, Inference, Interval, LikelihoodRatio, Metrics, Quality, RocPoint, Selection, ThresholdChoice, TrainedOn,
    TrainingCounts, TrainingSettings, Warning, WarningCode, logistic,
};
use common::ride::Counts;
use proptest::{collection::vec, option, prelude::*, sample::select};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// Trains a model on generated rides in which a mile and the weather have these effects.
pub(crate) fn trained(rides: usize, mile: f64, weather: f64, settings: TrainingSettings) -> Model {
    let mut random = Pcg64Mcg::seed_from_u64(5);
    let mut uniform = || random.random_range(0.0..1.0f64);
    let (mut train, mut test) = (Rides::default(), Rides::default());
    for i in 0..rides {
        let (distance, warm, rain) =
            (28.0 + 4.0 * uniform(), 400.0 * uniform() - 100.0, (300.0 * uniform() - 150.0).max(0.0));
        let features =
            [distance, 200.0 + 200.0 * uniform(), 200.0 + 200.0 * uniform(), warm, warm + 200.0 * uniform(), rain];
        let log_odds = mile * (distance - 30.0) + weather * (rain - 50.0) / 100.0 - 0.5;
        let service = uniform() < logistic(log_odds);
        if i % 5 == 4 { &mut test } else { &mut train }.push(padded(&features), service, (i % 251) as u8, NO_BREED);
    }
    let counts = TrainingCounts {
        rides: rides as u64,
        train: train.len() as u64,
        train_service: train.services() as u64,
        test: test.len() as u64,
        test_service: test.services() as u64,
        ..TrainingCounts::default()
    };
    let datasets =
        vec![TrainedOn { batch_id: "0123456789abcdef".to_owned(), manifest_sha256: "5".repeat(64), revision: None }];
    let (model, model_id) = ("service-request".to_owned(), "00112233445566aa".to_owned());
    let plan = Plan { model, model_id, settings, manifests: Vec::new(), datasets };
    let data = TrainingData { train, test, counts, ..TrainingData::default() };
    artefact::build(&plan, &data, &Cancel::default()).unwrap().model
}

fn page_of(model: &Model) -> String {
    Page { model, data: &DataSummary::default(), breeds: None, verdict: None, delayed_labels: &[] }.html()
}

/// Returns a page without its style sheet.
fn without_style(html: &str) -> String {
    let (head, rest) = html.split_once("<style>").unwrap();
    format!("{head}{}", rest.split_once("</style>").unwrap().1)
}

/// Returns whether a text contains a number that is not finite, as Rust prints it.
fn has_non_finite(text: &str) -> bool {
    text.split(|c: char| !c.is_alphabetic())
        .any(|word| ["nan", "inf", "infinity"].contains(&word.to_lowercase().as_str()))
}

/// Checks that each chart is well-formed XML within its frame and has a label, that all numbers are finite, and that the page loads
/// nothing.
fn check(html: &str) {
    let page = without_style(html);
    let mut rest = page.as_str();
    while let Some(start) = rest.find("<svg") {
        let end = rest[start..].find("</svg>").unwrap() + start + "</svg>".len();
        let svg = &rest[start..end];
        let document = roxmltree::Document::parse(svg).unwrap_or_else(|error| panic!("{error}: {svg}"));
        let root = document.root_element();
        assert_eq!(root.attribute("role"), Some("img"));
        assert!(root.attribute("aria-label").is_some_and(|label| label.len() > 10));
        let view: Vec<f64> = root.attribute("viewBox").unwrap().split(' ').map(|at| at.parse().unwrap()).collect();
        for node in root.descendants().filter(|node| node.is_element()) {
            for name in ["x", "y", "x1", "y1", "x2", "y2", "cx", "cy", "r", "width", "height", "opacity", "font-size"] {
                let Some(value) = node.attribute(name) else { continue };
                let value: f64 = value.parse().unwrap();
                assert!((0.0..=view[2].max(view[3])).contains(&value), "{name} {value}: {svg}");
            }
            let points = node.attribute("points").unwrap_or_default();
            for coordinate in points.split([',', ' ']).filter(|coordinate| !coordinate.is_empty()) {
                let coordinate: f64 = coordinate.parse().unwrap();
                assert!((0.0..=view[2].max(view[3])).contains(&coordinate), "{coordinate}: {svg}");
            }
        }
        rest = &rest[end..];
    }
    assert!(!has_non_finite(&page), "{page}");
    for outside in ["<script", "src=", "url(", "@import", "href=\"http", "<link"] {
        assert!(!html.contains(outside), "{outside}");
    }
}

/// The page of a trained model has every section and chart, and its summary agrees with the metrics.
#[test]
fn a_page_has_every_section_and_chart() {
    let model = trained(4_000, 0.8, 1.0, TrainingSettings::default());
    let data = DataSummary {
        batches: 1,
        received: 4_010,
        accepted: 4_000,
        rejected_by_reason: [("missing_latitude".to_owned(), 10)].into(),
        without_weather: Counts::new(),
        coverage: vec![Coverage { station: "USW00094728".to_owned(), month: "2018-07".to_owned(), rides: 4_000 }],
    };
    let delayed_labels = [DelayedLabelMetrics { model_id: model.model_id.clone(), metrics: model.train.clone() }];
    let gain = Interval { value: 0.01, lower: 0.002, upper: 0.02 };
    let comparison = Comparison {
        champion_id: "beef".to_owned(),
        metric: Metric::LogLoss,
        rides: 800,
        champion: 0.6,
        challenger: 0.59,
        gain,
    };
    let verdict = Verdict {
        promoted: true,
        reason: "no_worse".to_owned(),
        why: "better".to_owned(),
        comparison: Some(comparison),
        rule: None,
    };
    let page =
        Page { model: &model, data: &data, breeds: None, verdict: Some(&verdict), delayed_labels: &delayed_labels };
    let html = page.html();
    check(&html);
    assert_eq!(html, page.html());
    assert_eq!(html.matches("<svg").count(), 1 + model.coefficients.len() + 1 + 3 + 2 + 1 + 3 + 1 + 1);
    for words in
        ["It helps clearly.", "missing latitude 10", "USW00094728", "each mile farther", "beef", "0123456789abcdef"]
    {
        assert!(html.to_lowercase().contains(&words.to_lowercase()), "{words}");
    }
    assert!(!html.contains("No evidence that it does."));
}

/// If labels are independent of the features, the page says that there is no evidence.
#[test]
fn without_any_effect_there_is_no_evidence() {
    let html = page_of(&trained(4_000, 0.0, 0.0, TrainingSettings::default()));
    check(&html);
    for words in [
        "There is no evidence that the features predict service requests",
        "No evidence that it does.",
        "Together the features predict nothing",
    ] {
        assert!(html.contains(words), "{words}");
    }
    for words in ["It helps", "chance does not explain"] {
        assert!(!html.contains(words), "{words}");
    }
}

#[test]
fn a_section_without_input_says_so() {
    let mut model = trained(600, 0.5, 0.5, TrainingSettings::default());
    model.test = None;
    model.evidence = None;
    model.selection = None;
    model.predicted = Vec::new();
    model.train.roc = Vec::new();
    model.train.calibration = Vec::new();
    model.coefficients.iter_mut().for_each(|coefficient| {
        coefficient.histogram = None;
        coefficient.inference = None;
    });
    let html = page_of(&model);
    check(&html);
    assert_eq!(html.matches("<svg").count(), 0);
    assert!(html.matches("class=\"absent\"").count() >= 14, "{}", html.matches("class=\"absent\"").count());
}

/// Texts from the data never become markup.
#[test]
fn hostile_texts_are_escaped() {
    let mut model = trained(600, 0.5, 0.5, TrainingSettings::default());
    let hostile = "</svg></style><script>alert(1)</script>\"'&\0\u{202e}\u{ffff}";
    model.model = hostile.to_owned();
    model.model_id = hostile.to_owned();
    model.breed = Some(hostile.to_owned());
    model.trainer = hostile.to_owned();
    model.datasets[0].batch_id = hostile.to_owned();
    model.coefficients[0].feature = hostile.to_owned();
    model.coefficients[0].unit = hostile.to_owned();
    model.warnings = vec![Warning { code: WarningCode::Collinearity, why: hostile.to_owned() }];
    let coverage = vec![Coverage { station: hostile.to_owned(), month: "2018-07".to_owned(), rides: 1 }];
    let data = DataSummary { rejected_by_reason: [(hostile.to_owned(), 1)].into(), coverage, ..DataSummary::default() };
    let verdict =
        Verdict { promoted: false, reason: hostile.to_owned(), why: hostile.to_owned(), comparison: None, rule: None };
    let page = Page { model: &model, data: &data, breeds: None, verdict: Some(&verdict), delayed_labels: &[] };
    let html = page.html();
    check(&html);
    assert!(!html.contains(['\0', '\u{202e}', '\u{ffff}']));
    assert_eq!((html.matches("</style>").count(), html.contains("&lt;script&gt;")), (1, true));
}

/// Any number, most often a typical one.
fn number() -> BoxedStrategy<f64> {
    let edges = vec![
        0.0,
        -0.0,
        0.5,
        1.0,
        -1.0,
        1e-300,
        1e300,
        -1e300,
        f64::MAX,
        f64::MIN,
        f64::MIN_POSITIVE,
        5e-324,
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
    ];
    prop_oneof![4 => -10.0..10.0, 2 => 0.0..1.0, 1 => select(edges)].boxed()
}

fn large() -> BoxedStrategy<u64> {
    prop_oneof![3 => 0..5_000u64, 1 => Just(0), 1 => Just(u64::MAX / 4)].boxed()
}

fn words() -> BoxedStrategy<String> {
    prop_oneof![
        "[b-hj-m_]{0,12}",
        "\\PC{0,20}".prop_filter("a number that is not finite", |text| !has_non_finite(text)),
        select(vec!["distance", "tmin", "prcp", "2018-01", "</svg>", "\0"]).prop_map(str::to_owned)
    ]
    .boxed()
}

fn interval() -> BoxedStrategy<Interval> {
    [number(), number(), number()].prop_map(|[value, lower, upper]| Interval { value, lower, upper }).boxed()
}

fn metrics() -> BoxedStrategy<Metrics> {
    let point = [number(), number(), number()].prop_map(|[threshold, false_positive_rate, true_positive_rate]| {
        RocPoint { threshold, false_positive_rate, true_positive_rate }
    });
    let bin = ([number(), number(), number(), number()], large()).prop_map(
        |([from, to, mean_probability, service_share], rides)| CalibrationBin {
            from,
            to,
            rides,
            mean_probability,
            service_share,
        },
    );
    let parts =
        [number(), number(), number(), number()].prop_map(|[reliability, resolution, uncertainty, within_bins]| {
            BrierDecomposition { reliability, resolution, uncertainty, within_bins }
        });
    let confusion = [large(), large(), large(), large()].prop_map(
        |[true_negative, false_positive, false_negative, true_positive]| Confusion {
            true_negative,
            false_positive,
            false_negative,
            true_positive,
        },
    );
    let shares = [
        option::of(number()),
        option::of(number()),
        option::of(number()),
        option::of(number()),
        option::of(number()),
        option::of(number()),
    ];
    (large(), confusion, [number(), number(), number()], shares, option::of(parts), vec(point, 0..6), vec(bin, 0..6))
        .prop_map(|(rides, confusion, [accuracy, log_loss, brier], shares, brier_decomposition, roc, calibration)| {
            let [precision, recall, f1, roc_auc, average_precision, calibration_error] = shares;
            Metrics {
                rides,
                confusion,
                accuracy,
                precision,
                recall,
                f1,
                roc_auc,
                average_precision,
                log_loss,
                brier,
                brier_decomposition,
                calibration_error,
                roc,
                calibration,
            }
        })
        .boxed()
}

fn evidence() -> BoxedStrategy<Evidence> {
    let test = || {
        (number(), 0..9u32, number()).prop_map(|(statistic, degrees_of_freedom, p_value)| LikelihoodRatio {
            statistic,
            degrees_of_freedom,
            p_value,
        })
    };
    let quality = || (interval(), interval()).prop_map(|(log_loss, roc_auc)| Quality { log_loss, roc_auc });
    let gain = || (interval(), interval()).prop_map(|(log_loss, roc_auc)| Gain { log_loss, roc_auc });
    let held_out = (large(), number(), quality(), gain(), option::of(quality()), option::of(gain())).prop_map(
        |(rides, base_rate_log_loss, model, over_base_rate, mileage, over_mileage)| HeldOut {
            rides,
            bootstraps: 400,
            base_rate_log_loss,
            model,
            over_base_rate,
            mileage,
            over_mileage,
        },
    );
    (option::of(test()), option::of(test()), option::of(held_out))
        .prop_map(|(any, weather, held_out)| Evidence { any, weather, held_out })
        .boxed()
}

fn candidates() -> BoxedStrategy<Vec<Candidate>> {
    vec((number(), option::of(number())).prop_map(|(alpha, log_loss)| Candidate { alpha, log_loss }), 0..8).boxed()
}

fn coefficient() -> BoxedStrategy<Coefficient> {
    let inference = ([number(), number(), number(), number()], interval(), words()).prop_map(
        |([standard_error, z, p_value, step], odds_ratio, step_name)| Inference {
            standard_error,
            z,
            p_value,
            odds_ratio,
            step,
            step_name,
        },
    );
    let histogram =
        (vec(number(), 0..5), vec(large(), 0..6), vec(large(), 0..6), vec(number(), 0..6), vec(number(), 0..6))
            .prop_map(|(edges, rides, services, mean, mean_probability)| Histogram {
                edges,
                rides,
                services,
                mean,
                mean_probability,
            });
    let numbers = [number(), number(), number(), number(), number(), number()];
    (words(), words(), numbers, option::of(inference), option::of(histogram))
        .prop_map(|(feature, unit, numbers, inference, histogram)| {
            let [per_unit, standardised, mean, std_dev, min, max] = numbers;
            Coefficient { feature, unit, per_unit, standardised, mean, std_dev, min, max, inference, histogram }
        })
        .boxed()
}

fn criterion() -> BoxedStrategy<Criterion> {
    prop_oneof![
        Just(Criterion::Accuracy),
        number().prop_map(|probability| Criterion::Fixed { probability }),
        number().prop_map(|beta| Criterion::Fbeta { beta }),
        [number(), number()]
            .prop_map(|[false_positive, false_negative]| Criterion::Cost { false_positive, false_negative }),
    ]
    .boxed()
}

fn model() -> BoxedStrategy<Model> {
    let threshold = (criterion(), option::of(number()), any::<bool>())
        .prop_map(|(criterion, value, reached)| ThresholdChoice { criterion, value, reached });
    let selection = (large(), candidates(), threshold).prop_map(|(rides, candidates, threshold)| Selection {
        folds: 5,
        rides,
        candidates,
        threshold,
    });
    let numbers = [number(), number(), number(), number()];
    let parts = (option::of(selection), option::of(evidence()), vec(coefficient(), 0..4), vec(large(), 0..21));
    (numbers, parts, metrics(), option::of(metrics()), criterion(), words(), large())
        .prop_map(
            |(
                [alpha, intercept, threshold, gradient_norm],
                (selection, evidence, coefficients, predicted),
                train,
                test,
                criterion,
                name,
                rides,
            )| Model {
                schema: name.clone(),
                model: name.clone(),
                model_id: name.clone(),
                trainer: name.clone(),
                settings: TrainingSettings { threshold: criterion, ..TrainingSettings::default() },
                datasets: vec![TrainedOn { batch_id: name.clone(), manifest_sha256: name, revision: None }],
                counts: TrainingCounts { rides, train: rides, unlabelled: rides, ..TrainingCounts::default() },
                breed: None,
                prior_mean: None,
                alpha,
                intercept,
                intercept_standard_error: None,
                intercept_standardised: intercept,
                coefficients,
                covariance: None,
                threshold,
                gradient_norm,
                selection,
                evidence,
                warnings: Vec::new(),
                predicted,
                train,
                test,
            },
        )
        .boxed()
}

fn breeds() -> BoxedStrategy<Breeds> {
    let breed = (words(), large(), option::of(number()), option::of(number())).prop_map(
        |(breed, rides, log_loss, global_log_loss)| BreedSummary {
            breed: breed.clone(),
            model: breed.clone(),
            model_id: breed,
            train: rides,
            train_service: rides,
            test: rides,
            log_loss,
            global_log_loss,
        },
    );
    let held_out = (large(), [number(), number()], option::of(number()), interval(), option::of(interval())).prop_map(
        |(rides, [pooled, global], separate, over_global, over_separate)| BreedsHeldOut {
            rides,
            pooled,
            global,
            separate,
            over_global,
            over_separate,
        },
    );
    (number(), candidates(), option::of(held_out), vec(breed, 0..4))
        .prop_map(|(pooling_strength, candidates, held_out, breeds)| Breeds {
            schema: String::new(),
            pooling_strength,
            candidates,
            held_out,
            breeds,
        })
        .boxed()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Any model has a page, the same each time, with well-formed charts and finite numbers.
    #[test]
    fn any_model_has_a_page(
        model in model(),
        breeds in option::of(breeds()),
        verdict in option::of((any::<bool>(), words(), option::of((interval(), number())))),
        delayed_labels in vec(metrics(), 0..3),
        coverage in vec((words(), "(19|20)[0-9]{2}-(0[1-9]|1[0-2])", large()), 0..12),
    ) {
        let verdict = verdict.map(|(promoted, reason, compared)| {
            let comparison = compared.map(|(gain, value)| Comparison {
                champion_id: reason.clone(), metric: Metric::RocAuc, rides: 7, champion: value, challenger: value, gain,
            });
            Verdict { promoted, why: reason.clone(), reason, comparison, rule: None }
        });
        let coverage = coverage.into_iter().map(|(station, month, rides)| Coverage { station, month, rides }).collect();
        let data = DataSummary { coverage, ..DataSummary::default() };
        let delayed_labels: Vec<DelayedLabelMetrics> =
            delayed_labels.into_iter().map(|metrics| DelayedLabelMetrics { model_id: "a".to_owned(), metrics }).collect();
        let page = Page { model: &model, data: &data, breeds: breeds.as_ref(), verdict: verdict.as_ref(), delayed_labels: &delayed_labels };
        let html = page.html();
        check(&html);
        prop_assert_eq!(html, page.html());
    }
}
