use super::Resampler;

fn tone(rate: u32, secs: f64) -> Vec<f32> {
    let n = (f64::from(rate) * secs) as usize;
    (0..n).map(|at| (at as f64 * 440.0 * std::f64::consts::TAU / f64::from(rate)).sin() as f32).collect()
}

#[test]
fn a_tone_stays_a_tone_in_time() {
    for (from, to) in [(44_100, 16_000), (8_000, 16_000), (192_000, 16_000), (22_050, 24_000), (16_000, 16_000)] {
        let mut resampler = Resampler::new(from, to);
        let mut found = Vec::new();
        for piece in tone(from, 1.0).chunks(777) {
            found.extend(resampler.push(piece));
        }
        found.extend(resampler.finish());
        assert!(found.len().abs_diff(to as usize) <= 1, "{from} to {to}: {} samples", found.len());
        let wanted = tone(to, 1.0);
        let middle = to as usize / 10..to as usize * 9 / 10;
        let worst = middle.map(|at| (found[at] - wanted[at]).abs()).fold(0.0, f32::max);
        // Delays are whole samples: a fraction of one is left.
        assert!(worst < 0.05, "{from} to {to}: {worst}");
    }
}

#[test]
fn nothing_becomes_nothing_and_one_sample_few() {
    assert!(Resampler::new(44_100, 16_000).finish().is_empty());
    let mut resampler = Resampler::new(8_000, 16_000);
    let mut found = resampler.push(&[0.5]);
    found.extend(resampler.finish());
    assert_eq!(found.len(), 2);
}

#[test]
fn a_piece_of_any_length_costs_its_length() {
    // Ten minutes at once; moving the rest up behind each chunk took a minute.
    let begun = std::time::Instant::now();
    let found = Resampler::new(48_000, 16_000).push(&vec![0.0; 600 * 48_000]);
    assert!(found.len() > 599 * 16_000 && begun.elapsed().as_secs() < 30, "{:?}", begun.elapsed());
}
