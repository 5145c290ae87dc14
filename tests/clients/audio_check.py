#!/usr/bin/env python3
"""Drives a running server's speech endpoints with the official `openai` package.

Usage: audio_check.py http://127.0.0.1:PORT TRANSCRIBER VOICE WORD...

The words are those that the server's own voice is asked to speak and its own transcriber must hear.
"""

import io
import sys
import wave

import openai

failures = []


def check(name, holds, detail=""):
    print(("ok    " if holds else "FAIL  ") + name + (f"  ({detail})" if detail else ""))
    if not holds:
        failures.append(name)


def refuses(name, call):
    try:
        call()
    except openai.BadRequestError as error:
        check(name, True, str(error)[:90])
    else:
        check(name, False, "no error at all")


def main():
    url, transcriber, voice, *words = sys.argv[1:]
    client = openai.OpenAI(base_url=url + "/v1", api_key="unused", max_retries=0)
    spoken = " ".join(words)

    def say(form, **more):
        return client.audio.speech.create(model=voice, voice="alloy", input=spoken, response_format=form, **more)

    sounds = {form: say(form).read() for form in ("wav", "mp3", "opus", "flac", "pcm")}
    starts = {"wav": (b"RIFF",), "mp3": (b"ID3", b"\xff\xfb", b"\xff\xf3"), "opus": (b"OggS",), "flac": (b"fLaC",)}
    for form, marks in starts.items():
        check(f"speech: {form}", sounds[form].startswith(marks), str(sounds[form][:4]))
    with wave.open(io.BytesIO(sounds["wav"])) as sound:
        seconds = sound.getnframes() / sound.getframerate()
    # A voice takes a little longer or shorter each time; another rate than 24 kHz would be off by a tenth.
    wavs = [say("wav").read() for _ in range(4)]
    lengths = [(len(wav) - 44) / (2 * int.from_bytes(wav[24:28], "little")) for wav in wavs]
    bare = [len(say("pcm").read()) / 48_000 for _ in range(4)]
    check("speech: pcm is 24 kHz, 16 bits, one channel", abs(sum(bare) / sum(lengths) - 1) < 0.06, f"{sum(bare) / sum(lengths):.3f}")
    with wave.open(io.BytesIO(say("wav", speed=2.0).read())) as sound:
        share = sound.getnframes() / sound.getframerate() / seconds
    check("speech: twice as fast", 0.35 < share < 0.7, f"{share:.2f}")
    streamed = bytearray()
    with client.audio.speech.with_streaming_response.create(
        model=voice, voice="alloy", input=spoken, response_format="pcm"
    ) as answer:
        for piece in answer.iter_bytes(4096):
            streamed.extend(piece)
    check("speech: streamed", abs(len(streamed) - len(sounds["pcm"])) <= 48_000, f"{len(streamed)}")
    refuses("speech: no text", lambda: client.audio.speech.create(model=voice, voice="alloy", input=""))

    def hear(form="json", file=("said.wav", sounds["wav"]), **more):
        return client.audio.transcriptions.create(model=transcriber, file=file, response_format=form, **more)

    def has(text):
        return sum(word.lower().strip(".,") in text.lower() for word in words) >= 0.75 * len(words)

    check("transcription: json", has(hear().text), hear().text)
    for form in ("mp3", "opus", "flac"):
        heard = hear(file=(f"said.{form}", sounds[form])).text
        check(f"transcription of {form}", has(heard), heard)
    for form in ("text", "srt", "vtt"):
        heard = hear(form)
        check(f"transcription: {form}", isinstance(heard, str) and has(heard.replace("\n", " ")))
    verbose = hear("verbose_json", timestamp_granularities=["word", "segment"])
    check("verbose_json: text, duration, language", has(verbose.text) and abs(float(verbose.duration) - seconds) < 0.1)
    check("verbose_json: segments in order", [s.start for s in verbose.segments] == sorted(s.start for s in verbose.segments))
    check("verbose_json: words inside", all(0 <= w.start <= w.end <= seconds + 0.1 for w in verbose.words))
    check("verbose_json: every word", has(" ".join(w.word for w in verbose.words)))
    deltas, done = [], None
    for event in hear(stream=True):
        if event.type == "transcript.text.delta":
            deltas.append(event.delta)
        elif event.type == "transcript.text.done":
            done = event.text
    check("stream: deltas join to the text", done is not None and "".join(deltas).strip() == done.strip() and has(done))
    refuses("transcription: no sound", lambda: hear(file=("said.wav", b"no sound at all")))
    refuses("translation by an English model", lambda: client.audio.translations.create(
        model=transcriber, file=("said.wav", sounds["wav"])))
    sys.exit(1 if failures else 0)


main()
