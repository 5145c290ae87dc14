//! Line and bar charts as SVG, without scripts and without anything from elsewhere.

use std::fmt::Write as _;

use super::number;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 44.0;
const N_TICKS: usize = 5;
/// Colours that people with any kind of sight can tell apart (Okabe and Ito, 2008).
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#444444"];

/// One line of a chart.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) name: String,
    /// In the order of x.
    pub(super) points: Vec<(f64, f64)>,
}

/// One bar of a chart.
#[derive(Debug, Clone)]
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) value: f64,
}

/// Lines over a common x, both axes from 0. Empty without points.
pub(super) fn lines(x_name: &str, y_name: &str, lines: &[Line]) -> String {
    let points = || lines.iter().flat_map(|line| &line.points).filter(|(x, y)| x.is_finite() && y.is_finite());
    let most = |of: &dyn Fn(&(f64, f64)) -> f64| points().map(of).fold(0.0, f64::max);
    let (x_most, y_most) = (most(&|point| point.0), most(&|point| point.1));
    if x_most <= 0.0 || y_most <= 0.0 {
        return String::new();
    }
    let (x_end, y_end) = (round_up(x_most), round_up(y_most));
    let x = |value: f64| LEFT + value / x_end * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - value / y_end * (HEIGHT - TOP - BOTTOM);
    let mut svg = open(x_name, y_name);
    for tick in 0..=N_TICKS {
        let share = tick as f64 / N_TICKS as f64;
        let (at_x, at_y) = (x(share * x_end), y(share * y_end));
        tick_lines(&mut svg, at_x, at_y, &number(share * x_end), &number(share * y_end));
    }
    for (idx, line) in lines.iter().enumerate() {
        let colour = COLOURS[idx % COLOURS.len()];
        let path: Vec<String> =
            line.points.iter().map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1))).collect();
        // Writing to a string cannot fail.
        let _ =
            write!(svg, r#"<polyline fill="none" stroke="{colour}" stroke-width="2" points="{}"/>"#, path.join(" "));
        if line.points.len() <= 20 {
            for point in &line.points {
                let _ = write!(svg, r#"<circle cx="{:.1}" cy="{:.1}" r="3" fill="{colour}"/>"#, x(point.0), y(point.1));
            }
        }
    }
    svg.push_str("</svg>");
    svg.push_str(&legend(lines.iter().map(|line| line.name.as_str())));
    svg
}

/// Horizontal bars from 0 to `end`.
pub(super) fn bars(x_name: &str, end: f64, bars: &[Bar]) -> String {
    const BAR: f64 = 22.0;
    let name_width = 260.0;
    let height = TOP + bars.len() as f64 * BAR + 24.0;
    let mut svg = format!(
        r#"<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{}" xmlns="http://www.w3.org/2000/svg">"#,
        escape(x_name)
    );
    for (idx, bar) in bars.iter().enumerate() {
        let top = TOP + idx as f64 * BAR;
        let length = (bar.value / end).clamp(0.0, 1.0) * (WIDTH - name_width - 70.0);
        let _ = write!(
            svg,
            r#"<text x="{}" y="{}" text-anchor="end">{}</text><rect x="{name_width}" y="{top}" width="{length:.1}" height="{}" fill="{}"/><text x="{:.1}" y="{}">{}</text>"#,
            name_width - 6.0,
            top + 14.0,
            escape(&bar.name),
            BAR - 6.0,
            COLOURS[0],
            name_width + length + 6.0,
            top + 14.0,
            number(bar.value)
        );
    }
    let _ = write!(svg, r#"<text x="{name_width}" y="{}">{}</text></svg>"#, height - 6.0, escape(x_name));
    svg
}

fn open(x_name: &str, y_name: &str) -> String {
    format!(
        r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{y_name} over {x_name}" xmlns="http://www.w3.org/2000/svg"><text x="{}" y="{}" text-anchor="middle">{x_name}</text><text transform="translate(14,{}) rotate(-90)" text-anchor="middle">{y_name}</text>"#,
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 6.0,
        (TOP + HEIGHT - BOTTOM) / 2.0,
        x_name = escape(x_name),
        y_name = escape(y_name)
    )
}

fn tick_lines(svg: &mut String, x: f64, y: f64, x_text: &str, y_text: &str) {
    let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
    let _ = write!(
        svg,
        r##"<path d="M{LEFT} {y:.1}H{right}M{x:.1} {TOP}V{bottom}" stroke="#8884" fill="none"/><text x="{x:.1}" y="{}" text-anchor="middle">{x_text}</text><text x="{}" y="{:.1}" text-anchor="end">{y_text}</text>"##,
        bottom + 16.0,
        LEFT - 6.0,
        y + 4.0
    );
}

fn legend<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let entry = |(idx, name): (usize, &str)| {
        format!(r#"<li style="--c:{}">{}</li>"#, COLOURS[idx % COLOURS.len()], escape(name))
    };
    format!(r#"<ul class="legend">{}</ul>"#, names.enumerate().map(entry).collect::<String>())
}

/// The next number of the kind 1, 2, 2.5, 5 times a power of ten.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|step| step * power).find(|&end| end >= value).unwrap_or(value)
}

/// Text inside HTML and SVG.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
