//! Kokoro's voices, heard by a Whisper that knows their languages.

use serde_json::{Value, json};

use crate::speech::{has_espeak, post, speak, transcribe};
use crate::support::{Server, ingle, test_folder, text};

const SENTENCE: &str = "The children are playing in the garden behind the house, and the train leaves at seven.";
const WORDS: [&str; 6] = ["children", "playing", "garden", "behind", "house", "train"];
const FRENCH: &str = "Bonjour, je voudrais du pain et du fromage, s'il vous plaît.";
const FRENCH_WORDS: [&str; 4] = ["bonjour", "voudrais", "pain", "fromage"];

fn models() -> Option<tempfile::TempDir> {
    let folder = test_folder(&["kokoro-82m", "faster-whisper-base"])?;
    let yaml = "- {name: voices, backend: kokoro, parameters: {model: kokoro-82m/kokoro-v1.0.int8.onnx}}\n\
                - {name: heart, backend: kokoro, tts: {voice: af_heart}, parameters: {model: kokoro-82m}}\n\
                - {name: mute, backend: kokoro, parameters: {model: kokoro-mute.onnx}}\n\
                - {name: base, backend: faster-whisper, parameters: {model: faster-whisper-base}}\n";
    std::fs::write(folder.path().join("voices.yaml"), yaml).expect("it is written");
    std::fs::write(folder.path().join("kokoro-mute.onnx"), "no network").expect("it is written");
    Some(folder)
}

fn n_heard(words: &[&str], text: &str) -> usize {
    let text = text.to_lowercase();
    words.iter().filter(|word| text.contains(*word)).count()
}

/// Says something; the sound as a WAV file.
fn say(server: &Server, request: &Value) -> Vec<u8> {
    let (status, kind, wav) = speak(server, &request.to_string());
    assert_eq!((status, kind.as_str()), (200, "audio/wav"), "{request}: {}", String::from_utf8_lossy(&wav));
    wav
}

#[test]
fn kokoro_speaks_several_languages() {
    let Some(folder) = models().filter(|_| has_espeak()) else { return };
    let server = Server::start(ingle(&["run", "--models-path", folder.path().to_str().expect("UTF-8")]));
    let mut lens = Vec::new();
    for (model, voice, speed) in [("voices", "alloy", 1.0), ("heart", "", 1.0), ("voices", "bm_george", 1.5)] {
        let request =
            json!({"model": model, "input": SENTENCE, "voice": voice, "speed": speed, "response_format": "wav"});
        let wav = say(&server, &request);
        let rate = u32::from_le_bytes(wav[24..28].try_into().expect("four bytes"));
        assert_eq!(rate, 24_000);
        lens.push(wav.len());
        let fields = [("model", "base"), ("response_format", "text")];
        let (status, _, written) = transcribe(&server, "/v1/audio/transcriptions", &wav, &fields);
        assert!(status == 200 && n_heard(&WORDS, &written) >= 5, "{voice}: {written}");
    }
    assert!(lens[2] * 5 < lens[0] * 4, "faster speech is shorter: {lens:?}");
    let french =
        say(&server, &json!({"model": "voices", "input": FRENCH, "voice": "ff_siwis", "response_format": "wav"}));
    understands_french(&server, &french);
    refuses(&server);
}

/// The language is found, written, and translated.
fn understands_french(server: &Server, wav: &[u8]) {
    let fields = [("model", "base"), ("response_format", "verbose_json")];
    let (_, _, written) = transcribe(server, "/v1/audio/transcriptions", wav, &fields);
    let found: Value = serde_json::from_str(&written).expect("JSON");
    assert_eq!(found["language"], "french", "{written}");
    assert!(n_heard(&FRENCH_WORDS, &written) >= 3, "{written}");
    let (status, _, english) = transcribe(server, "/v1/audio/translations", wav, &[("model", "base")]);
    assert!(status == 200 && n_heard(&["hello", "bread", "cheese", "like", "please"], &english) >= 3, "{english}");
}

fn refuses(server: &Server) {
    let (status, _, answer) = speak(server, r#"{"model": "voices", "input": "a", "voice": "zf_xiaobei"}"#);
    let answer = text(&answer);
    assert!(status == 400 && answer.contains("af_heart"), "{answer}");
    let (status, _, answer) =
        post(&format!("{}/tts", server.url), "application/json", br#"{"model": "mute", "input": "a"}"#);
    let answer = text(&answer);
    // The models folder of the test has no voices of its own.
    assert!(status >= 400 && answer.contains("voices"), "{status} {answer}");
}
