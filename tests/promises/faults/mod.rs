//! Tests of faults on real brokers, each in the middle of a batch. Afterwards the dataset and the model are those of the
//! undisturbed run, the queues are empty, and the dead letters are exactly the expected ones. `chaos` runs the same at length.

mod broker;
mod cluster;
mod queues;
mod training;
mod wire;
mod workers;

/// Faults that delay the batch block the test's thread; its proxies and stubs need other threads meanwhile.
macro_rules! own_broker {
    () => {
        match pipeline_tests::containers::Container::start() {
            Some(broker) => broker,
            None => return,
        }
    };
}
use own_broker;
