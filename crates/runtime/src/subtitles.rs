//! Transcripts as text: plain, SubRip, WebVTT, lyrics.
use std::fmt::Write as _;

use ingle_engine::HeardSegment;

/// A form of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TranscriptForm {
    /// The words alone.
    Plain,
    /// SubRip.
    Srt,
    /// WebVTT.
    Vtt,
    /// Lyrics.
    Lrc,
}

impl TranscriptForm {
    /// The form of a name as OpenAI and LocalAI spell it.
    pub fn find(name: &str) -> Option<Self> {
        Some(match name {
            "text" | "txt" => Self::Plain,
            "srt" => Self::Srt,
            "vtt" => Self::Vtt,
            "lrc" => Self::Lrc,
            _ => return None,
        })
    }

    /// The media type of a body.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Plain | Self::Srt | Self::Lrc => "text/plain; charset=utf-8",
            Self::Vtt => "text/vtt; charset=utf-8",
        }
    }

    /// What stands in front of the first segment.
    pub fn head(self) -> &'static str {
        match self {
            Self::Plain | Self::Srt => "",
            Self::Vtt => "WEBVTT\n\n",
            Self::Lrc => "[by:Ingle]\n[re:Ingle]\n",
        }
    }

    /// One segment, counted from 0.
    pub fn segment(self, id: usize, segment: &HeardSegment) -> String {
        let text = segment.text.trim();
        match self {
            Self::Plain => format!("{text}\n"),
            Self::Srt => {
                let (start, end) = (clock(segment.start_secs, ','), clock(segment.end_secs, ','));
                format!("{}\n{start} --> {end}\n{}\n\n", id + 1, cue(text))
            }
            Self::Vtt => {
                format!("{} --> {}\n{}\n\n", clock(segment.start_secs, '.'), clock(segment.end_secs, '.'), cue(text))
            }
            Self::Lrc => {
                let hundredths = (segment.start_secs * 100.0).round() as u64;
                let (minutes, rest) = (hundredths / 6000, hundredths % 6000);
                format!("[{minutes:02}:{:02}.{:02}]{text}\n", rest / 100, rest % 100)
            }
        }
    }
}

/// An arrow in a text would be read as times.
fn cue(text: &str) -> String {
    text.replace("-->", "->")
}

/// `HH:MM:SS` and milliseconds behind `mark`.
fn clock(secs: f64, mark: char) -> String {
    let millis = (secs * 1000.0).round() as u64;
    let (hours, minutes, secs) = (millis / 3_600_000, millis / 60_000 % 60, millis / 1000 % 60);
    let mut text = String::new();
    let _ = write!(text, "{hours:02}:{minutes:02}:{secs:02}{mark}{:03}", millis % 1000);
    text
}

#[cfg(test)]
mod tests {
    use super::{HeardSegment, TranscriptForm};

    #[test]
    fn times_are_written_as_each_form_wants_them() {
        let segment = HeardSegment {
            start_secs: 3661.5,
            end_secs: 3723.0046,
            text: " a --> b".into(),
            tokens: Vec::new(),
            words: Vec::new(),
            temperature: 0.0,
            avg_logprob: 0.0,
            compression_ratio: 1.0,
            no_speech_prob: 0.0,
        };
        let form = |form: TranscriptForm| form.segment(0, &segment);
        assert_eq!(form(TranscriptForm::Plain), "a --> b\n");
        assert_eq!(form(TranscriptForm::Srt), "1\n01:01:01,500 --> 01:02:03,005\na -> b\n\n");
        assert_eq!(form(TranscriptForm::Vtt), "01:01:01.500 --> 01:02:03.005\na -> b\n\n");
        assert_eq!(form(TranscriptForm::Lrc), "[61:01.50]a --> b\n");
    }
}
