//! Reads of any length, in requests that each end soon.
//!
//! A request has a time limit, and a service closes a connection that nobody reads. A reader may be busy for longer: the splitter
//! waits for the broker, the gateway for a slow client. So a read takes one block at a time: the next one is requested, by its
//! range and the etag of the first, while the reader uses the last one. A task of its own receives it, also while nobody waits
//! for it. Memory: two blocks per open read.

use super::legible::legible;
use crate::store::Store;
use bytes::Bytes;
use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use object_store::{Error, GetOptions, GetResult, GetResultPayload, ObjectMeta, Result, path::Path};
use std::ops::Range;
use tokio_util::task::AbortOnDropHandle;

/// Maximum size of a block that the end of the object does not cut short, bytes; up to one piece of a response is added.
const BLOCK_BYTES: u64 = 4 << 20;

/// A block, in the pieces in which it arrived.
type Block = Vec<Bytes>;

/// Opens an object. Returns once its first block has arrived.
///
/// # Errors
/// Fails as the store does. The returned stream fails with `Precondition` if the object is replaced while it is read.
pub(super) async fn open(store: &Store, location: &Path, options: GetOptions) -> Result<GetResult> {
    let (opened, path) = (Store::clone(store), location.clone());
    let opening = tokio::spawn(async move { first(&opened, &path, options).await });
    let (mut object, first) = joined(AbortOnDropHandle::new(opening)).await?;
    let taken: u64 = first.iter().map(|piece| piece.len() as u64).sum();
    let rest = object.range.start + taken..object.range.end;
    let pieces = stream::iter(first.into_iter().map(Ok)).chain(blocks(store, &object.meta, rest));
    object.payload = GetResultPayload::Stream(pieces.boxed());
    Ok(object)
}

/// Starts a read and takes its first block. The request ends there: its connection is closed if more would follow.
async fn first(store: &Store, location: &Path, options: GetOptions) -> Result<(GetResult, Block)> {
    let mut object = store.get_opts(location, options).await.map_err(legible)?;
    let empty = GetResultPayload::Stream(stream::empty().boxed());
    let GetResultPayload::Stream(mut pieces) = std::mem::replace(&mut object.payload, empty) else {
        return Err(Error::NotSupported { source: "a file in the place of a response".into() });
    };
    let (mut block, mut bytes) = (Block::new(), 0);
    while bytes < BLOCK_BYTES
        && let Some(piece) = pieces.try_next().await.map_err(legible)?
    {
        bytes += piece.len() as u64;
        block.push(piece);
    }
    Ok((object, block))
}

/// Returns the bytes of a range, each block requested while the one before it is in use.
fn blocks(store: &Store, meta: &ObjectMeta, range: Range<u64>) -> BoxStream<'static, Result<Bytes>> {
    let request = {
        let (store, location, etag) = (Store::clone(store), meta.location.clone(), meta.e_tag.clone());
        move |at: u64| {
            let wanted = at..range.end.min(at + BLOCK_BYTES);
            (!wanted.is_empty()).then(|| {
                let reading = block(Store::clone(&store), location.clone(), etag.clone(), wanted.clone());
                (AbortOnDropHandle::new(tokio::spawn(reading)), wanted.end)
            })
        }
    };
    let pieces = stream::try_unfold((None, range.start, request), |(requested, at, request)| async move {
        let Some((reading, end)) = requested.or_else(|| request(at)) else { return Ok::<_, Error>(None) };
        let block = joined(reading).await?;
        let next = request(end);
        Ok(Some((stream::iter(block.into_iter().map(Ok)), (next, end, request))))
    });
    pieces.try_flatten().boxed()
}

/// Reads one block whole.
async fn block(store: Store, location: Path, etag: Option<String>, range: Range<u64>) -> Result<Block> {
    let length = range.end - range.start;
    let options = GetOptions { range: Some(range.into()), if_match: etag, ..GetOptions::default() };
    let object = store.get_opts(&location, options).await.map_err(legible)?;
    let block: Block = object.into_stream().try_collect().await.map_err(legible)?;
    match block.iter().map(|piece| piece.len() as u64).sum::<u64>() {
        bytes if bytes == length => Ok(block),
        bytes => {
            let source = format!("{location}: {bytes} bytes of a range of {length}").into();
            Err(Error::Generic { store: "cloud", source })
        }
    }
}

/// Returns the result of a task; passes a panic on.
async fn joined<T>(task: impl Future<Output = std::result::Result<Result<T>, tokio::task::JoinError>>) -> Result<T> {
    task.await.unwrap_or_else(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(source) => Err(Error::JoinError { source }),
    })
}

#[cfg(test)]
mod tests {
    use crate::store::{Store, cloud::Cloud};
    use futures::TryStreamExt;
    use object_store::{
        Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt, chunked::ChunkedStore, memory::InMemory, path::Path,
    };
    use std::sync::Arc;

    /// More than two blocks.
    const LENGTH: usize = 10_000_000;
    /// Size of the pieces of a response.
    const PIECE_BYTES: usize = 60_000;

    fn content() -> Vec<u8> {
        (0..LENGTH).map(|at| (at / 7) as u8).collect()
    }

    async fn stores() -> (Arc<InMemory>, Store, Path) {
        let inner = Arc::new(InMemory::new());
        let in_pieces = ChunkedStore::new(inner.clone(), PIECE_BYTES);
        let (cloud, path): (Store, _) = (Arc::new(Cloud::around(Arc::new(in_pieces))), Path::from("raw/a"));
        inner.put(&path, content().into()).await.unwrap();
        (inner, cloud, path)
    }

    /// The bytes are the object's, whatever part of it is asked for.
    #[tokio::test]
    async fn any_range_is_read_in_blocks() {
        let (_, cloud, path) = stores().await;
        let content = content();
        let end = LENGTH as u64;
        for (range, expected) in [
            (None, &content[..]),
            (Some(GetRange::Bounded(0..end)), &content[..]),
            (Some(GetRange::Bounded(5..9_000_000)), &content[5..9_000_000]),
            (Some(GetRange::Bounded(9_999_990..end + 100)), &content[9_999_990..]),
            (Some(GetRange::Offset(3)), &content[3..]),
            (Some(GetRange::Suffix(9)), &content[LENGTH - 9..]),
        ] {
            let object =
                cloud.get_opts(&path, GetOptions { range: range.clone(), ..GetOptions::default() }).await.unwrap();
            assert_eq!(object.meta.size, end);
            assert_eq!(object.range.end - object.range.start, expected.len() as u64, "{range:?}");
            assert!(object.bytes().await.unwrap() == expected, "{range:?}");
        }
        cloud.put(&path, Vec::new().into()).await.unwrap();
        assert!(cloud.get(&path).await.unwrap().bytes().await.unwrap().is_empty());
    }

    /// No reader gets bytes of two versions.
    #[tokio::test]
    async fn a_read_of_a_replaced_object_fails() {
        let (inner, cloud, path) = stores().await;
        let mut pieces = cloud.get(&path).await.unwrap().into_stream();
        let mut bytes = pieces.try_next().await.unwrap().unwrap().len();
        inner.put(&path, vec![0; LENGTH].into()).await.unwrap();
        let failed = loop {
            match pieces.try_next().await {
                Ok(Some(piece)) => bytes += piece.len(),
                Ok(None) => panic!("the object was read to its end"),
                Err(error) => break error,
            }
        };
        assert!(matches!(failed, Error::Precondition { .. }) && bytes < LENGTH, "{failed} after {bytes} bytes");
    }

    /// The clients of the services join ranges that are close together, and panic if one of them begins beyond the end.
    #[tokio::test]
    async fn a_range_that_begins_beyond_the_end_is_an_error() {
        let (_, cloud, path) = stores().await;
        let end = LENGTH as u64;
        assert!(cloud.get_ranges(&path, &[end - 10..end - 5, end + 1..end + 2]).await.is_err());
        let read = cloud.get_ranges(&path, &[0..1, 5..7]).await.unwrap();
        assert!(read[0] == content()[..1] && read[1] == content()[5..7]);
    }
}
