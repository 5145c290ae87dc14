//! Reading a recording beside whoever takes its samples.

use std::panic::{AssertUnwindSafe, catch_unwind};

use ingle_engine::{EngineError, HEARING_RATE};
use tokio::sync::mpsc;

use crate::RuntimeError;
use crate::media::{AudioReader, MediaError, MediaSource};

/// Samples that a message of the reading thread has at least.
const PIECE_LEN: usize = HEARING_RATE;
/// Messages that wait for their turn: sound is read a little ahead, so memory stays the same for any length.
const PIECES_AHEAD: usize = 4;

/// Samples of a recording, or why there are no more.
pub(super) type Sound = Result<Vec<f32>, MediaError>;

/// Reads a file on a thread of its own, a little ahead of whoever takes the samples. It ends with the receiver.
///
/// # Errors
/// [`RuntimeError::Media`] for a file that is no sound.
pub(super) fn read_aside(audio: Box<dyn MediaSource>) -> Result<mpsc::Receiver<Sound>, RuntimeError> {
    let opened = catch_unwind(AssertUnwindSafe(|| AudioReader::open(audio)));
    let mut reader = opened.unwrap_or_else(|_| Err(panicked()))?;
    let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
    let read = move || {
        // A decoder that panics must not look like the end of the recording.
        if catch_unwind(AssertUnwindSafe(|| read_all(&mut reader, &sender))).is_err() {
            // Nobody misses it who is gone.
            let _ = sender.blocking_send(Err(panicked()));
        }
    };
    let thread = std::thread::Builder::new().name("audio".into()).spawn(read);
    thread.map_err(|error| EngineError::Decode { reason: format!("no thread could be started: {error}") })?;
    Ok(receiver)
}

fn panicked() -> MediaError {
    MediaError::Damaged { reason: "its decoder failed".into() }
}

fn read_all(reader: &mut AudioReader, sender: &mpsc::Sender<Sound>) {
    let mut piece = Vec::new();
    loop {
        match reader.read() {
            Ok(Some(samples)) => piece.extend(samples),
            Ok(None) => {
                // The last piece; nobody misses it who is gone.
                let _ = sender.blocking_send(Ok(piece));
                return;
            }
            Err(error) => {
                let _ = sender.blocking_send(Err(error));
                return;
            }
        }
        if piece.len() >= PIECE_LEN && sender.blocking_send(Ok(std::mem::take(&mut piece))).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Read, Result, Seek, SeekFrom};

    use super::*;

    /// A file whose reader panics behind its first 100,000 bytes, as a decoder of a damaged file may.
    struct Trap(Cursor<Vec<u8>>);

    impl Read for Trap {
        fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
            assert!(self.0.position() < 100_000, "a test");
            self.0.read(buffer)
        }
    }

    impl Seek for Trap {
        fn seek(&mut self, to: SeekFrom) -> Result<u64> {
            self.0.seek(to)
        }
    }

    impl MediaSource for Trap {
        fn is_seekable(&self) -> bool {
            false
        }

        fn byte_len(&self) -> Option<u64> {
            None
        }
    }

    #[test]
    fn a_decoder_that_panics_is_no_end() {
        let wav = crate::media::wav(&[0.1; 200_000], 16_000);
        let mut sound = read_aside(Box::new(Trap(Cursor::new(wav)))).unwrap();
        let mut last = None;
        while let Some(piece) = sound.blocking_recv() {
            last = Some(piece);
        }
        assert!(matches!(last, Some(Err(MediaError::Damaged { .. }))));
    }
}
