use super::*;
use crate::{artefact::build, data::rows::NO_BREED, fit::padded};
use common::{
    features::FeatureSet,
    model::{Criterion, TrainingSettings},
};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// Draws `rides(breed)` rides of each breed. The coefficients of the breeds have a standard deviation of `apart`, in standardised units,
/// around common ones.
fn drawn(breeds: u32, apart: f64, rides: impl Fn(u32) -> usize) -> TrainingData {
    let mut random = Pcg64Mcg::seed_from_u64(7);
    // The sum of twelve uniform numbers is nearly normal.
    let normal = |random: &mut Pcg64Mcg| (0..12).map(|_| random.random_range(0.0..1.0)).sum::<f64>() - 6.0;
    let mut loaded = TrainingData::default();
    for breed in 0..breeds {
        let weights = [0.8, 0.0, -0.6, -0.3, 0.0, 0.7].map(|common| common + apart * normal(&mut random));
        let intercept = -0.5 + apart * normal(&mut random);
        for _ in 0..rides(breed) {
            let features = padded(&weights.map(|_| normal(&mut random)));
            let z: f64 = intercept + weights.iter().zip(features).map(|(w, x)| w * x).sum::<f64>();
            let service = random.random_range(0.0..1.0) < 1.0 / (1.0 + (-z).exp());
            let side = if random.random_range(0..10) == 0 { &mut loaded.test } else { &mut loaded.train };
            side.push(features, service, random.random_range(0..=u8::MAX), breed);
        }
        loaded.breeds.push(format!("breed {breed:03}"));
    }
    loaded.counts.train = loaded.train.len() as u64;
    loaded.counts.test = loaded.test.len() as u64;
    loaded
}

fn plan(rides_min: u64) -> Plan {
    let settings = TrainingSettings {
        features: FeatureSet::All,
        threshold: Criterion::Fixed { probability: 0.5 },
        breed_rides_min: Some(rides_min),
        ..TrainingSettings::default()
    };
    Plan { model: "m".to_owned(), model_id: "0".repeat(16), settings, manifests: Vec::new(), datasets: Vec::new() }
}

fn trained(plan: &Plan, loaded: &TrainingData, threads: usize) -> Option<BreedModels> {
    let cancel = Cancel::default();
    let cores = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    cores.install(|| train(plan, &build(plan, loaded, &cancel).unwrap(), loaded, &cancel).unwrap())
}

/// If breeds differ somewhat, partially pooled models are significantly better on held-out rides than the global model and than
/// separate models.
#[test]
fn partial_pooling_beats_both_extremes() {
    let loaded = drawn(120, 0.35, |breed| 40 + 2 * breed as usize);
    let trained = trained(&plan(20), &loaded, 2).unwrap();
    let held_out = trained.document.held_out.unwrap();
    assert_eq!((trained.models.len(), held_out.rides), (120, loaded.counts.test));
    let separate = held_out.separate.unwrap();
    assert!(held_out.pooled < held_out.global && held_out.pooled < separate, "{held_out:?}");
    assert!(held_out.over_global.lower > 0.0, "{held_out:?}");
    assert!(held_out.over_separate.unwrap().lower > 0.0, "{held_out:?}");
    // The strength is about the precision of the distribution of the breeds: 1 / 0.35².
    assert!((1.0..=100.0).contains(&trained.document.pooling_strength), "{}", trained.document.pooling_strength);
}

/// If breeds do not differ, the pooling is strong and breed models are nearly the global model.
#[test]
fn equal_breeds_stay_at_the_prior_mean() {
    let loaded = drawn(40, 0.0, |_| 250);
    let trained = trained(&plan(50), &loaded, 2).unwrap();
    assert!(trained.document.pooling_strength >= 1_000.0, "{:?}", trained.document.candidates);
    let held_out = trained.document.held_out.unwrap();
    assert!((held_out.pooled - held_out.global).abs() < 0.002, "{held_out:?}");
}

/// The number of threads changes no bit. A breed with too few rides has no model, one with rides of one class has one, and rides without
/// a breed count for the global model only.
#[test]
fn breeds_with_enough_rides_have_a_model() {
    let mut loaded = drawn(5, 0.3, |breed| if breed == 2 { 40 } else { 300 });
    for (breed, service) in loaded.train.breed.iter_mut().zip(&mut loaded.train.service) {
        match breed {
            3 => *service = false,
            4 => *breed = NO_BREED,
            _ => {}
        }
    }
    loaded.counts.train_service = loaded.train.services() as u64;
    let plan = plan(100);
    let alone = trained(&plan, &loaded, 1).unwrap();
    let side_by_side = trained(&plan, &loaded, 4).unwrap();
    assert!(alone.document == side_by_side.document && alone.models == side_by_side.models);
    let names: Vec<&str> = alone.document.breeds.iter().map(|breed| breed.breed.as_str()).collect();
    assert_eq!(names, ["breed 000", "breed 001", "breed 003"]);
    let one_class = &alone.models[2];
    assert_eq!((one_class.counts.train_service, one_class.breed.as_deref()), (0, Some("breed 003")));
    assert!(one_class.train.log_loss.is_finite() && one_class.intercept.is_finite());
    assert_eq!(one_class.prior_mean.as_deref(), Some(plan.model_id.as_str()));
    assert_eq!(Some(&one_class.model), layout::breed_model("m", "breed 003").as_ref());
    assert!(
        trained(
            &Plan { settings: TrainingSettings { breed_rides_min: None, ..plan.settings.clone() }, ..plan.clone() },
            &loaded,
            1
        )
        .is_none()
    );
    assert!(
        trained(
            &Plan { settings: TrainingSettings { breed_rides_min: Some(10_000), ..plan.settings.clone() }, ..plan },
            &loaded,
            1
        )
        .is_none()
    );
}
