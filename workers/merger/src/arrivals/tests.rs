use super::*;
use proptest::{collection::vec, prelude::*};
use std::collections::{BTreeSet, VecDeque};

fn split(chunks: u32) -> BatchSplit {
    BatchSplit {
        batch_id: "b".into(),
        sha256: "0".repeat(64),
        split_id: None,
        digest: None,
        refresh: None,
        chunks,
        received: 0,
        accepted: 0,
        rejected: 0,
        rejected_by_reason: BTreeMap::new(),
    }
}

#[test]
fn the_split_is_probed_first_then_the_lowest_chunks() {
    let mut arrivals = Arrivals::default();
    arrivals.insert(1);
    assert_eq!(arrivals.probe(1), Probe::Split);
    arrivals.insert_split(split(5));
    assert_eq!(arrivals.probe(1), Probe::Chunks(vec![0]));
    assert_eq!(arrivals.probe(2), Probe::Chunks(vec![0, 2]));
    assert_eq!(arrivals.probe(9), Probe::Chunks(vec![0, 2, 3, 4]));
    [0, 2, 3, 4].into_iter().for_each(|chunk| arrivals.insert(chunk));
    assert_eq!(arrivals.probe(1), Probe::Complete(Arc::new(split(5))));
}

#[test]
fn a_batch_without_chunks_is_complete_with_its_split() {
    let mut arrivals = Arrivals::default();
    arrivals.insert_split(split(0));
    assert_eq!(arrivals.probe(1), Probe::Complete(Arc::new(split(0))));
}

#[test]
fn the_largest_chunk_number_takes_one_page() {
    let mut arrivals = Arrivals::default();
    arrivals.insert(u32::MAX);
    arrivals.insert_split(split(u32::MAX));
    assert_eq!(arrivals.probe(1), Probe::Chunks(vec![0]));
    assert!(arrivals.bytes() < 2_000);
}

#[test]
fn chunks_in_order_take_one_page() {
    let mut arrivals = Arrivals::default();
    for chunk in 0..100_000 {
        arrivals.insert(chunk);
        assert!(arrivals.bytes() < 2_000);
    }
}

proptest! {
    #[test]
    fn probes_cover_the_unknown_chunks(
        staged in vec(0u32..10_000, 0..300), run in 0u32..9_000, chunks in 0u32..10_000, width in 1u32..40
    ) {
        let staged: BTreeSet<u32> = staged.into_iter().chain(0..run).collect();
        let mut arrivals = Arrivals::default();
        arrivals.insert_split(split(chunks));
        staged.iter().rev().for_each(|&chunk| arrivals.insert(chunk));
        let unknown: Vec<u32> = (0..chunks).filter(|chunk| !staged.contains(chunk)).take(width as usize).collect();
        match arrivals.probe(width) {
            Probe::Chunks(chunks) => prop_assert_eq!(chunks, unknown),
            Probe::Complete(_) => prop_assert!(unknown.is_empty()),
            Probe::Split => prop_assert!(false, "the split is known"),
        }
    }
}

/// One message of a batch: the split or a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    Split,
    Chunk(u32),
}

impl Sent {
    fn rank(self) -> Rank {
        match self {
            Self::Split => Rank::SPLIT,
            Self::Chunk(chunk) => Rank::chunk(chunk),
        }
    }
}

/// The next step of a handler: one operation on the store, or the return to the runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
enum At {
    CheckFirst,
    Stage,
    Probe { width: u32 },
    Check { complete: bool },
    WriteManifest,
    ClearOwn,
    ClearChunks,
    ClearSplit,
    Answer,
    Confirm { announcing: bool },
}

#[derive(Debug)]
struct Handler {
    process: usize,
    message: Sent,
    at: At,
}

#[derive(Debug, Default)]
struct Process {
    arrivals: Arrivals,
    announced: Announced,
    in_progress: bool,
}

/// A model: a store that is a set, a queue that redelivers, and processes with the steps of the worker.
struct Model {
    chunks: u32,
    width_max: u32,
    split: bool,
    staged: BTreeSet<u32>,
    manifest: bool,
    queue: VecDeque<Sent>,
    processes: Vec<Process>,
    handlers: Vec<Handler>,
    announcements: u32,
}

impl Model {
    fn deliver(&mut self, process: usize) {
        let Some(message) = self.queue.pop_front() else { return };
        let at = if self.processes[process].in_progress { At::Stage } else { At::CheckFirst };
        self.handlers.push(Handler { process, message, at });
    }

    /// Kills a process: it loses its state, and its messages are delivered again.
    fn kill(&mut self, process: usize) {
        self.processes[process] = Process::default();
        let (dead, alive) = self.handlers.drain(..).partition(|handler| handler.process == process);
        self.handlers = alive;
        let dead: Vec<Handler> = dead;
        self.queue.extend(dead.into_iter().map(|handler| handler.message));
    }

    /// Fails one handler: its message is delivered again, and the process continues.
    fn fail(&mut self, at: usize) {
        let handler = self.handlers.remove(at);
        self.queue.push_back(handler.message);
    }

    fn finish(&mut self, process: usize) -> At {
        let process = &mut self.processes[process];
        process.arrivals = Arrivals::default();
        process.in_progress = false;
        At::ClearOwn
    }

    /// One step of one handler.
    fn step(&mut self, at: usize) {
        let Handler { process: number, message, at: ref doing } = self.handlers[at];
        let next = match doing.clone() {
            At::CheckFirst if self.manifest => self.finish(number),
            At::CheckFirst => {
                let process = &mut self.processes[number];
                process.arrivals = Arrivals::default();
                process.in_progress = true;
                At::Stage
            }
            At::Stage => self.stage(number, message),
            At::Probe { width } => self.probe(number, width),
            At::Check { .. } if self.manifest => self.finish(number),
            At::Check { complete: true } => At::WriteManifest,
            At::Check { complete: false } => At::Confirm { announcing: false },
            At::WriteManifest => {
                let whole = (0..self.chunks).all(|chunk| self.staged.contains(&chunk));
                assert!(whole || self.manifest, "joined although a chunk was never staged");
                self.manifest = true;
                self.finish(number)
            }
            At::ClearOwn => {
                if let Sent::Chunk(chunk) = message {
                    self.staged.remove(&chunk);
                }
                if self.split { At::ClearChunks } else { At::Answer }
            }
            At::ClearChunks => {
                self.staged.clear();
                At::ClearSplit
            }
            At::ClearSplit => {
                self.split = false;
                At::Answer
            }
            At::Answer => self.answer(number, message),
            At::Confirm { announcing } => {
                self.announcements += u32::from(announcing);
                self.handlers.remove(at);
                return;
            }
        };
        self.handlers[at].at = next;
    }

    fn stage(&mut self, number: usize, message: Sent) -> At {
        let arrivals = &mut self.processes[number].arrivals;
        match message {
            Sent::Split => {
                self.split = true;
                arrivals.insert_split(split(self.chunks));
            }
            Sent::Chunk(chunk) => {
                self.staged.insert(chunk);
                arrivals.insert(chunk);
            }
        }
        At::Probe { width: 1 }
    }

    fn probe(&mut self, number: usize, width: u32) -> At {
        let arrivals = &mut self.processes[number].arrivals;
        match arrivals.probe(width) {
            Probe::Complete(_) => At::Check { complete: true },
            Probe::Split if self.split => {
                arrivals.insert_split(split(self.chunks));
                At::Probe { width }
            }
            Probe::Split => At::Check { complete: false },
            Probe::Chunks(chunks) => {
                let (present, absent): (Vec<u32>, Vec<u32>) =
                    chunks.into_iter().partition(|chunk| self.staged.contains(chunk));
                present.into_iter().for_each(|chunk| arrivals.insert(chunk));
                if absent.is_empty() {
                    At::Probe { width: wider(width, self.width_max) }
                } else {
                    At::Check { complete: false }
                }
            }
        }
    }

    fn answer(&mut self, number: usize, message: Sent) -> At {
        let announced = &mut self.processes[number].announced;
        let announcing = announced.must_announce(Some("1"), message.rank());
        if announcing {
            announced.record(Some("1"), message.rank());
        }
        At::Confirm { announcing }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]
    /// For any order and repetition of deliveries, and any failures and kills, the batch is joined and announced in the end, and
    /// the staging area is empty.
    #[test]
    fn every_interleaving_ends_with_one_dataset_announced(
        chunks in 0u32..12,
        processes in 1usize..4,
        width_max in 1u32..9,
        again in vec(0u32..13, 0..8),
        order in any::<prop::sample::Index>(),
        schedule in vec((0u8..40, any::<prop::sample::Index>()), 0..400),
    ) {
        let mut queue: Vec<Sent> = (0..chunks).map(Sent::Chunk).chain([Sent::Split]).collect();
        queue.extend(again.into_iter().map(|n| if n < chunks { Sent::Chunk(n) } else { Sent::Split }));
        let turn = order.index(queue.len());
        queue.rotate_left(turn);
        let mut model = Model {
            chunks,
            width_max,
            split: false,
            staged: BTreeSet::new(),
            manifest: false,
            queue: queue.into(),
            processes: (0..processes).map(|_| Process::default()).collect(),
            handlers: Vec::new(),
            announcements: 0,
        };
        for (action, index) in schedule {
            match action {
                0 => model.kill(index.index(processes)),
                1..=9 => model.deliver(index.index(processes)),
                10 | 11 => {
                    let turn = index.index(model.queue.len().max(1)).min(model.queue.len());
                    model.queue.rotate_left(turn);
                }
                _ if model.handlers.is_empty() => model.deliver(index.index(processes)),
                12 | 13 => model.fail(index.index(model.handlers.len())),
                _ => model.step(index.index(model.handlers.len())),
            }
        }
        let mut turn = 0;
        while !(model.queue.is_empty() && model.handlers.is_empty()) {
            turn += 1;
            model.deliver(turn % processes);
            if !model.handlers.is_empty() {
                model.step(turn % model.handlers.len());
            }
        }
        prop_assert!(model.manifest, "never joined");
        prop_assert!(model.announcements > 0, "never announced");
        prop_assert!(model.staged.is_empty() && !model.split, "left in staging: {:?}", model.staged);
    }

    /// With one handler at a time per process, each process probes for a staged chunk once.
    #[test]
    fn probes_are_proportional_to_chunks_times_processes(
        order in Just((0u32..60).collect::<Vec<_>>()).prop_shuffle(), processes in 1usize..5, who in vec(0usize..5, 60),
        width_max in 1u32..40,
    ) {
        let chunks = order.len() as u32 - 1;
        let (mut arrivals_by_process, mut probes) = (Vec::new(), 0u32);
        arrivals_by_process.resize_with(processes, Arrivals::default);
        let (mut staged, mut is_split_staged, mut complete) = (BTreeSet::new(), false, 0);
        for (message, who) in order.into_iter().zip(who) {
            let arrivals = &mut arrivals_by_process[who % processes];
            if message == chunks {
                is_split_staged = true;
                arrivals.insert_split(split(chunks));
            } else {
                staged.insert(message);
                arrivals.insert(message);
            }
            let mut width = 1;
            loop {
                match arrivals.probe(width) {
                    Probe::Complete(_) => {
                        complete += 1;
                        break;
                    }
                    Probe::Split => {
                        probes += 1;
                        if !is_split_staged {
                            break;
                        }
                        arrivals.insert_split(split(chunks));
                    }
                    Probe::Chunks(probed) => {
                        probes += probed.len() as u32;
                        let all = probed.iter().all(|chunk| staged.contains(chunk));
                        probed.into_iter().filter(|c| staged.contains(c)).for_each(|c| arrivals.insert(c));
                        if !all {
                            break;
                        }
                        width = wider(width, width_max);
                    }
                }
            }
        }
        prop_assert_eq!(complete, 1);
        // Successful probes: at most one per chunk and process. Vain ones: at most as many as successful ones of the pass, plus
        // one.
        prop_assert!(probes <= (chunks + 1) * (1 + 2 * processes as u32), "{probes} probes");
    }

    /// A handler that skips the announcement relies on a message of lower rank, so the lowest one announces.
    #[test]
    fn of_late_duplicates_the_lowest_always_announces(order in Just((0u32..30).collect::<Vec<_>>()).prop_shuffle()) {
        let mut announced = Announced::default();
        let mut lowest = None;
        for chunk in order {
            let rank = Rank::chunk(chunk);
            let must = announced.must_announce(Some("v"), rank);
            prop_assert_eq!(must, lowest.is_none_or(|lowest| rank <= lowest));
            if must {
                announced.record(Some("v"), rank);
                lowest = Some(rank);
            }
            prop_assert!(announced.must_announce(Some("another"), rank));
        }
        prop_assert!(announced.must_announce(Some("v"), Rank::SPLIT));
    }
}
