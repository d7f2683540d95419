use super::*;
use crate::store::Writer;
use object_store::memory::InMemory;
use std::sync::Arc;

const DEADLINE: Duration = Duration::from_secs(30);

struct Gateway {
    store: Store,
    log: BatchLog,
    now: Timestamp,
}

fn request(batch_id: &str) -> Request<'static> {
    Request {
        batch_id: Some(batch_id.to_owned()),
        source: Some("rides é.json".to_owned()),
        reading: Reading::default(),
        lines: false,
        coding: None,
        idempotency: None,
    }
}

fn mapped(batch_id: &str) -> Request<'static> {
    let mut request = request(batch_id);
    request.reading.map.add("distance=km").unwrap();
    request
}

impl Gateway {
    fn new() -> Self {
        let store: Store = Arc::new(InMemory::new());
        Self { log: BatchLog::new(store.clone()), store, now: "2026-11-30T00:00:00Z".parse().unwrap() }
    }

    async fn written(&self, bytes: &'static str) -> Written {
        let mut writer = Writer::new(&self.store, &layout::incoming(7));
        writer.put(bytes.into()).await.unwrap();
        writer.finish().await.unwrap()
    }

    async fn keep(&self, bytes: &'static str, request: &Request<'_>) -> Result<(Upload, bool), Failure> {
        let incoming = self.written(bytes).await;
        let kept = keep(&self.store, &self.log, &incoming, request, self.now, DEADLINE).await;
        let left = store::list(&self.store, layout::INCOMING).await.unwrap();
        assert_eq!(left, [], "the temporary object is moved or removed");
        kept
    }

    /// Keeps an upload that is not refused. Returns its record.
    async fn kept(&self, bytes: &'static str, request: &Request<'_>) -> Upload {
        self.keep(bytes, request).await.unwrap().0
    }

    /// Returns the code and the words of an upload's refusal.
    async fn refusal(&self, bytes: &'static str, request: &Request<'_>) -> (&'static str, String) {
        match self.keep(bytes, request).await {
            Err(Failure::Permanent { reason, why }) => (reason, why),
            other => panic!("{bytes}: {other:?}"),
        }
    }

    async fn record(&self, batch_id: &str) -> Upload {
        read(&self.store, batch_id).await.unwrap().unwrap()
    }
}

/// The name of the object tells the splitter what its bytes do not: one ride per line, and the compression.
#[tokio::test]
async fn an_upload_is_stored_under_its_hash_with_its_record() {
    let gateway = Gateway::new();
    let request = Request { lines: true, coding: Some(Coding::Brotli), ..request("b") };
    let (upload, repaired) = gateway.keep("[{}]", &request).await.unwrap();
    assert!(!repaired && !upload.confirmed);
    let sha256 = hex::encode(Sha256::digest("[{}]"));
    assert_eq!((&upload.sha256, upload.bytes, upload.listed), (&sha256, 4, Some(1)));
    assert_eq!(upload.object, format!("raw/{}-rides__.json.ndjson.br", &sha256[..16]));
    assert_eq!(upload.submitted_at, "2026-11-30T00:00:00Z");
    assert_eq!(store::read(&gateway.store, &upload.object).await.unwrap().unwrap(), "[{}]");
    assert_eq!(named_after(&gateway.store, &sha256).await.unwrap(), vec![upload.object.clone()]);
    assert_eq!(gateway.record("b").await, upload);
}

/// The same batch again changes nothing, but repairs a damaged copy of its bytes.
#[tokio::test]
async fn the_same_batch_again_keeps_its_entry_and_repairs_its_bytes() {
    let gateway = Gateway::new();
    let mut first = gateway.kept("[{}]", &request("b")).await;
    confirm(&gateway.store, &mut first).await.unwrap();
    let again = gateway.keep("[{}]", &request("b")).await.unwrap();
    assert!(again.0.confirmed && !again.1);
    assert_eq!((again.0.listed, gateway.log.newest().await.unwrap()), (Some(1), 1));
    store::write(&gateway.store, &first.object, "[{").await.unwrap();
    assert!(gateway.keep("[{}]", &request("b")).await.unwrap().1);
    assert_eq!(store::read(&gateway.store, &first.object).await.unwrap().unwrap(), "[{}]");
    assert_eq!(gateway.record("b").await, first);
}

/// An id stands for the bytes and the reading of its claim, or else of a record that is confirmed or may still be.
#[tokio::test]
async fn an_id_of_another_batch_is_refused() {
    let gateway = Gateway::new();
    let mut first = gateway.kept("[{}]", &request("b")).await;
    let other_bytes =
        format!("batch b was submitted with other bytes (sha256 {}); choose another batch_id", first.sha256);
    assert_eq!(gateway.refusal("[1]", &request("b")).await, (BATCH_ID_CONFLICT, other_bytes));
    let other_reading =
        "batch b was submitted and is read without rides_at and map; choose another batch_id".to_owned();
    assert_eq!(gateway.refusal("[{}]", &mapped("b")).await, (BATCH_ID_CONFLICT, other_reading));
    confirm(&gateway.store, &mut first).await.unwrap();
    let later = Gateway { now: gateway.now + Duration::from_secs(86_400), ..gateway };
    assert!(later.refusal("[1]", &request("b")).await.1.contains("was submitted"), "it is confirmed");
    let claim = Claim {
        batch_id: "c".to_owned(),
        sha256: first.sha256,
        chunk_size: 1,
        source: None,
        object: None,
        listed: None,
        reading: Reading::default(),
    };
    store::write(&later.store, &layout::claim("c"), serde_json::to_vec(&claim).unwrap()).await.unwrap();
    for (bytes, request) in [("[1]", request("c")), ("[{}]", mapped("c"))] {
        assert!(later.refusal(bytes, &request).await.1.contains("already exists"), "{bytes}");
    }
    assert_eq!(later.kept("[{}]", &request("c")).await.listed, None, "it is older than the log");
}

#[tokio::test]
async fn an_unconfirmed_id_is_free_once_it_is_released_or_late() {
    let gateway = Gateway::new();
    let first = gateway.kept("[{}]", &request("b")).await;
    release(&gateway.store, &Upload { confirmed: true, ..first.clone() }).await.unwrap();
    assert_eq!(gateway.record("b").await, first, "another attempt has written the record");
    release(&gateway.store, &first).await.unwrap();
    let second = gateway.kept("[1]", &request("b")).await;
    assert_eq!(second.listed, Some(1), "it uses the same entry");
    let after = |seconds| Gateway {
        now: gateway.now + DEADLINE + Duration::from_secs(seconds),
        store: gateway.store.clone(),
        log: gateway.log.clone(),
    };
    assert!(after(60).refusal("[2]", &request("b")).await.1.contains("was submitted"));
    let third = after(61).kept("[2]", &request("b")).await;
    assert_eq!(gateway.record("b").await, third);
}

#[tokio::test]
async fn an_idempotency_key_stands_for_one_batch_of_one_publisher() {
    let gateway = Gateway::new();
    let with_key = |batch_id, who| Request { idempotency: Some((who, "k")), ..request(batch_id) };
    for who in ["ada", "ada", "bob"] {
        gateway.keep("[{}]", &with_key("b", who)).await.unwrap();
    }
    assert_eq!(gateway.refusal("[{}]", &with_key("c", "ada")).await.0, KEY_REUSED);
}

#[tokio::test]
async fn a_sweep_removes_uploads_of_yesterday() {
    let gateway = Gateway::new();
    gateway.written("[{}]").await;
    let now = Timestamp::now();
    assert_eq!(sweep(&gateway.store, now + Duration::from_secs(86_390)).await.unwrap(), 0);
    assert_eq!(sweep(&gateway.store, now + Duration::from_secs(86_410)).await.unwrap(), 1);
    assert_eq!(sweep(&gateway.store, now + Duration::from_secs(86_410)).await.unwrap(), 0);
}
