//! Strategies that generate any model, alias and serving statistics, and any document stored beside a model.

use super::generate::{batch_id, counts, number, revision, sha256, text};
use common::{
    document::{
        BreedSummary, Breeds, BreedsHeldOut, Comparison, Coverage, DataSummary, DelayedLabelMetrics, Metric,
        MetricsFile, Promotion, Rule, Verdict,
    },
    features::FeatureSet,
    model::{
        Alias, AliasName, BrierDecomposition, CalibrationBin, Candidate, Coefficient, Confusion, Criterion, Evidence,
        Gain, HeldOut, Histogram, Inference, Interval, LikelihoodRatio, Metrics, Model, Past, Quality, RocPoint,
        Selection, ThresholdChoice, TrainedOn, TrainingCounts, TrainingSettings, Warning, WarningCode,
    },
    schema::Described,
    served::{BreedCache, Fallbacks, FeatureTally, Served, Shadow, Tally},
};
use proptest::{collection::vec, option, prelude::*, sample::select};

prop_compose! {
    fn interval()([value, lower, upper] in [number(), number(), number()]) -> Interval {
        Interval { value, lower, upper }
    }
}

fn criterion() -> impl Strategy<Value = Criterion> {
    prop_oneof![
        number().prop_map(|probability| Criterion::Fixed { probability }),
        Just(Criterion::Accuracy),
        Just(Criterion::F1),
        number().prop_map(|beta| Criterion::Fbeta { beta }),
        number().prop_map(|recall_min| Criterion::PrecisionAtRecall { recall_min }),
        number().prop_map(|precision_min| Criterion::RecallAtPrecision { precision_min }),
        (number(), number())
            .prop_map(|(false_positive, false_negative)| Criterion::Cost { false_positive, false_negative }),
    ]
}

prop_compose! {
    fn settings()(
        features in select(vec![FeatureSet::All, FeatureSet::Mileage, FeatureSet::Weather]),
        alphas in vec(number(), 0..3), folds in any::<u32>(), threshold in criterion(), rides_min in any::<u64>(),
        breed_rides_min in option::of(any::<u64>()),
    ) -> TrainingSettings {
        TrainingSettings { features, alphas, folds, threshold, rides_min, breed_rides_min }
    }
}

fn training_counts() -> impl Strategy<Value = TrainingCounts> {
    any::<[u64; 9]>().prop_map(
        |[rides, unlabelled, without_weather, out_of_range, duplicates, train, train_service, test, test_service]| {
            TrainingCounts {
                rides,
                unlabelled,
                without_weather,
                out_of_range,
                duplicates,
                train,
                train_service,
                test,
                test_service,
            }
        },
    )
}

prop_compose! {
    fn inference()(
        [standard_error, z, p_value, step] in [number(), number(), number(), number()], odds_ratio in interval(),
        step_name in text(),
    ) -> Inference {
        Inference { standard_error, z, p_value, odds_ratio, step, step_name }
    }
}

fn coefficient() -> impl Strategy<Value = Coefficient> {
    let histogram = (
        vec(number(), 0..3),
        [vec(any::<u64>(), 0..4), vec(any::<u64>(), 0..4)],
        [vec(number(), 0..4), vec(number(), 0..4)],
    );
    let histogram = histogram.prop_map(|(edges, [rides, services], [mean, mean_probability])| Histogram {
        edges,
        rides,
        services,
        mean,
        mean_probability,
    });
    let parts = (option::of(inference()), option::of(histogram));
    (text(), text(), [number(), number(), number()], [number(), number(), number()], parts).prop_map(
        |(feature, unit, [per_unit, standardised, mean], [std_dev, min, max], (inference, histogram))| Coefficient {
            feature,
            unit,
            per_unit,
            standardised,
            mean,
            std_dev,
            min,
            max,
            inference,
            histogram,
        },
    )
}

prop_compose! {
    fn candidate()(alpha in number(), log_loss in option::of(number())) -> Candidate {
        Candidate { alpha, log_loss }
    }
}

prop_compose! {
    fn selection()(
        folds in any::<u32>(), rides in any::<u64>(), candidates in vec(candidate(), 0..3), criterion in criterion(),
        value in option::of(number()), reached in any::<bool>(),
    ) -> Selection {
        Selection { folds, rides, candidates, threshold: ThresholdChoice { criterion, value, reached } }
    }
}

prop_compose! {
    fn likelihood_ratio()(
        statistic in number(), degrees_of_freedom in any::<u32>(), p_value in number(),
    ) -> LikelihoodRatio {
        LikelihoodRatio { statistic, degrees_of_freedom, p_value }
    }
}

prop_compose! {
    fn quality()(log_loss in interval(), roc_auc in interval()) -> Quality {
        Quality { log_loss, roc_auc }
    }
}

prop_compose! {
    fn gain()(log_loss in interval(), roc_auc in interval()) -> Gain {
        Gain { log_loss, roc_auc }
    }
}

prop_compose! {
    fn held_out()(
        rides in any::<u64>(), bootstraps in any::<u32>(), base_rate_log_loss in number(), model in quality(),
        over_base_rate in gain(), mileage in option::of(quality()), over_mileage in option::of(gain()),
    ) -> HeldOut {
        HeldOut { rides, bootstraps, base_rate_log_loss, model, over_base_rate, mileage, over_mileage }
    }
}

prop_compose! {
    fn evidence()(
        any in option::of(likelihood_ratio()), weather in option::of(likelihood_ratio()),
        held_out in option::of(held_out()),
    ) -> Evidence {
        Evidence { any, weather, held_out }
    }
}

fn warning() -> impl Strategy<Value = Warning> {
    let codes = vec![
        WarningCode::ConstantFeature,
        WarningCode::Collinearity,
        WarningCode::Separation,
        WarningCode::FewEvents,
        WarningCode::LargestPenalty,
        WarningCode::StrongPenalty,
        WarningCode::ThresholdUnreached,
    ];
    (select(codes), text()).prop_map(|(code, why)| Warning { code, why })
}

prop_compose! {
    fn confusion()(
        true_negative in any::<u64>(), false_positive in any::<u64>(), false_negative in any::<u64>(),
        true_positive in any::<u64>(),
    ) -> Confusion {
        Confusion { true_negative, false_positive, false_negative, true_positive }
    }
}

prop_compose! {
    fn roc_point()(
        threshold in number(), false_positive_rate in number(), true_positive_rate in number(),
    ) -> RocPoint {
        RocPoint { threshold, false_positive_rate, true_positive_rate }
    }
}

prop_compose! {
    fn calibration_bin()(
        from in number(), to in number(), rides in any::<u64>(), mean_probability in number(),
        service_share in number(),
    ) -> CalibrationBin {
        CalibrationBin { from, to, rides, mean_probability, service_share }
    }
}

prop_compose! {
    fn brier_decomposition()(
        [reliability, resolution, uncertainty, within_bins] in [number(), number(), number(), number()],
    ) -> BrierDecomposition {
        BrierDecomposition { reliability, resolution, uncertainty, within_bins }
    }
}

prop_compose! {
    fn metrics()(
        rides in any::<u64>(), confusion in confusion(), [accuracy, log_loss, brier] in [number(), number(), number()],
        [precision, recall, f1, roc_auc] in [(); 4].map(|()| option::of(0.0..=1.0)),
        [average_precision, calibration_error] in [(); 2].map(|()| option::of(number())),
        brier_decomposition in option::of(brier_decomposition()), roc in vec(roc_point(), 0..3),
        calibration in vec(calibration_bin(), 0..3),
    ) -> Metrics {
        Metrics {
            rides, confusion, accuracy, precision, recall, f1, roc_auc, average_precision, log_loss, brier,
            brier_decomposition, calibration_error, roc, calibration,
        }
    }
}

prop_compose! {
    fn trained_on()(batch_id in batch_id(), manifest_sha256 in sha256(), revision in revision()) -> TrainedOn {
        TrainedOn { batch_id, manifest_sha256, revision }
    }
}

pub fn model() -> impl Strategy<Value = Model> {
    let names = (text(), text(), text(), option::of(text()), option::of(text()));
    let numbers = ([(); 5].map(|()| number()), option::of(number()));
    let chosen = (option::of(selection()), option::of(evidence()), vec(warning(), 0..3), vec(any::<u64>(), 0..3));
    let covariance = option::of(vec(vec(number(), 0..3), 0..3));
    let parts = (vec(trained_on(), 0..3), vec(coefficient(), 0..3), covariance, metrics(), option::of(metrics()));
    (names, settings(), training_counts(), numbers, chosen, parts).prop_map(
        |(
            (model, model_id, trainer, breed, prior_mean),
            settings,
            counts,
            ([alpha, intercept, intercept_standardised, threshold, gradient_norm], intercept_standard_error),
            (selection, evidence, warnings, predicted),
            (datasets, coefficients, covariance, train, test),
        )| Model {
            schema: Model::SCHEMA.name.to_owned(),
            model,
            model_id,
            trainer,
            settings,
            datasets,
            counts,
            breed,
            prior_mean,
            alpha,
            intercept,
            intercept_standard_error,
            intercept_standardised,
            coefficients,
            covariance,
            threshold,
            gradient_norm,
            selection,
            evidence,
            warnings,
            predicted,
            train,
            test,
        },
    )
}

prop_compose! {
    fn past()(model_id in text(), sha256 in sha256(), by in text(), at in text(), why in text()) -> Past {
        Past { model_id, sha256, by, at, why }
    }
}

prop_compose! {
    pub fn alias()(
        alias in select(vec![AliasName::Champion, AliasName::Challenger]), model in text(), object in text(),
        Past { model_id, sha256, by, at, why } in past(), generation in 1..=u64::MAX, history in vec(past(), 0..3),
    ) -> Alias {
        Alias { schema: Alias::SCHEMA.name.to_owned(), alias, model, model_id, object, sha256, by, at, why, generation, history }
    }
}

prop_compose! {
    fn breed_summary()(
        [breed, model, model_id] in [text(), text(), text()], [train, train_service, test] in any::<[u64; 3]>(),
        [log_loss, global_log_loss] in [(); 2].map(|()| option::of(number())),
    ) -> BreedSummary {
        BreedSummary { breed, model, model_id, train, train_service, test, log_loss, global_log_loss }
    }
}

prop_compose! {
    fn breeds_held_out()(
        rides in any::<u64>(), [pooled, global] in [number(), number()], separate in option::of(number()),
        over_global in interval(), over_separate in option::of(interval()),
    ) -> BreedsHeldOut {
        BreedsHeldOut { rides, pooled, global, separate, over_global, over_separate }
    }
}

prop_compose! {
    pub fn breeds()(
        pooling_strength in number(), candidates in vec(candidate(), 0..3), held_out in option::of(breeds_held_out()),
        breeds in vec(breed_summary(), 0..3),
    ) -> Breeds {
        Breeds { schema: Breeds::SCHEMA.name.to_owned(), pooling_strength, candidates, held_out, breeds }
    }
}

prop_compose! {
    fn data_summary()(
        [batches, received, accepted] in any::<[u64; 3]>(), rejected_by_reason in counts(), without_weather in counts(),
        coverage in vec((text(), text(), any::<u64>()), 0..3),
    ) -> DataSummary {
        let coverage = coverage.into_iter().map(|(station, month, rides)| Coverage { station, month, rides }).collect();
        DataSummary { batches, received, accepted, rejected_by_reason, without_weather, coverage }
    }
}

prop_compose! {
    pub fn metrics_file()(
        model in text(), model_id in text(), threshold in number(), counts in training_counts(), data in data_summary(),
        train in metrics(), test in option::of(metrics()),
    ) -> MetricsFile {
        MetricsFile { model, model_id, threshold, counts, data, train, test }
    }
}

prop_compose! {
    pub fn delayed_labels()(model_id in text(), metrics in metrics()) -> DelayedLabelMetrics {
        DelayedLabelMetrics { model_id, metrics }
    }
}

fn metric() -> impl Strategy<Value = Metric> {
    select(vec![Metric::LogLoss, Metric::Brier, Metric::RocAuc])
}

prop_compose! {
    fn comparison()(
        champion_id in text(), metric in metric(), rides in any::<u64>(), [champion, challenger] in [number(), number()],
        gain in interval(),
    ) -> Comparison {
        Comparison { champion_id, metric, rides, champion, challenger, gain }
    }
}

prop_compose! {
    fn rule()(
        promotion in select(vec![Promotion::ByRule, Promotion::Always, Promotion::ByHand]), metric in metric(),
        margin in number(), rides_min in any::<u64>(),
    ) -> Rule {
        Rule { promotion, metric, margin, rides_min }
    }
}

prop_compose! {
    pub fn verdict()(
        promoted in any::<bool>(), reason in text(), why in text(), comparison in option::of(comparison()),
        rule in option::of(rule()),
    ) -> Verdict {
        Verdict { promoted, reason, why, comparison, rule }
    }
}

prop_compose! {
    fn shadow()(
        model_id in text(), [rides, unscored, decisions] in any::<[u64; 3]>(),
        [difference_sum, absolute_sum, largest] in [number(), number(), number()],
        differences in vec(any::<u64>(), 0..3),
    ) -> Shadow {
        Shadow { model_id, rides, unscored, difference_sum, absolute_sum, largest, decisions, differences }
    }
}

prop_compose! {
    fn breed_cache()(
        [hits, misses, loads, evictions] in any::<[u64; 4]>(), load_ms_sum in number(), load_ms_max in number(),
        loads_by_ms in vec(any::<u64>(), 0..3),
    ) -> BreedCache {
        BreedCache { hits, misses, loads, evictions, load_ms_sum, load_ms_max, loads_by_ms }
    }
}

prop_compose! {
    fn feature_tally()(feature in text(), rides in vec(any::<u64>(), 0..3)) -> FeatureTally {
        FeatureTally { feature, rides }
    }
}

prop_compose! {
    fn tally()(
        [rides, service, imputed, uncounted, no_breed_model, loading, unavailable] in any::<[u64; 7]>(),
        features in vec(feature_tally(), 0..3), probabilities in vec(any::<u64>(), 0..3),
        shadows in vec(shadow(), 0..3), breeds in option::of(breed_cache()),
    ) -> Tally {
        let fallbacks = Fallbacks { no_breed_model, loading, unavailable };
        Tally { rides, service, imputed, features, probabilities, fallbacks, uncounted, shadows, breeds }
    }
}

prop_compose! {
    pub fn served()(
        model in text(), model_id in text(), date in "[0-9]{4}-[0-9]{2}-[0-9]{2}", scorer in text(), tally in tally(),
    ) -> Served {
        Served { schema: Served::SCHEMA.name.to_owned(), model, model_id, date, scorer, tally }
    }
}
