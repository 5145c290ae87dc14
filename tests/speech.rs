//! Speech over HTTP and on the command line: a voice speaks, Whisper writes down what it said.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::openai::run_client;
use crate::support::{Server, ingle, stdout_of, test_folder, text};

/// A voice draws its noise anew each time; these words were heard in every one of many tries.
const SENTENCES: &str = "The children are playing in the garden behind the house. Breakfast is on the table, and the train leaves at seven.";
const WORDS: [&str; 8] = ["children", "playing", "garden", "behind", "house", "breakfast", "table", "train"];

pub(crate) fn has_espeak() -> bool {
    let found = Command::new("espeak-ng").arg("--version").output().is_ok();
    if !found {
        eprintln!("skipped: espeak-ng is not installed");
    }
    found
}

/// A folder with the voice, Whisper and the detector, where they are installed.
fn models() -> Option<tempfile::TempDir> {
    let folder =
        test_folder(&["en_US-joe-medium.onnx", "en_US-joe-medium.onnx.json", "whisper-tiny.en", "silero_vad.onnx"])?;
    let yaml = "- {name: voice, backend: piper, parameters: {model: en_US-joe-medium.onnx}}\n\
                - {name: whisper, backend: whisper, parameters: {model: whisper-tiny.en}}\n\
                - {name: small, backend: whisper, options: ['compute_type:int8', 'beam_size:2'], parameters: {model: whisper-tiny.en}}\n\
                - {name: vad, backend: silero-vad, parameters: {model: silero_vad.onnx}}\n";
    std::fs::write(folder.path().join("speech.yaml"), yaml).expect("it is written");
    Some(folder)
}

fn serve(folder: &Path) -> Server {
    Server::start(ingle(&["run", "--models-path", folder.to_str().expect("UTF-8")]))
}

fn agent() -> ureq::Agent {
    let patience = Some(Duration::from_secs(300));
    ureq::Agent::config_builder().http_status_as_error(false).timeout_global(patience).build().into()
}

pub(crate) fn post(url: &str, media_type: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
    let mut answer = agent().post(url).header("content-type", media_type).send(body).expect("the server answers");
    let kind = answer.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
    let bytes = answer.body_mut().with_config().limit(64 << 20).read_to_vec().expect("a whole body");
    (answer.status().as_u16(), kind, bytes)
}

pub(crate) fn speak(server: &Server, body: &str) -> (u16, String, Vec<u8>) {
    post(&format!("{}/v1/audio/speech", server.url), "application/json", body.as_bytes())
}

/// A form with a file and fields.
pub(crate) fn transcribe(server: &Server, path: &str, file: &[u8], fields: &[(&str, &str)]) -> (u16, String, String) {
    let mut body = Vec::new();
    for (name, value) in fields {
        body.extend(format!("--edge\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").bytes());
    }
    body.extend(b"--edge\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n");
    body.extend(file);
    body.extend(b"\r\n--edge--\r\n");
    let (status, kind, bytes) = post(&format!("{}{path}", server.url), "multipart/form-data; boundary=edge", &body);
    (status, kind, text(&bytes))
}

fn heard(text: &str) -> usize {
    let text = text.to_lowercase();
    WORDS.iter().filter(|word| text.contains(*word)).count()
}

#[test]
fn what_is_spoken_is_written_down() {
    let Some(folder) = models().filter(|_| has_espeak()) else { return };
    let server = serve(folder.path());
    let mut wav = Vec::new();
    for (format, media_type) in
        [("wav", "audio/wav"), ("mp3", "audio/mpeg"), ("opus", "audio/ogg"), ("flac", "audio/flac")]
    {
        let body =
            serde_json::json!({"model": "voice", "input": SENTENCES, "voice": "alloy", "response_format": format});
        let (status, kind, sound) = speak(&server, &body.to_string());
        assert_eq!((status, kind.as_str()), (200, media_type), "{format}: {}", String::from_utf8_lossy(&sound));
        let fields = [("model", "whisper"), ("response_format", "text")];
        let (status, _, text) = transcribe(&server, "/v1/audio/transcriptions", &sound, &fields);
        assert_eq!(status, 200, "{format}: {text}");
        assert!(heard(&text) >= 7, "{format}: {text}");
        if format == "wav" {
            wav = sound;
        }
    }
    forms(&server, &wav);
    streams(&server, &wav);
    finds_speech(&server, &wav);
    let arguments: Vec<&str> = ["whisper", "voice"].into_iter().chain(SENTENCES.split(' ')).collect();
    run_client("INGLE_OPENAI_PYTHON", "audio_check.py", &server, &arguments);
}

fn forms(server: &Server, wav: &[u8]) {
    let ask = |fields: &[(&str, &str)]| transcribe(server, "/v1/audio/transcriptions", wav, fields);
    let (_, kind, vtt) = ask(&[("model", "small"), ("response_format", "vtt")]);
    assert!(kind.starts_with("text/vtt") && vtt.starts_with("WEBVTT\n\n00:00:00."), "{vtt}");
    let (_, _, srt) = ask(&[("model", "small"), ("response_format", "srt"), ("language", "en")]);
    assert!(srt.starts_with("1\n00:00:00,"), "{srt}");
    let words = [("timestamp_granularities[]", "word"), ("timestamp_granularities[]", "segment")];
    let (status, _, verbose) = ask(&[("response_format", "verbose_json"), words[0], ("model", "whisper"), words[1]]);
    let verbose: Value = serde_json::from_str(&verbose).expect("JSON");
    assert_eq!(
        (status, verbose["language"].as_str(), verbose["task"].as_str()),
        (200, Some("english"), Some("transcribe"))
    );
    let words = verbose["words"].as_array().expect("words");
    assert!(words.len() >= 15, "{verbose}");
    let starts: Vec<f64> = words.iter().filter_map(|word| word["start"].as_f64()).collect();
    assert!(starts.is_sorted(), "{starts:?}");
    let duration = verbose["duration"].as_f64().expect("a duration");
    assert!((4.0..12.0).contains(&duration) && starts[starts.len() - 1] < duration, "{verbose}");
    assert!(verbose["segments"][0]["avg_logprob"].as_f64().is_some_and(|logprob| logprob < 0.0), "{verbose}");
    // LocalAI tells everything when it is not asked, and only the text for `json`.
    let whole: Value = serde_json::from_str(&ask(&[("model", "whisper")]).2).expect("JSON");
    assert!(whole["segments"].is_array() && whole["text"].is_string(), "{whole}");
    let bare: Value = serde_json::from_str(&ask(&[("model", "whisper"), ("response_format", "json")]).2).expect("JSON");
    assert_eq!(bare.as_object().map(serde_json::Map::len), Some(1), "{bare}");
}

fn streams(server: &Server, wav: &[u8]) {
    let fields = [("model", "whisper"), ("stream", "true"), ("response_format", "json")];
    let (status, kind, events) = transcribe(server, "/v1/audio/transcriptions", wav, &fields);
    assert_eq!((status, kind.split(';').next()), (200, Some("text/event-stream")), "{events}");
    let frames: Vec<&str> = events.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(frames.last(), Some(&"[DONE]"));
    let frames: Vec<Value> =
        frames[..frames.len() - 1].iter().map(|frame| serde_json::from_str(frame).expect("JSON")).collect();
    let (done, deltas) = frames.split_last().expect("frames");
    assert_eq!(done["type"], "transcript.text.done");
    let text: String = deltas.iter().filter_map(|frame| frame["delta"].as_str()).collect();
    assert_eq!(done["text"].as_str(), Some(text.trim()));
    let body = serde_json::json!({"model": "voice", "input": "Hello.", "voice": "nova", "stream_format": "sse"});
    let events = text_of(speak(server, &body.to_string()));
    assert!(events.contains("speech.audio.delta") && events.contains("speech.audio.done"), "{events}");
}

fn text_of((status, _, bytes): (u16, String, Vec<u8>)) -> String {
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&bytes));
    text(&bytes)
}

fn finds_speech(server: &Server, wav: &[u8]) {
    // Two seconds of silence, every other sample of the voice's 22,050 Hz left out for about 16 kHz, silence again.
    let sample = |at: usize| f32::from(i16::from_le_bytes([wav[44 + 2 * at], wav[45 + 2 * at]])) / 32768.0;
    let n = (wav.len() - 44) / 2;
    let voice = (0..n * 16_000 / 22_050).map(|at| sample(at * 22_050 / 16_000));
    let silence = || std::iter::repeat_n(0.0, 32_000);
    let samples: Vec<f32> = silence().chain(voice).chain(silence()).collect();
    let body = serde_json::json!({"model": "vad", "audio": samples}).to_string();
    let found = text_of(post(&format!("{}/vad", server.url), "application/json", body.as_bytes()));
    let found: Value = serde_json::from_str(&found).expect("JSON");
    let segments = found["segments"].as_array().expect("segments");
    assert!(!segments.is_empty(), "{found}");
    let start = segments[0]["start"].as_f64().expect("a start");
    assert!((1.8..2.6).contains(&start), "{found}");
}

/// Samples of a WAV file of 16 bits.
fn samples(wav: &[u8]) -> Vec<f32> {
    wav[44..].chunks_exact(2).map(|pair| f32::from(i16::from_le_bytes([pair[0], pair[1]])) / 32768.0).collect()
}

#[test]
fn silence_and_noise_are_left_out_and_times_stay() {
    const RATE: u32 = 22_050;
    let Some(folder) = models().filter(|_| has_espeak()) else { return };
    let server = serve(folder.path());
    let say = |text: &str| {
        let body = serde_json::json!({"model": "voice", "input": text, "response_format": "wav"});
        let (status, _, wav) = speak(&server, &body.to_string());
        assert_eq!(status, 200);
        samples(&wav)
    };
    let (first, second) = SENTENCES.split_once(". ").expect("two sentences");
    let (first, second) = (say(first), say(second));
    let mut random = 5_u32;
    let mut noise = || {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        0.02 * (f64::from(random) / f64::from(u32::MAX) - 0.5) as f32
    };
    let mut sound = vec![0.0; 10 * RATE as usize];
    sound.extend(&first);
    sound.extend((0..40 * RATE).map(|_| noise()));
    let quiet_from = 10.0 + first.len() as f64 / f64::from(RATE);
    // The voice begins a little after its file.
    let onset = second.iter().position(|sample| sample.abs() > 0.05).expect("a voice");
    let begins = (sound.len() + onset) as f64 / f64::from(RATE);
    sound.extend(&second);
    let wav = ingle::media::wav(&sound, RATE);
    let server_vad = r#"{"type": "server_vad", "silence_duration_ms": 1000}"#;
    for (field, value) in [("vad_filter", "true"), ("chunking_strategy", "auto"), ("chunking_strategy", server_vad)] {
        let fields = [("model", "whisper"), ("timestamp_granularities[]", "word"), (field, value)];
        let (status, _, body) = transcribe(&server, "/v1/audio/transcriptions", &wav, &fields);
        assert_eq!(status, 200, "{body}");
        let answer: Value = serde_json::from_str(&body).expect("JSON");
        assert!(heard(answer["text"].as_str().expect("a text")) >= 7, "{field}: {body}");
        let duration = answer["duration"].as_f64().expect("a duration");
        assert!((duration - sound.len() as f64 / f64::from(RATE)).abs() < 0.01, "{duration}");
        let starts: Vec<f64> =
            answer["words"].as_array().expect("words").iter().filter_map(|word| word["start"].as_f64()).collect();
        assert!(starts.iter().all(|at| (9.5..quiet_from + 0.2).contains(at) || *at > begins - 0.5), "{starts:?}");
        let found = starts.iter().find(|at| **at > quiet_from + 0.2).expect("words of the second sentence");
        assert!((found - begins).abs() < 0.3, "the second sentence begins at {begins}, was found at {found}");
    }
    let (status, _, body) =
        transcribe(&server, "/v1/audio/transcriptions", &wav, &[("model", "whisper"), ("vad_filter", "maybe")]);
    assert_eq!(status, 400, "{body}");
    let file = folder.path().join("gaps.wav");
    std::fs::write(&file, &wav).expect("it is written");
    let (file, models) = (file.to_str().expect("UTF-8"), folder.path().to_str().expect("UTF-8"));
    let said = stdout_of(ingle(&["transcript", file, "--model", "whisper", "--vad", "--models-path", models]));
    assert!(heard(&said) >= 7, "{said}");
}

#[test]
fn bad_input_is_told_what_is_wrong() {
    let Some(folder) = models() else { return };
    let server = serve(folder.path());
    let code =
        |body: &str| serde_json::from_str::<Value>(body).expect("JSON")["error"]["code"].as_str().map(str::to_owned);
    for (file, wanted) in [(&b""[..], "invalid_audio"), (b"no sound", "invalid_audio"), (&[0; 4000], "invalid_audio")] {
        let (status, _, body) = transcribe(&server, "/v1/audio/transcriptions", file, &[("model", "whisper")]);
        assert_eq!((status, code(&body).as_deref()), (400, Some(wanted)), "{body}");
    }
    let wav = ingle::media::wav(&[0.0; 1600], 16_000);
    for (fields, wanted) in [
        (vec![("model", "whisper"), ("response_format", "docx")], "invalid_value"),
        (vec![("model", "whisper"), ("language", "klingon")], "invalid_value"),
        (vec![("model", "whisper"), ("temperature", "hot")], "invalid_value"),
        (vec![("model", "whisper"), ("translate", "true")], "model_incapable"),
        (vec![("model", "voice")], "model_incapable"),
        (vec![("model", "gone")], "model_not_found"),
    ] {
        let (status, _, body) = transcribe(&server, "/v1/audio/transcriptions", &wav, &fields);
        assert!((400..500).contains(&status), "{fields:?}: {status} {body}");
        assert_eq!(code(&body).as_deref(), Some(wanted), "{fields:?}: {body}");
    }
    // A tenth of a second and a single sample of silence are recordings in which nothing is said.
    for wav in [wav, ingle::media::wav(&[0.5], 16_000)] {
        let (status, _, body) =
            transcribe(&server, "/v1/audio/transcriptions", &wav, &[("model", "whisper"), ("response_format", "srt")]);
        assert_eq!((status, body.as_str()), (200, ""));
    }
    for (body, wanted) in [
        (r#"{"model": "voice"}"#.to_owned(), "invalid_value"),
        (r#"{"model": "voice", "input": "  ?! "}"#.to_owned(), "invalid_value"),
        (r#"{"model": "voice", "input": "a", "voice": "nobody"}"#.to_owned(), "invalid_value"),
        (r#"{"model": "voice", "input": "a", "speed": 9}"#.to_owned(), "invalid_value"),
        (r#"{"model": "voice", "input": "a", "response_format": "aac"}"#.to_owned(), "invalid_value"),
        (serde_json::json!({"model": "voice", "input": "word ".repeat(200_000)}).to_string(), "invalid_value"),
    ] {
        let (status, _, answer) = speak(&server, &body);
        let answer = text(&answer);
        assert_eq!((status, code(&answer).as_deref()), (400, Some(wanted)), "{answer}");
    }
}

#[test]
fn the_command_line_speaks_and_listens() {
    let Some(folder) = models().filter(|_| has_espeak()) else { return };
    let models = folder.path().to_str().expect("UTF-8");
    let file = folder.path().join("said.mp3");
    let file = file.to_str().expect("UTF-8");
    stdout_of(ingle(&["tts", SENTENCES, "--model", "voice", "--output-file", file, "--models-path", models]));
    let said = stdout_of(ingle(&["transcript", file, "--model", "whisper", "--models-path", models]));
    assert!(heard(&said) >= 7, "{said}");
    let json = stdout_of(ingle(&[
        "transcript",
        file,
        "--model",
        "small",
        "--response-format",
        "verbose_json",
        "--words",
        "--models-path",
        models,
    ]));
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert!(json["segments"][0]["words"].as_array().is_some_and(|words| words.len() > 5), "{json}");
}
