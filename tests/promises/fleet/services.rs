//! Worker processes whose store is a service: what they compute is what one process computes in a folder.

use pipeline_tests::{
    azure::azure,
    processes::{Fleet, Input, dataset_sha256, json_output},
    s3::s3,
};

/// Two processes of each worker, on RabbitMQ, with 1,000 rides per message.
#[tokio::test(flavor = "multi_thread")]
async fn two_of_each_worker_on_a_service_make_the_same_dataset_and_model() {
    let input = Input::of(20_000);
    let expected = input.run(&[]);
    for service in [s3(), azure()].into_iter().flatten() {
        let url = service.new_url();
        let fleet = Fleet::start_with(2, &input.weather, &service.of_fleet(&url));
        let report = json_output(fleet.wildrydes().arg("ingest").arg(&input.rides));
        assert_eq!(dataset_sha256(&report), dataset_sha256(&expected), "{url}");
        assert_eq!(report["batches"][0]["manifest"], expected["batches"][0]["manifest"], "{url}");
        assert_eq!(fleet.champion()["model_id"], expected["model"]["model_id"], "{url}");
        fleet.finish().await;
    }
}
