//! Recordings on their way in.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};

use super::{Answered, Server, Setup};
use crate::ServerOptions;

const PIECE: usize = 1000;

fn server(audio_limit_bytes: usize) -> Server {
    Setup { options: ServerOptions { audio_limit_bytes, ..ServerOptions::default() }, ..Setup::default() }.build()
}

/// Sends a form with a file of `n_pieces` pieces, each after a pause; how much of it the server read comes with the
/// answer.
async fn upload(server: &Server, n_pieces: usize, pause: Duration, announced: Option<usize>) -> (Answered, usize) {
    let head = "--edge\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n";
    let pieces = std::iter::once(Bytes::from(head)).chain((0..n_pieces).map(|_| Bytes::from(vec![0; PIECE])));
    let pieces = pieces.chain([Bytes::from("\r\n--edge--\r\n")]);
    let n_read = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&n_read);
    let body = stream::iter(pieces).then(move |piece| {
        let counted = Arc::clone(&counted);
        async move {
            tokio::time::sleep(pause).await;
            counted.fetch_add(piece.len(), Ordering::Relaxed);
            Ok::<_, std::io::Error>(piece)
        }
    });
    let mut request = Request::post("/v1/audio/transcriptions?model=nobody");
    request = request.header("content-type", "multipart/form-data; boundary=edge");
    if let Some(bytes) = announced {
        request = request.header("content-length", bytes);
    }
    let answered = server.send(request.body(Body::from_stream(body)).expect("a request")).await;
    (answered, n_read.load(Ordering::Relaxed))
}

fn code(answered: &Answered) -> String {
    answered.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_recording_over_its_limit_is_read_to_its_end_and_refused() {
    let server = server(10 * PIECE);
    for announced in [None, Some(20 * PIECE)] {
        let (answered, n_read) = upload(&server, 20, Duration::ZERO, announced).await;
        assert_eq!((answered.status.as_u16(), code(&answered).as_str()), (413, "body_too_large"), "{announced:?}");
        assert!(n_read > 20 * PIECE, "{n_read} bytes were read");
    }
    let (answered, _) = upload(&server, 9, Duration::ZERO, None).await;
    assert_eq!((answered.status.as_u16(), code(&answered).as_str()), (404, "model_not_found"));
}

#[tokio::test]
async fn a_recording_may_be_larger_than_other_bodies() {
    let options = ServerOptions { body_limit_bytes: PIECE, text_limit_bytes: PIECE, ..ServerOptions::default() };
    let server = Setup { options, ..Setup::default() }.build();
    assert_eq!(code(&upload(&server, 100, Duration::ZERO, None).await.0), "model_not_found");
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_has_time_for_each_piece() {
    let patience = ServerOptions::default().body_timeout;
    let server = server(1 << 20);
    let (answered, _) = upload(&server, 10, patience * 3 / 4, None).await;
    assert_eq!(code(&answered), "model_not_found", "minutes in all");
    let (answered, _) = upload(&server, 10, patience * 2, None).await;
    assert_eq!((answered.status.as_u16(), code(&answered).as_str()), (400, "body_timeout"));
}
