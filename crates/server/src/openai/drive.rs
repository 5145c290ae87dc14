//! Several answers at once, as one stream of frames.
//!
//! All answers of a request are read together: an answer that nobody reads rests, and would hold its slot.
use std::pin::Pin;

use bytes::BytesMut;
use futures_util::stream::{self, SelectAll, Stream, StreamExt};
use ingle_runtime::RuntimeError;

use crate::error::ApiError;
use crate::sse::Frames;

/// Events of several answers, each with the answer's index.
pub(super) type Events<E> = SelectAll<Pin<Box<dyn Stream<Item = (usize, Result<E, RuntimeError>)> + Send>>>;

/// Turns events into frames.
pub(super) trait Encode: Send + 'static {
    /// What an answer yields.
    type Event: Send + 'static;

    /// Appends the frames of one event; there may be none.
    fn encode(&mut self, idx: usize, event: Self::Event, out: &mut BytesMut);

    /// Appends what comes after the last event.
    fn finish(&mut self, out: &mut BytesMut);
}

/// Reads all answers together.
pub(super) fn select<S, E>(answers: Vec<S>) -> Events<E>
where
    S: Stream<Item = Result<E, RuntimeError>> + Send + 'static,
    E: 'static,
{
    let indexed = answers.into_iter().enumerate().map(|(idx, answer)| answer.map(move |event| (idx, event)).boxed());
    stream::select_all(indexed)
}

/// The frames of all answers, in the order in which their events come.
pub(super) fn frames<E: Encode>(events: Events<E::Event>, encoder: E) -> Frames {
    stream::unfold(Some((events, encoder)), |state| async move {
        let (mut events, mut encoder) = state?;
        let mut out = BytesMut::new();
        loop {
            match events.next().await {
                Some((idx, Ok(event))) => encoder.encode(idx, event, &mut out),
                Some((_, Err(error))) => return Some((Err(ApiError::from(error)), None)),
                None => {
                    encoder.finish(&mut out);
                    return (!out.is_empty()).then(|| (Ok(out.freeze()), None));
                }
            }
            if !out.is_empty() {
                return Some((Ok(out.freeze()), Some((events, encoder))));
            }
        }
    })
    .boxed()
}
