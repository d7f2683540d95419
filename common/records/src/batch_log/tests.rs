use super::*;
use common::reading::Reading;
use futures::{TryStreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, memory::InMemory, path::Path,
};
use proptest::prelude::*;
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::atomic::{AtomicBool, AtomicUsize},
};

/// A store that counts reads and listings, and can be set read-only.
#[derive(Debug, Default)]
struct Watched {
    inner: InMemory,
    gets: AtomicUsize,
    lists: AtomicUsize,
    is_read_only: AtomicBool,
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("watched")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Watched {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if self.is_read_only.load(SeqCst) {
            return Err(Error::PermissionDenied { path: path.to_string(), source: "read-only".into() });
        }
        self.inner.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.gets.fetch_add(1, SeqCst);
        self.inner.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.lists.fetch_add(1, SeqCst);
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.lists.fetch_add(1, SeqCst);
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

fn watched() -> (Arc<Watched>, Store) {
    let watched = Arc::new(Watched::default());
    (Arc::clone(&watched), watched)
}

fn memory() -> Store {
    Arc::new(InMemory::new())
}

/// Creates the claim of a batch as the splitter does: once.
async fn claim(store: &Store, batch_id: &str, listed: Option<u64>) {
    let claim = Claim {
        batch_id: batch_id.to_owned(),
        sha256: "0".repeat(64),
        chunk_size: 1,
        source: None,
        object: None,
        listed,
        reading: Reading::default(),
    };
    store::create(store, &layout::claim(batch_id), serde_json::to_vec(&claim).unwrap()).await.unwrap();
}

async fn upload(store: &Store, batch_id: &str, listed: Option<u64>) {
    let record = json!({ "batch_id": batch_id, "listed": listed }).to_string();
    store::create(store, &layout::upload(batch_id), record).await.unwrap();
}

async fn split(log: &BatchLog, batch_id: &str) {
    let existing: Option<Claim> = store::read_json(&log.store, &layout::claim(batch_id)).await.unwrap();
    if existing.is_none() {
        let listed = log.enter(batch_id).await.unwrap();
        claim(&log.store, batch_id, Some(listed)).await;
    }
}

/// A reader that knows claims and uploads.
async fn look(store: Store, batch_id: String) -> std::result::Result<Option<Seen<String>>, Failure> {
    assert!(check_batch_id("batch_id", &batch_id).is_ok(), "{batch_id:?}");
    let claim: Option<Claim> = store::read_json(&store, &layout::claim(&batch_id)).await?;
    let is_uploaded = store::exists(&store, &layout::upload(&batch_id)).await?;
    let listed = place(claim.as_ref(), uploaded(&store, &batch_id).await?);
    Ok((claim.is_some() || is_uploaded).then_some(Seen { batch: batch_id, listed }))
}

async fn page(log: &BatchLog, after: Option<Cursor>, batches: usize) -> Page<String> {
    let limits = Limits { batches, looks: 10 * batches };
    log.page(after, limits, |id| look(Arc::clone(&log.store), id)).await.unwrap()
}

/// Lists all batches, page by page.
async fn listed(log: &BatchLog, limit: usize) -> Vec<String> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let Page { batches, next } = page(log, after, limit).await;
        assert!(batches.len() <= limit);
        all.extend(batches);
        after = next;
        if after.is_none() {
            return all;
        }
    }
}

async fn remove_log(store: &Store) {
    let entries: Vec<_> = store.list(Some(&Path::from(layout::BATCH_LOG))).try_collect().await.unwrap();
    for entry in entries {
        store.delete(&entry.location).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_writers_share_no_entry() {
    let store = memory();
    let logs = [BatchLog::new(Arc::clone(&store)), BatchLog::new(Arc::clone(&store))];
    let appending = (0..200).map(|n| {
        let log = logs[n % 2].clone();
        tokio::spawn(async move { log.append(&format!("b{n}")).await.unwrap() })
    });
    let appending: Vec<_> = appending.collect();
    let mut numbers = BTreeMap::new();
    for (n, task) in appending.into_iter().enumerate() {
        numbers.insert(task.await.unwrap(), format!("b{n}"));
    }
    assert!(numbers.keys().copied().eq(1..=200), "{numbers:?}");
    for (&number, id) in &numbers {
        assert!(logs[0].holds(number, id).await.unwrap());
    }
    assert_eq!(logs[1].newest().await.unwrap(), 200);
}

/// Finding the newest entry takes at most 75 reads, eight at a time, for 70,000 entries as for 1,000; from a known
/// entry it takes two.
#[tokio::test]
async fn finding_the_newest_entry_takes_few_reads() {
    let (watched, store) = watched();
    let mut written = 0;
    for count in [0, 1, 2, 3, 8, 9, 10, 255, 256, 257, 258, 1_000, 70_000] {
        while written < count {
            written += 1;
            store::create(&store, &layout::batch_log_entry(written), "b").await.unwrap();
        }
        let log = BatchLog::new(Arc::clone(&store));
        watched.gets.store(0, SeqCst);
        assert_eq!(log.newest().await.unwrap(), count);
        let reads = watched.gets.swap(0, SeqCst);
        assert!(reads <= 75, "{reads} reads for {count} entries");
        assert_eq!(log.newest().await.unwrap(), count);
        assert!(watched.gets.load(SeqCst) <= 2);
    }
    assert_eq!(watched.lists.load(SeqCst), 0);
}

/// A lost entry hides later ones from some readers, but only until the next batch fills the gap.
#[tokio::test]
async fn a_lost_entry_is_filled_by_the_next_batch() {
    let store = memory();
    let writer = BatchLog::new(Arc::clone(&store));
    for n in 1..=40 {
        split(&writer, &format!("b{n}")).await;
    }
    store.delete(&Path::from(layout::batch_log_entry(33))).await.unwrap();
    assert_eq!(BatchLog::new(Arc::clone(&store)).newest().await.unwrap(), 32, "the gap hides later entries");
    split(&BatchLog::new(Arc::clone(&store)), "next").await;
    let all = listed(&BatchLog::new(Arc::clone(&store)), 7).await;
    assert_eq!((all.len(), &all[0][..], &all[7][..]), (40, "b40", "next"), "{all:?}");
    assert_eq!(writer.append("b41").await.unwrap(), 41);
}

/// A process that stops between the entry and the claim leaves an entry without a batch; readers skip it.
#[tokio::test]
async fn an_entry_without_its_claim_is_skipped() {
    let log = BatchLog::new(memory());
    log.append("a").await.unwrap();
    split(&log, "a").await;
    log.append("never").await.unwrap();
    split(&log, "b").await;
    split(&log, "a").await;
    log.append("b").await.unwrap();
    for limit in 1..4 {
        assert_eq!(listed(&log, limit).await, ["b", "a"]);
    }
    assert_eq!(log.newest().await.unwrap(), 5);
}

/// The claim takes over the entry of the upload, so the batch keeps its position.
#[tokio::test]
async fn an_uploaded_batch_keeps_its_position() {
    let log = BatchLog::new(memory());
    let number = log.append("a").await.unwrap();
    upload(&log.store, "a", Some(number)).await;
    split(&log, "b").await;
    assert_eq!(listed(&log, 1).await, ["b", "a"]);
    split(&log, "a").await;
    assert_eq!(listed(&log, 1).await, ["b", "a"]);
    assert_eq!(log.newest().await.unwrap(), 2);
    // This upload names an entry of a log that was deleted.
    upload(&log.store, "c", Some(1)).await;
    split(&log, "c").await;
    assert_eq!(listed(&log, 1).await, ["c", "b", "a"]);
}

/// Claims and uploads of earlier versions name no entry; their batches are listed after all others.
#[tokio::test]
async fn the_batches_of_an_earlier_version_are_listed_after_the_others() {
    let (watched, store) = watched();
    claim(&store, "old-claim", None).await;
    upload(&store, "old-upload", None).await;
    upload(&store, "old-claim", None).await;
    let log = BatchLog::new(Arc::clone(&store));
    split(&log, "new").await;
    // A splitter of an earlier version claims an upload without naming the entry: the upload names it.
    let number = log.append("mixed").await.unwrap();
    upload(&store, "mixed", Some(number)).await;
    claim(&store, "mixed", None).await;
    split(&log, "old-upload").await;
    let lists = watched.lists.load(SeqCst);
    for limit in 1..5 {
        assert_eq!(
            listed(&BatchLog::new(Arc::clone(&store)), limit).await,
            ["old-upload", "mixed", "new", "old-claim"]
        );
    }
    assert_eq!(watched.lists.load(SeqCst), lists, "no page needs a listing");
}

/// A process that must not write keeps the list of earlier batches in memory and leaves the store unchanged.
#[tokio::test]
async fn a_reader_lists_the_earlier_batches_without_writing() {
    let store = memory();
    for id in ["a", "b"] {
        claim(&store, id, None).await;
    }
    let log = BatchLog::new(Arc::clone(&store));
    assert_eq!(log.prepare_unwritten().await.unwrap(), Some(2));
    assert_eq!(log.prepare_unwritten().await.unwrap(), None);
    assert_eq!(listed(&log, 1).await.into_iter().collect::<BTreeSet<_>>(), ["a", "b"].map(str::to_owned).into());
    assert!(!store::exists(&store, &layout::batch_log_earlier()).await.unwrap());
    log.append("c").await.unwrap();
    assert!(
        store::exists(&store, &layout::batch_log_earlier()).await.unwrap(),
        "a process that appends writes the list"
    );
}

/// A removed log is rebuilt, even though the claims name entries of the old one, and also through a handle that has read
/// the old one.
#[tokio::test]
async fn a_removed_log_is_rebuilt() {
    let store = memory();
    let log = BatchLog::new(Arc::clone(&store));
    claim(&store, "old", None).await;
    for id in ["a", "b", "c"] {
        split(&log, id).await;
    }
    remove_log(&store).await;
    let all: BTreeSet<_> = ["old", "a", "b", "c"].map(str::to_owned).into();
    assert_eq!(listed(&log, 1).await.len(), 4);
    assert_eq!(listed(&log, 2).await.into_iter().collect::<BTreeSet<_>>(), all);
    remove_log(&store).await;
    split(&log, "d").await;
    // An older claim names this entry, which now holds the id of another batch.
    assert!(log.holds(1, "d").await.unwrap());
    for log in [log, BatchLog::new(store)] {
        let all_listed = listed(&log, 2).await;
        assert_eq!((all_listed.len(), &all_listed[0][..]), (5, "d"), "{all_listed:?}");
        assert!(all.is_subset(&all_listed.into_iter().collect()));
    }
}

/// A long list of earlier batches is read a range at a time.
#[tokio::test]
async fn many_earlier_batches_are_read_from_the_end() {
    let (watched, store) = watched();
    let mut ids = Vec::new();
    for n in 0..9_000_u64 {
        ids.push(format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    }
    let text: String = ids.iter().map(|id| format!("{id}\n")).collect();
    assert!(text.len() > 2 * 64 * 1024);
    store::create(&store, &layout::batch_log_earlier(), text).await.unwrap();
    for id in &ids {
        claim(&store, id, None).await;
    }
    ids.reverse();
    for limit in [7, 500] {
        assert_eq!(listed(&BatchLog::new(Arc::clone(&store)), limit).await, ids);
    }
    // A line that crosses the border of two ranges is read once.
    let log = BatchLog::new(Arc::clone(&store));
    let earlier = log.earlier().await.unwrap();
    let (mut end, mut lines) = (earlier.bytes(), Vec::new());
    while end > 0 {
        lines.extend(log.lines_before(&earlier, end, usize::MAX).await.unwrap());
        end = lines[lines.len() - 1].start;
    }
    assert!(lines.into_iter().filter_map(|line| line.batch_id).eq(ids.iter().cloned()));
    watched.gets.store(0, SeqCst);
    assert_eq!(page(&BatchLog::new(Arc::clone(&store)), None, 20).await.batches, ids[..20]);
    assert!(watched.gets.load(SeqCst) < 100 && watched.lists.load(SeqCst) == 0);
}

/// If the store is read-only, each process lists all batches once.
#[tokio::test]
async fn a_read_only_store_can_be_listed() {
    let (watched, store) = watched();
    for id in ["a", "b"] {
        claim(&store, id, None).await;
    }
    watched.is_read_only.store(true, SeqCst);
    let log = BatchLog::new(Arc::clone(&store));
    let built = log.prepare().await.unwrap().expect("the list was missing");
    assert!(built.batches == 2 && built.unwritten.unwrap().to_string().contains("read-only"));
    assert_eq!(listed(&log, 1).await.len(), 2);
    assert!(log.prepare().await.unwrap().is_none());
    assert_eq!(watched.lists.load(SeqCst), 2, "claims and uploads");
    assert!(log.append("c").await.is_err(), "a writer does not go on without the log");
    watched.is_read_only.store(false, SeqCst);
    split(&log, "c").await;
    assert_eq!(listed(&log, 1).await[0], "c");
    assert_eq!(listed(&log, 2).await.len(), 3);
}

#[tokio::test]
async fn an_invalid_batch_id_is_skipped() {
    let store = memory();
    store::create(&store, &layout::batch_log_earlier(), "a\n../../b\n\n\u{0}\nhalf a line").await.unwrap();
    let log = BatchLog::new(Arc::clone(&store));
    claim(&store, "a", None).await;
    log.append("../x").await.unwrap();
    log.append("").await.unwrap();
    assert_eq!(listed(&log, 1).await, ["a"]);
    // Cursors of another log are harmless.
    for after in [Cursor::Log(u64::MAX), Cursor::Earlier(u64::MAX), Cursor::Earlier(4), Cursor::Log(0)] {
        assert_eq!(page(&log, Some(after), 3).await.batches, ["a"], "{after}");
    }
    assert_eq!(page(&log, Some(Cursor::Earlier(1)), 3).await.batches, [""; 0]);
}

/// The reads for one page are bounded; the next page continues where it stops.
#[tokio::test]
async fn the_entries_read_for_a_page_are_bounded() {
    let (watched, store) = watched();
    let log = BatchLog::new(Arc::clone(&store));
    split(&log, "a").await;
    for _ in 0..1_000 {
        log.append("gone").await.unwrap();
    }
    watched.gets.store(0, SeqCst);
    let first = page(&log, None, 5).await;
    assert!(first.batches.is_empty() && first.next.is_some());
    assert!(watched.gets.load(SeqCst) < 400, "{:?}", watched.gets);
    assert_eq!(listed(&log, 5).await, ["a"]);
}

/// What happens to a store between two pages.
#[derive(Debug, Clone)]
enum Step {
    Split(u8),
    Upload(u8),
    BreakOff(u8),
    OtherProcess,
    Page(usize),
}

fn steps(with_pages: bool) -> impl Strategy<Value = Vec<Step>> {
    let changes = prop_oneof![
        3 => (0..30u8).prop_map(Step::Split),
        2 => (0..30u8).prop_map(Step::Upload),
        1 => (0..30u8).prop_map(Step::BreakOff),
        1 => Just(Step::OtherProcess),
    ];
    let step = prop_oneof![3 => changes, u32::from(with_pages) => (1..6usize).prop_map(Step::Page)];
    prop::collection::vec(step, 0..60)
}

async fn take(step: &Step, log: &mut BatchLog) {
    match step {
        Step::Split(n) => split(log, &format!("b{n}")).await,
        Step::Upload(n) => {
            // As the gateway does: a known batch keeps its entry.
            let id = format!("b{n}");
            if look(Arc::clone(&log.store), id.clone()).await.unwrap().is_none() {
                let number = log.append(&id).await.unwrap();
                upload(&log.store, &id, Some(number)).await;
            }
        }
        Step::BreakOff(n) => drop(log.append(&format!("b{n}")).await.unwrap()),
        Step::OtherProcess => *log = BatchLog::new(Arc::clone(&log.store)),
        Step::Page(_) => {}
    }
}

async fn every_batch_once(old: BTreeSet<u8>, before: Vec<Step>, during: Vec<Step>) -> std::result::Result<(), String> {
    let store = memory();
    for n in &old {
        claim(&store, &format!("b{n}"), None).await;
    }
    let mut log = BatchLog::new(Arc::clone(&store));
    for step in &before {
        take(step, &mut log).await;
    }
    let mut existing = BTreeSet::new();
    for n in 0..30 {
        let id = format!("b{n}");
        existing.extend(look(Arc::clone(&store), id).await.unwrap().map(|seen| seen.batch));
    }
    let (mut listed, mut cursor, mut is_begun) = (Vec::new(), None, false);
    for step in during.iter().chain(std::iter::repeat_n(&Step::Page(3), 40)) {
        take(step, &mut log).await;
        let Step::Page(limit) = step else { continue };
        if is_begun && cursor.is_none() {
            continue;
        }
        if !is_begun {
            for n in 0..30 {
                existing.extend(look(Arc::clone(&store), format!("b{n}")).await.unwrap().map(|seen| seen.batch));
            }
        }
        let Page { batches, next } = page(&log, cursor, *limit).await;
        listed.extend(batches);
        (cursor, is_begun) = (next, true);
    }
    let once: BTreeSet<String> = listed.iter().cloned().collect();
    if once.len() != listed.len() || !existing.is_subset(&once) || cursor.is_some() {
        return Err(format!("of {existing:?} these are listed: {listed:?}, then {cursor:?}"));
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_cursor_reads_back_unchanged(number: u64, is_earlier: bool) {
        let cursor = if is_earlier { Cursor::Earlier(number) } else { Cursor::Log(number) };
        prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
    }

    #[test]
    fn other_texts_are_not_cursors(text in "\\PC{0,12}|(log|earlier)[.][-+ ]?[0-9a-z]{0,22}") {
        if let Ok(cursor) = text.parse::<Cursor>() {
            let number = text.trim_start_matches(|c: char| c.is_ascii_lowercase() || c == '.').trim_start_matches('0');
            prop_assert!(number.is_empty() || cursor.to_string().ends_with(&format!(".{number}")), "{}", text);
        }
    }

    /// No batch is listed twice, and none that existed before is missing, whatever is written before and during paging.
    #[test]
    fn paging_lists_every_batch_once(
        old in prop::collection::btree_set(0..30u8, 0..10),
        before in steps(false),
        during in steps(true),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let result = runtime.block_on(every_batch_once(old, before, during));
        prop_assert_eq!(result, Ok(()));
    }
}
