//! What a message says: text, or parts of several kinds.
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize as DeriveDeserialize, Serialize};

/// A message's content: plain text or a list of parts.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Content {
    /// Plain text.
    Text(String),
    /// Parts, in reading order.
    Parts(Vec<ContentPart>),
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a list of content parts")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Content, E> {
        Ok(Content::Text(text.to_owned()))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Content, E> {
        Ok(Content::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Content, A::Error> {
        let mut parts = Vec::new();
        while let Some(part) = seq.next_element()? {
            parts.push(part);
        }
        Ok(Content::Parts(parts))
    }
}

/// One part of a message.
#[derive(Debug, Clone, PartialEq, Serialize, DeriveDeserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(!try_from))]
#[serde(tag = "type", rename_all = "snake_case", try_from = "RawPart")]
pub enum ContentPart {
    /// Text.
    Text {
        /// The text itself.
        text: String,
    },
    /// A refusal in an earlier answer.
    Refusal {
        /// The text of the refusal.
        refusal: String,
    },
    /// An image.
    ImageUrl {
        /// Where the image is.
        image_url: MediaUrl,
    },
    /// A sound given by address (LocalAI).
    AudioUrl {
        /// Where the sound is.
        audio_url: MediaUrl,
    },
    /// A film given by address.
    VideoUrl {
        /// Where the film is.
        video_url: MediaUrl,
    },
    /// A sound inside the request.
    InputAudio {
        /// The sound.
        input_audio: AudioData,
    },
}

/// An address (`http(s)://`, `data:`) or bare base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MediaUrl {
    /// The address.
    pub url: String,
    /// How closely to look: `auto`, `low` or `high`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// A sound as base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, DeriveDeserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AudioData {
    /// The file's bytes in base64.
    pub data: String,
    /// The file's format, such as `wav` or `mp3`.
    #[serde(default)]
    pub format: Option<String>,
}

impl<'de> Deserialize<'de> for MediaUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MediaUrlVisitor)
    }
}

#[derive(DeriveDeserialize)]
struct MediaUrlObject {
    url: String,
    #[serde(default)]
    detail: Option<String>,
}

struct MediaUrlVisitor;

impl<'de> Visitor<'de> for MediaUrlVisitor {
    type Value = MediaUrl;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an address or an object with `url`")
    }

    fn visit_str<E: de::Error>(self, url: &str) -> Result<MediaUrl, E> {
        self.visit_string(url.to_owned())
    }

    fn visit_string<E: de::Error>(self, url: String) -> Result<MediaUrl, E> {
        Ok(MediaUrl { url, detail: None })
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<MediaUrl, A::Error> {
        let object = MediaUrlObject::deserialize(de::value::MapAccessDeserializer::new(map))?;
        Ok(MediaUrl { url: object.url, detail: object.detail })
    }
}

/// A part before its `type` is looked at, so that `type` may come last and faults keep their path.
#[derive(DeriveDeserialize)]
struct RawPart {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    refusal: Option<String>,
    #[serde(default)]
    image_url: Option<MediaUrl>,
    #[serde(default)]
    audio_url: Option<MediaUrl>,
    #[serde(default)]
    video_url: Option<MediaUrl>,
    #[serde(default)]
    url: Option<MediaUrl>,
    #[serde(default)]
    input_audio: Option<AudioData>,
}

impl TryFrom<RawPart> for ContentPart {
    type Error = String;

    fn try_from(raw: RawPart) -> Result<Self, String> {
        match raw.kind.as_str() {
            "text" | "input_text" | "output_text" => Ok(Self::Text { text: needed(raw.text, "text", "text")? }),
            "refusal" => Ok(Self::Refusal { refusal: needed(raw.refusal, "refusal", "refusal")? }),
            "image_url" | "image" => {
                Ok(Self::ImageUrl { image_url: needed(raw.image_url.or(raw.url), "image", "image_url")? })
            }
            "audio_url" | "audio" => {
                Ok(Self::AudioUrl { audio_url: needed(raw.audio_url.or(raw.url), "audio", "audio_url")? })
            }
            "video_url" | "video" => {
                Ok(Self::VideoUrl { video_url: needed(raw.video_url.or(raw.url), "video", "video_url")? })
            }
            "input_audio" => {
                Ok(Self::InputAudio { input_audio: needed(raw.input_audio, "input_audio", "input_audio")? })
            }
            other => Err(format!(
                "unknown content part type `{}`; use text, image_url, input_audio, audio_url, video_url or refusal",
                other.escape_debug()
            )),
        }
    }
}

fn needed<T>(value: Option<T>, kind: &str, key: &str) -> Result<T, String> {
    value.ok_or_else(|| format!("a content part of type `{kind}` needs the key `{key}`"))
}
