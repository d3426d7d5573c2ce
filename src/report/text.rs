//! The page that a person reads after a run: short, aligned, the numbers first.

use comfy_table::{CellAlignment, Table, presets};

use crate::engine::Description;

use super::words::{bytes, percent, seconds, shorten, thousands};
use super::{Change, Reason, Report, Verification};

/// The report for people; `width` is that of the terminal in characters, none where there is none.
pub fn text(report: &Report, width: Option<usize>) -> String {
    let name_width = width.map_or(usize::MAX, |w| w.saturating_sub(58).max(16));
    let mut page =
        format!("{} -> {}", shorten(&report.input.path, usize::MAX), shorten(&report.output.path, usize::MAX));
    if !report.written {
        page.push_str("  (dry run, nothing written)");
    }
    page.push_str("\n\n");
    page.push_str(&totals(report));
    page.push('\n');
    page.push_str(&parts(report, name_width));
    page.push('\n');
    if let Some(table) = report.agreement.as_ref().and_then(|agreement| agreement.table(name_width)) {
        page.push_str(&table);
        page.push('\n');
    }
    if let Some(calibration) = report.calibration.as_ref().filter(|c| !c.fidelity.is_empty()) {
        page.push_str(&calibration.table(name_width));
        page.push('\n');
    }
    for (label, line) in facts(report) {
        page.push_str(&format!("{label:<10}{line}\n"));
    }
    page
}

fn totals(report: &Report) -> String {
    let mut rows = vec![row("parameters", report.parameters), row("MACs", report.macs)];
    if let (Some(before), Some(after)) = (report.input.bytes, report.output.bytes) {
        rows.push(["file".to_owned(), bytes(before), bytes(after), percent(after, before)]);
    }
    table(&["<", "before", "after", "kept"], rows.into_iter().map(Vec::from))
}

fn row(name: &str, change: Change) -> [String; 4] {
    [name.to_owned(), thousands(change.before), thousands(change.after), percent(change.after, change.before)]
}

/// The most tasks that are listed on the first page; the JSON report has all.
const MOST_TASKS: usize = 12;

/// Trunk and branches, which add up to the whole; then the tasks, each with everything that it needs.
fn parts(report: &Report, name_width: usize) -> String {
    let line = |label: &str, parameters: Change, macs: Change| {
        let cells = |c: Change| [thousands(c.before), thousands(c.after), percent(c.after, c.before)];
        let ([a, b, c], [d, e, f]) = (cells(parameters), cells(macs));
        vec![shorten(label, name_width), a, b, c, d, e, f]
    };
    let parts = report.parts.iter().map(|part| line(&part.label, part.parameters, part.macs));
    let tasks = report.tasks.iter().filter(|_| (2..=MOST_TASKS).contains(&report.tasks.len()));
    let tasks = tasks.map(|task| line(&format!("all that {} needs", task.name), task.parameters, task.macs));
    let rows = parts.chain(tasks);
    table(&["<", "parameters", "after", "kept", "MACs", "after", "kept"], rows)
}

/// Everything that is one line, with its label.
fn facts(report: &Report) -> Vec<(&'static str, String)> {
    let mut lines: Vec<(&'static str, String)> = Vec::new();
    lines.extend(report.dropped.as_ref().map(|dropped| ("dropped", dropped.line())));
    lines.extend(report.options.tasks_line().map(|line| ("ratios", line)));
    lines.push(("groups", groups(report)));
    // Every model keeps the biases of its outputs; only what matters belongs on the first page.
    if report.stays.iter().map(|r| r.share).sum::<f64>() >= 0.01
        && let Some(line) = stays(&report.stays, "stay whole", 2)
    {
        lines.push(("held", line));
    }
    if !report.opaque.is_empty() {
        let mut operators: Vec<String> = Vec::new();
        for entry in &report.opaque {
            if !operators.contains(&entry.operator) {
                operators.push(entry.operator.clone());
            }
        }
        let nodes: usize = report.opaque.iter().map(|o| o.nodes).sum();
        let named: Vec<String> = operators.iter().take(6).map(|o| shorten(o, 40)).collect();
        let more = if operators.len() > 6 { ", …" } else { "" };
        lines.push(("opaque", format!("{nodes} node{} kept as they are: {}{more}", plural(nodes), named.join(", "))));
    }
    lines.extend(report.agreement.as_ref().map(|agreement| ("tasks", agreement.line())));
    if report.macs_per_dynamic_element {
        lines.push(("MACs", "per element of the dynamic axes".to_owned()));
    }
    lines.push(("verified", verification_text(&report.verification)));
    lines.extend(repair_text(&report.verification).map(|line| ("repair", line)));
    lines.extend(report.calibration.as_ref().map(|calibration| ("samples", calibration.line())));
    let losses = report.calibration.as_ref().and_then(|calibration| calibration.gradients.as_ref());
    lines.extend(losses.map(|losses| ("losses", losses.line())));
    if !report.approximated.is_empty() {
        let count = report.approximated.len();
        let line = format!("{count} node{} with statistics over what remains", plural(count));
        lines.push(("approx.", line));
    }
    lines.extend(drift_text(&report.verification).map(|line| ("drift", line)));
    if !report.stages.is_empty() {
        let slow = report.stages.iter().filter(|s| s.seconds >= 0.001);
        let times: Vec<String> = slow.map(|s| format!("{} {}", s.stage, seconds(s.seconds))).collect();
        let total = seconds(report.stages.iter().map(|s| s.seconds).sum());
        lines.push(("time", [vec![total], times].concat().join(", ")));
    }
    lines
}

fn groups(report: &Report) -> String {
    let groups = &report.groups;
    let mut line = format!("{} of {} shrunk", groups.shrunk, groups.total);
    let others = [
        (groups.whole, "whole"),
        (groups.protected, "protected"),
        (groups.nested, "nested"),
        (groups.locked, "locked"),
    ];
    for (count, what) in others.iter().filter(|(count, _)| *count > 0) {
        line.push_str(&format!(", {count} {what}"));
    }
    let channels = report.channels;
    line + &format!("; channels {} -> {}", thousands(channels.before), thousands(channels.after))
}

/// How much stays and why, naming the `most` biggest reasons; none where nothing stays.
pub(super) fn stays(reasons: &[Reason], verb: &str, most: usize) -> Option<String> {
    if reasons.is_empty() {
        return None;
    }
    // What many places have in common is said once.
    let mut common: Vec<(&str, Vec<&Reason>)> = Vec::new();
    for reason in reasons {
        match common.iter_mut().find(|(why, _)| *why == reason.why) {
            Some((_, places)) => places.push(reason),
            None => common.push((&reason.why, vec![reason])),
        }
    }
    let mut sentences: Vec<(f64, String)> = common
        .into_iter()
        .map(|(why, places)| {
            let sentence = match places.as_slice() {
                [only] => shorten(&only.reason, 160),
                several => format!("{} at {} places", shorten(why, 100), several.len()),
            };
            (places.iter().map(|r| r.share).sum(), sentence)
        })
        .collect();
    sentences.sort_by(|a, b| b.0.total_cmp(&a.0));
    let named = sentences.iter().take(most).map(|(share, sentence)| format!("{sentence} ({})", of_all(*share)));
    let share: f64 = reasons.iter().map(|r| r.share).sum();
    let mut line = format!("{} of the parameters {verb}: {}", of_all(share), named.collect::<Vec<_>>().join(", "));
    if sentences.len() > most {
        line.push_str(&format!(" and {} more", sentences.len() - most));
    }
    Some(line)
}

fn of_all(share: f64) -> String {
    if share > 0.0 && share < 0.0005 { "< 0.1 %".to_owned() } else { format!("{:.1} %", 100.0 * share) }
}

/// How verification ended, in one line.
pub fn verification_text(verification: &Verification) -> String {
    let label = verification.runtime.as_ref().map(Description::label);
    let engine = label.as_deref().or(verification.engine).unwrap_or("no engine");
    let reason = shorten(verification.reason.as_deref().unwrap_or_default(), 500);
    match verification.outcome {
        "passed" => {
            let (mut outputs, silent): (Vec<_>, Vec<_>) = verification.outputs.iter().partition(|o| o.compared > 0);
            let silent: Vec<String> = silent.iter().map(|o| format!("`{}`", shorten(&o.name, 40))).collect();
            let silent = match silent.as_slice() {
                [] => String::new(),
                names => format!("; NOT compared, empty or NaN for this input: {}", names.join(", ")),
            };
            outputs.sort_by(|a, b| b.max_relative.total_cmp(&a.max_relative));
            let worst = outputs.iter().take(4).map(|o| format!("`{}` {}", shorten(&o.name, 40), small(o.max_relative)));
            let more = if outputs.len() > 4 { ", …" } else { "" };
            let tolerance = verification.tolerance.unwrap_or_default();
            let rounded = if outputs.iter().any(|o| o.max_relative > tolerance) {
                "; what exceeds it is rounding: the last bits of weights and inputs move the original as far"
            } else {
                ""
            };
            let worst = worst.collect::<Vec<_>>().join(", ");
            let original = match verification.approximated {
                0 => "the masked original".to_owned(),
                _ => "the masked original with statistics over what remains,".to_owned(),
            };
            format!(
                "equals {original} with {engine}: {worst}{more} (relative, tolerance {tolerance:.0e}{rounded}){silent}"
            )
        }
        "failed" => match &verification.first_difference {
            Some(first) => format!("FAILED with {engine}: {reason}; first difference: {}", shorten(first, 300)),
            None => format!("FAILED with {engine}: {reason}"),
        },
        "not compared" => format!("structure only, equality NOT checked: {reason}"),
        "cannot run" => format!("not verified: {engine} cannot run the model: {reason}"),
        _ => "not verified: switched off".to_owned(),
    }
}

/// How the judgement of a repair ended, in one line; none where nothing was repaired.
pub fn repair_text(verification: &Verification) -> Option<String> {
    let check = verification.repair.as_ref()?;
    let outputs = match &check.reason {
        None => format!("outputs are numbers with {}", check.engine),
        Some(reason) => format!("outputs NOT looked at: {}", shorten(reason, 300)),
    };
    Some(format!(
        "verified: {} constants changed, {} added, all else is as it was; {outputs}",
        check.changed, check.added
    ))
}

/// How far the outputs have moved from those of the dense model, in one line; none where that was not measured.
pub fn drift_text(verification: &Verification) -> Option<String> {
    let mut rows: Vec<_> = verification.drift.iter().collect();
    rows.sort_by(|a, b| b.relative.total_cmp(&a.relative));
    let worst = rows.iter().take(4).map(|row| {
        let cosine = row.cosine.map_or_else(String::new, |cosine| format!(" (cosine {cosine:.3})"));
        format!("`{}` {:.1} %{cosine}", shorten(&row.name, 40), 100.0 * row.relative)
    });
    let worst = worst.collect::<Vec<_>>().join(", ");
    let more = if rows.len() > 4 { ", …" } else { "" };
    (!rows.is_empty()).then(|| format!("{worst}{more} from the dense model (relative, L2)"))
}

fn small(difference: f64) -> String {
    if difference == 0.0 { "0".to_owned() } else { format!("{difference:.1e}") }
}

pub(super) fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// A table without lines, with numbers aligned to the right; `<` before a header marks a column of text.
pub(super) fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().map(|h| h.trim_start_matches('<')));
    table.add_rows(rows);
    for (column, header) in table.column_iter_mut().zip(header) {
        column.set_padding((0, 2));
        if !header.starts_with('<') {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt() + "\n"
}
