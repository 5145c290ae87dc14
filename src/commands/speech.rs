//! `ingle transcript` and `ingle tts`: speech without a server.

use std::fs::File;
use std::io::{Cursor, Read, Write, stdin, stdout};
use std::path::Path;

use anyhow::{Context, bail};
use futures_executor::block_on;
use indicatif::{ProgressBar, ProgressStyle};
use ingle::catalog::NoProgress;
use ingle::media::{MediaSource, SoundEncoder, SoundFormat};
use ingle::{
    HeardSegment, HearingTask, Runtime, Setup, SpeakCall, TranscribeCall, TranscriptForm, Transcription, VoiceFilter,
    VoiceFilterOptions,
};
use serde_json::json;

use super::locate::{ON_THE_WAY, locate};
use crate::cli::{FolderArgs, LoadArgs, TranscriptArgs, TtsArgs};
use crate::output;

/// Longest text that is read from standard input.
const MAX_TEXT_BYTES: u64 = 1 << 20;

/// Runs `ingle transcript`.
pub(crate) fn transcript(args: TranscriptArgs) -> anyhow::Result<()> {
    let is_json = matches!(args.response_format.as_str(), "json" | "verbose_json");
    let form = TranscriptForm::find(&args.response_format);
    if form.is_none() && !is_json {
        bail!("--response-format {} is not one of text, srt, vtt, lrc, json, verbose_json", args.response_format);
    }
    let (runtime, model) = open(args.model.as_deref(), &args.folder, &args.load)?;
    let call = TranscribeCall {
        model,
        audio: source(&args.file)?,
        language: args.language,
        task: args.translate.then_some(HearingTask::Translate),
        prompt: args.prompt.unwrap_or_default(),
        temperature: None,
        n_beams: args.beam_size,
        word_times: args.words,
        voice_filter: if args.vad { VoiceFilter::On(VoiceFilterOptions::default()) } else { VoiceFilter::Configured },
    };
    let mut transcription = block_on(runtime.transcribe(call))?;
    let bar = bar();
    let mut segments = Vec::new();
    if let Some(form) = form {
        output::print(form.head())?;
    }
    while let Some(segment) = block_on(transcription.next())? {
        bar.set_message(format!("{:.0} s written", segment.end_secs));
        bar.tick();
        if let Some(form) = form {
            bar.suspend(|| output::print(&form.segment(segments.len(), &segment)))?;
        }
        segments.push(segment);
    }
    bar.finish_and_clear();
    if is_json {
        let whole = object(&transcription, &segments, args.response_format == "verbose_json");
        let text = if args.pretty_print { format!("{whole:#}\n") } else { format!("{whole}\n") };
        output::print(&text)?;
    }
    Ok(())
}

fn object(transcription: &Transcription, segments: &[HeardSegment], is_verbose: bool) -> serde_json::Value {
    let text: String = segments.iter().map(|segment| segment.text.as_str()).collect();
    if !is_verbose {
        return json!({ "text": text.trim() });
    }
    let one = |segment: &HeardSegment| {
        let words = segment.words.iter();
        let words = words.map(|word| json!({"word": word.text.trim(), "start": word.start_secs, "end": word.end_secs}));
        let mut one = json!({"start": segment.start_secs, "end": segment.end_secs, "text": segment.text});
        if !segment.words.is_empty() {
            one["words"] = words.collect();
        }
        one
    };
    json!({
        "language": transcription.language().map(|(_, name)| name),
        "duration": transcription.done_secs(),
        "text": text.trim(),
        "segments": segments.iter().map(one).collect::<Vec<_>>(),
    })
}

/// Runs `ingle tts`.
pub(crate) fn tts(args: TtsArgs) -> anyhow::Result<()> {
    let text = if args.text.is_empty() { read_text()? } else { args.text.join(" ") };
    let to_stdout = args.output_file == Path::new("-");
    let ending = args.output_file.extension().and_then(|ending| ending.to_str()).unwrap_or("wav");
    let format = args.format.as_deref().unwrap_or(if to_stdout { "wav" } else { ending });
    let format =
        SoundFormat::find(format).with_context(|| format!("{format} is not one of wav, mp3, opus, flac, pcm"))?;
    let (runtime, model) = open(args.model.as_deref(), &args.folder, &args.load)?;
    let mut speech = block_on(runtime.speak(SpeakCall { model, text, voice: args.voice, speed: args.speed }))?;
    let mut out: Box<dyn Write> = if to_stdout {
        Box::new(stdout().lock())
    } else {
        let refused = || format!("{} cannot be written", args.output_file.display());
        Box::new(File::create(&args.output_file).with_context(refused)?)
    };
    let mut encoder = SoundEncoder::new(format, speech.sample_rate(), None)?;
    let (bar, mut n_samples) = (bar(), 0);
    while let Some(sound) = block_on(speech.next())? {
        n_samples += sound.len();
        out.write_all(&encoder.push(&sound)?)?;
        bar.set_message(format!("{:.1} s spoken", n_samples as f64 / f64::from(speech.sample_rate())));
        bar.tick();
    }
    out.write_all(&encoder.finish()?)?;
    out.flush()?;
    bar.finish_and_clear();
    if !to_stdout {
        output::print(&format!("{}\n", args.output_file.display()))?;
    }
    Ok(())
}

/// Shows that something happens, on a terminal.
fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {elapsed_precise} {msg}");
    ProgressBar::new_spinner().with_style(style.expect("the template is well formed"))
}

/// A file, or standard input for `-`.
fn source(file: &Path) -> anyhow::Result<Box<dyn MediaSource>> {
    if file == Path::new("-") {
        let mut bytes = Vec::new();
        stdin().lock().read_to_end(&mut bytes).context("the recording cannot be read from standard input")?;
        return Ok(Box::new(Cursor::new(bytes)));
    }
    Ok(Box::new(File::open(file).with_context(|| format!("{} cannot be read", file.display()))?))
}

fn read_text() -> anyhow::Result<String> {
    let mut text = String::new();
    stdin()
        .lock()
        .take(MAX_TEXT_BYTES)
        .read_to_string(&mut text)
        .context("the text cannot be read from standard input")?;
    Ok(text)
}

fn open(model: Option<&str>, folder: &FolderArgs, load: &LoadArgs) -> anyhow::Result<(Runtime, Option<String>)> {
    let setup = Setup {
        config_file: folder.models_config_file.clone(),
        defaults: load.defaults(),
        ..Setup::new(&folder.models_path)
    };
    let runtime = setup.runtime()?;
    let name = model.map(|what| locate(runtime.catalog(), what, ON_THE_WAY, &NoProgress)).transpose()?;
    Ok((runtime, name))
}
