//! Values that LocalAI's flags allow.

use std::time::Duration;

use ingle::GpuLayers;

/// A number, or the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OrDefault(pub(super) Option<usize>);

/// A number; 0 means the default, as in LocalAI.
pub(super) fn number_or_default(text: &str) -> Result<OrDefault, String> {
    let number: usize = text.trim().parse().map_err(|_| "use a whole number, or 0 for the default".to_owned())?;
    Ok(OrDefault((number > 0).then_some(number)))
}

/// `auto`, or how many.
pub(super) fn gpu_layers(text: &str) -> Result<GpuLayers, String> {
    match text.trim() {
        "auto" | "all" => Ok(GpuLayers::Auto),
        number => {
            let number = number.parse().map_err(|_| "use a number of layers, or auto for as many as fit".to_owned());
            number.map(GpuLayers::Count)
        }
    }
}

/// A length of time as Go spells it: `1h30m`, `1.5s`, `500ms`; `0` is none.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, f64); 7] =
        [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("h", 3600.0), ("m", 60.0), ("s", 1.0)];
    let refused = || format!("{text:?} is no length of time; write 90s, 15m or 1h30m");
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let mut secs = 0.0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(refused)?;
        let value: f64 = rest[..number].parse().map_err(|_| refused())?;
        rest = &rest[number..];
        let (unit, factor) = UNITS.iter().find(|(unit, _)| rest.starts_with(unit)).ok_or_else(refused)?;
        secs += value * factor;
        rest = &rest[unit.len()..];
    }
    match Duration::try_from_secs_f64(secs) {
        Ok(duration) if !text.trim().is_empty() => Ok(duration),
        Ok(_) | Err(_) => Err(refused()),
    }
}

/// An amount of memory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Amount {
    /// This many bytes.
    Bytes(u64),
    /// This share of what there is.
    Share(f64),
}

/// `12GB`, `8GiB`, `4096MB`, a number of bytes, or `80%`.
pub(super) fn amount(text: &str) -> Result<Amount, String> {
    const UNITS: [(&str, u64); 10] = [
        ("kib", 1 << 10),
        ("mib", 1 << 20),
        ("gib", 1 << 30),
        ("tib", 1 << 40),
        ("kb", 1_000),
        ("mb", 1_000_000),
        ("gb", 1_000_000_000),
        ("tb", 1_000_000_000_000),
        ("b", 1),
        ("", 1),
    ];
    let refused = || format!("{text:?} is no amount of memory; write 12GB, 8GiB or 80%");
    let lower = text.trim().to_ascii_lowercase();
    if let Some(percent) = lower.strip_suffix('%') {
        let percent: f64 = percent.trim().parse().map_err(|_| refused())?;
        return if percent > 0.0 && percent <= 100.0 { Ok(Amount::Share(percent / 100.0)) } else { Err(refused()) };
    }
    let digits = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let number: f64 = lower[..digits].parse().map_err(|_| refused())?;
    let unit = lower[digits..].trim();
    let (_, factor) = UNITS.iter().find(|(known, _)| *known == unit).ok_or_else(refused)?;
    Ok(Amount::Bytes((number * *factor as f64) as u64))
}

/// A share between 0 and 1.
pub(super) fn share(text: &str) -> Result<f64, String> {
    match text.trim().parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("use a number from 0 to 1".to_owned()),
    }
}
