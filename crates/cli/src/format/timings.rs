//! The page of `--timings`: a build as bars over time, and as a table that says the same.
//!
//! One file that asks for nothing: styles and script stand in it, and its own policy lets nothing else in. Names of steps,
//! paths and messages are hostile; all of them pass [`escaped`]. Bars are SVG attributes, because the policy forbids styles
//! in attributes as well.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mica_oci::Digest;

use super::size::human_size;
use crate::progress::printable;

const STYLE: &str = include_str!("timings.css");
const SCRIPT: &str = include_str!("timings.js");

/// Shares of the width in which the words beside a bar surely and just about find room.
const LABEL_ROOM: f64 = 0.25;
const LABEL_ROOM_MIN: f64 = 0.12;

/// Longest text of a foreign name or message on the page.
const TEXT_LENGTH_MAX: usize = 2000;

/// A build, pictured.
pub(crate) struct Page {
    /// Name of the Dockerfile.
    pub dockerfile: String,
    /// Names of the image.
    pub tags: String,
    /// When it began, in words.
    pub begun: String,
    /// Why it failed, if it did.
    pub error: Option<String>,
    /// How long all of it took.
    pub wall_ms: u64,
    /// All that took time; inputs stand before what waits for them.
    pub bars: Vec<Bar>,
}

/// A step, or something else that took time. Times are milliseconds since the build began.
#[derive(Debug, Clone)]
pub(crate) struct Bar {
    pub stage: String,
    pub name: String,
    /// In the Dockerfile, from 1.
    pub line: Option<usize>,
    pub state: State,
    pub why: String,
    pub start_ms: u64,
    pub end_ms: u64,
    /// Positions of what it had to wait for.
    pub inputs: Vec<usize>,
    pub bytes_in: Option<u64>,
    pub bytes_out: Option<u64>,
    /// What the run took that made a result that was taken over.
    pub saved_ms: Option<u64>,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Waiting,
    Running,
    Ran,
    Cached,
    Failed,
    Cancelled,
}

impl Bar {
    /// Something that has not begun.
    pub fn new(stage: &str, name: &str) -> Self {
        Self {
            stage: stage.to_owned(),
            name: name.to_owned(),
            line: None,
            state: State::Waiting,
            why: String::new(),
            start_ms: 0,
            end_ms: 0,
            inputs: Vec::new(),
            bytes_in: None,
            bytes_out: None,
            saved_ms: None,
        }
    }

    fn duration_ms(&self) -> u64 {
        self.end_ms.saturating_sub(self.start_ms)
    }

    fn is_step(&self) -> bool {
        self.line.is_some()
    }
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Waiting => "not reached",
            Self::Running => "running",
            Self::Ran => "ran",
            Self::Cached => "cached",
            Self::Failed => "failed",
            Self::Cancelled => "ended early",
        }
    }

    /// Also the name of its style.
    fn class(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running | Self::Ran => "ran",
            Self::Cached => "cached",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Positions of the chain of bars that took longest together, in order: no number of cores makes the build faster than that.
pub(crate) fn longest_chain(bars: &[Bar]) -> Vec<usize> {
    let mut sums: Vec<(u64, Option<usize>)> = Vec::with_capacity(bars.len());
    for (position, bar) in bars.iter().enumerate() {
        let inputs = bar.inputs.iter().filter(|input| **input < position);
        let longest = inputs.filter_map(|input| Some((sums.get(*input)?.0, *input))).max();
        let (before, from) = longest.map_or((0, None), |(sum, input)| (sum, Some(input)));
        sums.push((before.saturating_add(bar.duration_ms()), from));
    }
    let mut chain = Vec::new();
    // Of equal ends the later one, which has what leads nowhere behind it.
    let is_begun = |position: &usize| bars.get(*position).is_some_and(|bar| bar.state != State::Waiting);
    let mut next =
        (0..sums.len()).filter(is_begun).max_by_key(|position| sums.get(*position).map(|(sum, _)| *sum));
    while let Some(position) = next {
        chain.push(position);
        next = sums.get(position).and_then(|(_, from)| *from);
    }
    chain.reverse();
    chain
}

fn chain_ms(bars: &[Bar], chain: &[usize]) -> u64 {
    chain.iter().filter_map(|at| bars.get(*at)).map(Bar::duration_ms).fold(0, u64::saturating_add)
}

/// The page as HTML.
pub(crate) fn page(page: &Page) -> String {
    let mut chain = longest_chain(&page.bars);
    if chain_ms(&page.bars, &chain) == 0 {
        chain.clear();
    }
    let title = if page.tags.is_empty() { &page.dockerfile } else { &page.tags };
    let mut out = String::with_capacity(16 << 10);
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; base-uri 'none'; form-action 'none'",
        fingerprint(STYLE),
        fingerprint(SCRIPT)
    );
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n<title>{} · mica build</title>\n<style>{STYLE}</style>\n</head>\n<body>\n",
        escaped(title)
    );
    header(&mut out, page, &chain, title);
    if page.bars.is_empty() {
        out.push_str("<p>No step was planned.</p>\n");
    } else {
        chart(&mut out, page, &chain);
        table(&mut out, page, &chain);
    }
    let _ =
        write!(out, "<aside id=\"detail\" hidden></aside>\n<script>{SCRIPT}</script>\n</body>\n</html>\n");
    out
}

fn header(out: &mut String, page: &Page, chain: &[usize], title: &str) {
    let _ = write!(out, "<header>\n<h1>{}</h1>\n<p class=\"sub\">", escaped(title));
    let result = if page.error.is_some() { "failed" } else { "built" };
    let _ = writeln!(
        out,
        "<strong class=\"result {result}\">{result}</strong> from {}, begun {}</p>",
        escaped(&page.dockerfile),
        escaped(&page.begun)
    );
    if let Some(error) = &page.error {
        let _ = writeln!(out, "<p class=\"error\">{}</p>", escaped(error));
    }
    let steps = || page.bars.iter().filter(|bar| bar.is_step());
    let count = |state: State| steps().filter(|bar| bar.state == state).count();
    let sum = |of: &dyn Fn(&Bar) -> u64| steps().map(of).fold(0, u64::saturating_add);
    let known = steps().filter(|bar| bar.saved_ms.is_some()).count();
    let mut numbers = vec![
        ("wall time", duration(page.wall_ms), "wall"),
        ("longest chain", duration(chain_ms(&page.bars, chain)), "chain"),
        ("sum of the steps", duration(sum(&Bar::duration_ms)), "sum"),
        ("steps", steps().count().to_string(), "steps"),
        ("ran", count(State::Ran).to_string(), "ran"),
        ("cached", count(State::Cached).to_string(), "cached"),
    ];
    let unfinished =
        [(State::Failed, "failed"), (State::Cancelled, "ended early"), (State::Waiting, "not reached")];
    for (state, word) in unfinished.into_iter().filter(|(state, _)| count(*state) > 0) {
        numbers.push((word, count(state).to_string(), "unfinished"));
    }
    if known > 0 {
        let saved = duration(sum(&|bar| bar.saved_ms.unwrap_or(0)));
        numbers.push(("saved by the cache", format!("about {saved}"), "saved"));
    }
    out.push_str("<dl class=\"totals\">\n");
    for (name, value, id) in numbers {
        let _ = writeln!(out, "<div><dt>{name}</dt><dd data-total=\"{id}\">{value}</dd></div>");
    }
    out.push_str("</dl>\n</header>\n");
}

/// Rows of bars. Screen readers are led to the table, which says more.
fn chart(out: &mut String, page: &Page, chain: &[usize]) {
    let end_ms = page.bars.iter().map(|bar| bar.end_ms).chain([page.wall_ms, 1]).max().unwrap_or(1);
    let percent = |ms: u64| format!("{:.3}", ms as f64 * 100.0 / end_ms as f64);
    let ticks = ticks(end_ms);
    out.push_str(
        "<section class=\"chart\" aria-hidden=\"true\">\n<svg class=\"defs\" width=\"0\" height=\"0\"><defs>",
    );
    out.push_str(
        "<pattern id=\"hatch\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" \
         patternTransform=\"rotate(45)\"><rect class=\"hatch-back\" width=\"6\" height=\"6\"/>\
         <rect class=\"hatch-line\" width=\"2\" height=\"6\"/></pattern><symbol id=\"grid\">",
    );
    for tick in &ticks {
        let at = percent(*tick);
        let _ = write!(out, "<line class=\"tick\" x1=\"{at}%\" x2=\"{at}%\" y1=\"0\" y2=\"100%\"/>");
    }
    out.push_str("</symbol></defs></svg>\n");
    out.push_str(
        "<p class=\"legend\"><span class=\"key ran\"></span>ran <span class=\"key cached\"></span>cached \
         <span class=\"key failed\"></span>failed <span class=\"key cancelled\"></span>ended early \
         <span class=\"key chain\"></span>▸ longest chain</p>\n",
    );
    out.push_str("<div class=\"axis row\"><span class=\"name\"></span><svg class=\"track\">");
    for tick in &ticks {
        let at = percent(*tick);
        let anchor = if *tick == 0 { "start" } else { "middle" };
        let _ = write!(out, "<text x=\"{at}%\" y=\"14\" text-anchor=\"{anchor}\">{}</text>", duration(*tick));
    }
    out.push_str("</svg></div>\n");
    let mut stage = None;
    for position in by_stage(&page.bars) {
        let Some(bar) = page.bars.get(position) else { continue };
        if stage != Some(&bar.stage) {
            let _ = writeln!(out, "<h2>{}</h2>", escaped(&bar.stage));
            stage = Some(&bar.stage);
        }
        let is_chained = chain.contains(&position);
        let inputs: Vec<String> = bar.inputs.iter().map(ToString::to_string).collect();
        let _ = write!(
            out,
            "<div class=\"row {}{}\" data-row=\"{position}\" data-inputs=\"{}\"><a class=\"name\" href=\"#row-{position}\" \
             tabindex=\"-1\" title=\"{}\">{}{}</a><svg class=\"track\"><use href=\"#grid\"/>",
            bar.state.class(),
            if is_chained { " chained" } else { "" },
            inputs.join(" "),
            escaped(&bar.name),
            if is_chained { "<span class=\"mark\">▸</span>" } else { "" },
            escaped(&bar.name)
        );
        bar_svg(out, bar, end_ms, &percent, is_chained);
        out.push_str("</svg></div>\n");
    }
    out.push_str("</section>\n");
}

fn bar_svg(out: &mut String, bar: &Bar, end_ms: u64, percent: &dyn Fn(u64) -> String, is_chained: bool) {
    if bar.state == State::Waiting {
        let _ = write!(out, "<text class=\"label\" x=\"0\" dx=\"4\" y=\"14\">not reached</text>");
        return;
    }
    let (start, width) = (percent(bar.start_ms), percent(bar.duration_ms()));
    let class = bar.state.class();
    // What is drawn as an outline needs room inside of it.
    let width_min = if bar.state == State::Ran { 3 } else { 8 };
    // A minimum in pixels under the true width, so that the shortest can be seen and pointed at.
    let _ = write!(
        out,
        "<rect class=\"bar {class}\" x=\"{start}%\" y=\"4\" width=\"{width_min}\" height=\"12\"/>\
         <rect class=\"bar {class}\" x=\"{start}%\" y=\"4\" width=\"{width}%\" height=\"12\"/>"
    );
    if is_chained {
        let _ = write!(
            out,
            "<rect class=\"chain\" x=\"{start}%\" y=\"17\" width=\"{width_min}\" height=\"3\"/>\
             <rect class=\"chain\" x=\"{start}%\" y=\"17\" width=\"{width}%\" height=\"3\"/>"
        );
    }
    let label = match bar.state {
        State::Ran | State::Running => duration(bar.duration_ms()),
        State::Cached => State::Cached.word().to_owned(),
        state => format!("{} after {}", state.word(), duration(bar.duration_ms())),
    };
    // To the right of the bar, or to its left where there is more room; over its end where there is none.
    let (end, room_left) = (bar.end_ms as f64 / end_ms as f64, bar.start_ms as f64 / end_ms as f64);
    let (x, dx, anchor) = match (1.0 - end, room_left) {
        (right, left) if right > LABEL_ROOM || right > left.max(LABEL_ROOM_MIN) => {
            (percent(bar.end_ms), width_min + 3, "start")
        }
        (_, left) if left > LABEL_ROOM_MIN => (percent(bar.start_ms), -5, "end"),
        _ => (percent(bar.end_ms), -6, "end"),
    };
    let _ = write!(
        out,
        "<text class=\"label\" x=\"{x}%\" dx=\"{dx}\" y=\"14\" text-anchor=\"{anchor}\">{label}</text>"
    );
}

fn table(out: &mut String, page: &Page, chain: &[usize]) {
    out.push_str("<section class=\"table\">\n<h2 id=\"table\">Every step</h2>\n<table>\n<thead><tr>");
    let columns = ["#", "step", "result", "why", "start", "took", "waited for", "in", "out", "longest chain"];
    for column in columns {
        let class = if ["start", "took", "in", "out"].contains(&column) { " class=\"number\"" } else { "" };
        let _ = write!(out, "<th scope=\"col\"{class}>{column}</th>");
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for position in by_stage(&page.bars) {
        let Some(bar) = page.bars.get(position) else { continue };
        let place = bar.line.map(|line| format!("{}:{line}, ", page.dockerfile)).unwrap_or_default();
        let has_time = bar.state != State::Waiting;
        let time = |ms: u64| if has_time { duration(ms) } else { String::new() };
        let saved = bar.saved_ms.filter(|ms| bar.state == State::Cached && *ms > 0);
        let saved = saved.map(|ms| format!(" (about {} saved)", duration(ms))).unwrap_or_default();
        let bytes = |bytes: Option<u64>| bytes.map(human_size).unwrap_or_default();
        let _ = writeln!(
            out,
            "<tr id=\"row-{position}\" class=\"{}\" data-start=\"{}\" data-end=\"{}\"><td>{}</td>\
             <th scope=\"row\"><span class=\"step\">{}</span> <span class=\"place\">{}{}</span></th><td>{}</td><td>{}{saved}</td>\
             <td class=\"number\">{}</td><td class=\"number\">{}</td><td>{}</td><td class=\"number\">{}</td>\
             <td class=\"number\">{}</td><td>{}</td></tr>",
            bar.state.class(),
            bar.start_ms,
            bar.end_ms,
            position + 1,
            escaped(&bar.name),
            escaped(&place),
            escaped(&bar.stage),
            bar.state.word(),
            escaped(&bar.why),
            time(bar.start_ms),
            time(bar.duration_ms()),
            waited_for(page, bar),
            bytes(bar.bytes_in),
            bytes(bar.bytes_out),
            if chain.contains(&position) { "yes" } else { "" },
        );
    }
    out.push_str("</tbody>\n</table>\n</section>\n");
}

/// Numbers of the inputs, the one that was done last first, and how long the step stood ready.
fn waited_for(page: &Page, bar: &Bar) -> String {
    let mut inputs: Vec<(u64, usize)> =
        bar.inputs.iter().filter_map(|at| Some((page.bars.get(*at)?.end_ms, *at))).collect();
    inputs.sort_by_key(|(end_ms, at)| (std::cmp::Reverse(*end_ms), *at));
    inputs.dedup();
    let links: Vec<String> =
        inputs.iter().map(|(_, at)| format!("<a href=\"#row-{at}\">#{}</a>", at + 1)).collect();
    let ready_ms = inputs.first().map_or(0, |(end_ms, _)| *end_ms);
    let idle_ms = bar.start_ms.saturating_sub(ready_ms);
    match bar.state {
        State::Ran | State::Failed if !inputs.is_empty() && idle_ms >= 100 => {
            format!("{}, then {} for its turn", links.join(", "), duration(idle_ms))
        }
        _ => links.join(", "),
    }
}

/// Positions, those of one stage together, stages in the order in which they first appear.
fn by_stage(bars: &[Bar]) -> Vec<usize> {
    let mut stages: Vec<&str> = Vec::new();
    for bar in bars {
        if !stages.contains(&bar.stage.as_str()) {
            stages.push(&bar.stage);
        }
    }
    let mut positions: Vec<usize> = (0..bars.len()).collect();
    positions.sort_by_key(|position| {
        let stage = bars.get(*position).map(|bar| bar.stage.as_str());
        stages.iter().position(|known| Some(*known) == stage)
    });
    positions
}

/// Round times, four to eight of them.
fn ticks(end_ms: u64) -> Vec<u64> {
    let units = [1, 10, 100, 1000, 10_000, 60_000, 600_000, 3_600_000, 36_000_000];
    let widths = units.into_iter().flat_map(|unit| [unit, unit * 2, unit * 5]).filter(|width| *width > 0);
    let width = widths.into_iter().find(|width| end_ms / width <= 7).unwrap_or(end_ms.div_ceil(7).max(1));
    (0..=end_ms / width).map(|tick| tick * width).collect()
}

/// `350 ms`, `1.2 s`, `2 min 5 s`, `1 h 2 min`
fn duration(ms: u64) -> String {
    let joined = |large: u64, unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{large} {unit}"),
        _ => format!("{large} {unit} {small} {small_unit}"),
    };
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 if ms.is_multiple_of(1000) => format!("{} s", ms / 1000),
        1000..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        60_000..3_600_000 => joined(ms / 60_000, "min", ms % 60_000 / 1000, "s"),
        _ => joined(ms / 3_600_000, "h", ms % 3_600_000 / 60_000, "min"),
    }
}

/// A foreign text, safe between tags and in attributes, and of bounded length.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in printable(text).chars().take(TEXT_LENGTH_MAX) {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // They turn the order of what follows around.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' => {
                out.push('\u{fffd}')
            }
            letter => out.push(letter),
        }
    }
    out
}

/// What a content security policy knows a style or script by.
fn fingerprint(text: &str) -> String {
    let digest = Digest::sha256(text.as_bytes());
    let digits = digest.hex().as_bytes().chunks(2);
    let byte =
        |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap_or_default(), 16).unwrap_or(0);
    STANDARD.encode(digits.map(byte).collect::<Vec<u8>>())
}

#[cfg(test)]
#[path = "timings_tests.rs"]
mod tests;
